package sqlschema

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// stale is a table whose oid differs from the recorded one, as after a restore of a dump.
type stale struct {
	Name  string // of the trigger that watches it; "": none watches it any more
	Table string
}

func (s stale) change() Change {
	c := Change{Action: Replace, Object: "trigger", Name: s.Name, Detail: s.Table + " has another oid than in the dumped database"}
	if s.Name == "" {
		c.Object, c.Name, c.Detail = "table", s.Table, "it has another oid than in the dumped database, or does not exist here"
	}
	return c
}

func (s stale) String() string {
	if s.Name == "" {
		return fmt.Sprintf("the recorded oid of the table %s, which has had events, is that of another database, as after a restore", s.Table)
	}
	return fmt.Sprintf("the trigger %s watches %s, whose recorded oid is that of another database, as after a restore", s.Name, s.Table)
}

// findStale returns the tables whose recorded oid is wrong. The session must be pinned. It includes
// tables that are no longer watched.
func findStale(ctx context.Context, db pg.Queryer) ([]stale, error) {
	has, err := queue.HasRelations(ctx, db)
	if err == nil && has {
		err = db.QueryRow(ctx, "select has_table_privilege('rowhook.relation', 'SELECT')").Scan(&has)
	}
	if err != nil || !has {
		return nil, err
	}
	found, err := pg.Collect[stale](ctx, db, `
select t.name, n.nspname || '.' || c.relname as "table"
  from rowhook.trigger t
  join pg_catalog.pg_class c on c.oid = t.watched
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where t.watched::oid <> t.relation and t.removed_at is null
 union all
select '', r.schema_name || '.' || r.table_name
  from rowhook.relation r
 where r.home <> 'rowhook.relation'::regclass
   and not exists (select from rowhook.trigger t where t.relation_id = r.id and t.watched::oid <> t.relation and t.removed_at is null)
 order by 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("compare the watched tables with their records: %w", err)
	}
	return found, nil
}

// repairRelations records the oids that tables have in this database after a dump was loaded. A
// watched table is found by its name. If several recorded tables had the same name one after the
// other, the last one gets the oid.
func repairRelations(ctx context.Context, tx pgx.Tx) error {
	if has, err := queue.HasRelations(ctx, tx); err != nil || !has {
		return err
	}
	var several bool // not before version 7 of the schema
	if err := tx.QueryRow(ctx, "select pg_catalog.to_regclass('rowhook.trigger_table') is not null").Scan(&several); err != nil {
		return fmt.Errorf("look for rowhook.trigger_table: %w", err)
	}
	member := "null::oid"
	if several {
		member = "(select m.watched::oid from rowhook.trigger_table m join pg_catalog.pg_class k on k.oid = m.watched::oid where m.relation_id = r.id limit 1)"
		// A number that is the same as in the dump is that of a table that was dropped before it,
		// unless the table has its name.
		_, err := tx.Exec(ctx, `
update rowhook.trigger_table m set watched = 0::oid::regclass
  from rowhook.relation r
 where r.id = m.relation_id and r.home <> 'rowhook.relation'::regclass and m.watched::oid = r.oid
   and not exists (select from pg_catalog.pg_class k join pg_catalog.pg_namespace s on s.oid = k.relnamespace
                    where k.oid = r.oid and s.nspname = r.schema_name::name and k.relname = r.table_name::name)`)
		if err != nil {
			return fmt.Errorf("record the oids of the tables of triggers with several: %w", err)
		}
	}
	for _, sql := range []string{
		"update rowhook.relation set oid = 0 where home <> 'rowhook.relation'::regclass and oid <> 0", `
with found as (
  select r.id, coalesce(w.oid, c.oid) as oid, w.oid is not null as watched
    from rowhook.relation r
    left join lateral (select coalesce(
        (select nullif(w.relation, 0) as oid from rowhook.trigger t` + queue.WatchedNow + ` where t.relation_id = r.id and t.removed_at is null limit 1), ` + member + `) as oid) as w on true
    left join (pg_catalog.pg_namespace n join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relkind in ('r', 'p'))
           on n.nspname = r.schema_name::name and c.relname = r.table_name::name
   where r.home <> 'rowhook.relation'::regclass),
best as (
  select distinct on (f.oid) f.id, f.oid from found f
   where f.oid is not null and not exists (select from rowhook.relation x where x.oid = f.oid and x.oid <> 0)
   order by f.oid, f.watched desc, f.id desc)
update rowhook.relation r set oid = coalesce((select b.oid from best b where b.id = r.id), 0), home = 'rowhook.relation'::regclass
 where r.home <> 'rowhook.relation'::regclass`, `
update rowhook.trigger t
   set relation = t.watched::oid, schema_name = n.nspname, table_name = c.relname
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.oid = t.watched and t.watched::oid <> t.relation`,
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("record the oids of the watched tables: %w", err)
		}
	}
	return nil
}

// rememberRelations records the current names of the tables of events, also of those that are no
// longer watched. Such a table may be dropped later, when its old name belongs to another table.
func rememberRelations(ctx context.Context, conn *pgx.Conn) error {
	if has, err := queue.HasRelations(ctx, conn); err != nil || !has {
		return err
	}
	_, err := conn.Exec(ctx, `
update rowhook.relation r
   set schema_name = n.nspname, table_name = c.relname
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.oid = r.oid and r.home = 'rowhook.relation'::regclass and (r.schema_name, r.table_name) is distinct from (n.nspname::text, c.relname::text)`)
	if err != nil {
		return fmt.Errorf("record the names of the tables of events: %w", err)
	}
	return nil
}
