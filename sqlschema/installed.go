package sqlschema

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// installed is what exists of Rowhook in the database.
type installed struct {
	database, program int32                    // schema versions
	triggers          map[string]*triggerRow   // by name
	captures          map[int32][]captureFound // by trigger id
	functions         map[int32][]functionFound
	members           map[int32][]member // by trigger id
	relations         map[uint32]int32   // rowhook.relation.id by the oid of the table
	definition        string             // of rowhook.capture
	owner             string             // of the schema, quoted for SQL; "": this role can't act as the owner
	settings          map[string]json.RawMessage
	lack              *lack           // what makeWhole restores first; nil: nothing is missing
	lanes             map[int32]int64 // number of rows of rowhook.lane, by trigger id
	moves             map[string]moving.Move

	onTable map[captureKey][]captureFound // captures, once capturesOn has put them in order
}

// captureKey is a trigger and a table.
type captureKey struct {
	id       int32
	relation uint32
}

// triggerRow is a row of rowhook.trigger.
type triggerRow struct {
	ID         int32
	Name       string
	Relation   uint32
	Schema     string // of the table, as it was called at the last apply
	Table      string
	RelationID int32 // 0: none yet
	Spec       []byte
	Removed    bool
	Captured   []byte // captured, as JSON
	Waiting    int64  // number of waiting events; 0: not counted yet
	Orphan     bool   // makeWhole writes the row first
}

// captured records what a trigger's SQL objects were made from and how they looked then. It is
// stored in rowhook.trigger.captured. By it an apply sees what has changed since, in the spec or in
// the catalog.
type captured struct {
	SQL      map[string]fingerprint `json:"sql,omitempty"` // by name of the SQL trigger
	Function fingerprint            `json:"function,omitzero"`
}

// fingerprint holds two digests: of what an object was made from, and of its description in the
// catalog then.
type fingerprint struct {
	From string `json:"from"`
	Made string `json:"made"`
}

// captureFound is a capture trigger in the catalog.
type captureFound struct {
	ID        int32
	Relation  uint32
	Table     string // schema and name, quoted for SQL
	Name      string
	Made      string // fingerprint.Made
	Guard     bool   // it captures nothing: see guardOp
	Enabled   string // pg_trigger.tgenabled
	Partition *bool  // a copy on a partition is enabled differently
}

func (c captureFound) object() string {
	if c.Guard {
		return guardOp.object()
	}
	return insertOp.object()
}

// functionFound is a function that belongs to one trigger.
type functionFound struct {
	ID        int32
	Relation  int32  // rowhook.relation.id of the table that it is for; 0: its trigger has one table
	Signature string // for drop function
	Argument  uint32 // oid of the relation whose rows it takes; 0: none
	Key       bool   // it returns the key of a row
	// PerOperation says that it returns the payload of updates and deletes: see payloadFunctions.
	PerOperation bool
	// AtCommit says that captures at commit call it: see commitFunctions.
	AtCommit bool
	// Hands says that guarded captures hand events over by it: see createHanding.
	Hands bool
	Made  string
	// Able says that the owner of the function has the rights that it uses. Without one of them
	// every write fails. REASSIGN OWNED, a restore without privileges, and rights that a database
	// denies PUBLIC by default can remove them.
	Able bool
}

// captureTriggers selects the capture triggers of all tables. It leaves out copies on partitions
// and on the chunks of a hypertable, which belong to the trigger of the parent. The digest of a
// trigger covers its type, its condition, in which columns are numbers, its function, its arguments
// and its transition table. A rename changes none of these.
const captureTriggers = captureTriggersHead + captureTriggersTail

// namedTriggers selects the capture triggers of one table ($1) with certain names ($2). Its cost
// does not grow with the number of triggers, so it does not look for copies on partitions: no index
// leads to them.
const namedTriggers = captureTriggersHead + " and t.tgrelid = $1 and t.tgname = any($2))" + captureTriggersColumns + "null::boolean as partition from mine m" + captureTriggersNames

const captureTriggersHead = `
with recursive mine as (
  select t.oid, t.tgrelid, t.tgname, t.tgenabled, t.tgtype, t.tgqual, t.tgargs, t.tgoldtable, t.tgnewtable, p.proname,
         split_part(encode(t.tgargs, 'escape'), E'\\000', 1)::integer as id
    from pg_catalog.pg_trigger t
         -- From the trigger to its function: a plan the other way reads all triggers for each function.
   cross join lateral (select f.proname, f.pronamespace from pg_catalog.pg_proc f where f.oid = t.tgfoid offset 0) as p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
   where n.nspname = 'rowhook' and p.proname ~ '^capture(_[0-9]+)?$' and t.tgparentid = 0 and not t.tgisinternal
     and encode(t.tgargs, 'escape') ~ E'^[0-9]{1,9}\\\\000'
     and not exists (
       select from pg_catalog.pg_inherits i
         join pg_catalog.pg_trigger o on o.tgrelid = i.inhparent
        where i.inhrelid = t.tgrelid and o.tgname = t.tgname and o.tgfoid = t.tgfoid and o.tgargs = t.tgargs)`

const captureTriggersTail = `
), family as (
  select oid as root, oid, tgenabled, tgenabled as wanted from mine
  union all
  select f.root, c.oid, c.tgenabled, f.wanted from family f join pg_catalog.pg_trigger c on c.tgparentid = f.oid
), differs as (
  select root from family where tgenabled <> wanted group by root
)` + captureTriggersColumns + `d.root is not null as partition
  from mine m
  left join differs d on d.root = m.oid` + captureTriggersNames

const captureTriggersColumns = `
select m.id, m.tgrelid as relation, format('%I.%I', s.nspname, c.relname) as "table", m.tgname as name,
       md5(concat_ws('|', m.tgtype, m.proname, encode(m.tgargs, 'hex'), m.tgqual::text, m.tgnewtable)) as made,
       m.tgtype & 1 = 1 and (m.tgnewtable is not null or m.tgoldtable is not null) as guard, m.tgenabled::text as enabled, `

const captureTriggersNames = `
  join pg_catalog.pg_class c on c.oid = m.tgrelid
  join pg_catalog.pg_namespace s on s.oid = c.relnamespace
 order by m.id, m.tgname`

// ownFunctions selects the functions that belong to one trigger each. The function of a key has the
// name of the payload function, so the order is by more than the name: digests are put together.
const ownFunctions = ownFunctionsHead + ownFunctionsTail

// namedFunctions selects those with certain names ($1). Its cost does not grow with the number of
// triggers.
const namedFunctions = ownFunctionsHead + " and p.proname = any($1::text[]::name[])" + ownFunctionsTail

// See own.suffix.
const ownFunctionsHead = `
select (case when length(x.suffix) > 10 then left(x.suffix, -10) else x.suffix end)::integer as id,
       (case when length(x.suffix) > 10 then right(x.suffix, 10) else '0' end)::integer as relation, p.oid::pg_catalog.regprocedure::text as signature,
       coalesce(a.typrelid, 0::oid) as argument, p.pronargs = 2 and p.proargtypes[1] = 'pg_catalog.text'::pg_catalog.regtype and p.proargtypes[0] <> 'pg_catalog.text'::pg_catalog.regtype as key,
       p.proname ~ '^payload' and (p.proargtypes[0] in ('pg_catalog.text'::pg_catalog.regtype, 'pg_catalog.tid'::pg_catalog.regtype)
         or p.pronargs = 2 and p.proargtypes[1] in ('pg_catalog.bool'::pg_catalog.regtype, p.proargtypes[0])
         or p.pronargs = 3 and p.proargtypes[2] = 'pg_catalog."char"'::pg_catalog.regtype) as at_commit,
       p.pronargs = 5 and p.proargtypes[0] = 'pg_catalog."char"'::pg_catalog.regtype as hands,
       p.pronargs = 2 and p.proargtypes[1] = 'pg_catalog."char"'::pg_catalog.regtype as per_operation, md5(concat_ws('|', p.prosrc, p.prosqlbody::text, p.proconfig::text, p.prosecdef, pg_catalog.pg_get_userbyid(p.proowner))) as made,
       p.proname !~ '^capture' or p.prosrc !~ 'rowhook\.(inbox|ordered|delayed)_' or
         pg_catalog.has_schema_privilege(p.proowner, n.oid, 'USAGE') and pg_catalog.has_sequence_privilege(p.proowner, 'rowhook.doorbell', 'SELECT')
         and coalesce(pg_catalog.has_table_privilege(p.proowner, i.oid, 'INSERT'), false)
         and case when p.prosrc !~ 'rowhook\.ordered_' then true else pg_catalog.has_sequence_privilege(p.proowner, 'rowhook.event_seq', 'USAGE')
           and (select coalesce(bool_and(pg_catalog.has_table_privilege(p.proowner, v.oid, 'INSERT')), false) from pg_catalog.pg_class v
             where v.relnamespace = n.oid and v.relname in (('ordered_' || x.suffix)::name, ('moves_' || x.suffix)::name))
           and (select bool_and(pg_catalog.has_function_privilege(p.proowner, f.oid, 'EXECUTE')) from pg_catalog.pg_proc f
             where f.pronamespace = n.oid and f.proname in ('parked', 'lane_of')) end
         and case when p.prosrc !~ 'rowhook\.delayed_' then true else coalesce((
           select pg_catalog.has_table_privilege(p.proowner, v.oid, 'INSERT') from pg_catalog.pg_class v
            where v.relnamespace = n.oid and v.relname = ('delayed_' || x.suffix)::name), false) end
         and (select bool_and(pg_catalog.has_function_privilege(p.proowner, f.oid, 'EXECUTE')) from pg_catalog.pg_proc f
           where f.pronamespace = n.oid and f.proname in ('context', 'with_values', 'uuid7', 'as_json', ('payload_' || x.suffix)::name))
         and not exists (select from pg_catalog.pg_proc q join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = q.oid
             and d.refclassid = d.classid
           where q.pronamespace = n.oid and q.proname = ('payload_' || x.suffix)::name
             and d.refobjid in (select f.oid from pg_catalog.pg_proc f where f.pronamespace = n.oid) and not pg_catalog.has_function_privilege(p.proowner, d.refobjid, 'EXECUTE')) as able
  from pg_catalog.pg_proc p
  join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  cross join lateral (select substring(p.proname from '[0-9]+$') as suffix) as x
  left join pg_catalog.pg_type a on a.oid = p.proargtypes[0]
  left join pg_catalog.pg_class i on i.relnamespace = n.oid and i.relname = ('inbox_' || x.suffix)::name
 where n.nspname = 'rowhook' and p.proname ~ '^(capture|payload)_([0-9]{1,9}|[0-9]{1,9}[0-2][0-9]{9})$'`

// Of the functions of captures at commit, some call others, and come first: that of two texts
// (type 25) calls that of two rows and a letter, which calls that of two rows.
const ownFunctionsTail = `
 order by p.proname, at_commit desc, case when p.proargtypes = '25 25'::pg_catalog.oidvector then 1 when p.pronargs = 3 then 2 else 3 end, p.pronargs, p.oid`

// readInstalled reads what is installed. It also works if the schema is missing or older, and then
// finds less.
func readInstalled(ctx context.Context, conn *pgx.Conn) (*installed, error) {
	in := &installed{
		triggers: map[string]*triggerRow{}, captures: map[int32][]captureFound{},
		functions: map[int32][]functionFound{}, settings: map[string]json.RawMessage{}, lanes: map[int32]int64{},
	}
	var err error
	var incomplete *IncompleteError
	if in.database, in.program, err = Version(ctx, conn); err != nil && !errors.As(err, &incomplete) {
		return nil, err
	}
	if in.database > in.program {
		if err := newerIsCompatible(ctx, conn, in.database, in.program); err != nil {
			return nil, err
		}
	}
	if in.database == 0 {
		return in, nil
	}
	// The text depends on quote_all_identifiers, which is set for this statement alone.
	err = conn.QueryRow(ctx, "select d.text from pg_catalog.set_config('quote_all_identifiers', 'off', true) as off, "+
		"lateral (select coalesce(pg_catalog.pg_get_functiondef(pg_catalog.to_regprocedure('rowhook.capture()')), '') where off = 'off') as d(text)").Scan(&in.definition)
	if err != nil {
		return nil, fmt.Errorf("read rowhook.capture: %w", err)
	}
	err = conn.QueryRow(ctx, `
select case when pg_catalog.pg_has_role(nspowner, `+setRole+`) then nspowner::pg_catalog.regrole::pg_catalog.text else '' end
  from pg_catalog.pg_namespace where nspname = 'rowhook'`).Scan(&in.owner)
	if err != nil {
		return nil, fmt.Errorf("read the owner of the schema rowhook: %w", err)
	}
	rows, err := pg.Collect[triggerRow](ctx, conn, `
select t.id, t.name, w.relation, t.schema_name as schema, t.table_name as "table", w.relation_id, t.spec, t.removed_at is not null as removed, t.captured, 0::bigint as waiting, false as orphan
  from rowhook.trigger t`+queue.WatchedNow)
	if err != nil {
		return nil, fmt.Errorf("read rowhook.trigger: %w", err)
	}
	for i := range rows {
		in.triggers[rows[i].Name] = &rows[i]
	}
	if in.lack, err = findLack(ctx, conn); err != nil {
		return nil, err
	}
	for _, row := range in.lack.rows() {
		if in.triggers[row.Name] == nil {
			in.triggers[row.Name] = &row
		}
	}
	captures, err := pg.Collect[captureFound](ctx, conn, captureTriggers)
	if err != nil {
		return nil, fmt.Errorf("list capture triggers: %w", err)
	}
	for _, c := range captures {
		in.captures[c.ID] = append(in.captures[c.ID], c)
	}
	functions, err := pg.Collect[functionFound](ctx, conn, ownFunctions)
	if err != nil {
		return nil, fmt.Errorf("list capture functions: %w", err)
	}
	for _, f := range functions {
		in.functions[f.ID] = append(in.functions[f.ID], f)
	}
	if in.members, err = readMembers(ctx, conn); err != nil {
		return nil, err
	}
	if in.relations, err = readRelationIDs(ctx, conn); err != nil {
		return nil, err
	}
	if in.database >= queue.OrderedSchema {
		lanes, err := pg.Collect[struct {
			ID int32
			N  int64
		}](ctx, conn, "select trigger_id as id, count(*) as n from rowhook.lane group by 1")
		if err != nil {
			return nil, fmt.Errorf("count the lanes of ordered triggers: %w", err)
		}
		for _, l := range lanes {
			in.lanes[l.ID] = l.N
		}
	}
	settings, err := pg.Collect[struct{ Name, Value string }](ctx, conn, "select name, value::text as value from rowhook.setting")
	if err != nil {
		return nil, fmt.Errorf("read rowhook.setting: %w", err)
	}
	for _, s := range settings {
		in.settings[s.Name] = json.RawMessage(s.Value)
	}
	in.moves, err = moving.Read(ctx, conn)
	return in, err
}

// byID returns the ids that have a row or SQL objects, in ascending order.
func (in *installed) byID() []int32 {
	ids := map[int32]bool{}
	for _, row := range in.triggers {
		ids[row.ID] = true
	}
	for id := range in.captures {
		ids[id] = true
	}
	for id := range in.functions {
		ids[id] = true
	}
	for id := range in.members {
		ids[id] = true
	}
	return slices.Sorted(maps.Keys(ids))
}

// capturesOn returns the capture triggers of one trigger on one table.
func (in *installed) capturesOn(id int32, relation uint32) []captureFound {
	if in.onTable == nil {
		in.onTable = map[captureKey][]captureFound{}
		for id, captures := range in.captures {
			for _, c := range captures {
				key := captureKey{id, c.Relation}
				in.onTable[key] = append(in.onTable[key], c)
			}
		}
	}
	return in.onTable[captureKey{id, relation}]
}

// functionsOf returns the functions with these names, which may be of several tables.
func (in *installed) functionsOf(of own) (found []functionFound) {
	for _, f := range in.functions[of.id] {
		if f.Relation == of.relation {
			found = append(found, f)
		}
	}
	return found
}

// member returns what is recorded of a table of a trigger, or nil.
func (in *installed) member(id int32, relation uint32) *member {
	all := in.members[id]
	if i := slices.IndexFunc(all, func(m member) bool { return m.Relation == relation }); i >= 0 {
		return &all[i]
	}
	return nil
}

// readRelationIDs returns rowhook.relation.id of the tables that it has, by their oid here.
func readRelationIDs(ctx context.Context, conn *pgx.Conn) (map[uint32]int32, error) {
	has, err := queue.HasRelations(ctx, conn)
	if err != nil || !has {
		return nil, err
	}
	found, err := pg.Collect[struct {
		ID  int32
		OID uint32
	}](ctx, conn, "select id, oid from rowhook.relation where oid <> 0 and home = 'rowhook.relation'::regclass")
	if err != nil {
		return nil, fmt.Errorf("read rowhook.relation: %w", err)
	}
	ids := make(map[uint32]int32, len(found))
	for _, r := range found {
		ids[r.OID] = r.ID
	}
	return ids, nil
}

func (in *installed) row(id int32) *triggerRow {
	for _, row := range in.triggers {
		if row.ID == id {
			return row
		}
	}
	return nil
}
