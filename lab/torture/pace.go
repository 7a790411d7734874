package main

import (
	"maps"
	"slices"
	"time"
)

// neighbours checks that an event of a batch became a dead letter by a request of its own, or by an
// answer that named it. So no event is dead because of another one. An attempt may take several
// requests, since a batch that fails is sent in halves: the last of them decides.
func (j *judging) neighbours(p *place) {
	s := j.seen[p.Event]
	if s == nil {
		return
	}
	var last *attempt
	for i := range s.attempts {
		if a := &s.attempts[i]; a.number == p.Tries && (last == nil || a.arrived.After(last.arrived)) {
			last = a
		}
	}
	if last != nil && last.with > 1 && !last.listed && j.excuse(last.slot, last.arrived, p.At) == "" {
		j.blame(ruleNeighbour, "event %s, the last request of attempt %d was with %d others: %s; %s", p.Event, last.number, last.with-1, p.Reason, s)
	}
}

// requests returns when the requests of a trigger arrived, in order. The events of a batch arrived
// at the same time.
func (j *judging) requests(trigger string) []time.Time {
	times := map[time.Time]bool{}
	for _, s := range j.seen {
		if s.trigger == trigger {
			for i := range s.attempts {
				times[s.attempts[i].arrived] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(times), time.Time.Compare)
}

// inPace is the time over which the rate is checked.
const inPace = 5 * time.Second

// pace checks the rate of a trigger. A dispatcher reserves a quarter of a second ahead, and what a
// fault held up arrives later: time in which a dispatcher or its requests were held up does not
// count.
func (j *judging) pace() {
	arrived := j.requests(paced)
	most := pacedBurst + pacedLimit*int(inPace/time.Second) + 3*pacedLimit/4
	for i := range arrived {
		end := arrived[i].Add(inPace)
		n, _ := slices.BinarySearchFunc(arrived, end, time.Time.Compare)
		if n-i > most && !j.heldUp(arrived[i], end) {
			j.blame(ruleRate, "%d requests of %s in %s from %s, at most %d are allowed", n-i, paced, inPace, arrived[i].Format("15:04:05.000"), most)
			return
		}
	}
}

// heldUp reports whether a fault held up a dispatcher or its requests.
func (j *judging) heldUp(from, to time.Time) bool {
	return slices.ContainsFunc(j.faults, func(f *fault) bool {
		uses := natures()[f.Kind].uses
		return (uses == "process" || uses == "webhooks") && f.Began.Before(to) && f.Ended.Add(inPace).After(from)
	})
}

// What an endpoint that is down may get: the attempts that were on their way when it was found to
// be down, and probes of each dispatcher that does not hear of the others.
const (
	downFound    = 3 * time.Second
	downRequests = 30
	downRate     = 6 // a second
)

// outages checks that endpoints that are down get probes only.
func (j *judging) outages() {
	for _, f := range j.faults {
		if f.Kind != moodDown || f.Error != "" || f.Ended.Sub(f.Began) < 2*downFound {
			continue
		}
		from := f.Began.Add(downFound)
		n := 0
		for _, t := range j.requests(f.Trigger) {
			if t.After(from) && t.Before(f.Ended) {
				n++
			}
		}
		if most := downRequests + int(downRate*f.Ended.Sub(from).Seconds()); n > most {
			j.blame(ruleHammered, "%s got %d requests in %s, from %s on", f.Trigger, n, f.Ended.Sub(from), from.Format("15:04:05.000"))
		}
	}
}
