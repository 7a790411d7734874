package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/rowhook/rowhook/internal/mask"
	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// knownTrigger is a row of rowhook.trigger. It may be a removed one.
type knownTrigger struct {
	ID       int32
	Name     string
	Relation uint32
	Schema   string
	Table    string
	Paused   bool
	Removed  bool
	Spec     string
	// These are rowhook.relation.id. RelationID is the present table. OriginID is the table of
	// events without a relation_id. Relations are all tables that it has watched.
	RelationID, OriginID int32
	Relations            []int32
	// Masked is payload.mask of the spec as JSON; "": none. RowKey are the columns of the primary key
	// of its tables, if it has both a mask and an order.
	Masked string
	RowKey []string
	// Renews says that the schema notes when an event was sent again by hand.
	Renews bool
	// Moving is how far it is moved between Hasura and Rowhook; "": it never was.
	Moving moving.Step

	mask      *mask.Mask                `db:"-"` // nil: it masks nothing
	keyMasked bool                      `db:"-"` // its keys are not shown
	names     map[int32]queue.TableName `db:"-"` // by rowhook.relation.id
	watches   string                    // the entries of Spec.Tables, for people; "": it has one table
}

// unlessPrepared returns an error while both record the trigger's changes and Hasura delivers them, since
// a command, such as a backfill, would lose or double events then.
func (t *knownTrigger) unlessPrepared(command string) error {
	if t.Moving != moving.Prepared || t.Removed {
		return nil
	}
	m := moving.Move{Trigger: t.Name, Step: t.Moving, Active: true}
	return problem(ErrRefused, m.Remedy(), "there can be no %s of the trigger %q now, since %s", command, t.Name, m.Problem())
}

func (t *knownTrigger) qualified() string { return t.Schema + "." + t.Table }

// watched returns its table, or the entries of Spec.Tables.
func (t *knownTrigger) watched() string {
	if t.watches != "" {
		return t.watches
	}
	return t.qualified()
}

// readWatches reads from the spec whether it has several tables.
func (t *knownTrigger) readWatches() error {
	if !strings.Contains(t.Spec, `"tables"`) {
		return nil
	}
	var spec trigger.Spec
	if err := json.Unmarshal([]byte(t.Spec), &spec); err != nil {
		return fmt.Errorf("read the spec of %s: %w", t.Name, err)
	}
	if spec.Many() {
		t.watches = spec.Watches()
	}
	return nil
}

// chosenTable is one of the tables of a trigger.
type chosenTable struct {
	Relation      uint32
	RelationID    int32 // 0: the trigger has one table
	Schema, Table string
}

func (c *chosenTable) qualified() string { return c.Schema + "." + c.Table }

// choose returns the table of a trigger with this name: table or schema.table. Without a name it
// returns the only one, or if the first one will do, that.
func (t *knownTrigger) choose(ctx context.Context, db pg.Queryer, name string, first bool) (*chosenTable, error) {
	tables := []chosenTable{{t.Relation, 0, t.Schema, t.Table}}
	if t.watches != "" {
		members, err := sqlschema.FindMembers(ctx, db, t.ID)
		if err != nil {
			return nil, err
		}
		tables = nil
		for _, m := range members {
			tables = append(tables, chosenTable{m.Relation, m.RelationID, m.Schema, m.Table})
		}
	}
	bare := strings.ReplaceAll(name, `"`, "")
	var found, names []string
	at := -1
	for i := range tables {
		names = append(names, tables[i].qualified())
		if tables[i].qualified() == bare || tables[i].Table == bare {
			found, at = append(found, tables[i].qualified()), i
		}
	}
	const most = 10
	list := strings.Join(names[:min(most, len(names))], ", ")
	if len(names) > most {
		list += ", ..."
	}
	switch {
	case len(tables) == 0:
		return nil, problem(ErrRefused, "create a table that matches "+t.watches+", and apply again", "the trigger %q watches no table yet", t.Name)
	case name == "" && (first || len(tables) == 1):
		return &tables[0], nil
	case name == "":
		return nil, problem(ErrInvalid, "choose one by --table (table: in JSON): "+list, "the trigger %q watches several tables", t.Name)
	case len(found) > 1:
		return nil, problem(ErrInvalid, "write it with its schema: "+strings.Join(found, " or "), "the trigger %q watches several tables with the name %q", t.Name, name)
	case at < 0:
		return nil, problem(ErrNotFound, "its tables are "+list+suggest.Hint(bare, names), "the trigger %q does not watch a table %q", t.Name, name)
	}
	return &tables[at], nil
}

// triggers are all triggers, present and removed, by name.
type triggers []knownTrigger

func readTriggers(ctx context.Context, db pg.Queryer) (triggers, error) {
	all, err := pg.Collect[knownTrigger](ctx, db, `
select t.id, t.name, w.relation, coalesce(n.nspname, t.schema_name) as schema, coalesce(c.relname, t.table_name) as "table", t.paused,
       t.removed_at is not null as removed, t.spec::text as spec, w.relation_id, w.origin_id, w.relations,
       coalesce(t.spec->'payload'->>'mask', '') as masked,
       case when t.spec->'payload' ? 'mask' and t.spec ? 'order' then array(
         select distinct a.attname::text
           from (select w.relation union select r.oid from rowhook.relation r where r.id = any(w.relations)) as k(oid)
           join pg_catalog.pg_index i on i.indrelid = k.oid and i.indisprimary
           join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)) end as row_key,
       exists (select from pg_catalog.pg_attribute where attrelid = pg_catalog.to_regclass('rowhook.event_log') and attname = 'renewed_at' and not attisdropped) as renews,
       coalesce((select s.value ->> 'step' from rowhook.setting s where s.name = 'cutover:' || t.name), '') as moving
  from rowhook.trigger t`+queue.WatchedNow+`
  left join pg_catalog.pg_class c on c.oid = w.relation
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 order by t.name`)
	if err != nil {
		return nil, fmt.Errorf("read the triggers: %w", err)
	}
	names, err := queue.NameRelations(ctx, db, nil)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].names = names
		all[i].readMask()
		if err := all[i].readWatches(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// renews reports whether the schema notes when an event was sent again by hand.
func (ts triggers) renews() bool { return len(ts) > 0 && ts[0].Renews }

// of returns the trigger with the table of an event that has this relation_id; 0: it has none.
func (t *knownTrigger) of(relation int32) *knownTrigger {
	if relation == 0 {
		relation = t.OriginID
	}
	name, ok := t.names[relation]
	if !ok || relation == t.RelationID {
		return t
	}
	then := *t
	then.Schema, then.Table = name.Schema, name.Table
	return &then
}

// byID returns a trigger by its number. For an unknown number it returns a placeholder.
func (ts triggers) byID(id int32) *knownTrigger {
	for i := range ts {
		if ts[i].ID == id {
			return &ts[i]
		}
	}
	return &knownTrigger{ID: id, Name: fmt.Sprintf("#%d", id), Schema: "?", Table: "?", Removed: true}
}

// named returns a trigger by its name. Otherwise its error lists the triggers.
func (ts triggers) named(name string) (*knownTrigger, error) {
	var names []string
	for i := range ts {
		if ts[i].Name == name {
			return &ts[i], nil
		}
		if !ts[i].Removed {
			names = append(names, ts[i].Name)
		}
	}
	near := suggest.Hint(name, names)
	remedy := "there are no triggers: create some with \"rowhook apply\""
	if len(names) > 0 {
		const most = 20
		more := ""
		if len(names) > most {
			names, more = names[:most], ", ..."
		}
		remedy = "the triggers are " + strings.Join(names, ", ") + more
		if near != "" {
			remedy = strings.TrimPrefix(near, "; ") + " T" + remedy[1:]
		}
	}
	return nil, problem(ErrNotFound, remedy, "there is no trigger named %q", name)
}

// active returns a trigger that was not removed.
func (ts triggers) active(name string) (*knownTrigger, error) {
	t, err := ts.named(name)
	if err == nil && t.Removed {
		return nil, problem(ErrRefused, "add it to rowhook.yaml again and apply", "the trigger %q was removed", name)
	}
	return t, err
}
