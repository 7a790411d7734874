package cli_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
)

// A replay under new ids is killed, and gone on with. The receiver gets a copy of each event, once.
func TestAReplayThatIsKilledAndContinuedSendsEachEventOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	s, url := receiver(t)
	env := database(db.URL())
	run := start(t, env, "run", "-f", manualConfig(t, url))
	run.stderr.waitFor(t, "ready")
	const n = 2000
	db.Exec(t, `insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, new)
select rowhook.uuid7(), now(), now(), (select id from rowhook.trigger where name = 'order_changed'), 1, 'I', json_build_object('id', i) from generate_series(1, $1::integer) i`, n)
	conn := db.Conn(t)
	replayed := func() (n int64) {
		require.NoError(t, conn.QueryRow(t.Context(), "select coalesce(max(replayed), 0) from rowhook.replay").Scan(&n))
		return n
	}
	victim := start(t, env, "replay", "order_changed", "--from", "1h", "--as-new", "--yes")
	require.Eventually(t, func() bool { return replayed() > 200 }, patience, 2*time.Millisecond)
	victim.signal(t, syscall.SIGKILL)
	victim.exit(t)
	part := replayed()
	require.Less(t, part, int64(n))
	code, _, stderr := rowhook(t, env, "replay", "order_changed", "--continue", "--yes")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "a replay of order_changed is running")
	require.Equal(t, part, replayed())
	db.Exec(t, "update rowhook.replay set touched_at = touched_at - interval '16 seconds'") // instead of waiting
	code, stdout, stderr := rowhook(t, env, "status")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "of order_changed, interrupted: ")
	code, stdout, stderr = rowhook(t, env, "replay", "order_changed", "--continue", "--yes", "--json")
	require.Zero(t, code, stderr)
	require.EqualValues(t, n, decode[operate.ReplayStatus](t, stdout).Replayed)
	code, _, stderr = rowhook(t, env, "drain")
	require.Zero(t, code, stderr)
	rows := map[string]int{}
	for _, d := range s.Deliveries() {
		rows[string(d.New())]++
	}
	require.Len(t, rows, n)
	for row, times := range rows {
		require.Equal(t, 1, times, row)
	}
}
