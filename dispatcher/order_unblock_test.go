package dispatcher_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// The owner of a lane looks for the places of dead letters only while its trigger asks for that.
func TestARedeliveredDeadLetterIsSentWhenItsTriggerDoesNotBlockAnyMore(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{"applied, then redelivered": "apply", "redelivered, then applied": "redeliver"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			blocks := func(s *trigger.Spec) {
				s.Order = trigger.Order{By: []string{trigger.OrderByRow}, OnDead: trigger.OnDeadBlock}
				s.Retry.Limit = 0
			}
			b.watch(t, "orders", blocks)
			b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, _ *http.Request) {
				if n == 0 && string(d.new["n"]) == "0" {
					w.WriteHeader(http.StatusUnprocessableEntity)
				}
			})
			b.start(t)
			conn := b.Conn(t)
			b.Exec(t, "insert into orders (n) select 0 from generate_series(1, 3)")
			b.Exec(t, "update orders set n = 1")
			eventually(t, conn, 3, "select count(*)::integer from rowhook.dead_letter where blocks")
			eventually(t, conn, 3, "select count(*)::integer from rowhook.event_log")
			// The owner has read its lanes to the end.
			require.Never(t, func() bool { return len(b.receiver.on("orders")) > 3 }, 2*time.Second, 50*time.Millisecond)
			apply := func() {
				b.watch(t, "orders", blocks, func(s *trigger.Spec) { s.Order.OnDead = "" })
				require.Zero(t, one[int](t, conn, "select count(*) from rowhook.dead_letter where blocks"))
			}
			if first == "apply" {
				apply()
				b.receiver.await(t, "orders", 6)
			}
			out, err := operate.Redeliver(t.Context(), conn, operate.Filter{States: []operate.State{operate.Dead}}, operate.BulkOptions{})
			require.NoError(t, err)
			require.EqualValues(t, 3, out.Changed)
			if first == "redeliver" {
				apply()
			}
			b.receiver.await(t, "orders", 9)
			b.settled(t)
		})
	}
}
