package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// sentWithin is how long an attempt that was begun in time may be on its way to the receiver while no
// fault holds it up.
const sentWithin = 3 * time.Second

// timely checks that an attempt was made neither before the event was due for the first time, nor when
// it was too old. The ledger has a moment before the change and one after it.
func (j *judging) timely(id uuid.UUID, s *seen, a *attempt, c *entry) {
	if c == nil {
		return
	}
	switch s.trigger {
	case delayed:
		if early := c.Began.Add(delayFor).Sub(a.arrived); early > 0 {
			j.blame(ruleTooSoon, "event %s, %s before %s after its change: %s", id, early, delayFor, s)
		}
	case fleeting:
		old := c.Noted.Add(oldAfter)
		if a.arrived.After(old.Add(sentWithin)) && !j.disturbed(a.slot, old, a.arrived) {
			j.blame(ruleAged, "event %s, changed %s, which was too old from %s on: %s", id, c.Noted.Format(precisely), old.Format(precisely), s)
		}
		for _, p := range j.placeOf[id] {
			if p.Where == "dead" && a.arrived.After(p.At) && !j.disturbed(a.slot, p.At, a.arrived) {
				j.blame(ruleRisen, "event %s is dead since %s: %s", id, p.At.Format(precisely), s)
			}
		}
	}
}

// hasExpired reports whether an event is dead because of its age.
func (p *place) hasExpired() bool {
	return p.Trigger == fleeting && p.Where == "dead" && strings.HasPrefix(p.Reason, "expired:")
}

// expiry checks that an event has expired not before its time.
func (j *judging) expiry(p *place, committed map[key]*entry) {
	j.Expired++
	if c := committed[keyOf(p.Trigger, p.Op, p.Old, p.Fresh)]; c != nil && p.At.Before(c.Began.Add(oldAfter)) {
		j.blame(ruleYoung, "event %s, changed %s, is dead since %s: %s", p.Event, c.Began.Format(precisely), p.At.Format(precisely), p.Reason)
	}
}

const (
	nearlyOld    = oldAfter - 500*time.Millisecond // of events when they are committed
	answeredLate = 1500 * time.Millisecond         // so that they are too old by then
	// agingFor is longer than two looks of each dispatcher for events that are too old.
	agingFor = 12 * time.Second
)

// aging has attempts in flight while their events get too old. The events are nearly too old when they
// are committed, and the receiver takes its time to accept them. Several writers follow each other, so
// that whenever a dispatcher looks for events that are too old, some of these are in flight.
func (l *lab) aging(ctx context.Context) string {
	l.receiver.setMood(fleeting, mood{kind: moodSlow, share: 1, after: answeredLate})
	var wrote [3]error
	var writing sync.WaitGroup
	until := time.Now().Add(agingFor)
	for i := range wrote {
		writing.Go(func() {
			w := newWriter(l, 840+i)
			defer w.close()
			wait(ctx, time.Duration(i)*nearlyOld/time.Duration(len(wrote)))
			for wrote[i] == nil && ctx.Err() == nil && time.Now().Before(until) {
				wrote[i] = w.do(ctx, nil, transaction{steps: []step{{op: 'I', trigger: fleeting, rows: 5}}, hold: nearlyOld})
			}
		})
	}
	writing.Wait()
	wait(ctx, answeredLate)
	l.receiver.setMood(fleeting, mood{})
	if err := errors.Join(wrote[:]...); err != nil {
		return err.Error()
	}
	return l.drained(ctx, calmWithin)
}
