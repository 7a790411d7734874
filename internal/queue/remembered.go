package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// Remembered is the state of an event that waits in a lane. The owner of the lane remembers it, and
// what an operator does with it, such as a retry now or a discard, is written to the event alone. So
// the owner asks again.
type Remembered struct {
	ID    [16]byte
	Tries int32         // attempts so far
	In    time.Duration // until it is due; 0 or less: it is due
}

// ReadRemembered reads the state of events that wait in lanes. It leaves out those that wait there
// no longer.
func ReadRemembered(ctx context.Context, db pg.Queryer, events [][16]byte) ([]Remembered, error) {
	rows, err := db.Query(ctx, `
select q.id, q.tries, q.due_at - `+ParkedSQL+` - clock_timestamp()
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
