package dispatcher_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/trigger"
)

// batchEvent is an event of a batch as it arrived.
type batchEvent struct {
	ID    string
	Event struct {
		Data struct{ New struct{ ID, N int } }
	}
	Info struct {
		Retry int `json:"current_retry"`
	} `json:"delivery_info"`
}

// batchRequest is a request that holds a batch.
type batchRequest struct {
	path, id string
	at       time.Time
	size     int // of its body
	events   []batchEvent
}

// takeBatches has the receiver keep batches and answer them; nil: 200. all returns those of a path.
func takeBatches(t *testing.T, r *receiver, answer func(b batchRequest, w http.ResponseWriter)) (all func(path string) []batchRequest) {
	t.Helper()
	var mu sync.Mutex
	var got []batchRequest
	r.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
		b := batchRequest{path: d.path, id: d.header.Get("Webhook-Id"), at: d.at, size: len(d.body)}
		if err := json.Unmarshal([]byte(d.body), &b.events); err != nil || d.header.Get("Rowhook-Batch") != fmt.Sprint(len(b.events)) {
			t.Errorf("not a batch: %v %s", err, d.body)
		}
		mu.Lock()
		got = append(got, b)
		mu.Unlock()
		if answer != nil {
			answer(b, w)
		}
	})
	return func(path string) (on []batchRequest) {
		mu.Lock()
		defer mu.Unlock()
		for _, b := range got {
			if b.path == path {
				on = append(on, b)
			}
		}
		return on
	}
}

func batchOf(most int, change ...func(*trigger.Spec)) func(*trigger.Spec) {
	return func(s *trigger.Spec) {
		s.Batch.Max = most
		s.Webhook.Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
		s.Retry.Limit, s.Retry.Interval, s.Retry.Backoff = 5, trigger.Duration(10*time.Millisecond), trigger.BackoffFixed
		for _, f := range change {
			f(s)
		}
	}
}

func TestABatchTakesWhatWaits(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "many", batchOf(100))
	all := takeBatches(t, b.receiver, nil)
	b.Exec(t, "insert into many (n) select generate_series(1, 1000)")
	b.start(t)
	b.settled(t)
	seen := map[string]bool{}
	for _, r := range all("many") {
		require.LessOrEqual(t, len(r.events), 100)
		for _, e := range r.events {
			require.False(t, seen[e.ID])
			seen[e.ID] = true
		}
	}
	require.Len(t, seen, 1000)
	require.LessOrEqual(t, len(all("many")), 20)
	conn := b.Conn(t)
	require.Equal(t, len(all("many")), one[int](t, conn, "select count(distinct batch)::integer from rowhook.invocation_log"))
	require.Equal(t, len(all("many")[0].events), one[int](t, conn, "select count(*)::integer from rowhook.invocation_log where batch = $1 and status = 200", all("many")[0].id))
}

func TestAResponseFailsJustTheEventsThatItLists(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "part", batchOf(100))
	all := takeBatches(t, b.receiver, func(r batchRequest, w http.ResponseWriter) {
		failed := []string{}
		for _, e := range r.events {
			if e.Event.Data.New.N%10 == 0 && e.Info.Retry == 0 || e.Event.Data.New.N == 50 {
				failed = append(failed, e.ID)
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"failed": failed})
	})
	b.Exec(t, "insert into part (n) select generate_series(1, 100)")
	b.start(t)
	b.settled(t)
	conn := b.Conn(t)
	require.Equal(t, "50", one[string](t, conn, "select new ->> 'n' from rowhook.dead_letter"), "the list names it, so it has failed by itself")
	require.Equal(t, 6, one[int](t, conn, "select tries from rowhook.dead_letter"))
	require.Equal(t, 90, one[int](t, conn, "select count(*)::integer from rowhook.event_archive where tries = 1"))
	require.Equal(t, 9, one[int](t, conn, "select count(*)::integer from rowhook.event_archive where tries = 2"))
	require.Equal(t, 15, one[int](t, conn, "select count(*)::integer from rowhook.invocation_log where error_kind = 'rejected' and status = 200"))
	require.Len(t, all("part"), 6, "those that have failed together are sent together")
}

func TestABatchThatIsSentAgainHasTheSameID(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "same", batchOf(50))
	all := takeBatches(t, b.receiver, func(r batchRequest, w http.ResponseWriter) {
		if r.events[0].Info.Retry == 0 {
			w.WriteHeader(500)
		}
	})
	b.Exec(t, "insert into same (n) select generate_series(1, 200)")
	b.start(t)
	b.settled(t)
	times := map[string]int{}
	for _, r := range all("same") {
		times[r.id]++
	}
	require.Len(t, all("same"), 8)
	for id, n := range times {
		require.Equal(t, 2, n, id)
	}
}

func TestOneBadEventNeverTakesItsNeighboursToTheDeadLetters(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	poison := map[string]map[int]bool{} // by path: n
	var mu sync.Mutex
	all := takeBatches(t, b.receiver, func(r batchRequest, w http.ResponseWriter) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range r.events {
			if poison[r.path][e.Event.Data.New.N] {
				w.WriteHeader(422)
				break
			}
		}
	})
	b.start(t)
	conn := b.Conn(t)
	cases := 0
	rapid.Check(t, func(rt *rapid.T) {
		if cases++; cases > 25 {
			return
		}
		size, most := rapid.IntRange(1, 60).Draw(rt, "size"), rapid.IntRange(2, 40).Draw(rt, "max")
		limit := rapid.IntRange(0, 4).Draw(rt, "limit")
		bad := map[int]bool{}
		share := rapid.IntRange(0, 3).Draw(rt, "share")
		for n := range size {
			if rapid.IntRange(0, 9).Draw(rt, "poisonous") < 3*share {
				bad[n] = true
			}
		}
		name := fmt.Sprintf("poison%d", cases)
		mu.Lock()
		poison[name] = bad
		mu.Unlock()
		b.watch(t, name, batchOf(most, func(s *trigger.Spec) { s.Retry.Limit = limit }))
		b.Exec(t, fmt.Sprintf("insert into %s (n) select generate_series(0, %d)", name, size-1))
		b.settled(t)
		dead := one[[]int32](t, conn, "select array(select (new ->> 'n')::integer from rowhook.dead_letter d join rowhook.trigger t on t.id = d.trigger_id where t.name = $1)", name)
		require.Len(rt, dead, len(bad))
		for _, n := range dead {
			require.True(rt, bad[int(n)], n)
		}
		require.Equal(rt, size-len(bad), one[int](t, conn, "select count(*)::integer from rowhook.event_archive d join rowhook.trigger t on t.id = d.trigger_id where t.name = $1", name))
		alone := map[int]bool{}
		for _, r := range all(name) {
			if len(r.events) == 1 {
				alone[r.events[0].Event.Data.New.N] = true
			}
		}
		for n := range bad {
			require.True(rt, alone[n], "an event dies only by a request in which it was alone")
		}
	})
}

func TestNeitherRestartsNorNewNeighboursMakeAnEventDieWithOthers(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "restarted", batchOf(8, func(s *trigger.Spec) {
		s.Retry.Limit, s.Retry.Interval, s.Breaker = 2, trigger.Duration(time.Hour), trigger.BreakerOff
	}))
	poisonous := func(e batchEvent) bool { return e.Event.Data.New.N%4 == 1 }
	takeBatches(t, b.receiver, func(r batchRequest, w http.ResponseWriter) {
		switch {
		case !slices.ContainsFunc(r.events, poisonous):
		case len(r.events) > 1:
			w.WriteHeader(http.StatusServiceUnavailable) // there are no halves after it
		default:
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	})
	conn := b.Conn(t)
	left := 1
	for round := 0; left > 0; round++ {
		require.Less(t, round, 20)
		b.Exec(t, "update rowhook.event_log set due_at = now()")
		if round < 5 {
			b.Exec(t, "insert into restarted (n) select generate_series($1::integer, $1 + 5)", 6*round)
		}
		d := b.start(t)
		eventually(t, conn, 0, "select count(*)::integer from rowhook.event_log where claimed_by is not null or due_at <= now()")
		d.Stop(t)
		left = one[int](t, conn, "select count(*)::integer from rowhook.event_log")
	}
	require.Equal(t, 0, one[int](t, conn, "select count(*)::integer from rowhook.dead_letter where (new ->> 'n')::integer % 4 <> 1"))
	require.Equal(t, 8, one[int](t, conn, "select count(*)::integer from rowhook.dead_letter"))
	require.Equal(t, 22, one[int](t, conn, "select count(*)::integer from rowhook.event_archive"))
}

func TestABodyThatIsTooLargeIsHalvedAtOnce(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "large", batchOf(64))
	all := takeBatches(t, b.receiver, func(r batchRequest, w http.ResponseWriter) {
		if len(r.events) > 10 {
			w.WriteHeader(413)
		}
	})
	b.Exec(t, "insert into large (n) select generate_series(1, 64)")
	b.start(t)
	b.settled(t)
	require.Equal(t, 64, one[int](t, b.Conn(t), "select count(*)::integer from rowhook.event_archive where tries = 1"))
	require.Len(t, all("large"), 15)
}

func TestAReceiverThatIsIllGetsFewRequests(t *testing.T) {
	t.Parallel()
	// The second failure is followed by halves only if the receiver answers, and by few.
	for status, most := range map[int]int{503: 1, 429: 1, 500: 10} {
		b := newFixture(t)
		b.watch(t, "ill", batchOf(100, func(s *trigger.Spec) { s.Retry.Limit, s.Retry.Interval = 5, trigger.Duration(time.Hour) }))
		all := takeBatches(t, b.receiver, func(_ batchRequest, w http.ResponseWriter) { w.WriteHeader(status) })
		b.Exec(t, "insert into ill (n) select generate_series(1, 100)")
		d := b.start(t)
		conn := b.Conn(t)
		eventually(t, conn, 100, "select count(*)::integer from rowhook.event_log where claimed_by is null and tries = 1")
		require.Len(t, all("ill"), 1)
		b.Exec(t, "update rowhook.event_log set due_at = now()")
		d.Stop(t)
		b.start(t)
		eventually(t, conn, 100, "select count(*)::integer from rowhook.event_log where claimed_by is null and tries = 2")
		require.Len(t, all("ill"), 1+most, status)
	}
}

func TestABatchWaitsForOthersButAFullOneDoesNot(t *testing.T) {
	t.Parallel()
	const wait = 300 * time.Millisecond
	b := newFixture(t)
	b.watch(t, "patient", batchOf(50, func(s *trigger.Spec) { s.Batch.Wait = trigger.Duration(wait) }))
	b.watch(t, "brimful", batchOf(50, func(s *trigger.Spec) { s.Batch.Wait = trigger.Duration(time.Hour) }))
	all := takeBatches(t, b.receiver, nil)
	claimed := make(chan int, 100)
	b.start(t, observing(dispatcher.Observer{Claimed: func(events []dispatcher.ClaimedEvent, _ time.Duration) {
		// What is handed over is given back, since it has to wait for others.
		if len(events) > 0 && !events[0].Handed {
			claimed <- len(events)
		}
	}}))
	for n := range 5 {
		b.Exec(t, "insert into brimful (n) values (1)")
		require.Equal(t, 1, <-claimed, n)
	}
	began := time.Now()
	b.Exec(t, "insert into patient (n) select generate_series(1, 5)") // one commit, so one wait however busy the machine is
	b.receiver.await(t, "patient", 1)
	require.Empty(t, all("brimful"), "it is not full")
	b.Exec(t, "insert into brimful (n) select generate_series(6, 50)")
	b.settled(t)
	require.Len(t, all("patient"), 1)
	require.Len(t, all("patient")[0].events, 5)
	require.GreaterOrEqual(t, all("patient")[0].at.Sub(began), wait)
	require.Len(t, all("brimful"), 1)
	require.Len(t, all("brimful")[0].events, 50)
}

func TestABodyStaysWithinItsBytesAndALargerEventGoesAlone(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "bounded", batchOf(1000, func(s *trigger.Spec) { s.Batch.Bytes = 4 << 10 }))
	all := takeBatches(t, b.receiver, nil)
	b.Exec(t, "insert into bounded (n, v) select i, case when i % 20 = 0 then repeat('x', 6000) else 'x' end from generate_series(1, 200) i")
	b.start(t)
	b.settled(t)
	events := 0
	for _, r := range all("bounded") {
		events += len(r.events)
		require.True(t, r.size <= 4<<10 || len(r.events) == 1, r.size)
	}
	require.Equal(t, 200, events)
	require.Less(t, len(all("bounded")), 60, "each but the last holds what fits")
}

func TestABatchOfCloudEventsStaysWithinItsBytes(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "clouded", batchOf(1000, func(s *trigger.Spec) { s.Batch.Bytes, s.Webhook.Format = 4<<10, trigger.FormatCloudEvents }))
	all := takeBatches(t, b.receiver, nil)
	b.Exec(t, "insert into clouded (n, v) select i, 'x' from generate_series(1, 200) i")
	b.start(t)
	b.settled(t)
	for _, r := range all("clouded") {
		require.LessOrEqual(t, r.size, 4<<10)
	}
	require.Less(t, len(all("clouded")), 60, "each but the last holds what fits")
}

func TestWhatWaitsForABatchIsGivenBackByAStop(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "stopped", batchOf(50, func(s *trigger.Spec) { s.Batch.Wait = trigger.Duration(time.Hour) }))
	takeBatches(t, b.receiver, nil)
	claimed := make(chan int, 100)
	d := b.start(t, observing(dispatcher.Observer{Claimed: func(events []dispatcher.ClaimedEvent, _ time.Duration) {
		if len(events) > 0 {
			claimed <- len(events)
		}
	}}))
	b.Exec(t, "insert into stopped (n) values (1), (2)")
	require.Equal(t, 2, <-claimed)
	d.Stop(t)
	require.Equal(t, 2, one[int](t, b.Conn(t), "select count(*)::integer from rowhook.event_log where claimed_by is null and tries = 0 and due_at <= now()"))
}

func TestBatchesOfAnOrderedTriggerKeepTheOrderOfEachKey(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "sorted", batchOf(50, func(s *trigger.Spec) { s.Order.By = []string{"v"} }))
	var mu sync.Mutex
	tried, accepted := map[int]bool{}, map[int][]int{} // by n; by key: n
	refused := map[int]int{}                           // by n
	requests := 0
	all := takeBatches(t, b.receiver, func(r batchRequest, w http.ResponseWriter) {
		mu.Lock()
		defer mu.Unlock()
		// None is refused so often that its attempts are used up. Where five keys are left, every fifth
		// request may be that of the same event.
		often := func(e batchEvent) bool { return refused[e.Event.Data.New.N] == 3 }
		if requests++; requests%5 == 0 && !slices.ContainsFunc(r.events, often) {
			for _, e := range r.events {
				refused[e.Event.Data.New.N]++
			}
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		failed, lost := []string{}, map[int]bool{}
		for _, e := range r.events {
			n := e.Event.Data.New.N
			if n%7 == 0 && !tried[n] {
				tried[n], lost[n%20] = true, true
				failed = append(failed, e.ID)
			}
			if lost[n%20] { // it comes again behind the one that has failed
				continue
			}
			accepted[n%20] = append(accepted[n%20], n)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"failed": failed})
	})
	b.Exec(t, "insert into sorted (v, n) select (i % 20)::text, i from generate_series(0, 399) i")
	b.start(t)
	b.settled(t)
	events := 0
	for key, ns := range accepted {
		require.True(t, slices.IsSorted(ns), "key %d: %v", key, ns)
		require.Len(t, ns, 20)
		events += len(ns)
	}
	require.Equal(t, 400, events)
	require.Less(t, len(all("sorted")), 200, "they come in batches")
	together := 0
	for _, r := range all("sorted") {
		keys := map[int]int{}
		for _, e := range r.events {
			keys[e.Event.Data.New.N%20]++
			together = max(together, keys[e.Event.Data.New.N%20])
		}
	}
	require.Greater(t, together, 1, "several events of a key are in one request")
}

func TestABadEventOfAKeyDoesNotTakeTheLaterOnesToTheDeadLetters(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "keyed", batchOf(20, func(s *trigger.Spec) { s.Order.By, s.Retry.Limit = []string{"v"}, 1 }))
	var mu sync.Mutex
	var accepted []int
	takeBatches(t, b.receiver, func(r batchRequest, w http.ResponseWriter) {
		mu.Lock()
		defer mu.Unlock()
		failed := []string{}
		for _, e := range r.events {
			switch n := e.Event.Data.New.N; {
			case n%10 == 5:
				failed = append(failed, e.ID)
			case len(failed) == 0:
				accepted = append(accepted, n)
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"failed": failed})
	})
	b.Exec(t, "insert into keyed (v, n) select 'a', i from generate_series(1, 30) i")
	b.start(t)
	b.settled(t)
	require.Equal(t, []string{"5", "15", "25"}, one[[]string](t, b.Conn(t), "select array(select new ->> 'n' from rowhook.dead_letter order by seq)"))
	require.True(t, slices.IsSorted(accepted), accepted)
	require.Len(t, accepted, 27)
}

func TestAnEventFailsBehindAnotherOneOfItsKeyAtMostOnce(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "behind", batchOf(20, func(s *trigger.Spec) { s.Order.By, s.Retry.Limit = []string{"v"}, 2 }))
	var mu sync.Mutex
	failed := map[int]bool{} // by itself
	takeBatches(t, b.receiver, func(r batchRequest, w http.ResponseWriter) {
		mu.Lock()
		defer mu.Unlock()
		answer := []string{}
		for _, e := range r.events {
			if n := e.Event.Data.New.N; !failed[n] {
				failed[n] = true
				answer = append(answer, e.ID)
				break
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"failed": answer})
	})
	b.Exec(t, "insert into behind (v, n) select 'a', i from generate_series(1, 30) i")
	b.start(t)
	b.settled(t)
	conn := b.Conn(t)
	require.Zero(t, one[int](t, conn, deadRows), "two attempts have failed at most, and there are three")
	require.Equal(t, 30, one[int](t, conn, "select count(*)::integer from rowhook.event_archive"))
	require.Equal(t, 3, one[int](t, conn, "select max(tries)::integer from rowhook.event_archive"))
}
