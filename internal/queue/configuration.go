package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// Trigger is an active row of rowhook.trigger.
type Trigger struct {
	ID       int32
	Relation uint32 // oid of the watched table
	// RelationID is rowhook.relation.id of the watched table. OriginID is that of the table of
	// events that have no relation_id.
	RelationID, OriginID int32
	// Schema and Table are the current name of the table. If it was dropped, they are its name at
	// the last apply.
	Schema string
	Table  string
	Paused bool
	Spec   trigger.Spec
	// CanceledAt is when its attempts in flight were last to be broken off, and CanceledBy says by
	// whom. nil: never.
	CanceledAt *time.Time
	CanceledBy string
	// Version identifies the row as it was read. Every change of it makes another one.
	Version string
}

// Configuration is the configuration that an apply stored.
type Configuration struct {
	Generation int64 // rises with every apply that changed something
	Triggers   []Trigger
	Settings   trigger.Settings
}

// Same reports whether both say the same of how events are sent. A cancellation of attempts raises
// the generation, and is no change of that.
func (c *Configuration) Same(o *Configuration) bool {
	return reflect.DeepEqual(c.Settings, o.Settings) && slices.EqualFunc(c.Triggers, o.Triggers, func(a, b Trigger) bool {
		a.CanceledAt, a.CanceledBy, a.Version = b.CanceledAt, b.CanceledBy, b.Version
		return reflect.DeepEqual(a, b)
	})
}

// Load reads the stored configuration.
func Load(ctx context.Context, db pg.Queryer) (Configuration, error) {
	if err := CheckVisible(ctx, db); err != nil {
		return Configuration{}, fmt.Errorf("load triggers: %w", err)
	}
	cfg := Configuration{Settings: trigger.DefaultSettings()}
	// The generation is read first. So the next watch notices a change that comes between the two
	// statements.
	var retention, network, alerts []byte
	err := db.QueryRow(ctx, `
select (select (value #>> '{}')::bigint from rowhook.setting where name = 'generation'),
       (select value from rowhook.setting where name = 'retention'),
       (select value from rowhook.setting where name = 'network'),
       (select value from rowhook.setting where name = 'alerts')`).Scan(&cfg.Generation, &retention, &network, &alerts)
	if err != nil {
		return Configuration{}, fmt.Errorf("load settings: %w", err)
	}
	if err := json.Unmarshal(retention, &cfg.Settings.Retention); err != nil {
		return Configuration{}, fmt.Errorf("read rowhook.setting retention: %w", err)
	}
	if network != nil {
		if err := json.Unmarshal(network, &cfg.Settings.Network); err != nil {
			return Configuration{}, fmt.Errorf("read rowhook.setting network: %w", err)
		}
	}
	if alerts != nil {
		if err := json.Unmarshal(alerts, &cfg.Settings.Alerts); err != nil {
			return Configuration{}, fmt.Errorf("read rowhook.setting alerts: %w", err)
		}
	}
	rows, err := db.Query(ctx, `
select t.id, w.relation, w.relation_id, w.origin_id, coalesce(n.nspname, t.schema_name), coalesce(c.relname, t.table_name), t.paused, t.spec,
       t.canceled_at, coalesce(t.canceled_by, ''), t.xmin::text
  from rowhook.trigger t`+WatchedNow+`
  left join pg_catalog.pg_class c on c.oid = w.relation
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where t.removed_at is null
 order by t.id`)
	if err != nil {
		return Configuration{}, fmt.Errorf("load triggers: %w", err)
	}
	var t Trigger
	var spec []byte
	_, err = pgx.ForEachRow(rows, []any{&t.ID, &t.Relation, &t.RelationID, &t.OriginID, &t.Schema, &t.Table, &t.Paused, &spec, &t.CanceledAt, &t.CanceledBy, &t.Version}, func() error {
		t.Spec = trigger.DefaultSpec()
		if err := json.Unmarshal(spec, &t.Spec); err != nil {
			return fmt.Errorf("read the spec of trigger %d: %w", t.ID, err)
		}
		cfg.Triggers = append(cfg.Triggers, t)
		return nil
	})
	if err != nil {
		return Configuration{}, fmt.Errorf("load triggers: %w", err)
	}
	return cfg, nil
}
