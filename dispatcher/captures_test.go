package dispatcher_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
)

// TestATableThatIsNoLongerCapturedIsToldOnceAndItsReturnToo swaps a table as an online schema
// change does, by a role that may only dispatch.
func TestATableThatIsNoLongerCapturedIsToldOnceAndItsReturnToo(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	_, url := b.dispatches(t)
	r := b.start(t, func(c *dispatcher.Config) { c.DatabaseURL = url })
	b.Exec(t, "create table orders_new (like orders including all); alter table orders rename to orders_old; alter table orders_new rename to orders")
	for range 3 {
		dispatcher.LookAtCaptures(t.Context(), r.Dispatcher)
	}
	const begun, ended = "changes of a watched table are not captured: public.orders is another table now", "changes of the watched table are captured again"
	require.Equal(t, 1, strings.Count(r.log.String(), begun), r.log.String())
	require.Len(t, r.Stats().Uncaptured, 1)
	require.Contains(t, r.Stats().Uncaptured[0].Remedy, `run "rowhook apply"`)
	require.NotContains(t, r.log.String(), ended)

	b.apply(t, b.Spec("orders"))
	require.Eventually(t, func() bool { return strings.Contains(r.log.String(), ended) }, patience, 5*time.Millisecond, "an apply is noticed at once")
	require.Empty(t, r.Stats().Uncaptured)
	b.Exec(t, "insert into orders (v) values ('new')")
	b.receiver.await(t, "orders", 1)
	dispatcher.LookAtCaptures(t.Context(), r.Dispatcher)
	require.Equal(t, 1, strings.Count(r.log.String(), begun))
	require.Equal(t, 1, strings.Count(r.log.String(), ended))
}

func TestAStartTellsOfTablesThatAreNotCaptured(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.Exec(t, "alter table orders disable trigger all")
	r := b.start(t)
	require.Eventually(t, func() bool { return strings.Contains(r.log.String(), "on public.orders is disabled") }, patience, 5*time.Millisecond)
}
