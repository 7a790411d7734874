package cli_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/sink"
)

// ledger counts how often each event arrived.
type ledger struct {
	mu      sync.Mutex
	times   map[string]int
	changed chan struct{}
	target  int // events at which changed is closed
}

func (l *ledger) receive(d sink.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[d.ID]++
	if l.changed != nil && len(l.times) >= l.target {
		close(l.changed)
		l.changed = nil
	}
}

// await waits until so many different events have arrived and returns how many arrived more than
// once.
func (l *ledger) await(t *testing.T, events int) (twice int) {
	t.Helper()
	reached := make(chan struct{})
	l.mu.Lock()
	if l.target = events; len(l.times) >= events {
		close(reached)
	} else {
		l.changed = reached
	}
	l.mu.Unlock()
	select {
	case <-reached:
	case <-time.After(2 * patience):
		require.FailNow(t, "events are missing", "%d of %d arrived", l.count(), events)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.times {
		if n > 1 {
			twice++
		}
	}
	return twice
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.times)
}

// installed is a database with the orders trigger, and the ledger of what arrives.
func installed(t *testing.T, delay time.Duration) (*pgtest.DB, *ledger, []string) {
	t.Helper()
	l := &ledger{times: map[string]int{}}
	s := &sink.Sink{Behaviour: sink.Behaviour{Delay: delay}, OnDelivery: l.receive, Keep: 1}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	db := pgtest.NewEmpty(t)
	db.Exec(t, "create table orders (id bigint generated always as identity primary key, status text)")
	env := database(db.URL())
	code, _, stderr := rowhook(t, env, "apply", "-f", ordersConfig(t, server.URL))
	require.Zero(t, code, stderr)
	return db, l, env
}

func count(t *testing.T, db *pgtest.DB, sql string) (n int) {
	t.Helper()
	require.NoError(t, db.Conn(t).QueryRow(t.Context(), "select count(*) from "+sql).Scan(&n))
	return n
}

func TestKilledInTheMiddleEverythingArrivesAndNothingIsStuck(t *testing.T) {
	t.Parallel()
	db, l, env := installed(t, 5*time.Millisecond)
	db.Exec(t, "insert into orders (status) select 'x' from generate_series(1, 5000)")
	p := start(t, env, "run", "--poll-interval", "1h", "--concurrency", "50")
	l.await(t, 1000)
	require.NoError(t, p.cmd.Process.Kill())
	_ = p.cmd.Wait()
	require.Positive(t, count(t, db, "rowhook.event_log where claimed_by is not null"), "it died with claims")
	again := time.Now()
	start(t, env, "run", "--poll-interval", "1h", "--concurrency", "50")
	require.LessOrEqual(t, l.await(t, 5000), 600, "more were sent twice than can have been in flight or unsettled")
	conn := db.Conn(t)
	require.Eventually(t, func() bool {
		var left int
		return conn.QueryRow(t.Context(), "select count(*) from rowhook.event_log").Scan(&left) == nil && left == 0
	}, patience, 10*time.Millisecond)
	var interrupted time.Time
	require.NoError(t, conn.QueryRow(t.Context(), "select max(started_at) from rowhook.invocation_log where attempt > 1").Scan(&interrupted))
	require.Less(t, interrupted.Sub(again), patience, "an interrupted event waited for the end of its lease, of 90 s")
	require.Equal(t, 5000, count(t, db, "rowhook.event_archive"))
}

// TestAnEventInOrderThatKillsDispatchersIsBuriedAndItsKeyGoesOn has a receiver that kills whoever sends
// it one event, as a payload does for which there is not enough memory. When two have died, its one
// attempt counts, and so does the one that is made alone.
func TestAnEventInOrderThatKillsDispatchersIsBuriedAndItsKeyGoesOn(t *testing.T) {
	t.Parallel()
	const deadly, sent = "update orders set status = 'deadly' where id = 7", "update orders set status = 'sent' where id in (7, 8)"
	for name, c := range map[string]struct {
		keys, changes string
		tries         int
	}{
		"by row":     {"order: row", deadly + ";" + sent, 3},
		"latest":     {"order: {by: row, latest: true}", deadly, 3},
		"in batches": {"order: row\n    batch: {max: 10}", deadly + ";" + sent, 4}, // one more, alone
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var p *process
			killed := 0
			died := make(chan struct{}, 1)
			kills := func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if !strings.Contains(string(body), `"new":{"id":7,"status":"deadly"}`) {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				killed++
				_ = p.cmd.Process.Kill()
				_ = p.cmd.Wait()
				died <- struct{}{}
			}
			server := httptest.NewServer(http.HandlerFunc(kills))
			t.Cleanup(server.Close)
			db := pgtest.NewEmpty(t)
			db.Exec(t, "create table orders (id bigint primary key, status text)")
			env := database(db.URL())
			config := filepath.Join(t.TempDir(), "rowhook.yaml")
			require.NoError(t, os.WriteFile(config, []byte("triggers:\n  - name: orders\n    table: orders\n    on: {insert: true, update: true}\n    "+c.keys+
				"\n    retry: {limit: 0}\n    webhook: {url: "+server.URL+"}\n"), 0o600))
			code, _, stderr := rowhook(t, env, "apply", "-f", config)
			require.Zero(t, code, stderr)
			run := func() {
				mu.Lock()
				defer mu.Unlock()
				p = start(t, env, "run", "--poll-interval", "1h", "--http", "off")
			}
			run()
			db.Exec(t, "insert into orders select n, 'fine' from generate_series(1, 50) n;"+c.changes)
			conn := db.Conn(t)
			left := func() (n int) {
				require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from rowhook.event_log").Scan(&n))
				return n
			}
			for timeout := time.After(4 * patience); left() > 0; {
				select {
				case <-died:
					run()
				case <-time.After(20 * time.Millisecond):
				case <-timeout:
					require.FailNow(t, "events wait without end", "%d, after %d killings", left(), killed)
				}
			}
			// One more than usual if it was still behind its insert, or merged with it, when it became suspected.
			require.LessOrEqual(t, killed, c.tries+3)
			require.Greater(t, killed, c.tries)
			require.Equal(t, 1, count(t, db, "rowhook.dead_letter"))
			var dead string
			require.NoError(t, conn.QueryRow(t.Context(), "select new->>'status' || ', ' || tries || ': ' || reason from rowhook.dead_letter").Scan(&dead))
			require.Contains(t, dead, fmt.Sprintf("deadly, %d: its attempts were interrupted", c.tries))
			require.Equal(t, strings.Count(c.changes, sent), count(t, db, "rowhook.event_archive where new->>'status' = 'sent' and new->>'id' = '7'"))
		})
	}
}

func TestTermUnderLoadExitsCleanAndNothingIsLostOrSentTwice(t *testing.T) {
	t.Parallel()
	db, l, env := installed(t, 10*time.Millisecond)
	db.Exec(t, "insert into orders (status) select 'x' from generate_series(1, 3000)")
	for _, until := range []int{500, 1200, 2000} {
		p := start(t, env, "run", "--poll-interval", "1h")
		l.await(t, until)
		p.signal(t, syscall.SIGTERM)
		require.Zero(t, p.exit(t))
		require.Zero(t, count(t, db, "rowhook.event_log where claimed_by is not null or tries > 0"))
	}
	start(t, env, "run", "--poll-interval", "1h")
	require.Zero(t, l.await(t, 3000))
}

func TestBulkAndSingleInsertsUpdatesAndDeletesAllArriveOnce(t *testing.T) {
	t.Parallel()
	db, l, env := installed(t, 0)
	start(t, env, "run", "--poll-interval", "1h").stderr.waitFor(t, "ready")
	singles := insertSingles(t, db, 8, 250)
	db.Exec(t, "insert into orders (status) select 'bulk' from generate_series(1, 10000)")
	singles.Wait()
	db.Exec(t, "update orders set status = 'paid' where id <= 1000")
	db.Exec(t, "update orders set status = 'paid' where id <= 1000") // changes nothing
	db.Exec(t, "delete from orders where id <= 500")
	require.Zero(t, l.await(t, 13500))
	require.Equal(t, 13500, l.count())
}

// insertSingles has writers insert orders one by one, each on a connection of its own, until they
// are done.
func insertSingles(t *testing.T, db *pgtest.DB, writers, each int) *sync.WaitGroup {
	t.Helper()
	var wg sync.WaitGroup
	for range writers {
		conn := db.Conn(t)
		wg.Go(func() {
			for range each {
				if _, err := conn.Exec(t.Context(), "insert into orders (status) values ('single')"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return &wg
}
