package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/mask"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/rule"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/trigger"
)

// rowSecurity returns an error if row level security on Rowhook's own tables would reject captured
// changes.
func (p *planner) rowSecurity(ctx context.Context) error {
	secured, err := queue.FindSecured(ctx, p.conn)
	if err != nil {
		return err
	}
	var refused []error
	for i := range secured {
		message := secured[i].Problem() + ": " + secured[i].Remedy()
		if secured[i].Captures {
			refused = append(refused, errors.New(message))
		}
		p.plan.Warnings = append(p.plan.Warnings, message)
	}
	return errors.Join(refused...)
}

// check finds the faults of the specs, and reads their tables.
func (p *planner) check(ctx context.Context, specs []trigger.Spec) error {
	var problems trigger.SpecErrors
	var user string
	if err := p.conn.QueryRow(ctx, "select current_user").Scan(&user); err != nil {
		return fmt.Errorf("read the current role: %w", err)
	}
	for i := range specs {
		spec, f := &specs[i], &faults{spec: &specs[i], index: i}
		for _, fault := range rule.Faults(spec) {
			f.of(nil)("", fault.Problem+": "+fault.Remedy, fault.Path...)
		}
		var err error
		if spec.Many() {
			p.relations[i], err = p.findTables(ctx, spec, user, f)
		} else {
			p.relations[i], err = p.findTable(ctx, spec, user, f)
		}
		if err == nil {
			err = p.checkTables(ctx, spec, p.relations[i], f)
		}
		if err != nil {
			return err
		}
		problems = append(problems, f.errors()...)
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// checkMask finds masked paths that begin with no column of any of the tables. The payload of a manual event
// may have other members, so for a trigger that takes those it only warns.
func (p *planner) checkMask(spec *trigger.Spec, rels []*relation, lacks func(missing, message string, path ...string)) {
	for i, path := range spec.Payload.Mask {
		name, any, err := mask.Column(path)
		message := ""
		switch {
		case err != nil:
			message = fmt.Sprintf("the masked path %q %s", path, strings.Replace(err.Error(), "; ", ": ", 1))
		case !any:
			has := func(rel *relation) bool { _, ok := rel.column(name); return ok }
			if !slices.ContainsFunc(rels, has) {
				message = p.missingColumn(rels[0], name)
			}
		}
		if err == nil && message != "" && spec.On.Manual {
			p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: payload.mask has %s, which masks only what manual events call so: %s", spec.Name, path, message))
			continue
		}
		missing := ""
		if err == nil {
			missing = columnOfRelation(rels[0], name)
		}
		lacks(missing, message, "payload", "mask", fmt.Sprint(i))
	}
}

// findTable finds the table of a spec with one.
func (p *planner) findTable(ctx context.Context, spec *trigger.Spec, user string, f *faults) ([]*relation, error) {
	rel, err := findRelation(ctx, p.conn, spec.Table)
	lacks := f.of(rel)
	if message, ok := invalidName(err); ok {
		lacks("", message, "table")
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the table %s: %w", spec.Table, err)
	}
	if rel == nil {
		message, renamed, err := p.missing(ctx, spec)
		if err != nil {
			return nil, err
		}
		missing := "the table " + spec.Table
		if renamed {
			missing = "" // the file has to follow
		}
		lacks(missing, message, "table")
		return nil, nil
	}
	if message := rel.refusal(user, *spec); message != "" {
		lacks("", message, "table")
		return nil, nil
	}
	return []*relation{rel}, nil
}

// checkTables finds the faults of a spec on each of its tables.
func (p *planner) checkTables(ctx context.Context, spec *trigger.Spec, rels []*relation, f *faults) error {
	taken, err := p.taken(ctx, spec, rels)
	if err != nil {
		return err
	}
	if keyed(spec) {
		if err := readKeys(ctx, p.conn, rels, spec.Order.By); err != nil {
			return err
		}
	}
	if spec.Payload.Numbers == trigger.NumbersText {
		if err := readNumbers(ctx, p.conn, rels); err != nil {
			return err
		}
	}
	warned := len(p.plan.Warnings)
	for _, w := range rule.Warnings(spec) {
		p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: %s: %s: %s", spec.Name, strings.Join(w.Path, "."), w.Problem, w.Remedy))
	}
	for _, rel := range rels {
		if err := p.checkTable(ctx, spec, rel, f); err != nil {
			return err
		}
		if name := taken[rel.OID]; name != "" {
			f.of(rel)("", fmt.Sprintf("%s already has a trigger %s that is not Rowhook's: rename one of the two", rel, name), "name")
		}
	}
	if spec.Many() && len(rels) > 0 {
		p.checkMask(spec, rels, f.of(rels[0]))
	}
	p.plan.Warnings = append(p.plan.Warnings[:warned:warned], fewer(p.plan.Warnings[warned:])...)
	return nil
}

// fewer leaves at most three of the warnings of one trigger, and says how many more there are.
func fewer(warnings []string) []string {
	const most = 3
	if len(warnings) <= most {
		return warnings
	}
	last := fmt.Sprintf("%s (and %d more of the kind, of other tables)", warnings[most-1], len(warnings)-most)
	return append(slices.Clone(warnings[:most-1]), last)
}

// checkTable finds the faults of a spec on one table.
func (p *planner) checkTable(ctx context.Context, spec *trigger.Spec, rel *relation, f *faults) error {
	lacks := f.of(rel)
	problem := func(message string, path ...string) { lacks("", message, path...) }
	if spec.Capture == trigger.CaptureStatement && !atCommit(spec) {
		if reason := byRow(spec, rel); reason != "" {
			problem("nothing can be captured by the statement: "+reason+": write capture: auto, which captures row by row here", "capture")
		}
	}
	if rel.Inherited && !rel.Hypertable && !spec.Many() {
		p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: other tables inherit from %s, and Postgres does not run its triggers for their rows: "+
			"give each of them its own trigger", spec.Name, rel))
	}
	if on := spec.On; rel.Kind == "p" && on.Update.Enabled && !(on.Insert && on.Delete) {
		p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: %s is partitioned, and an update that moves a row to another partition is a delete and an insert: "+
			"add insert and delete to on if such updates matter", spec.Name, rel))
	}
	for j, name := range spec.On.Update.Columns {
		lacks(columnOfRelation(rel, name), p.missingColumn(rel, name), "on", "update", "columns", fmt.Sprint(j))
	}
	for _, list := range payloadLists(spec) {
		for j, name := range list.columns {
			lacks(columnOfRelation(rel, name), p.missingColumn(rel, name), list.path(j)...)
		}
	}
	if err := p.checkPlaceholders(spec, rel, lacks); err != nil {
		return err
	}
	if !spec.Many() {
		p.checkMask(spec, []*relation{rel}, lacks)
	}
	if atCommit(spec) {
		p.checkCommit(spec, rel, problem)
	}
	if ordered(spec) {
		p.checkOrder(spec, rel, lacks)
	}
	if err := p.checkWhen(ctx, spec, rel, lacks); err != nil {
		return err
	}
	return p.checkCasts(ctx, spec, rel, problem)
}

// checkWhen finds the faults of a trigger's when on one table. Tables with the same columns need it
// once: whole schemas of such tables are watched by one trigger.
func (p *planner) checkWhen(ctx context.Context, spec *trigger.Spec, rel *relation, lacks func(missing, message string, path ...string)) error {
	if spec.When == "" {
		return nil
	}
	shape := fmt.Sprintf("%s\x00%s\x00%v", operations(spec), spec.When, rel.shape())
	if p.sound[shape] {
		return nil
	}
	var message, missing string
	err := pg.WithUsersPath(ctx, p.conn, func() (err error) {
		if message, err = checkWhen(ctx, p.conn, rel, *spec); message != "" && err == nil {
			missing, err = missingInWhen(ctx, p.conn, rel, *spec)
		}
		return err
	})
	if err != nil {
		return err
	}
	lacks(missing, message, "when")
	if message == "" {
		if p.sound == nil {
			p.sound = map[string]bool{}
		}
		p.sound[shape] = true
	}
	return nil
}

// tablePath returns the path of the key that names a table of a spec.
func tablePath(spec *trigger.Spec, rel *relation) []string {
	if spec.Many() {
		return []string{"tables", fmt.Sprint(rel.entry)}
	}
	return []string{"table"}
}

// checkOrder finds the faults of a trigger's key, and reads it.
func (p *planner) checkOrder(spec *trigger.Spec, rel *relation, lacks func(missing, message string, path ...string)) {
	path := func(column int) []string {
		if column < 0 || spec.Order.ByRow() {
			return []string{"order"}
		}
		return []string{"order", "by", fmt.Sprint(column)}
	}
	if !spec.Order.ByRow() {
		for i, name := range spec.Order.By {
			lacks(columnOfRelation(rel, name), p.missingColumn(rel, name), path(i)...)
		}
	}
	if spec.Order.Latest && !spec.Order.ByRow() {
		row := rel.primaryKey()
		// Changes of different rows do not make each other superfluous.
		if len(row) == 0 || slices.ContainsFunc(row, func(name string) bool { return !slices.Contains(spec.Order.By, name) }) {
			lacks("", "latest sends only the newest change of a key, and a key without the primary key of "+rel.String()+" may have changes of several rows: order by row", "order", "latest")
		}
	}
	rel.key = keyOf(rel, spec, func(column int, message string) { lacks("", message, path(column)...) })
	p.warnOfOrder(spec, rel)
}

// warnOfOrder warns of an order that does less or costs more than its spec suggests.
func (p *planner) warnOfOrder(spec *trigger.Spec, rel *relation) {
	key := rel.keyColumns()
	if spec.Order.Strict {
		row := rel.primaryKey()
		// Changes of one row wait for each other by its lock.
		if len(row) > 0 && !slices.ContainsFunc(row, func(name string) bool { return !slices.Contains(key, name) }) {
			p.plan.Warnings = append(p.plan.Warnings, spec.Name+": order.strict is of no use, since a key that has the primary key of "+rel.String()+
				" is of one row, and changes of one row are in order without it. It costs latency: remove it")
		}
	}
}

// checkCasts reports columns whose JSON is made by code that depends on the settings of captures.
func (p *planner) checkCasts(ctx context.Context, spec *trigger.Spec, rel *relation, problem func(message string, path ...string)) error {
	found, err := checkCasts(ctx, p.conn, rel, spec)
	if err != nil {
		return err
	}
	for _, name := range rel.columnNames() {
		path := tablePath(spec, rel)
		for _, list := range payloadLists(spec) {
			if i := slices.Index(list.columns, name); i >= 0 {
				path = list.path(i)
				break
			}
		}
		problem(found[name], path...)
	}
	return nil
}

// missing returns the message that the table of a spec does not exist. renamed says that the table
// which the trigger watches has another name now.
func (p *planner) missing(ctx context.Context, spec *trigger.Spec) (message string, renamed bool, err error) {
	var was *relation
	if row := p.in.triggers[spec.Name]; row != nil && !row.Removed {
		if was, err = readRelation(ctx, p.conn, row.Relation); err != nil {
			return "", false, err
		}
		if was != nil && !p.renamed(row, was) {
			was = nil // the table is as it was: the file names another one
		}
	}
	message, err = missingTable(ctx, p.conn, spec.Table, was)
	return message, was != nil, err
}

// renamed reports whether a table has another name than when its trigger was applied.
func (p *planner) renamed(row *triggerRow, now *relation) bool {
	return row.Schema != now.Schema || row.Table != now.Name
}

// columnOfRelation names a column for SpecError.Missing.
func columnOfRelation(rel *relation, name string) string {
	return fmt.Sprintf("the column %s of %s", pg.PlainName(name), rel)
}

// missingColumn returns a message if the column does not exist, with similar names. Otherwise it
// returns "".
func (p *planner) missingColumn(rel *relation, name string) string {
	if _, ok := rel.column(name); ok {
		return ""
	}
	hint := suggest.Hint(name, rel.columnNames())
	if hint == "" {
		hint = "; its columns are " + strings.Join(rel.columnNames(), ", ")
	}
	return fmt.Sprintf("the table %s has no column %q%s", rel, name, hint)
}

// taken returns, by the oid of the table, the name of an SQL trigger of somebody else that has a
// name which this trigger needs.
func (p *planner) taken(ctx context.Context, spec *trigger.Spec, rels []*relation) (map[uint32]string, error) {
	var id int32
	if row := p.in.triggers[spec.Name]; row != nil {
		id = row.ID
	}
	oids, names := make([]uint32, 0, len(rels)), []string(nil)
	for _, rel := range rels {
		oids = append(oids, rel.OID)
		for _, op := range sqlTriggers(spec, rel) {
			if name := sqlTriggerName(spec.Name, id, op); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	found, err := pg.Collect[struct {
		Relation uint32
		Name     string
	}](ctx, p.conn, `
select t.tgrelid as relation, min(t.tgname) as name
  from pg_catalog.pg_trigger t
  join pg_catalog.pg_proc f on f.oid = t.tgfoid
  join pg_catalog.pg_namespace n on n.oid = f.pronamespace
 where t.tgrelid = any($1) and t.tgname = any($2) and n.nspname <> 'rowhook'
 group by 1`, oids, names)
	if err != nil {
		return nil, fmt.Errorf("look for triggers of the same name: %w", err)
	}
	taken := make(map[uint32]string, len(found))
	for _, t := range found {
		taken[t.Relation] = t.Name
	}
	return taken, nil
}
