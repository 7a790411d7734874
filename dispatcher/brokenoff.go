package dispatcher

import (
	"context"
	"errors"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/webhook"
)

// brokenOff is why an attempt in flight was canceled although this dispatcher goes on. Its event is
// sent again at once, whatever its retry says, and the attempt is logged.
type brokenOff struct{ why string }

func (b *brokenOff) Error() string { return b.why }

// newURL cancels attempts that hang at a URL that is no longer the trigger's.
func newURL() *brokenOff { return &brokenOff{"it got no answer, and the trigger has another URL now"} }

// wasBrokenOff returns why the attempt of ctx was canceled although this dispatcher goes on. nil: it
// was not.
func wasBrokenOff(ctx context.Context, r *webhook.Result) *brokenOff {
	if r.Kind != webhook.KindCanceled {
		return nil
	}
	var b *brokenOff // its memory is on the heap
	errors.As(context.Cause(ctx), &b)
	return b
}

// fateOf is what becomes of the event of an attempt that was broken off. An event with an order was
// not claimed, and keeps the number of its attempts in the statement that logs this one, so it counts.
func (b *brokenOff) fateOf(d *delivery) queue.Fate {
	if d.placed != nil {
		return queue.Retried
	}
	return queue.Released
}

// breakOff cancels attempts of a lane that gets another configuration: all, if somebody has asked
// for that since, and those that hang, if it has another URL.
func (s *scheduler) breakOff(l *lane, next *queue.Trigger) {
	all := next.CanceledAt != nil && (l.trigger.CanceledAt == nil || !next.CanceledAt.Equal(*l.trigger.CanceledAt))
	if !all && next.Spec.Address() == l.trigger.Spec.Address() {
		return
	}
	n := 0
	for d := s.outstanding.next; d != &s.outstanding; d = d.next {
		sh := d.shipment
		switch {
		case sh == nil || sh.lane != l || sh.ended || sh.cancel == nil || sh.first() != d:
		case all:
			sh.cancel(&brokenOff{"by " + next.CanceledBy})
			n++
		case sh.stalled:
			sh.cancel(newURL())
		}
	}
	if all && l.trigger.ID != 0 { // not of a lane that has just been made
		s.cancellations = append(s.cancellations, cancellation{next.Spec.Name, next.CanceledBy, n})
	}
}

// cancellation is that somebody has had the attempts of a trigger broken off.
type cancellation struct {
	trigger, by string
	attempts    int // in flight from this instance
}

// takeCancellations returns those that were not taken yet.
func (s *scheduler) takeCancellations() []cancellation {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.cancellations
	s.cancellations = nil
	return taken
}

// hangs deals with an attempt that has begun to hang.
func (sh *shipment) hangs() {
	sh.stalled = true
	if sh.cancel != nil && sh.url != sh.lane.trigger.Spec.Address() {
		sh.cancel(newURL())
	}
}

// hanging returns the attempts that have been in flight for more than stallAfter, by trigger. nil:
// there are none.
func (s *scheduler) hanging() map[string]queue.Hanging {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all map[string]queue.Hanging
	for d := s.outstanding.next; d != &s.outstanding; d = d.next {
		sh := d.shipment
		if sh == nil || sh.ended || !sh.stalled || sh.first() != d {
			continue
		}
		if all == nil {
			all = map[string]queue.Hanging{}
		}
		name := sh.lane.trigger.Spec.Name
		h := all[name]
		if h.Attempts++; h.Attempts == 1 || sh.started.Before(h.Since) {
			h.Since = sh.started.UTC().Truncate(time.Millisecond)
			if ep := sh.lane.endpoint; ep != nil {
				h.Endpoint = ep.String()
			}
		}
		for _, in := range sh.deliveries {
			if in.placed == nil {
				continue
			}
			if h.Unclaimed++; in.tries > 1 {
				h.Retried++
			}
			if len(h.Events) < queue.MostHanging {
				h.Events = append(h.Events, eventID(in))
			}
		}
		all[name] = h
	}
	return all
}
