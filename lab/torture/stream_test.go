package main

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// publish adds an insert of streamed, and its message.
func (s *story) publish(t *testing.T, version, sequence int64, at int) message {
	t.Helper()
	id := s.insert(streamed, version)
	p := &s.places[len(s.places)-1]
	p.ID, p.Seq, p.At = 7, sequence, s.at(at+1)
	s.ledger[len(s.ledger)-1].ID = 7
	delete(s.seen, id) // what arrived is in the stream
	image, err := row{id: 7, version: version}.toJSON()
	require.NoError(t, err)
	return message{
		id: id.String(), place: uint64(sequence), at: s.at(at), slot: "1", attempt: "1",
		body: fmt.Appendf(nil, `{"id":%q,"sequence":%d,"source":"a","table":{"schema":"public","name":"item_streamed"},"trigger":{"name":"streamed"},`+
			`"event":{"op":"INSERT","data":{"old":null,"new":%s}},"delivery_info":{"current_retry":0}}`, id, sequence, image),
	}
}

func TestJudgeComparesWhatTheStreamHas(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(s *story, all []message) []message
		rule  string
	}{
		"each event once, in its order": {func(_ *story, all []message) []message { return all }, ""},
		"the acknowledgement was lost, and the next attempt had another": {func(s *story, all []message) []message {
			p := &s.places[len(s.places)-1]
			p.Tries = 2
			s.invocations[len(s.invocations)-1].Status = 0
			s.invocations = append(s.invocations, invocation{Event: p.Event, Attempt: 2, Status: 200})
			return all
		}, ""},
		"one is lost":         {func(_ *story, all []message) []message { return all[:2] }, ruleLost},
		"one is there twice":  {func(_ *story, all []message) []message { return append(all, all[2]) }, ruleStored},
		"one has another id":  {func(_ *story, all []message) []message { all[0].id += "1"; return all }, ruleUnnamed},
		"one has no id":       {func(_ *story, all []message) []message { all[0].id = ""; return all }, ruleUnnamed},
		"one of nobody":       {func(s *story, all []message) []message { s.ledger = s.ledger[:len(s.ledger)-1]; return all }, ruleRolledBack},
		"one is half":         {func(_ *story, all []message) []message { all[1].body = all[1].body[:40]; return all }, ruleBody},
		"another attempt":     {func(_ *story, all []message) []message { all[1].attempt = "2"; return all }, ruleBody},
		"of another source":   {func(_ *story, all []message) []message { return all }, ruleAlien},
		"one before its time": {func(s *story, all []message) []message { all[2].at = s.at(20); return all }, ruleOvertaken},
		"one is out of place": {func(_ *story, all []message) []message { all[1].place, all[2].place = 3, 2; return all }, ruleMisplaced},
		"acknowledged before": {func(s *story, all []message) []message { all[2].at = s.at(500); return all }, ruleUnanswered},
	} {
		s := newStory()
		all := []message{s.publish(t, 901, 1, 10), s.publish(t, 902, 2, 30), s.publish(t, 903, 3, 50)}
		source := "a"
		if c.rule == ruleAlien {
			source = "b"
		}
		s.takeMessages(c.spoil(s, all), source)
		v := judge(s.evidence)
		if c.rule == "" {
			require.Empty(t, v.failures(), name)
			require.Equal(t, 3, v.Stored, name)
			continue
		}
		require.Contains(t, v.Violations, c.rule, name)
	}
}

func TestReceiverNoticesAnEventOfAnotherSource(t *testing.T) {
	t.Parallel()
	r := newReceiver(1)
	t.Cleanup(r.close)
	r.source = "source1"
	image, err := row{id: 8, version: 9}.toJSON()
	require.NoError(t, err)
	for i, source := range []string{"source1", "source2", ""} {
		r.enter([][]byte{[]byte(`{"id":"` + uuid.NewString() + `","source":` + strconv.Quote(source) + `,"table":{"schema":"public","name":"item_plain"},"trigger":{"name":"plain"},` +
			`"event":{"op":"INSERT","data":{"old":null,"new":` + image + `}},"delivery_info":{"current_retry":0}}`)}, 0)
		require.Len(t, r.alien, i)
	}
	s := newStory()
	s.alien = r.alien
	require.Equal(t, 2, judge(s.evidence).Violations[ruleAlien])
}

func TestNoTwoSourcesHaveTheSameRows(t *testing.T) {
	t.Parallel()
	here := &site{opt: options{sources: 3, nats: true}}
	var bases []int64
	for source := range 3 {
		l := here.newLab(source)
		t.Cleanup(l.receiver.close)
		require.Equal(t, source == publishing, slices.Contains(l.triggers(), streamed))
		bases = append(bases, int64(l.source)*sourceSpan+writerSpan)
	}
	require.Greater(t, bases[1]-bases[0], int64(orphanWriters+1000)*writerSpan)
	require.True(t, slices.IsSorted(bases))
}
