package sqlschema_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/timed"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// writer inserts into a table again and again until it is stopped, and records the longest insert.
type writer struct {
	stop    context.CancelFunc
	done    sync.WaitGroup
	longest time.Duration
	rows    int
	err     error
}

func (w watched) startWriter(t *testing.T, table string) *writer {
	t.Helper()
	conn := w.Conn(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := &writer{stop: cancel}
	r.done.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			_, r.err = conn.Exec(t.Context(), "insert into "+table+" (a) values (1)")
			r.longest = max(r.longest, time.Since(began))
			if r.err != nil {
				return
			}
			r.rows++
		}
	})
	t.Cleanup(func() { _, _, _ = r.end() })
	return r
}

func (r *writer) end() (rows int, longest time.Duration, err error) {
	r.stop()
	r.done.Wait()
	return r.rows, r.longest, r.err
}

// slack is the time that an operation may take beyond a timeout on a busy machine.
const slack = time.Second

// TestApplyNeverBlocksWritersForLongerThanItsLockTimeout applies to a table that a transaction
// holds for a multiple of the timeout.
func TestApplyNeverBlocksWritersForLongerThanItsLockTimeout(t *testing.T) {
	timed.Alone(t)
	w := newWatched(t, "create table t (a int)")
	busy := watched{w.DB, w.Conn(t)}
	busy.do(t, "begin", "insert into t values (0)")
	writers := []*writer{w.startWriter(t, "t"), w.startWriter(t, "t")}
	const timeout = 300 * time.Millisecond
	_, err := sqlschema.Applier{LockTimeout: timeout, Patience: 20 * timeout}.Apply(t.Context(), w.conn, []trigger.Spec{all("w", "t")}, trigger.DefaultSettings(), quiet())
	var blocked *sqlschema.BusyError
	require.ErrorAs(t, err, &blocked)
	require.Greater(t, blocked.Waited, 4*time.Second)
	for _, r := range writers {
		rows, longest, err := r.end()
		require.NoError(t, err)
		require.Positive(t, rows)
		require.Less(t, longest, timeout+slack, "the longest insert")
		t.Logf("%d inserts while apply waited %s, the longest %s", rows, blocked.Waited.Round(time.Millisecond), longest.Round(time.Millisecond))
	}
}

// TestAMigrationGivesUpALockSoonAndTriesAgain migrates while a transaction holds a lock that the
// migration needs.
func TestAMigrationGivesUpALockSoonAndTriesAgain(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	w := watched{db, db.Conn(t)}
	w.do(t, "create schema rowhook", "create table t (a int)")
	busy, look := watched{w.DB, w.Conn(t)}, watched{w.DB, w.Conn(t)}
	busy.do(t, "begin", "create table rowhook.setting (a int)")
	migrated := make(chan error, 1)
	go func() { migrated <- sqlschema.Migrate(context.WithoutCancel(t.Context()), w.conn, quiet()) }()
	waits, waiting := 0, false
	require.Eventually(t, func() bool {
		now := look.scalar(t, "select exists (select from pg_locks where not granted and pid = $1)", w.conn.PgConn().PID()) == "true"
		if now && !waiting {
			waits++
		}
		waiting = now
		return waits >= 2
	}, time.Minute, 5*time.Millisecond)
	busy.do(t, "rollback")
	require.NoError(t, <-migrated)
	w.apply(t, all("w", "t"))
}

// TestAWriteWaitsForTheQueuesLockNoLongerThanItSays locks the queue as a migration would, and
// writes.
func TestAWriteWaitsForTheQueuesLockNoLongerThanItSays(t *testing.T) {
	timed.Alone(t)
	w := newWatched(t, "create table t (a int)", all("w", "t"))
	migration := watched{w.DB, w.Conn(t)}
	migration.do(t, "begin", "lock table rowhook.event_log in access exclusive mode")
	impatient := watched{w.DB, w.Conn(t)}
	impatient.do(t, "set lock_timeout = '200ms'")
	began := time.Now()
	require.Contains(t, impatient.fails(t, "insert into t values (1)"), "canceling statement due to lock timeout")
	require.Less(t, time.Since(began), 200*time.Millisecond+slack)
	patient := w.startWriter(t, "t")
	require.Eventually(t, func() bool {
		return migration.scalar(t, "select exists (select from pg_locks where not granted and relation = 'rowhook.event_log'::regclass and database = (select oid from pg_database where datname = current_database()))") == "true"
	}, time.Minute, 5*time.Millisecond)
	migration.do(t, "commit")
	require.Eventually(t, func() bool { return w.scalar(t, "select count(*) from rowhook.event_log") != "0" }, time.Minute, 5*time.Millisecond)
	rows, _, err := patient.end()
	require.NoError(t, err)
	require.Len(t, w.take(t), rows, "what waited is written, and captured")
}

// TestAnApplyKilledHalfWayLeavesEveryTableAsItWasOrAsItShallBe ends the session of an apply again
// and again, with writers on every table.
func TestAnApplyKilledHalfWayLeavesEveryTableAsItWasOrAsItShallBe(t *testing.T) {
	t.Parallel()
	const tables = 12
	setup, specs := "", []trigger.Spec{}
	for i := range tables {
		setup += fmt.Sprintf("create table t%d (a int, b int); ", i)
		specs = append(specs, all(fmt.Sprintf("w%d", i), fmt.Sprintf("t%d", i), payload("a"), func(s *trigger.Spec) { s.On = trigger.On{Insert: true} }))
	}
	w := newWatched(t, setup)
	var writers []*writer
	for i := range 3 {
		writers = append(writers, w.startWriter(t, fmt.Sprintf("t%d", i*4)))
	}
	completed := false
	for kill := 0; !completed && kill < 20; kill++ {
		conn, err := pgx.Connect(t.Context(), w.URL())
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			_, err := sqlschema.Apply(t.Context(), conn, specs, trigger.DefaultSettings(), quiet())
			done <- err
		}()
		// End it when this number of its triggers exists.
		require.Eventually(t, func() bool {
			return len(done) > 0 || w.scalar(t, fmt.Sprintf("select count(*) > %d from pg_trigger where tgname like 'rowhook%%'", kill)) == "true"
		}, time.Minute, 5*time.Millisecond)
		w.do(t, fmt.Sprintf("select pg_terminate_backend(%d)", conn.PgConn().PID()))
		completed = <-done == nil
		_ = conn.Close(t.Context())
		for i := range tables {
			w.do(t, fmt.Sprintf("insert into t%d (a) values (2)", i))
		}
		require.Equal(t, "true", w.scalar(t, "select bool_and(new::text in ('{\"a\":1}', '{\"a\":2}')) is not false from rowhook.event_log"))
	}
	for _, r := range writers {
		_, _, err := r.end()
		require.NoError(t, err)
	}
	w.apply(t, specs...)
	w.take(t)
	for i := range tables {
		w.do(t, fmt.Sprintf("insert into t%d (a) values (3)", i))
	}
	require.Len(t, w.take(t), tables)
}
