package dispatcher

import (
	"time"

	"github.com/rowhook/rowhook/internal/order"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// orderedTrigger is a trigger with order, as the scheduler knows it.
type orderedTrigger struct {
	queue.Trigger

	lane *lane
}

// options say how its events are ordered.
func (t *orderedTrigger) options() order.Options {
	o := t.Spec.Order
	return order.Options{Strict: o.Strict, Blocks: o.Blocks(), Latest: o.Latest}
}

// orderMarks is what the orderer has to know of a lane: what to look at, and whether it waits.
type orderMarks struct {
	marked bool      // there may be new events in the lanes of the trigger
	waits  bool      // the orderer has events that could be sent
	found  time.Time // when new events were last read
}

// orderSignals is what the scheduler and the orderer tell each other. The mutex of the scheduler
// guards it.
type orderSignals struct {
	wake    chan struct{}
	changed bool    // the ordered triggers are to be told anew
	lanes   []*lane // of the ordered triggers, as last told
	reseat  bool    // the triggers that are served have changed, or instances have
	busy    bool    // the orderer has not read all that was marked
	starved bool    // the orderer has events for which there was no room
	found   int     // new events since the claimer last asked
}

func (s *scheduler) wakeOrderer() {
	select {
	case s.order.wake <- struct{}{}:
	default:
	}
}

// markOrder says that the lanes of an ordered trigger may have new events.
func (s *scheduler) markOrder(l *lane) {
	if !ordered(&l.trigger.Spec) || l.idle() {
		return
	}
	l.order.marked = true
	s.order.busy = true
	s.wakeOrderer()
}

// hasOrder reports whether there are ordered triggers.
func (s *scheduler) hasOrder() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.order.lanes) > 0
}

// reseat has the orderer look at who owns which lanes.
func (s *scheduler) reseat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order.reseat = true
	s.wakeOrderer()
}

// orderedTriggers returns the ordered triggers that this instance can send for, and the ids of all
// triggers whose instances are counted. changed is false if they are as they were.
func (s *scheduler) orderedTriggers() (all map[int32]orderedTrigger, serves []int32, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.order.changed {
		return nil, nil, false
	}
	s.order.changed, s.order.lanes = false, nil
	all = map[int32]orderedTrigger{}
	for id, l := range s.lanes {
		spec := &l.trigger.Spec
		if l.idle() || spec.Order.IsZero() && spec.ConcurrencyTotal == 0 {
			continue
		}
		serves = append(serves, id)
		if ordered(spec) {
			all[id] = orderedTrigger{l.trigger, l}
			s.order.lanes = append(s.order.lanes, l)
		}
	}
	return all, serves, true
}

// markedOrders returns the ordered triggers that may have new events. reseat says that lanes are to
// be balanced.
func (s *scheduler) markedOrders() (marked []int32, reseat bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.order.lanes {
		if l.order.marked {
			l.order.marked = false
			marked = append(marked, l.id)
		}
	}
	reseat = s.order.reseat
	s.order.reseat = false
	return marked, reseat
}

// reorder says that the ordered triggers have changed, or whether this instance can send for them.
func (s *scheduler) reorder() {
	s.order.changed, s.order.reseat = true, true
	s.wakeOrderer()
}

// orderState records what the orderer has still to do. starved says that it has events for which
// there was no room.
func (s *scheduler) orderState(busy, starved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order.starved = starved
	s.order.busy = busy
	for _, l := range s.order.lanes {
		s.order.busy = s.order.busy || l.order.marked
	}
}

// foundInOrder counts new events of a trigger, for the doorbell.
func (s *scheduler) foundInOrder(l *lane, n int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.order.found = now
	s.order.found += n
}

// takeFound returns how many new events the orderer has read since the last call.
func (s *scheduler) takeFound() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.order.found
	s.order.found = 0
	return n
}

// waitsInOrder says whether the orderer has events of a trigger that could be sent.
func (s *scheduler) waitsInOrder(l *lane, waits bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.order.waits != waits {
		l.order.waits = waits
		s.weighShare(l)
	}
}

// room is how many more deliveries of an ordered trigger the scheduler takes.
func (s *scheduler) room(l *lane) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || l.gone || l.idle() {
		return 0
	}
	return s.ask(l, time.Now(), s.free())
}

// slots is how many events of a trigger may be in flight or wait for a slot.
func (s *scheduler) slots(l *lane) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := s.slotsOf(l)
	return slots + prefetch(slots, l.average, s.prefetch)
}

// free is how many more events may be in memory.
func (s *scheduler) free() int {
	slots, ahead := s.limit-s.active, s.limit
	if s.shared.Shared != nil {
		room := s.shared.place.room(false)
		slots, ahead = min(slots, room), min(ahead, s.active+room)
	}
	return min(slots+prefetch(ahead, s.average, s.prefetch)-s.queued, maxOutstanding-s.count)
}

// offer takes in deliveries in the order of their keys. It returns the shipments for which there is
// a slot, and the deliveries that can't be sent.
func (s *scheduler) offer(l *lane, all []*delivery, now time.Time) (start []*shipment, unsent []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range all {
		d.taken, d.bulk = now, !l.batches().IsZero()
		s.link(d)
	}
	if s.closed || l.gone || l.idle() {
		return nil, all
	}
	s.queued -= l.loads()
	for _, d := range all {
		l.push(d)
	}
	s.queued += l.loads()
	if len(all) > 0 {
		l.gate.offered(l)
	}
	if !l.waiting && len(all) > 0 {
		l.waiting = true
		s.waiting = append(s.waiting, l)
	}
	return s.take(now), nil
}

// hold counts a delivery that is settled without being sent.
func (s *scheduler) hold(d *delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link(d)
}

// event makes the event that is sent for one that was read and not claimed.
func (s *scheduler) event(l *lane, e *queue.Claimed) webhook.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.event(e)
}

// ordered reports whether a trigger's events have an order.
func ordered(spec *trigger.Spec) bool { return !spec.Order.IsZero() }
