package dispatcher

import (
	"context"
	"slices"
	"time"

	"github.com/rowhook/rowhook/sqlschema"
)

const (
	watchEvery = 1500 * time.Millisecond // liveness of the others, doorbell, configuration; with the poll under two queries/s
	stallEvery = 250 * time.Millisecond

	measureEvery = time.Minute
)

// keepHouse runs until ctx is done.
func (d *Dispatcher) keepHouse(ctx context.Context) {
	watch, measure := time.NewTicker(watchEvery), time.NewTicker(measureEvery)
	defer watch.Stop()
	defer measure.Stop()
	suspects := map[int32]bool{}
	departures := d.departures
	for {
		select {
		case <-ctx.Done():
			return
		case <-watch.C:
			suspects, departures = d.watch(ctx, suspects, departures)
			d.retryUnable(time.Now())
			d.recordTrouble(ctx, time.Now())
		case <-measure.C:
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
	w, err := d.look(ctx, d.claims)
	if err != nil {
		return before, departures // the claimer reports failures of the database
	}
	d.schema.Store(w.Schema)
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
	for _, id := range d.unreclaimed {
		if !w.IsAlive(id) && !slices.Contains(dead, id) {
			dead = append(dead, id)
		}
	}
	d.unreclaimed = nil
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
	if reload || w.Doorbell != sqlschema.Ringing || w.Notices >= sqlschema.MuteFrom {
		d.board.wake()
	}
	return suspects, w.Departures
}

// bury gives back what dead instances held.
func (d *Dispatcher) bury(ctx context.Context, dead []int32) {
	n, err := sqlschema.Reclaim(ctx, d.claims, dead)
	if err != nil {
		d.unreclaimed = dead // they may be forgotten already, so that nobody finds them dead again
		d.log.Error("can't give back the events of instances that died, trying again", "instances", dead, "error", err)
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
