package main

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func TestListenFaultsStrikeOnlyThoseThatHaveAListenPath(t *testing.T) {
	t.Parallel()
	for _, p := range []plan{{seed: 4, length: 10 * time.Minute, slots: 3}, {seed: 4, length: 10 * time.Minute, slots: 3, listen: true}} {
		slots := map[int]int{}
		for _, f := range p.schedule() {
			if natures()[f.Kind].listen {
				slots[f.Slot]++
				require.Less(t, f.Slot, p.listeners())
			}
		}
		require.Len(t, slots, p.listeners()+1, "each of them, and all at once")
	}
	require.Equal(t, 2, plan{slots: 3}.listeners(), "one dispatcher has its sessions to itself")
	require.Equal(t, 3, plan{slots: 3, listen: true}.listeners())
	require.Equal(t, 1, plan{slots: 1}.listeners())
}

func TestListenFaultsAreFrequentWhereTheyAreAskedFor(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		var lost, others time.Duration
		for _, f := range (plan{seed: seed, length: 10 * time.Minute, slots: 3, listen: true}).schedule() {
			switch {
			case natures()[f.Kind].listen && f.Slot == everyone:
				lost += 3 * f.For
			case natures()[f.Kind].listen:
				lost += f.For
			default:
				others++
			}
		}
		require.Greater(t, lost, 3*5*time.Minute, "of each path, more than half of the time")
		require.Greater(t, others, 60*time.Nanosecond, "and other things go wrong as well")
	}
}

func TestAFaultOfAllListenPathsOverlapsNoneOfOne(t *testing.T) {
	t.Parallel()
	until := map[int]time.Duration{}
	for _, f := range (plan{seed: 3, length: 10 * time.Minute, slots: 3, listen: true}).schedule() {
		if !natures()[f.Kind].listen {
			continue
		}
		for slot := range 3 {
			if f.strikes(slot) {
				require.GreaterOrEqual(t, f.At, until[slot], f.Kind)
				until[slot] = f.At + f.For
			}
		}
	}
}

// forget removes an event from every table, as settling without history does.
func (s *story) forget(event int) {
	id := s.events[event]
	s.places = slices.DeleteFunc(s.places, func(p place) bool { return p.Event == id })
	s.invocations = slices.DeleteFunc(s.invocations, func(i invocation) bool { return i.Event == id })
}

func TestJudgeLetsAnEventBeInNoTableOnlyWhereTheHistoryCouldNotBeWritten(t *testing.T) {
	t.Parallel()
	const second = 1000
	for name, c := range map[string]struct {
		spoil  func(s *story, f *fault)
		others []fault
		ok     bool
	}{
		"it could not be written":      {ok: true},
		"and not yet again":            {spoil: func(s *story, f *fault) { f.Began, f.Ended = s.at(-20*second), s.at(-5*second) }, ok: true},
		"it could":                     {spoil: func(_ *story, f *fault) { f.Kind = faultApply }},
		"it could again":               {spoil: func(s *story, f *fault) { f.Began, f.Ended = s.at(-60*second), s.at(-20*second) }},
		"it could still":               {spoil: func(s *story, f *fault) { f.Began, f.Ended = s.at(20*second), s.at(30*second) }},
		"the fault did not come about": {spoil: func(_ *story, f *fault) { f.Error = "lock timeout" }},
		"it was never accepted":        {spoil: func(s *story, _ *fault) { s.seen[s.events[0]].attempts[0].outcome = failed }},
		"it never arrived":             {spoil: func(s *story, _ *fault) { delete(s.seen, s.events[0]) }},
		"it was written late, and a fault explains it": {
			spoil:  func(s *story, f *fault) { f.Began, f.Ended = s.at(20*second), s.at(30*second) },
			others: []fault{{Kind: databaseStall, Slot: 0}}, ok: true,
		},
		"it was written late, and no fault explains it": {
			spoil:  func(s *story, f *fault) { f.Began, f.Ended = s.at(20*second), s.at(30*second) },
			others: []fault{{Kind: databaseStall, Slot: 1}},
		},
	} {
		s := newStory()
		s.forget(0)
		f := &fault{Kind: faultHistory, Slot: everyone, Began: s.at(-second), Ended: s.at(second)}
		if c.spoil != nil {
			c.spoil(s, f)
		}
		s.faults = []*fault{f}
		for _, o := range c.others {
			o.Began, o.Ended = s.at(0), s.at(20*second)
			s.faults = append(s.faults, &o)
		}
		v := judge(s.evidence)
		if c.ok {
			require.Empty(t, v.failures(), name)
			require.Equal(t, 1, v.Unwritten, name)
			continue
		}
		require.Contains(t, v.Violations, ruleNowhere, name)
		require.Zero(t, v.Unwritten, name)
	}
}

func TestJudgeFindsAChangeThatWasCapturedTwiceThoughItIsInNoTable(t *testing.T) {
	t.Parallel()
	s := newStory()
	twin := *s.seen[s.events[0]]
	s.seen[uuid.New()] = &twin
	s.faults = []*fault{{Kind: faultHistory, Slot: everyone, Began: s.at(0), Ended: s.at(100)}}
	require.Contains(t, judge(s.evidence).Violations, ruleTwice)
}

func TestALostListenPathExcusesNoDuplicate(t *testing.T) {
	t.Parallel()
	for kind, n := range natures() {
		if !n.listen {
			continue
		}
		for _, slot := range []int{0, 1, everyone} {
			s := newStory()
			s.again(0, 50)
			s.faults = []*fault{{Kind: kind, Slot: slot, Began: s.at(0), Ended: s.at(100)}}
			require.Contains(t, judge(s.evidence).Violations, ruleDuplicate, kind)
			s.faults = append(s.faults, &fault{Kind: faultKill, Slot: 0, Began: s.at(10), Ended: s.at(20)})
			require.NotContains(t, judge(s.evidence).Violations, ruleDuplicate, kind)
		}
	}
}

// watched makes a run of two slots with a listing every 200 ms, from -5 s to 60 s. The path of slot
// 0 is lost from 0 to 10 s.
func (s *story) watched(listed, listens func(second float64) bool) {
	for ms := -5000; ms < 60_000; ms += 200 {
		second := float64(ms) / 1000
		s.listings = append(s.listings, listing{Slot: 0, At: s.at(ms), Listed: listed(second), Listens: listens(second)},
			listing{Slot: 1, At: s.at(ms), Listed: true, Listens: true})
	}
	s.faults = append(s.faults, &fault{Kind: listenLost, Slot: 0, Began: s.at(0), Ended: s.at(10_000)})
}

func TestJudgeWantsWhoLosesItsListenPathToStayListedAndToListenAgain(t *testing.T) {
	t.Parallel()
	always := func(float64) bool { return true }
	from := func(a float64) func(float64) bool { return func(s float64) bool { return s >= a || s < 0 } }
	for name, c := range map[string]struct {
		listed, listens func(float64) bool
		other           *fault
		rule            string
	}{
		"it stays":                            {listed: always, listens: from(12)},
		"it is taken for dead":                {listed: func(s float64) bool { return s < 3 || s > 4 }, listens: from(12), rule: ruleUnlisted},
		"it had not started yet":              {listed: from(-3), listens: from(12)},
		"it is killed meanwhile":              {listed: func(s float64) bool { return s < 3 || s > 4 }, listens: from(12), other: &fault{Kind: faultKill, Slot: 0}},
		"another one is killed meanwhile":     {listed: func(s float64) bool { return s < 3 || s > 4 }, listens: from(12), other: &fault{Kind: faultKill, Slot: 1}, rule: ruleUnlisted},
		"it listens long after":               {listed: always, listens: from(30), rule: ruleDeaf},
		"it listens long after another fault": {listed: always, listens: from(30), other: &fault{Kind: databaseStall, Slot: 0}},
	} {
		s := newStory()
		s.watched(c.listed, c.listens)
		if c.other != nil {
			c.other.Began, c.other.Ended = s.at(2900), s.at(12_000)
			s.faults = append(s.faults, c.other)
		}
		v := judge(s.evidence)
		if c.rule == "" {
			require.Empty(t, v.failures(), name)
			continue
		}
		require.Len(t, v.Violations, 1, name)
		require.Contains(t, v.Violations, c.rule, name)
	}
}

func TestJudgeWantsDeliveriesToGoOnWhileOnlyListenPathsAreLost(t *testing.T) {
	t.Parallel()
	always := func(float64) bool { return true }
	for name, c := range map[string]struct {
		arrives int // ms; the event was committed at 1 s
		before  int // another arrival
		others  []fault
		found   bool
	}{
		"it goes on":                               {arrives: 2500},
		"it stands still":                          {arrives: 9500, found: true},
		"there was something else to send":         {arrives: 9500, before: 5500},
		"the only fault is another one's":          {arrives: 9500, others: []fault{{Kind: databaseStall, Slot: 1}}, found: true},
		"no dispatcher had a database":             {arrives: 9500, others: []fault{{Kind: databaseStall, Slot: 1}, {Kind: databaseCut, Slot: 0}}},
		"the server was away":                      {arrives: 9500, others: []fault{{Kind: faultCrash, Slot: everyone}}},
		"a receiver that fails hampers no others'": {arrives: 9500, others: []fault{{Kind: moodFailing, Slot: everyone}}, found: true},
	} {
		s := newStory()
		s.watched(always, always)
		one := func(version int64, ms int) {
			id := s.insert(plain, version)
			s.ledger[len(s.ledger)-1].Committed = s.at(1000)
			a := &s.seen[id].attempts[0]
			a.arrived, a.answered, s.places[len(s.places)-1].At = s.at(ms), s.at(ms+1), s.at(ms+2)
		}
		one(100, c.arrives)
		if c.before > 0 {
			one(101, c.before)
		}
		for _, o := range c.others {
			o.Began, o.Ended = s.at(1000), s.at(5000)
			s.faults = append(s.faults, &o)
		}
		v := judge(s.evidence)
		if !c.found {
			require.Empty(t, v.failures(), name)
			continue
		}
		require.Len(t, v.Violations, 1, name)
		require.Contains(t, v.Violations, ruleSilence, name)
		require.Equal(t, 8500*time.Millisecond, v.Silence, name)
	}
}

func TestAnEventThatALaterOneOfItsRowStoodForMayBeInNoTableEither(t *testing.T) {
	t.Parallel()
	for name, later := range map[string]func(s *story) (event int, missing bool){
		"both are in none": func(s *story) (int, bool) {
			e := s.change(latest, "U", 901, 902, 30)
			return e, true
		},
		"the later one is in one": func(s *story) (int, bool) { return s.change(latest, "U", 901, 902, 30), false },
		"another row": func(s *story) (int, bool) {
			e := s.change(latest, "U", 901, 902, 30)
			s.seen[s.events[e]].id, s.ledger[len(s.ledger)-1].ID = 905, 905
			return e, true
		},
	} {
		s := newStory()
		first := s.change(latest, "I", 0, 901, 5)
		s.seen[s.events[first]].attempts[0].outcome = failed
		event, missing := later(s)
		if missing {
			s.forget(event)
		}
		s.forget(first)
		s.faults = []*fault{{Kind: faultHistory, Slot: everyone, Began: s.at(0), Ended: s.at(100)}}
		v := judge(s.evidence)
		require.Equal(t, name != "both are in none", v.Violations[ruleNowhere] > 0, "%s: %v", name, v.failures())
	}
}
