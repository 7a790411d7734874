package listener_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/listener"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const patience = time.Minute

// run runs l until the end of the test, and waits for it.
func run(t *testing.T, l *listener.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, receive(t, done))
	})
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func TestListenerHandsOverPayloads(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	heard, listening := make(chan string, 10), make(chan struct{}, 10)
	run(t, &listener.Listener{
		Connect:   func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, db.URL()) },
		Channel:   "rowhook",
		Notified:  func(payload string) { heard <- payload },
		Listening: func() { listening <- struct{}{} },
	})
	receive(t, listening)
	db.Exec(t, "select pg_notify('rowhook', '7'), pg_notify('other', 'x'), pg_notify('rowhook', 'config')")
	require.Equal(t, "7", receive(t, heard))
	require.Equal(t, "config", receive(t, heard))
}

func TestListenerConnectsAgainAndSaysSo(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	heard, listening, lost := make(chan string, 10), make(chan struct{}, 10), make(chan error, 10)
	pid := make(chan uint32, 10)
	run(t, &listener.Listener{
		Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, db.URL()) },
		Prepare: func(_ context.Context, conn *pgx.Conn) error {
			pid <- conn.PgConn().PID()
			return nil
		},
		Channel:   "rowhook",
		Notified:  func(payload string) { heard <- payload },
		Listening: func() { listening <- struct{}{} },
		Lost:      func(err error) { lost <- err },
	})
	receive(t, listening)
	db.Exec(t, "select pg_terminate_backend($1)", int(receive(t, pid)))
	require.Error(t, receive(t, lost))
	receive(t, listening)
	db.Exec(t, "select pg_notify('rowhook', 'after')")
	require.Equal(t, "after", receive(t, heard))
}

func TestListenerRetriesConnectAndPrepare(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	var connects, prepares atomic.Int32
	listening := make(chan struct{}, 10)
	run(t, &listener.Listener{
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			if connects.Add(1) < 3 {
				return nil, errors.New("not yet")
			}
			return pgx.Connect(ctx, db.URL())
		},
		Prepare: func(context.Context, *pgx.Conn) error {
			if prepares.Add(1) < 2 {
				return errors.New("not yet")
			}
			return nil
		},
		Channel:   "rowhook",
		Notified:  func(string) {},
		Listening: func() { listening <- struct{}{} },
	})
	receive(t, listening)
	require.EqualValues(t, 4, connects.Load())
	require.EqualValues(t, 2, prepares.Load())
}

func TestHeartbeatReplacesASessionThatIsDeadButLooksOpen(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	pool := db.Pool(t)
	heard, listening, lost := make(chan string, 10), make(chan struct{}, 10), make(chan error, 10)
	hole := newBlackHole(t, db.URL())
	run(t, &listener.Listener{
		Connect:   hole.connect,
		Channel:   "rowhook",
		Notified:  func(payload string) { heard <- payload },
		Listening: func() { listening <- struct{}{} },
		Lost:      func(err error) { lost <- err },
		Ping: func(ctx context.Context, channel, payload string) error {
			_, err := pool.Exec(ctx, "select pg_notify($1, $2)", channel, payload)
			return err
		},
		PingChannel: "rowhook_ping_2",
		Heartbeat:   50 * time.Millisecond,
	})
	receive(t, listening)
	hole.swallow.Store(true) // the connection stays open, but no bytes pass
	require.Error(t, receive(t, lost))
	hole.swallow.Store(false)
	receive(t, listening)
	// On a busy machine a heartbeat of 50 ms may replace the new session, too. Notifications in
	// between are lost.
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for late := time.After(patience); ; {
		db.Exec(t, "select pg_notify('rowhook', 'after')")
		select {
		case payload := <-heard:
			require.Equal(t, "after", payload)
			return
		case <-again.C:
		case <-late:
			t.Fatal("nothing came by the session that replaced it")
		}
	}
}

func TestHeartbeatKeepsASessionThatAnswers(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	pool := db.Pool(t)
	listening, lost, pings := make(chan struct{}, 10), make(chan error, 10), make(chan struct{}, 1000)
	run(t, &listener.Listener{
		Connect:   func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, db.URL()) },
		Channel:   "rowhook",
		Notified:  func(string) {},
		Listening: func() { listening <- struct{}{} },
		Lost:      func(err error) { lost <- err },
		Ping: func(ctx context.Context, channel, payload string) error {
			_, err := pool.Exec(ctx, "select pg_notify($1, $2)", channel, payload)
			pings <- struct{}{}
			return err
		},
		PingChannel: "rowhook_ping_2",
		Heartbeat:   5 * time.Second, // within which the ping has to arrive, also on a busy machine
	})
	receive(t, listening)
	for range 2 {
		receive(t, pings)
	}
	require.Empty(t, lost)
}

func TestListenerLeavesNothingRunning(t *testing.T) {
	db := pgtest.NewEmpty(t)
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(t.Context())
	listening, done := make(chan struct{}, 1), make(chan error, 1)
	l := &listener.Listener{
		Connect:     func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, db.URL()) },
		Channel:     "rowhook",
		Notified:    func(string) {},
		Listening:   func() { listening <- struct{}{} },
		Ping:        func(context.Context, string, string) error { return nil },
		PingChannel: "p",
	}
	go func() { done <- l.Run(ctx) }()
	receive(t, listening)
	cancel()
	require.NoError(t, receive(t, done))
	goleak.VerifyNone(t, before)
}

func TestListenerNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	connect := func(context.Context) (*pgx.Conn, error) { return nil, errors.New("unused") }
	for name, l := range map[string]*listener.Listener{
		"Connect":     {},
		"Notified":    {Connect: connect},
		"Channel":     {Connect: connect, Notified: func(string) {}},
		"PingChannel": {Connect: connect, Notified: func(string) {}, Channel: "c", Ping: func(context.Context, string, string) error { return nil }},
	} {
		require.ErrorContains(t, l.Run(t.Context()), name)
	}
}

// blackHole passes bytes through to Postgres, or swallows them.
type blackHole struct {
	config  *pgx.ConnConfig
	swallow atomic.Bool
}

func newBlackHole(t *testing.T, url string) *blackHole {
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	return &blackHole{config: config}
}

func (h *blackHole) connect(ctx context.Context) (*pgx.Conn, error) {
	if h.swallow.Load() {
		return nil, errors.New("no way through")
	}
	config := h.config.Copy()
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		server, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		near, far := net.Pipe()
		go func() { _, _ = io.Copy(server, far); _ = server.Close() }()
		go func() {
			defer far.Close()
			buf := make([]byte, 4096)
			for {
				n, err := server.Read(buf)
				if err != nil {
					return
				}
				if !h.swallow.Load() {
					if _, err := far.Write(buf[:n]); err != nil {
						return
					}
				}
			}
		}()
		return near, nil
	}
	return pgx.ConnectConfig(ctx, config)
}
