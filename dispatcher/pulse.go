package dispatcher

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhook/rowhook/sqlschema"
)

// How often an instance says that it is alive, and how soon it tries again where it could not.
const (
	beatEvery   = time.Second
	beatRetry   = 250 * time.Millisecond
	beatTimeout = 5 * time.Second
	// A failure is worth a line when it has lasted so long: until then the others have not noticed either.
	beatFailing = 5 * time.Second
)

// pulse is how this instance shows that it is alive: by its row, which it writes by any session that it has. The session that listens holds
// a lock as well, by which the others learn of a crash sooner. To lose that session is no death: the row says so at once.
type pulse struct {
	pokes      chan struct{}
	registered atomic.Bool  // it is in rowhook.instance, as last seen
	last       atomic.Int64 // when it was last written, Unix nanoseconds
}

func newPulse() pulse { return pulse{pokes: make(chan struct{}, 1)} }

// beat is when this instance last wrote that it is alive.
func (p *pulse) beat() time.Time { return time.Unix(0, p.last.Load()) }

// poke has it say so at once.
func (p *pulse) poke() {
	select {
	case p.pokes <- struct{}{}:
	default:
	}
}

// beat says that this instance is alive until ctx is done. Where it was taken for dead it registers again, with what is true now.
func (d *Dispatcher) beat(ctx context.Context) {
	timer := time.NewTimer(beatEvery)
	defer timer.Stop()
	var failing time.Time
	said := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.pulse.pokes:
		case <-timer.C:
		}
		err := d.sayAlive(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if said {
				d.log.Info("this instance can show again that it is alive", "instance", d.id)
			}
			failing, said = time.Time{}, false
			timer.Reset(beatEvery)
			continue
		case failing.IsZero():
			failing = time.Now()
		case !said && time.Since(failing) > beatFailing:
			said = true
			d.log.Warn("this instance can't show that it is alive, the others will take it for dead and give back its events", "instance", d.id, "error", err)
		}
		timer.Reset(beatRetry)
	}
}

// sayAlive writes the row by the first pool that can.
func (d *Dispatcher) sayAlive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	d.inbox.mu.Lock()
	listens := d.inbox.listen
	d.inbox.mu.Unlock()
	err := d.sayAliveBy(ctx, d.claims, listens)
	if err != nil && ctx.Err() == nil { // the role may have all the sessions that it is allowed to have
		err = d.sayAliveBy(ctx, d.writes, listens)
	}
	return err
}

func (d *Dispatcher) sayAliveBy(ctx context.Context, pool *pgxpool.Pool, listens bool) error {
	known, err := d.say(ctx, pool, listens)
	if err != nil {
		return err
	}
	if !known {
		d.pulse.registered.Store(false)
		if err := d.enroll(ctx, pool, listens); err != nil {
			return err
		}
		d.log.Warn("this instance was taken for dead and its events were given back, it has registered again", "instance", d.id, "listens", listens)
		d.inherit() // its claims found nothing meanwhile
		d.scheduler.wake()
	}
	return nil
}

// enroll makes this instance known, so that it can claim.
func (d *Dispatcher) enroll(ctx context.Context, db sqlschema.Queryer, listens bool) error {
	if err := sqlschema.Register(ctx, db, d.id, d.cfg.Name, d.cfg.Version, listens); err != nil {
		return err
	}
	_, err := d.say(ctx, db, listens)
	return err
}

// say writes the row, if there is one.
func (d *Dispatcher) say(ctx context.Context, db sqlschema.Queryer, listens bool) (known bool, err error) {
	err = d.onSchema(ctx, func(schema int32) error {
		known, err = sqlschema.Beat(ctx, db, schema, d.id, listens)
		return err
	})
	if err != nil {
		return false, err
	}
	if known {
		d.pulse.registered.Store(true)
		d.pulse.last.Store(time.Now().UnixNano())
	}
	return known, nil
}

// holdLock takes the lock by which the others learn of a crash, and says that this instance listens. A session of an earlier connection may
// still hold it, which the server takes for open: it is ended.
func (d *Dispatcher) holdLock(ctx context.Context, conn *pgx.Conn) error {
	err := sqlschema.HoldLock(ctx, conn, d.id)
	if errors.Is(err, sqlschema.ErrLockHeld) {
		n, endErr := sqlschema.EndHolders(ctx, conn, d.id)
		if endErr != nil {
			return endErr
		}
		d.log.Info("ended an earlier session of this instance, which the server took for open", "sessions", n)
		err = sqlschema.HoldLock(ctx, conn, d.id)
	}
	switch {
	case errors.Is(err, sqlschema.ErrLockHeld):
		// It is a stranger's, whom we may not end. To say that one is alive takes no lock.
		d.log.Warn("another role's session holds the lock of this instance: without it the others learn of a crash some seconds later", "instance", d.id)
		return nil
	case err != nil:
		return err
	}
	known, err := d.say(ctx, conn, true)
	if err == nil && !known {
		err = d.enroll(ctx, conn, true)
	}
	return err
}
