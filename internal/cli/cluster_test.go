package cli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestFiveInstancesShareTheWorkAndDeliverNothingTwice(t *testing.T) {
	t.Parallel()
	db, l, env := installed(t, 5*time.Millisecond)
	const instances = 5
	for range instances {
		start(t, env, "run", "--poll-interval", "1h", "--concurrency", "20").stderr.waitFor(t, "ready")
	}
	singles := insertSingles(t, db, 4, 100)
	db.Exec(t, "insert into orders (status) select 'bulk' from generate_series(1, 4000)")
	singles.Wait()
	require.Zero(t, l.await(t, 4400))
	conn := db.Conn(t)
	require.Eventually(t, func() bool {
		var owed int
		return conn.QueryRow(t.Context(), "select count(*) from rowhook.event_log").Scan(&owed) == nil && owed == 0
	}, patience, 10*time.Millisecond)
	require.Equal(t, 4400, l.count())
	require.Equal(t, 4400, count(t, db, "rowhook.invocation_log"))
	require.Equal(t, instances, count(t, db, "(select distinct instance_id from rowhook.invocation_log) i"), "instances that took part")
}

func TestRollingRestartsUnderLoadLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	db, l, env := installed(t, 5*time.Millisecond)
	const instances = 3
	running := make([]*process, instances)
	begin := func() *process {
		p := start(t, env, "run", "--poll-interval", "1h")
		p.stderr.waitFor(t, "ready")
		return p
	}
	for i := range running {
		running[i] = begin()
	}
	stop := make(chan struct{})
	written := make(chan int, 1)
	conn := db.Conn(t)
	go func() {
		rows := 0
		defer func() { written <- rows }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := conn.Exec(t.Context(), "insert into orders (status) select 'x' from generate_series(1, 7)"); err != nil {
				t.Error(err)
				return
			}
			rows += 7
		}
	}()
	for range 2 {
		for i := range running {
			running[i].signal(t, syscall.SIGTERM)
			require.Zero(t, running[i].exit(t))
			running[i] = begin()
		}
	}
	close(stop)
	rows := <-written
	require.Greater(t, rows, 100)
	require.Zero(t, l.await(t, rows))
	for _, p := range running {
		p.signal(t, syscall.SIGTERM)
		require.Zero(t, p.exit(t))
	}
	require.Equal(t, rows, l.count())
	require.Equal(t, rows, count(t, db, "rowhook.event_archive"))
	require.Equal(t, rows, count(t, db, "rowhook.invocation_log"), "attempts")
	require.Zero(t, count(t, db, "rowhook.event_log"))
	require.Zero(t, count(t, db, "rowhook.instance"))
}

// TestPausedProcessCannotSettleWhatAnotherHasTakenOver waits for the end of a real lease: the
// attempt's timeout of a second, and the margin of 30 s.
func TestPausedProcessCannotSettleWhatAnotherHasTakenOver(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	attempts := map[string]int{}
	arrived, accept := make(chan struct{}, 2), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		attempts[r.Header.Get("X-Instance")]++
		mu.Unlock()
		if r.Header.Get("X-Instance") == "second" {
			w.Header().Set("Retry-After", "3000")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		arrived <- struct{}{}
		<-accept
	}))
	t.Cleanup(server.Close)
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	file := write(t, "rowhook.yaml", `
triggers:
  - name: order_changed
    table: public.orders
    on: {insert: true}
    webhook: {url: "`+server.URL+`", timeout: 1s, headers: {X-Instance: "${INSTANCE}"}}
`)
	env := func(name string) []string { return append(database(db.URL()), "INSTANCE="+name) }
	code, _, stderr := rowhook(t, env("none"), "apply", "-f", file)
	require.Zero(t, code, stderr)
	first := start(t, env("first"), "run", "--poll-interval", "1h")
	first.stderr.waitFor(t, "ready")
	db.Exec(t, "insert into orders values (1, 1, 'a')")
	<-arrived
	first.signal(t, standStill)
	second := start(t, env("second"), "run", "--poll-interval", "1h")
	second.stderr.waitFor(t, "ready")

	const lease = 31 * time.Second
	select {
	case <-arrived:
	case <-time.After(lease + patience):
		require.FailNow(t, "nobody took over at the end of the lease")
	}
	close(accept) // also the first attempt, which succeeds where nobody is there to hear of it
	conn := db.Conn(t)
	const standing = "select format('%s %s %s', tries, coalesce(claimed_by, 0), due_at) from rowhook.event_log where claimed_by is null"
	var before, after string
	require.Eventually(t, func() bool { return conn.QueryRow(t.Context(), standing).Scan(&before) == nil }, patience, 10*time.Millisecond)
	require.True(t, strings.HasPrefix(before, "2 0 "), before)

	first.signal(t, goOn)
	first.stderr.waitFor(t, "taken over by another instance before this one settled them")
	require.NoError(t, conn.QueryRow(t.Context(), standing).Scan(&after))
	require.Equal(t, before, after)
	require.Zero(t, count(t, db, "rowhook.event_archive"))
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, map[string]int{"first": 1, "second": 1}, attempts)
	require.Equal(t, 2, count(t, db, "rowhook.invocation_log"), fmt.Sprint("attempts of ", attempts))
}
