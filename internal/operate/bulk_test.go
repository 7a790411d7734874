package operate_test

import (
	"encoding/json"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

func TestRedeliverBringsDeadAndDeliveredEventsBackAndRingsForThem(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.Run(t) // it polls once an hour, so only the doorbell can wake it
	ids := append(d.bury(t, "a", 600), d.archive(t, "a", 600)...)
	var progress []int64
	f := operate.Filter{Triggers: []string{"a"}, States: []operate.State{operate.Dead, operate.Delivered}}
	got, err := operate.Redeliver(t.Context(), d.conn, f, operate.BulkOptions{Progress: func(n int64) { progress = append(progress, n) }})
	require.NoError(t, err)
	require.EqualValues(t, 1200, got.Changed)
	require.Empty(t, got.Skipped)
	require.Greater(t, len(progress), 2)
	until(t, "all are delivered", func() bool { return d.receiver.unique() == 1200 })
	until(t, "all are settled", func() bool { return d.count(t, "rowhook.event_log") == 0 })
	require.Equal(t, 1200, d.count(t, "rowhook.event_archive"))
	require.Zero(t, d.count(t, "rowhook.dead_letter"))
	for _, id := range ids {
		require.Equal(t, 1, d.receiver.got(id), "what was put back and delivered meanwhile is not put back again")
	}
	require.Equal(t, 1200, d.count(t, "rowhook.event_archive where tries = 1"), "the attempts start again")
}

func TestRedeliverRefusesWhatIsInFlightAndKeepsTheRest(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	flying := d.wait(t, "a", 1, "claimed_by = 7, tries = 1, due_at = now() + interval '1 minute'")
	retrying := d.wait(t, "a", 1, "tries = 3, due_at = now() + interval '1 minute'")
	waiting, dead := d.wait(t, "a", 1), d.bury(t, "a", 2)
	_, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: flying}, operate.BulkOptions{})
	require.ErrorIs(t, err, operate.ErrBusy)
	require.ErrorContains(t, err, "in flight")
	_, err = operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: waiting}, operate.BulkOptions{})
	require.ErrorIs(t, err, operate.ErrBusy)
	_, err = operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: []string{"0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90"}}, operate.BulkOptions{})
	require.ErrorIs(t, err, operate.ErrNotFound)

	missing := "0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e91"
	got, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: []string{flying[0], retrying[0], waiting[0], dead[0], missing}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 2, got.Changed)
	require.ElementsMatch(t, []operate.Skip{{ID: flying[0], Reason: operate.SkipBusy}, {ID: waiting[0], Reason: operate.SkipWaiting}, {ID: missing, Reason: operate.SkipNotFound}}, got.Skips)
	require.Equal(t, 2, d.count(t, "rowhook.event_log where id = any($1::text[]::uuid[]) and tries = 0 and due_at <= clock_timestamp()", []string{retrying[0], dead[0]}))
	require.Equal(t, 1, d.count(t, "rowhook.dead_letter"), "the other dead letter stays")
	require.Equal(t, 1, d.count(t, "rowhook.event_log where claimed_by = 7 and tries = 1"), "what is in flight is untouched")

	_, err = operate.Redeliver(t.Context(), d.conn, operate.Filter{}, operate.BulkOptions{})
	require.ErrorIs(t, err, operate.ErrInvalid, "everything is not meant by nothing")
}

func TestRedeliverLeavesEventsOfRemovedTriggersAlone(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	dead := d.bury(t, "a", 2)
	d.bury(t, "b", 2)
	d.Apply(t, d.Spec("b"))
	_, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: dead[:1]}, operate.BulkOptions{})
	require.ErrorIs(t, err, operate.ErrRefused)
	got, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Dead}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 2, got.Changed)
	require.Equal(t, map[string]int64{operate.SkipRemoved: 2}, got.Skipped)
	require.Equal(t, 2, d.count(t, "rowhook.dead_letter"))
}

func TestRedeliveredHistoryIsKept(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.receiver.status.Store(500)
	d.Apply(t, d.Spec("a", func(s *trigger.Spec) { s.Retry.Limit = 0 }))
	d.Run(t)
	d.do(t, "insert into a (v) values ('x')")
	until(t, "it is dead", func() bool { return d.count(t, "rowhook.dead_letter") == 1 })
	d.receiver.status.Store(0)
	id := d.ids(t, "select id::text from rowhook.dead_letter")[0]
	_, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{IDs: []string{id}}, operate.BulkOptions{})
	require.NoError(t, err)
	until(t, "it is delivered", func() bool { return d.count(t, "rowhook.event_archive") == 1 })
	e, err := operate.Show(t.Context(), d.conn, id)
	require.NoError(t, err)
	require.Equal(t, operate.Delivered, e.State)
	require.Equal(t, 1, e.Attempts)
	require.Len(t, e.Log, 2)
	require.Equal(t, []int{500, 200}, []int{*e.Log[0].Status, *e.Log[1].Status})
	require.Equal(t, []int{1, 1}, []int{e.Log[0].Number, e.Log[1].Number})
}

func TestDiscardDeletesWhatIsDeadOrWaitsAndNothingElse(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.wait(t, "a", 3)
	d.wait(t, "a", 2, "tries = 1, due_at = now() + interval '1 minute'")
	flying := d.wait(t, "a", 1, "claimed_by = 7, tries = 1, due_at = now() + interval '1 minute'")
	d.bury(t, "a", 700)
	d.bury(t, "b", 2)
	done := d.archive(t, "a", 1)
	got, err := operate.Discard(t.Context(), d.conn, operate.Filter{Triggers: []string{"a"}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 700, got.Changed)
	require.Equal(t, 2, d.count(t, "rowhook.dead_letter"), "those of the other trigger")
	require.Equal(t, 6, d.count(t, "rowhook.event_log"))
	got, err = operate.Discard(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Waiting, operate.Retrying, operate.InFlight}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 5, got.Changed)
	require.Equal(t, []operate.Skip{{ID: flying[0], Reason: operate.SkipBusy}}, got.Skips)
	_, err = operate.Discard(t.Context(), d.conn, operate.Filter{IDs: flying}, operate.BulkOptions{})
	require.ErrorIs(t, err, operate.ErrBusy)
	_, err = operate.Discard(t.Context(), d.conn, operate.Filter{IDs: done}, operate.BulkOptions{})
	require.ErrorIs(t, err, operate.ErrRefused)
	require.ErrorContains(t, err, "was delivered")
	_, err = operate.Discard(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Delivered}}, operate.BulkOptions{})
	require.ErrorIs(t, err, operate.ErrInvalid)
	require.Equal(t, 1, d.count(t, "rowhook.event_archive"))
}

func TestPauseStopsEveryInstanceAndLastsUntilResume(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	var loads [2]atomic.Int32 // of the configuration, by instance: at the start, when its session listens, and by the pause
	loaded := func(n int32) func() bool {
		return func() bool { return loads[0].Load() >= n && loads[1].Load() >= n }
	}
	for i := range loads {
		d.Run(t, func(c *dispatcher.Config) {
			c.Concurrency = 1 + 99*i
			c.Observers = []dispatcher.Observer{{Configured: func([]dispatcher.TriggerRef) { loads[i].Add(1) }}}
		})
	}
	until(t, "both have loaded it when their sessions listen", loaded(2))
	names, err := operate.Pause(t.Context(), d.conn, "a")
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, names)
	names, err = operate.Pause(t.Context(), d.conn, "a")
	require.NoError(t, err)
	require.Empty(t, names)
	until(t, "both have loaded the pause", loaded(3))
	d.do(t, "insert into a (v) select 'x' from generate_series(1, 20)")
	d.do(t, "insert into b (v) values ('y')")
	until(t, "the other one is delivered", func() bool { return d.receiver.unique() == 1 })
	d.Run(t) // a dispatcher that starts while the trigger is paused
	d.Apply(t, d.Spec("a", func(s *trigger.Spec) { s.Retry.Limit = 1 }), d.Spec("b"))
	d.do(t, "insert into b (v) values ('z')")
	until(t, "the other one is delivered again", func() bool { return d.receiver.unique() == 2 })
	require.Equal(t, 20, d.count(t, "rowhook.event_log where claimed_by is null and tries = 0"), "recorded, and not delivered")
	names, err = operate.Resume(t.Context(), d.conn)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, names)
	until(t, "everything is delivered", func() bool { return d.receiver.unique() == 22 })
	_, err = operate.Pause(t.Context(), d.conn, "nobody")
	require.ErrorIs(t, err, operate.ErrNotFound)
}

func TestInvokeRecordsAManualEventWhereTheTriggerAllowsIt(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.Apply(t, d.Spec("a"), d.Spec("b", func(s *trigger.Spec) { s.On.Manual = false }))
	d.Run(t)
	id, err := operate.Invoke(t.Context(), d.conn, "a", json.RawMessage(`{"n": 1.10}`))
	require.NoError(t, err)
	until(t, "it arrives", func() bool { return d.receiver.got(id) == 1 })
	_, err = operate.Invoke(t.Context(), d.conn, "b", json.RawMessage(`1`))
	require.ErrorIs(t, err, operate.ErrRefused)
	_, err = operate.Invoke(t.Context(), d.conn, "c", json.RawMessage(`1`))
	require.ErrorIs(t, err, operate.ErrNotFound)
	_, err = operate.Invoke(t.Context(), d.conn, "a", json.RawMessage(`{`))
	require.ErrorIs(t, err, operate.ErrInvalid)
}
