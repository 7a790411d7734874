package queue_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/queue"
)

func TestAnAttemptOfALaneThatIsNotedCountsUntilItIsSettledOrGivenBack(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.lanes(t, 1)
	lane := own(t, q.conn, 7, 1, 1)[0]
	note := func(instance int32, e queue.LaneEvent, lane queue.Lane) int {
		t.Helper()
		noted, err := queue.NoteAttempts(t.Context(), q.conn, instance, []queue.LaneAttempt{{ID: e.ID, Tries: e.Tries, Lane: lane}})
		require.NoError(t, err)
		return len(noted)
	}
	look := func() queue.LaneEvent {
		t.Helper()
		all := read(t, q.conn, laneRead(lane, 0, 10)).Events
		require.Len(t, all, 1)
		return all[0]
	}
	q.park(t, q.conn, lane, "k")
	first := look()
	require.False(t, first.Interrupted)
	require.Equal(t, 1, note(7, first, lane))
	require.Equal(t, 1, note(7, first, lane), "its answer was lost")
	interrupted := look()
	require.True(t, interrupted.Interrupted)
	require.EqualValues(t, 2, interrupted.Tries)
	require.Equal(t, first.DueAt, interrupted.DueAt)
	require.Zero(t, note(8, interrupted, lane))
	require.Zero(t, note(7, interrupted, queue.Lane{Trigger: 1, Lane: lane.Lane, Epoch: lane.Epoch + 1}))
	require.Equal(t, interrupted.Claimed, look().Claimed, "nobody but the owner counts")

	require.Equal(t, 1, note(7, interrupted, lane))
	n, _ := settle(t, q.conn, 7, attempt(interrupted, lane, queue.Released))
	require.Equal(t, 1, n)
	require.Equal(t, interrupted.Claimed, look().Claimed, "it was not made")
	settle(t, q.conn, 7, attempt(interrupted, lane, queue.Released))
	require.Equal(t, interrupted.Claimed, look().Claimed, "written again, it changes nothing")

	require.Equal(t, 1, note(7, interrupted, lane))
	retried := attempt(interrupted, lane, queue.Retried)
	n, _ = settle(t, q.conn, 7, retried)
	require.Equal(t, 1, n)
	n, _ = settle(t, q.conn, 7, retried)
	require.Zero(t, n, "it is written already")
	third := look()
	require.False(t, third.Interrupted)
	require.EqualValues(t, 3, third.Tries)

	require.Equal(t, 1, note(7, third, lane))
	n, _ = settle(t, q.conn, 7, attempt(third, lane, queue.Delivered))
	require.Equal(t, 1, n)
	require.Equal(t, 1, q.count(t, "rowhook.event_archive where tries = 3"))
}
