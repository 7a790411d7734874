package dispatcher

import (
	"context"
	"sync"
	"time"
)

// timetable is when the first shipment may start that has to wait for a time: a batch for others, or
// a trigger with a rate for its next slot.
type timetable struct {
	changed chan struct{}

	mu sync.Mutex
	at time.Time // zero: none waits
}

func newTimetable() timetable { return timetable{changed: make(chan struct{}, 1)} }

// note says that a shipment may start at a time.
func (t *timetable) note(at time.Time) {
	t.mu.Lock()
	earlier := t.at.IsZero() || at.Before(t.at)
	if earlier {
		t.at = at
	}
	t.mu.Unlock()
	if earlier {
		select {
		case t.changed <- struct{}{}:
		default:
		}
	}
}

// next returns how long to wait for the time, and forgets one that has come.
func (t *timetable) next(now time.Time) (wait time.Duration, due bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.at.IsZero():
		return time.Hour, false
	case now.Before(t.at):
		return t.at.Sub(now), false
	}
	t.at = time.Time{}
	return 0, true
}

// keepTimetable starts shipments when their time has come, until ctx is done.
func (s *sender) keepTimetable(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait, due := s.scheduler.later.next(time.Now())
		if due {
			for _, sh := range s.scheduler.startNow(time.Now()) {
				s.send(sh)
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.scheduler.later.changed:
		}
	}
}

// startNow starts what may start by now.
func (s *scheduler) startNow(now time.Time) []*shipment {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.passRoom()
	return s.take(now)
}
