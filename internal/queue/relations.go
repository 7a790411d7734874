package queue

import (
	"context"
	"fmt"
	"github.com/rowhook/rowhook/internal/pg"
)

// WatchedNow joins a trigger t with the table that it watches, as w. A dump carries the name of the
// table. The oid beside it is that of the dumped database. If the table was dropped before the
// dump, only the oid is there: in this database it belongs to another table or to none, and
// w.relation is 0.
//
// Before version 3 the schema has only the oid, and an apply plans before it migrates. There the
// names of the missing columns refer to the row of nulls, absent.
const WatchedNow = `
 cross join (values (null::pg_catalog.regclass, null::integer, null::integer, null::integer[], null::pg_catalog.oid)) as absent (watched, relation_id, origin_id, relations, home)
 cross join lateral (
   select case when home is null or home = 'rowhook.trigger'::regclass or watched::pg_catalog.oid <> x.relation or exists (
            select from pg_catalog.pg_class k join pg_catalog.pg_namespace s on s.oid = k.relnamespace
             where k.oid = x.relation and s.nspname = x.schema_name::name and k.relname = x.table_name::name)
          then coalesce(watched::pg_catalog.oid, x.relation) else 0::oid end as relation, coalesce(relation_id, 0) as relation_id, coalesce(origin_id, 0) as origin_id,
          coalesce(relations, '{}') as relations
     from rowhook.trigger x where x.id = t.id) as w`

// TableName is the current name of a table, or its last known name.
type TableName struct{ Schema, Table string }

// relationNames selects the names of the tables in rowhook.relation. A watched table is found by
// WatchedNow. The oid of another table is valid only in the database in which it was recorded.
const relationNames = `
select r.id, coalesce(n.nspname::text, r.schema_name) as schema, coalesce(c.relname::text, r.table_name) as "table"
  from rowhook.relation r
  left join pg_catalog.pg_class c on c.oid = coalesce(
    (select w.relation from rowhook.trigger t` + WatchedNow + ` where t.relation_id = r.id and t.removed_at is null limit 1),
    case when r.home = 'rowhook.relation'::regclass then r.oid end)
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace`

// NameRelations returns the current names of these tables of rowhook.relation. nil means all of
// them.
func NameRelations(ctx context.Context, db pg.Queryer, ids []int32) (map[int32]TableName, error) {
	found, err := pg.Collect[struct {
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

// own returns the rowhook.relation.id of the event's table if its trigger now watches another one.
// Otherwise it returns 0.
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

// OwnTables returns own of each event. other is true if one of them is not 0.
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

// HasRelations reports whether events have a relation_id, which says of which table they are. They
// do from version 3 of the schema on. An apply plans on any version, before it migrates.
func HasRelations(ctx context.Context, db pg.Queryer) (has bool, err error) {
	err = db.QueryRow(ctx, `
select count(*) = 4 from pg_catalog.pg_attribute
 where attrelid in ('rowhook.event_log'::regclass, 'rowhook.event_archive'::regclass, 'rowhook.dead_letter'::regclass, 'rowhook.trigger'::regclass)
   and attname = 'relation_id' and not attisdropped`).Scan(&has)
	if err != nil {
		return false, fmt.Errorf("look for rowhook.event_log.relation_id: %w", err)
	}
	return has, nil
}
