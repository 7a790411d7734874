package operate_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

func statusOf(t *testing.T, s *operate.Status, name string) operate.TriggerStatus {
	t.Helper()
	for _, st := range s.Triggers {
		if st.Name == name {
			return st
		}
	}
	require.FailNow(t, "no trigger "+name)
	return operate.TriggerStatus{}
}

func TestStatusCountsEveryState(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b", "gone")
	old := d.wait(t, "a", 3)
	d.do(t, "update rowhook.event_log set created_at = now() - interval '1 hour', due_at = now() - interval '1 hour' where id = $1::text::uuid", old[0])
	d.wait(t, "a", 2, "claimed_by = 7, tries = 1, due_at = now() + interval '1 minute'")
	d.wait(t, "a", 4, "tries = 2, due_at = now() + interval '1 minute'")
	d.wait(t, "a", 5, "tries = 2, due_at = now() - interval '1 minute'")
	d.bury(t, "b", 6)
	d.Apply(t, d.Spec("a"), d.Spec("b"))
	_, err := operate.Pause(t.Context(), d.conn, "b")
	require.NoError(t, err)
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Len(t, s.Triggers, 2, "a removed trigger without events is not shown")
	a, b := statusOf(t, s, "a"), statusOf(t, s, "b")
	require.Equal(t, []int64{3, 2, 9, 0}, []int64{a.Waiting, a.InFlight, a.Retrying, a.Dead})
	require.Equal(t, []int64{0, 0, 0, 6}, []int64{b.Waiting, b.InFlight, b.Retrying, b.Dead})
	require.Empty(t, a.Estimated)
	require.WithinDuration(t, time.Now().Add(-time.Hour), *a.OldestAt, time.Minute)
	require.Nil(t, b.OldestAt)
	require.True(t, b.Paused)
	require.Equal(t, "the receiver answered 500", b.LastError)
	require.Equal(t, s.Schema.Program, s.Schema.Database)
	require.Len(t, s.History, 2)
	require.GreaterOrEqual(t, len(s.History[0].Partitions), 4)
	require.Regexp(t, `^20\d\d-\d\d-\d\d$`, s.History[0].Partitions[0].Day)
	require.Nil(t, s.Vacuum)
	text, err := json.Marshal(s)
	require.NoError(t, err)
	require.Contains(t, string(text), `"retention":{"attempts": "7d"`[:12])
}

func TestStatusEstimatesWhatIsTooMuchToCount(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.wait(t, "a", 60_000)
	d.wait(t, "b", 10)
	d.wait(t, "a", 20, "claimed_by = 7, tries = 1, due_at = now() + interval '1 minute'")
	d.bury(t, "b", 30_000)
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	a, b := statusOf(t, s, "a"), statusOf(t, s, "b")
	require.Equal(t, []string{"waiting", "retrying"}, a.Estimated)
	require.InEpsilon(t, 60_000, a.Waiting, 0.3)
	require.EqualValues(t, 20, a.InFlight, "what is in flight is not hidden behind the backlog")
	require.EqualValues(t, 10, b.Waiting)
	require.Equal(t, []string{"dead"}, b.Estimated)
	require.InEpsilon(t, 30_000, b.Dead, 0.3)
}

func TestStatusNamesWhoHoldsBackVacuum(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.do(t, "begin isolation level repeatable read; select 1")
	s, err := operate.ReadStatus(t.Context(), d.Conn(t))
	require.NoError(t, err)
	require.Nil(t, s.Vacuum, "a transaction of a moment is no trouble")
}

func TestTheLatencyOfARedeliveredEventCountsFromItsRedelivery(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.Apply(t, d.Spec("a", func(s *trigger.Spec) { s.Retry.Interval = trigger.Duration(200 * time.Millisecond) }))
	dead := d.bury(t, "a", 3)
	d.do(t, "update rowhook.dead_letter set created_at = now() - interval '15 minutes'")
	d.Run(t)
	_, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: dead[:1]}, operate.BulkOptions{})
	require.NoError(t, err)
	until(t, "the first is delivered", func() bool { return d.receiver.got(dead[0]) == 1 })
	d.receiver.status.Store(500)
	_, err = operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: dead[1:]}, operate.BulkOptions{})
	require.NoError(t, err)
	until(t, "the others fail", func() bool { return d.receiver.got(dead[1]) >= 1 && d.receiver.got(dead[2]) >= 1 })
	d.receiver.status.Store(0)
	var st operate.TriggerStatus
	until(t, "all are recorded", func() bool {
		s, err := operate.ReadStatus(t.Context(), d.conn)
		require.NoError(t, err)
		st = statusOf(t, s, "a")
		return st.DeliveredLastHour == 3
	})
	require.Less(t, *st.P95MS, 60_000.0, "also of those that failed once more")
}

func TestAnErrorIsOverWhenDeliveriesWorkAgain(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.Apply(t, d.Spec("a", func(s *trigger.Spec) {
		s.Retry.Interval = trigger.Duration(50 * time.Millisecond)
		s.Retry.Limit = 1000
	}))
	d.receiver.status.Store(503)
	d.Run(t)
	look := func() operate.TriggerStatus {
		s, err := operate.ReadStatus(t.Context(), d.conn)
		require.NoError(t, err)
		return statusOf(t, s, "a")
	}
	text := func() string {
		out, err := json.Marshal(look())
		require.NoError(t, err)
		return string(out)
	}
	require.NotContains(t, text(), `"last_error":`, "what is absent is left out")
	d.do(t, "insert into a (v) values ('x')")
	until(t, "the error is recorded", func() bool { return look().LastErrorAt != nil })
	require.True(t, look().Failing)
	d.receiver.status.Store(0)
	until(t, "it is over", func() bool { return !look().Failing })
	require.Contains(t, look().LastError, "503", "and still told")
	// The error may have been at the end of a minute, and the delivery in the next.
	d.do(t, `update rowhook.activity set latency = latency[1:120], minute = minute - interval '10 minutes',
		error_at = case when error_at is not null then (select max(minute) from rowhook.activity) - interval '9 minutes 30 seconds' end`)
	require.True(t, look().Failing, "no delivery is known to be later")
	d.do(t, "insert into rowhook.activity select date_trunc('minute', now()), trigger_id, 99, 1, 0, 0, latency, null, null from rowhook.activity limit 1")
	require.False(t, look().Failing, "another instance has delivered since")
}

// The status is read before a dispatcher has recorded the failure, which it does every few seconds.
func TestAReceiverThatHasOnlyFailedSoFarIsNotSaidToHaveRecovered(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.do(t, `insert into rowhook.dead_letter (id, created_at, trigger_id, tries, op, reason)
		select rowhook.uuid7(), now(), id, 1, 'I', case name when 'a' then 'answered 503' else 'trigger removed' end from rowhook.trigger`)
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	a, b := statusOf(t, s, "a"), statusOf(t, s, "b")
	require.Equal(t, "answered 503", a.LastError)
	require.True(t, a.Failing)
	require.Nil(t, b.LastErrorAt, "no receiver has failed")
}

func TestStatusShowsSinceWhenAReceiverHangs(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	hold := make(chan struct{})
	d.receiver.hold = hold
	d.Run(t)
	began := time.Now()
	d.do(t, "insert into a (v) values ('x'), ('y')")
	until(t, "both are in flight", func() bool { return d.receiver.unique() == 2 })
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	st := statusOf(t, s, "a")
	require.EqualValues(t, 2, st.InFlight)
	require.WithinRange(t, *st.OldestInFlightAt, began.Add(-time.Second), s.Now) // the server has the same clock
	d.do(t, "update rowhook.event_log set due_at = due_at - interval '20 seconds' where (new->>'v') = 'x'")
	s, err = operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.WithinDuration(t, st.OldestInFlightAt.Add(-20*time.Second), *statusOf(t, s, "a").OldestInFlightAt, time.Second)
	require.Nil(t, statusOf(t, s, "b").OldestInFlightAt)
	close(hold)
}

func TestStatusWarnsOfABellThatRingsForNobody(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.do(t, "select setval('rowhook.doorbell', 1)")
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.True(t, s.Warns("rings_for_nobody", ""))
	d.Run(t)
	until(t, "a dispatcher listens", func() bool {
		s, err := operate.ReadStatus(t.Context(), d.conn)
		require.NoError(t, err)
		return s.Doorbell.State == "ringing" && !s.Warns("rings_for_nobody", "")
	})
}
