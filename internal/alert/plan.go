package alert

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/rowhook/rowhook/internal/sorting"
)

const (
	// groupFrom is from how many messages on those of one kind about one host become one.
	groupFrom = 4
	// mergeFrom is from how many messages to a destination on all of one kind become one. manyIn is
	// for how long messages that were sent count. After that many, there is a pause of spacing.
	mergeFrom = 6
	mostIn    = 10
	manyIn    = 10 * time.Minute
	spacing   = time.Minute
)

// Report is what is wrong at the moment.
type Report struct {
	Troubles []Trouble
	// Unknown are kinds that could not be looked at. What is known of them stays as it is.
	Unknown map[Kind]bool
	// Unwatched says of troubles that are not there any more why nobody can know whether they are
	// over.
	Unwatched map[Key]string
	// Left says what is left of troubles that are over.
	Left map[Key]Left
}

// Left is what is left of a trouble that is over: dead letters that nobody has dealt with.
type Left struct {
	Count int64
	Last  time.Time // when the last one came; zero: there is none
}

// Outcome is what Plan has decided.
type Outcome struct {
	Changed []State // to be written
	Gone    []State // to be deleted
	// Messages are to be sent. Their states are among Changed, and are out of reach of other
	// dispatchers for SendLease.
	Messages []Message
}

type place struct {
	destination string
	key         Key
}

// Plan decides what to write down and what to send. It is called with all states that there are.
func Plan(destinations []Destination, states []State, report Report, now time.Time) Outcome {
	var out Outcome
	have := map[place]*State{}
	before := map[place]State{}
	for i := range states {
		at := place{states[i].Destination, states[i].Key}
		have[at], before[at] = &states[i], states[i]
	}
	all := map[place]*State{} // those of destinations that there are
	for i := range destinations {
		d := &destinations[i]
		found := d.troubles(report, have, now)
		keys := slices.Collect(maps.Keys(found))
		for at := range have {
			if at.destination == d.ID && found[at.key] == nil && !report.Unknown[at.key.Kind] {
				keys = append(keys, at.key)
			}
		}
		for _, key := range keys {
			at := place{d.ID, key}
			s := have[at]
			if s == nil {
				s = &State{Destination: d.ID, Key: key}
			}
			if why, ok := report.Unwatched[key]; ok && s.Active && found[key] == nil {
				s.Facts.Unwatched, s.Facts.Reason = true, why
			}
			if left, ok := report.Left[key]; ok && s.Active && found[key] == nil {
				s.Facts.leave(left)
			}
			s.step(d, found[key], now)
			all[at] = s
		}
		for at, s := range have {
			if at.destination == d.ID {
				all[at] = s
			}
		}
		out.Messages = append(out.Messages, d.messages(all, now)...)
	}
	for _, at := range sorting.By(slices.Collect(maps.Keys(all)), place.compare) {
		s := all[at]
		was, existed := before[at]
		switch {
		case s.done(now):
			if existed {
				out.Gone = append(out.Gone, *s)
			}
		case !existed || !reflect.DeepEqual(*s, was):
			out.Changed = append(out.Changed, *s)
		}
	}
	for at, s := range have {
		if all[at] == nil {
			out.Gone = append(out.Gone, *s)
		}
	}
	return out
}

func (a place) compare(b place) int {
	return cmp.Or(cmp.Compare(a.destination, b.destination), cmp.Compare(a.key.Kind, b.key.Kind), cmp.Compare(a.key.Subject, b.key.Subject))
}

// troubles returns what is a trouble for this destination.
func (d *Destination) troubles(report Report, have map[place]*State, now time.Time) map[Key]*Trouble {
	failing := map[string]bool{} // triggers and hosts that fail, or have until recently
	if d.listens(Failing, Begun) {
		for i := range report.Troubles {
			if t := &report.Troubles[i]; t.Kind == Failing {
				failing[t.Subject] = true
			}
		}
		for at, s := range have {
			recently := s.Active || now.Before(s.EndedAt.Add(d.Backlog.OlderThan.Std()))
			if at.destination == d.ID && s.Kind == Failing && recently {
				failing[s.Subject] = true
			}
		}
	}
	found := map[Key]*Trouble{}
	for i := range report.Troubles {
		t := &report.Troubles[i]
		s := have[place{d.ID, t.Key}]
		was := s != nil && s.Active
		// A backlog of an endpoint that fails, or has just recovered, is no news.
		known := t.Kind == Backlog && !was && (failing[t.Subject] || failing[t.Host])
		if d.Wants(t.Kind) && !known && d.active(t, was) {
			found[t.Key] = t
		}
	}
	return found
}

// messages claims what is to be sent to the destination now.
func (d *Destination) messages(all map[place]*State, now time.Time) []Message {
	var due []*State
	recent, last := map[time.Time]bool{}, time.Time{}
	for _, at := range sorting.By(slices.Collect(maps.Keys(all)), place.compare) {
		s := all[at]
		if at.destination != d.ID {
			continue
		}
		if s.Pending != None && !s.NextAt.After(now) {
			due = append(due, s)
		}
		if now.Sub(s.ToldAt) < manyIn {
			recent[s.ToldAt] = true
			if s.ToldAt.After(last) {
				last = s.ToldAt
			}
		}
	}
	if len(recent) >= mostIn && now.Sub(last) < spacing {
		return nil
	}
	groups := group(due, func(s *State) any { return [3]string{string(s.Kind), string(s.Pending), s.Facts.Host} }, groupFrom)
	if len(groups) >= mergeFrom || len(recent) >= mostIn {
		groups = group(due, func(s *State) any { return [2]string{string(s.Kind), string(s.Pending)} }, 0)
	}
	var out []Message
	for i, g := range groups {
		// Each has a time of its own, by which messages are counted.
		m := Message{Destination: d.ID, Kind: g[0].Kind, Phase: g[0].Pending, At: now.Add(time.Duration(i) * time.Microsecond)}
		for _, s := range g {
			s.Attempts++
			s.NextAt = now.Add(SendLease)
			m.States = append(m.States, *s)
		}
		out = append(out, m)
	}
	return out
}

// group puts states with the same value of by together, if there are at least from of them.
func group(states []*State, by func(*State) any, from int) [][]*State {
	var order []any
	groups := map[any][]*State{}
	for _, s := range states {
		k := by(s)
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], s)
	}
	var out [][]*State
	for _, k := range order {
		if g := groups[k]; len(g) >= from {
			out = append(out, g)
			continue
		}
		for _, s := range groups[k] {
			out = append(out, []*State{s})
		}
	}
	return out
}
