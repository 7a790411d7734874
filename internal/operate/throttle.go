package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rowhook/rowhook/sqlschema"
)

// throttle keeps what is fed into the queue from delaying what comes by itself. It feeds a little at a time, when everything
// that is due has been claimed and no more than half of a trigger's slots are busy: a new event then finds a free slot, and only
// a few others that began just before it. Measured on two busy cores, 50 at a time raised the p99 of other events sevenfold.
//
// It waits for the triggers that were fed last, and not for ever: one that is behind for long gets a little all the same.
type throttle struct {
	lanes []throttled
	last  map[int32]bool // the triggers that were fed last
	fed   time.Time      // when it last let something in
}

// throttled is a trigger that something is fed to.
type throttled struct {
	id    int32
	slots int
}

// assumedConcurrency is how many requests a dispatcher makes at once of a trigger that says nothing, by default.
const assumedConcurrency = 100

// newThrottle knows the triggers, less those that are paused and so deliver nothing.
func newThrottle(ts triggers) (throttle, error) {
	var t throttle
	for i := range ts {
		if ts[i].Paused || ts[i].Removed {
			continue
		}
		var spec sqlschema.Spec
		if err := json.Unmarshal([]byte(ts[i].Spec), &spec); err != nil {
			return throttle{}, fmt.Errorf("read the spec of %s: %w", ts[i].Name, err)
		}
		slots := spec.Concurrency
		if slots <= 0 {
			slots = assumedConcurrency
		}
		t.lanes = append(t.lanes, throttled{ts[i].ID, max(slots/2, 1)})
	}
	return t, nil
}

const (
	throttleSize  = 20 // events at a time
	throttlePause = 2 * time.Millisecond
	throttleLeast = 5 * time.Millisecond
	throttleCap   = 100 * time.Millisecond
	throttleMost  = 2 * time.Second // how long it waits for a trigger that is behind
)

// wait returns when there is room, and lowers size to how much. Where no dispatcher runs there is nobody to disturb.
func (t *throttle) wait(ctx context.Context, db sqlschema.Queryer, size *int) error {
	var ids, slots []int32
	for _, l := range t.lanes {
		if t.last[l.id] {
			ids, slots = append(ids, l.id), append(slots, int32(l.slots))
		}
	}
	if len(ids) == 0 { // nothing was fed yet, or nothing of what is fed is delivered now
		if t.last == nil {
			*size = min(*size, throttleSize)
		}
		return nil
	}
	pause, began, rested := throttlePause, time.Now(), false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		var room int
		var alone, deaf bool
		// Retries that are due later do not count.
		err := db.QueryRow(ctx, `
select min(case when d.due then 0 else t.slots - f.n end), not exists (select from rowhook.instance), not exists (select from rowhook.instance where listens)
  from unnest($1::integer[], $2::integer[]) as t(id, slots)
 cross join lateral (
   select exists (select from rowhook.event_log e where e.trigger_id = t.id and e.due_at <= statement_timestamp()) as due) as d
 cross join lateral (
   select count(*) as n from (
     select claimed_by from rowhook.event_log e where e.trigger_id = t.id and e.due_at > statement_timestamp() limit 10 * t.slots) as l
    where l.claimed_by is not null) as f`, ids, slots).Scan(&room, &alone, &deaf)
		switch {
		case err != nil:
			return fmt.Errorf("look how much is owed: %w", err)
		case alone:
			return nil
		case room > 0 && deaf: // they find it when they poll, and take as much as they can
			return nil
		case room > 0 && !rested:
			// As long again as that took: where processors or disks are busy, half of the time is the others'.
			rested = true
			timer.Reset(min(max(time.Since(t.fed), throttleLeast), throttleCap))
			continue
		case room > 0:
			*size = min(*size, room, throttleSize)
			t.fed = time.Now()
			return nil
		case time.Since(began) > throttleMost:
			*size = min(*size, throttleSize)
			t.fed = time.Now()
			return nil
		}
		timer.Reset(pause)
		pause = min(2*pause, throttleCap)
	}
}
