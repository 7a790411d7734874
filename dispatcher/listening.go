package dispatcher

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
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
	left      atomic.Bool        // this process is not to show any more that it is there
	joined    bool               // the latest session shows it; only the listener's goroutine uses it
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
			if err := l.join(ctx, conn); err != nil {
				return err
			}
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

// join shows that this process is there, if it is to be shown. Where that is impossible, whoever set
// Config.Process finds it out, too.
func (l *listening) join(ctx context.Context, conn *pgx.Conn) error {
	l.joined = false
	if l.cfg.Process == 0 || l.left.Load() || l.db.schema.standsStill() {
		return nil
	}
	var err error
	l.joined, err = queue.Join(ctx, conn, l.cfg.Process)
	return err
}

// leave shows no longer that this process is there. Only the end of a session ends its locks for sure.
func (l *listening) leave() {
	l.left.Store(true)
	l.renew()
}

// show opens a session that shows whether this process is there, since it stands still, or goes on.
func (l *listening) show() {
	if l.cfg.Process != 0 {
		l.renew()
	}
}

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
	if l.joined && (l.left.Load() || l.db.schema.standsStill()) {
		l.renew() // leave or show came too early to end this session
	}
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
