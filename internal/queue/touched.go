package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// The owner of a lane remembers the events that wait in it. What an operator does with one, such as
// a retry now, a redelivery or a discard, is written to the event alone. So it also counts up the
// lane (TouchLanes). The owner compares the count at each watch (ReadTouched), and where it has
// changed asks again for the waiting events that it remembers (ReadRemembered): an absent one was
// discarded, and another one may be due earlier, or have fewer tries than before.

// TouchLanes tells the owners of lanes that waiting events in them were changed. It follows the
// change in the same transaction.
func TouchLanes(ctx context.Context, db pg.Queryer, lanes []Lane) error {
	if len(lanes) == 0 {
		return nil
	}
	c := columnsOf(lanes)
	var n int
	// The rows are locked in the order in which settlements lock them.
	err := db.QueryRow(ctx, `
with held as materialized (
  select l.trigger_id, l.lane
    from (select distinct * from unnest($1::integer[], $2::smallint[]) as u(trigger_id, lane) order by 1, 2) as r
   cross join lateral (
     select l.trigger_id, l.lane from rowhook.lane l where l.trigger_id = r.trigger_id and l.lane = r.lane for update) l),
touched as (
  update rowhook.lane l set touched = l.touched + 1 from held where l.trigger_id = held.trigger_id and l.lane = held.lane returning 1)
select count(*) from touched`, c.triggers, c.lanes).Scan(&n)
	if err != nil {
		return fmt.Errorf("tell the owners of lanes: %w", err)
	}
	return nil
}

// ReadTouched returns the count of TouchLanes of each lane that an instance owns. Epoch is not set.
func ReadTouched(ctx context.Context, db pg.Queryer, instance int32, triggers []int32) (map[Lane]int64, error) {
	rows, err := db.Query(ctx, `
select l.trigger_id, l.lane, l.touched from unnest($2::integer[]) as t(id) cross join lateral (
  select * from rowhook.lane l where l.trigger_id = t.id and l.owner = $1) l`, instance, triggers)
	if err != nil {
		return nil, fmt.Errorf("read what operators did with lanes: %w", err)
	}
	touched := map[Lane]int64{}
	var l Lane
	var n int64
	if _, err = pgx.ForEachRow(rows, []any{&l.Trigger, &l.Lane, &n}, func() error {
		touched[l] = n
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read what operators did with lanes: %w", err)
	}
	return touched, nil
}

// Remembered is the state of an event in a lane.
type Remembered struct {
	ID    [16]byte
	Tries int32         // attempts so far
	In    time.Duration // until it is due; 0 or less: it is due
}

// ReadRemembered reads the state of events that wait in lanes. It leaves out those that wait there
// no longer.
func ReadRemembered(ctx context.Context, db pg.Queryer, events [][16]byte) ([]Remembered, error) {
	rows, err := db.Query(ctx, `
select q.id, q.tries, q.due_at - `+parked+` - clock_timestamp()
  from unnest($1::uuid[]) as r(id) cross join lateral (select * from rowhook.event_log q where q.id = r.id and q.lane is not null) q`, uuids(events))
	if err != nil {
		return nil, fmt.Errorf("read waiting events of lanes again: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Remembered])
	if err != nil {
		return nil, fmt.Errorf("read waiting events of lanes again: %w", err)
	}
	return out, nil
}
