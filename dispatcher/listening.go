package dispatcher

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/listener"
)

// listening runs the session that listens. That session also holds the instance lock. What it hears
// goes to the inbox.
type listening struct {
	cfg   *Config
	db    *database
	self  *identity
	inbox *inbox
	pulse *pulse
	tell  *observers
	log   *slog.Logger

	// ready is closed when a session has listened for the first time, or at the start if none will.
	ready     chan struct{}
	readyOnce sync.Once
	listener  *listener.Listener // nil: none listens. Run sets it before the loops start.
}

// connectTimeout bounds opening the session that listens, and each statement by which it is
// prepared.
const connectTimeout = 10 * time.Second

// open makes the listener.
func (l *listening) open() {
	l.listener = &listener.Listener{
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			return session.Connect(ctx, l.db.direct)
		},
		Prepare: func(ctx context.Context, conn *pgx.Conn) error {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			return l.pulse.holdLock(ctx, conn)
		},
		Channel:   queue.Channel,
		Notified:  l.notified,
		Others:    map[string]func(string){queue.TakeChannel(l.self.id): l.handed},
		Listening: l.begins,
		Lost:      func(error) { l.lost() },
		Ping: func(ctx context.Context, channel, payload string) error {
			return queue.Ping(ctx, l.db.signs, channel, payload)
		},
		PingChannel: fmt.Sprintf("rowhook_ping_%d", l.self.id),
		Logger:      l.log,
	}
}

// run listens until ctx is done.
func (l *listening) run(ctx context.Context) { _ = l.listener.Run(ctx) } // its fields are set

// renew closes the session and opens another one, if there is one.
func (l *listening) renew() {
	if l.listener != nil {
		l.listener.Renew()
	}
}

// notified is called for every notification, on the listener's goroutine.
func (l *listening) notified(payload string) {
	l.tell.rang()
	l.inbox.notified(payload)
}

// handed is called for every notification of what was handed over, on the listener's goroutine.
func (l *listening) handed(payload string) {
	l.tell.rang()
	l.inbox.handed(payload)
}

// begins is called when a session begins to listen.
func (l *listening) begins() {
	l.inbox.sessionBegins()
	l.pulse.poke()
	l.tell.listening(true)
	l.readyOnce.Do(func() {
		l.log.Info("ready", "instance", l.self.id, "triggers", len(l.inbox.scheduler.ids()), "concurrency", l.cfg.Concurrency, "poll", l.cfg.PollInterval)
		close(l.ready)
	})
}

// lost is called when the session that listened has ended.
func (l *listening) lost() {
	l.inbox.sessionLost()
	// The row has to say that no lock is held, before the other instances see that it is not.
	l.pulse.poke()
	l.tell.listening(false)
}

// without says that no session will listen.
func (l *listening) without() {
	l.log.Warn("not listening for notifications: changes are found by polling", "every", l.cfg.PollInterval)
	l.readyOnce.Do(func() { close(l.ready) })
}
