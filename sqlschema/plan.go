package sqlschema

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/mask"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/trigger"
)

// Plan is what an apply would do, or has done.
type Plan struct {
	Warnings []string // what may not work as expected, and what to do

	// From is the version of the schema that the plan was made for, 0 if there was none. To is the
	// version after an apply.
	From, To int32

	setup []Change // changes of a migration; until it is done, the steps are a forecast
	newer bool     // the schema is newer than this program
	steps []*step
}

// Changes returns the changes in the order in which they are printed.
func (p *Plan) Changes() []Change {
	changes := slices.Clone(p.setup)
	for _, s := range p.steps {
		if s.Action != 0 {
			changes = append(changes, s.Change)
		}
	}
	return changes
}

// Empty reports whether nothing is to be changed.
func (p *Plan) Empty() bool { return len(p.Changes()) == 0 }

// String returns one line for each change and warning. A change begins with the sign of its action,
// and its differences follow, one a line. A warning begins with !.
func (p *Plan) String() string {
	var lines []string
	for _, c := range p.Changes() {
		indent := ""
		if c.Trigger != "" {
			indent = "  "
		}
		lines = append(lines, indent+c.line())
		for _, d := range c.Differences {
			lines = append(lines, indent+"    "+d.String())
		}
	}
	for _, w := range p.Warnings {
		lines = append(lines, "! "+w)
	}
	return strings.Join(lines, "\n")
}

// MakePlan returns what Apply would do. It changes nothing and takes no lock that a writer would
// notice. It also works before the first migration. If specs have faults, it returns all of them as
// [trigger.SpecErrors].
func MakePlan(ctx context.Context, conn *pgx.Conn, specs []trigger.Spec, settings trigger.Settings) (plan *Plan, err error) {
	return Applier{}.Plan(ctx, conn, specs, settings)
}

// Plan is MakePlan with the options of the Applier, such as GrantTo.
func (a Applier) Plan(ctx context.Context, conn *pgx.Conn, specs []trigger.Spec, settings trigger.Settings) (plan *Plan, err error) {
	err = pg.Pinned(ctx, conn, func() (err error) {
		plan, err = a.makePlan(ctx, conn, specs, settings)
		return err
	})
	return plan, err
}

func (a Applier) makePlan(ctx context.Context, conn *pgx.Conn, specs []trigger.Spec, settings trigger.Settings) (*Plan, error) {
	in, err := readInstalled(ctx, conn)
	if err != nil {
		return nil, err
	}
	p := &planner{conn: conn, in: in, plan: &Plan{}, relations: make([][]*relation, len(specs))}
	if err := p.rowSecurity(ctx); err != nil {
		return nil, err
	}
	if err := p.check(ctx, specs); err != nil {
		return nil, err
	}
	switch {
	case in.database == 0:
		p.plan.setup = append(p.plan.setup, Change{Action: Create, Object: "schema", Name: "rowhook"})
	case in.database < in.program:
		p.plan.setup = append(p.plan.setup, Change{Action: Replace, Object: "schema", Name: "rowhook", Detail: fmt.Sprintf("version %d becomes %d", in.database, in.program)})
	}
	p.plan.From, p.plan.To = in.database, max(in.database, in.program)
	p.plan.newer = in.database > in.program
	if err := p.warnOfPublications(ctx); err != nil {
		return nil, err
	}
	p.plan.setup = append(p.plan.setup, in.lack.changes()...)
	foreign, err := ForeignGrants(ctx, conn)
	if err != nil {
		return nil, err
	}
	for i := range foreign {
		p.plan.Warnings = append(p.plan.Warnings, foreign[i].Problem()+": "+foreign[i].Remedy())
	}
	if err := p.settings(settings, specs); err != nil {
		return nil, err
	}
	if err := p.removals(ctx, specs); err != nil {
		return nil, err
	}
	for i := range specs {
		if err := p.trigger(ctx, &specs[i], p.relations[i]); err != nil {
			return nil, err
		}
	}
	p.leftovers(specs)
	if err := p.mayApply(ctx); err != nil {
		return nil, err
	}
	if err := p.grants(ctx, a.GrantTo); err != nil {
		return nil, err
	}
	return p.plan, nil
}

type planner struct {
	conn      *pgx.Conn
	in        *installed
	plan      *Plan
	relations [][]*relation // by index of the spec; one, unless it has Tables

	installations int32           // planned so far
	sound         map[string]bool // a when, with the shape of a table on which it is valid
}

// do adds a step.
func (p *planner) do(s step) { p.plan.steps = append(p.plan.steps, &s) }

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
	p.warnOfEmptySegments(spec)
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
	if spec.Capture == trigger.CaptureStatement {
		if reason := byRow(spec, rel); reason != "" {
			problem("inserts can't be captured by the statement: "+reason+": write capture: auto, which captures row by row here", "capture")
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
	shape := fmt.Sprint(operations(spec), "\x00", spec.When, "\x00", rel.shape())
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
	on := spec.On.Update
	if !on.Enabled || len(on.Columns) == 0 {
		return
	}
	left := slices.DeleteFunc(key, func(name string) bool { return slices.Contains(on.Columns, name) })
	if spec.Order.ByRow() || len(left) == 0 {
		return // primary keys hardly ever change
	}
	for i, name := range left {
		left[i] = pg.PlainName(name)
	}
	p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: an update that changes the key is only in order with the events of its old and its new key if it is captured: add %s to on.update.columns",
		spec.Name, strings.Join(left, ", ")))
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

func (p *planner) settings(settings trigger.Settings, specs []trigger.Spec) error {
	byDefault := trigger.DefaultSettings()
	for _, rules := range []*[]string{&settings.Network.Deny, &settings.Network.Allow} {
		if *rules == nil {
			*rules = []string{}
		}
	}
	if settings.Alerts == nil {
		settings.Alerts = []trigger.Alert{}
	}
	for _, s := range []struct {
		name            string
		want, byDefault any
	}{
		{"retention", trigger.StoredRetention(settings.Retention, specs), byDefault.Retention},
		{"network", settings.Network, byDefault.Network},
		{"alerts", settings.Alerts, byDefault.Alerts},
	} {
		want, err := json.Marshal(s.want)
		if err != nil {
			return fmt.Errorf("encode the setting %s: %w", s.name, err)
		}
		have := p.in.settings[s.name]
		if have == nil && reflect.DeepEqual(s.want, s.byDefault) || sameJSON(have, want) {
			continue
		}
		change := Change{Action: Replace, Object: "setting", Name: s.name}
		if have == nil {
			change.Action, change.Detail = Create, string(want)
			if s.name == "alerts" { // a URL may be a secret
				change.Detail = fmt.Sprintf("%d entries", len(settings.Alerts))
			}
		} else if change.Differences, err = differences(have, want); err != nil {
			return err
		} else if len(change.Differences) == 0 {
			change.Detail = "programs of the version before keep history as long as the trigger that keeps it longest"
		}
		p.do(step{Change: change, run: writeSetting(s.name, want)})
	}
	return nil
}

// removals plans to remove triggers that are no longer configured, and what others have left on
// other tables.
func (p *planner) removals(ctx context.Context, specs []trigger.Spec) error {
	wanted := map[int32]map[uint32]bool{}
	many := map[int32]bool{}
	for i := range specs {
		if row := p.in.triggers[specs[i].Name]; row != nil {
			wanted[row.ID], many[row.ID] = map[uint32]bool{}, specs[i].Many()
			for _, rel := range p.relations[i] {
				wanted[row.ID][rel.OID] = true
			}
		}
	}
	for _, id := range p.in.byID() {
		if err := p.removal(ctx, id, wanted[id], many[id]); err != nil {
			return err
		}
	}
	return nil
}

// removal plans what is removed of one trigger: everything, or if it is still configured, so that
// keep is not nil, only what is on other tables than those. many says that it has several.
func (p *planner) removal(ctx context.Context, id int32, keep map[uint32]bool, many bool) error {
	row := p.in.row(id)
	name := fmt.Sprint(id)
	if row != nil {
		name = row.Name
	}
	left := slices.DeleteFunc(slices.Clone(p.in.captures[id]), func(c captureFound) bool { return keep[c.Relation] })
	slices.SortStableFunc(left, func(a, b captureFound) int { return cmp.Compare(a.Relation, b.Relation) })
	// Each table has its own transaction. Functions and row are removed in the last one.
	last := unitKey{stage: removing}
	if n := len(left); n > 0 {
		last.relation = left[n-1].Relation
	}
	if active := row != nil && !row.Removed; active && keep == nil {
		waiting, err := p.waiting(ctx, id)
		if err != nil {
			return err
		}
		p.do(step{
			Change: Change{Action: Remove, Object: "trigger", Name: name, Detail: "no longer configured", Events: waiting},
			unit:   last, work: id, phase: removeRow, run: markRemoved(id),
		})
	}
	for _, c := range left {
		p.do(step{
			Change: Change{Action: Remove, Object: c.object(), Name: c.Name, Table: c.Table, Trigger: name, Lock: everyoneWaits},
			unit:   unitKey{removing, c.Relation}, work: id, phase: dropCaptures, run: dropCapture(c),
		})
	}
	if keep != nil {
		p.leave(id, name, keep, many, left)
	}
	// A trigger that moves to another table takes its functions with it. One with several tables
	// keeps those of the tables that stay: see leftovers.
	if keep != nil && (len(left) == 0 || many) {
		return nil
	}
	if slices.ContainsFunc(left, func(c captureFound) bool { return c.Relation != last.relation }) {
		last = unitKey{stage: clearing}
	}
	for _, f := range p.in.functions[id] {
		if keep == nil || f.Relation == 0 {
			p.dropLater(f, name, last)
		}
	}
	return nil
}

// leave plans the end of what is recorded of tables that a trigger no longer watches.
func (p *planner) leave(id int32, name string, keep map[uint32]bool, many bool, left []captureFound) {
	for _, m := range p.in.members[id] {
		if many && keep[m.Relation] {
			continue
		}
		s := step{unit: unitKey{stage: removing}, work: id, phase: removeRow, run: leave(id, m.RelationID)}
		if slices.ContainsFunc(left, func(c captureFound) bool { return c.Relation == m.Relation }) {
			s.unit.relation = m.Relation
		}
		if m.CalledNow == nil {
			s.Change = Change{Action: Remove, Object: "table", Name: m.name(), Trigger: name, Detail: "was dropped"}
		}
		p.do(s)
	}
}

// leftovers plans to drop the functions of tables that their trigger no longer watches, and those
// of a trigger that has several tables now, or no longer. The SQL triggers that called them are
// gone by then, or call others.
func (p *planner) leftovers(specs []trigger.Spec) {
	for i := range specs {
		row := p.in.triggers[specs[i].Name]
		if row == nil {
			continue
		}
		wanted := map[int32]bool{0: !specs[i].Many()}
		for _, rel := range p.relations[i] {
			if id := p.in.relations[rel.OID]; id != 0 && specs[i].Many() {
				wanted[id] = true
			}
		}
		for _, f := range p.in.functions[row.ID] {
			if !wanted[f.Relation] && !p.removed(f.Signature) {
				p.dropLater(f, row.Name, unitKey{stage: clearing})
			}
		}
	}
}

func (p *planner) dropLater(f functionFound, name string, unit unitKey) {
	p.do(step{
		Change: Change{Action: Remove, Object: "function", Name: f.Signature, Trigger: name},
		unit:   unit, work: f.ID, phase: dropOwnFunctions, run: dropFunction(f),
	})
}

// waiting returns the number of events of a trigger that are still owed.
func (p *planner) waiting(ctx context.Context, id int32) (n int64, err error) {
	if err := p.conn.QueryRow(ctx, "select count(*) from rowhook.event_log where trigger_id = $1", id).Scan(&n); err != nil {
		return 0, fmt.Errorf("count waiting events: %w", err)
	}
	return n, nil
}

// trigger plans what one spec needs. rels are its tables: one, unless it has Tables.
func (p *planner) trigger(ctx context.Context, spec *trigger.Spec, rels []*relation) error {
	row := p.in.triggers[spec.Name]
	work := &installation{spec: spec, definition: p.in.definition, owner: p.in.owner}
	if work.rel = firstOf(spec, row, rels); work.rel == nil {
		work.rel = &relation{} // its tables are to come
	}
	var was captured
	work.newcomer = row == nil || row.Removed
	pauses, err := queue.ParsePauses(p.in.settings[queue.PausedSetting])
	if err != nil {
		return err
	}
	paused := ""
	if work.newcomer && pauses.All != nil {
		paused = "; it starts paused, since all triggers are paused"
	}
	first := len(p.plan.steps)
	if row == nil {
		p.do(step{Change: Change{Action: Create, Object: "trigger", Name: spec.Name, Detail: "on " + on(spec, rels) + paused}, phase: writeRow, run: work.writeRow})
	} else {
		work.id, work.moved = row.ID, row.Relation != work.rel.OID && !spec.Many()
		if row.Relation == work.rel.OID {
			work.relationID = row.RelationID
		}
		if err := json.Unmarshal(row.Captured, &was); err != nil {
			return fmt.Errorf("read rowhook.trigger.captured of %s: %w", spec.Name, err)
		}
		change, differs, err := rowChange(row, spec, work.rel)
		if err == nil && work.moved && !row.Removed {
			err = p.leftTable(ctx, row, spec, &change)
		}
		if err != nil {
			return err
		}
		if differs {
			if !row.Orphan {
				if change.Events, err = p.waiting(ctx, row.ID); err != nil {
					return err
				}
			}
			change.Detail += paused
			if change.Events > 0 {
				if err := orderOfWaiting(row, spec, &change); err != nil {
					return err
				}
			}
		}
		if !differs {
			change = Change{} // another one of its tables is the first one
		}
		if differs || row.Relation != work.rel.OID {
			p.do(step{Change: change, phase: writeRow, run: work.writeRow})
		}
	}
	p.lanes(work)
	if spec.Many() {
		p.own(work, first)
		return p.tables(work, row, rels, was)
	}
	p.ownFunctions(work, was)
	p.captureTriggers(work, was)
	if len(p.plan.steps) == first {
		return nil
	}
	p.do(step{phase: recordCaptured, run: work.writeCaptured})
	p.own(work, first)
	return nil
}

// own makes the steps from the first one on those of an installation, in one transaction.
func (p *planner) own(work *installation, first int) {
	own := p.plan.steps[first:]
	var unit unitKey
	if slices.ContainsFunc(own, func(s *step) bool { return s.Lock != "" }) {
		unit.relation = work.rel.OID
	}
	p.installations++
	for _, s := range own {
		s.unit, s.work, s.installs = unit, p.installations, work
	}
}

// tables plans what a spec needs on each of several tables.
func (p *planner) tables(head *installation, row *triggerRow, rels []*relation, was captured) error {
	for _, rel := range rels {
		work := &installation{spec: head.spec, rel: rel, head: head, id: head.id, definition: head.definition, owner: head.owner, first: rel == head.rel}
		had := captured{}
		known := p.in.member(head.id, rel.OID)
		switch {
		case head.id == 0:
		case known != nil:
			work.relationID = known.RelationID
			if err := json.Unmarshal(known.Captured, &had); err != nil {
				return fmt.Errorf("read rowhook.trigger_table.captured of %s: %w", head.spec.Name, err)
			}
		default:
			work.relationID = p.in.relations[rel.OID]
			if row.Relation == rel.OID && !row.Removed {
				had = was // until now it was the only table
			}
		}
		first := len(p.plan.steps)
		p.ownFunctions(work, had)
		p.captureTriggers(work, had)
		if known != nil && len(p.plan.steps) == first && (!work.first || row.Relation == rel.OID) {
			continue
		}
		p.do(step{phase: joinTable, run: work.join})
		p.do(step{phase: recordCaptured, run: work.writeCaptured})
		p.own(work, first)
	}
	return nil
}

// firstOf returns the table that rowhook.trigger names: the only one, or of several the one that it
// names already, or the first by name.
func firstOf(spec *trigger.Spec, row *triggerRow, rels []*relation) *relation {
	if len(rels) == 0 {
		return nil
	}
	if spec.Many() && row != nil && !row.Removed {
		if i := slices.IndexFunc(rels, func(rel *relation) bool { return rel.OID == row.Relation }); i >= 0 {
			return rels[i]
		}
	}
	return rels[0]
}

// on says which tables a trigger watches.
func on(spec *trigger.Spec, rels []*relation) string {
	switch {
	case !spec.Many():
		return rels[0].String()
	case len(rels) == 0:
		return "no table yet"
	}
	names := make([]string, len(rels))
	for i, rel := range rels {
		names[i] = rel.String()
	}
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%d tables: %s", len(names), someOf(names))
}

// lanes plans the rows of rowhook.lane. They are mentioned only where nothing else of the trigger
// is changed, as in a copy without its rows.
func (p *planner) lanes(work *installation) {
	want := int64(0)
	if ordered(work.spec) {
		want = queue.Lanes
	}
	have := p.in.lanes[work.id]
	if work.id == 0 {
		have = 0
	}
	if have == want {
		return
	}
	s := step{phase: makeLanes, run: func(ctx context.Context, tx *pipeline) error { return writeLanes(ctx, tx, work.id, want > 0) }}
	if row := p.in.triggers[work.spec.Name]; row != nil && !slices.ContainsFunc(p.plan.steps, func(s *step) bool { return s.Object == "trigger" && s.Name == work.spec.Name }) {
		s.Change = Change{Action: Replace, Object: "lanes", Name: "of " + work.spec.Name, Detail: fmt.Sprintf("%d become %d", have, want)}
	}
	p.do(s)
}

// orderOfWaiting adds to the change what another order means for the events that wait.
func orderOfWaiting(row *triggerRow, spec *trigger.Spec, change *Change) error {
	var was trigger.Spec
	if err := json.Unmarshal(row.Spec, &was); err != nil {
		return fmt.Errorf("read the spec of %s: %w", spec.Name, err)
	}
	note := ""
	switch {
	case was.Order.IsZero() && !spec.Order.IsZero():
		note = "what waits by now is sent without order"
	case !was.Order.IsZero() && spec.Order.IsZero():
		note = "what waits is sent without order, now"
	case !slices.Equal(was.Order.By, spec.Order.By):
		note = "what waits keeps the key that it has, and is in order with later events only by chance"
	}
	if note != "" && change.Detail != "" {
		note = "; " + note
	}
	change.Detail += note
	return nil
}

// rowChange returns the difference between a row of rowhook.trigger and the spec. differs is false
// if there is none.
func rowChange(row *triggerRow, spec *trigger.Spec, rel *relation) (change Change, differs bool, err error) {
	change = Change{Action: Replace, Object: "trigger", Name: spec.Name}
	if row.Removed {
		change.Detail = "comes back"
		return change, true, nil
	}
	if row.Relation != rel.OID && !spec.Many() {
		change.Detail = "moves to another table, " + rel.String()
	}
	want, err := json.Marshal(spec)
	if err != nil {
		return change, false, fmt.Errorf("encode the spec of %s: %w", spec.Name, err)
	}
	if change.Differences, err = differences(row.Spec, want); err != nil {
		return change, false, fmt.Errorf("read the spec of %s: %w", spec.Name, err)
	}
	return change, change.Detail != "" || len(change.Differences) > 0, nil
}

// leftTable adds to the change what becomes of the table that the trigger has watched, if the
// configured name now belongs to another table.
func (p *planner) leftTable(ctx context.Context, row *triggerRow, spec *trigger.Spec, change *Change) error {
	var was trigger.Spec
	if err := json.Unmarshal(row.Spec, &was); err != nil {
		return fmt.Errorf("read the spec of %s: %w", spec.Name, err)
	}
	if was.Table != spec.Table {
		return nil
	}
	left, err := readRelation(ctx, p.conn, row.Relation)
	switch {
	case err != nil:
		return err
	case left == nil:
		change.Detail += ", since the table that it watched was dropped"
	default:
		change.Detail += fmt.Sprintf(", which has the name now: %s is no longer watched", left)
	}
	return nil
}

// ownFunctions plans the payload and capture functions that belong to one trigger.
func (p *planner) ownFunctions(work *installation, was captured) {
	if work.fresh() {
		if ownFunction(work.spec, work.rel) {
			p.makeFunctions(work, Create, "rowhook.payload", runner(work))
		}
		return
	}
	found := p.in.functionsOf(work.own())
	if !ownFunction(work.spec, work.rel) {
		for _, f := range found {
			if !p.removed(f.Signature) {
				p.dropFunction(work, f)
			}
		}
		return
	}
	fits := 0
	for _, f := range found {
		switch {
		case p.removed(f.Signature):
		case f.Key && !keyed(work.spec), f.PerOperation && !perOperation(work.spec), f.AtCommit && !atCommit(work.spec):
			p.dropFunction(work, f)
		case f.Argument == 0 || f.Argument == work.rel.OID:
			fits++
		default:
			p.dropFunction(work, f)
		}
	}
	switch {
	case fits < functionsOf(work.spec):
		p.makeFunctions(work, Create, work.own().payload(), runner(work))
	case was.Function != fingerprint{functionDigest(work.spec, work.rel, work.own(), p.in.definition), madeOf(found, work.rel.OID)}:
		p.makeFunctions(work, Replace, work.own().payload(), runner(work))
	case slices.ContainsFunc(found, func(f functionFound) bool { return !f.Able }):
		p.makeFunctions(work, Replace, work.own().payload(), "gets back the rights of "+pg.PlainName(work.rel.Owner))
	}
}

// functionsOf returns how many functions of its own a trigger has, if it has some.
func functionsOf(spec *trigger.Spec) int {
	n := 2
	if keyed(spec) {
		n++ // one from a row to its key
	}
	if atCommit(spec) {
		n += 9 // see commitFunctions
	}
	if perOperation(spec) {
		n++
	}
	return n
}

func (p *planner) makeFunctions(work *installation, action Action, name, detail string) {
	p.do(step{
		Change: Change{Action: action, Object: "function", Name: name, Trigger: work.spec.Name, Detail: detail},
		phase:  makeFunctions, run: work.createFunctions,
	})
}

func (p *planner) dropFunction(work *installation, f functionFound) {
	p.do(step{
		Change: Change{Action: Remove, Object: "function", Name: f.Signature, Trigger: work.spec.Name},
		phase:  dropOwnFunctions, run: dropFunction(f),
	})
}

// runner says as which role the capture of a guarded trigger runs.
func runner(work *installation) string {
	if !guarded(work.spec, work.rel) {
		return ""
	}
	return "runs as " + pg.PlainName(work.rel.Owner) + ", who owns the table"
}

// removed reports whether the removal of a function is planned already.
func (p *planner) removed(signature string) bool {
	return slices.ContainsFunc(p.plan.steps, func(s *step) bool {
		return s.Action == Remove && s.Object == "function" && s.Name == signature
	})
}

// madeOf returns one digest of both functions of a trigger as the catalog describes them.
func madeOf(found []functionFound, relation uint32) string {
	var parts []string
	for _, f := range found {
		if f.Argument == 0 || f.Argument == relation {
			parts = append(parts, f.Made)
		}
	}
	return digest(parts...)
}

// captureTriggers plans the SQL triggers of one trigger on its table.
func (p *planner) captureTriggers(work *installation, was captured) {
	spec, rel := work.spec, work.rel
	state := "O"
	if spec.OnReplication {
		state = "A"
	}
	found := map[string]captureFound{}
	if work.id != 0 {
		for _, c := range p.in.capturesOn(work.id, rel.OID) {
			found[c.Name] = c
		}
	}
	for _, op := range sqlTriggers(spec, rel) {
		name := sqlTriggerName(spec.Name, work.id, op)
		have, exists := found[name]
		delete(found, name)
		s := step{
			Change: Change{Object: op.object(), Name: name, Table: rel.String(), Trigger: spec.Name, Lock: writersWait},
			phase:  makeCaptures, run: func(ctx context.Context, tx *pipeline) error { return work.createTrigger(ctx, tx, op, exists) },
		}
		switch {
		case !exists:
			s.Action = Create
		case was.SQL[name] != fingerprint{triggerDigest(spec, rel, work.own(), work.relationID, op), have.Made}:
			s.Action = Replace
		case have.Enabled != state || have.Partition != nil && *have.Partition:
			s.Action, s.Detail, s.phase = Replace, "enabled as configured", enableCaptures
			s.run = func(ctx context.Context, tx *pipeline) error { return work.enableAll(ctx, tx, op) }
		default:
			continue
		}
		p.do(s)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		p.do(step{
			Change: Change{Action: Remove, Object: found[name].object(), Name: name, Table: rel.String(), Trigger: spec.Name, Lock: everyoneWaits},
			phase:  dropCaptures, run: dropCapture(found[name]),
		})
	}
}

// sameJSON compares the values, not the texts.
func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return bytes.Equal(a, b)
	}
	return reflect.DeepEqual(x, y)
}
