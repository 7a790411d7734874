package sqlschema

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// Uncaptured says why changes for a trigger are not captured, or not all of them.
type Uncaptured struct {
	Trigger string // name of the trigger
	Problem string // what is wrong
	Remedy  string // what to do
	// Unwatched says that tables match a trigger with follow that it does not watch yet.
	Unwatched bool
}

// String returns the problem and the remedy in one line.
func (u Uncaptured) String() string { return u.Problem + ": " + u.Remedy }

// watchedTable is a table of an active trigger, with what the catalog says of it.
type watchedTable struct {
	ID          int32
	Name        string
	Relation    uint32
	RecordedAs  []string // schema and name at the last apply
	CalledNow   []string // schema and name; nil: the table was dropped
	Replacement *uint32  // the table that has the recorded name now
	Spec        []byte
	Captured    []byte
	Functions   int `db:"-"` // number of its own functions that exist

	spec    *trigger.Spec
	several bool // its trigger has several tables
	gone    bool // it was dropped, and only a pattern of its trigger matched it
}

// FindUncaptured compares the catalog with the applied triggers, and returns those that do not
// capture as configured. It must be able to read rowhook.trigger. It takes no lock that a writer
// would notice.
//
// The configuration holds the name of a table. After an online schema change by two renames another
// table has that name, and the trigger still watches the old table. FindUncaptured reports such a
// trigger, and the next apply moves it to the new table. It does not report a mere rename: nothing
// else has the old name, and the trigger follows. Nor does it report that a table was dropped which
// a pattern matched. It reports tables that match the patterns of a trigger with follow and are not
// watched yet. Nor does it report a trigger that was moved back to Hasura, which has its changes.
func FindUncaptured(ctx context.Context, db pg.Queryer) ([]Uncaptured, error) {
	all, err := readWatched(ctx, db)
	if err != nil {
		return nil, err
	}
	var out []Uncaptured
	for i := range all.triggers {
		u, err := all.uncaptured(ctx, db, &all.triggers[i])
		if err != nil {
			return nil, err
		}
		if u.Problem != "" {
			out = append(out, u)
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	moves, err := moving.Read(ctx, db)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(out, func(u Uncaptured) bool { return moves[u.Trigger].Theirs() }), nil
}

// watched is what the catalog says of the active triggers.
type watched struct {
	triggers []watchedTrigger                  // by name
	byID     map[int32]map[string]captureFound // capture triggers by trigger, and by table and name
	replicas bool                              // sessions begin as replicas
}

// watchedTrigger is an active trigger with its tables.
type watchedTrigger struct {
	name   string
	spec   trigger.Spec
	tables []watchedTable
}

// readWatched reads the active triggers, their tables and their capture triggers.
func readWatched(ctx context.Context, db pg.Queryer) (*watched, error) {
	rows, err := pg.Collect[watchedTable](ctx, db, `
select t.id, t.name, t.relation, array[t.schema_name, t.table_name] as recorded_as,
       case when c.oid is not null then array[n.nspname::text, c.relname::text] end as called_now,
       (select r.oid from pg_catalog.pg_class r join pg_catalog.pg_namespace s on s.oid = r.relnamespace
         where s.nspname = t.schema_name::name and r.relname = t.table_name::name and r.relkind in ('r', 'p') and r.oid <> t.relation) as replacement,
       t.spec, t.captured
  from (select t.id, t.name, w.relation, t.schema_name, t.table_name, t.spec, t.captured, t.removed_at from rowhook.trigger t`+queue.WatchedNow+`) as t
  left join pg_catalog.pg_class c on c.oid = t.relation and c.relkind in ('r', 'p')
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where t.removed_at is null
 order by t.name`)
	if err != nil {
		return nil, fmt.Errorf("compare the triggers with the catalog: %w", err)
	}
	members, err := readMembers(ctx, db)
	if err != nil {
		return nil, err
	}
	found, err := pg.Collect[captureFound](ctx, db, captureTriggers)
	if err != nil {
		return nil, fmt.Errorf("list capture triggers: %w", err)
	}
	functions, err := pg.Collect[struct {
		Suffix string
		N      int
	}](ctx, db, `
-- A function by which a capture hands over is one more than functionsOf says.
select substring(p.proname from '[0-9]+$') as suffix, (count(*) - count(*) filter (where p.prosrc ~ 'payload_[0-9]+\(tg_op::"char", before'))::integer as n
  from pg_catalog.pg_proc p join pg_catalog.pg_namespace s on s.oid = p.pronamespace
 where s.nspname = 'rowhook' and p.proname ~ '^(capture|payload)_[0-9]+$' group by 1`)
	if err != nil {
		return nil, fmt.Errorf("count capture functions: %w", err)
	}
	bySuffix := map[string]int{}
	for _, f := range functions {
		bySuffix[f.Suffix] = f.N
	}
	all := &watched{byID: map[int32]map[string]captureFound{}}
	for _, c := range found {
		if all.byID[c.ID] == nil {
			all.byID[c.ID] = map[string]captureFound{}
		}
		all.byID[c.ID][fmt.Sprint(c.Relation, c.Name)] = c
	}
	for i := range rows {
		t := watchedTrigger{name: rows[i].Name, spec: trigger.DefaultSpec()}
		if err := json.Unmarshal(rows[i].Spec, &t.spec); err != nil {
			return nil, fmt.Errorf("read the spec of %s: %w", t.name, err)
		}
		t.take(rows[i], members[rows[i].ID], bySuffix)
		all.triggers = append(all.triggers, t)
	}
	all.replicas, err = beginAsReplicas(ctx, db)
	return all, err
}

// take takes over the table of the row of a trigger, or its several tables.
func (t *watchedTrigger) take(row watchedTable, members []member, functions map[string]int) {
	if !t.spec.Many() {
		row.spec, row.Functions = &t.spec, functions[own{id: row.ID}.suffix()]
		t.tables = []watchedTable{row}
		return
	}
	named, _ := parsePatterns(t.spec.Tables)
	here := map[uint32]bool{}
	for i := range members {
		here[members[i].Relation] = members[i].CalledNow != nil
	}
	for i := range members {
		m := &members[i]
		w := watchedTable{
			ID: row.ID, Name: row.Name, Relation: m.Relation, RecordedAs: m.RecordedAs, CalledNow: m.CalledNow, Replacement: m.Replacement, Spec: row.Spec, Captured: m.Captured,
			Functions: functions[own{row.ID, m.RelationID}.suffix()], several: true,
		}
		if w.Replacement != nil && here[*w.Replacement] {
			w.Replacement = nil // which is watched, too
		}
		recorded := candidate{Schema: m.RecordedAs[0], Name: m.RecordedAs[1]}
		w.gone = m.CalledNow == nil && w.Replacement == nil && !named.names(&recorded)
		t.tables = append(t.tables, w)
	}
	for i := range t.tables {
		t.tables[i].spec = &t.spec
	}
}

// uncaptured compares one trigger with the catalog. Its Problem is "" if nothing is wrong.
func (all *watched) uncaptured(ctx context.Context, db pg.Queryer, t *watchedTrigger) (Uncaptured, error) {
	u := Uncaptured{Trigger: t.name}
	if len(operations(&t.spec)) == 0 {
		return u, nil // manual events alone need no table
	}
	var problems []string
	for i := range t.tables {
		w := &t.tables[i]
		of, err := w.uncaptured(all.byID[w.ID], all.replicas)
		if err != nil {
			return u, err
		}
		if of.Problem != "" && !slices.Contains(problems, of.Problem) {
			problems = append(problems, of.Problem)
			if u.Remedy == "" {
				u.Remedy = of.Remedy
			}
		}
	}
	var yet []string
	if t.spec.Follow {
		var err error
		if yet, err = t.unwatched(ctx, db); err != nil {
			return u, err
		}
	}
	switch {
	case len(yet) > 0:
		matches := "match its tables, but are not watched yet"
		if len(yet) == 1 {
			matches = "matches its tables, but is not watched yet"
		}
		problems = append(problems, someOf(yet)+" "+matches)
		u.Unwatched = true
	case len(t.tables) == 0 && !t.spec.Follow:
		problems = append(problems, "it is not recorded which tables it watches")
	}
	const most = 3
	if more := len(problems) - most; more > 0 {
		problems = append(problems[:most:most], fmt.Sprintf("and %d more of its tables have problems", more))
	}
	if u.Problem = strings.Join(problems, "; "); u.Problem != "" && u.Remedy == "" {
		u.Remedy = applyAgain
	}
	return u, nil
}

// unwatched returns the tables that match the patterns of a trigger and that it does not watch.
func (t *watchedTrigger) unwatched(ctx context.Context, db pg.Queryer) (names []string, err error) {
	if !t.spec.Many() {
		return nil, nil
	}
	m, err := matchTables(ctx, db, &t.spec)
	if err != nil {
		return nil, fmt.Errorf("find the tables of %s: %w", t.name, err)
	}
	for i := range m.tables {
		c := &m.tables[i]
		if !slices.ContainsFunc(t.tables, func(w watchedTable) bool { return w.Relation == c.OID }) {
			names = append(names, c.String())
		}
	}
	return names, nil
}

// beginAsReplicas reports whether the database sets session_replication_role = replica for its
// sessions. Ordinary triggers do not fire in them. The same setting of a role is intended: such a
// role applies changes from elsewhere.
func beginAsReplicas(ctx context.Context, db pg.Queryer) (bool, error) {
	var replicas bool
	err := db.QueryRow(ctx, `
select exists (select from pg_catalog.pg_db_role_setting s
                where s.setrole = 0 and s.setdatabase = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
                  and 'session_replication_role=replica' = any(s.setconfig))`).Scan(&replicas)
	if err != nil {
		return false, fmt.Errorf("look for session_replication_role: %w", err)
	}
	return replicas, nil
}

const applyAgain = `run "rowhook apply"`

// uncaptured compares one table of a trigger with the catalog. Its Problem is "" if nothing is
// wrong.
func (w *watchedTable) uncaptured(found map[string]captureFound, replicas bool) (Uncaptured, error) {
	u := Uncaptured{Trigger: w.Name}
	if len(operations(w.spec)) == 0 || w.gone {
		return u, nil
	}
	var was captured
	if err := json.Unmarshal(w.Captured, &was); err != nil {
		return u, fmt.Errorf("read rowhook.trigger.captured of %s: %w", w.Name, err)
	}
	recorded := pg.PlainName(w.RecordedAs...)
	switch {
	case w.CalledNow == nil && w.Replacement != nil:
		u.Problem, u.Remedy = "the table "+recorded+" was dropped and created again, and the new one is not captured", applyAgain
	case w.CalledNow == nil:
		u.Problem = "the table " + recorded + " was dropped"
		u.Remedy = "create it again and " + applyAgain + ", or remove the trigger from rowhook.yaml"
		if w.several {
			u.Remedy = "create it again and " + applyAgain + ", or remove it from tables in rowhook.yaml"
		}
	case w.Replacement != nil:
		u.Problem = fmt.Sprintf("%s is another table now, and is not captured: the watched table is now called %s", recorded, pg.PlainName(w.CalledNow...))
		u.Remedy = fmt.Sprintf("%s to watch the table that has the name now, or write table: %s in rowhook.yaml to keep the old one", applyAgain, pg.PlainName(w.CalledNow...))
		if w.several {
			u.Remedy = applyAgain + " to watch the table that has the name now"
		}
	default:
		u.Problem = w.sqlTriggers(w.spec, &was, found)
		u.Remedy = applyAgain
	}
	if u.Problem == "" && replicas && !w.spec.OnReplication {
		u.Problem = "sessions of this database begin with session_replication_role = replica, and triggers do not fire in them"
		u.Remedy = "alter database ... reset session_replication_role, or set on_replication: true"
	}
	return u, nil
}

// sqlTriggers returns what is wrong with the SQL triggers of an existing table, or "".
func (w *watchedTable) sqlTriggers(spec *trigger.Spec, was *captured, found map[string]captureFound) string {
	table := pg.PlainName(w.CalledNow...)
	if len(was.SQL) == 0 {
		return "no capture trigger was made on " + table
	}
	named := map[captureFault][]string{}
	for _, name := range slices.Sorted(maps.Keys(was.SQL)) {
		_, fault := w.fault(name, spec, was, found)
		named[fault] = append(named[fault], name)
	}
	var problems []string
	for _, fault := range []captureFault{captureGone, captureOff, captureReplica, captureCopies, captureNotAlways, captureChanged} {
		if names := named[fault]; len(names) > 0 {
			problems = append(problems, fmt.Sprintf("the capture trigger %s on %s %s", strings.Join(names, ", "), table, fault))
		}
	}
	if was.Function != (fingerprint{}) && w.Functions < functionsOf(spec) && len(named[captureGone]) == 0 {
		problems = append(problems, "the functions of the capture trigger were dropped, so writes to "+table+" fail")
	}
	return strings.Join(problems, "; ")
}

// captureFault says what is wrong with an SQL trigger; "": nothing.
type captureFault string

const (
	captureGone      captureFault = "was dropped"
	captureOff       captureFault = "is disabled"
	captureReplica   captureFault = "is enabled only for sessions that apply replicated changes"
	captureCopies    captureFault = "is enabled differently on one of the partitions"
	captureNotAlways captureFault = "is not enabled for sessions that apply replicated changes"
	captureChanged   captureFault = "was changed after it was applied"
)

// fault finds an SQL trigger that was made under this name, and says what is wrong with it.
func (w *watchedTable) fault(name string, spec *trigger.Spec, was *captured, found map[string]captureFound) (captureFound, captureFault) {
	c, ok := found[fmt.Sprint(w.Relation, name)]
	if !ok {
		c, ok = w.renamed(was, name, found)
	}
	switch {
	case !ok:
		return c, captureGone
	case c.Guard: // it captures nothing
	case c.Enabled == "D":
		return c, captureOff
	case c.Enabled == "R":
		return c, captureReplica
	case c.Partition != nil && *c.Partition:
		return c, captureCopies
	case spec.OnReplication && c.Enabled == "O":
		return c, captureNotAlways
	case c.Made != was.SQL[name].Made:
		return c, captureChanged
	}
	return c, ""
}

// renamed finds an SQL trigger that was renamed. It captures under its new name as before.
func (w *watchedTable) renamed(was *captured, name string, found map[string]captureFound) (captureFound, bool) {
	for _, c := range found {
		if _, known := was.SQL[c.Name]; !known && c.Relation == w.Relation && c.Made == was.SQL[name].Made {
			return c, true
		}
	}
	return captureFound{}, false
}
