package operate_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
)

func TestStatusSaysWhatIsToldAndWhatCouldNotBeTold(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "orders")
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Empty(t, s.Alerts)
	d.do(t, `insert into rowhook.alert (destination, kind, subject, endpoint, active, begun_at, facts, told, told_at, again, pending, attempts, error) values
		('a', 'failing', 'orders', 'https://hooks.slack.com:443', true, now() - interval '1 hour', '{"reason": "answered 503"}', 'begun', now(), 0, '', 0, null),
		('b', 'failing', 'orders', 'https://e.com:443', true, now(), '{"reason": "answered 503"}', '', null, 1, 'begun', 3, 'answered 404 Not Found'),
		('b', 'dead', 'orders', 'https://e.com:443', false, now(), '{}', 'ended', now(), 0, '', 0, null),
		('c', 'heartbeat', '', 'https://ping.example:443', true, now(), '{}', '', null, 0, '', 7, 'no answer')`)
	s, err = operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Len(t, s.Alerts, 2)
	require.NotNil(t, s.Alerts[0].ToldAt)
	require.Equal(t, "answered 503", s.Alerts[0].Reason)
	require.Nil(t, s.Alerts[1].ToldAt)
	require.Equal(t, []string{"failing", "orders", "https://e.com:443", "answered 404 Not Found"}, []string{s.Alerts[1].Alert, s.Alerts[1].About, s.Alerts[1].To, s.Alerts[1].Error})
	require.True(t, s.Warns("alert_not_sent", ""))
	require.True(t, s.Warns("heartbeat_not_sent", ""))
	for _, w := range s.Warnings {
		if w.Code == "alert_not_sent" {
			require.Equal(t, "alerts can't be sent to https://e.com:443, after 3 attempts: answered 404 Not Found", w.Problem)
		}
	}
}
