package cutover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// operations are what Hasura's SQL triggers fire on, and how it spells them in their names.
var operations = []string{"INSERT", "UPDATE", "DELETE"}

// nameOf returns the name of the SQL trigger, and of its function. Postgres cuts names after 63
// bytes; Hasura allows 42 for that of a trigger, so that this one fits.
func nameOf(name, op string) string { return "notify_hasura_" + name + "_" + op }

func namesOf(name string) (all []string) {
	for _, op := range operations {
		all = append(all, nameOf(name, op))
	}
	return all
}

// sqlTrigger is an SQL trigger of Hasura.
type sqlTrigger struct {
	OID        uint32
	Name       string
	Relation   uint32
	Schema     string
	Table      string
	Enabled    string // pg_trigger.tgenabled
	Definition string
	Source     string // of its function
}

func (t *sqlTrigger) op() string { return t.Name[strings.LastIndex(t.Name, "_")+1:] }

// remake returns the statements that make it again.
func (t *sqlTrigger) remake() string {
	if t.Enabled == "A" {
		return t.Definition + "; alter table " + pg.QuoteName(t.Schema, t.Table) + " enable always trigger " + pg.QuoteName(t.Name)
	}
	return t.Definition
}

// sqlTriggers returns the SQL triggers that Hasura has for a trigger, on any table. Version 1 had
// their functions in hdb_views.
func sqlTriggers(ctx context.Context, db pg.Queryer, name string) ([]sqlTrigger, error) {
	found, err := pg.Collect[sqlTrigger](ctx, db, `
select t.oid, t.tgname::text as name, t.tgrelid as relation, n.nspname::text as schema, c.relname::text as "table", t.tgenabled::text as enabled,
       pg_get_triggerdef(t.oid) as definition, p.prosrc as source
  from pg_trigger t
  join pg_class c on c.oid = t.tgrelid
  join pg_namespace n on n.oid = c.relnamespace
  join pg_proc p on p.oid = t.tgfoid
  join pg_namespace f on f.oid = p.pronamespace
 where not t.tgisinternal and t.tgparentid = 0 and f.nspname in ('hdb_catalog', 'hdb_views') and t.tgname = any($1::text[]::name[])
 order by n.nspname, c.relname, t.tgname`, namesOf(name))
	if err != nil {
		return nil, fmt.Errorf("look for the SQL triggers of Hasura: %w", err)
	}
	return found, nil
}

// functions returns which of the functions of a trigger there are. Hasura drops them when the
// trigger is deleted from its metadata.
func functions(ctx context.Context, db pg.Queryer, name string) ([]string, error) {
	found, err := pg.Collect[struct{ Name string }](ctx, db, `
select distinct p.proname::text as name from pg_proc p join pg_namespace f on f.oid = p.pronamespace
 where f.nspname in ('hdb_catalog', 'hdb_views') and p.proname = any($1::text[]::name[]) order by 1`, namesOf(name))
	if err != nil {
		return nil, fmt.Errorf("look for the functions of Hasura: %w", err)
	}
	var names []string
	for _, f := range found {
		names = append(names, f.Name)
	}
	return names, nil
}

// subject is a trigger that is moved: what Rowhook and Hasura have of it.
type subject struct {
	ID       int32
	Name     string
	Relation uint32
	Schema   string
	Table    string
	Kind     string // pg_class.relkind
	Paused   bool
	Owns     bool // the role may change the table's triggers
	Columns  []string
	RawSpec  []byte

	spec     trigger.Spec
	log      logTable
	triggers []sqlTrigger
}

// logTable is hdb_catalog.event_log.
type logTable struct {
	OID     uint32
	Columns []string
	Locked  string // the type of the column locked
	Uses    bool   // the role may use the schema
	Selects bool
	Updates bool
	Fences  bool // the role may add a trigger
}

// inFlight is SQL that is true while Hasura is sending an event. It sends one again that has been
// locked for 30 minutes. Before version 2 the column was a boolean.
func (l *logTable) inFlight() string {
	if l.Locked == "boolean" {
		return "l.locked"
	}
	return "(l.locked is not null and l.locked >= now() - interval '30 minutes')"
}

func (s *subject) table() string { return pg.QuoteName(s.Schema, s.Table) }
func (s *subject) plain() string { return pg.PlainName(s.Schema, s.Table) }

type lockedTable struct {
	name string
	oid  uint32
}

func (s *subject) locked() []lockedTable {
	return []lockedTable{{s.plain(), s.Relation}, {"hdb_catalog.event_log", s.log.OID}}
}

// look reads what there is of a trigger.
func (c *Cutover) look(ctx context.Context, db pg.Queryer, name string) (*subject, error) {
	rows, err := pg.Collect[subject](ctx, db, `
select t.id, t.name, coalesce(c.oid, 0) as relation, coalesce(n.nspname::text, t.schema_name) as schema, coalesce(c.relname::text, t.table_name) as "table",
       coalesce(c.relkind::text, '') as kind, t.paused, coalesce(pg_has_role(c.relowner, 'USAGE'), false) as owns, convert_to(t.spec::text, 'UTF8') as rawspec,
       array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum) as columns
  from rowhook.trigger t`+queue.WatchedNow+`
  left join pg_class c on c.oid = w.relation
  left join pg_namespace n on n.oid = c.relnamespace
 where t.removed_at is null and t.name = $1`, name)
	if err != nil {
		return nil, fmt.Errorf("read the trigger %s: %w", name, err)
	}
	if len(rows) == 0 {
		return nil, c.unknown(ctx, db, name)
	}
	s := &rows[0]
	s.spec = trigger.DefaultSpec()
	if err := json.Unmarshal(s.RawSpec, &s.spec); err != nil {
		return nil, fmt.Errorf("read the spec of %s: %w", name, err)
	}
	if err := s.readLog(ctx, db); err != nil {
		return nil, err
	}
	s.triggers, err = sqlTriggers(ctx, db, name)
	return s, err
}

func (c *Cutover) unknown(ctx context.Context, db pg.Queryer, name string) error {
	all, err := pg.Collect[struct{ Name string }](ctx, db, "select name from rowhook.trigger where removed_at is null order by name")
	if err != nil {
		return fmt.Errorf("list the triggers: %w", err)
	}
	var names []string
	for _, t := range all {
		names = append(names, t.Name)
	}
	return problem(operate.ErrNotFound, fmt.Sprintf("import it first (rowhook import hasura DIR), and have it applied with its deliveries paused: rowhook cutover hasura %s -f rowhook.yaml%s", name, suggest.Hint(name, names)),
		"Rowhook has no trigger %q", name)
}

func (s *subject) readLog(ctx context.Context, db pg.Queryer) error {
	rows, err := pg.Collect[logTable](ctx, db, `
select c.oid, array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
       coalesce((select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = c.oid and a.attname = 'locked'), '') as locked,
       has_schema_privilege(n.oid, 'USAGE') as uses, has_table_privilege(c.oid, 'SELECT') as selects, has_table_privilege(c.oid, 'UPDATE') as updates,
       has_table_privilege(c.oid, 'TRIGGER') and (not $1 or pg_has_role(c.relowner, 'USAGE')) as fences
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = 'hdb_catalog' and c.relname = 'event_log' and c.relkind in ('r', 'p')`, s.spec.OnReplication)
	if err != nil {
		return fmt.Errorf("look for hdb_catalog.event_log: %w", err)
	}
	if len(rows) == 0 {
		return problem(operate.ErrRefused, "name the database that has the watched table and hdb_catalog.event_log by --database-url; Hasura keeps its events beside the table, in each source of its own",
			"this database has no hdb_catalog.event_log, so Hasura records nothing here")
	}
	s.log = rows[0]
	return nil
}

// check returns why the trigger can't be moved exactly, or nil. forward: from Hasura to Rowhook.
func (s *subject) check(forward bool) error {
	refuse := func(remedy, format string, args ...any) error {
		return problem(operate.ErrRefused, remedy, "the cut-over of "+s.Name+" would not be exact or is not possible: "+format, args...)
	}
	afterwards := "apply it as Hasura has it, cut over, and change it afterwards"
	spec := &s.spec
	switch {
	case spec.Many():
		return refuse("give each table a trigger of its own for the cut-over: one of Hasura has one table", "it watches several tables")
	case s.Relation == 0:
		return refuse("apply again", "its table %s is gone", s.plain())
	case s.Kind == "p":
		return refuse("pause writes to the table and switch by hand, as docs/hasura.md describes", "%s is partitioned, and its partitions can't be locked in one short moment", s.plain())
	case s.Kind != "r":
		return refuse("", "%s is not a table", s.plain())
	case !spec.Order.IsZero():
		return refuse(afterwards, "it has an order, and Hasura delivers in none: which of the two delivers an event would change its order")
	case spec.At != "" && spec.At != trigger.AtChange:
		return refuse(afterwards, "it records the state at commit (at: commit), and Hasura each change")
	case spec.When != "":
		return refuse(afterwards, "it has a when, and Hasura records every change")
	case !s.Owns:
		return refuse(fmt.Sprintf("connect as the owner of %s, or as a member of that role", s.plain()), "this role may not drop triggers of %s", s.plain())
	case !s.log.Uses || !s.log.Selects || !s.log.Updates || !s.log.Fences:
		return refuse("connect as Hasura's role, or: grant usage on schema hdb_catalog to ROLE; grant select, update, trigger on hdb_catalog.event_log to ROLE", "this role lacks rights on hdb_catalog.event_log")
	}
	for _, column := range []string{"id", "trigger_name", "payload", "delivered", "error", "tries", "created_at", "locked", "next_retry_at", "archived"} {
		if !slices.Contains(s.log.Columns, column) {
			return refuse("upgrade Hasura to version 1.0 or later first", "hdb_catalog.event_log has no column %s", column)
		}
	}
	if forward && len(s.triggers) == 0 {
		return refuse("look at its name in Hasura's metadata, and at the database; an event trigger that is only invoked by hand needs no cut-over: delete it in Hasura, and run \"rowhook resume "+s.Name+"\"",
			"Hasura has no SQL trigger for it here (such as %s)", nameOf(s.Name, "INSERT"))
	}
	if len(s.triggers) > 0 {
		return s.compare()
	}
	return nil
}

// compare returns in what the SQL triggers of Hasura and the trigger of Rowhook differ, or nil.
func (s *subject) compare() error {
	differ := func(remedy, format string, args ...any) error {
		return problem(operate.ErrRefused, remedy, "the cut-over of "+s.Name+" would not be exact: "+format, args...)
	}
	const alike = "make rowhook.yaml and Hasura's metadata alike and apply, cut over, and change it afterwards"
	has := map[string]bool{}
	for _, t := range s.triggers {
		if t.Relation != s.Relation {
			return differ(alike, "Hasura's trigger is on %s, and that of Rowhook on %s", pg.PlainName(t.Schema, t.Table), s.plain())
		}
		has[t.op()] = true
		if !strings.Contains(t.Source, "insert_event_log") {
			return differ("restore it: reload Hasura's metadata with its event triggers (recreate_event_triggers)", "the function of %s does not write to Hasura's event log; it was changed by hand", t.Name)
		}
		want := "O"
		if s.spec.OnReplication {
			want = "A"
		}
		if t.Enabled != want {
			says := map[string]string{"O": "fires for writes of sessions alone", "A": "fires for replicated changes, too (trigger_on_replication)", "R": "fires for replicated changes only", "D": "is disabled"}
			return differ(alike+": on_replication in rowhook.yaml, trigger_on_replication in Hasura", "%s %s, and that of Rowhook %s", t.Name, says[t.Enabled], says[want])
		}
	}
	on := s.spec.On
	for _, o := range []struct {
		op   string
		mine bool
	}{{"INSERT", on.Insert}, {"UPDATE", on.Update.Enabled}, {"DELETE", on.Delete}} {
		switch {
		case has[o.op] && !o.mine:
			return differ(alike, "Hasura records %s, and Rowhook does not", o.op)
		case !has[o.op] && o.mine:
			return differ(alike, "Rowhook records %s, and Hasura does not", o.op)
		}
	}
	for _, t := range s.triggers {
		if t.op() != "UPDATE" {
			continue
		}
		theirs, mine := s.listens(t.Source), s.all(on.Update.Columns)
		if !slices.Equal(theirs, mine) {
			return differ(alike+"; if Hasura does not know columns yet that were added since, reload its metadata with its event triggers (recreate_event_triggers)",
				"Hasura records updates of the columns %s, and Rowhook those of %s", strings.Join(theirs, ", "), strings.Join(mine, ", "))
		}
	}
	return nil
}

var (
	comparedRow    = regexp.MustCompile(`(?s)_old\s*:=\s*row\((.*?)_new\s*:=`)
	comparedColumn = regexp.MustCompile(`OLD\."((?:[^"]|"")*)"`)
)

// listens returns the columns whose change Hasura's function records, sorted. It compares two rows:
// _old := row((SELECT "e" FROM (SELECT OLD."status", ...) AS "e")), or of version 1 row(OLD).
func (s *subject) listens(source string) []string {
	var columns []string
	if m := comparedRow.FindStringSubmatch(source); m != nil {
		for _, c := range comparedColumn.FindAllStringSubmatch(m[1], -1) {
			columns = append(columns, strings.ReplaceAll(c[1], `""`, `"`))
		}
	}
	return s.all(columns)
}

// all returns the columns, sorted; none stand for every column of the table.
func (s *subject) all(columns []string) []string {
	if len(columns) == 0 {
		columns = s.Columns
	}
	columns = slices.Sorted(slices.Values(columns))
	return slices.Compact(columns)
}

// captures returns an error if Rowhook does not capture what the trigger says.
func (s *subject) captures(ctx context.Context, db pg.Queryer) error {
	moves, err := moving.Read(ctx, db)
	if err != nil {
		return err
	}
	if m := moves[s.Name]; m.Theirs() && !m.Captured {
		return problem(operate.ErrRefused, "let this command apply it: rowhook cutover hasura "+s.Name+" -f rowhook.yaml", "Rowhook records no changes for %s, since it was moved back to Hasura", s.Name)
	}
	all, err := sqlschema.FindUncaptured(ctx, db)
	if err != nil {
		return err
	}
	for _, u := range all {
		if u.Trigger == s.Name {
			return problem(operate.ErrRefused, u.Remedy, "Rowhook does not record all changes for %s: %s", s.Name, u.Problem)
		}
	}
	return nil
}

// lockTable locks the table until the transaction ends. Whoever has written to it has committed
// then, or rolled back. The lock is that of DROP TRIGGER.
func (s *subject) lockTable(ctx context.Context, tx pgx.Tx) error {
	var same bool
	if _, err := tx.Exec(ctx, "lock table "+s.table()+" in access exclusive mode"); err != nil {
		return fmt.Errorf("lock %s: %w", s.plain(), err)
	}
	if err := tx.QueryRow(ctx, "select $1::text::regclass::oid = $2::oid", s.table(), s.Relation).Scan(&same); err != nil {
		return fmt.Errorf("look at %s: %w", s.plain(), err)
	}
	if !same {
		return errors.New("the table " + s.plain() + " was replaced by another one meanwhile: repeat the command")
	}
	return nil
}
