package dispatcher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A transaction that was open while its trigger lost its order leaves events that no claim finds.
func TestEventsThatWaitedInOrderAreSentWhenTheirTriggerHasNone(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "t")
	b.Exec(t, `insert into rowhook.event_log (id, trigger_id, op, new, due_at, key, lane, seq)
		select rowhook.uuid7(), id, 'I', '{"v": 1}', now() + interval '1752000 hours', '[1]', 1, 1 from rowhook.trigger`)
	b.start(t)
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, b.Conn(t).QueryRow(t.Context(), "select count(*) from rowhook.event_archive where seq = 1").Scan(&n))
		return n == 1
	}, patience, 20*time.Millisecond)
}
