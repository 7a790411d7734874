package dispatcher

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
)

// breakers keeps the breakers of this instance in step with rowhook.health, which all instances
// share, and has the probes made. Its loop owns what is not the scheduler's.
type breakers struct {
	db        *database
	self      *identity
	scheduler *scheduler
	settler   *settler
	log       *slog.Logger

	read time.Time // when rowhook.health was last read
}

const (
	// heldEvery is how often it is looked for events that were claimed for an endpoint that fails.
	heldEvery = 250 * time.Millisecond
	// readHealthEvery is how often rowhook.health is read while anything is ill. A notification comes
	// before. The peers see at each watch whether the table is empty.
	readHealthEvery = watchEvery
)

// run works until ctx is done.
func (b *breakers) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.scheduler.breakerSignal:
		case <-timer.C:
		}
		timer.Reset(b.step(ctx, time.Now()))
	}
}

// rereadHealth has rowhook.health read at once.
func (s *scheduler) rereadHealth() {
	s.mu.Lock()
	s.healthChanged = true
	s.mu.Unlock()
	s.tellBreakers()
}

// step does what there is to do. It returns how long to wait.
func (b *breakers) step(ctx context.Context, now time.Time) time.Duration {
	if b.db.schema.standsStill() {
		return readHealthEvery
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	b.scheduler.heedHosts(now)
	b.settler.giveBack(b.scheduler.held(now))
	err := b.report(ctx, now)
	if err == nil && (b.scheduler.takeHealthChanged() || b.read.IsZero() || b.scheduler.anyIll() && now.Sub(b.read) >= readHealthEvery) {
		err = b.reread(ctx, now)
	}
	if err == nil {
		err = b.probe(ctx, now)
	}
	if err != nil && ctx.Err() == nil {
		b.log.Debug("can't read or write the health of endpoints; retrying", "error", err)
	}
	next := time.Hour
	if err != nil || b.scheduler.anyIll() {
		next = readHealthEvery
	}
	if in, failing := b.scheduler.nextProbe(now); failing {
		next = min(next, heldEvery, max(in, heldEvery/10))
	}
	return next
}

// report records what has happened to the targets of this instance.
func (b *breakers) report(ctx context.Context, now time.Time) error {
	for _, r := range b.scheduler.takeNews(now) {
		if err := b.record(ctx, r); err != nil {
			b.scheduler.takeBackNews(r)
			return err
		}
	}
	return nil
}

func (b *breakers) record(ctx context.Context, r *healthNews) error {
	db := b.db.writes
	switch r.news {
	case beganFailing:
		begins, err := queue.BeginFailing(ctx, db, b.self.id, &r.Failure)
		if err != nil {
			return err
		}
		b.scheduler.recordedFailure(r.target)
		if begins {
			b.log.Warn("an endpoint fails: its events wait, and now and then one is sent to probe it",
				"endpoint", r.Endpoint, "triggers", r.names, "since", time.Now().Add(-r.For), "error", r.Reason, "next_probe_in", r.ProbeIn.Round(time.Millisecond))
		}
		return b.tell(ctx)
	case probeFailed, probeUnused:
		if err := queue.ProbeFailed(ctx, db, b.self.id, r.Target, r.Reason, r.ProbeIn); err != nil {
			return err
		}
		b.log.Debug("a probe was made in vain", "endpoint", r.Endpoint, "error", r.Reason, "next_probe_in", r.ProbeIn)
	case probeAnswered:
		if err := queue.ProbeAnswered(ctx, db, b.self.id, r.Target); err != nil {
			return err
		}
		return b.tell(ctx)
	case noNews:
	}
	return nil
}

// tell has the other instances read rowhook.health.
func (b *breakers) tell(ctx context.Context) error {
	return queue.NotifyPeers(ctx, b.db.claims, queue.HealthPayload)
}

// reread takes over what the instances share, and ends what has recovered.
func (b *breakers) reread(ctx context.Context, now time.Time) error {
	rows, err := queue.ReadHealth(ctx, b.db.claims)
	if err != nil {
		return err
	}
	b.read = now
	b.settler.giveBack(b.scheduler.follow(rows, time.Now()))
	for i := range rows {
		if h := &rows[i]; h.Probing && h.Calm >= recoveredAfter {
			r, err := queue.Recover(ctx, b.db.writes, h.Target, recoveredAfter)
			if err != nil {
				return err
			}
			if r != nil {
				b.log.Info("an endpoint that failed has recovered", "endpoint", r.Endpoint, "triggers", strings.Join(r.Triggers, ", "), "failed_for", r.Failed.Round(time.Second))
			}
		}
	}
	return nil
}

// probe begins the probes that are due, unless another instance makes them.
func (b *breakers) probe(ctx context.Context, now time.Time) error {
	for _, p := range b.scheduler.dueProbes(now) {
		won, failing, err := queue.StartProbe(ctx, b.db.writes, b.self.id, &p)
		if err != nil {
			return err
		}
		b.scheduler.startProbe(p.Target, won, failing, time.Now())
	}
	return nil
}

// healthNews is what is to be recorded of a target.
type healthNews struct {
	queue.Failure
	target *target
	news   news
	names  string
}

// takeNews returns what is not recorded yet.
func (s *scheduler) takeNews(now time.Time) (all []*healthNews) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.targets {
		if t.news == noNews {
			continue
		}
		r := &healthNews{target: t, news: t.news, Failure: queue.Failure{Target: t.name, Trigger: t.trigger, Endpoint: t.endpoint}}
		switch t.news {
		case beganFailing:
			r.Triggers, r.names = t.triggers(), t.names()
			r.Reason, r.For, r.ProbeIn = t.reason, now.Sub(t.began), max(leastProbe, t.retryAfter)
			t.recorded = false
			t.probeAt = now.Add(r.ProbeIn)
		case probeFailed:
			r.Reason, r.ProbeIn = t.reason, max(probeIn(t.failing), t.retryAfter)
			t.probeAt = now.Add(r.ProbeIn)
		case probeUnused:
			r.ProbeIn = probeIn(t.failing)
			t.probeAt = now.Add(r.ProbeIn)
		case probeAnswered, noNews:
		}
		t.news = noNews
		all = append(all, r)
	}
	return all
}

// takeBackNews has news recorded later, unless there are newer ones.
func (s *scheduler) takeBackNews(r *healthNews) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.target.news == noNews {
		r.target.news = r.news
	}
}

// recordedFailure says that rowhook.health has a row of a target that fails.
func (s *scheduler) recordedFailure(t *target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.recorded = true
}

func (s *scheduler) takeHealthChanged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.healthChanged
	s.healthChanged = false
	return changed
}

// follow takes over the rows of rowhook.health. It returns the deliveries that wait and may not be
// sent now.
func (s *scheduler) follow(rows []queue.Health, now time.Time) []*delivery {
	s.mu.Lock()
	shared := make(map[string]*queue.Health, len(rows))
	for i := range rows {
		shared[rows[i].Target] = &rows[i]
	}
	for name, t := range s.targets {
		if t.news != noNews {
			continue // the row is older than what is known here
		}
		state, h := breakerOK, shared[name]
		switch {
		case h == nil && t.state == breakerFailing && !t.recorded:
			continue
		case h != nil && h.Probing:
			state = breakerProbing
		case h != nil:
			state = breakerFailing
			if t.permit.state == permitNone {
				t.probeAt = now.Add(h.ProbeIn)
			}
		}
		t.recorded = h != nil
		changed := t.breaker.follow(state, now)
		if state != breakerFailing {
			t.permit = permit{}
		}
		if changed && state != breakerFailing {
			s.reopen(t)
		}
	}
	s.mu.Unlock()
	return s.held(now)
}

// dueProbes lists the targets whose next probe is due and can be made here.
func (s *scheduler) dueProbes(now time.Time) (due []queue.Probe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	for _, t := range s.targets {
		if t.state == breakerFailing && t.recorded && t.news == noNews && t.permit.state == permitNone && !now.Before(t.probeAt) && len(t.able()) > 0 {
			if t.trigger == 0 && t.sends && s.shared.Shared != nil {
				if ok, again := s.shared.hosts.probes(t.name, now); !ok {
					t.probeAt = again
					continue
				}
			}
			due = append(due, queue.Probe{Target: t.name, Triggers: t.triggers(), Lease: t.probeLease()})
		}
	}
	return due
}

// startProbe hands out the permit of a probe that was won. If another instance makes the probe, it
// says when to try again.
func (s *scheduler) startProbe(name string, won bool, failing time.Duration, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[name]
	switch {
	case t == nil || t.state != breakerFailing:
	case won:
		t.failing = failing
		s.grant(t, now)
	default:
		t.probeAt = now.Add(readHealthEvery) // the next reading says it better
	}
}

// anyIll reports whether any endpoint is not ok, as far as is known here.
func (s *scheduler) anyIll() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.targets {
		if t.state != breakerOK || t.news != noNews || t.recorded {
			return true
		}
	}
	return s.healthChanged
}

// nextProbe returns the time until the next probe is due. failing reports that some target fails or
// has news.
func (s *scheduler) nextProbe(now time.Time) (in time.Duration, failing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in = readHealthEvery
	for _, t := range s.targets {
		if t.news != noNews {
			return 0, true
		}
		if t.state != breakerFailing {
			continue
		}
		failing = true
		if t.permit.state == permitNone && len(t.able()) > 0 {
			in = min(in, t.probeAt.Sub(now))
		}
	}
	return in, failing
}
