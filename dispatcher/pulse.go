package dispatcher

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// beatEvery is how often an instance writes that it is alive, and beatRetry how soon it tries again
// after a failure.
const (
	beatEvery   = time.Second
	beatRetry   = 250 * time.Millisecond
	beatTimeout = 5 * time.Second
	// A failure is logged when it has lasted for beatFailing. Before that, the other instances have
	// not noticed it either.
	beatFailing = 5 * time.Second
)

// freshFor is how old the beat of this instance may be when it starts what others could take over:
// the events of a lane, or a share of a total. Others take them when it has been silent for
// queue.LockLostAfter, which is longer.
const freshFor = 2 * time.Second

// pulse shows that this instance is alive. It writes the instance's row by any session that it has.
// The session that listens holds a lock as well, by which the others learn of a crash sooner. To
// lose that session is no death: the row says so at once.
type pulse struct {
	db    *database
	self  *identity
	inbox *inbox
	log   *slog.Logger

	pokes      chan struct{}
	registered atomic.Bool  // it is in rowhook.instance, as last seen by the pulse or the peers
	doubts     atomic.Int64 // how often it was found buried, so that others may have its lanes
	last       atomic.Int64 // when it was last written: nanoseconds since epoch; 0: never
	epoch      time.Time    // when this process began, by its monotonic clock
	gone       atomic.Bool  // it is not to register again
	enrolled   atomic.Int64 // how often it has registered. What it had before, others may have by now

	watches chan watched // the latest that the peers have not read
	// slots is when dispatchers that share began to beat. Zero: this one shares nothing. Those that are
	// calm beat in slots of beatSlot, so that a process with many of them wakes less often. The others
	// beat at phase in such a slot: a server with a hundred databases would be busy with their beats
	// all at once, and events would wait.
	slots time.Time
	phase time.Duration
	// calm reports whether nothing has happened for a while, so that this instance may beat every
	// calmBeat if it shares. nil: it never is.
	calm  func(now time.Time) bool
	every atomic.Int64 // beatEvery or calmBeat, as a time.Duration
}

// calmBeat is how often an instance beats that shares, is alone, and has nothing to do. That is not below
// freshFor, so an instance with lanes or shares of totals beats every beatEvery.
const calmBeat = 2 * time.Second

// beatSlot is how far apart the beats of dispatchers that share are, if they are not at once. It is large
// enough that several wake together, and small enough that their servers have no burst of a hundred.
const beatSlot = 100 * time.Millisecond

// nextBeat is the wait until the next beat.
func (p *pulse) nextBeat(now time.Time) time.Duration {
	if p.slots.IsZero() {
		return beatEvery
	}
	every, phase := beatEvery, p.phase
	if p.calm != nil && p.calm(now) {
		every, phase = calmBeat, 0
	}
	p.every.Store(int64(every))
	since := now.Sub(p.slots) + every - phase
	return every - since%beatSlot
}

// watchWithin is within what time the next watch comes, as a rule with a beat.
func (p *pulse) watchWithin() time.Duration {
	return watchEvery - beatEvery + time.Duration(p.every.Load())
}

// watched is a watch, and when it was asked for.
type watched struct {
	queue.Watch

	asked time.Time
}

func newPulse(db *database, self *identity, inbox *inbox, log *slog.Logger) *pulse {
	p := &pulse{
		db: db, self: self, inbox: inbox, log: log, pokes: make(chan struct{}, 1), epoch: time.Now(), watches: make(chan watched, 1),
		phase: rand.N(beatSlot), //nolint:gosec // it spreads load
	}
	p.every.Store(int64(beatEvery))
	return p
}

// lastBeat is when this instance last wrote that it is alive; zero: it has not. It is told by the
// monotonic clock, so that a clock which is set makes no beat older or younger.
func (p *pulse) lastBeat() time.Time {
	since := p.last.Load()
	if since == 0 {
		return time.Time{}
	}
	return p.epoch.Add(time.Duration(since))
}

// beaten records when this instance wrote that it is alive.
func (p *pulse) beaten(at time.Time) { p.last.Store(max(int64(at.Sub(p.epoch)), 1)) }

// isFresh reports whether nobody can have taken this instance for dead since its last beat.
func (p *pulse) isFresh(now time.Time) bool { return now.Sub(p.lastBeat()) < freshFor }

// poke has the row written at once.
func (p *pulse) poke() {
	select {
	case p.pokes <- struct{}{}:
	default:
	}
}

// run writes the row until ctx is done. If this instance was taken for dead, it registers again.
func (p *pulse) run(ctx context.Context) {
	timer := time.NewTimer(beatEvery)
	defer timer.Stop()
	var failing time.Time
	said := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.pokes:
		case <-timer.C:
		}
		err := p.sayAlive(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if said {
				p.log.Info("this instance records its beat again", "instance", p.self.id)
			}
			failing, said = time.Time{}, false
			timer.Reset(p.nextBeat(time.Now()))
			continue
		case failing.IsZero():
			failing = time.Now()
		case !said && time.Since(failing) > beatFailing:
			said = true
			p.log.Warn("this instance can't record its beat; the other instances will consider it dead and give back its events", "instance", p.self.id, "error", err)
		}
		timer.Reset(beatRetry)
	}
}

// sayAlive writes the row, and has the peers look at what there is. If another instance has deleted
// the row, this one registers again.
func (p *pulse) sayAlive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	listens := p.inbox.listening()
	known, err := p.sayAndWatch(ctx, listens)
	if pg.WasRefused(err) { // whatever is wrong with the watch, this instance is alive
		known, err = p.say(ctx, p.db.signs, listens)
	}
	if err != nil {
		return err
	}
	if !known {
		p.registered.Store(false)
		if err := p.enroll(ctx, p.db.signs, listens); err != nil {
			return err
		}
		p.log.Warn("another instance considered this one dead and gave back its events; this one has registered again", "instance", p.self.id, "listens", listens)
		p.inbox.inherit() // meanwhile its claims returned nothing
	}
	return nil
}

// enroll registers this instance, so that it can claim.
func (p *pulse) enroll(ctx context.Context, db pg.Queryer, listens bool) error {
	if p.gone.Load() {
		return nil
	}
	p.enrolled.Add(1)
	if err := queue.Register(ctx, db, p.self.id, p.self.name, p.self.version, listens); err != nil {
		return err
	}
	_, err := p.say(ctx, db, listens)
	return err
}

// sayAndWatch writes the row, and reads in the same round trip what the peers watch. known is false if
// there is no row.
func (p *pulse) sayAndWatch(ctx context.Context, listens bool) (known bool, err error) {
	began := time.Now()
	known, w, err := queue.BeatAndWatch(ctx, p.db.signs, p.self.id, listens)
	if err != nil {
		return false, err
	}
	p.said(known, began)
	select {
	case <-p.watches: // it is out of date
	default:
	}
	select {
	case p.watches <- watched{w, began}:
	default: // nobody else sends
	}
	return known, nil
}

// say writes the row. known is false if there is none.
func (p *pulse) say(ctx context.Context, db pg.Queryer, listens bool) (known bool, err error) {
	began := time.Now() // others count from when the row was written, which is later
	err = p.db.onSchema(ctx, func(int32) error {
		known, err = queue.Beat(ctx, db, p.self.id, listens)
		return err
	})
	if err != nil {
		return false, err
	}
	p.said(known, began)
	return known, nil
}

// said takes in that the row was written, or that there is none.
func (p *pulse) said(known bool, began time.Time) {
	if !known {
		p.doubts.Add(1)
		return
	}
	p.registered.Store(true)
	p.beaten(began)
}

// holdLock takes the lock by which the others learn of a crash, and writes that this instance
// listens. An earlier session of this instance may still hold the lock, because the server takes it
// for open. That session is ended.
func (p *pulse) holdLock(ctx context.Context, conn *pgx.Conn) error {
	err := queue.HoldLock(ctx, conn, p.self.id)
	if errors.Is(err, queue.ErrLockHeld) {
		n, endErr := queue.EndHolders(ctx, conn, p.self.id)
		if endErr != nil {
			return endErr
		}
		p.log.Info("ended an earlier session of this instance that the server still held open", "sessions", n)
		err = queue.HoldLock(ctx, conn, p.self.id)
	}
	switch {
	case errors.Is(err, queue.ErrLockHeld):
		// It is the session of another role, which we may not end. A beat needs no lock.
		p.log.Warn("a session of another role holds this instance's lock; other instances will notice a crash of this one some seconds later", "instance", p.self.id)
		return nil
	case err != nil:
		return err
	}
	known, err := p.say(ctx, conn, true)
	if err == nil && !known {
		if err = p.enroll(ctx, conn, true); err == nil {
			p.inbox.inherit() // its claims found nothing meanwhile, and the session may break before it listens
		}
	}
	return err
}
