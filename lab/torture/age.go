package main

import (
	"strings"
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
