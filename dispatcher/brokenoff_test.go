package dispatcher_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// hanging never answers until it is released. After that it delivers.
func hanging(free *atomic.Bool) func(int, delivery, http.ResponseWriter, *http.Request) {
	return func(_ int, d delivery, _ http.ResponseWriter, r *http.Request) {
		if d.path == "orders" && !free.Load() {
			<-r.Context().Done()
		}
	}
}

// patient has attempts that hang for as long as the test lasts, and no retry that could help.
func patient(s *trigger.Spec) {
	s.Webhook.Timeout = trigger.Duration(10 * time.Minute)
	s.Retry = trigger.Retry{Backoff: trigger.BackoffFixed}
}

func TestCancelBreaksOffAttemptsOnAllInstancesAndCountsNone(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	var free atomic.Bool
	b.receiver.respond(hanging(&free))
	b.watch(t, "orders", patient, func(s *trigger.Spec) { s.Concurrency = 2 })
	b.watch(t, "other", patient)
	first := b.start(t)
	b.insert(t, "orders", 2)
	b.receiver.await(t, "orders", 2)
	b.start(t, func(c *dispatcher.Config) { c.NoListen, c.PollInterval = true, 100*time.Millisecond })
	b.insert(t, "orders", 2)
	b.receiver.await(t, "orders", 4)
	conn := b.Conn(t)

	var s *operate.Status
	require.Eventually(t, func() bool {
		var err error
		s, err = operate.ReadStatus(t.Context(), conn)
		require.NoError(t, err)
		return len(s.Triggers[0].Hanging) == 2
	}, patience, 100*time.Millisecond, "both instances say that their attempts hang")
	require.Empty(t, s.Triggers[1].Hanging)
	require.Equal(t, 2, s.Triggers[0].Hanging[0].Attempts)
	require.Equal(t, b.receiver.URL+"/orders", s.Triggers[0].Hanging[0].Endpoint)
	require.WithinDuration(t, time.Now(), s.Triggers[0].Hanging[0].Since, patience)

	free.Store(true)
	c, err := operate.Cancel(t.Context(), conn, "orders")
	require.NoError(t, err)
	require.Equal(t, int64(4), c.InFlight)
	b.settled(t)
	require.Equal(t, 4, b.receiver.unique("orders"))
	require.Zero(t, one[int](t, conn, deadRows), "there is no retry, and nothing dies")
	require.Equal(t, 4, one[int](t, conn, attemptRows+" where error_kind = 'canceled' and error like 'canceled: by %, role %' and attempt = 1"))
	require.Equal(t, 4, one[int](t, conn, attemptRows+" where status = 200 and attempt = 1"), "the canceled attempt does not count")
	require.Equal(t, 1, one[int](t, conn, "select count(*)::integer from rowhook.audit where action = 'cancel' and target = '{orders}' and who <> ''"))
	require.NotContains(t, first.log.String(), "attempts are failing")
	eventually(t, conn, 0, "select count(*)::integer from rowhook.instance where trouble is not null")
}

func TestAHangingAttemptOfAnOrderedTriggerIsShownAndCountedInFlight(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	var free atomic.Bool
	b.receiver.respond(hanging(&free))
	b.watch(t, "orders", patient, byRow)
	running := b.start(t)
	conn := b.Conn(t)
	c, err := operate.Cancel(t.Context(), conn, "orders")
	require.NoError(t, err)
	require.Zero(t, c.InFlight)
	require.True(t, c.Uncounted)
	// It is taken in by a load of the triggers, and breaks off what has begun by then.
	canceled := func(times int) func() bool {
		return func() bool {
			return strings.Count(running.log.String(), "attempts in flight were canceled") == times
		}
	}
	require.Eventually(t, canceled(1), patience, 5*time.Millisecond)
	b.insert(t, "orders", 2)
	b.receiver.await(t, "orders", 2)
	var page *operate.Page
	require.Eventually(t, func() bool {
		page, err = operate.List(t.Context(), conn, operate.Filter{}, operate.ListOptions{})
		require.NoError(t, err)
		return len(page.Events) == 2 && page.Events[0].WaitsFor == operate.WaitsForAnswer && page.Events[1].WaitsFor == operate.WaitsForAnswer
	}, patience, 100*time.Millisecond)
	require.NotNil(t, page.Events[0].InstanceID)
	shown, err := operate.Show(t.Context(), conn, page.Events[0].ID)
	require.NoError(t, err)
	require.Contains(t, shown.Next, "attempt 1 is running: dispatcher ")
	s, err := operate.ReadStatus(t.Context(), conn)
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Triggers[0].InFlight)
	require.Zero(t, s.Triggers[0].Waiting)
	free.Store(true)
	c, err = operate.Cancel(t.Context(), conn, "orders")
	require.NoError(t, err)
	require.EqualValues(t, 2, c.InFlight)
	b.settled(t)
	require.Eventually(t, canceled(2), patience, 5*time.Millisecond)
	require.NotContains(t, running.log.String(), "configuration loaded")
}

func TestANewURLBreaksOffAttemptsThatHangAtTheOldOne(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.receiver.respond(hanging(new(atomic.Bool)))
	b.watch(t, "orders", patient)
	b.start(t)
	conn := b.Conn(t)
	b.insert(t, "orders", 3)
	b.receiver.await(t, "orders", 3)
	// Those that do not hang yet are broken off as soon as they do.
	b.apply(t, b.Spec("orders", patient, func(s *trigger.Spec) { s.Webhook.URL = b.receiver.URL + "/elsewhere" }))
	b.receiver.await(t, "elsewhere", 3)
	b.settled(t)
	require.Equal(t, 3, one[int](t, conn, attemptRows+" where error_kind = 'canceled' and error like '%another URL%'"))
}

func TestCanceledAttemptsOfOrderedTriggersAndBatchesAreMadeAgain(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*trigger.Spec){
		"order": byRow,
		"batch": func(s *trigger.Spec) { s.Batch.Max = 10 },
		"both":  func(s *trigger.Spec) { byRow(s); s.Batch.Max = 10 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			var free atomic.Bool
			b.receiver.respond(hanging(&free))
			b.watch(t, "orders", patient, change)
			b.start(t)
			b.insert(t, "orders", 5)
			b.receiver.await(t, "orders", 1)
			free.Store(true)
			conn := b.Conn(t)
			_, err := operate.Cancel(t.Context(), conn, "orders")
			require.NoError(t, err)
			b.settled(t)
			require.Zero(t, one[int](t, conn, deadRows))
			require.Positive(t, one[int](t, conn, attemptRows+" where error_kind = 'canceled' and error like 'canceled: by %'"))
			require.Equal(t, 5, one[int](t, conn, attemptRows+" where status = 200"))
		})
	}
}
