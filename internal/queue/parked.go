package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/rowhook/rowhook/internal/pg"
)

// Parked is how much later than it is due an event of an ordered trigger is recorded, so that no
// claim finds it. It is 73,000 days.
const Parked = 1_752_000 * time.Hour

// ParkedSQL is Parked in SQL.
const ParkedSQL = "interval '1752000 hours'"

// OrderedSchema is the schema version from which on events can have an order.
const OrderedSchema = 5

// ParkedFrom is SQL for a time between those at which events are due and those of parked ones.
const ParkedFrom = "'2150-01-01 00:00:00+00'::timestamptz"

// HasOrder reports whether the schema has the columns and tables of ordered triggers.
func HasOrder(ctx context.Context, db pg.Queryer) (has bool, err error) {
	if err := db.QueryRow(ctx, "select pg_catalog.to_regclass('rowhook.lane') is not null").Scan(&has); err != nil {
		return false, fmt.Errorf("look for the lanes of ordered triggers: %w", err)
	}
	return has, nil
}

// DueAt returns SQL for the time at which an event is due, parked or not. at is SQL for its due_at.
func DueAt(at string) string {
	return "case when " + at + " > " + ParkedFrom + " then " + at + " - " + ParkedSQL + " else " + at + " end"
}

// unparkBatch is the number of events that one statement of Unpark moves. Their row locks delay a
// settlement that comes at the same time.
const unparkBatch = 2000

// Unpark lets the events of triggers without order be claimed event by event, which they had waited
// for when their trigger lost its order. It returns their number. Transactions that were open at the
// time may add events later, so it is called again. If there are none, it costs a probe of the index
// for each trigger. The schema must have at least the version OrderedSchema.
//
// They are due from now on, if not later: claims do not look far back.
func Unpark(ctx context.Context, db pg.Queryer) (int64, error) { return unpark(ctx, db, false) }

// UnparkAll is Unpark for the events of all triggers. It comes before a way down to a schema without
// order, so that the migration has little to do while it locks the queue. The owners of lanes may
// have sent some of the events.
func UnparkAll(ctx context.Context, db pg.Queryer) (int64, error) { return unpark(ctx, db, true) }

func unpark(ctx context.Context, db pg.Queryer, all bool) (int64, error) {
	var total int64
	from := time.Time{}
	for {
		var moved, rung int64
		var last *time.Time
		err := db.QueryRow(ctx, unparkSQL, unparkBatch, from, int64(Ringing), MuteFrom, all).Scan(&moved, &last, &rung)
		if err != nil {
			return total, fmt.Errorf("let events without order be claimed: %w", err)
		}
		total += moved
		if last == nil {
			return total, nil
		}
		from = *last
	}
}

// The second piece does not read again the index entries that the first one has left.
const unparkSQL = `
with parked as (
  select e.id, e.due_at
    from (select id from rowhook.trigger where $5 or removed_at is null and not spec ? 'order') t
   cross join lateral (
     select q.id, q.due_at from rowhook.event_log q
      where q.trigger_id = t.id and q.due_at > ` + ParkedFrom + ` and q.due_at >= $2
      order by q.due_at limit $1 for update skip locked) e
   order by e.due_at limit $1
), moved as (
  update rowhook.event_log q set due_at = greatest(p.due_at - ` + ParkedSQL + `, clock_timestamp()), key = null, lane = null
    from parked p where q.id = any (array[p.id])
  returning q.trigger_id
), rung as (
  select pg_notify('rowhook', m.trigger_id::text) from (select distinct trigger_id from moved) m
   where pg_sequence_last_value('rowhook.doorbell'::regclass) = $3 and pg_catalog.pg_notification_queue_usage() < $4
)
select (select count(*) from moved), (select max(due_at) from parked), (select count(*) from rung)`
