package dispatcher

import "time"

// calmAfter is how long nothing has to have happened until a dispatcher is calm.
const calmAfter = 30 * time.Second

// calm sees whether a dispatcher has nothing to do. The pulse alone uses it.
type calm struct {
	scheduler *scheduler

	taken int64     // scheduler.linked, as last seen
	since time.Time // when that was first seen; zero: not yet
}

// is reports whether no event was taken in for calmAfter, none is in flight, and nobody minds the age of
// the beat: other instances do, and lanes and shares of totals.
func (c *calm) is(now time.Time) bool {
	taken, busy := c.scheduler.busy()
	if c.since.IsZero() || taken != c.taken || busy {
		c.taken, c.since = taken, now
	}
	return now.Sub(c.since) >= calmAfter
}

// busy returns how many deliveries were taken in so far, and whether one is in flight or the age of the
// beat matters.
func (s *scheduler) busy() (taken int64, busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	busy = s.open > 0 || s.instances > 1 || len(s.order.lanes) > 0
	for _, l := range s.lanes {
		busy = busy || l.trigger.Spec.ConcurrencyTotal > 0
	}
	return s.linked, busy
}
