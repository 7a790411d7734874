package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rowhook/rowhook/sqlschema"
)

// throttle keeps what is fed into the queue from delaying what comes by itself: it holds off while so many events of a trigger
// are owed that they take up half of its slots. Then a new event finds a free one.
type throttle struct {
	lanes []throttled
}

// throttled is a trigger that something is fed to.
type throttled struct {
	id    int32
	slots int
}

// assumedConcurrency is how many requests a dispatcher makes at once of a trigger that says nothing, by default.
const assumedConcurrency = 100

// newThrottle watches these triggers, those that are paused and so deliver nothing left out; nil: every one.
func newThrottle(ts triggers, ids []int32) (throttle, error) {
	wanted := map[int32]bool{}
	for _, id := range ids {
		wanted[id] = true
	}
	var t throttle
	for i := range ts {
		if ts[i].Paused || ts[i].Removed || ids != nil && !wanted[ts[i].ID] {
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
	throttlePause = 2 * time.Millisecond
	throttleCap   = 100 * time.Millisecond
)

// wait returns when there is room, and lowers size to how much. Where no dispatcher runs there is nobody to disturb.
func (t *throttle) wait(ctx context.Context, db sqlschema.Queryer, size *int) error {
	ids, slots := make([]int32, len(t.lanes)), make([]int32, len(t.lanes))
	for i, l := range t.lanes {
		ids[i], slots[i] = l.id, int32(l.slots)
	}
	if len(ids) == 0 {
		return nil
	}
	pause := throttlePause
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
		// Every claimed event counts, and everything that is due. Retries that are due later do not.
		err := db.QueryRow(ctx, `
select min(t.slots - o.n), not exists (select from rowhook.instance), not exists (select from rowhook.instance where listens)
  from unnest($1::integer[], $2::integer[]) as t(id, slots)
 cross join lateral (
   select count(*) as n from (
     (select from rowhook.event_log e where e.trigger_id = t.id and e.due_at <= statement_timestamp() limit t.slots)
     union all
     (select from (select claimed_by from rowhook.event_log e where e.trigger_id = t.id and e.due_at > statement_timestamp() limit 10 * t.slots) as l
       where l.claimed_by is not null)) as x) as o`, ids, slots).Scan(&room, &alone, &deaf)
		switch {
		case err != nil:
			return fmt.Errorf("look how much is owed: %w", err)
		case alone:
			return nil
		case room > 0 && deaf: // they find it when they poll, and take as much as they can
			return nil
		case room > 0:
			*size = min(*size, room)
			return nil
		}
		timer.Reset(pause)
		pause = min(2*pause, throttleCap)
	}
}
