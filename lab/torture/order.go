package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ordersByKey reports whether a trigger keeps the order of each key.
func ordersByKey(trigger string) bool {
	return trigger == ordered || trigger == latest || trigger == spanning || trigger == streamed
}

// mergeable reports whether an event may be sent as what several changes were merged into. Then its
// operation and its old row are not those of one change.
func mergeable(trigger, op string) bool { return trigger == latest && op != "M" }

// partSQL and part are the key of spanning. One update in sixteen moves its row to another key.
const partSQL = "id % 8 * 2 + case when version % 16 = 0 then 1 else 0 end"

func part(id, version int64) int64 {
	p := id % 8 * 2
	if version%16 == 0 {
		p++
	}
	return p
}

// orderKey is a key within which events keep their order.
type orderKey struct {
	trigger string
	key     int64
}

// keys returns the keys of an event. One that changes the key of its row has two.
func (p *place) keys() []orderKey {
	if p.Trigger != spanning {
		return []orderKey{{p.Trigger, p.ID}}
	}
	var keys []orderKey
	for _, version := range []int64{p.Old, p.Fresh} {
		if k := (orderKey{p.Trigger, part(p.ID, version)}); version > 0 && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// order checks the order of each key.
func (j *judging) order() {
	keys, rows := map[orderKey][]*place{}, map[orderKey][]*place{}
	for i := range j.places {
		p := &j.places[i]
		if !ordersByKey(p.Trigger) || p.Op == "M" {
			continue
		}
		if s := j.seen[p.Event]; p.Seq == 0 || s != nil && s.sequence != p.Seq {
			j.blame(ruleSequence, "event %s has the number %d in the tables: %s", p.Event, p.Seq, s)
		}
		for _, k := range p.keys() {
			keys[k] = append(keys[k], p)
		}
		row := orderKey{p.Trigger, p.ID}
		rows[row] = append(rows[row], p)
	}
	for _, events := range rows {
		slices.SortFunc(events, func(a, b *place) int { return cmp.Compare(a.Seq, b.Seq) })
		for i := range len(events) - 1 {
			// What was merged away keeps its new row.
			if a, b := events[i], events[i+1]; b.Fresh > 0 && a.Fresh > b.Fresh || a.Op == "D" {
				j.blame(ruleSequence, "events %s and %s of row %d: versions %d and %d", a.Event, b.Event, a.ID, a.Fresh, b.Fresh)
			}
		}
	}
	for _, events := range keys {
		slices.SortFunc(events, func(a, b *place) int { return cmp.Compare(a.Seq, b.Seq) })
		j.overtaken(events)
		j.misplaced(events)
		j.inverted(events)
	}
}

// overtaken checks that an event was sent only after all earlier ones of its key were settled, but for
// those in whose stead it was sent. No fault explains the contrary: an owner of a lane knows what is
// settled.
func (j *judging) overtaken(events []*place) {
	for i, p := range events {
		s := j.seen[p.Event]
		if s == nil {
			continue
		}
		for _, a := range s.attempts {
			if before := j.overtook(events[:i], p, &a); before != nil {
				j.blame(ruleOvertaken, "event %s with the number %d, settled %s: %s; before it comes event %s with the number %d, settled %s; the attempt of %s had the old version %d, and the earlier event has %d",
					p.Event, p.Seq, p.At.Format(precisely), s, before.Event, before.Seq, before.At.Format(precisely), a.arrived.Format(precisely), a.old, before.Old)
				break
			}
		}
	}
}

// overtook returns the event that was settled last of those that an attempt came before although they
// are earlier; nil: there is none.
func (j *judging) overtook(earlier []*place, p *place, a *attempt) (last *place) {
	for _, q := range earlier {
		if q.Where != "owed" && q.Into == nil && a.arrived.Before(q.At) && (last == nil || q.At.After(last.At)) && !j.stoodFor(earlier, p, a, q) {
			last = q
		}
	}
	return last
}

// stoodFor reports whether an attempt was made in the stead of an earlier event of its row, too. Then
// its body has the old row of that event, or of one before it. The next owner of a lane with which
// several have died sends the earlier event by itself all the same.
func (j *judging) stoodFor(earlier []*place, p *place, a *attempt, q *place) bool {
	if !mergeable(p.Trigger, p.Op) {
		return false
	}
	if a.old <= q.Old {
		return true
	}
	// A delete that stands for an insert, too, has its own old row. It is sent only if the receiver may
	// have the row. Otherwise nothing is sent.
	first := earlier[0]
	return a.op == 'D' && first.Op == "I" && a.arrived.Before(first.At) && j.perhapsReceived(earlier, a.arrived)
}

// perhapsReceived reports whether events that wait of a row of latest count as perhaps received: one
// has arrived, or a fault may have hidden an attempt or have had the lane taken over.
func (j *judging) perhapsReceived(events []*place, before time.Time) bool {
	for _, q := range events {
		if s := j.seen[q.Event]; s != nil && slices.ContainsFunc(s.attempts, func(a attempt) bool { return a.arrived.Before(before) }) {
			return true
		}
	}
	return slices.ContainsFunc(j.excuses, func(f *fault) bool {
		return f.Began.Before(before) && f.Ended.Add(aftermath).After(j.inserted[events[0].ID])
	})
}

// inverted checks that no event was sent after a later one of its key was settled. A request of a
// dispatcher that was struck may still be on its way.
func (j *judging) inverted(events []*place) {
	var after *place // settled first
	for _, p := range slices.Backward(events) {
		if s := j.seen[p.Event]; s != nil && after != nil {
			for _, a := range s.attempts {
				if a.arrived.After(after.At) && j.excuse(a.slot, after.At, a.arrived) == "" {
					j.blame(ruleInverted, "event %s with the number %d: %s; event %s with the number %d was settled %s",
						p.Event, p.Seq, s, after.Event, after.Seq, after.At.Format(precisely))
				}
			}
		}
		if p.Where != "owed" && p.Into == nil && (after == nil || p.At.Before(after.At)) {
			after = p
		}
	}
}

const precisely = "15:04:05.000000"

// final checks the rows of latest: each change has its event, and the receiver has the last one.
func (j *judging) final() {
	changes, places := map[int64][]*entry{}, map[int64]int{}
	for i := range j.ledger {
		if c := &j.ledger[i]; mergeable(c.Trigger, c.Op) {
			changes[c.ID] = append(changes[c.ID], c)
		}
	}
	for i := range j.places {
		if p := &j.places[i]; mergeable(p.Trigger, p.Op) {
			places[p.ID]++
			if changes[p.ID] == nil {
				j.blame(ruleRolledBack, "event %s: row %d of %s is in the tables (%s)", p.Event, p.ID, p.Trigger, p.Where)
			}
		}
	}
	accepted := j.accepting()
	for id, of := range changes {
		slices.SortFunc(of, func(a, b *entry) int { // a delete has the version of the change before it
			return cmp.Or(cmp.Compare(max(a.Old, a.Fresh), max(b.Old, b.Fresh)), cmp.Compare(a.Old, b.Old))
		})
		last := of[len(of)-1]
		if n := places[id]; n > len(of) {
			j.blame(ruleTwice, "row %d of %s has %d events and %d changes", id, latest, n, len(of))
		} else if n < len(of) && !slices.ContainsFunc(of, func(c *entry) bool {
			return j.unwritten(everyone, c.Committed, c.Committed.Add(keptFor))
		}) {
			j.blame(ruleNowhere, "row %d of %s has %d events and %d changes", id, latest, n, len(of))
		}
		got, any := accepted[id]
		fresh := int64(0)
		if any {
			fresh = got.fresh
		}
		// A row that was inserted and deleted while it waited is never sent.
		if fresh != last.Fresh && (!any || j.excuse(got.slot, got.arrived.Add(-settledWithin), got.arrived) == "") {
			j.blame(ruleStale, "row %d of %s: the last change leaves version %d, and the receiver has %d; %s", id, latest, last.Fresh, fresh, j.historyOf(id, of))
		}
	}
}

// historyOf describes what is known of a row of latest.
func (j *judging) historyOf(id int64, changes []*entry) (text string) {
	for _, c := range changes {
		text += fmt.Sprintf("; %s from %d to %d, committed %s", c.Op, c.Old, c.Fresh, c.Committed.Format(precisely))
	}
	for i := range j.places {
		if p := &j.places[i]; p.ID == id && mergeable(p.Trigger, p.Op) {
			text += fmt.Sprintf("; event %s with the number %d from %d to %d, merged into %s, %s %s: %s",
				p.Event, p.Seq, p.Old, p.Fresh, p.Into, p.Where, p.At.Format(precisely), j.seen[p.Event])
		}
	}
	return strings.TrimPrefix(text, "; ")
}

// acceptance is an attempt that the receiver has accepted, and the version that it brought.
type acceptance struct {
	fresh   int64
	slot    int
	arrived time.Time
}

// accepting returns the last acceptance of each row of latest.
func (j *judging) accepting() map[int64]acceptance {
	last := map[int64]acceptance{}
	for _, s := range j.seen {
		if !mergeable(s.trigger, string(s.op)) {
			continue
		}
		for _, a := range s.attempts {
			if a.outcome != failed && a.arrived.After(last[s.id].arrived) {
				last[s.id] = acceptance{s.fresh, a.slot, a.arrived}
			}
		}
	}
	return last
}
