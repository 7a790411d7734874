package dispatcher_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// The owner of a lane knows its events by heart. It has to notice what others do with them.
func TestTheOwnerOfALaneNoticesARetryNowAndADiscard(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow, func(s *trigger.Spec) { s.Retry.Interval = trigger.Duration(time.Hour) })
	b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if n == 0 && d.retry == 0 && string(d.new["n"]) == "0" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	b.start(t)
	conn := b.Conn(t)
	b.Exec(t, "insert into orders (n) values (0), (0)")
	b.Exec(t, "update orders set n = id")
	retrying := func() (ids []string) {
		page, err := operate.List(t.Context(), conn, operate.Filter{States: []operate.State{operate.Retrying}}, operate.ListOptions{})
		require.NoError(t, err)
		for _, e := range page.Events {
			ids = append(ids, e.ID)
		}
		return ids
	}
	require.Eventually(t, func() bool { return len(retrying()) == 2 }, patience, 10*time.Millisecond)
	ids := retrying()
	page, err := operate.List(t.Context(), conn, operate.Filter{States: []operate.State{operate.Waiting}}, operate.ListOptions{})
	require.NoError(t, err)
	require.Len(t, page.Events, 2, "they wait behind the events that are retried")

	_, err = operate.RetryNow(t.Context(), conn, operate.RetryOptions{Trigger: "orders", IDs: ids[:1]})
	require.NoError(t, err)
	_, err = operate.Discard(t.Context(), conn, operate.Filter{IDs: ids[1:]}, operate.BulkOptions{})
	require.NoError(t, err)
	left, err := operate.Drain(t.Context(), conn, []string{"orders"}, nil)
	require.NoError(t, err)
	require.Empty(t, left)
	requireOrder(t, b.receiver.on("orders"))
	require.Len(t, b.receiver.on("orders"), 2+1+2, "two failed, one was retried, and one more for each row")
}

func TestARedeliveredEventHoldsUpNoKey(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow)
	b.start(t)
	conn := b.Conn(t)
	b.Exec(t, "insert into orders (n) values (0)")
	drained := func() {
		t.Helper()
		left, err := operate.Drain(t.Context(), conn, []string{"orders"}, nil)
		require.NoError(t, err)
		require.Empty(t, left)
	}
	drained()
	first := b.receiver.on("orders")[0]
	b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if d.id == first.id {
			w.WriteHeader(http.StatusInternalServerError) // it is retried for long
		}
	})
	_, err := operate.Redeliver(t.Context(), conn, operate.Filter{IDs: []string{first.id}}, operate.BulkOptions{})
	require.NoError(t, err)
	b.Exec(t, "update orders set n = 5")
	require.Eventually(t, func() bool {
		all := b.receiver.on("orders")
		return len(all) > 0 && string(all[len(all)-1].new["n"]) == "5"
	}, patience, 10*time.Millisecond)
	for _, d := range b.receiver.on("orders") {
		if d.id == first.id {
			require.Contains(t, d.body, `"sequence":1,`)
		}
	}
}
