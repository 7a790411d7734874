package main

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// change adds an event of row 900 that arrives at a time, is answered 5 ms later, and is settled 5 ms
// after that. Its number is its version.
func (s *story) change(trigger, op string, old, fresh int64, ms int) (event int) {
	id, seq := uuid.New(), max(old+1, fresh)
	s.events = append(s.events, id)
	s.ledger = append(s.ledger, entry{Trigger: trigger, Op: op, ID: 900, Old: old, Fresh: fresh, Committed: s.at(0)})
	s.places = append(s.places, place{Event: id, Where: "archive", Trigger: trigger, Op: op, ID: 900, Old: old, Fresh: fresh, Tries: 1, At: s.at(ms + 10), Seq: seq})
	s.invocations = append(s.invocations, invocation{Event: id, Attempt: 1, Status: 200})
	s.seen[id] = &seen{trigger: trigger, op: op[0], id: 900, old: old, fresh: fresh, sequence: seq, attempts: []attempt{
		{op: op[0], old: old, slot: 0, number: 1, arrived: s.at(ms), answered: s.at(ms + 5), status: 200, outcome: delivered},
	}}
	return len(s.events) - 1
}

// unanswered adds an attempt before the one of an event. Its body has another old row.
func (s *story) unanswered(event int, op byte, old int64, ms int) {
	e, p := s.seen[s.events[event]], &s.places[event]
	last := len(e.attempts) - 1
	e.attempts = append(e.attempts, e.attempts[last])
	e.attempts[last] = attempt{op: op, old: old, slot: 1, number: last + 1, arrived: s.at(ms)}
	e.attempts[last+1].number = last + 2
	p.Tries = last + 2
	s.invocations = append(s.invocations, invocation{Event: p.Event, Attempt: last + 2, Status: 200})
	for i := range s.invocations {
		if v := &s.invocations[i]; v.Event == p.Event && v.Attempt == last+1 {
			v.Status = 0
		}
	}
}

// merge takes an event's attempts away: a later one was sent in its stead.
func (s *story) merge(event, into int) {
	p := &s.places[event]
	delete(s.seen, p.Event)
	p.Into, p.Tries, p.At = &s.places[into].Event, 0, s.places[into].At
	s.invocations[event].Event = s.places[into].Event
	s.invocations[event].Status = 0
}

func TestJudgeChecksTheOrderOfEachKey(t *testing.T) {
	t.Parallel()
	zombie := &fault{Kind: faultZombie, Slot: 1}
	for name, c := range map[string]struct {
		happens func(s *story)
		rule    string // "": none is broken
	}{
		"one after another": {func(s *story) {
			s.change(ordered, "I", 0, 901, 5)
			s.change(ordered, "U", 901, 902, 20)
			s.change(ordered, "D", 902, 0, 40)
		}, ""},
		"two triggers do not wait for each other": {func(s *story) {
			s.change(ordered, "I", 0, 901, 5)
			s.change(spanning, "I", 0, 902, 5)
		}, ""},
		"before the one before is settled": {func(s *story) {
			s.change(ordered, "I", 0, 901, 5)
			s.change(ordered, "U", 901, 902, 14)
		}, ruleOvertaken},
		"a first attempt that failed came before": {func(s *story) {
			s.change(ordered, "I", 0, 901, 5)
			e := s.change(ordered, "U", 901, 902, 30)
			s.seen[s.events[e]].attempts[0].arrived = s.at(13)
		}, ruleOvertaken},
		"before another row of its key is settled": {func(s *story) {
			s.change(spanning, "I", 0, 901, 5)
			e := s.change(spanning, "I", 0, 903, 14)
			s.places[e].ID = 908
		}, ruleOvertaken},
		"before its old key is settled": {func(s *story) {
			s.change(spanning, "U", 897, 898, 5) // its key is that of all versions but multiples of 16
			s.change(spanning, "U", 911, 912, 14)
		}, ruleOvertaken},
		"it left the key before": {func(s *story) {
			s.change(spanning, "U", 911, 912, 5)
			e := s.change(spanning, "I", 0, 928, 14)
			s.places[e].ID = 908
		}, ruleOvertaken},
		"another key": {func(s *story) {
			s.change(spanning, "I", 0, 901, 5)
			e := s.change(spanning, "I", 0, 902, 5)
			s.places[e].ID = 901
		}, ""},
		"again after the next one": {func(s *story) {
			e := s.change(ordered, "I", 0, 901, 5)
			s.change(ordered, "U", 901, 902, 20)
			s.seen[s.events[e]].attempts = append(s.seen[s.events[e]].attempts, attempt{slot: 1, number: 1, arrived: s.at(40), answered: s.at(41), status: 200, outcome: delivered})
		}, ruleInverted},
		"again by one that was away": {func(s *story) {
			e := s.change(ordered, "I", 0, 901, 5)
			s.change(ordered, "U", 901, 902, 20)
			s.seen[s.events[e]].attempts = append(s.seen[s.events[e]].attempts, attempt{slot: 1, number: 1, arrived: s.at(40), answered: s.at(41), status: 200, outcome: delivered})
			zombie.Began, zombie.Ended = s.at(1), s.at(39)
			s.faults = []*fault{zombie}
		}, ""},
		"numbers against the changes": {func(s *story) {
			one, two := s.change(ordered, "I", 0, 901, 20), s.change(ordered, "U", 901, 902, 5)
			s.places[one].Seq, s.places[two].Seq = 902, 901
			s.seen[s.events[one]].sequence, s.seen[s.events[two]].sequence = 902, 901
		}, ruleSequence},
		"another number in the body": {func(s *story) {
			s.seen[s.events[s.change(ordered, "I", 0, 901, 5)]].sequence = 3
		}, ruleSequence},
		"the last of three": {func(s *story) {
			one, two, three := s.change(latest, "I", 0, 901, 5), s.change(latest, "U", 901, 902, 5), s.change(latest, "U", 902, 903, 5)
			s.merge(one, three)
			s.merge(two, three)
			s.places[three].Op, s.places[three].Old = "I", 0
			s.seen[s.events[three]].op, s.seen[s.events[three]].old = 'I', 0
			s.change(latest, "D", 903, 0, 30)
		}, ""},
		"in the stead of one that the next owner sends by itself": {func(s *story) {
			s.change(latest, "U", 901, 902, 60)
			two := s.change(latest, "D", 902, 0, 80)
			s.unanswered(two, 'D', 901, 20)
			s.unanswered(two, 'D', 901, 40)
		}, ""},
		"in the stead of none": {func(s *story) {
			s.change(latest, "U", 901, 902, 60)
			s.unanswered(s.change(latest, "D", 902, 0, 80), 'D', 902, 20)
		}, ruleOvertaken},
		"in the stead of one, and before another": {func(s *story) {
			s.change(latest, "U", 901, 902, 40)
			s.change(latest, "U", 902, 903, 60)
			s.unanswered(s.change(latest, "U", 903, 904, 80), 'U', 902, 20)
		}, ruleOvertaken},
		"of one that the next owner merged with one before": {func(s *story) {
			one, two := s.change(latest, "U", 901, 902, 60), s.change(latest, "U", 902, 903, 60)
			s.merge(one, two)
			s.places[two].Old, s.seen[s.events[two]].attempts[0].old = 901, 901
			s.unanswered(s.change(latest, "U", 903, 904, 80), 'U', 902, 20)
		}, ruleOvertaken},
		"a delete in the stead of an insert that has arrived": {func(s *story) {
			s.unanswered(s.change(latest, "I", 0, 901, 60), 'I', 0, 10)
			s.unanswered(s.change(latest, "D", 901, 0, 80), 'D', 901, 20)
		}, ""},
		"a delete in the stead of an insert that another owner may have sent": {func(s *story) {
			s.change(latest, "I", 0, 901, 60)
			s.unanswered(s.change(latest, "D", 901, 0, 80), 'D', 901, 20)
			s.faults = []*fault{{Kind: faultKill, Slot: 2, Began: s.at(5), Ended: s.at(15)}}
		}, ""},
		"a delete before an insert that nobody has sent": {func(s *story) {
			s.change(latest, "I", 0, 901, 60)
			s.unanswered(s.change(latest, "D", 901, 0, 80), 'D', 901, 20)
			s.faults = []*fault{{Kind: faultKill, Slot: 2, Began: s.at(25), Ended: s.at(35)}}
		}, ruleOvertaken},
		"a delete before an update of a row that is there": {func(s *story) {
			s.change(latest, "I", 0, 901, 5)
			s.unanswered(s.change(latest, "U", 901, 902, 60), 'U', 901, 20)
			s.unanswered(s.change(latest, "D", 902, 0, 80), 'D', 902, 30)
		}, ruleOvertaken},
		"in the stead of one, in a trigger that merges nothing": {func(s *story) {
			s.change(ordered, "U", 901, 902, 60)
			s.unanswered(s.change(ordered, "D", 902, 0, 80), 'D', 901, 20)
		}, ruleOvertaken},
		"nothing of a row that is gone": {func(s *story) {
			one, two := s.change(latest, "I", 0, 901, 5), s.change(latest, "D", 901, 0, 5)
			s.merge(one, two)
			s.merge(two, two)
		}, ""},
		"a delete that the ledger has before the change": {func(s *story) {
			s.change(latest, "I", 0, 901, 5)
			two, three := s.change(latest, "U", 901, 902, 15), s.change(latest, "D", 902, 0, 25)
			s.merge(two, three)
			n := len(s.ledger)
			s.ledger[n-1], s.ledger[n-2] = s.ledger[n-2], s.ledger[n-1]
		}, ""},
		"one whose outcome was not written, and one in its stead": {func(s *story) {
			one, two := s.change(latest, "I", 0, 901, 5), s.change(latest, "U", 901, 902, 60)
			was := s.seen[s.events[one]]
			was.attempts[0].outcome, was.attempts[0].status = failed, 503
			s.merge(one, two)
			s.seen[s.events[one]] = was
			s.faults = []*fault{{Kind: faultKill, Slot: 0, Began: s.at(11), Ended: s.at(12)}}
		}, ""},
		"one that no fault kept from being counted": {func(s *story) {
			one, two := s.change(latest, "I", 0, 901, 5), s.change(latest, "U", 901, 902, 60)
			was := s.seen[s.events[one]]
			was.attempts[0].outcome, was.attempts[0].status = failed, 503
			s.merge(one, two)
			s.seen[s.events[one]] = was
		}, ruleAttempts},
		"not the last": {func(s *story) {
			one, two := s.change(latest, "I", 0, 901, 5), s.change(latest, "U", 901, 902, 20)
			s.merge(two, one)
		}, ruleStale},
		"a row that is gone, and nobody says so": {func(s *story) {
			s.change(latest, "I", 0, 901, 5)
			two := s.change(latest, "D", 901, 0, 20)
			s.merge(two, two)
		}, ruleStale},
		"a change without an event": {func(s *story) {
			s.change(latest, "U", 900, 901, 5)
			s.ledger = append(s.ledger, entry{Trigger: latest, Op: "U", ID: 900, Old: 899, Fresh: 900, Committed: s.at(0)})
		}, ruleNowhere},
		"a row without a change": {func(s *story) {
			s.change(latest, "I", 0, 901, 5)
			s.ledger = s.ledger[:len(triggers())]
		}, ruleRolledBack},
		"dead with attempts left": {func(s *story) {
			s.places[s.change(ordered, "I", 0, 901, 5)].Where = "dead"
		}, ruleBuried},
	} {
		s := newStory()
		c.happens(s)
		v := judge(s.evidence)
		if c.rule == "" {
			delete(v.Violations, ruleDuplicate)
			require.Empty(t, v.failures(), name)
		} else {
			require.Contains(t, v.Violations, c.rule, name)
		}
	}
}

func TestReceiverRemembersWhatEachAttemptStoodFor(t *testing.T) {
	t.Parallel()
	r := newReceiver(1)
	t.Cleanup(r.close)
	const id = "0199aaaa-0000-7000-8000-000000000001"
	for _, version := range []int64{901, 902} {
		image, err := row{id: 900, version: version}.toJSON()
		require.NoError(t, err)
		r.enter([][]byte{[]byte(`{"id":"` + id + `","sequence":7,"table":{"schema":"public","name":"item_latest"},"trigger":{"name":"latest"},` +
			`"event":{"op":"DELETE","data":{"old":` + image + `,"new":null}},"delivery_info":{"current_retry":0}}`)}, 0)
	}
	require.Empty(t, r.wrong)
	attempts := r.events[uuid.MustParse(id)].attempts
	require.Len(t, attempts, 2)
	for i, old := range []int64{901, 902} {
		require.Equal(t, []any{byte('D'), old}, []any{attempts[i].op, attempts[i].old})
	}
}
