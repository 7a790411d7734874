package main

import (
	"slices"
	"time"
)

// lists checks that a dispatcher which loses its listen path stays in rowhook.instance. It also
// checks that the dispatcher listens again soon after the path has come back.
func (j *judging) lists() {
	bySlot := map[int][]listing{}
	for _, l := range j.listings {
		bySlot[l.Slot] = append(bySlot[l.Slot], l)
	}
	for slot, all := range bySlot {
		// Before that the dispatcher was starting.
		all = all[max(slices.IndexFunc(all, func(l listing) bool { return l.Listed }), 0):]
		for _, f := range j.faults {
			if natures()[f.Kind].listen && (f.Slot == slot || f.Slot == everyone) && !f.Began.IsZero() {
				j.listed(f, slot, all)
				j.hears(f, slot, all)
			}
		}
	}
}

// restartWithin is how long a dispatcher may be missing from rowhook.instance after a fault that
// ends it, or that keeps it from writing.
const restartWithin = 10 * time.Second

func (j *judging) listed(f *fault, slot int, all []listing) {
	for _, l := range all {
		if l.Listed || l.At.Before(f.Began) || l.At.After(f.Ended.Add(aftermath)) {
			continue
		}
		excused := slices.ContainsFunc(j.faults, func(o *fault) bool {
			n := natures()[o.Kind]
			return !n.listen && (n.duplicates || o.Kind == faultHistory) && o.strikes(slot) && o.overlaps(l.At.Add(-restartWithin), l.At)
		})
		if !excused && !(j.spread && j.served(l.At)) {
			j.blame(ruleUnlisted, "slot %d at %s, %s since %s", slot, l.At.Format("15:04:05.000"), f.Kind, f.Began.Format("15:04:05.000"))
			return
		}
	}
}

// served reports whether any dispatcher was in rowhook.instance at the moment of a listing.
func (j *judging) served(at time.Time) bool {
	return slices.ContainsFunc(j.listings, func(l listing) bool { return l.Listed && l.At.Equal(at) })
}

// hearsWithin is how soon a dispatcher has to listen again after its path has come back. It waits
// for some six seconds between two tries.
const hearsWithin = 15 * time.Second

func (j *judging) hears(f *fault, slot int, all []listing) {
	until := f.Ended.Add(hearsWithin)
	if len(all) == 0 || all[len(all)-1].At.Before(until) {
		return // the run was over
	}
	disturbed := slices.ContainsFunc(j.faults, func(o *fault) bool {
		n := natures()[o.Kind]
		return o != f && (n.listen || n.hampers()) && o.strikes(slot) && o.overlaps(f.Ended.Add(-restartWithin), until)
	})
	heard := slices.ContainsFunc(all, func(l listing) bool {
		left := j.spread && !l.Listed // others have taken the source over
		return (l.Listens || left) && l.At.After(f.Ended) && !l.At.After(until)
	})
	if !heard && !disturbed {
		j.blame(ruleDeaf, "slot %d, %s until %s", slot, f.Kind, f.Ended.Format("15:04:05.000"))
	}
}

// strikes reports whether a fault strikes this slot.
func (f *fault) strikes(slot int) bool { return f.Slot == slot || f.Slot == everyone }

// overlaps reports whether a fault was active at some time in the span.
func (f *fault) overlaps(from, to time.Time) bool {
	return !f.Began.IsZero() && !f.Began.After(to) && f.Ended.After(from)
}

// span is the time between two moments.
type span struct{ from, to time.Time }

// merged sorts spans and joins those that touch.
func merged(all []span) []span {
	slices.SortFunc(all, func(a, b span) int { return a.from.Compare(b.from) })
	var some []span
	for _, s := range all {
		if n := len(some); n > 0 && !s.from.After(some[n-1].to) {
			if s.to.After(some[n-1].to) {
				some[n-1].to = s.to
			}
			continue
		}
		some = append(some, s)
	}
	return some
}

// both returns the time that is in both lists. Each list is sorted.
func both(a, b []span) []span {
	var all []span
	for _, x := range a {
		for _, y := range b {
			from, to := x.from, x.to
			if y.from.After(from) {
				from = y.from
			}
			if y.to.Before(to) {
				to = y.to
			}
			if from.Before(to) {
				all = append(all, span{from, to})
			}
		}
	}
	return merged(all)
}

// without returns the time that is in a and not in b.
func without(a, b []span) []span {
	var all []span
	for _, x := range a {
		for _, y := range b {
			if !y.to.After(x.from) || !y.from.Before(x.to) {
				continue
			}
			if y.from.After(x.from) {
				all = append(all, span{x.from, y.from})
			}
			x.from = y.to
		}
		if x.from.Before(x.to) {
			all = append(all, x)
		}
	}
	return all
}

const (
	// longestSilence is how long nothing at all may be sent while events are owed. A dispatcher
	// that can't hear the bell looks every 1.5 s.
	longestSilence = 5 * time.Second
	// hamperedFor is how long a fault may hold up deliveries after its end. A dispatcher tries the
	// database again every six seconds or so.
	hamperedFor = 8 * time.Second
)

// free returns the time of faults during which deliveries have to go on. Such a fault only delays
// finding an event, or keeps its history from being written. At least one dispatcher was free of
// every other fault; if they have several sources among them, all were.
func (j *judging) free() []span {
	all := natures()
	var on []span
	for _, f := range j.faults {
		if all[f.Kind].goesOn && !f.Began.IsZero() {
			on = append(on, span{f.Began, f.Ended})
		}
	}
	return without(merged(on), j.hampered())
}

// hampered returns the time in which every dispatcher suffered from a fault that keeps it from
// delivering, or one did if they have several sources among them.
func (j *judging) hampered() []span {
	all := natures()
	by := map[int][]span{}
	slots := map[int]bool{}
	for _, l := range j.listings {
		slots[l.Slot] = true
	}
	for _, f := range j.faults {
		if n := all[f.Kind]; f.Began.IsZero() || n.goesOn || !n.hampers() {
			continue
		}
		for slot := range slots {
			if f.strikes(slot) {
				by[slot] = append(by[slot], span{f.Began, f.Ended.Add(hamperedFor)})
			}
		}
	}
	var every []span
	first := true
	for slot := range slots {
		if j.spread { // whichever dispatcher serves the source
			every = merged(append(every, by[slot]...))
			continue
		}
		if first {
			every, first = merged(by[slot]), false
			continue
		}
		every = both(every, merged(by[slot]))
	}
	return every
}

// silence finds the longest time in which nothing was sent although events were owed and deliveries
// had to go on.
func (j *judging) silence(committed map[key]*entry) {
	var owed []span // from an event's commit to its first arrival
	var arrivals []time.Time
	for _, s := range j.seen {
		first := time.Time{}
		for _, a := range s.attempts {
			arrivals = append(arrivals, a.arrived)
			if first.IsZero() || a.arrived.Before(first) {
				first = a.arrived
			}
		}
		if c := committed[s.key()]; c != nil {
			owed = append(owed, span{c.Committed, first})
		}
	}
	slices.SortFunc(arrivals, time.Time.Compare)
	for _, free := range j.free() {
		j.Free += free.to.Sub(free.from)
		edges := []time.Time{free.from}
		for _, a := range arrivals {
			if a.After(free.from) && a.Before(free.to) {
				edges = append(edges, a)
			}
		}
		edges = append(edges, free.to)
		for i := 1; i < len(edges); i++ {
			j.gap(span{edges[i-1], edges[i]}, owed)
		}
	}
}

// gap takes in a time without an attempt.
func (j *judging) gap(gap span, owed []span) {
	if gap.to.Sub(gap.from) <= j.Silence {
		return
	}
	for _, o := range both([]span{gap}, owed) {
		took := o.to.Sub(o.from)
		j.Silence = max(j.Silence, took)
		if took > longestSilence {
			j.blame(ruleSilence, "%s from %s on", took, o.from.Format("15:04:05.000"))
		}
	}
}
