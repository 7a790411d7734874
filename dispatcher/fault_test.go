package dispatcher_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestEverythingArrivesAfterPostgresCrashedUnderLoad(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, "fsync=on") // a crash of the server must not lose what it had committed
	b := &bench{server.New(t), newReceiver(t)}
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
	b := newBench(t)
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
	b := newBench(t)
	b.watch(t, "orders")
	conn := b.Conn(t)
	held := make(chan struct{})
	b.receiver.respond(holdFirst(held))
	slow := b.start(t)
	b.Exec(t, "insert into orders default values")
	b.receiver.await(t, "orders", 1)
	// As if its lease had ended while it was stopped: another one takes the event over and delivers it.
	_, err := conn.Exec(t.Context(), "update rowhook.event_log set due_at = clock_timestamp(), claimed_by = null")
	require.NoError(t, err)
	b.start(t, func(c *dispatcher.Config) { c.Name = "other" })
	got := b.receiver.await(t, "orders", 2)
	require.Equal(t, got[0].id, got[1].id)
	b.settled(t)
	close(held)
	slow.stop(t)
	require.Equal(t, 1, one[int](t, conn, "select count(*) from rowhook.event_archive"))
	require.Equal(t, 2, one[int](t, conn, "select count(*) from rowhook.invocation_log"), "both attempts are on record")
	require.Contains(t, slow.log.String(), "taken over")
	require.WithinDuration(t, time.Now(), one[time.Time](t, conn, "select delivered_at from rowhook.event_archive"), time.Minute)
}
