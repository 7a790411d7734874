package sqlschema

import (
	"context"
	"encoding/json"
	"fmt"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"maps"
	"slices"
	"strings"
)

// Uncaptured says why changes for a trigger are not captured, or not all of them.
type Uncaptured struct {
	Trigger string // name of the trigger
	Problem string // what is wrong
	Remedy  string // what to do
}

// String returns the problem and the remedy in one line.
func (u Uncaptured) String() string { return u.Problem + ": " + u.Remedy }

// watchedTable is an active trigger, with what the catalog says of its table.
type watchedTable struct {
	ID          int32
	Name        string
	Relation    uint32
	RecordedAs  []string // schema and name at the last apply
	CalledNow   []string // schema and name; nil: the table was dropped
	Replacement *uint32  // the table that has the recorded name now
	Spec        []byte
	Captured    []byte
	Functions   int // number of its own functions that exist
}

// FindUncaptured compares the catalog with the applied triggers, and returns those that do not
// capture as configured. It must be able to read rowhook.trigger. It takes no lock that a writer
// would notice.
//
// The configuration holds the name of a table. After an online schema change by two renames another
// table has that name, and the trigger still watches the old table. FindUncaptured reports such a
// trigger, and the next apply moves it to the new table. It does not report a mere rename: nothing
// else has the old name, and the trigger follows.
func FindUncaptured(ctx context.Context, db pg.Queryer) ([]Uncaptured, error) {
	watched, byID, replicas, err := readWatched(ctx, db)
	if err != nil {
		return nil, err
	}
	var out []Uncaptured
	for i := range watched {
		u, err := watched[i].uncaptured(byID[watched[i].ID], replicas)
		if err != nil {
			return nil, err
		}
		if u.Problem != "" {
			out = append(out, u)
		}
	}
	return out, nil
}

// readWatched reads the active triggers, their capture triggers by trigger and by table and name, and
// whether sessions begin as replicas.
func readWatched(ctx context.Context, db pg.Queryer) (watched []watchedTable, byID map[int32]map[string]captureFound, replicas bool, err error) {
	watched, err = pg.Collect[watchedTable](ctx, db, `
select t.id, t.name, t.relation, array[t.schema_name, t.table_name] as recorded_as,
       case when c.oid is not null then array[n.nspname::text, c.relname::text] end as called_now,
       (select r.oid from pg_catalog.pg_class r join pg_catalog.pg_namespace s on s.oid = r.relnamespace
         where s.nspname = t.schema_name::name and r.relname = t.table_name::name and r.relkind in ('r', 'p') and r.oid <> t.relation) as replacement,
       t.spec, t.captured,
       (select count(*)::integer from pg_catalog.pg_proc p join pg_catalog.pg_namespace s on s.oid = p.pronamespace
         where s.nspname = 'rowhook' and p.proname in (('capture_' || t.id)::name, ('payload_' || t.id)::name)) as functions
  from (select t.id, t.name, w.relation, t.schema_name, t.table_name, t.spec, t.captured, t.removed_at from rowhook.trigger t`+queue.WatchedNow+`) as t
  left join pg_catalog.pg_class c on c.oid = t.relation and c.relkind in ('r', 'p')
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where t.removed_at is null
 order by t.name`)
	if err != nil {
		return nil, nil, false, fmt.Errorf("compare the triggers with the catalog: %w", err)
	}
	found, err := pg.Collect[captureFound](ctx, db, captureTriggers)
	if err != nil {
		return nil, nil, false, fmt.Errorf("list capture triggers: %w", err)
	}
	byID = map[int32]map[string]captureFound{}
	for _, c := range found {
		if byID[c.ID] == nil {
			byID[c.ID] = map[string]captureFound{}
		}
		byID[c.ID][fmt.Sprint(c.Relation, c.Name)] = c
	}
	replicas, err = beginAsReplicas(ctx, db)
	return watched, byID, replicas, err
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

// uncaptured compares one trigger with the catalog. Its Problem is "" if nothing is wrong.
func (w *watchedTable) uncaptured(found map[string]captureFound, replicas bool) (Uncaptured, error) {
	u := Uncaptured{Trigger: w.Name}
	spec := trigger.DefaultSpec()
	if err := json.Unmarshal(w.Spec, &spec); err != nil {
		return u, fmt.Errorf("read the spec of %s: %w", w.Name, err)
	}
	if len(operations(&spec)) == 0 {
		return u, nil // manual events alone need no table
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
	case w.Replacement != nil:
		u.Problem = fmt.Sprintf("%s is another table now, and is not captured: the watched table is now called %s", recorded, pg.PlainName(w.CalledNow...))
		u.Remedy = fmt.Sprintf("%s to watch the table that has the name now, or write table: %s in rowhook.yaml to keep the old one", applyAgain, pg.PlainName(w.CalledNow...))
	default:
		u.Problem = w.sqlTriggers(&spec, &was, found)
		u.Remedy = applyAgain
	}
	if u.Problem == "" && replicas && !spec.OnReplication {
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
