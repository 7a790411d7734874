package dispatcher_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestEverythingArrivesAfterPostgresCrashedUnderLoad(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, "fsync=on") // a crash of the server must not lose what it had committed
	b := newFixtureOn(t, server.New(t))
	b.watch(t, "orders")
	b.start(t)

	ctx, stop := context.WithCancel(t.Context())
	var committed atomic.Int64
	written := make(chan struct{})
	go func() {
		defer close(written)
		var conn *pgx.Conn
		for ctx.Err() == nil {
			if conn == nil {
				var err error
				if conn, err = pgx.Connect(ctx, b.URL()); err != nil {
					conn = nil
					continue
				}
			}
			if _, err := conn.Exec(ctx, "insert into orders default values"); err != nil {
				_ = conn.Close(context.WithoutCancel(ctx))
				conn = nil
				continue
			}
			committed.Add(1)
		}
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for i := range 3 {
		b.receiver.await(t, "orders", len(b.receiver.on("orders"))+200*(i+1))
		server.Restart(t, localpg.Immediate)
	}
	b.receiver.await(t, "orders", len(b.receiver.on("orders"))+200)
	stop()
	<-written
	b.settled(t)
	rows := one[int](t, b.Conn(t), "select count(*) from orders")
	require.GreaterOrEqual(t, rows, int(committed.Load()))
	require.Equal(t, rows, b.receiver.unique("orders"))
	require.Equal(t, rows, one[int](t, b.Conn(t), "select count(*) from rowhook.event_archive"))
}

func TestTerminatedSessionsAreReplacedAndNothingIsLost(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.start(t)
	conn := b.Conn(t)
	for range 10 {
		b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 200)")
		_, err := conn.Exec(t.Context(), "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'rowhook %' and datname = current_database()")
		require.NoError(t, err)
	}
	b.receiver.await(t, "orders", 2000)
	b.settled(t)
	require.Equal(t, 2000, b.receiver.unique("orders"))
}

func TestAPauseLongerThanTheLeaseSettlesNothingThatOthersTookOver(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	conn := b.Conn(t)
	held := make(chan struct{})
	b.receiver.respond(holdFirst(held))
	slow := b.start(t)
	b.Exec(t, "insert into orders default values")
	b.receiver.await(t, "orders", 1)
	// As if its lease had ended while it was stopped: another one takes the event over and delivers
	// it.
	_, err := conn.Exec(t.Context(), "update rowhook.event_log set due_at = clock_timestamp(), claimed_by = null")
	require.NoError(t, err)
	b.start(t, func(c *dispatcher.Config) { c.Name = "other" })
	got := b.receiver.await(t, "orders", 2)
	require.Equal(t, got[0].id, got[1].id)
	b.settled(t)
	close(held)
	slow.Stop(t)
	require.Equal(t, 1, one[int](t, conn, "select count(*) from rowhook.event_archive"))
	require.Equal(t, 2, one[int](t, conn, "select count(*) from rowhook.invocation_log"), "both attempts are on record")
	require.Contains(t, slow.log.String(), "taken over")
	require.WithinDuration(t, time.Now(), one[time.Time](t, conn, "select delivered_at from rowhook.event_archive"), time.Minute)
}

// failOnce has the first attempt of every event fail.
func failOnce(n int, _ delivery, w http.ResponseWriter, _ *http.Request) {
	if n == 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

func retryAfter(interval time.Duration) func(*trigger.Spec) {
	return func(s *trigger.Spec) { s.Retry.Interval = trigger.Duration(interval) }
}

func TestRetriesOfAnInstanceThatStoppedAreMadeByTheOthers(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.receiver.respond(failOnce)
	b.watch(t, "orders", retryAfter(3*time.Second))
	conn := b.Conn(t)
	dispatchers := map[string]*running{}
	for _, name := range []string{"a", "b"} {
		dispatchers[name] = b.start(t, func(c *dispatcher.Config) { c.Name = name })
	}
	b.Exec(t, "insert into orders default values")
	eventually(t, conn, 1, "select count(*)::integer from rowhook.invocation_log")
	owner := one[string](t, conn, "select i.name from rowhook.invocation_log l join rowhook.instance i on i.id = l.instance_id")
	dispatchers[owner].Stop(t)
	b.receiver.await(t, "orders", 2)
}

func TestATriggerRemovedAndAddedDuringAnAttemptIsRetried(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	held := make(chan struct{})
	b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, r *http.Request) {
		holdFirst(held)(n, d, w, r)
		failOnce(n, d, w, r)
	})
	retried := func(s *trigger.Spec) {
		retryAfter(time.Second)(s)
		s.Webhook.Timeout = trigger.Duration(patience) // an attempt that times out while there is no trigger is the last one
	}
	b.watch(t, "orders", retried)
	b.watch(t, "other")
	r := b.start(t)
	b.Exec(t, "insert into orders default values")
	b.receiver.await(t, "orders", 1)
	conn := b.Conn(t)
	_, err := sqlschema.Apply(t.Context(), conn, []trigger.Spec{b.Spec("other")}, trigger.DefaultSettings(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return strings.Count(r.log.String(), "configuration loaded") == 1 }, patience, 5*time.Millisecond)
	b.apply(t, b.Spec("orders", retried))
	require.Eventually(t, func() bool { return strings.Count(r.log.String(), "configuration loaded") == 2 }, patience, 5*time.Millisecond)
	close(held)
	b.receiver.await(t, "orders", 2)
}

func TestAReaderOfTheHistoryDoesNotHoldUpAStart(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	tomorrow := time.Now().UTC().AddDate(0, 0, 1).Format("20060102")
	b.Exec(t, "drop table rowhook.event_archive_"+tomorrow+", rowhook.invocation_log_"+tomorrow)
	tx, err := b.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), "select from rowhook.event_archive, rowhook.invocation_log") // as pg_dump does
	require.NoError(t, err)
	b.start(t)
	b.Exec(t, "insert into orders default values")
	b.settled(t)
	require.Equal(t, 1, one[int](t, b.Conn(t), "select count(*) from pg_class where relname = $1", "event_archive_"+tomorrow))
}

func TestWritersRingAgainAsSoonAsASilentInstanceStops(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	held := make(chan struct{})
	b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, r *http.Request) {
		if d.path == "hangs" {
			holdFirst(held)(n, d, w, r)
		}
	})
	b.watch(t, "orders")
	b.watch(t, "hangs")
	r := b.start(t, func(c *dispatcher.Config) { c.Concurrency = 1 }) // with no slot free it is silent
	conn := b.Conn(t)
	b.Exec(t, "insert into hangs default values")
	b.receiver.await(t, "hangs", 1)
	writing, stop := context.WithCancel(t.Context())
	defer stop()
	for range 4 {
		go func() {
			c, err := pgx.Connect(writing, b.URL())
			if err != nil {
				return
			}
			for writing.Err() == nil {
				_, _ = c.Exec(writing, "insert into orders default values")
			}
			_ = c.Close(context.WithoutCancel(writing))
		}()
	}
	eventually(t, conn, true, "select last_value = (select id from rowhook.instance) from rowhook.doorbell")
	r.Cancel() // it waits for the one that hangs, for 30 s
	eventually(t, conn, 1, "select last_value::integer from rowhook.doorbell")
	stop()
	close(held)
	r.Stop(t)
}

func TestWhatCouldNotBeSettledIsReclaimedByTheOthers(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	r := b.start(t)
	conn := b.Conn(t)
	tx, err := b.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table rowhook.event_archive")
	require.NoError(t, err)
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 5)")
	b.receiver.await(t, "orders", 5)
	r.Cancel()
	<-r.Done
	require.ErrorContains(t, r.Err, "without settling")
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, 1, one[int](t, conn, "select count(*) from rowhook.instance"), "the others must be able to find it")
	b.start(t)
	b.settled(t)
}

// TestWhatBecomesDueWhileTheNextDueTimeIsAskedForIsNotForgotten has events become due all the time,
// so that some become due after a claim has looked and before the question for the next due time is
// answered.
func TestWhatBecomesDueWhileTheNextDueTimeIsAskedForIsNotForgotten(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	const triggers, each = 20, 40
	var specs []trigger.Spec
	for n := range triggers {
		name := fmt.Sprintf("t%d", n)
		b.Exec(t, "create table "+name+" (id bigint)")
		specs = append(specs, b.Spec(name))
	}
	b.apply(t, specs...)
	b.Exec(t, `insert into rowhook.event_log (id, trigger_id, op, new, due_at)
		select rowhook.uuid7(), t.id, 'I', json_build_object('id', g), clock_timestamp() + interval '1.5 s' + random() * interval '0.5 s'
		  from rowhook.trigger t, generate_series(1, $1) as g`, each)
	b.start(t)
	conn := b.Conn(t)
	require.Eventually(t, func() bool {
		var none bool
		return conn.QueryRow(t.Context(), "select not exists (select from rowhook.event_log)").Scan(&none) == nil && none
	}, patience, 20*time.Millisecond, "events that are due wait for the poll, of an hour")
}

// What the planner knows of a queue that was empty when it was last analyzed must not make a claim
// look at all that is due.
func TestClaimsAndSettlementsReadOnlyWhatTheyTakeAlsoAfterTheEmptyQueueWasAnalyzed(t *testing.T) {
	t.Parallel()
	for name, cost := range map[string]string{"disk": "4", "solid state": "1.1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders")
			const events = 3000
			b.Exec(t, "do $$ begin execute format('alter database %I set random_page_cost = "+cost+"', current_database()); end $$")
			b.Exec(t, "insert into rowhook.event_log (id, trigger_id, op) select rowhook.uuid7(), 1, 'I' from generate_series(1, 100000)")
			b.Exec(t, "delete from rowhook.event_log")
			conn := b.Conn(t)
			_, err := conn.Exec(t.Context(), "vacuum analyze rowhook.event_log")
			require.NoError(t, err)
			b.Exec(t, fmt.Sprintf("insert into orders select from generate_series(1, %d)", events))
			const read = "select sum(idx_tup_read)::integer from pg_stat_all_indexes where relname = 'event_log' and schemaname = 'rowhook'"
			before := one[int](t, conn, read)
			r := b.start(t)
			b.receiver.await(t, "orders", events)
			b.settled(t)
			r.Stop(t) // sessions that end leave their figures
			require.Eventually(t, func() bool { return one[int](t, conn, read) > before }, patience, 50*time.Millisecond)
			// 20,000 to 57,000 as it is, more where a busy machine makes claims small; half a
			// million with the whole index read.
			require.Less(t, one[int](t, conn, read)-before, 50*events)
		})
	}
}
