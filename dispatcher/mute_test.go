package dispatcher_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// startPretending runs a dispatcher for which so many percent of the queue of notifications are in
// use.
func (b *fixture) startPretending(t *testing.T, percent *atomic.Int64, change ...func(*dispatcher.Config)) (*dispatcher.Dispatcher, *dispatcher.TestLog, context.CancelFunc) {
	t.Helper()
	return b.startChanged(t, func(d *dispatcher.Dispatcher) {
		dispatcher.Pretend(d, func(w *queue.Watch) { w.Notices = float64(percent.Load()) / 100 })
	}, change...)
}

// startChanged runs a dispatcher that was changed before.
func (b *fixture) startChanged(t *testing.T, prepare func(*dispatcher.Dispatcher), change ...func(*dispatcher.Config)) (*dispatcher.Dispatcher, *dispatcher.TestLog, context.CancelFunc) {
	t.Helper()
	log := &dispatcher.TestLog{}
	cfg := dispatcher.Config{DatabaseURL: b.URL(), PollInterval: time.Hour, Logger: slog.New(slog.NewTextHandler(log, nil))}
	for _, c := range change {
		c(&cfg)
	}
	d, err := dispatcher.New(cfg)
	require.NoError(t, err)
	prepare(d)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop := func() {
		cancel()
		require.NoError(t, <-done)
		done <- nil
	}
	t.Cleanup(stop)
	<-d.Ready()
	return d, log, stop
}

// awaitBell waits until the doorbell says ring, or silence.
func (b *fixture) awaitBell(t *testing.T, rings bool) {
	t.Helper()
	conn := b.Conn(t)
	require.Eventually(t, func() bool {
		var is bool
		return conn.QueryRow(t.Context(), "select coalesce(pg_sequence_last_value('rowhook.doorbell'::regclass) = 1, false)").Scan(&is) == nil && is == rings
	}, patience, 5*time.Millisecond)
}

func TestNobodyRingsWhileTheQueueOfNotificationsFillsUpAndEventsAreFoundAllTheSame(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "muted")
	var percent atomic.Int64
	var rings atomic.Int64
	_, log, stopFirst := b.startPretending(t, &percent, observing(dispatcher.Observer{Rang: func() { rings.Add(1) }}))
	_, _, _ = b.startPretending(t, &percent)
	b.awaitBell(t, true)

	percent.Store(24)
	b.Exec(t, "insert into muted (v) values ('rings')")
	b.receiver.await(t, "muted", 1)
	b.awaitBell(t, true)
	percent.Store(25)
	b.awaitBell(t, false)
	heard := rings.Load()
	for i := range 5 {
		b.Exec(t, fmt.Sprintf("insert into muted (v) values ('%d')", i))
		b.receiver.await(t, "muted", 2+i) // the interval poll, of an hour, is not what finds it
	}
	require.Equal(t, heard, rings.Load())
	b.watch(t, "other") // applying says nothing either, and the watch finds it
	percent.Store(11)   // not low enough
	b.Exec(t, "insert into other (v) values ('x')")
	b.receiver.await(t, "other", 1)
	stopFirst() // the one whose silence it is, perhaps: it is not to ring for the others
	b.awaitBell(t, false)
	b.Exec(t, "insert into muted (v) values ('after')")
	b.receiver.await(t, "muted", 7)
	// It is said again when another session seems to be at fault, and other tests have sessions.
	var said []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "notification queue is filling up") {
			_, at, _ := strings.Cut(line, " pid=")
			said = append(said, at)
		}
	}
	require.NotEmpty(t, said, log.String())
	require.Equal(t, slices.Compact(slices.Clone(said)), said, log.String())

	percent.Store(10)
	b.awaitBell(t, true)
	b.Exec(t, "insert into muted (v) values ('again')")
	b.receiver.await(t, "muted", 8)
}

func TestADispatcherThatStartsWhileTheQueueOfNotificationsFillsUpArmsNothing(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "late")
	var percent atomic.Int64
	percent.Store(90)
	for _, noListen := range []bool{false, true} {
		b.Exec(t, "select setval('rowhook.doorbell', 1)") // as one that was killed left it
		_, _, stop := b.startPretending(t, &percent, func(c *dispatcher.Config) { c.NoListen, c.PollInterval = noListen, 100*time.Millisecond })
		b.awaitBell(t, false)
		b.Exec(t, "insert into late (v) values ('x')")
		b.receiver.await(t, "late", 1)
		stop()
		b.awaitBell(t, false)
	}
}

// The queue has a size that can be set from PostgreSQL 17 on; before, it is 8 GB.
func TestAQueueOfNotificationsThatAnotherProgramFillsFailsNoWriteAndNoApply(t *testing.T) {
	t.Parallel()
	if pgtest.Version(t) < 17 {
		t.Log("this server's queue of notifications is 8 GB large: left to the tests above")
		return
	}
	server, err := pgtest.StartServer(t.Context(), "max_notify_queue_pages=64")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.Background(), localpg.Immediate)) })
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	conn, stuck := connect(), connect()
	exec := func(c *pgx.Conn, sql string) {
		t.Helper()
		_, err := c.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	exec(conn, "create table full_queue (id bigint generated always as identity primary key, v text)")
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, nil))
	receiver := newReceiver(t)
	spec := func(name string) trigger.Spec {
		s := dispatchtest.Spec(name, receiver.URL)
		s.Table = "public.full_queue"
		return s
	}
	apply := func(specs ...trigger.Spec) {
		t.Helper()
		_, err := sqlschema.Apply(t.Context(), conn, specs, trigger.DefaultSettings(), nil)
		require.NoError(t, err)
	}
	apply(spec("full_queue"))
	log := &dispatcher.TestLog{}
	dispatchtest.Run(t, dispatcher.Config{DatabaseURL: server.URL("postgres"), PollInterval: time.Hour, Logger: slog.New(slog.NewTextHandler(log, nil))})

	exec(stuck, "set application_name = 'stuck'; listen other_program")
	exec(stuck, "begin; select 1")
	usage := func() (share float64) {
		require.NoError(t, conn.QueryRow(t.Context(), "select pg_notification_queue_usage()").Scan(&share))
		return share
	}
	fill := func(to float64) {
		t.Helper()
		for usage() < to {
			exec(conn, "select pg_notify('other_program', repeat('x', 7000) || i) from generate_series(1, 2) as i")
		}
	}
	fill(0.6)
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "sure=true") }, patience, 10*time.Millisecond, "%v", log)
	require.Contains(t, log.String(), "application=stuck")
	for { // until it is full to the last page
		if _, err := conn.Exec(t.Context(), "select pg_notify('other_program', repeat('x', 7000))"); err != nil {
			require.ErrorContains(t, err, "too many notifications in the NOTIFY queue")
			break
		}
	}
	exec(conn, "insert into full_queue (v) values ('while it is full')")
	receiver.await(t, "full_queue", 1)
	apply(spec("full_queue"), spec("second"))
	exec(conn, "insert into full_queue (v) values ('after apply')")
	receiver.await(t, "second", 1)

	require.NoError(t, stuck.Close(t.Context()))
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "writers notify again") }, patience, 10*time.Millisecond)
	require.Less(t, usage(), 0.1, "no session of ours keeps the queue from being emptied")
}

// TestASessionOfOursThatListensKeepsNoQueueFull has a transaction of another program notify until
// the queue is full, and fail. Nobody is told of what it wrote, so that a session that listens does
// not read it by itself.
func TestASessionOfOursThatListensKeepsNoQueueFull(t *testing.T) {
	t.Parallel()
	if pgtest.Version(t) < 17 {
		t.Log("this server's queue of notifications is 8 GB large")
		return
	}
	server, err := pgtest.StartServer(t.Context(), "max_notify_queue_pages=64")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.Background(), localpg.Immediate)) })
	conn, err := pgx.Connect(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, nil))
	log := &dispatcher.TestLog{}
	for range 2 {
		dispatchtest.Run(t, dispatcher.Config{DatabaseURL: server.URL("postgres"), PollInterval: time.Hour, Logger: slog.New(slog.NewTextHandler(log, nil))})
	}
	_, err = conn.Exec(t.Context(), "select pg_notify('other_program', repeat('x', 7000) || i) from generate_series(1, 200) as i")
	require.ErrorContains(t, err, "too many notifications in the NOTIFY queue")
	require.Eventually(t, func() bool {
		var share float64
		require.NoError(t, conn.QueryRow(t.Context(), "select pg_notification_queue_usage()").Scan(&share))
		return share < 0.1
	}, patience, 50*time.Millisecond)
	require.Eventually(t, func() bool { return strings.Count(log.String(), "writers notify again") == 2 }, patience, 10*time.Millisecond, "%v", log)
	require.NotContains(t, log.String(), "lost the session")
}
