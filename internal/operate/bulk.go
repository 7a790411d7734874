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

// Tally is a number of events.
type Tally struct {
	Events int64 `json:"events"`
	More   bool  `json:"more"` // counting ran out of time: there are at least Events
}

// Count counts the events that a filter chooses. It stops when the budget is spent; 0: two seconds.
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

// BulkOptions bound a change of many events, and set its pace.
type BulkOptions struct {
	// Limit ends the work after this many events; 0: no limit.
	Limit int64
	// Progress is called after each batch, on the caller's goroutine, with the number of events
	// examined so far. Optional.
	Progress func(done int64)
	// Expect is called once at the beginning, with the number of events that the filter chooses then,
	// unless that takes long to count. Optional.
	Expect func(events int64)
	// Unthrottled works at full speed, without waiting for deliveries.
	Unthrottled bool
}

// Skip is an event that a bulk change left unchanged.
type Skip struct {
	ID     string `json:"id"`
	Reason string `json:"reason"` // one of the Skip constants
}

// The reasons of a Skip.
const (
	SkipBusy      = "busy"      // it is in flight
	SkipWaiting   = "waiting"   // it is due already
	SkipRemoved   = "removed"   // its trigger was removed
	SkipDelivered = "delivered" // it was delivered; only the retention deletes it
	SkipGone      = "gone"      // it changed or moved in the meantime
	SkipNotFound  = "not_found" // no table has it
	SkipDamaged   = "damaged"   // its data can't be read or moved
	SkipErased    = "erased"    // its data were erased
)

// Bulk is the result of a change of many events.
type Bulk struct {
	Changed int64            `json:"changed"` // events
	Skipped map[string]int64 `json:"skipped"` // events, by reason
	// Skips lists the skipped events, the first mostSkips of them.
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

// bulkBatch is the greatest number of events in one transaction of a bulk change. It bounds the
// locks, and the burst of events that a receiver gets at once.
const bulkBatch = 500

// bulk changes the events that a query chooses, in batches, oldest first.
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

// recorded is run with an entry in rowhook.audit.
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
	b.expect(ctx)
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

// expectBudget bounds counting for BulkOptions.Expect.
const expectBudget = 500 * time.Millisecond

// expect counts what is to be done. It does not matter if that fails: run says so, too.
func (b *bulk) expect(ctx context.Context) {
	if b.opt.Expect == nil {
		return
	}
	n := int64(len(b.query.ids))
	more := false
	if n == 0 {
		deadline := time.Now().Add(expectBudget)
		err := read(ctx, b.db, func(tx pgx.Tx) error {
			for _, s := range sources() {
				w := &walk{query: b.query, source: s, deadline: deadline}
				found, unfinished, err := w.count(ctx, tx)
				if err != nil {
					return err
				}
				n, more = n+found, more || unfinished
			}
			return nil
		})
		if err != nil {
			return
		}
	}
	if b.opt.Limit > 0 && n >= b.opt.Limit {
		n, more = b.opt.Limit, false
	}
	if !more {
		b.opt.Expect(n)
	}
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
			b.feed.admitted(b.fed)
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

// skipMissing adds skips for ids that run found in no source. Such an event may exist: it may have
// moved from a source that run read later to one that run had read before.
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

// batch finds and changes the next events in one transaction.
func (b *bulk) batch(ctx context.Context, w *walk, size int, out *Bulk) (events []raw, reached string, err error) {
	before := *out
	before.Skipped = maps.Clone(out.Skipped)
	err = transact(ctx, b.db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, byIndex()); err != nil {
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

// alter changes events together. If the data of one makes that fail, it changes each by itself.
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

// split returns the ids of events for which reason returns "". It adds the others to out as
// skipped.
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

// changed counts the ids that a statement returned. The others had changed in the meantime.
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

// ring notifies the dispatchers that events of these triggers are due. While the doorbell is silent
// it notifies nobody, because a dispatcher is awake then.
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
