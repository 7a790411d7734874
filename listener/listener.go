// Package listener wakes a dispatcher. It keeps the LISTEN session that writers NOTIFY, and decides
// when writers do so.
//
// A Listener keeps one session open. It reconnects with backoff when the session breaks, and a
// heartbeat detects a session that is dead although its connection is open. A Doorbell is the state
// machine that silences writers while a dispatcher is busy, and lets them ring before the
// dispatcher sleeps. Either works without the other.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgxlisten"
	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/pg"
)

// Listener listens on one channel while Run runs. Its fields must not change during that time. It
// calls its functions on its own goroutines, so they must not block.
type Listener struct {
	// Connect opens a session directly to Postgres: a transaction pooler does not support LISTEN.
	// Connect is required.
	Connect func(ctx context.Context) (*pgx.Conn, error)

	// Prepare is called on each new session before it listens, for instance to take an advisory
	// lock. If it returns an error, the session is closed, and Connect is retried after the
	// backoff. Prepare is optional.
	Prepare func(ctx context.Context, conn *pgx.Conn) error

	// Channel is the name of the channel to listen to. Channel is required.
	Channel string

	// Notified is called with the payload of each notification on Channel. Notified is required.
	Notified func(payload string)

	// Others are further channels to listen to, each with what is called with the payloads of its
	// notifications. Optional.
	Others map[string]func(payload string)

	// Listening is called each time a session begins to listen, including the first time.
	// Notifications that were sent before are lost, so the caller should look for what they
	// announced. Listening is optional.
	Listening func()

	// Lost is called when a listening session has ended. Lost is optional.
	Lost func(err error)

	// Ping sends a notification by another connection. It is called after each Heartbeat in which
	// the session received nothing. If the session does not receive the ping within another
	// Heartbeat, it is closed, and a new one is opened. Ping is optional: without it only TCP
	// keepalive detects a dead session.
	Ping func(ctx context.Context, channel, payload string) error

	// PingChannel is a channel that only this listener uses, for Ping. It is required if Ping is
	// set.
	PingChannel string

	// Heartbeat is the interval at which the listener checks whether the session received
	// something. Default 10 s.
	Heartbeat time.Duration

	// Logger receives warnings of sessions that are lost or can't be opened. Logger is optional.
	Logger *slog.Logger

	channels int // to listen to

	mu      sync.Mutex
	opening *pgx.Conn    // the session that last began to listen on a channel
	opened  int          // on how many it listens
	session *pgx.Conn    // the session that listens on all of them; nil: none
	renewed *pgx.Conn    // the session that Renew has closed
	heard   atomic.Int64 // notifications so far
}

// firstDelay is the delay after the first failed attempt to connect. Further delays are longer, see
// [pg.Backoff].
const firstDelay = 50 * time.Millisecond

// Run listens until ctx is done, and then returns nil. It returns an error only if a required field
// is missing.
func (l *Listener) Run(ctx context.Context) error {
	switch {
	case l.Connect == nil:
		return errors.New("listener: Connect is nil")
	case l.Notified == nil:
		return errors.New("listener: Notified is nil")
	case l.Channel == "":
		return errors.New("listener: Channel is empty")
	case l.Ping != nil && l.PingChannel == "":
		return errors.New("listener: Ping is set but PingChannel is empty")
	}
	inner := &pgxlisten.Listener{
		Connect:        l.connect,
		LogError:       func(ctx context.Context, err error) { l.ended(ctx, err) },
		ReconnectDelay: firstDelay, // connect has the backoff; this delay keeps sessions that break at once from spinning
	}
	l.channels = 1 + len(l.Others)
	inner.Handle(l.Channel, handler{l, l.Notified})
	for channel, notified := range l.Others {
		inner.Handle(channel, handler{l, notified})
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if l.Ping != nil {
		l.channels++
		inner.Handle(l.PingChannel, pong{l})
		beat, stop := context.WithCancel(ctx)
		defer stop()
		wg.Go(func() { l.beat(beat) })
	}
	err := inner.Listen(ctx)
	l.ended(ctx, err)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// connect retries until a session is open and prepared.
func (l *Listener) connect(ctx context.Context) (*pgx.Conn, error) {
	backoff := pg.Backoff(firstDelay)
	failures := 0
	return retry.DoValue(ctx, backoff, func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := l.Connect(ctx)
		if err == nil && l.Prepare != nil {
			if err = l.Prepare(ctx, conn); err != nil {
				_ = conn.Close(ctx) // the error of Prepare matters more
			}
		}
		if err != nil {
			if failures++; failures == 1 {
				l.log(ctx, slog.LevelWarn, "can't listen for changes, retrying; meanwhile changes are found by polling", "error", err)
			}
			return nil, retry.RetryableError(err)
		}
		return conn, nil
	})
}

// Renew closes the session that listens, and opens another one. An idle session reads the server's
// queue of notifications only when somebody notifies it. Until then, notifications of transactions
// that were rolled back stay in the queue.
func (l *Listener) Renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session == nil {
		return
	}
	l.renewed = l.session
	_ = l.session.PgConn().Conn().Close() // this wakes the goroutine that reads from it
}

// ended forgets the session and calls Lost, once per session.
func (l *Listener) ended(ctx context.Context, err error) {
	l.mu.Lock()
	was := l.session
	onPurpose := was != nil && was == l.renewed
	l.session, l.renewed = nil, nil
	l.mu.Unlock()
	if was == nil {
		return
	}
	if ctx.Err() == nil && !onPurpose {
		l.log(ctx, slog.LevelWarn, "lost the session that listens for changes, reconnecting", "error", err)
	}
	if l.Lost != nil {
		l.Lost(err)
	}
}

// beat pings the session, and closes it if it does not receive a ping.
func (l *Listener) beat(ctx context.Context) {
	every := l.Heartbeat
	if every <= 0 {
		every = 10 * time.Second
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var pinged *pgx.Conn // the session that has not received its ping yet
	last, count := l.heard.Load(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		l.mu.Lock()
		session := l.session
		l.mu.Unlock()
		heard := l.heard.Load()
		switch {
		case session == nil || heard != last:
			pinged = nil
		case pinged == session:
			l.log(ctx, slog.LevelWarn, "the session that listens for changes is dead although its connection is open, closing it", "silent_for", every)
			_ = session.PgConn().Conn().Close() // this wakes the goroutine that reads from it; ended logs the error
			pinged = nil
		default:
			count++
			if err := l.ping(ctx, every, fmt.Sprint(count)); err == nil {
				pinged = session
			}
			// If the ping itself fails, the database is down, and the session will notice.
		}
		last = heard
	}
}

func (l *Listener) ping(ctx context.Context, timeout time.Duration, payload string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return l.Ping(ctx, l.PingChannel, payload)
}

func (l *Listener) log(ctx context.Context, level slog.Level, msg string, args ...any) {
	if l.Logger != nil {
		l.Logger.Log(ctx, level, msg, args...)
	}
}

// handler receives the notifications of a channel.
type handler struct {
	l        *Listener
	notified func(payload string)
}

func (h handler) HandleNotification(_ context.Context, n *pgconn.Notification, _ *pgx.Conn) error {
	h.l.heard.Add(1)
	h.notified(n.Payload)
	return nil
}

// HandleBacklog is called when a session has begun to listen on a channel.
func (h handler) HandleBacklog(_ context.Context, _ string, conn *pgx.Conn) error {
	h.l.begins(conn)
	return nil
}

// begins calls Listening once the session listens on all channels.
func (l *Listener) begins(conn *pgx.Conn) {
	l.mu.Lock()
	if l.opening != conn {
		l.opening, l.opened = conn, 0
	}
	l.opened++
	all := l.opened == l.channels
	if all {
		l.session = conn
	}
	l.mu.Unlock()
	if all && l.Listening != nil {
		l.Listening()
	}
}

// pong receives the pings.
type pong struct{ l *Listener }

func (p pong) HandleNotification(context.Context, *pgconn.Notification, *pgx.Conn) error {
	p.l.heard.Add(1)
	return nil
}

func (p pong) HandleBacklog(_ context.Context, _ string, conn *pgx.Conn) error {
	p.l.begins(conn)
	return nil
}
