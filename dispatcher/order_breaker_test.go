package dispatcher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestAnOrderedTriggerWhoseEndpointFailsIsProbedAndRecovers(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	a := &ailing{}
	b.receiver.respond(a.answer)
	b.watch(t, "orders", quickRetry, byRow)
	b.start(t)
	b.start(t)
	conn := b.Conn(t)
	b.insert(t, "orders", 100)
	b.Exec(t, "update orders set n = n + 1000")
	eventually(t, conn, 1, failingRows)
	eventually(t, conn, true, "select probes >= 2 from rowhook.health")
	require.LessOrEqual(t, int(a.requests.Load()), one[int](t, conn, attemptRows)+one[int](t, conn, "select probes from rowhook.health")+1)

	// A dispatcher without an event to send does not keep the probe from the other.
	a.well.Store(true)
	b.settled(t)
	requireOrder(t, b.receiver.on("orders"))
	require.Equal(t, 0, one[int](t, conn, deadRows))
	require.Equal(t, 200, one[int](t, conn, "select count(*)::integer from rowhook.event_archive"))
}

func TestTheOnlyEventThatWaitsInOrderIsProbedWith(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	a := &ailing{}
	b.receiver.respond(a.answer)
	b.watch(t, "orders", quickRetry, byRow, func(s *trigger.Spec) { s.Retry.Interval = trigger.Duration(50 * time.Millisecond) })
	for range 3 {
		b.start(t)
	}
	conn := b.Conn(t)
	b.insert(t, "orders", 1)
	eventually(t, conn, 1, failingRows)
	a.well.Store(true)
	b.settled(t)
}
