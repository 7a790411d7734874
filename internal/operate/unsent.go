package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
)

// findUnsent sets Event.Unsent. Events that were merged leave the queue in one statement, at one
// time, so the archive is searched in the partition of that time only.
func findUnsent(ctx context.Context, tx pgx.Tx, ts triggers, events ...*Event) error {
	var ids []string
	var of []int32
	var at []time.Time
	for _, e := range events {
		if e.MergedInto == "" || e.DeliveredAt == nil {
			continue
		}
		if e.MergedInto == e.ID {
			e.Unsent = true
			continue
		}
		if t, err := ts.named(e.Trigger); err == nil {
			ids, of, at = append(ids, e.MergedInto), append(of, t.ID), append(at, *e.DeliveredAt)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	found, err := pg.Collect[struct{ ID string }](ctx, tx, `
select a.id::text as id
  from (select distinct * from unnest($1::text[]::uuid[], $2::integer[], $3::timestamptz[])) as m(id, trigger_id, at)
 cross join lateral (
   select a.id from rowhook.event_archive a
    where a.trigger_id = m.trigger_id and a.id = m.id and a.delivered_at = m.at and a.merged_into = a.id) as a`, ids, of, at)
	if err != nil {
		return fmt.Errorf("look for events of which nothing was sent: %w", err)
	}
	unsent := map[string]bool{}
	for _, f := range found {
		unsent[f.ID] = true
	}
	for _, e := range events {
		e.Unsent = e.Unsent || unsent[e.MergedInto]
	}
	return nil
}
