package queue

import (
	"context"
	"fmt"
	"github.com/rowhook/rowhook/internal/pg"
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

// HasRelations reports that events have a relation_id: they say which table they are of, from
// version 3 of the schema on.
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
