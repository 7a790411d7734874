package sqlschema

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/suggest"
)

// Action says what a Change does to its object. It is the sign that it prints.
type Action byte

// The three actions.
const (
	Create  Action = '+'
	Replace Action = '~'
	Remove  Action = '-'
)

// Change is one thing that an apply does.
type Change struct {
	Action  Action
	Object  string // what is changed: trigger, capture trigger, guard trigger, function, setting, schema
	Name    string
	Table   string // whose capture trigger it is
	Trigger string // whose capture trigger or function it is
	Detail  string // what differs, for people
	Lock    string // lock mode on Table, "" for none
	Events  int64  // waiting events: of a trigger that is removed, which go to the dead letters, or that is changed, and which follow it

	Differences []string // what changes in a spec or a setting, a line each: retry.limit: 5 becomes 3
}

// String writes it in one line.
func (c Change) String() string {
	if len(c.Differences) == 0 {
		return c.line()
	}
	return c.line() + ": " + strings.Join(c.Differences, "; ")
}

// line is String without the differences.
func (c Change) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%c %s %s", c.Action, c.Object, c.Name)
	if c.Table != "" {
		fmt.Fprintf(&b, " on %s", c.Table)
	}
	if c.Detail != "" {
		fmt.Fprintf(&b, ": %s", c.Detail)
	}
	many := c.Events != 1
	switch {
	case c.Events > 0 && c.Action == Remove:
		fmt.Fprintf(&b, "; %d waiting event%s the dead letters", c.Events, map[bool]string{false: " goes to", true: "s go to"}[many])
	case c.Events > 0:
		fmt.Fprintf(&b, " (%d waiting event%s)", c.Events, map[bool]string{false: " follows", true: "s follow"}[many])
	}
	switch c.Lock {
	case writersWait:
		b.WriteString(" (locks the table against writes for a moment)")
	case everyoneWaits:
		b.WriteString(" (locks the table against reads and writes for a moment)")
	}
	return b.String()
}

// The locks that changes take on a watched table.
const (
	writersWait   = "SHARE ROW EXCLUSIVE"
	everyoneWaits = "ACCESS EXCLUSIVE"
)

// Plan is what an apply would do, or has done.
type Plan struct {
	Changes  []Change
	Warnings []string // what will not work as one might expect

	units []*unit
}

// Empty reports that the database is as configured.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// String writes a line per change and warning, the sign of the action first, and under a change what differs.
func (p *Plan) String() string {
	lines := make([]string, 0, len(p.Changes)+len(p.Warnings))
	for _, c := range p.Changes {
		indent := ""
		if c.Trigger != "" {
			indent = "  "
		}
		lines = append(lines, indent+c.line())
		for _, d := range c.Differences {
			lines = append(lines, indent+"    "+d)
		}
	}
	for _, w := range p.Warnings {
		lines = append(lines, "! "+w)
	}
	return strings.Join(lines, "\n")
}

// MakePlan compares the database with what is configured. It changes nothing and takes no lock that a writer would notice.
// What only the database can find wrong with the specs is returned all at once as SpecErrors. It works before the first
// migration, too.
func MakePlan(ctx context.Context, conn *pgx.Conn, specs []Spec, settings Settings) (plan *Plan, err error) {
	err = pinned(ctx, conn, func() (err error) {
		plan, err = makePlan(ctx, conn, specs, settings)
		return err
	})
	return plan, err
}

func makePlan(ctx context.Context, conn *pgx.Conn, specs []Spec, settings Settings) (*Plan, error) {
	in, err := readInstalled(ctx, conn)
	if err != nil {
		return nil, err
	}
	p := &planner{conn: conn, in: in, plan: &Plan{}, relations: make([]*relation, len(specs))}
	if err := p.rowSecurity(ctx); err != nil {
		return nil, err
	}
	if err := p.check(ctx, specs); err != nil {
		return nil, err
	}
	switch {
	case in.database == 0:
		p.add(Change{Action: Create, Object: "schema", Name: "rowhook"})
	case in.database < in.program:
		p.add(Change{Action: Replace, Object: "schema", Name: "rowhook", Detail: fmt.Sprintf("version %d becomes %d", in.database, in.program)})
	}
	if err := p.warnOfPublications(ctx); err != nil {
		return nil, err
	}
	p.plan.Changes = append(p.plan.Changes, in.lack.changes()...)
	foreign, err := ForeignGrants(ctx, conn)
	if err != nil {
		return nil, err
	}
	for i := range foreign {
		p.plan.Warnings = append(p.plan.Warnings, foreign[i].Problem()+": "+foreign[i].Remedy())
	}
	if err := p.settings(settings); err != nil {
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
	if err := p.mayApply(ctx); err != nil {
		return nil, err
	}
	return p.plan, nil
}

type planner struct {
	conn      *pgx.Conn
	in        *installed
	plan      *Plan
	relations []*relation // by index of the spec
}

func (p *planner) add(c Change) { p.plan.Changes = append(p.plan.Changes, c) }

// put adds work to its table's transaction; table 0 is for what locks none. Removals have transactions of their own, before
// all others, so that a trigger has left one table before it is made on another.
func (p *planner) put(w work, removal bool, table uint32, name, lock string) {
	i := slices.IndexFunc(p.plan.units, func(u *unit) bool { return u.relation == table && u.removal == removal })
	if i < 0 {
		i = len(p.plan.units)
		p.plan.units = append(p.plan.units, &unit{relation: table, removal: removal, table: name})
	}
	u := p.plan.units[i]
	u.works = append(u.works, w)
	if u.lock != everyoneWaits {
		u.lock = lock
	}
}

// rowSecurity refuses to have changes captured that row level security on Rowhook's own tables would keep out.
func (p *planner) rowSecurity(ctx context.Context) error {
	secured, err := FindSecured(ctx, p.conn)
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

// check finds everything that is wrong with the specs, and their tables.
func (p *planner) check(ctx context.Context, specs []Spec) error {
	var problems SpecErrors
	var user string
	if err := p.conn.QueryRow(ctx, "select current_user").Scan(&user); err != nil {
		return fmt.Errorf("ask for the role: %w", err)
	}
	for i := range specs {
		spec := &specs[i]
		problem := func(message string, path ...string) {
			if message != "" {
				problems = append(problems, SpecError{Index: i, Trigger: spec.Name, Path: path, Message: message})
			}
		}
		rel, err := findRelation(ctx, p.conn, spec.Table)
		if message, ok := invalidName(err); ok {
			problem(message, "table")
			continue
		}
		if err != nil {
			return fmt.Errorf("look for the table %s: %w", spec.Table, err)
		}
		if rel == nil {
			message, err := p.missing(ctx, spec)
			if err != nil {
				return err
			}
			problem(message, "table")
			continue
		}
		if message := rel.refusal(user, *spec); message != "" {
			problem(message, "table")
			continue
		}
		p.relations[i] = rel
		if spec.Capture == CaptureStatement {
			if reason := byRow(spec, rel); reason != "" {
				problem("inserts can't be captured by the statement: "+reason+": write capture: auto, which then captures row by row", "capture")
			}
		}
		if rel.Inherited && !rel.Hypertable {
			p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: tables inherit from %s, and Postgres does not run its triggers for rows of theirs: "+
				"give each a trigger of its own", spec.Name, rel))
		}
		if on := spec.On; rel.Kind == "p" && on.Update.Enabled && !(on.Insert && on.Delete) {
			p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: %s is partitioned, and an update that moves a row to another partition is a delete and an insert: "+
				"add insert and delete to on if such updates matter", spec.Name, rel))
		}
		for j, name := range spec.On.Update.Columns {
			problem(p.missingColumn(rel, name), "on", "update", "columns", fmt.Sprint(j))
		}
		for j, name := range spec.Payload.Columns {
			problem(p.missingColumn(rel, name), "payload", "columns", fmt.Sprint(j))
		}
		if spec.When != "" {
			var message string
			err := withUsersPath(ctx, p.conn, func() (err error) {
				message, err = checkWhen(ctx, p.conn, rel, *spec)
				return err
			})
			if err != nil {
				return err
			}
			problem(message, "when")
		}
		if err := p.checkCasts(ctx, spec, rel, problem); err != nil {
			return err
		}
		message, err := p.taken(ctx, spec, rel)
		if err != nil {
			return err
		}
		problem(message, "name")
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// checkCasts reports columns whose JSON is made by code that depends on what a capture sets.
func (p *planner) checkCasts(ctx context.Context, spec *Spec, rel *relation, problem func(message string, path ...string)) error {
	found, err := checkCasts(ctx, p.conn, rel, spec)
	if err != nil {
		return err
	}
	for _, name := range rel.columnNames() {
		if i := slices.Index(spec.Payload.Columns, name); i >= 0 {
			problem(found[name], "payload", "columns", fmt.Sprint(i))
		} else {
			problem(found[name], "table")
		}
	}
	return nil
}

func (p *planner) missing(ctx context.Context, spec *Spec) (string, error) {
	var was *relation
	if row := p.in.triggers[spec.Name]; row != nil && !row.Removed {
		var err error
		if was, err = readRelation(ctx, p.conn, row.Relation); err != nil {
			return "", err
		}
	}
	return missingTable(ctx, p.conn, spec.Table, was)
}

// missingColumn says that a column does not exist and what it may be called, or nothing.
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

// taken refuses a name that a trigger of someone else has.
func (p *planner) taken(ctx context.Context, spec *Spec, rel *relation) (string, error) {
	var id int32
	if row := p.in.triggers[spec.Name]; row != nil {
		id = row.ID
	}
	names := make([]string, 0, 4)
	for _, op := range sqlTriggers(spec, rel) {
		names = append(names, sqlTriggerName(spec.Name, id, op))
	}
	found, err := collect[struct{ Name string }](ctx, p.conn, `
select t.tgname as name
  from pg_catalog.pg_trigger t
  join pg_catalog.pg_proc f on f.oid = t.tgfoid
  join pg_catalog.pg_namespace n on n.oid = f.pronamespace
 where t.tgrelid = $1 and t.tgname = any($2) and n.nspname <> 'rowhook'
 order by t.tgname`, rel.OID, names)
	if err != nil {
		return "", fmt.Errorf("look for triggers of the same name: %w", err)
	}
	if len(found) == 0 {
		return "", nil
	}
	return fmt.Sprintf("%s already has a trigger %s that is not Rowhook's: rename one of the two", rel, found[0].Name), nil
}

func (p *planner) settings(settings Settings) error {
	byDefault := DefaultSettings()
	for _, rules := range []*[]string{&settings.Network.Deny, &settings.Network.Allow} {
		if *rules == nil {
			*rules = []string{}
		}
	}
	for _, s := range []struct {
		name            string
		want, byDefault any
	}{
		{"retention", settings.Retention, byDefault.Retention},
		{"network", settings.Network, byDefault.Network},
	} {
		want, err := json.Marshal(s.want)
		if err != nil {
			return fmt.Errorf("write %s: %w", s.name, err)
		}
		have := p.in.settings[s.name]
		if have == nil && reflect.DeepEqual(s.want, s.byDefault) || sameJSON(have, want) {
			continue
		}
		change := Change{Action: Replace, Object: "setting", Name: s.name}
		if have == nil {
			change.Action, change.Detail = Create, string(want)
		} else if change.Differences, err = differences(have, want); err != nil {
			return err
		}
		p.add(change)
		p.put(&settingWork{name: s.name, value: want}, false, 0, "", "")
	}
	return nil
}

// removals plans what is there and no longer configured, and what of it was left on another table.
func (p *planner) removals(ctx context.Context, specs []Spec) error {
	wanted := map[int32]uint32{}
	for i := range specs {
		if row := p.in.triggers[specs[i].Name]; row != nil {
			wanted[row.ID] = p.relations[i].OID
		}
	}
	for _, id := range p.in.byID() {
		relation, keep := wanted[id]
		row := p.in.row(id)
		work := &removal{id: id, whole: !keep}
		var changes []Change
		name := fmt.Sprint(id)
		if row != nil {
			name = row.Name
		}
		for _, c := range p.in.captures[id] {
			if !keep || c.Relation != relation {
				work.captures = append(work.captures, c)
				changes = append(changes, Change{Action: Remove, Object: c.object(), Name: c.Name, Table: c.Table, Trigger: name, Lock: everyoneWaits})
			}
		}
		for _, f := range p.in.functions[id] {
			// A trigger that moves to another table takes its functions with it.
			if !keep || len(work.captures) > 0 {
				work.functions = append(work.functions, f)
				changes = append(changes, Change{Action: Remove, Object: "function", Name: f.Signature, Trigger: name})
			}
		}
		active := row != nil && !row.Removed
		if len(changes) == 0 && (keep || !active) {
			continue
		}
		if !keep && active {
			waiting, err := p.waiting(ctx, id)
			if err != nil {
				return err
			}
			row.Waiting = waiting
			changes = slices.Insert(changes, 0, Change{Action: Remove, Object: "trigger", Name: name, Detail: "no longer configured", Events: row.Waiting})
		}
		p.plan.Changes = append(p.plan.Changes, changes...)
		p.addRemoval(work)
	}
	return nil
}

// waiting counts the events of a trigger that are still owed.
func (p *planner) waiting(ctx context.Context, id int32) (n int64, err error) {
	if err := p.conn.QueryRow(ctx, "select count(*) from rowhook.event_log where trigger_id = $1", id).Scan(&n); err != nil {
		return 0, fmt.Errorf("count waiting events: %w", err)
	}
	return n, nil
}

// addRemoval gives each table that still has capture triggers of the trigger its own transaction; the functions and the row go
// with the last.
func (p *planner) addRemoval(work *removal) {
	byTable := map[uint32][]captureFound{}
	for _, c := range work.captures {
		byTable[c.Relation] = append(byTable[c.Relation], c)
	}
	tables := slices.Sorted(maps.Keys(byTable))
	if len(tables) == 0 {
		p.put(work, true, 0, "", "")
		return
	}
	for i, table := range tables {
		part := &removal{id: work.id, captures: byTable[table]}
		if i == len(tables)-1 {
			part.functions, part.whole = work.functions, work.whole
		}
		p.put(part, true, table, byTable[table][0].Table, everyoneWaits)
	}
}

// trigger plans what one spec needs.
func (p *planner) trigger(ctx context.Context, spec *Spec, rel *relation) error {
	row := p.in.triggers[spec.Name]
	work := &installation{spec: spec, rel: rel, definition: p.in.definition, owner: p.in.owner}
	var was captured
	work.newcomer = row == nil || row.Removed
	pauses, err := parsePauses(p.in.settings[pausedSetting])
	if err != nil {
		return err
	}
	paused := ""
	if work.newcomer && pauses.All != nil {
		paused = "; it starts paused, as all triggers were"
	}
	if row == nil {
		work.row = true
		p.add(Change{Action: Create, Object: "trigger", Name: spec.Name, Detail: "on " + rel.String() + paused})
	} else {
		work.id, work.moved = row.ID, row.Relation != rel.OID
		if !work.moved {
			work.relationID = row.RelationID
		}
		if err := json.Unmarshal(row.Captured, &was); err != nil {
			return fmt.Errorf("read rowhook.trigger.captured of %s: %w", spec.Name, err)
		}
		change, differs, err := rowChange(row, spec, rel)
		if err == nil && work.moved && !row.Removed {
			err = p.leftTable(ctx, row, spec, &change)
		}
		if err != nil {
			return err
		}
		if differs {
			work.row = true
			if !row.Orphan {
				if change.Events, err = p.waiting(ctx, row.ID); err != nil {
					return err
				}
			}
			change.Detail += paused
			p.add(change)
		}
	}
	p.ownFunctions(work, was)
	p.captureTriggers(work, was)
	if !work.row && !work.locks() && len(work.dropFunctions) == 0 && !work.functions {
		return nil
	}
	table, name, lock := uint32(0), "", ""
	if work.locks() {
		table, name, lock = rel.OID, rel.String(), writersWait
		if len(work.drop) > 0 {
			lock = everyoneWaits
		}
	}
	p.put(work, false, table, name, lock)
	return nil
}

// rowChange says what differs between a row of rowhook.trigger and the spec, if anything does.
func rowChange(row *triggerRow, spec *Spec, rel *relation) (change Change, differs bool, err error) {
	change = Change{Action: Replace, Object: "trigger", Name: spec.Name}
	if row.Removed {
		change.Detail = "comes back"
		return change, true, nil
	}
	if row.Relation != rel.OID {
		change.Detail = "moves to another table, " + rel.String()
	}
	want, err := json.Marshal(spec)
	if err != nil {
		return change, false, fmt.Errorf("write the spec of %s: %w", spec.Name, err)
	}
	if change.Differences, err = differences(row.Spec, want); err != nil {
		return change, false, fmt.Errorf("read the spec of %s: %w", spec.Name, err)
	}
	return change, change.Detail != "" || len(change.Differences) > 0, nil
}

// leftTable says what becomes of the table that a trigger has watched so far where its name, which is what is configured, is another
// table's by now.
func (p *planner) leftTable(ctx context.Context, row *triggerRow, spec *Spec, change *Change) error {
	var was Spec
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
		change.Detail += ", as the one that it has watched is gone"
	default:
		change.Detail += fmt.Sprintf(", which has the name now: %s is no longer watched", left)
	}
	return nil
}

// ownFunctions plans the payload and capture functions that belong to one trigger.
func (p *planner) ownFunctions(work *installation, was captured) {
	if work.id == 0 {
		if ownFunction(work.spec, work.rel) {
			work.functions = true
			p.add(Change{Action: Create, Object: "function", Name: "rowhook.payload", Trigger: work.spec.Name, Detail: runner(work)})
		}
		return
	}
	found := p.in.functions[work.id]
	if !ownFunction(work.spec, work.rel) {
		for _, f := range found {
			if !p.removed(f.Signature) {
				work.dropFunctions = append(work.dropFunctions, f)
				p.add(Change{Action: Remove, Object: "function", Name: f.Signature, Trigger: work.spec.Name})
			}
		}
		return
	}
	fits := 0
	for _, f := range found {
		switch {
		case p.removed(f.Signature):
		case f.Argument == 0 || f.Argument == work.rel.OID:
			fits++
		default:
			work.dropFunctions = append(work.dropFunctions, f)
			p.add(Change{Action: Remove, Object: "function", Name: f.Signature, Trigger: work.spec.Name})
		}
	}
	switch {
	case fits < 2:
		work.functions = true
		p.add(Change{Action: Create, Object: "function", Name: payloadName(work.id), Trigger: work.spec.Name, Detail: runner(work)})
	case was.Function != fingerprint{functionDigest(work.spec, work.rel, p.in.definition), madeOf(found, work.rel.OID)}:
		work.functions = true
		p.add(Change{Action: Replace, Object: "function", Name: payloadName(work.id), Trigger: work.spec.Name, Detail: runner(work)})
	case slices.ContainsFunc(found, func(f functionFound) bool { return !f.Able }):
		work.functions = true
		p.add(Change{Action: Replace, Object: "function", Name: payloadName(work.id), Trigger: work.spec.Name, Detail: "gets back the rights of " + plainName(work.rel.Owner)})
	}
}

// runner says as whom a guarded trigger's rows are captured.
func runner(work *installation) string {
	if !guarded(work.spec, work.rel) {
		return ""
	}
	return "runs as " + plainName(work.rel.Owner) + ", who owns the table"
}

// removed reports that a function's removal is already planned.
func (p *planner) removed(signature string) bool {
	return slices.ContainsFunc(p.plan.Changes, func(c Change) bool {
		return c.Action == Remove && c.Object == "function" && c.Name == signature
	})
}

// madeOf is one digest of both functions of a trigger as the catalog has them.
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
	for _, c := range p.in.captures[work.id] {
		if work.id != 0 && c.Relation == rel.OID {
			found[c.Name] = c
		}
	}
	for _, op := range sqlTriggers(spec, rel) {
		name := sqlTriggerName(spec.Name, work.id, op)
		have, exists := found[name]
		delete(found, name)
		change := Change{Object: op.object(), Name: name, Table: rel.String(), Trigger: spec.Name, Lock: writersWait}
		switch {
		case !exists:
			change.Action = Create
			work.create = append(work.create, op)
		case was.SQL[name] != fingerprint{triggerDigest(spec, rel, work.id, work.relationID, op), have.Made}:
			change.Action = Replace
			work.create = append(work.create, op)
		case have.Enabled != state || have.Partition != nil && *have.Partition:
			change.Action, change.Detail = Replace, "enabled as configured"
			work.enable = append(work.enable, op)
		default:
			continue
		}
		p.add(change)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		work.drop = append(work.drop, found[name])
		p.add(Change{Action: Remove, Object: found[name].object(), Name: name, Table: rel.String(), Trigger: spec.Name, Lock: everyoneWaits})
	}
}

// sameJSON compares values, not text.
func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return bytes.Equal(a, b)
	}
	return reflect.DeepEqual(x, y)
}
