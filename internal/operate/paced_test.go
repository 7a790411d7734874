package operate_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
)

// register adds an instance with a trouble of this JSON form. It lives as long as the test.
func (d *desk) register(t *testing.T, id int, trouble string) {
	t.Helper()
	d.do(t, "insert into rowhook.instance (id, name, version, listens, seen_at, trouble) values ($1, 'x', 'v', false, now() + interval '1 hour', $2)", id, trouble)
}

func TestStatusDrainAndCancelCountWhatWaitsForItsRateAsWaiting(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.register(t, 7, `{"paced": {"a": {"events": 3, "retried": 1}}}`)
	d.register(t, 8, `{"paced": {"a": {"events": 2}}}`)
	for _, trigger := range []string{"a", "b"} {
		d.wait(t, trigger, 6, "claimed_by = 7, tries = 1, due_at = now() + interval '1 minute'")
	}
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	a, b := statusOf(t, s, "a"), statusOf(t, s, "b")
	require.Equal(t, []int64{4, 1, 1}, []int64{a.Waiting, a.InFlight, a.Retrying})
	require.Equal(t, []int64{0, 6, 0}, []int64{b.Waiting, b.InFlight, b.Retrying})
	done, cancel := context.WithCancel(t.Context())
	cancel()
	left, err := operate.Drain(done, d.conn, nil, nil)
	require.NoError(t, err)
	require.Equal(t, []operate.Left{{Trigger: "a", Waiting: 4, InFlight: 1, Retrying: 1}, {Trigger: "b", InFlight: 6}}, left)
	canceled, err := operate.Cancel(t.Context(), d.conn, "a")
	require.NoError(t, err)
	require.EqualValues(t, 1, canceled.InFlight)
}

func TestStatusSaysWhoMakesAProbe(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.register(t, 7, "{}")
	d.do(t, `insert into rowhook.health (target, triggers, endpoint, state, since, reason, probe_at)
		select 'http://h', array[id], 'http://h', 'failing', now(), 'refused', now() + interval '1 minute' from rowhook.trigger`)
	prober := func(change string) *int32 {
		t.Helper()
		d.do(t, "update rowhook.health set "+change)
		s, err := operate.ReadStatus(t.Context(), d.conn)
		require.NoError(t, err)
		return s.Triggers[0].Health.ProberID
	}
	require.Nil(t, prober("prober = null"))
	require.Equal(t, int32(7), *prober("prober = 7"))
	require.Nil(t, prober("prober = 6"), "it is not registered")
	require.Nil(t, prober("prober = 7, probe_at = now() - interval '1 second'"), "its lease is over")
	require.Nil(t, prober("state = 'probing', probe_at = now() + interval '1 minute'"))
}

func TestAHostThatNoTriggerLeadsToAnyMoreIsNotShownAsFailing(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.do(t, `insert into rowhook.health (target, triggers, endpoint, state, since, changed_at, reason, probe_at)
		select 'http://h', array[id], 'http://h', 'failing', now() - interval '5 minutes', now() - interval '5 minutes', 'refused', now() - interval '1 minute' from rowhook.trigger`)
	shown := func(change string) bool {
		t.Helper()
		d.do(t, change)
		s, err := operate.ReadStatus(t.Context(), d.conn)
		require.NoError(t, err)
		return s.Triggers[0].Health != nil
	}
	require.True(t, shown("update rowhook.trigger set applied_at = now() - interval '1 hour'"))
	require.False(t, shown("update rowhook.trigger set applied_at = now() - interval '3 minutes'"), "it leads elsewhere")
	require.True(t, shown("update rowhook.health set probe_at = now() + interval '1 minute'"), "it is still probed")
	require.True(t, shown("update rowhook.health set state = 'probing', probe_at = now() - interval '1 minute'"))
}
