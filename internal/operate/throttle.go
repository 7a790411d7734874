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

// throttle keeps what is fed into the queue from delaying what comes by itself. It feeds a few events at a time, when those of the
// time before have been claimed and no more than half of their trigger's slots are busy with such: a new event then finds a
// free slot, and only a few others that began just before it. Then it rests for as long as that took, so that half of a busy
// machine is left to the others. Measured on two busy cores, 50 at a time raised the p99 of other events sevenfold.
//
// It does not wait for ever: a trigger that is behind for long gets a few all the same.
type throttle struct {
	slots map[int32]int // half of each trigger's; paused triggers, which deliver nothing now, are missing
	open  []string      // ids of what was fed and is not known to be settled
	room  int           // how many may be open
	step  int           // how many are looked at next: more and more while nothing of what is looked at is fed
	fed   time.Time     // when it last let something in
}

// assumedConcurrency is how many requests a dispatcher makes at once of a trigger that says nothing, by default.
const assumedConcurrency = 100

func newThrottle(ts triggers) (throttle, error) {
	t := throttle{slots: map[int32]int{}, step: throttleSize}
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
	throttleSize  = 15 // events at a time: with 20 the p99 of others was 1.6 to 2.05 times what it was, with 10 the pace was half
	throttleLeast = 5 * time.Millisecond
	throttlePause = 2 * time.Millisecond
	throttleCap   = 100 * time.Millisecond
	throttleMost  = 2 * time.Second // how long it waits for a trigger that is behind
)

// let notes what was fed, by trigger.
func (t *throttle) let(fed map[int32][]string) {
	t.step = min(2*t.step, bulkBatch)
	for trigger, ids := range fed {
		slots, delivers := t.slots[trigger]
		if !delivers || len(ids) == 0 {
			continue
		}
		t.step = throttleSize
		t.open = append(t.open, ids...)
		if t.room == 0 || slots < t.room {
			t.room = slots
		}
	}
}

// wait returns when there is room, and lowers size to how much. Where no dispatcher runs there is nobody to disturb.
func (t *throttle) wait(ctx context.Context, db pg.Queryer, size *int) error {
	*size = min(*size, t.step)
	if len(t.open) == 0 { // nothing was fed, or nothing of what is fed is delivered now
		return nil
	}
	pause, since, rested := throttlePause, time.Now(), false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		var unclaimed int
		var alone, deaf bool
		// By their ids: in the index on due_at the settled leave entries behind, over which each look would walk. What waits for a retry does
		// not count.
		err := db.QueryRow(ctx, `
select coalesce(array_agg(e.id::text), '{}'), count(*) filter (where e.claimed_by is null),
       not exists (select from rowhook.instance), not exists (select from rowhook.instance where listens)
  from unnest($1::text[]::uuid[]) as o(id)
 cross join lateral (select q.id, q.claimed_by from rowhook.event_log q where q.id = o.id and (q.claimed_by is not null or q.tries = 0) offset 0) as e`, t.open).
			Scan(&t.open, &unclaimed, &alone, &deaf)
		ready := unclaimed == 0 && len(t.open) < t.room
		late := time.Since(since) > throttleMost
		switch {
		case err != nil:
			return fmt.Errorf("look how much is owed: %w", err)
		case alone, deaf && ready: // who only polls finds it later, and takes as much as it can
			t.open = nil
			return nil
		case ready && !rested:
			rested = true
			timer.Reset(min(max(time.Since(t.fed), throttleLeast), throttleCap))
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
		timer.Reset(pause)
		pause = min(2*pause, throttleCap)
	}
}

// roomOf is the least room of all triggers while something is still open, of which the trigger is not kept.
func (t *throttle) roomOf() int {
	if len(t.open) == 0 {
		return 0
	}
	return t.room
}
