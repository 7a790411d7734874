package dispatcher

import (
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// pace holds the requests of a trigger with a rate to the times that were reserved for this
// instance. It has no clock and does no I/O. The zero value is a trigger without a rate.
type pace struct {
	rate trigger.Rate

	runs []slotRun // reserved, in their order

	asking  bool      // a statement is under way
	askAt   time.Time // no statement before
	opens   time.Time // when the first slot may be had, as last seen
	waiting int       // requests that wait for a slot within a shipment
	changed chan struct{}
}

// slotRun is a number of slots that follow one another.
type slotRun struct {
	next  time.Time
	left  int
	until time.Time // what is not used by then is void, so that it makes no burst of its own
}

const (
	// slotsInTime is how long before the last reserved slot more are asked for.
	slotsInTime = queue.SlotsAhead / 2
	// slotVoid is how long a slot can be used.
	slotVoid = 500 * time.Millisecond
	// paceAhead is how far ahead events of a trigger with a rate are claimed: leases run.
	paceAhead = 2 * time.Second
)

// configure takes over a rate, at once.
func (p *pace) configure(r trigger.Rate) {
	if p.rate != r {
		waiting, changed := p.waiting, p.changed
		*p = pace{rate: r, waiting: waiting, changed: changed}
	}
}

func (p *pace) off() bool { return p.rate.IsZero() }

func (p *pace) every() time.Duration { return p.rate.Limit.Interval() }

// admits reports whether a request may start, and when one may; zero: no slot is reserved.
func (p *pace) admits(now time.Time) (ok bool, at time.Time) {
	if p.off() {
		return true, time.Time{}
	}
	for len(p.runs) > 0 && now.After(p.runs[0].until) {
		p.runs = p.runs[1:]
	}
	switch {
	case len(p.runs) == 0:
		return false, time.Time{}
	case now.Before(p.runs[0].next):
		return false, p.runs[0].next
	}
	return true, time.Time{}
}

// take uses a slot.
func (p *pace) take() {
	if len(p.runs) == 0 {
		return
	}
	r := &p.runs[0]
	r.next = r.next.Add(p.every())
	if r.left--; r.left == 0 {
		p.runs = p.runs[1:]
	}
}

// wants returns how many slots to ask for, if so many shipments wait. It asks a little before the
// last one is used.
func (p *pace) wants(now time.Time, shipments int) int {
	more := shipments + p.waiting
	for _, r := range p.runs {
		more -= r.left
	}
	if p.off() || p.asking || now.Before(p.askAt) || more <= 0 {
		return 0
	}
	if n := len(p.runs); n > 0 {
		if last := p.runs[n-1]; last.next.Add(time.Duration(last.left-1) * p.every()).After(now.Add(slotsInTime)) {
			return 0
		}
	}
	return min(more, 10_000)
}

// got takes in an answer to a statement that was sent at asked. It returns how long there is no slot
// for this instance; 0: there is.
func (p *pace) got(s queue.Slots, asked, now time.Time) (closed time.Duration) {
	p.asking = false
	first := asked.Add(s.First)
	if s.N == 0 {
		p.opens = first
		p.askAt = now.Add(max(first.Sub(now)-queue.SlotsAhead/2, 20*time.Millisecond))
		return first.Sub(now)
	}
	p.opens, p.askAt = time.Time{}, time.Time{}
	p.runs = append(p.runs, slotRun{first, s.N, later(first.Add(time.Duration(s.N-1)*p.every()), now).Add(slotVoid)})
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
	return 0
}

// failed takes in that the statement has failed.
func (p *pace) failed(now time.Time) {
	p.asking, p.askAt = false, now.Add(slotVoid)
}

// room is how many shipments may be claimed, of which so many wait already: the part of an instance
// of what may be sent within paceAhead.
func (p *pace) room(now time.Time, instances, loads int) int {
	if p.off() {
		return unbounded
	}
	if p.opens.After(now.Add(paceAhead)) {
		return 0
	}
	return max(max(int(paceAhead/p.every())/max(instances, 1), 1)-loads, 0)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
