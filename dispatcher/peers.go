package dispatcher

import (
	"context"
	"log/slog"
	"time"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

const (
	// watchEvery is how often liveness of the others, the doorbell and the configuration are looked
	// at, at the least. As a rule the beat brings a watch each second.
	watchEvery = 1500 * time.Millisecond
	// suspectEvery is how often while an instance may be dead.
	suspectEvery = 500 * time.Millisecond

	measureEvery = time.Minute
)

// peers looks after the other instances. Its loop owns all that changes.
type peers struct {
	db            *database
	self          *identity
	scheduler     *scheduler
	inbox         *inbox
	pulse         *pulse
	configuration *configuration
	unable        *unableTriggers
	trouble       *troubleRecord
	commits       *commitTime
	log           *slog.Logger
	noListen      bool // Config.NoListen

	signs lifeSigns
	// departures is how many instances have stopped in order, as last seen. start sets it first.
	departures  int64
	taken       int64              // scheduler.linked, when commits were last measured
	unreclaimed []queue.Instance   // dead instances whose events could not be given back yet
	pretend     func(*queue.Watch) // in tests: changes what is read
}

// run watches the others until ctx is done.
func (p *peers) run(ctx context.Context) {
	// Half of measureEvery apart from the rounds of the maintenance, so that one session is enough for both.
	watch, measure := time.NewTimer(watchEvery), time.NewTimer(measureEvery/2)
	defer watch.Stop()
	defer measure.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-p.pulse.watches:
			if p.pretend != nil {
				p.pretend(&w.Watch)
			}
			p.watched(ctx, &w.Watch, w.asked, nil)
			watch.Reset(p.looked(ctx))
		case <-watch.C:
			p.watch(ctx)
			watch.Reset(p.looked(ctx))
		case <-measure.C:
			measure.Reset(measureEvery)
			if taken := p.scheduler.takenSoFar(); taken != p.taken {
				p.taken = taken
				p.commits.measure(ctx)
			}
			// Older programs that only poll die without being missed, so their retries may be known
			// to nobody.
			p.scheduler.forgetDue(p.scheduler.ids())
			p.scheduler.wake()
		}
	}
}

// looked does what comes after a watch. It returns when to watch again at the latest.
func (p *peers) looked(ctx context.Context) time.Duration {
	p.unable.retry(time.Now())
	if !p.db.schema.standsStill() {
		p.trouble.update(ctx, time.Now())
	}
	if p.signs.anySuspect() {
		return p.signs.untilDead(time.Now(), suspectEvery)
	}
	return p.pulse.watchWithin()
}

// watch looks at the others once.
func (p *peers) watch(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	asked := time.Now()
	w, err := p.look(ctx, p.db.signs)
	p.watched(ctx, &w, asked, err)
}

// watched takes in a watch that was asked for at a time.
func (p *peers) watched(ctx context.Context, w *queue.Watch, asked time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if err != nil && !p.db.schema.standsStill() && !pg.IsOtherSchema(err) {
		return // the claimer reports failures of the database
	}
	if err != nil || !p.db.schema.seen(w.Schema) {
		// While this instance stands still, it does nothing about the others.
		if lookErr := p.db.schema.look(ctx, p.db.writes); err != nil || lookErr != nil || p.db.schema.standsStill() {
			return
		}
	}
	p.scheduler.alive(len(w.Alive))
	dead := p.signs.judge(w.Instances, p.self.id, time.Now(), p.pulse.lastBeat())
	if w.IsRegistered(p.self.id) {
		for _, i := range p.unreclaimed {
			if !w.IsRegistered(i.ID) { // if it is, it lives or is found dead again
				dead = append(dead, i)
			}
		}
		p.unreclaimed = nil
		if len(dead) > 0 {
			p.reclaim(ctx, dead)
		}
	} else {
		// It reclaims nothing: if it died before it inherits, nobody would find it dead.
		p.pulse.registered.Store(false)
		p.pulse.poke()
	}
	if w.Departures != p.departures {
		p.departures = w.Departures
		p.inbox.inherit()
	}
	generation, _ := p.configuration.get()
	reload, listens := p.inbox.watched(w, asked, w.Generation != generation)
	deaf := !listens && !p.noListen
	if w.Ill {
		p.scheduler.rereadHealth()
	}
	if reload || w.Due || deaf || w.Doorbell != queue.Ringing || w.Notices >= queue.MuteFrom || w.Handed || w.Handover.Instance != p.self.id {
		p.scheduler.wake()
	}
}

// reclaim gives back what dead instances held, and forgets the instances.
func (p *peers) reclaim(ctx context.Context, dead []queue.Instance) {
	for _, i := range dead {
		if !i.Locked {
			continue
		}
		// The server still takes its sessions for open, as it does after a host has died without a
		// word. What runs in them must not claim anything any more.
		if _, err := queue.EndHolders(ctx, p.db.signs, i.ID); err != nil {
			p.log.Warn("can't end the sessions of an instance that died", "instance", i.ID, "error", err)
		}
	}
	forgotten, n, err := queue.Bury(ctx, p.db.signs, dead)
	if err != nil {
		// Their rows may be deleted already, so that nobody finds them dead again.
		p.unreclaimed = dead
		p.log.Error("can't give back the events of instances that died; retrying", "instances", ids(dead), "error", err)
		return
	}
	if len(forgotten) > 0 || n > 0 {
		p.log.Warn("instances died; the events that they had claimed were given back, and their lanes of ordered triggers go to others", "instances", ids(dead), "events", n)
		p.inbox.inherit()
		if !p.scheduler.hasOrder() {
			return
		}
		if err := queue.NotifyPeers(ctx, p.db.signs, queue.LanesPayload); err != nil {
			p.log.Debug("can't tell the other instances that lanes are free; they find them at their next watch", "error", err)
		}
	}
}

func ids(instances []queue.Instance) []int32 {
	var all []int32
	for _, i := range instances {
		all = append(all, i.ID)
	}
	return all
}

// look reads what an instance has to watch.
func (p *peers) look(ctx context.Context, db pg.Queryer) (queue.Watch, error) {
	w, err := queue.ReadWatch(ctx, db)
	w.Due, w.Ill = true, true // it does not say
	if err == nil && p.pretend != nil {
		p.pretend(&w)
	}
	return w, err
}
