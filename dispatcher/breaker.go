package dispatcher

import (
	"math/rand/v2"
	"time"
)

// breaker counts how the attempts at an endpoint end, and says how many may be in flight. It has no
// clock and does no I/O: it is told what happened and when.
//
//	          10 failures in a row, or             the probe
//	          70 % of 20 in a minute               succeeds
//	+----+ -------------------------> +---------+ ----------> +---------+
//	| ok |                            | failing |             | probing |
//	+----+                            +---------+ <---------- +---------+
//	  ^                                       a failure with     |
//	  |                                       1 in flight        |
//	  +----------------- calm for recoveredAfter ----------------+
//
// While it is failing, nothing may start but a probe, which the target of the breaker hands out.
// While it is probing, work grows back from one attempt in flight: a success doubles the number, a
// failure halves it. The state is that of rowhook.health, which all instances share.
type breaker struct {
	state   breakerState
	changed time.Time // when it last began to fail or to probe; older attempts say nothing
	row     int       // failures in a row
	began   time.Time // when the first of them was seen
	minute  outcomes
	allowed int // attempts that may be in flight while work grows back; 0: no bound
}

type breakerState uint8

const (
	breakerOK breakerState = iota
	breakerFailing
	breakerProbing
)

// String names the state.
func (s breakerState) String() string { return [...]string{"ok", "failing", "probing"}[s] }

// When a breaker begins to fail.
const (
	failuresInRow = 10
	leastInMinute = 20 // attempts, before their share of failures says anything
	failedPercent = 70
)

// failed takes in a failure of an attempt that began at started. limit is the number of attempts
// that may be in flight without the breaker. It reports whether the breaker begins to fail by this.
func (b *breaker) failed(started, now time.Time, limit int) bool {
	if b.state == breakerFailing || started.Before(b.changed) {
		return false
	}
	if b.row++; b.row == 1 {
		b.began = now
	}
	b.minute.add(now, true)
	if b.state == breakerProbing {
		if b.allowed == 0 {
			b.allowed = limit
		}
		if b.allowed > 1 {
			b.allowed /= 2
			return false
		}
	} else if failed, all := b.minute.sums(now); b.row < failuresInRow && (all < leastInMinute || 100*failed < failedPercent*all) {
		return false
	}
	b.enter(breakerFailing, 0, now)
	return true
}

// succeeded takes in a success of an attempt that began at started.
func (b *breaker) succeeded(started, now time.Time, limit int) {
	if b.state == breakerFailing || started.Before(b.changed) {
		return
	}
	b.row = 0
	b.minute.add(now, false)
	if b.allowed *= 2; b.allowed >= limit {
		b.allowed = 0
	}
}

// answered takes in the success of a probe.
func (b *breaker) answered(now time.Time) {
	b.row, b.minute = 0, outcomes{}
	b.enter(breakerProbing, 1, now)
}

// follow takes over the state that the instances share. It reports whether that changes whether
// attempts may start.
func (b *breaker) follow(shared breakerState, now time.Time) bool {
	was := b.state
	switch {
	case was == shared:
		return false
	case shared == breakerFailing:
		b.enter(breakerFailing, 0, now)
	case shared == breakerProbing, was == breakerFailing: // work grows back
		b.row, b.minute = 0, outcomes{}
		b.enter(shared, 1, now)
	default:
		b.state = shared
	}
	return was == breakerFailing || shared == breakerFailing
}

func (b *breaker) enter(state breakerState, allowed int, now time.Time) {
	b.state, b.allowed, b.changed = state, allowed, now
}

// outcomes are the attempts of the last minute, in slots of slotLength.
type outcomes struct {
	slots [12]struct {
		number      int64 // of the slot, since 1970
		failed, all int
	}
}

const slotLength = 5 * time.Second

func (o *outcomes) add(now time.Time, failed bool) {
	number := now.UnixNano() / int64(slotLength)
	s := &o.slots[number%int64(len(o.slots))]
	if s.number != number {
		s.number, s.failed, s.all = number, 0, 0
	}
	s.all++
	if failed {
		s.failed++
	}
}

func (o *outcomes) sums(now time.Time) (failed, all int) {
	oldest := now.UnixNano()/int64(slotLength) - int64(len(o.slots)) + 1
	for i := range o.slots {
		if s := &o.slots[i]; s.number >= oldest {
			failed, all = failed+s.failed, all+s.all
		}
	}
	return failed, all
}

// The wait for the next probe is a part of the time for which the endpoint has been failing. After
// ten minutes it is 8 s, so that the return is seen within 10 s.
const (
	probePart    = 75
	leastProbe   = time.Second
	longestProbe = time.Minute
)

// probeIn returns the wait for the next probe of an endpoint that has been failing for so long. The
// jitter keeps endpoints that began to fail together apart.
func probeIn(failing time.Duration) time.Duration {
	wait := min(max(failing/probePart, leastProbe), longestProbe)
	return min(wait+time.Duration(rand.Int64N(int64(wait/10))), longestProbe) //nolint:gosec // nobody gains by guessing when a probe is made
}

// recoveredAfter is how long an endpoint is probing before it counts as ok.
const recoveredAfter = 10 * time.Second
