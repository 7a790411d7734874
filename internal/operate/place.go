package operate

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// dueNow is SQL for the due_at of an event q of the queue that becomes due now. It stays parked.
const dueNow = "clock_timestamp() + case when q.due_at > " + queue.ParkedFrom + " then interval '1752000 hours' else interval '0' end"

// inPlace is SQL for a dead letter d that goes back into its place in the order of its key: it
// holds the key, and its trigger still has the lane.
const inPlace = "(coalesce(d.blocks, false) and exists (select from rowhook.lane l where l.trigger_id = d.trigger_id and l.lane = d.lane))"

// touch tells the owners of lanes that events of theirs in a table are about to be changed. It
// comes first in the transaction, since settlements lock the lane before the event.
func touch[ID any](ctx context.Context, tx pgx.Tx, placed bool, table string, ids []ID) error {
	if !placed || table == "event_archive" {
		return nil
	}
	lanes, err := pg.Collect[queue.Lane](ctx, tx, "select distinct trigger_id as trigger, lane, 0::bigint as epoch from rowhook."+table+" where id = any($1::text[]::uuid[]) and lane is not null", texts(ids))
	if err != nil {
		return fmt.Errorf("look for the lanes of events: %w", err)
	}
	return queue.TouchLanes(ctx, tx, lanes)
}

func texts[ID any](ids []ID) []string {
	out := make([]string, len(ids))
	for i := range ids {
		out[i] = fmt.Sprint(ids[i])
	}
	return out
}
