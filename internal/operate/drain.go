package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// Left counts the events of a trigger that are not settled yet.
type Left struct {
	Trigger  string `json:"trigger"`
	Waiting  int64  `json:"waiting"`
	InFlight int64  `json:"in_flight"`
	Retrying int64  `json:"retrying"`
	More     bool   `json:"more"` // counting stopped at leftMost: the real figures may be higher
	Paused   bool   `json:"paused"`
	// NextAt is the time of the first retry, if no event is waiting or in flight.
	NextAt *time.Time `json:"next_at,omitempty"`
}

// Events returns the sum of the three figures.
func (l *Left) Events() int64 { return l.Waiting + l.InFlight + l.Retrying }

const (
	leftMost   = 10_000
	drainFirst = 10 * time.Millisecond
	drainPause = 250 * time.Millisecond

	queryTimeout = 10 * time.Second
)

// Drain waits until these triggers have no unsettled events, or until ctx is done; no names: all
// triggers. It returns the triggers that still have some: none on success. The end of ctx is no
// error. Drain queries at least once, and sees only committed events. progress is called after each
// query that found some; it may be nil.
func Drain(ctx context.Context, db DB, names []string, progress func([]Left)) ([]Left, error) {
	pause := drainFirst
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		// Cancelling a query closes its connection, and its result is lost.
		query, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
		left, err := unsettled(query, db, names)
		cancel()
		if err != nil || len(left) == 0 {
			return nil, err
		}
		if progress != nil {
			progress(left)
		}
		select {
		case <-ctx.Done():
			return left, nil
		case <-timer.C:
		}
		pause = min(2*pause, drainPause)
		timer.Reset(pause)
	}
}

// unsettled lists the triggers that have unsettled events.
func unsettled(ctx context.Context, db DB, names []string) ([]Left, error) {
	var left []Left
	err := read(ctx, db, func(tx pgx.Tx) error {
		ts, err := readTriggers(ctx, tx)
		if err != nil {
			return err
		}
		var wanted []int32
		for _, name := range names {
			t, err := ts.named(name)
			if err != nil {
				return err
			}
			wanted = append(wanted, t.ID)
		}
		left, err = pg.Collect[Left](ctx, tx, `
select t.name as trigger, t.paused,
       o.waiting, o.in_flight, o.retrying, o.n >= $2 as more, case when o.waiting + o.in_flight = 0 then o.next_at end as next_at
  from rowhook.trigger t
 cross join lateral (
   select count(*) as n, count(*) filter (where claimed_by is not null and due_at > statement_timestamp()) as in_flight,
          count(*) filter (where tries = 0) as waiting,
          count(*) filter (where tries > 0 and (claimed_by is null or due_at <= statement_timestamp())) as retrying,
          min(due_at) filter (where due_at > statement_timestamp()) as next_at
     from (select tries, claimed_by, `+queue.DueAt("due_at")+` as due_at from rowhook.event_log e where e.trigger_id = t.id order by e.due_at limit $2) as e) as o
 where o.n > 0 and ($1::integer[] is null or t.id = any($1)) order by t.name`, wanted, leftMost)
		if err != nil {
			return fmt.Errorf("count unsettled events: %w", err)
		}
		paced, err := readPaced(ctx, tx)
		for i := range left {
			l := &left[i]
			l.InFlight, l.Waiting, l.Retrying = notInFlight(paced[l.Trigger], l.InFlight, l.Waiting, l.Retrying)
		}
		return err
	})
	return left, err
}
