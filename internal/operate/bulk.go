package operate

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// Tally is a number of events. Where counting took too long there are more.
type Tally struct {
	Events int64 `json:"events"`
	More   bool  `json:"more"` // at least so many
}

// Count counts the events that a filter chooses, for no longer than the budget; 0: two seconds.
func Count(ctx context.Context, db DB, f Filter, budget time.Duration) (Tally, error) {
	var n Tally
	deadline := time.Now().Add(cmp.Or(budget, 2*time.Second))
	err := read(ctx, db, func(tx pgx.Tx) error {
		_, q, err := f.read(ctx, tx)
		if err != nil {
			return err
		}
		for _, s := range sources() {
			w := &walk{query: q, source: s, deadline: deadline}
			found, more, err := w.count(ctx, tx)
			if err != nil {
				return err
			}
			n.Events += found
			n.More = n.More || more
		}
		return nil
	})
	return n, err
}

// BulkOptions say how many events are changed at once, and who is told of it.
type BulkOptions struct {
	// Limit ends the work after so many events; 0: none.
	Limit int64
	// Progress is told how many events were looked at so far, after each batch, on the caller's goroutine. Optional.
	Progress func(done int64)
	// Unthrottled takes no regard to deliveries that are under way.
	Unthrottled bool
}

// Skip is an event that was left as it is.
type Skip struct {
	ID     string `json:"id"`
	Reason string `json:"reason"` // busy: in flight; waiting: due already; removed: its trigger is; delivered: only the retention removes it; gone: it moved meanwhile; damaged: what it holds can't be read or moved; not_found
}

// The reasons of a Skip.
const (
	SkipBusy      = "busy"
	SkipWaiting   = "waiting"
	SkipRemoved   = "removed"
	SkipDelivered = "delivered"
	SkipGone      = "gone"
	SkipNotFound  = "not_found"
	SkipDamaged   = "damaged"
)

// Bulk is what a change of many events came to.
type Bulk struct {
	Changed int64            `json:"changed"`
	Skipped map[string]int64 `json:"skipped"` // by reason
	// Skips lists the first that were skipped, all of them where events were named by id.
	Skips []Skip `json:"skips"`
}

const mostSkips = 1000

func (b *Bulk) skip(id, reason string) {
	if b.Skipped == nil {
		b.Skipped = map[string]int64{}
	}
	b.Skipped[reason]++
	if len(b.Skips) < mostSkips {
		b.Skips = append(b.Skips, Skip{id, reason})
	}
}

// bulkBatch bounds a transaction of a bulk change: its locks, and what a receiver finds before it that came at once.
const bulkBatch = 500

// bulk is a change of the events that a query chooses, batch by batch, oldest first.
type bulk struct {
	db     DB
	ts     triggers
	query  *query
	opt    BulkOptions
	began  time.Time // by the server's clock
	change func(ctx context.Context, tx pgx.Tx, events []raw, b *Bulk) error
	feed   throttle
	fed    map[int32][]string // ids that the last batch put into the queue, by trigger
}

// recorded is run, with who asked for it in rowhook.audit.
func (b *bulk) recorded(ctx context.Context, action string, f Filter) (*Bulk, error) {
	detail := map[string]any{"filter": f}
	if b.opt.Limit > 0 {
		detail["limit"] = b.opt.Limit
	}
	if most := 100; len(f.IDs) > most {
		short := f
		short.IDs = f.IDs[:most]
		detail["filter"], detail["more_ids"] = short, len(f.IDs)-most
	}
	ended, err := record(ctx, b.db, queue.AuditEntry{Action: action, Targets: f.Triggers, Detail: detail})
	if err != nil {
		return nil, err
	}
	out, err := b.run(ctx)
	result := map[string]any{}
	if out != nil {
		result["changed"] = out.Changed
		if len(out.Skipped) > 0 {
			result["skipped"] = out.Skipped
		}
	}
	return out, ended(result, err)
}

func (b *bulk) run(ctx context.Context) (*Bulk, error) {
	out := &Bulk{Skipped: map[string]int64{}, Skips: []Skip{}}
	found, missing := map[string]bool{}, []string(nil)
	var done int64
	for _, s := range sources() {
		w := &walk{query: b.query, source: s}
		for {
			size := bulkBatch
			if b.opt.Limit > 0 {
				size = int(min(int64(size), b.opt.Limit-done))
			}
			if size <= 0 {
				return out, nil
			}
			if !b.opt.Unthrottled {
				if err := b.feed.wait(ctx, b.db, &size); err != nil {
					return out, err
				}
			}
			events, reached, err := b.batch(ctx, w, size, out)
			if err != nil {
				return out, err
			}
			b.feed.let(b.fed)
			b.fed = nil
			for i := range events {
				if len(b.query.ids) > 0 {
					found[events[i].ID] = true
				}
			}
			done += int64(len(events))
			if b.opt.Progress != nil {
				b.opt.Progress(done)
			}
			if reached == "" {
				break
			}
			w.after = reached
		}
	}
	for _, id := range b.query.ids {
		if !found[id] {
			missing = append(missing, id)
			found[id] = true
		}
	}
	return out, b.skipMissing(ctx, missing, out)
}

// skipMissing notes ids that no source had when it was looked at: an event may have moved from one that came later to one that came before.
func (b *bulk) skipMissing(ctx context.Context, missing []string, out *Bulk) error {
	if len(missing) == 0 {
		return nil
	}
	there, again := map[string]bool{}, *b.query
	again.ids = missing
	err := read(ctx, b.db, func(tx pgx.Tx) error {
		for _, s := range sources() {
			w := &walk{query: &again, source: s}
			events, _, err := w.next(ctx, tx, len(missing))
			if err != nil {
				return err
			}
			for i := range events {
				there[events[i].ID] = true
			}
		}
		return nil
	})
	for _, id := range missing {
		if there[id] {
			out.skip(id, SkipGone)
		} else {
			out.skip(id, SkipNotFound)
		}
	}
	return err
}

// batch finds the next events and changes them in one transaction.
func (b *bulk) batch(ctx context.Context, w *walk, size int, out *Bulk) (events []raw, reached string, err error) {
	before := *out
	before.Skipped = maps.Clone(out.Skipped)
	err = transact(ctx, b.db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, byIndex); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		var err error
		if events, reached, err = w.next(ctx, tx, size); err != nil || len(events) == 0 {
			return err
		}
		return b.alter(ctx, tx, events, out)
	})
	if err != nil {
		*out = before
		return nil, "", err
	}
	return events, reached, nil
}

// alter changes events, and, where that fails for what is in one of them, each by itself.
func (b *bulk) alter(ctx context.Context, tx pgx.Tx, events []raw, out *Bulk) error {
	before := *out
	before.Skipped = maps.Clone(out.Skipped)
	err := apart(ctx, tx, func() error { return b.change(ctx, tx, slices.Clone(events), out) })
	if !pg.IsData(err) {
		return err
	}
	*out = before
	if len(events) == 1 {
		b.fed = nil
		out.skip(events[0].ID, SkipDamaged)
		return nil
	}
	all := map[int32][]string{}
	for i := range events {
		if err := b.alter(ctx, tx, events[i:i+1], out); err != nil {
			return err
		}
		for trigger, ids := range b.fed {
			all[trigger] = append(all[trigger], ids...)
		}
	}
	b.fed = all
	return nil
}

// split separates the events that pass from those that are skipped.
func split(events []raw, out *Bulk, reason func(*raw) string) []string {
	var ids []string
	for i := range events {
		if r := reason(&events[i]); r != "" {
			out.skip(events[i].ID, r)
			continue
		}
		ids = append(ids, events[i].ID)
	}
	return ids
}

// changed notes which of the ids a statement returned; the others were no longer what they had been.
func changed(ids, got []string, out *Bulk) {
	out.Changed += int64(len(got))
	if len(got) == len(ids) {
		return
	}
	for _, id := range ids {
		if !slices.Contains(got, id) {
			out.skip(id, SkipGone)
		}
	}
}

// ring tells the dispatchers of a trigger that something of it is due: unless writers were asked for silence, since then
// somebody is awake.
func ring(ctx context.Context, db pg.Queryer, ids []int32) error {
	var n int
	err := db.QueryRow(ctx, `
select count(pg_notify('rowhook', t.id::text)) from unnest($1::integer[]) as t(id)
 where pg_sequence_last_value('rowhook.doorbell'::regclass) = $2 and pg_catalog.pg_notification_queue_usage() < $3`,
		ids, int64(queue.Ringing), queue.MuteFrom).Scan(&n)
	if err != nil {
		return fmt.Errorf("ring the doorbell: %w", err)
	}
	return nil
}
