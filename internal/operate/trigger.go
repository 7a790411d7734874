package operate

import (
	"context"
	"fmt"
	"strings"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// knownTrigger is a row of rowhook.knownTrigger, removed ones among them.
type knownTrigger struct {
	ID       int32
	Name     string
	Relation uint32
	Schema   string
	Table    string
	Paused   bool
	Removed  bool
	Spec     string
	// RelationID and OriginID are rowhook.relation.id, of the table and of that of events that say none; Relations are those of all that it
	// has watched. 0 and nothing before version 3 of the schema.
	RelationID, OriginID int32
	Relations            []int32

	names map[int32]queue.TableName `db:"-"` // of rowhook.relation; nil: there is none
}

func (t *knownTrigger) qualified() string { return t.Schema + "." + t.Table }

// triggers are all that there are or were.
type triggers []knownTrigger

func readTriggers(ctx context.Context, db pg.Queryer) (triggers, error) {
	all, err := collect[knownTrigger](ctx, db, `
select t.id, t.name, w.relation, coalesce(n.nspname, t.schema_name) as schema, coalesce(c.relname, t.table_name) as "table", t.paused,
       t.removed_at is not null as removed, t.spec::text as spec, w.relation_id, w.origin_id, w.relations
  from rowhook.trigger t`+queue.WatchedNow+`
  left join pg_catalog.pg_class c on c.oid = w.relation
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 order by t.name`)
	if err != nil {
		return nil, fmt.Errorf("read the triggers: %w", err)
	}
	has, err := queue.HasRelations(ctx, db)
	if err != nil || !has {
		return all, err
	}
	names, err := queue.NameRelations(ctx, db, nil)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].names = names
	}
	return all, nil
}

// related reports that events say which table they are of.
func (ts triggers) related() bool { return len(ts) > 0 && ts[0].names != nil }

// of is the trigger as an event of that table, a rowhook.relation.id or 0, sees it.
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

func (ts triggers) byID(id int32) *knownTrigger {
	for i := range ts {
		if ts[i].ID == id {
			return &ts[i]
		}
	}
	return &knownTrigger{ID: id, Name: fmt.Sprintf("#%d", id), Schema: "?", Table: "?", Removed: true}
}

// named finds a trigger, or says which there are.
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
	remedy := "there are none: make some with \"rowhook apply\""
	if len(names) > 0 {
		const most = 20
		more := ""
		if len(names) > most {
			names, more = names[:most], ", ..."
		}
		remedy = "the triggers are " + strings.Join(names, ", ") + more
	}
	return nil, problem(ErrNotFound, remedy, "there is no trigger named %q", name)
}

// active finds a trigger that is configured.
func (ts triggers) active(name string) (*knownTrigger, error) {
	t, err := ts.named(name)
	if err == nil && t.Removed {
		return nil, problem(ErrRefused, "add it to rowhook.yaml again and apply", "the trigger %q was removed", name)
	}
	return t, err
}
