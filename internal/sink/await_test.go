package sink

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/webhook"
)

// order is an event of the row {"id": id, "customer": customer}.
func order(id int, customer string) *webhook.Event {
	e := event(byte(id))
	e.New = fmt.Appendf(nil, `{"id":%d,"customer":%q}`, id, customer)
	return e
}

func where(t *testing.T, path string, v any) []Condition {
	c, err := Where(path, v)
	require.NoError(t, err)
	return []Condition{c}
}

// over returns a context that has ended.
func over() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestAwaitReturnsWhenTheEventHasBeenAccepted(t *testing.T) {
	t.Parallel()
	s := &Sink{Behaviour: Behaviour{Fail: 1}}
	to := start(t, s)
	m := Match{Trigger: "order_placed", Op: "insert", Table: "public.orders", Where: where(t, "new.id", 7)}
	got := make(chan []Delivery, 1)
	go func() {
		deliveries, miss := s.Await(context.Background(), m, 1)
		if miss != nil {
			t.Error(miss)
		}
		got <- deliveries
	}()
	require.Equal(t, 500, to.send("/", order(7, "Ada")).Status)
	require.False(t, new(to.send("/", order(8, "Ada"))).Delivered())
	require.True(t, new(to.send("/", order(8, "Ada"))).Delivered())
	require.Empty(t, got)
	require.True(t, new(to.send("/", order(7, "Ada"))).Delivered())
	deliveries := <-got
	require.Len(t, deliveries, 1)
	require.Equal(t, []any{2, uint64(4)}, []any{deliveries[0].Attempt, deliveries[0].Sequence})

	again, miss := s.Await(over(), m, 1)
	require.Nil(t, miss, "what has arrived is there at once")
	require.Equal(t, deliveries, again)
	to.send("/", order(7, "Ada"))
	again, _ = s.Await(over(), m, 1)
	require.Len(t, again, 1, "an event counts once")
	m.AllAttempts = true
	again, _ = s.Await(over(), m, 3)
	require.Len(t, again, 3)
	m = Match{Accepted: new(false)}
	again, _ = s.Await(over(), m, 2)
	require.Len(t, again, 2)
	_, miss = s.Await(over(), Match{After: s.Cursor()}, 1)
	require.NotNil(t, miss)
}

func TestExactlyFailsAtOnceIfThereAreMore(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	m := Match{Trigger: "order_placed"}
	_, miss := s.Exactly(over(), m, 1)
	require.Equal(t, TooFew, miss.Shortfall)
	to.send("/", order(1, "Ada"))
	_, miss = s.Exactly(context.Background(), m, 1)
	require.Nil(t, miss)
	to.send("/", order(2, "Ada"))
	_, miss = s.Exactly(context.Background(), m, 1)
	require.Equal(t, TooMany, miss.Shortfall)
	require.Contains(t, miss.String(), "more than 1 delivery of order_placed arrived, wanted exactly 1\narrived for order_placed: 2\n")
}

func TestNeverHoldsUntilSomethingComes(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	m := Match{Where: where(t, "new.id", 7)}
	require.Nil(t, s.Never(over(), m))
	broken := make(chan *Miss, 1)
	go func() { broken <- s.Never(context.Background(), m) }()
	to.send("/", order(8, "Ada"))
	require.Empty(t, broken)
	to.send("/", order(7, "Ada"))
	require.Contains(t, (<-broken).String(), "a delivery with new.id = 7 arrived, wanted none\narrived: 1\n  order_placed  INSERT public.orders  new.id = 7")
}

func TestForgetTakesOneTriggersDeliveriesAndWaitsGoOn(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	other := order(2, "Ada")
	other.Trigger = "other"
	to.send("/", order(1, "Ada"))
	to.send("/", other)
	got := make(chan []Delivery, 1)
	go func() {
		deliveries, _ := s.Await(context.Background(), Match{Trigger: "order_placed"}, 2)
		got <- deliveries
	}()
	somebodyWaits(t, s)
	s.Forget(Match{Trigger: "order_placed"})
	require.Len(t, s.Deliveries(), 1)
	require.Equal(t, "other", s.Deliveries()[0].Trigger)
	to.send("/", order(3, "Ada"))
	somebodyWaits(t, s)
	require.Empty(t, got, "what was forgotten does not count")
	s.Forget(Match{Trigger: "other"})
	somebodyWaits(t, s)
	to.send("/", order(4, "Ada"))
	deliveries := <-got
	require.Equal(t, []uint64{3, 4}, []uint64{deliveries[0].Sequence, deliveries[1].Sequence})
	s.Clear()
	require.Empty(t, s.Deliveries())
	to.send("/", order(5, "Ada"))
	require.EqualValues(t, 5, s.Deliveries()[0].Sequence, "cursors stay good")
}

func TestAMissSaysWhatArrivedAndMarksTheDifference(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	to.send("/", order(8, "Ada"))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, miss := s.Await(ctx, Match{Trigger: "order_placed", Where: where(t, "new.id", 7)}, 1)
	require.LessOrEqual(t, miss.Within, 20*time.Millisecond)
	require.Equal(t, `no delivery of order_placed with new.id = 7 arrived within `+miss.Within.String()+`
arrived for order_placed: 1
  INSERT public.orders  new.id = 8  customer = "Ada"   (attempt 1, answered 200)
nearest: new.id is 8, wanted 7`, miss.String())

	update := order(7, "Grace")
	update.Op, update.Old = 'U', []byte(`{"id":7,"customer":"Ada"}`)
	to.send("/", update)
	for _, c := range []struct {
		match Match
		want  string
	}{
		{Match{Trigger: "order_placed", Where: where(t, "new.customr", "Ada")}, `nearest: new.customr is missing, wanted "Ada"; did you mean customer?`},
		{Match{Trigger: "order_placed", Where: where(t, "old.id", 8)}, "nearest: old.id is 7, wanted 8"},
		{Match{Trigger: "order_placed", Op: "insert", Where: where(t, "old.id", 8)}, "nearest: old.id is missing, wanted 8 (old is null)"},
		{Match{Trigger: "order_placed", Where: where(t, "new.customer", "Ada"), After: 1}, `nearest: sequence is 1, wanted more than 1`},
		{Match{Trigger: "order_placed", Table: "items"}, "nearest: table is public.orders, wanted items"},
		{Match{Trigger: "order_placed", Where: where(t, "new.id", "8")}, `nearest: new.id is 7, wanted "8"`},
		{Match{Trigger: "order_placd"}, "nothing arrived for order_placd, but for order_placed (2); did you mean order_placed?"},
		{Match{Trigger: "other", Where: where(t, "new.id", 8)}, "but for order_placed (2)\nnearest: trigger is order_placed, wanted other\n  INSERT public.orders  new.id = 8"},
		{Match{Trigger: "zebra", Op: "DELETE"}, "no delivery of zebra by DELETE has arrived\nnothing arrived for zebra, but for order_placed (2)"},
		{Match{Op: "DELETE"}, "no delivery by DELETE has arrived\narrived: 2\n  order_placed  INSERT"},
	} {
		require.Contains(t, s.Explain(c.match, 1).String(), c.want)
	}
	require.Contains(t, s.Explain(Match{}, 1).String(), "UPDATE public.orders  customer: \"Ada\" -> \"Grace\"  id = 7   (attempt 1, answered 200)")
	require.Contains(t, new(Sink).Explain(Match{Trigger: "x"}, 2).String(), "0 of 2 deliveries of x has arrived\nnothing arrived for x")
}

func TestAMissNamesTheColumnsThatThereAre(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	e := order(7, "Ada")
	e.New = []byte(`{"id":7,"The.Text":"hello","guest":"Ada","meta":{"a.b":{"c":1}}}`)
	to.send("/", e)
	for path, want := range map[string]string{
		"new.idd":        "did you mean id?",
		"new.The.Text":   `write new."The.Text"`,
		"new.The.Tex":    `did you mean "The.Text"?`,
		"new.gast":       `new has "The.Text", guest, id, meta`,
		"new.meta.a.b.c": `write new.meta."a.b"`,
		"new.meta.x":     `new.meta has "a.b"`,
		"new.guest.x":    `(new.guest is "Ada")`,
	} {
		miss := s.Explain(Match{Trigger: "order_placed", Where: where(t, path, "x")}, 1)
		require.Contains(t, miss.String(), path+` is missing, wanted "x"`, path)
		require.Contains(t, miss.Nearest.Differences[0].Text, want, path)
		require.Contains(t, miss.Arrived[0].Text, `id = 7  "The.Text" = "hello"`, path)
	}
	wide := order(8, "Ada")
	wide.New = fmt.Appendf(nil, `{"c0":0%s}`, strings.Repeat(`,"c":1`, 20))
	for n := range 20 {
		wide.New = []byte(strings.Replace(string(wide.New), `"c":`, fmt.Sprintf(`"col%d":`, n), 1))
	}
	to.send("/", wide)
	require.Contains(t, s.Explain(Match{Where: where(t, "new.price", 1)}, 1).String(), "; new has c0, col0, col1, col10, col11, col12, col13, col14, col15, col16, col17, col18 and 9 more")
}

func TestALongColumnLeavesRoomForTheOthers(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	e := order(7, "Ada")
	e.Op = 'U'
	long := strings.Repeat("x", 500)
	e.Old = fmt.Appendf(nil, `{"id":"0199abcd-ef01-7abc-8def-000000000007","text":"%s","status":"placed","customer":"Ada"}`, long)
	e.New = fmt.Appendf(nil, `{"id":"0199abcd-ef01-7abc-8def-000000000007","text":"%s","status":"paid","customer":"Ada"}`, long)
	to.send("/", e)
	text := s.Explain(Match{Where: where(t, "new.customer", "Grace")}, 1).Arrived[0].Text
	require.Regexp(t, `^order_placed  UPDATE public.orders  new.customer = "Ada"  status: "placed" -> "paid"  id = "0199abcd-ef01-7abc-8def-000000000007"  text = "x+…   \(attempt`, text)
	e.Op, e.Old, e.New = 'I', nil, fmt.Appendf(nil, `{"id":1%s}`, strings.Repeat(`,"a":"`+long+`"`, 40))
	to.send("/", e)
	text = s.Explain(Match{}, 1).Arrived[1].Text
	require.Regexp(t, `id = 1  a = "x+….* … \(\d+ columns more\)   \(attempt`, text)
	require.Less(t, len(text), 400)
}

func TestAMissTellsOfAttemptsThatFailed(t *testing.T) {
	t.Parallel()
	s := &Sink{Behaviour: Behaviour{Fail: -1, FailStatus: 503}}
	to := start(t, s)
	to.send("/", order(7, "Ada"))
	_, miss := s.Await(over(), Match{Trigger: "order_placed", Where: where(t, "new.id", 7)}, 1)
	require.Contains(t, miss.String(), "(attempt 1, answered 503)\nnearest: it was answered 503, wanted 2xx")
}

func TestARuleHoldsForItsEventsUntilItIsReverted(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	to.send("/", order(7, "Ada"))
	id, err := s.Behave(Rule{Trigger: "order_placed", Where: where(t, "new.id", 7), Behaviour: Behaviour{Statuses: []int{503, 429, 200}}})
	require.NoError(t, err)
	_, err = s.Behave(Rule{Behaviour: Behaviour{Statuses: []int{202}}})
	require.NoError(t, err)
	var got []int
	for range 4 {
		got = append(got, to.send("/", order(7, "Ada")).Status)
	}
	require.Equal(t, []int{503, 429, 200, 200}, got, "attempts count from the rule on")
	require.Equal(t, 202, to.send("/", order(8, "Ada")).Status)
	require.Equal(t, 1, s.Revert(func(r Rule) bool { return r.ID == id }))
	require.Equal(t, 202, to.send("/", order(7, "Ada")).Status)
	require.Equal(t, 1, s.Revert(func(Rule) bool { return true }))
	require.Equal(t, 200, to.send("/", order(7, "Ada")).Status)
	require.Empty(t, s.Rules())
}

func TestWhatHangsEndsWhenTheBehaviourChanges(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1)
	s := &Sink{OnDelivery: func(Delivery) { arrived <- struct{}{} }}
	to := start(t, s)
	to.timeout = time.Minute
	for name, b := range map[string]Behaviour{"hang": {Hang: true}, "delay": {Delay: time.Hour}} {
		_, err := s.Behave(Rule{Trigger: "order_placed", Behaviour: b})
		require.NoError(t, err)
		result := make(chan webhook.Result, 1)
		to.client.Close() // a request on a connection that was used before is repeated
		go func() { result <- to.send("/", order(7, "Ada")) }()
		<-arrived
		_, err = s.Behave(Rule{Trigger: "another", Behaviour: b})
		require.NoError(t, err)
		require.Empty(t, result, "another trigger's behaviour makes no difference")
		s.Revert(func(r Rule) bool { return r.Trigger == "order_placed" })
		r := <-result
		require.Equal(t, name == "delay", r.Delivered(), name)
	}
}

func TestARequestThatIsRepeatedOnAnotherConnectionIsOneAttempt(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &Sink{}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	to := &sender{T: t, server: &httptest.Server{URL: "http://" + l.Addr().String()}, client: webhook.NewClient(webhook.ClientConfig{}), timeout: time.Minute}
	require.True(t, new(to.send("/", order(1, "Ada"))).Delivered())
	_, err = s.Behave(Rule{Behaviour: Behaviour{CloseConnection: true, Fail: 1}})
	require.NoError(t, err)
	e := order(2, "Ada")
	require.Equal(t, webhook.KindReset, to.send("/", e).Kind)
	e.CurrentRetry++
	require.True(t, new(to.send("/", e)).Delivered())
	var got []int
	for _, d := range s.List(Match{ID: "00000000-0000-0000-0000-000000000002"}) {
		got = append(got, d.Attempt)
	}
	require.Equal(t, []int{1, 1, 2}, got)
	to.client.Close()
	cancel()
	require.NoError(t, <-served)
}

func TestRespondAnswersAndIsRecorded(t *testing.T) {
	t.Parallel()
	s := &Sink{Respond: func(_ context.Context, d Delivery) Response {
		if d.Attempt == 2 {
			return Response{Note: "the app refused the connection"}
		}
		return Response{Status: 418, Header: http.Header{"X-App": {"tea"}}, Body: []byte("short and stout")}
	}}
	to := start(t, s)
	r := to.send("/", order(7, "Ada"))
	require.Equal(t, 418, r.Status)
	require.Equal(t, "short and stout", string(r.Body))
	require.Contains(t, string(r.Header), `"X-App":"tea"`)
	to.client.Close() // the next request is the first one of its connection
	require.Equal(t, webhook.KindReset, to.send("/", order(7, "Ada")).Kind)
	all := s.Deliveries()
	require.Equal(t, []any{418, 0, "the app refused the connection"}, []any{all[0].Status, all[1].Status, all[1].Note})
	require.Equal(t, Counts{Requests: 2, Failed: 2, Events: 1}, s.Counts())
	_, err := s.Behave(Rule{Behaviour: Behaviour{Statuses: []int{200}}})
	require.NoError(t, err)
	require.Equal(t, 200, to.send("/", order(7, "Ada")).Status, "a rule goes first")
}

func TestSignaturesAreJudgedByTheTriggersSecret(t *testing.T) {
	t.Parallel()
	known := ""
	s := &Sink{SecretOf: func(string) string { return known }}
	to := start(t, s)
	last := func() Delivery { return s.Deliveries()[len(s.Deliveries())-1] }
	to.send("/", order(1, "Ada"))
	require.Equal(t, None, last().Signature)
	to.secret = secret
	to.send("/", order(1, "Ada"))
	require.Equal(t, Unchecked, last().Signature)
	known = secret
	to.send("/", order(1, "Ada"))
	require.Equal(t, Valid, last().Signature)
	known = "another"
	require.Equal(t, 200, to.send("/", order(1, "Ada")).Status, "it only judges")
	require.Equal(t, Invalid, last().Signature)
	require.Contains(t, last().SignatureProblem, "not what was signed")
	require.Equal(t, 4, last().Attempt)
}

func somebodyWaits(t *testing.T, s *Sink) {
	require.Eventually(t, func() bool {
		s.journal.mu.Lock()
		defer s.journal.mu.Unlock()
		return s.journal.changed != nil
	}, time.Minute, time.Millisecond)
}

func TestAMissSpeaksOfNoTimeThatNobodyWaited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(*tally) verdict { // as on a busy machine
			<-time.After(time.Second)
			return verdict{shortfall: TooFew}
		}
		_, miss := new(Sink).await(over(), Match{}, slow, 1)
		require.Zero(t, miss.Within)
		require.Contains(t, miss.String(), "no delivery has arrived")
	})
}

func TestACountRemembersNoMoreThanItNeeds(t *testing.T) {
	t.Parallel()
	var v view
	for n := range byte(100) {
		v.deliveries = append(v.deliveries, &Delivery{Sequence: uint64(n) + 1, key: [16]byte{n}, Status: 200})
	}
	c := newTally(Match{}.counting(), 3)
	require.True(t, c.count(t.Context(), v))
	require.Len(t, c.events, 3)
	require.Equal(t, 3, c.n)
}

func TestAWaitKeepsNoDeliveryInMemory(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	to.send("/", order(1, "Ada"))
	freed := make(chan struct{})
	runtime.AddCleanup(s.journal.kept[0], func(c chan struct{}) { close(c) }, freed)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan *Miss)
	go func() {
		_, miss := s.Await(ctx, Match{Trigger: "another"}, 1)
		ended <- miss
	}()
	somebodyWaits(t, s)
	s.journal.mu.Lock() // not Clear, which would wake it
	s.journal.kept = nil
	s.journal.mu.Unlock()
	require.Eventually(t, func() bool {
		runtime.GC()
		select {
		case <-freed:
			return true
		default:
			return false
		}
	}, time.Minute, 10*time.Millisecond)
	stop()
	require.NotNil(t, <-ended)
}

func TestMemoryIsBoundedByNumberAndSize(t *testing.T) {
	t.Parallel()
	s := &Sink{KeepBytes: 50_000}
	s.journal.seen.generation = 100
	to := start(t, s)
	for n := range 300 {
		e := order(n, "Ada")
		e.ID[0] = byte(n >> 8)
		e.New = fmt.Appendf(nil, `{"id":%d,"pad":%q}`, n, strings.Repeat("x", 200))
		require.True(t, new(to.send(fmt.Sprint("/", n), e)).Delivered())
	}
	require.LessOrEqual(t, s.journal.bytes, 50_000)
	require.Greater(t, len(s.journal.kept), 10)
	require.LessOrEqual(t, len(s.journal.seen.young)+len(s.journal.seen.old), 200)
	require.Contains(t, s.Explain(Match{Trigger: "x"}, 1).String(), "no longer kept, since the memory is bounded: 26")
	require.Equal(t, 300, s.Counts().Events)
}
