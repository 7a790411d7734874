package dispatcher

import (
	"context"
	"time"

	"github.com/rowhook/rowhook/sqlschema"
)

const (
	watchEvery   = 1500 * time.Millisecond // liveness of the others, doorbell, configuration; with the poll under two queries/s
	suspectEvery = 500 * time.Millisecond  // liveness, while one may be dead
	stallEvery   = 250 * time.Millisecond

	measureEvery = time.Minute
)

// watchPeers runs until ctx is done.
func (d *Dispatcher) watchPeers(ctx context.Context) {
	watch, measure := time.NewTimer(watchEvery), time.NewTicker(measureEvery)
	defer watch.Stop()
	defer measure.Stop()
	var o lifeSigns
	departures := d.departures
	for {
		select {
		case <-ctx.Done():
			return
		case <-watch.C:
			departures = d.watch(ctx, &o, departures)
			d.retryUnable(time.Now())
			d.recordTrouble(ctx, time.Now())
			if o.anySuspect() {
				watch.Reset(suspectEvery)
			} else {
				watch.Reset(watchEvery)
			}
		case <-measure.C:
			d.measureFlush(ctx)
			d.scheduler.refire(d.scheduler.ids()) // of instances of older programs that only poll nobody learns that they died
			d.scheduler.wake()
		}
	}
}

// watch looks after the others. It returns the number of departures, for the next time.
func (d *Dispatcher) watch(ctx context.Context, o *lifeSigns, departures int64) int64 {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	w, err := d.look(ctx, d.claims)
	if err != nil {
		return departures // the claimer reports failures of the database
	}
	d.schema.Store(w.Schema)
	dead := o.judge(w.Instances, d.id, time.Now(), d.pulse.beat())
	for _, i := range d.unreclaimed {
		if !w.IsRegistered(i.ID) { // else it lives, or is found dead again
			dead = append(dead, i)
		}
	}
	d.unreclaimed = nil
	if len(dead) > 0 {
		d.reclaim(ctx, dead)
	}
	if w.Departures != departures {
		d.inherit()
	}
	if !w.IsRegistered(d.id) {
		d.pulse.registered.Store(false)
		d.pulse.poke()
	}
	d.inbox.mu.Lock()
	d.inbox.watch = &w
	if generation, _ := d.configuration.get(); w.Generation != generation {
		d.inbox.reload = true
	}
	reload, deaf := d.inbox.reload, !d.inbox.listen && !d.cfg.NoListen
	d.inbox.mu.Unlock()
	if reload || deaf || w.Doorbell != sqlschema.Ringing || w.Notices >= sqlschema.MuteFrom {
		d.scheduler.wake()
	}
	return w.Departures
}

// reclaim gives back what dead instances held.
func (d *Dispatcher) reclaim(ctx context.Context, dead []sqlschema.Instance) {
	for _, i := range dead {
		if !i.Locked {
			continue
		}
		// The server still believes in its sessions, as after its host died without a word: what runs in them must not take anything any more.
		if _, err := sqlschema.EndHolders(ctx, d.claims, i.ID); err != nil {
			d.log.Warn("can't end the sessions of an instance that died", "instance", i.ID, "error", err)
		}
	}
	forgotten, n, err := sqlschema.Bury(ctx, d.claims, dead)
	if err != nil {
		d.unreclaimed = dead // they may be forgotten already, so that nobody finds them dead again
		d.log.Error("can't give back the events of instances that died, trying again", "instances", ids(dead), "error", err)
		return
	}
	if len(forgotten) > 0 || n > 0 {
		d.log.Warn("instances died; their events were given back", "instances", ids(dead), "events", n)
		d.inherit()
	}
}

func ids(instances []sqlschema.Instance) []int32 {
	var all []int32
	for _, i := range instances {
		all = append(all, i.ID)
	}
	return all
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
			for _, dl := range d.scheduler.stall(time.Now()) {
				d.send(dl)
			}
		}
	}
}
