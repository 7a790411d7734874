package fleet

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

const (
	// standbyEvery is how often a member that stands by looks who is there. A process that has many looks
	// at each of them less often, up to standbySeldom: what one of them sees, all of them look for.
	standbyEvery, standbySeldom = time.Second, 3 * time.Second
	// looksPerSecond is how often a process looks at all of them.
	looksPerSecond = 20
	// serveEvery is how often a member that is served looks whether others serve it, too.
	serveEvery = 5 * time.Second
	// aloneEvery is how often one looks that is alone: who else is there is told by status alone.
	aloneEvery = 30 * time.Second
	// connectTimeout bounds opening a session, and lookTimeout a look.
	connectTimeout, lookTimeout = 10 * time.Second, 5 * time.Second
)

// newProcess draws the number of a process.
func newProcess() int32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return max(1, int32(binary.BigEndian.Uint32(b[:])>>1))
}

// standing is the session of a member that stands by. A nil *standing is none.
type standing struct{ conn *pgx.Conn }

func (s *standing) close() {
	if s == nil || s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	_ = s.conn.Close(ctx) // the server ends it, too
	s.conn = nil
}

// standBy waits until this process is to serve a member. It returns the session that shows that it is
// there. Without an error, nil says that this process can't see others, and serves whatever they do.
func (m *member) standBy(ctx context.Context, with Member) (session *standing, err error) {
	if with.Connect == nil {
		return nil, nil
	}
	s := &standing{}
	defer func() {
		m.standsBy(false)
		if session == nil {
			s.close()
		}
	}()
	timed, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if s.conn, err = with.Connect(timed); err != nil {
		return nil, err
	}
	joined, err := queue.Join(timed, s.conn, m.fleet.process)
	if err != nil {
		return nil, err
	}
	looks := m.looks(standbyEvery)
	defer looks.stop()
	for {
		seen, err := m.look(ctx, func(ctx context.Context) (dispatcher.Members, error) { return queue.ReadMembers(ctx, s.conn) })
		switch {
		case pg.WasRefused(err): // as where Rowhook is not installed: the dispatcher says what is wrong
			return nil, nil
		case err != nil:
			return nil, err
		case !joined || !seen.Mine:
			if !m.blind {
				m.blind = true
				m.log.Warn("this process serves the source whether or not others do, since a session can't hold a lock; if a pooler is in the way, set listen_url to a way straight to Postgres")
			}
			return nil, nil
		case m.post.decide(&seen, false, time.Now()):
			return s, nil
		}
		m.standsBy(true)
		looks.next()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-looks.timer.C:
		case <-looks.alarm:
		}
	}
}

// isToServe looks whether this process is still to serve a member that it serves. If that can't be found
// out, it is. While no other instance is registered, nobody else serves, and there is no need to ask.
func (m *member) isToServe(ctx context.Context, d *dispatcher.Dispatcher) bool {
	if now := time.Now(); d.Stats().Instances <= 1 && now.Sub(m.asked) < aloneEvery {
		return true
	}
	m.asked = time.Now()
	seen, err := m.look(ctx, d.Members)
	return err != nil || m.post.decide(&seen, true, time.Now())
}

// look asks who is there. If a process has gone, all members look at once.
func (m *member) look(ctx context.Context, ask func(context.Context) (dispatcher.Members, error)) (dispatcher.Members, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	seen, err := ask(ctx)
	if err != nil {
		return seen, err
	}
	m.mu.Lock()
	before := m.seen
	m.seen = seen
	m.mu.Unlock()
	if gone(&before, &seen) {
		m.fleet.alarm.raise()
	}
	return seen, nil
}

// standsBy records that this process stands by, or that it does not any more.
func (m *member) standsBy(is bool) {
	m.mu.Lock()
	was := m.standby
	m.standby = is
	m.tried = m.tried || is
	if is {
		m.problems[Running] = nil
	}
	m.mu.Unlock()
	switch {
	case is && !was:
		m.fleet.waiting.Add(1)
		m.log.Info("standing by: another process serves the source")
	case was && !is:
		m.fleet.waiting.Add(-1)
	}
}

// lookout says when a member is to look who is there: when its timer or the alarm says so.
type lookout struct {
	fleet *Fleet
	every time.Duration
	timer *time.Timer
	alarm <-chan struct{}
}

// looks returns a lookout that says so for the first time after a period.
func (m *member) looks(every time.Duration) *lookout {
	l := &lookout{fleet: m.fleet, every: every, timer: time.NewTimer(0)}
	l.next()
	return l
}

// next waits anew.
func (l *lookout) next() {
	every := l.every
	if every == standbyEvery {
		every = min(max(every, time.Duration(l.fleet.waiting.Load())*time.Second/looksPerSecond), standbySeldom)
	}
	l.alarm = l.fleet.alarm.listen()
	l.timer.Reset(every*9/10 + mathrand.N(every/5)) //nolint:gosec // no secret
}

func (l *lookout) stop() { l.timer.Stop() }

// alarm has all members look at once.
type alarm struct {
	mu     sync.Mutex
	raised chan struct{} // closed by raise
	last   time.Time
}

// alarmEvery is how often at most: what one alarm is raised for, all members see.
const alarmEvery = time.Second

func (a *alarm) listen() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.raised == nil {
		a.raised = make(chan struct{})
	}
	return a.raised
}

func (a *alarm) raise() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := time.Now(); a.raised != nil && now.Sub(a.last) >= alarmEvery {
		close(a.raised)
		a.raised, a.last = nil, now
	}
}
