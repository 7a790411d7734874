package dispatcher_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/timed"
	"github.com/rowhook/rowhook/trigger"
)

func rateOf(limit string, burst int) func(*trigger.Spec) {
	return func(s *trigger.Spec) {
		s.Rate.Limit, _ = trigger.ParsePerTime(limit)
		s.Rate.Burst = burst
	}
}

// busiest returns the largest number of requests in any window, from a time on.
func busiest(all []delivery, window time.Duration, from time.Time) (most int) {
	var at []time.Time
	for i := range all {
		if all[i].at.After(from) {
			at = append(at, all[i].at)
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	for i, j := 0, 0; j < len(at); j++ {
		for at[j].Sub(at[i]) >= window {
			i++
		}
		most = max(most, j-i+1)
	}
	return most
}

func TestARateHoldsOverAllDispatchers(t *testing.T) {
	timed.Alone(t)
	b := newFixture(t)
	b.watch(t, "paced", rateOf("50/s", 20))
	for range 4 {
		b.start(t)
	}
	b.Exec(t, "insert into paced (n) select generate_series(1, 1000)")
	first := b.receiver.await(t, "paced", 1)[0].at
	timer := time.NewTimer(6 * time.Second)
	<-timer.C
	got := b.receiver.on("paced")
	require.InDelta(t, 20+50*6, len(got), 30, "the burst and 50 in each second")
	require.LessOrEqual(t, busiest(got, time.Second, first.Add(time.Second)), 60)
	senders := one[int](t, b.Conn(t), "select count(distinct instance_id)::integer from rowhook.invocation_log")
	require.Equal(t, 4, senders, "they share it")
}

func TestARetryAndARequestOfABisectionTakeTheirSlots(t *testing.T) {
	timed.Alone(t)
	b := newFixture(t)
	b.watch(t, "bisected", rateOf("20/s", 1), batchOf(16))
	all := takeBatches(t, b.receiver, func(r batchRequest, w http.ResponseWriter) {
		if len(r.events) > 1 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	})
	began := time.Now()
	b.Exec(t, "insert into bisected (n) select generate_series(1, 16)")
	b.start(t)
	b.settled(t)
	require.Len(t, all("bisected"), 31)
	require.Greater(t, time.Since(began), 1400*time.Millisecond, "30 intervals of 50 ms")
	require.LessOrEqual(t, busiest(b.receiver.on("bisected"), time.Second, began), 23)
}

func TestEventsThatWaitForTheirRateCountAsWaiting(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", rateOf("5/s", 1))
	b.start(t)
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 300)")
	conn := b.Conn(t)
	eventually(t, conn, true, "select exists (select from rowhook.instance where (trouble #>> '{paced,orders,events}')::integer > 5)")
	claimed := one[int](t, conn, "select count(*)::integer from rowhook.event_log where claimed_by is not null")
	status, err := operate.ReadStatus(t.Context(), conn)
	require.NoError(t, err)
	require.Less(t, status.Triggers[0].InFlight, int64(claimed))
	require.Greater(t, status.Triggers[0].Waiting, int64(50))
}

func TestAnotherRateTakesEffectAtOnce(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "hourly", rateOf("1/h", 1))
	b.start(t)
	b.Exec(t, "insert into hourly (n) select generate_series(1, 5)")
	b.receiver.await(t, "hourly", 1)
	conn := b.Conn(t)
	eventually(t, conn, 4, "select count(*)::integer from rowhook.event_log where claimed_by is null and tries = 0")
	spec := b.Spec("hourly", rateOf("100/s", 1))
	b.apply(t, spec)
	b.settled(t)
	require.Len(t, b.receiver.on("hourly"), 5)
	spec.Rate = trigger.Rate{}
	b.apply(t, spec)
	b.Exec(t, "insert into hourly (n) select generate_series(1, 300)")
	b.settled(t)
}

func TestARateSurvivesAServersClockThatStepsBack(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "clock", rateOf("100/s", 1))
	conn := b.Conn(t)
	b.Exec(t, "insert into rowhook.rate select id, now() + interval '1 hour' from rowhook.trigger")
	b.start(t)
	b.Exec(t, "insert into clock (n) select generate_series(1, 10)")
	b.settled(t)
	require.True(t, one[bool](t, conn, "select next_at < now() + interval '1 second' from rowhook.rate"))
}

func TestSlotsAreGivenToOneInstanceOnly(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	conn := b.Conn(t)
	want := []queue.SlotWant{{Trigger: 1, Every: 20 * time.Millisecond, Burst: 10, N: 8}, {Trigger: 2, Every: time.Hour, Burst: 1, N: 100}}
	began := time.Now()
	first, err := queue.ReserveSlots(t.Context(), conn, want)
	require.NoError(t, err)
	require.Equal(t, []queue.Slots{{Trigger: 1, First: -180 * time.Millisecond, N: 8}, {Trigger: 2, N: 1}}, first)
	next, err := queue.ReserveSlots(t.Context(), conn, want)
	require.NoError(t, err)
	require.Equal(t, 8, next[0].N)
	// They are told from the time of the call on.
	most := time.Since(began) + time.Millisecond
	require.InDelta(t, -20*time.Millisecond-most/2, next[0].First, float64(most/2), "behind the first")
	require.Zero(t, next[1].N)
	require.InDelta(t, time.Hour-most/2, next[1].First, float64(most/2))
	want[0].N = 1000
	all, err := queue.ReserveSlots(t.Context(), conn, want[:1])
	require.NoError(t, err)
	require.LessOrEqual(t, all[0].First+time.Duration(all[0].N-1)*20*time.Millisecond, queue.SlotsAhead)
}
