package dispatcher

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/listener"
)

// notificationQueue is what is known of the server's queue of notifications.
type notificationQueue struct {
	// usage is the share that is in use, as last seen. The claimer writes it, Stats reads it.
	usage atomic.Pointer[float64]
	// warnedOf is the process id of the session that keeps the queue from being emptied, as the
	// server named it; 0: it has named none. Every session may write it; the claimer reads and
	// resets it.
	warnedOf atomic.Int32
}

// muteWords is what was logged and asked since writers were muted.
type muteWords struct {
	blocker int32     // who was named in the log
	sure    bool      // the server itself had named it
	probes  int       // how many notifications were sent to be told by the server who it is
	probed  time.Time // the last of them
	renewed time.Time // when our own session that listens was last opened anew
}

// renewEvery is how often our own session that listens is opened anew while writers are muted.
// Nobody notifies it then, so it does not read the queue, and it may be what keeps the queue full.
// One transaction of another program that notifies too much, and fails, is enough for that.
const renewEvery = 5 * time.Second

func (c *claimer) renew() {
	if !c.listens || time.Since(c.said.renewed) < renewEvery {
		return
	}
	c.said.renewed = time.Now()
	c.log.Debug("opening a new listening session, so that this instance reads the server's notification queue")
	c.session.renew()
}

// mute has writers notify no more while the server's queue of notifications fills up. A session
// that listens and does not read, of whatever program, brings that about. Once the queue is full,
// each commit that notifies fails. Every dispatcher decides for itself, so that the others go on
// when one dies.
func (c *claimer) mute(ctx context.Context, w *queue.Watch) {
	usage := w.Notices
	c.notifications.usage.Store(&usage)
	was := c.muted
	switch {
	case usage >= queue.MuteFrom:
		c.muted = true
	case usage <= queue.UnmuteAt, w.Doorbell == queue.Ringing && c.bell.State() == listener.Silent:
		c.muted = false // or another instance, which has waited for less, lets them ring again
	}
	c.bell.Mute(c.muted)
	switch {
	case c.muted:
		c.nameBlocker(ctx, usage, !was)
		c.muteUnheard(ctx, w)
		c.renew()
	case was:
		c.said = muteWords{}
		c.notifications.warnedOf.Store(0)
		c.log.Info("the server's notification queue has room again: writers notify again", "usage", usage)
	}
}

// muteUnheard silences the bell where tendBell does not, because no session listens. It does so in
// the name of Nobody, so that instances that listen need not wait until this one arms the bell.
func (c *claimer) muteUnheard(ctx context.Context, w *queue.Watch) {
	if c.listens || w.Doorbell != queue.Ringing {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if err := queue.Silence(ctx, c.db.claims, queue.Nobody); err != nil {
		// It is tried again at the next watch.
		c.log.Debug("can't silence the doorbell", "error", err)
	}
}

// quiet silences a bell that rings although no instance that listens is alive, because the last one
// was killed. An instance that listens itself arms the bell anew instead.
func (c *claimer) quiet(ctx context.Context, w *queue.Watch) {
	if c.listens || w.Doorbell != queue.Ringing || slices.ContainsFunc(w.Instances, func(i queue.Instance) bool { return i.Listens && w.IsAlive(i.ID) }) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if err := queue.SilenceForNobody(ctx, c.db.claims); err != nil {
		c.log.Debug("can't silence the doorbell", "error", err) // it is tried again at the next watch
	}
}

// A session that notifies while the queue is more than half full is told by the server which
// session keeps it from being emptied, at most every five seconds. At most mostProbes notifications
// are sent for that, and none above probeBelow, where they might be the last that fit.
const (
	probeFrom  = 0.5
	probeBelow = 0.9
	probeEvery = 3 * time.Second
	mostProbes = 20
)

// nameBlocker logs that writers are muted and which session may be at fault. It logs again when
// another one is found.
func (c *claimer) nameBlocker(ctx context.Context, usage float64, begins bool) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if usage > probeFrom && usage < probeBelow && c.notifications.warnedOf.Load() == 0 && c.said.probes < mostProbes && time.Since(c.said.probed) >= probeEvery {
		c.said.probes, c.said.probed = c.said.probes+1, time.Now()
		// The answer is a notice; see noticed.
		_, _ = c.db.writes.Exec(ctx, "select pg_catalog.pg_notify('rowhook_probe', '')")
	}
	b, err := queue.FindNotificationBlocker(ctx, c.db.claims, c.notifications.warnedOf.Load())
	if err != nil {
		c.log.Debug("can't look for the session that keeps notifications from being read", "error", err)
	}
	if !begins && (b == nil || b.PID == c.said.blocker && b.Sure == c.said.sure) {
		return
	}
	args := []any{"usage", usage}
	if b != nil {
		c.said.blocker, c.said.sure = b.PID, b.Sure
		args = append(args, "pid", b.PID, "sure", b.Sure, "user", b.User, "application", b.Application, "state", b.State, "since", b.Since)
	}
	c.log.Warn("a listening session does not read, so the server's notification queue is filling up: once it is full, every commit that notifies fails. "+
		"Rowhook's writers have stopped notifying, and events are found by polling; repair the session whose pid is given, "+
		"or end it with select pg_terminate_backend(pid)", args...)
}

// noticed records which session a warning of the server names.
func (q *notificationQueue) noticed(_ *pgconn.PgConn, n *pgconn.Notice) {
	if pid := queue.WarnedOf(n); pid != 0 {
		q.warnedOf.Store(pid)
	}
}
