package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// How a tail looks: so often, so far back for transactions that commit late, at so many new events, and after so many that are
// not settled yet.
const (
	tailEvery   = 300 * time.Millisecond
	tailOverlap = 5 * time.Second
	tailMost    = 500
	tailOpen    = 1000
)

// Tail reports the events that a filter chooses as they come, those since f.Since first if that is set, and again whenever one of them has been tried or has changed its
// state, until ctx is done or report fails. Where more come than can be followed, skipped says so and some are left out.
func Tail(ctx context.Context, db DB, f Filter, report func(Event) error, skipped func()) error {
	t := &tail{db: db, report: report, skipped: skipped, seen: map[string]Event{}, began: f.Since}
	if f.Since.IsZero() {
		if err := db.QueryRow(ctx, "select clock_timestamp()").Scan(&t.began); err != nil {
			return fmt.Errorf("ask for the time: %w", err)
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if err := t.look(ctx, f); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		timer.Reset(tailEvery)
	}
}

// tail is what a Tail has reported.
type tail struct {
	db      DB
	report  func(Event) error
	skipped func()
	began   time.Time
	looked  bool // at least once
	seen    map[string]Event
}

func (t *tail) look(ctx context.Context, f Filter) error {
	var now time.Time
	var fresh *Page
	var open []string
	for id, e := range t.seen {
		if e.State != Delivered && e.State != Dead {
			open = append(open, id)
		}
	}
	slices.Sort(open)
	if len(open) > tailOpen {
		open = open[len(open)-tailOpen:]
	}
	again := &Page{}
	err := read(ctx, t.db, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "select clock_timestamp()").Scan(&now); err != nil {
			return fmt.Errorf("ask for the time: %w", err)
		}
		ts, err := readTriggers(ctx, tx)
		if err != nil {
			return err
		}
		since := f
		since.Since = t.began
		if late := now.Add(-tailOverlap); late.After(t.began) && t.looked {
			since.Since = late
		}
		q, err := since.resolve(ts)
		if err != nil {
			return err
		}
		if fresh, err = list(ctx, tx, ts, q, tailMost, "", ListOptions{}); err != nil || len(open) == 0 {
			return err
		}
		states := Filter{IDs: open}
		if q, err = states.resolve(ts); err != nil {
			return err
		}
		again, err = list(ctx, tx, ts, q, tailOpen, "", ListOptions{})
		return err
	})
	if err != nil {
		return err
	}
	t.looked = true
	return t.tell(now, fresh, again)
}

// tell reports what is new, oldest first, and forgets what no look will bring again.
func (t *tail) tell(now time.Time, fresh, again *Page) error {
	events := append(fresh.Events, again.Events...)
	slices.SortFunc(events, func(a, b Event) int { return a.CreatedAt.Compare(b.CreatedAt) })
	if fresh.Next != "" && t.skipped != nil {
		if _, known := t.seen[fresh.Events[len(fresh.Events)-1].ID]; !known && len(t.seen) > 0 {
			t.skipped()
		}
	}
	for _, e := range events {
		if before, ok := t.seen[e.ID]; ok && before.State == e.State && before.Attempts == e.Attempts {
			continue
		}
		t.seen[e.ID] = e
		if err := t.report(e); err != nil {
			return err
		}
	}
	for id, e := range t.seen {
		if e.CreatedAt.Before(now.Add(-2*tailOverlap)) && (e.State == Delivered || e.State == Dead || len(t.seen) > 10*tailOpen) {
			delete(t.seen, id)
		}
	}
	return nil
}
