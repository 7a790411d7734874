package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/sethvargo/go-retry"
	"github.com/stretchr/testify/require"
)

func TestScheduleFollowsFromItsSeed(t *testing.T) {
	t.Parallel()
	p := plan{seed: 7, length: 10 * time.Minute, slots: 3}
	require.Equal(t, p.schedule(), p.schedule())
	other := p
	other.seed = 8
	require.NotEqual(t, p.schedule(), other.schedule())
}

func TestTenMinutesHaveEnoughFaultsOfEnoughKinds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		faults := plan{seed: seed, length: 10 * time.Minute, slots: 3}.schedule()
		kinds := map[string]int{}
		for _, f := range faults {
			kinds[f.Kind]++
			require.LessOrEqual(t, f.At+f.For, 10*time.Minute)
		}
		require.GreaterOrEqual(t, len(faults), 200)
		require.Len(t, kinds, len(natures())-ofStreams(), "seed %d lacks a kind", seed)
	}
}

// ofStreams counts the kinds of faults that strike what is published.
func ofStreams() (n int) {
	for _, nature := range natures() {
		if nature.publishing {
			n++
		}
	}
	return n
}

func TestEachSourceIsStruckAndWhatTheyShareStrikesAll(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		kinds, sources := map[string]bool{}, map[int]int{}
		for _, f := range (plan{seed: seed, length: 10 * time.Minute, slots: 3, sources: 3, nats: true}).schedule() {
			kinds[f.Kind] = true
			sources[f.Source]++
			require.Equal(t, natures()[f.Kind].wide, f.Source == everywhere, f.Kind)
			if natures()[f.Kind].publishing {
				require.Equal(t, publishing, f.Source)
			}
		}
		require.Len(t, kinds, len(natures()), "seed %d lacks a kind", seed)
		for source := range 3 {
			require.Greater(t, sources[source], 40)
		}
	}
}

func TestFaultsThatUseTheSameThingDoNotOverlap(t *testing.T) {
	t.Parallel()
	type use struct {
		what string
		slot int
	}
	until := map[use]time.Duration{}
	for _, f := range (plan{seed: 3, length: 10 * time.Minute, slots: 3}).schedule() {
		what := natures()[f.Kind].uses
		if what == "" {
			continue
		}
		u := use{what + f.Trigger, f.Slot}
		require.GreaterOrEqual(t, f.At, until[u], f.Kind)
		until[u] = f.At + f.For
	}
}

func TestAPausePastTheLeaseKeepsOtherFaultsFromItsDispatcherOnlyWhileItLasts(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		early := map[int]bool{} // slots whose process is struck before the last such pause begins
		for _, f := range (plan{seed: seed, length: 10 * time.Minute, slots: 3}).schedule() {
			if natures()[f.Kind].uses == "process" && f.Kind != faultOverdue && f.At < 7*time.Minute {
				early[f.Slot] = true
			}
		}
		require.Len(t, early, 3, "seed %d", seed)
	}
}

func TestScheduleKeepsToTheKindsThatAreAskedFor(t *testing.T) {
	t.Parallel()
	for _, f := range (plan{seed: 1, length: time.Minute, slots: 2, only: []string{faultKill, moodDate}, without: []string{moodDate}}).schedule() {
		require.Equal(t, faultKill, f.Kind)
	}
}

func TestRowsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	large := 0
	for version := range int64(3000) {
		r := row{id: 5, version: version}
		text, err := r.toJSON()
		require.NoError(t, err)
		got, ok, err := readImage([]byte(text))
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, r, got)
		if len(text) > 64<<10 {
			large++
		}
	}
	require.Positive(t, large, "none is too large to be carried by a claim")
	_, ok, err := readImage([]byte("null"))
	require.NoError(t, err)
	require.False(t, ok)
}

func TestWrongRowsAreNoticed(t *testing.T) {
	t.Parallel()
	text, err := row{id: 5, version: 6}.toJSON()
	require.NoError(t, err)
	for name, wrong := range map[string]string{
		"another version": strings.Replace(text, `"version":6`, `"version":7`, 1),
		"a digit less":    strings.Replace(text, `0,"note"`, `,"note"`, 1),
		"another flag":    strings.NewReplacer("true", "false", "false", "true").Replace(text),
		"no note":         text[:strings.Index(text, `,"note"`)] + "}",
		"no object":       "[]",
		"cut short":       text[:len(text)-4],
	} {
		_, _, err := readImage([]byte(wrong))
		require.Error(t, err, name)
	}
}

func TestMutationsFitTheProgram(t *testing.T) {
	t.Parallel()
	for name, m := range mutations() {
		root := filepath.Join("..", "..")
		changed, err := m.apply(root)
		require.NoError(t, err, name)
		require.NotEmpty(t, changed, name)
		for file, text := range changed {
			source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
			require.NoError(t, err)
			require.NotEqual(t, string(source), text)
		}
		require.NotEmpty(t, m.plan())
	}
}

func (m mutation) plan() []*fault {
	return plan{seed: 1, length: time.Minute, slots: 3, sources: m.sources, nats: m.nats, only: m.only}.schedule()
}

// story is a run without faults: one insert into each table, delivered by the first attempt.
type story struct {
	*evidence
	events []uuid.UUID
	start  time.Time
}

func newStory() *story {
	s := &story{start: time.Now(), evidence: &evidence{seen: map[uuid.UUID]*seen{}}}
	for i, trigger := range triggers() {
		s.insert(trigger, int64(i+1))
	}
	return s
}

func (s *story) at(ms int) time.Time { return s.start.Add(time.Duration(ms) * time.Millisecond) }

func (s *story) insert(trigger string, version int64) uuid.UUID {
	id := uuid.New()
	s.events = append(s.events, id)
	changed := s.at(0)
	if trigger == delayed {
		changed = s.at(-2000)
	}
	s.ledger = append(s.ledger, entry{Trigger: trigger, Op: "I", ID: version, Fresh: version, Committed: s.at(0), Began: changed, Noted: changed, Tx: version})
	s.places = append(s.places, place{Event: id, Where: "archive", Trigger: trigger, Op: "I", ID: version, Fresh: version, Tries: 1, At: s.at(20)})
	s.invocations = append(s.invocations, invocation{Event: id, Attempt: 1, Status: 200})
	if ordersByKey(trigger) {
		s.places[len(s.places)-1].Seq = version
	}
	s.seen[id] = &seen{trigger: trigger, op: 'I', id: version, fresh: version, sequence: s.places[len(s.places)-1].Seq, attempts: []attempt{
		{slot: 0, number: 1, arrived: s.at(5), answered: s.at(10), status: 200, outcome: delivered},
	}}
	return id
}

// again is a second attempt, by slot 1, which is accepted.
func (s *story) again(event int, ms int) {
	id := s.events[event]
	s.seen[id].attempts = append(s.seen[id].attempts, attempt{slot: 1, number: 2, arrived: s.at(ms), answered: s.at(ms + 1), status: 200, outcome: delivered})
	s.invocations = append(s.invocations, invocation{Event: id, Attempt: 2, Status: 200})
	s.places[event].Tries, s.places[event].At = 2, s.at(ms+10)
}

func TestJudgeFindsNothingWhereNothingIsWrong(t *testing.T) {
	t.Parallel()
	s := newStory()
	v := judge(s.evidence)
	require.Empty(t, v.failures())
	require.Equal(t, len(triggers()), v.Events)
	require.Equal(t, len(triggers()), v.Archived)
	require.Equal(t, 10*time.Millisecond, v.Slowest)
}

func TestJudgeFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for rule, spoil := range map[string]func(s *story){
		ruleNowhere:    func(s *story) { s.ledger = append(s.ledger, entry{Trigger: plain, Op: "D", Old: 1}) },
		ruleRolledBack: func(s *story) { s.ledger = s.ledger[1:] },
		ruleBody:       func(s *story) { s.wrong = []string{"odd"} },
		rulePlaces:     func(s *story) { s.places = append(s.places, s.places[2]) },
		ruleOwed:       func(s *story) { s.places[0].Where = "owed" },
		ruleClaimed:    func(s *story) { s.places[0].Where, s.places[0].Claimed = "owed", true },
		ruleTwice: func(s *story) {
			s.insert(plain, 1)
			s.ledger = s.ledger[:len(triggers())]
		},
		ruleLost: func(s *story) {
			delete(s.seen, s.events[0])
			s.invocations = s.invocations[1:]
		},
		ruleUnanswered: func(s *story) { s.places[0].At = s.at(9) },
		ruleBuried:     func(s *story) { s.places[0].Where = "dead" },
		ruleDenied: func(s *story) {
			s.places[2].Where, s.places[2].Tries, s.seen[s.events[2]].attempts[0].number = "dead", 3, 3
		},
		ruleDuplicate: func(s *story) { s.again(0, 50) },
		ruleUnlogged:  func(s *story) { s.invocations = s.invocations[1:] },
		ruleInvented:  func(s *story) { s.invocations[0].Status = 500 },
		ruleAttempts:  func(s *story) { s.places[0].Tries = 0 },
		ruleEarly: func(s *story) {
			a := &s.seen[s.events[0]].attempts[0]
			a.outcome, a.status, a.retryAfter = failed, 503, time.Second
			s.invocations[0].Status = 503
			s.again(0, 500)
		},
		ruleInstances: func(s *story) { s.instances = 1 },
		ruleLease: func(s *story) {
			s.ledger[0].Committed = s.at(-80_000)
			s.handings = []handing{{Event: s.events[0], Due: s.at(4), Taken: true}}
		},
		ruleNeighbour: func(s *story) {
			i := slices.Index(triggers(), bulk)
			s.places[i].Where, s.places[i].Tries = "dead", bulkLimit+1
			s.seen[s.events[i]].attempts[0] = attempt{number: bulkLimit + 1, with: 2, arrived: s.at(5), answered: s.at(10), status: 422}
			s.invocations[i] = invocation{Event: s.events[i], Attempt: bulkLimit + 1, Status: 422}
		},
		ruleRate: func(s *story) {
			for i := range 300 {
				s.seen[s.insert(paced, int64(100+i))].attempts[0].arrived = s.at(5 + i)
			}
		},
		ruleHammered: func(s *story) {
			s.faults = []*fault{{Kind: moodDown, Trigger: bulk, Began: s.at(-6000), Ended: s.at(1000)}}
			for i := range 100 {
				s.seen[s.insert(bulk, int64(100+i))].attempts[0].arrived = s.at(i)
			}
		},
	} {
		s := newStory()
		spoil(s)
		require.Contains(t, judge(s.evidence).Violations, rule)
	}
}

func TestJudgeAcceptsThatALeaseEndsWhereNoDispatcherCouldBuryAnother(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		faults  []fault
		excused bool
	}{
		"the only one is stopped all the time": {[]fault{{Kind: faultPause, Slot: 0}}, true},
		"another one is":                       {[]fault{{Kind: faultPause, Slot: 1}}, false},
		"a fault after the other":              {[]fault{{Kind: faultPause, Slot: 0, Ended: time.Unix(-40, 0)}, {Kind: faultKill, Slot: 0, Began: time.Unix(-30, 0)}}, true},
		"time between them":                    {[]fault{{Kind: faultPause, Slot: 0, Ended: time.Unix(-70, 0)}, {Kind: faultKill, Slot: 0, Began: time.Unix(-30, 0)}}, false},
	} {
		s := newStory()
		s.ledger[0].Committed = s.at(-80_000)
		s.handings = []handing{{Event: s.events[0], Due: s.at(4), Taken: true}}
		s.listings = []listing{{Slot: 0}}
		for _, f := range c.faults { // their times are in seconds from the end of the lease
			began, ended := s.at(-90_000), s.at(0)
			if !f.Began.IsZero() {
				began = s.at(int(f.Began.Unix()) * 1000)
			}
			if !f.Ended.IsZero() {
				ended = s.at(int(f.Ended.Unix()) * 1000)
			}
			s.faults = append(s.faults, &fault{Kind: f.Kind, Slot: f.Slot, Began: began, Ended: ended})
		}
		if v := judge(s.evidence).Violations; c.excused {
			require.NotContains(t, v, ruleLease, name)
		} else {
			require.Contains(t, v, ruleLease, name)
		}
	}
}

func TestJudgeAcceptsThatAProbeCountsForNothingIfTheDispatcherDidNotHearItsAnswer(t *testing.T) {
	t.Parallel()
	i := slices.Index(triggers(), fleeting)
	for _, c := range []struct {
		outcome outcome
		fault   bool
		blamed  bool
	}{{failed, false, false}, {delivered, false, true}, {delivered, true, false}} {
		s := newStory()
		s.places[i] = place{Event: s.events[i], Where: "dead", Trigger: fleeting, Op: "I", ID: s.places[i].ID, Fresh: s.places[i].Fresh, Tries: 0, Reason: "expired: it was not delivered", At: s.at(20)}
		s.seen[s.events[i]].attempts[0].outcome = c.outcome
		if c.fault {
			s.faults = []*fault{{Kind: faultPause, Slot: 0, Began: s.at(0), Ended: s.at(15)}}
		}
		_, blamed := judge(s.evidence).Violations[ruleAttempts]
		require.Equal(t, c.blamed, blamed, "%+v", c)
	}
}

func TestJudgeAcceptsAFaultAsAnExcuseWhereItWasAtWork(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault   fault
		excused bool
	}{
		"killed":                           {fault{Kind: faultKill, Slot: 0}, true},
		"it strikes all":                   {fault{Kind: faultCrash, Slot: everyone}, true},
		"the one that sent again":          {fault{Kind: faultPause, Slot: 1}, true},
		"another one":                      {fault{Kind: faultKill, Slot: 2}, false},
		"of a kind that makes no doubles":  {fault{Kind: faultApply, Slot: everyone}, false},
		"a refusing receiver makes no two": {fault{Kind: moodFailing, Slot: everyone}, false},
	} {
		s := newStory()
		s.again(0, 50)
		c.fault.Began, c.fault.Ended = s.at(20), s.at(30)
		s.faults = []*fault{&c.fault}
		v := judge(s.evidence)
		require.Equal(t, 1, v.Duplicates)
		require.Equal(t, c.excused, v.Violations[ruleDuplicate] == 0, name)
	}
	s := newStory()
	s.again(0, 50)
	s.faults = []*fault{{Kind: faultKill, Slot: 0, Began: s.at(60), Ended: s.at(70)}}
	require.Contains(t, judge(s.evidence).Violations, ruleDuplicate, "it came too late to be the reason")
	s.faults = []*fault{{Kind: faultKill, Slot: 0, Began: s.at(-10000), Ended: s.at(-9000)}}
	require.Contains(t, judge(s.evidence).Violations, ruleDuplicate, "it was over long before")

	for name, c := range map[string]struct {
		killed  int
		excused bool
	}{
		"while it was sent":                          {8, true},
		"before the outcome was written":             {12, true},
		"after somebody else had given the event up": {45, false},
	} {
		s := newStory()
		i := slices.Index(triggers(), brittle)
		s.places[i].Where, s.places[i].Tries, s.places[i].At, s.seen[s.events[i]].attempts[0].number = "dead", brittleLimit+1, s.at(40), brittleLimit+1
		s.faults = []*fault{{Kind: faultKill, Slot: 0, Began: s.at(c.killed), Ended: s.at(c.killed + 1)}}
		require.Equal(t, c.excused, judge(s.evidence).Violations[ruleDenied] == 0, name)
	}
}

// post sends an event to a receiver in a mood, and returns what the receiver remembers about it.
func post(t *testing.T, m mood, within time.Duration) (attempt, error) {
	t.Helper()
	r := newReceiver(1)
	t.Cleanup(r.close)
	r.setMood(plain, m)
	address, err := r.listen(t.Context(), 4)
	require.NoError(t, err)
	image, err := row{id: 8, version: 9}.toJSON()
	require.NoError(t, err)
	const event = "0199aaaa-0000-7000-8000-000000000001"
	body := `{"id":"` + event + `","table":{"schema":"public","name":"item_plain"},"trigger":{"name":"plain"},` +
		`"event":{"op":"INSERT","data":{"old":null,"new":` + image + `}},"delivery_info":{"current_retry":2}}`
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() {
		if arrived(ctx, r, uuid.MustParse(event)) == nil { // on a busy machine it takes longer than the answer may
			time.AfterFunc(within, func() { cancel(context.DeadlineExceeded) })
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/plain", strings.NewReader(body))
	require.NoError(t, err)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err == nil {
		buffer := make([]byte, 1)
		for read := 0; err == nil && read < 100_000; read++ {
			_, err = resp.Body.Read(buffer)
		}
		_ = resp.Body.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Empty(t, r.wrong)
	e := r.events[uuid.MustParse(event)]
	require.Equal(t, []any{plain, byte('I'), int64(8), int64(0), int64(9)}, []any{e.trigger, e.op, e.id, e.old, e.fresh})
	require.Equal(t, []int{4, 3}, []int{e.attempts[0].slot, e.attempts[0].number})
	return e.attempts[0], err
}

// arrived waits until the receiver has read a request with the event.
func arrived(ctx context.Context, r *receiver, id uuid.UUID) error {
	return retry.Do(ctx, retry.NewConstant(time.Millisecond), func(context.Context) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.events[id] == nil {
			return retry.RetryableError(errors.New("it has not arrived"))
		}
		return nil
	})
}

func TestReceiverMisbehavesAndRemembersHow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind    string
		status  int
		outcome outcome
	}{
		{"", 200, delivered},
		{moodSeconds, 503, failed},
		{moodDate, 429, failed},
		{moodRedirect, 307, failed},
		{moodReset, 0, failed},
		{moodGarbage, 0, failed},
		{moodHanging, 0, failed},
		{moodDrip, 200, perhaps},
		{moodEndless, 200, perhaps},
		{moodGone, 410, failed},
	} {
		a, err := post(t, mood{kind: c.kind, share: 1, step: time.Hour}, 300*time.Millisecond)
		require.Equal(t, c.status, a.status, c.kind)
		require.Equal(t, c.outcome, a.outcome, c.kind)
		switch c.kind {
		case moodHanging, moodDrip:
			require.ErrorIs(t, err, context.DeadlineExceeded, c.kind)
		case moodReset, moodGarbage:
			require.Error(t, err, c.kind)
			require.NotErrorIs(t, err, context.DeadlineExceeded, c.kind)
		}
	}
	a, _ := post(t, mood{kind: moodSeconds, share: 1}, time.Second)
	require.GreaterOrEqual(t, a.retryAfter, time.Second)
	a, _ = post(t, mood{kind: moodFailing, share: 1}, time.Second)
	require.GreaterOrEqual(t, a.status, 400)
}

func TestABatchThatIsSentInHalvesIsJudgedByTheLastOfItsRequests(t *testing.T) {
	t.Parallel()
	i := slices.Index(triggers(), bulk)
	for name, c := range map[string]struct {
		with   []int
		listed bool
		blamed bool
	}{
		"halved down to itself":    {[]int{4, 2, 1}, false, false},
		"halved, and given up":     {[]int{4, 2}, false, true},
		"named by the last answer": {[]int{4, 2}, true, false},
	} {
		s := newStory()
		s.places[i].Where, s.places[i].Tries = "dead", bulkLimit+1
		e := s.seen[s.events[i]]
		e.attempts, s.invocations[i] = nil, invocation{Event: s.events[i], Attempt: bulkLimit + 1, Status: 422}
		for n, with := range c.with {
			e.attempts = append(e.attempts, attempt{number: bulkLimit + 1, with: with, arrived: s.at(5 + n), answered: s.at(6 + n), status: 422})
		}
		e.attempts[len(e.attempts)-1].listed = c.listed
		require.Equal(t, c.blamed, judge(s.evidence).Violations[ruleNeighbour] > 0, name)
	}
}

func TestTheRateIsNotJudgedWhileRequestsAreHeldUp(t *testing.T) {
	t.Parallel()
	s := newStory()
	for i := range 300 {
		s.seen[s.insert(paced, int64(100+i))].attempts[0].arrived = s.at(5 + i)
	}
	s.faults = []*fault{{Kind: webhookStall, Slot: 0, Began: s.at(-2000), Ended: s.at(0)}}
	require.NotContains(t, judge(s.evidence).Violations, ruleRate)
}

// postBatch sends events of bulk in one request, and returns the status and what the receiver remembers.
func postBatch(t *testing.T, r *receiver, rows ...row) (status int, body string, events []*seen) {
	t.Helper()
	address, err := r.listen(t.Context(), 0)
	require.NoError(t, err)
	var parts []string
	for i, one := range rows {
		image, err := one.toJSON()
		require.NoError(t, err)
		parts = append(parts, `{"id":"0199aaaa-0000-7000-8000-00000000000`+strconv.Itoa(i)+`","table":{"schema":"public","name":"item_bulk"},"trigger":{"name":"bulk"},`+
			`"event":{"op":"INSERT","data":{"old":null,"new":`+image+`}},"delivery_info":{"current_retry":0}}`)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/bulk", strings.NewReader("["+strings.Join(parts, ",")+"]"))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Empty(t, r.wrong)
	for i := range rows {
		events = append(events, r.events[uuid.MustParse("0199aaaa-0000-7000-8000-00000000000"+strconv.Itoa(i))])
	}
	return resp.StatusCode, string(text), events
}

func TestReceiverRejectsABatchWithAPoisonousEventAndRemembersEachEvent(t *testing.T) {
	t.Parallel()
	r := newReceiver(1)
	t.Cleanup(r.close)
	poison, good := row{}, row{}
	for version := int64(1); poison.id == 0 || good.id == 0; version++ {
		one := row{id: version, version: version}
		if (&seen{trigger: bulk, id: one.id, fresh: one.version}).poisonous() {
			poison = one
		} else {
			good = one
		}
	}
	status, _, events := postBatch(t, r, good, poison)
	require.Equal(t, http.StatusUnprocessableEntity, status)
	for _, e := range events {
		require.Len(t, e.attempts, 1)
		a := e.attempts[0]
		require.Equal(t, []any{2, failed, http.StatusUnprocessableEntity}, []any{a.with, a.outcome, a.status})
	}
}

func TestReceiverAcceptsPartsOfBatches(t *testing.T) {
	t.Parallel()
	parts, cut := 0, 0
	for seed := uint64(1); parts == 0 || cut == 0; seed++ {
		r := newReceiver(seed)
		base := int64((poisonousBelow + 1) * writerSpan) // none is poisonous
		status, body, events := postBatch(t, r, row{base + 1, base + 1}, row{base + 2, base + 2}, row{base + 3, base + 3})
		r.close()
		switch {
		case status != http.StatusOK:
		case !json.Valid([]byte(body)):
			cut++
			for _, e := range events {
				require.Equal(t, failed, e.attempts[0].outcome)
			}
		case strings.Contains(body, "failed"):
			parts++
			for i, e := range events {
				require.Equal(t, strings.Contains(body, "00000000000"+strconv.Itoa(i)), e.attempts[0].outcome == failed)
			}
		}
	}
}

func TestReceiverHoldsUntilItIsTold(t *testing.T) {
	t.Parallel()
	until := make(chan struct{})
	began := time.Now()
	timer := time.AfterFunc(50*time.Millisecond, func() { close(until) })
	defer timer.Stop()
	a, _ := post(t, mood{kind: moodHold, share: 1, until: until}, 10*time.Second)
	require.Equal(t, delivered, a.outcome)
	require.GreaterOrEqual(t, a.answered.Sub(began), 50*time.Millisecond)
}

func TestASlowReceiverAcceptsLate(t *testing.T) {
	t.Parallel()
	began := time.Now()
	a, _ := post(t, mood{kind: moodSlow, share: 1, after: 50 * time.Millisecond}, 10*time.Second)
	require.Equal(t, delivered, a.outcome)
	require.GreaterOrEqual(t, a.answered.Sub(began), 50*time.Millisecond)
}

func TestReceiverListensOnTheLoopbackOnly(t *testing.T) {
	t.Parallel()
	r := newReceiver(1)
	defer r.close()
	address, err := r.listen(t.Context(), 0)
	require.NoError(t, err)
	host, _, err := net.SplitHostPort(address)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1", host)
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--minutes", "0"}, {"--only", "earthquake"}, {"--broken", "everything"}, {"what"}} {
		_, err := parse(args, &strings.Builder{})
		require.Error(t, err, args)
	}
	opt, err := parse([]string{"--minutes", "0.5", "--only", faultKill + ", " + moodDate}, &strings.Builder{})
	require.NoError(t, err)
	require.Equal(t, 30*time.Second, opt.length)
	require.NotZero(t, opt.seed)
	require.Equal(t, []string{faultKill, moodDate}, opt.plan().only)
}

func TestAFewSecondsOfSeveralSourcesEndClean(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	opt, err := parse([]string{"--minutes", "0.1", "--seed", "1", "--sources", "2", "--writers", "1", "--pg-bin", os.Getenv("ROWHOOK_TEST_POSTGRES_BIN")}, &log)
	require.NoError(t, err)
	opt.restless = true
	r, err := torture(t.Context(), opt, &log)
	require.NoError(t, err, log.String())
	require.Empty(t, r.problems(), log.String())
	require.Len(t, r.Verdicts, 2)
	for _, v := range r.Verdicts {
		require.Greater(t, v.Archived, 20, v.Source)
	}
}

func TestAFewSecondsOfTortureEndClean(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	opt, err := parse([]string{"--minutes", "0.1", "--seed", "1", "--verbose", "--pg-bin", os.Getenv("ROWHOOK_TEST_POSTGRES_BIN")}, &log)
	require.NoError(t, err)
	r, err := torture(t.Context(), opt, &log)
	require.NoError(t, err, log.String())
	require.Empty(t, r.problems(), log.String())
	require.Greater(t, r.Verdicts[0].Archived, 100)
	require.NotEmpty(t, r.Faults)
}

func TestSoakNoticesWhatGrows(t *testing.T) {
	t.Parallel()
	samples := func(change func(i int, u *usage)) []usage {
		all := make([]usage, 40)
		for i := range all {
			all[i].Resident, all[i].Threads, all[i].Files, all[i].Sessions, all[i].Goroutines, all[i].pid = 30, 9, 20, 6, 80, 77
			change(i, &all[i])
		}
		return all
	}
	require.Empty(t, compare("flat", samples(func(i int, u *usage) { u.Resident += float64(i % 7) })).growth())
	for what, change := range map[string]func(i int, u *usage){
		"memory":     func(i int, u *usage) { u.Resident += float64(i) },
		"threads":    func(i int, u *usage) { u.Threads += i / 4 },
		"goroutines": func(i int, u *usage) { u.Goroutines += i * 2 },
		"open files": func(i int, u *usage) { u.Files += i },
		"sessions":   func(i int, u *usage) { u.Sessions += i / 5 },
		"again":      func(i int, u *usage) { u.pid += i / 30 },
	} {
		growth := compare("it", samples(change)).growth()
		require.Len(t, growth, 1, what)
		require.Contains(t, growth[0], what)
	}
	require.NotEmpty(t, compare("too short", samples(func(int, *usage) {})[:5]).growth())
}
