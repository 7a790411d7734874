package operate_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
)

func TestHastenedRetriesGoAtOnceAndKeepTheirAttempts(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.Run(t) // it polls once an hour, so only the doorbell can wake it
	later := d.wait(t, "a", 3, "tries = 3, due_at = now() + interval '1 hour'")
	other := d.wait(t, "b", 1, "tries = 3, due_at = now() + interval '1 hour'")
	got, err := operate.Hasten(t.Context(), d.conn, "a", later[0])
	require.NoError(t, err)
	require.Equal(t, later[:1], got)
	until(t, "the chosen one is delivered", func() bool { return d.receiver.got(later[0]) == 1 })
	got, err = operate.Hasten(t.Context(), d.conn, "a")
	require.NoError(t, err)
	require.ElementsMatch(t, later[1:], got)
	until(t, "all of the trigger are delivered", func() bool { return d.count(t, "rowhook.event_archive where tries = 4") == 3 })
	require.Equal(t, 1, d.count(t, "rowhook.event_log where id = $1::text::uuid and due_at > now()", other[0]))
}

func TestHastenLeavesWhatIsInFlightOrDueAndRefusesUnknownTriggers(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.wait(t, "a", 1, "claimed_by = 7, tries = 1, due_at = now() + interval '1 minute'")
	d.wait(t, "a", 1, "tries = 1, due_at = now() - interval '1 minute'")
	d.wait(t, "a", 1)
	got, err := operate.Hasten(t.Context(), d.conn, "a")
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = operate.Hasten(t.Context(), d.conn, "A")
	require.ErrorIs(t, err, operate.ErrNotFound)
}
