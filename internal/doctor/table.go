package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/sqlschema"
)

// watchedTable is a table of the configuration, or of the applied triggers.
type watchedTable struct {
	Schema, Name string
	Kind         string // pg_class.relkind
	Persistence  string // pg_class.relpersistence
	Inherits     bool
	Parts        int64
	Hypertable   bool // of TimescaleDB
	Compressed   bool
	Distributed  string // of Citus: distributed, reference, local; "": none
	Extension    string
}

func (t *watchedTable) String() string { return pg.PlainName(t.Schema, t.Name) }

// checkTables looks at the tables of the configuration, or of the applied triggers if no
// configuration is given.
func (e *examination) checkTables(ctx context.Context) error {
	if e.other || e.server < sqlschema.MinServerVersion {
		return nil // it was said
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		if !e.HasFile && e.compatible {
			if sqlschema.CheckRights(ctx, tx) != nil {
				return nil //nolint:nilerr // it was said
			}
			var err error
			if e.tables, err = sqlschema.WatchedTables(ctx, tx); err != nil {
				return err
			}
		}
		if len(e.tables) == 0 {
			if !e.HasFile {
				e.ok("no tables were looked at, since no trigger is applied: -f rowhook.yaml looks at those of a configuration")
			}
			return nil
		}
		tables, err := readTables(ctx, tx, e.tables)
		if err != nil {
			return err
		}
		e.judgeTables(tables)
		return nil
	})
}

func readTables(ctx context.Context, tx pgx.Tx, oids []uint32) ([]watchedTable, error) {
	var hypertables, citus bool
	err := tx.QueryRow(ctx, `
select coalesce(bool_or(n.nspname = '_timescaledb_catalog' and c.relname = 'hypertable' and has_schema_privilege(n.oid, 'USAGE') and has_table_privilege(c.oid, 'SELECT')), false),
       coalesce(bool_or(c.relname = 'pg_dist_partition' and has_table_privilege(c.oid, 'SELECT')), false)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relname in ('hypertable', 'pg_dist_partition') and n.nspname in ('_timescaledb_catalog', 'pg_catalog', 'citus')`).Scan(&hypertables, &citus)
	if err != nil {
		return nil, fmt.Errorf("look for the catalogs of extensions: %w", err)
	}
	hyper, distributed := "false as hypertable, false as compressed", "'' as distributed"
	if hypertables {
		hyper = `exists (select from _timescaledb_catalog.hypertable h where h.schema_name::name = n.nspname and h.table_name::name = c.relname) as hypertable,
       exists (select from _timescaledb_catalog.hypertable h where h.schema_name::name = n.nspname and h.table_name::name = c.relname and to_jsonb(h)->>'compressed_hypertable_id' is not null) as compressed`
	}
	if citus {
		distributed = `coalesce((select case when p.partmethod in ('h', 'r', 'a') then 'distributed' when p.repmodel = 't' then 'reference' else 'local' end
                  from pg_dist_partition p where p.logicalrelid = c.oid), '') as distributed`
	}
	tables, err := pg.Collect[watchedTable](ctx, tx, `
select n.nspname::text as schema, c.relname::text as name, c.relkind::text as kind, c.relpersistence::text as persistence,
       c.relkind = 'r' and exists (select from pg_inherits i where i.inhparent = c.oid) as inherits,
       (select count(*) from pg_inherits i where i.inhparent = c.oid) as parts, `+hyper+`, `+distributed+`,
       coalesce((select x.extname::text from pg_depend d join pg_extension x on x.oid = d.refobjid
                  where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e' limit 1), '') as extension
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.oid = any($1) order by 1, 2`, oids)
	if err != nil {
		return nil, fmt.Errorf("read the description of the tables: %w", err)
	}
	return tables, nil
}

// judgeTables groups tables that have the same in common.
func (e *examination) judgeTables(tables []watchedTable) {
	named := func(is func(t *watchedTable) bool) string {
		var names []string
		for i := range tables {
			if is(&tables[i]) {
				names = append(names, tables[i].String())
			}
		}
		return someOf(names)
	}
	before := len(e.report.Findings)
	if names := named(func(t *watchedTable) bool { return t.Distributed == "distributed" }); names != "" {
		e.fail("watch a table that is not distributed, such as one that the application writes beside it", "Citus has distributed %s: Postgres runs triggers where the rows are, on the workers, where there is no queue", names)
	}
	if names := named(func(t *watchedTable) bool { return t.Distributed == "reference" }); names != "" {
		e.warn("try it before relying on it: rowhook test, and a write on each node", "%s is a reference table of Citus, which has a copy on every node", names)
	}
	if names := named(func(t *watchedTable) bool { return t.Persistence == "u" }); names != "" {
		e.warn("alter table ... set logged", "%s is unlogged: a crash of the server empties it, and no event tells of that", names)
	}
	if names := named(func(t *watchedTable) bool { return t.Kind == "f" }); names != "" {
		e.fail("run Rowhook on the server that has the rows", "%s is a foreign table, whose rows can change without this server knowing", names)
	}
	if names := named(func(t *watchedTable) bool { return t.Inherits && !t.Hypertable }); names != "" {
		e.warn("give the tables that inherit triggers of their own (tables: [...])", "other tables inherit from %s, and Postgres does not run its triggers for their rows", names)
	}
	if names := named(func(t *watchedTable) bool { return t.Hypertable && t.Compressed }); names != "" {
		e.ok("%s is a hypertable with compression: changes of compressed chunks by the application are captured, and what policies compress or drop is not", names)
	}
	if names := named(func(t *watchedTable) bool { return t.Hypertable && !t.Compressed }); names != "" {
		e.ok("%s is a hypertable: changes are captured row by row, and chunks that are dropped leave no event", names)
	}
	if names := named(func(t *watchedTable) bool { return t.Kind == "p" }); names != "" {
		e.ok("%s is partitioned: events name it, and a partition that is detached or dropped leaves no event", names)
	}
	if names := named(func(t *watchedTable) bool { return t.Extension != "" }); names != "" {
		e.warn("watch a table of your own", "%s belongs to an extension, which may replace it", names)
	}
	if len(e.report.Findings) == before {
		e.ok("nothing is unusual about %s", term.Plural(int64(len(tables)), "watched table"))
	}
}

// someOf lists at most five names, and how many more there are.
func someOf(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// otherTrigger is an SQL trigger on a watched table that is not Rowhook's.
type otherTrigger struct {
	Table, Trigger string
	Schema         string // of its function
	Function       string
	Disabled       bool
	Source         string // what its function does, by the words in it: http, notify, queue; "": nothing of these
}

// moved reports whether it is one of Hasura's for a trigger that is being moved, or was moved back.
func (t *otherTrigger) moved(moves map[string]moving.Move) bool {
	if t.Schema != "hdb_catalog" {
		return false
	}
	for name, m := range moves {
		if (m.UnderWay() || m.Theirs()) && strings.HasPrefix(t.Trigger, "notify_hasura_"+name+"_") {
			return true
		}
	}
	return false
}

// checkCaptures tells who else captures changes of the watched tables: each change would be sent
// twice.
func (e *examination) checkCaptures(ctx context.Context) error {
	if e.other || len(e.tables) == 0 {
		return nil
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		all, err := pg.Collect[otherTrigger](ctx, tx, `
select format('%I.%I', n.nspname, c.relname) as "table", t.tgname::text as trigger, s.nspname::text as schema, p.proname::text as function, t.tgenabled = 'D' as disabled,
       case when p.prosrc ~* '\mnet\.http_|\mhttp_(post|get|put|delete|request)\M|\mhttp\s*\(\s*\(' then 'http'
            when p.prosrc ~* '\mpgmq\.send' then 'queue'
            when p.prosrc ~* '\mpg_notify\M|\mnotify\s+"?\w' then 'notify' else '' end as source
  from pg_trigger t
  join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
  join pg_proc p on p.oid = t.tgfoid join pg_namespace s on s.oid = p.pronamespace
 where t.tgrelid = any($1) and not t.tgisinternal and s.nspname <> 'rowhook' order by 1, 2`, e.tables)
		if err != nil {
			return fmt.Errorf("list the triggers of the tables: %w", err)
		}
		if e.compatible { // of those that are moved, the status says who records
			moves, err := moving.Read(ctx, tx)
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(t otherTrigger) bool { return t.moved(moves) })
		}
		e.judgeCaptures(all)
		return e.judgePublished(ctx, tx)
	})
}

func (e *examination) judgeCaptures(all []otherTrigger) {
	named := func(is func(t *otherTrigger) bool) string {
		var names []string
		for i := range all {
			if t := &all[i]; !t.Disabled && is(t) {
				names = append(names, pg.PlainName(t.Trigger)+" on "+t.Table)
			}
		}
		return someOf(names)
	}
	hasura := func(t *otherTrigger) bool { return t.Schema == "hdb_catalog" }
	supabase := func(t *otherTrigger) bool { return t.Schema == "supabase_functions" }
	if names := named(hasura); names != "" {
		e.warn("move a trigger from one to the other at a cut-over; meanwhile receivers get each change twice, with different ids", "Hasura's event triggers capture these tables, too: %s", names)
	}
	if names := named(supabase); names != "" {
		e.warn("drop each when its Rowhook trigger is applied; until then receivers get each change twice", "Supabase's database webhooks send changes of these tables, too: %s", names)
	}
	known := func(t *otherTrigger) bool { return hasura(t) || supabase(t) }
	if names := named(func(t *otherTrigger) bool { return !known(t) && t.Source == "http" }); names != "" {
		e.warn("see whether its requests and Rowhook's are meant for the same receiver", "the function of a trigger sends HTTP requests by itself: %s", names)
	}
	if names := named(func(t *otherTrigger) bool { return !known(t) && t.Source == "queue" }); names != "" {
		e.ok("triggers put messages into pgmq, which Rowhook leaves alone: %s", names)
	}
	if names := named(func(t *otherTrigger) bool { return !known(t) && t.Source == "notify" }); names != "" {
		e.warn("notify only where somebody needs it: a commit that notifies waits for every other one that does", "a trigger notifies at each write: %s", names)
	}
	if names := named(func(t *otherTrigger) bool { return !known(t) && t.Source == "" }); names != "" {
		e.ok("other triggers on these tables, which run beside Rowhook's in the order of their names: %s", names)
	}
	if len(all) == 0 {
		e.ok("nothing else has triggers on these tables")
	}
}

// judgePublished names the publications of the tables: the captures of Sequin, Debezium and others.
func (e *examination) judgePublished(ctx context.Context, tx pgx.Tx) error {
	var names []string
	err := tx.QueryRow(ctx, `
select array(select distinct p.pubname::text from pg_publication_tables p join pg_namespace n on n.nspname = p.schemaname
               join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename where c.oid = any($1) order by 1)`, e.tables).Scan(&names)
	if err != nil {
		return fmt.Errorf("look for publications of the tables: %w", err)
	}
	slices.Sort(names)
	if len(names) > 0 {
		e.ok("%s of these tables, too: what reads from %s (a subscriber, Sequin, Debezium) gets the same changes", map[bool]string{true: "a publication is", false: term.Plural(int64(len(names)), "publication") + " are"}[len(names) == 1], someOf(names))
	}
	return nil
}
