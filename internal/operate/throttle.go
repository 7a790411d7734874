package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// throttle keeps bulk changes and backfills from delaying live events. It admits a small batch only
// after the previous one was claimed and occupies at most half of the trigger's slots. A live event
// therefore always finds a free slot. After each batch it rests as long as the batch took, which
// leaves half of a busy machine to others. On two busy cores, batches of 50 raised the p99 of other
// events sevenfold, so how large a batch may be depends on how fast those before it were taken up.
//
// It waits at most throttleMost: a trigger with a long backlog still gets a few events.
type throttle struct {
	slots map[int32]int // half of each trigger's slots; paused and removed triggers are missing
	open  []string      // ids that were admitted and are not known to be settled
	room  int           // bound of len(open)
	batch int           // size of a batch that goes into the queue
	step  int           // size of the next batch; it grows while batches put nothing into the queue
	fed   time.Time     // when the last batch was admitted
}

// assumedConcurrency is a dispatcher's default number of concurrent requests for a trigger that
// sets none.
const assumedConcurrency = 100

func newThrottle(ts triggers) (throttle, error) {
	t := throttle{slots: map[int32]int{}, batch: throttleSize, step: throttleSize}
	for i := range ts {
		if ts[i].Paused || ts[i].Removed {
			continue
		}
		var spec trigger.Spec
		if err := json.Unmarshal([]byte(ts[i].Spec), &spec); err != nil {
			return throttle{}, fmt.Errorf("read the spec of %s: %w", ts[i].Name, err)
		}
		slots := spec.Concurrency
		if slots <= 0 {
			slots = assumedConcurrency
		}
		t.slots[ts[i].ID] = max(slots/2, 1)
		t.step = min(t.step, t.slots[ts[i].ID])
	}
	return t, nil
}

const (
	// throttleSize is the size of the first batch, and the least unless a trigger has fewer slots. On a
	// machine that took up a batch in some 12 ms, the p99 of other events was 1.6 to 2.05 times as high as
	// without a bulk change with 20, and with 10 the pace was half.
	throttleSize  = 15
	throttleQuick = 6 * time.Millisecond   // a batch that is taken up within it lets the next one be larger
	throttleSlow  = 10 * time.Millisecond  // one that takes longer makes the next one smaller
	throttleLeast = 5 * time.Millisecond   // shortest rest after a batch
	throttlePause = 2 * time.Millisecond   // first pause between two queries
	throttleCap   = 100 * time.Millisecond // longest rest, and longest pause
	throttleMost  = 2 * time.Second        // longest wait for a trigger with a backlog
)

// admitted notes the ids of a batch that went into the queue, by trigger.
func (t *throttle) admitted(fed map[int32][]string) {
	t.step = min(2*t.step, bulkBatch)
	for trigger, ids := range fed {
		slots, delivers := t.slots[trigger]
		if !delivers || len(ids) == 0 {
			continue
		}
		t.step = t.batch
		t.open = append(t.open, ids...)
		if t.room == 0 || slots < t.room {
			t.room = slots
		}
	}
}

// wait returns when the next batch may go, and lowers size to its bound. It does not wait if no
// dispatcher runs.
func (t *throttle) wait(ctx context.Context, db pg.Queryer, size *int) error {
	*size = min(*size, t.step)
	if len(t.open) == 0 { // nothing was admitted, or only events of paused triggers
		return nil
	}
	next, pause, since, rested := time.Duration(0), throttlePause, time.Now(), false
	for {
		if err := Rest(ctx, next); err != nil {
			return err
		}
		var unclaimed int
		var alone, deaf bool
		// The query goes by ids: settled events leave dead entries in the index on due_at, which
		// each query would visit. Events that wait for a retry do not count.
		// Cancelling a query closes its connection.
		query, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
		err := db.QueryRow(query, `
select coalesce(array_agg(e.id::text), '{}'), count(*) filter (where e.claimed_by is null),
       not exists (select from rowhook.instance), not exists (select from rowhook.instance where listens)
  from unnest($1::text[]::uuid[]) as o(id)
 cross join lateral (select q.id, q.claimed_by from rowhook.event_log q where q.id = o.id and (q.claimed_by is not null or q.tries = 0) offset 0) as e`, t.open).
			Scan(&t.open, &unclaimed, &alone, &deaf)
		cancel()
		ready := unclaimed == 0 && len(t.open) < t.room
		late := time.Since(since) > throttleMost
		switch {
		case err != nil:
			return fmt.Errorf("count the events in flight: %w", err)
		case alone, deaf && ready: // dispatchers that only poll find the events later, and claim all that they can
			t.open = nil
			return nil
		case ready && !rested:
			rested = true
			took := time.Since(t.fed)
			t.adapt(took)
			next = min(max(took, throttleLeast), throttleCap)
			continue
		case ready, late:
			if ready {
				*size = min(*size, t.room-len(t.open))
			} else {
				t.open = slices.Clone(t.open[max(0, len(t.open)-t.room):])
			}
			t.room, t.fed = t.roomOf(), time.Now()
			return nil
		}
		next, pause = pause, min(2*pause, throttleCap)
	}
}

// adapt chooses how large the next batch is, by how long the last one took until dispatchers had claimed it
// all. What an event of another trigger waits behind is a batch, so that time has to stay short.
func (t *throttle) adapt(took time.Duration) {
	switch {
	case took <= throttleQuick:
		t.batch = min(t.batch+max(t.batch/4, 1), bulkBatch)
	case took > throttleSlow:
		t.batch = max(t.batch/2, throttleSize)
	}
}

// roomOf returns the least room of all triggers while events are open, and 0 otherwise. The
// throttle does not know the trigger of an open event.
func (t *throttle) roomOf() int {
	if len(t.open) == 0 {
		return 0
	}
	return t.room
}
