package sqlschema

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// WatchedNow joins a trigger t with the table that it watches, as w. A dump carries the name of that, while the oid beside it is the one of the
// database that was dumped. Of a table that was gone by then it carries the oid alone, which is another's here, or nobody's: 0. Before version 3 of the schema there is only the oid: then a column's name leads to the row of nulls outside.
const WatchedNow = `
 cross join (values (null::pg_catalog.regclass, null::integer, null::integer, null::integer[], null::pg_catalog.oid)) as absent (watched, relation_id, origin_id, relations, home)
 cross join lateral (
   select case when home is null or home = 'rowhook.trigger'::regclass or watched::pg_catalog.oid <> x.relation or exists (
            select from pg_catalog.pg_class k join pg_catalog.pg_namespace s on s.oid = k.relnamespace
             where k.oid = x.relation and s.nspname = x.schema_name::name and k.relname = x.table_name::name)
          then coalesce(watched::pg_catalog.oid, x.relation) else 0::oid end as relation, coalesce(relation_id, 0) as relation_id, coalesce(origin_id, 0) as origin_id,
          coalesce(relations, '{}') as relations
     from rowhook.trigger x where x.id = t.id) as w`

// TableName is what a table is called, or was when it was last known.
type TableName struct{ Schema, Table string }

// relationNames names tables of rowhook.relation. One that is watched is found by what a dump carries. The oid of another is good only where
// it was recorded.
const relationNames = `
select r.id, coalesce(n.nspname::text, r.schema_name) as schema, coalesce(c.relname::text, r.table_name) as "table"
  from rowhook.relation r
  left join pg_catalog.pg_class c on c.oid = coalesce(
    (select w.relation from rowhook.trigger t` + WatchedNow + ` where t.relation_id = r.id and t.removed_at is null limit 1),
    case when r.home = 'rowhook.relation'::regclass then r.oid end)
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace`

// NameRelations says what these tables of rowhook.relation are called now. nil: all of them. It needs version 3 of the schema.
func NameRelations(ctx context.Context, db Queryer, ids []int32) (map[int32]TableName, error) {
	found, err := collect[struct {
		ID            int32
		Schema, Table string
	}](ctx, db, relationNames+" where $1::integer[] is null or r.id = any($1)", ids)
	if err != nil {
		return nil, fmt.Errorf("read rowhook.relation: %w", err)
	}
	names := make(map[int32]TableName, len(found))
	for _, f := range found {
		names[f.ID] = TableName{f.Schema, f.Table}
	}
	return names, nil
}

// rememberRelations keeps what tables of events are called now, those that nothing watches any more among them. One of these may be dropped
// later, when its old name has become that of another table.
func rememberRelations(ctx context.Context, conn *pgx.Conn) error {
	if has, err := hasRelations(ctx, conn); err != nil || !has {
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

// own is the table of an event where that is another than the one that its trigger watches by now, else 0.
func (c *Claimed) own(w *Want) int32 {
	id := c.RelationID
	if id == 0 {
		id = w.OriginID
	}
	if id == w.RelationID || w.RelationID == 0 {
		return 0
	}
	return id
}

// OwnTables lists, for each event, the table that it is of where its trigger watches another by now, else 0, by its rowhook.relation.id.
func OwnTables(wants []Want, events []Claimed) (ids []int32, other bool) {
	byTrigger := make(map[int32]*Want, len(wants))
	for i := range wants {
		byTrigger[wants[i].Trigger] = &wants[i]
	}
	ids = make([]int32, len(events))
	for i := range events {
		if w := byTrigger[events[i].Trigger]; w != nil {
			ids[i] = events[i].own(w)
			other = other || ids[i] != 0
		}
	}
	return ids, other
}

// hasRelations reports that events have a relation_id.
func hasRelations(ctx context.Context, db Queryer) (has bool, err error) {
	err = db.QueryRow(ctx, `
select count(*) = 4 from pg_catalog.pg_attribute
 where attrelid in ('rowhook.event_log'::regclass, 'rowhook.event_archive'::regclass, 'rowhook.dead_letter'::regclass, 'rowhook.trigger'::regclass)
   and attname = 'relation_id' and not attisdropped`).Scan(&has)
	if err != nil {
		return false, fmt.Errorf("look for rowhook.event_log.relation_id: %w", err)
	}
	return has, nil
}

// HasRelations reports that events say which table they are of, as they do from version 3 of the schema on.
func HasRelations(ctx context.Context, db Queryer) (bool, error) { return hasRelations(ctx, db) }

// stale is a table that has another oid than the one that is recorded, as after a restore.
type stale struct {
	Name  string // of the trigger that watches it; "": none does any more
	Table string
}

func (s stale) change() Change {
	c := Change{Action: Replace, Object: "trigger", Name: s.Name, Detail: s.Table + " has another oid here than in the database that was dumped"}
	if s.Name == "" {
		c.Object, c.Name, c.Detail = "table", s.Table, "it has another oid here, if any, than in the database that was dumped"
	}
	return c
}

func (s stale) String() string {
	if s.Name == "" {
		return fmt.Sprintf("of the table %s, of which there were events, the oid of another database is recorded, as after a restore", s.Table)
	}
	return fmt.Sprintf("the trigger %s watches %s, of which the oid of another database is recorded, as after a restore", s.Name, s.Table)
}

// findStale works in a pinned session. Relations that are no longer watched follow along.
func findStale(ctx context.Context, db Queryer) ([]stale, error) {
	has, err := hasRelations(ctx, db)
	if err == nil && has {
		err = db.QueryRow(ctx, "select has_table_privilege('rowhook.relation', 'SELECT')").Scan(&has)
	}
	if err != nil || !has {
		return nil, err
	}
	found, err := collect[stale](ctx, db, `
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
		return nil, fmt.Errorf("compare the watched tables with what is recorded of them: %w", err)
	}
	return found, nil
}

// repairRelations records the oids that tables have here, where all came by a dump. What is watched is known by name. Of several tables that
// had the same name in turn the last is the one that has it now.
func repairRelations(ctx context.Context, tx pgx.Tx) error {
	if has, err := hasRelations(ctx, tx); err != nil || !has {
		return err
	}
	for _, sql := range []string{
		"update rowhook.relation set oid = 0 where home <> 'rowhook.relation'::regclass and oid <> 0", `
with found as (
  select r.id, coalesce(w.oid, c.oid) as oid, w.oid is not null as watched
    from rowhook.relation r
    left join lateral (select nullif(w.relation, 0) as oid from rowhook.trigger t` + WatchedNow + ` where t.relation_id = r.id and t.removed_at is null limit 1) as w on true
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
			return fmt.Errorf("record the tables that are watched here: %w", err)
		}
	}
	return nil
}
