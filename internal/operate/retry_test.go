package operate_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
)

func TestRetriesGoAtOnceAndKeepTheirAttempts(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	later := d.wait(t, "a", 3, "tries = 3, due_at = now() + interval '1 hour'")
	other := d.wait(t, "b", 1, "tries = 3, due_at = now() + interval '1 hour'")
	d.Run(t) // it polls once an hour, so only the doorbell can wake it
	got, err := operate.RetryNow(t.Context(), d.conn, operate.RetryOptions{Trigger: "a", IDs: []string{later[0], other[0]}})
	require.NoError(t, err)
	require.Equal(t, &operate.Retried{Trigger: "a", Events: 1, IDs: later[:1]}, got)
	until(t, "the chosen one is delivered", func() bool { return d.receiver.got(later[0]) == 1 })
	got, err = operate.RetryNow(t.Context(), d.conn, operate.RetryOptions{Trigger: "a"})
	require.NoError(t, err)
	require.ElementsMatch(t, later[1:], got.IDs)
	until(t, "all of the trigger are delivered", func() bool { return d.count(t, "rowhook.event_archive where tries = 4") == 3 })
	require.Equal(t, 1, d.count(t, "rowhook.event_log where id = $1::text::uuid and due_at > now()", other[0]))

	page, err := operate.Audit(t.Context(), d.conn, operate.AuditOptions{Actions: []string{"retry"}})
	require.NoError(t, err)
	require.Len(t, page.Entries, 2)
	require.JSONEq(t, `{"events": 2}`, string(page.Entries[0].Detail))
	require.Equal(t, []string{"a"}, page.Entries[0].Target)
}

func TestRetryNowLeavesWhatIsInFlightOrDueAndRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.wait(t, "a", 1, "claimed_by = 7, tries = 1, due_at = now() + interval '1 minute'")
	d.wait(t, "a", 1, "tries = 1, due_at = now() - interval '1 minute'")
	d.wait(t, "a", 1)
	got, err := operate.RetryNow(t.Context(), d.conn, operate.RetryOptions{Trigger: "a", Wait: 20 * time.Millisecond})
	require.NoError(t, err)
	require.Equal(t, &operate.Retried{Trigger: "a", IDs: []string{}}, got)
	require.Zero(t, d.count(t, "rowhook.audit where action = 'retry'"), "nothing was done")
	_, err = operate.RetryNow(t.Context(), d.conn, operate.RetryOptions{Trigger: "A"})
	require.ErrorIs(t, err, operate.ErrNotFound)
	_, err = operate.RetryNow(t.Context(), d.conn, operate.RetryOptions{Trigger: "a", IDs: []string{"7"}})
	require.ErrorIs(t, err, operate.ErrInvalid)
}

func TestRetryNowTakesAnyNumberOfEvents(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.wait(t, "a", 2500, "tries = 1, due_at = now() + interval '1 hour'")
	got, err := operate.RetryNow(t.Context(), d.conn, operate.RetryOptions{Trigger: "a"})
	require.NoError(t, err)
	require.EqualValues(t, 2500, got.Events)
	require.Len(t, got.IDs, operate.MaxRetriedIDs)
	require.Zero(t, d.count(t, "rowhook.event_log where due_at > now()"))
}

func TestRetryNowWaitsUntilAnAttemptHasFailed(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	operator := d.DB.Conn(t)
	type outcome struct {
		*operate.Retried
		err error
	}
	ended := make(chan outcome, 1)
	ids := d.wait(t, "a", 1)
	go func() {
		got, err := operate.RetryNow(t.Context(), operator, operate.RetryOptions{Trigger: "a", Wait: patience})
		ended <- outcome{got, err}
	}()
	d.do(t, "update rowhook.event_log set tries = 1, due_at = now() + interval '1 hour'")
	got := <-ended
	require.NoError(t, got.err)
	require.Equal(t, ids, got.IDs)
}
