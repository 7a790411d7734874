package dispatcher

import (
	"bytes"
	"time"

	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/trigger"
)

// What waits here of triggers with batches is bounded by events, not by requests: a hundred slots
// with a hundred events each would be 10,000 events of one trigger.
const (
	// bulkOfLane bounds the events of one trigger with batches that are claimed and not sent to
	// their end. Two batches always fit.
	bulkOfLane = 2000
	// bulkInAll bounds them for all such triggers together. The rest of maxOutstanding is for the
	// others.
	bulkInAll = 4000
	// bulkClaim bounds a claim of one trigger, so that its statement is short.
	bulkClaim = 1000
	// bulkPatience is how long a claim is put off until it can bring more. A claim costs the server
	// 0.4 ms and 9 us for each event, so claims of 1000 cost half as much as claims of 50, and bring
	// full batches.
	bulkPatience = 5 * time.Millisecond
)

// batches returns how the lane's events are put together; the zero value: one by one.
func (l *lane) batches() trigger.Batch { return l.trigger.Spec.Batch }

// loads is how many shipments the queue makes, if all are full.
func (l *lane) loads() int {
	n, size := l.queued(), max(l.batches().Max, 1)
	return (n + size - 1) / size
}

// sizes keeps the sum of the bodies in the queue, of a lane with batches.
func (l *lane) sizes(d *delivery, sign int) {
	if l.batches().IsZero() {
		return
	}
	if d.size == 0 {
		d.event.Trim(l.trigger.Spec.Payload)
		d.size = l.bodySize(&d.event) + 1 // and a comma
	}
	l.bytes += sign * d.size
}

// bodySize is the length of an event's part of a batch.
func (l *lane) bodySize(e *Event) int {
	if l.endpoint == nil {
		return e.BodySize()
	}
	return l.endpoint.BodySize(e)
}

// measure takes the sum anew, since the configuration has changed.
func (l *lane) measure() {
	l.bytes = 0
	for _, d := range l.queue[l.head:] {
		d.size = 0
		l.sizes(d, 1)
	}
}

// bodyLimit is the largest body of a batch.
func (l *lane) bodyLimit(maxBody int64) int64 {
	limit := int64(l.batches().Bytes)
	if limit <= 0 {
		limit = int64(trigger.DefaultBatchBytes)
	}
	if maxBody > 0 {
		limit = min(limit, maxBody)
	}
	return limit
}

// ripe returns when the first shipment of the queue may start, as far as its batch is concerned; it
// may have been long ago. An event waits for others only before its first attempt.
func (l *lane) ripe(maxBody int64) time.Time {
	b := l.batches()
	if b.Wait <= 0 || l.queued() >= b.Max || int64(l.bytes)+1 >= l.bodyLimit(maxBody) {
		return time.Time{}
	}
	d := l.queue[l.head]
	if d.tries > 1 || l.mostWith(d) == 1 {
		return time.Time{}
	}
	return d.taken.Add(b.Wait.Std())
}

// mostWith is how many events a request with this one may hold.
//
// It is sent alone after its last attempt, which was in a batch and failed: only then is it known
// that it fails by itself. A payload that the claim did not carry is sent alone, since it is fetched
// within the budget for payloads. After two failures, a batch is halved with each further one. So
// events among which many fail are alone after some attempts, even if the bisection of their batch
// is given up each time.
func (l *lane) mostWith(d *delivery) int {
	b := l.batches()
	switch {
	case b.IsZero() || d.held > 0 || int(d.tries) > l.trigger.Spec.Retry.Limit+1:
		return 1
	case d.tries <= 2:
		return b.Max
	}
	return max(b.Max>>min(d.tries-2, 30), 1)
}

// pack makes the next shipment of the queue. New events and events that have failed before do not
// go together: a failure of the old ones costs the new ones no attempt. Those that have failed
// together, and so are due at the same time, stay together.
func (l *lane) pack(maxBody int64) *shipment {
	first := l.pop()
	most := l.mostWith(first)
	if l.queued() == 0 || most == 1 && !first.runsWith(l.queue[l.head]) {
		return first.ship()
	}
	limit, size := l.bodyLimit(maxBody), int64(1+first.size)
	group := append(make([]*delivery, 0, min(most, l.queued()+1)), first)
	for l.queued() > 0 {
		d := l.queue[l.head]
		if d.runsWith(group[len(group)-1]) { // a key's events are never in two requests at once
			size += int64(d.size)
			group = append(group, l.pop())
			continue
		}
		most = min(most, l.mostWith(d))
		run, more := l.run()
		size += more
		if len(group)+run > most || size > limit || (d.tries > 1) != (first.tries > 1) || l.breaksUp(d, group, most) {
			break
		}
		size -= more - int64(d.size) // that of the rest of its run follows
		group = append(group, l.pop())
	}
	if len(group) == 1 {
		return first.ship()
	}
	if l.trigger.Spec.Order.IsZero() {
		// In the same order at every attempt, so that the request has the same id.
		sorting.By(group, func(a, b *delivery) int {
			if c := a.event.CreatedAt.Compare(b.event.CreatedAt); c != 0 {
				return c
			}
			return bytes.Compare(a.event.ID[:], b.event.ID[:])
		})
	}
	sh := &shipment{lane: l, deliveries: group}
	for _, d := range group {
		d.shipment = sh
	}
	return sh
}

// run is how many events at the head of the queue go in one request in any case, and their size.
func (l *lane) run() (n int, size int64) {
	head := l.queue[l.head]
	for _, d := range l.queue[l.head:] {
		if n > 0 && !d.runsWith(head) {
			break
		}
		n, size = n+1, size+int64(d.size)
	}
	return n, size
}

// runsWith reports that both are of one run of their key.
func (d *delivery) runsWith(other *delivery) bool {
	return d.placed != nil && d.placed.run != nil && other.placed != nil && d.placed.run == other.placed.run
}

// breaksUp reports that d is the first of several that have failed together, which would fit into
// a request of their own and do not all fit into this one.
func (l *lane) breaksUp(d *delivery, group []*delivery, most int) bool {
	if d.tries == 1 || d.due.Equal(group[len(group)-1].due) {
		return false
	}
	n := 1
	for _, next := range l.queue[l.head+1:] {
		if n > most || !next.due.Equal(d.due) {
			break
		}
		n++
	}
	return n <= most && len(group)+n > most
}

// askBatch is ask for a lane with batches. It returns events. requests is how many its breakers
// allow; a probe has one event.
func (s *scheduler) askBatch(l *lane, now time.Time, free, slots, ahead, requests int) int {
	if l.gate.closed() != nil {
		return min(requests, 1)
	}
	size := l.batches().Max
	most := min((slots+ahead)*size, max(bulkOfLane, 2*size))
	room := most - l.carried - l.queued()
	if l.queued() > 0 && room < most/4 {
		return 0
	}
	n := min(room, bulkInAll-s.bulk)
	// Events of an ordered trigger are read ahead, and not claimed.
	if n < min(bulkClaim, most/2) && !ordered(&l.trigger.Spec) && s.putsOff(l, now, n, room) {
		return 0
	}
	l.offered = time.Time{}
	if n = min(n, free*size, max(s.batch, bulkClaim)); n > size {
		n -= n % size // full batches
	}
	if own := min(s.reserve(), slots) - l.carried - l.queued(); n < own {
		n = own
	}
	if requests < unbounded {
		n = min(n, requests*size)
	}
	return n
}

// putsOff reports whether a claim of n events waits until it can bring more, of a lane with batches
// that has room for some. If outcomes take up the rest of the memory for events, it waits until they
// are written. Else it waits for requests in flight, for bulkPatience at most.
func (s *scheduler) putsOff(l *lane, now time.Time, n, room int) bool {
	if n < room && l.unsettled() >= l.batches().Max {
		s.bulkWaits = true
		return true
	}
	if n <= 0 || l.carried == 0 {
		return false
	}
	if l.offered.IsZero() {
		l.offered = now
	}
	return now.Before(l.offered.Add(bulkPatience))
}
