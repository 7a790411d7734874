package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/sorting"
)

const (
	tailEvery   = 300 * time.Millisecond // time between two queries
	tailOverlap = 5 * time.Second        // how far a query looks back, for transactions that commit late
	tailMost    = 500                    // new events per query
	tailOpen    = 1000                   // unsettled events that are followed
)

// Tail calls report for each event that the filter chooses, and again after each attempt and each
// change of its state. It begins at f.Since, or now if that is zero. It returns nil when ctx is
// done, or the error of report. If events come faster than it can follow, it leaves some out and
// calls skipped, which may be nil.
func Tail(ctx context.Context, db DB, f Filter, report func(Event) error, skipped func()) error {
	t := &tail{db: db, report: report, skipped: skipped, seen: map[string]Event{}, began: f.Since}
	if f.Since.IsZero() {
		if err := db.QueryRow(ctx, "select clock_timestamp()").Scan(&t.began); err != nil {
			return fmt.Errorf("ask for the time: %w", err)
		}
	}
	for ctx.Err() == nil {
		if err := t.look(ctx, f); err != nil && ctx.Err() == nil {
			return err
		}
		_ = Rest(ctx, tailEvery) // its error is that ctx is done
	}
	return nil
}

// tail is the state of a Tail call.
type tail struct {
	db      DB
	report  func(Event) error
	skipped func()
	began   time.Time
	looked  bool             // it has queried at least once
	seen    map[string]Event // reported events, by id
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
		if fresh, err = list(ctx, tx, ts, q, tailMost, "", ListOptions{}); err != nil {
			return err
		}
		if err := lastAttempts(ctx, tx, t.news(fresh)...); err != nil || len(open) == 0 {
			return err
		}
		states := Filter{IDs: open}
		if q, err = states.resolve(ts); err != nil {
			return err
		}
		if again, err = list(ctx, tx, ts, q, tailOpen, "", ListOptions{}); err != nil {
			return err
		}
		return lastAttempts(ctx, tx, t.news(again)...)
	})
	if err != nil {
		return err
	}
	t.looked = true
	return t.tell(now, fresh, again)
}

// news returns the events of a page that tell reports.
func (t *tail) news(page *Page) (out []*Event) {
	for i := range page.Events {
		if e := &page.Events[i]; !t.knows(e) {
			out = append(out, e)
		}
	}
	return out
}

// knows reports whether an event was reported as it is now.
func (t *tail) knows(e *Event) bool {
	before, ok := t.seen[e.ID]
	return ok && before.State == e.State && before.Attempts == e.Attempts
}

// tell reports new and changed events, oldest first. Then it forgets those that no later query can
// return.
func (t *tail) tell(now time.Time, fresh, again *Page) error {
	events := append(fresh.Events, again.Events...)
	sorting.By(events, func(a, b Event) int { return a.CreatedAt.Compare(b.CreatedAt) })
	if fresh.Next != "" && t.skipped != nil {
		if _, known := t.seen[fresh.Events[len(fresh.Events)-1].ID]; !known && len(t.seen) > 0 {
			t.skipped()
		}
	}
	for _, e := range events {
		if t.knows(&e) {
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
