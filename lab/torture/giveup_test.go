package main

import (
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// of returns the index of the event of a trigger.
func of(trigger string) int { return slices.Index(triggers(), trigger) }

// answered is an attempt by slot 0, at a time in milliseconds, that was answered with a status.
func (s *story) answered(event, number, status, ms int) {
	id := s.events[event]
	s.seen[id].attempts = append(s.seen[id].attempts, attempt{number: number, arrived: s.at(ms), answered: s.at(ms + 1), status: status})
	s.invocations = append(s.invocations, invocation{Event: id, Attempt: number, Status: status})
}

// expired has the event of fleeting expire.
func (s *story) expired(ms int) {
	p := &s.places[of(fleeting)]
	p.Where, p.At, p.Reason = "dead", s.at(ms), "expired: it was not delivered within max_age (3s)"
	a := &s.seen[p.Event].attempts[0]
	a.status, a.outcome = 503, failed
	s.invocations[of(fleeting)].Status = 503
}

func TestJudgeWantsEventsNeitherBeforeTheirDelayNorWhenTheyAreTooOld(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tell func(s *story)
		rule string
	}{
		"sent before its delay":    {func(s *story) { s.seen[s.events[of(delayed)]].attempts[0].arrived = s.at(-600) }, ruleTooSoon},
		"expired in time":          {func(s *story) { s.expired(3000) }, ""},
		"expired too soon":         {func(s *story) { s.expired(2900) }, ruleYoung},
		"sent when it had expired": {func(s *story) { s.expired(3500); s.answered(of(fleeting), 1, 503, 3600) }, ruleRisen},
		"sent when it was too old": {func(s *story) { s.seen[s.events[of(fleeting)]].attempts[0].arrived = s.at(6500) }, ruleAged},
		"on its way for a while": {func(s *story) {
			a := &s.seen[s.events[of(fleeting)]].attempts[0]
			a.arrived, a.answered = s.at(5500), s.at(5501)
			s.places[of(fleeting)].At = s.at(5600)
		}, ""},
		"dead for another reason":     {func(s *story) { s.expired(3000); s.places[of(fleeting)].Reason = "answered 503" }, ruleBuried},
		"expired though it was taken": {func(s *story) { s.expired(3000); s.seen[s.events[of(fleeting)]].attempts[0].outcome = delivered }, ruleDenied},
		"a probe does not count": {func(s *story) {
			s.expired(3000)
			s.places[of(fleeting)].Tries = 0
			s.invocations = slices.Delete(s.invocations, of(fleeting), of(fleeting)+1)
		}, ""},
		"another one may not go stale": {func(s *story) { s.expired(3000); s.places[of(fleeting)].Trigger = plain }, ruleBuried},
	} {
		s := newStory()
		c.tell(s)
		v := judge(s.evidence)
		if c.rule == "" {
			require.Empty(t, v.failures(), name)
			continue
		}
		require.Contains(t, v.Violations, c.rule, name)
	}
	s := newStory()
	s.expired(3500)
	s.answered(of(fleeting), 1, 503, 3600)
	s.faults = []*fault{{Kind: faultPause, Slot: 0, Began: s.at(3000), Ended: s.at(3550)}}
	require.NotContains(t, judge(s.evidence).Violations, ruleRisen, "its request was on the way")
}

func TestJudgeWantsATriggerThatAnAnswerHasPausedToRest(t *testing.T) {
	t.Parallel()
	begin := func() *story {
		s := newStory()
		s.pauses = []pause{{"pause", s.at(100)}, {"resume", s.at(10_000)}}
		s.seen[s.events[of(pausing)]].attempts = nil
		s.invocations = slices.DeleteFunc(s.invocations, func(v invocation) bool { return v.Event == s.events[of(pausing)] })
		s.answered(of(pausing), 1, 410, 50)
		return s
	}
	end := func(s *story, number, ms int) {
		s.answered(of(pausing), number, 200, ms)
		a := s.seen[s.events[of(pausing)]].attempts
		a[len(a)-1].outcome = delivered
		s.places[of(pausing)].Tries, s.places[of(pausing)].At = number, s.at(ms+10)
	}
	s := begin()
	end(s, 1, 11_000)
	v := judge(s.evidence)
	require.Empty(t, v.failures(), "it waits uncounted, and is sent when the trigger is resumed")
	require.Equal(t, 1, v.Pauses)

	s = begin()
	end(s, 2, 11_000)
	require.Contains(t, judge(s.evidence).Violations, ruleCounted)

	s = begin()
	end(s, 1, 9000)
	require.Contains(t, judge(s.evidence).Violations, rulePaused)
	s.faults = []*fault{{Kind: databaseStall, Slot: 0, Began: s.at(100), Ended: s.at(1000)}}
	require.NotContains(t, judge(s.evidence).Violations, rulePaused, "it could not hear of the pause")

	more := func(n int) *story {
		s := begin()
		end(s, 1, 11_000)
		for i := range n {
			id := s.insert(pausing, int64(100+i))
			event := len(s.events) - 1
			s.seen[id].attempts, s.invocations = nil, s.invocations[:len(s.invocations)-1]
			s.answered(event, 1, 410, 60+i)
			s.seen[id].attempts = append(s.seen[id].attempts, attempt{number: 1, arrived: s.at(11_000), answered: s.at(11_001), status: 200, outcome: delivered})
			s.invocations = append(s.invocations, invocation{Event: id, Attempt: 1, Status: 200})
			s.places[event].At = s.at(11_010)
		}
		return s
	}
	require.Empty(t, judge(more(pausingSlots-1).evidence).failures(), "as many as may be in flight")
	require.Contains(t, judge(more(pausingSlots).evidence).Violations, ruleFlood)
}

func TestChangesOfARowInATransactionAreOneEvent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		changes string // operations, each with the version that it leaves; 0 after a D
		want    []entry
	}{
		"an insert and updates":     {"IUU", []entry{{Op: "I", Fresh: 3}}},
		"updates":                   {"UU", []entry{{Op: "U", Old: 9, Fresh: 2}}},
		"an update and a delete":    {"UD", []entry{{Op: "D", Old: 9}}},
		"a delete and an insert":    {"DI", []entry{{Op: "U", Old: 9, Fresh: 2}}},
		"an insert and a delete":    {"ID", nil},
		"there and gone, and there": {"DIDI", []entry{{Op: "U", Old: 9, Fresh: 4}}},
	} {
		var ledger []entry
		old := int64(0)
		if c.changes[0] != 'I' {
			old = 9
		}
		for i, op := range c.changes {
			e := entry{Trigger: summed, Op: string(op), ID: 5, Old: old, Fresh: int64(i + 1), Tx: 7, N: int64(i)}
			if op == 'D' {
				e.Fresh = 0
			}
			old = e.Fresh
			ledger = append(ledger, e, entry{Trigger: plain, Op: "I", ID: int64(i), Fresh: int64(i), Tx: 7})
		}
		var got []entry
		for _, e := range sum(ledger) {
			if e.Trigger == summed {
				got = append(got, entry{Op: e.Op, Old: e.Old, Fresh: e.Fresh})
			}
		}
		require.Equal(t, c.want, got, name)
	}
	two := sum([]entry{{Trigger: summed, Op: "U", ID: 5, Old: 1, Fresh: 2, Tx: 7}, {Trigger: summed, Op: "U", ID: 5, Old: 2, Fresh: 3, Tx: 8}})
	require.Len(t, two, 2, "two transactions have two events")
}

func TestJudgeWantsTheFirstAndTheLastRowOfATransaction(t *testing.T) {
	t.Parallel()
	begin := func(old, fresh int64) *story {
		s := newStory()
		for i, versions := range [][2]int64{{40, 41}, {41, 42}} {
			s.ledger = append(s.ledger, entry{Trigger: summed, Op: "U", ID: 4, Old: versions[0], Fresh: versions[1], Committed: s.at(0), Tx: 99, N: int64(i)})
		}
		id := uuid.New()
		s.events = append(s.events, id)
		s.places = append(s.places, place{Event: id, Where: "archive", Trigger: summed, Op: "U", ID: 4, Old: old, Fresh: fresh, Tries: 1, At: s.at(20)})
		s.invocations = append(s.invocations, invocation{Event: id, Attempt: 1, Status: 200})
		s.seen[id] = &seen{trigger: summed, op: 'U', id: 4, old: old, fresh: fresh, attempts: []attempt{{number: 1, arrived: s.at(5), answered: s.at(10), status: 200, outcome: delivered}}}
		return s
	}
	v := judge(begin(40, 42).evidence)
	require.Empty(t, v.failures())
	require.Equal(t, 1, v.Summed)
	require.Contains(t, judge(begin(41, 42).evidence).Violations, ruleSummed, "the row before the last change")
	require.Contains(t, judge(begin(40, 41).evidence).Violations, ruleSummed, "the row after the first change")
	s := begin(40, 42)
	s.ledger = s.ledger[:len(s.ledger)-2]
	require.Contains(t, judge(s.evidence).Violations, ruleSummed, "the transaction was rolled back")
}
