package dispatcher

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/sqlschema"
)

const (
	watchEvery = 1500 * time.Millisecond // liveness of the others, doorbell, configuration; with the poll under two queries/s
	tidyEvery  = time.Minute
	stallEvery = 250 * time.Millisecond
)

// keepHouse runs until ctx is done.
func (d *Dispatcher) keepHouse(ctx context.Context) {
	watch, tidy := time.NewTicker(watchEvery), time.NewTicker(tidyEvery)
	defer watch.Stop()
	defer tidy.Stop()
	d.tidy(ctx)
	suspects := map[int32]bool{}
	departures := d.departures
	for {
		select {
		case <-ctx.Done():
			return
		case <-watch.C:
			suspects, departures = d.watch(ctx, suspects, departures)
		case <-tidy.C:
			d.tidy(ctx)
			d.measureFlush(ctx)
			d.board.refire(d.board.ids()) // of instances without a lock nobody learns that they died
			d.board.wake()
		}
	}
}

// watch looks after the others. An instance that holds no lock twice in a row is dead: once may be a session that is being
// opened anew. It returns the suspects and the number of departures, for the next time.
func (d *Dispatcher) watch(ctx context.Context, before map[int32]bool, departures int64) (map[int32]bool, int64) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	w, err := sqlschema.Look(ctx, d.claims)
	if err != nil {
		return before, departures // the claimer reports failures of the database
	}
	suspects := map[int32]bool{}
	var dead []int32
	for _, id := range w.Dead {
		switch {
		case id == d.id:
		case before[id]:
			dead = append(dead, id)
		default:
			suspects[id] = true
		}
	}
	if len(dead) > 0 {
		d.bury(ctx, dead)
	}
	if w.Departures != departures {
		d.inherit()
	}
	if !w.IsAlive(d.id) {
		d.register(ctx)
	}
	d.signals.mu.Lock()
	d.signals.watch = &w
	if generation, _ := d.config.get(); w.Generation != generation {
		d.signals.reload = true
	}
	reload := d.signals.reload
	d.signals.mu.Unlock()
	if reload || w.Doorbell != sqlschema.Ringing {
		d.board.wake()
	}
	return suspects, w.Departures
}

// bury gives back what dead instances held.
func (d *Dispatcher) bury(ctx context.Context, dead []int32) {
	n, err := sqlschema.Reclaim(ctx, d.claims, dead)
	if err != nil {
		d.log.Error("can't give back the events of instances that died", "instances", dead, "error", err)
		return
	}
	d.log.Warn("instances died; their events were given back", "instances", dead, "events", n)
	d.inherit()
}

// register makes this instance known again, after someone took it for dead.
func (d *Dispatcher) register(ctx context.Context) {
	d.signals.mu.Lock()
	listens := d.signals.listen
	d.signals.mu.Unlock()
	if !listens && !d.cfg.NoListen {
		return // the listener does it, with the lock
	}
	if err := sqlschema.Register(ctx, d.writes, d.id, d.cfg.Name, d.cfg.Version, listens); err != nil {
		d.log.Error("can't register this instance", "error", err)
	}
}

// tidyLock is the transaction's advisory lock under which one instance tidies. The bytes read "tidy".
const tidyLock = 0x74696479

// tidy makes partitions ahead of time, drops those that are over their retention, and buries events whose trigger is gone.
func (d *Dispatcher) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, settings := d.config.get()
	var dropped []string
	err := pgx.BeginFunc(ctx, d.writes, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, "select pg_try_advisory_xact_lock($1)", int64(tidyLock)).Scan(&mine); err != nil || !mine {
			return err
		}
		var err error
		dropped, err = sqlschema.Tidy(ctx, tx, settings.Retention)
		return err
	})
	if err == nil {
		// A transaction that was open while its trigger was removed may have left events that nobody claims.
		var buried int64
		if buried, err = sqlschema.BuryOrphans(ctx, d.writes); buried > 0 {
			d.log.Info("moved events of removed triggers to the dead letters", "events", buried)
		}
	}
	if err != nil && ctx.Err() == nil {
		d.log.Error("can't tidy up, trying again later", "in", tidyEvery, "error", err)
	}
	if len(dropped) > 0 {
		d.log.Info("dropped history that is over its retention", "partitions", dropped)
	}
}

// watchStalls gives the places of attempts that hang to others.
func (d *Dispatcher) watchStalls(ctx context.Context) {
	ticker := time.NewTicker(stallEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for _, dl := range d.board.stall(time.Now()) {
				d.send(dl)
			}
		}
	}
}
