package dispatcher_test

import (
	"strings"
	"testing"

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
	r.says(t, begun) // by whichever look found it
	require.Equal(t, 1, strings.Count(r.log.String(), begun), r.log.String())
	require.Len(t, r.Stats().Uncaptured, 1)
	require.Contains(t, r.Stats().Uncaptured[0].Remedy, `run "rowhook apply"`)
	require.NotContains(t, r.log.String(), ended)

	b.apply(t, b.Spec("orders"))
	r.says(t, ended) // an apply is noticed at once
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
	r.says(t, "on public.orders is disabled")
}
