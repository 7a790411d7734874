package dispatcher

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/sorting"
)

// pacer reserves the times of requests for triggers with a rate. While the database can't be
// reached, there are none, and the events wait.
type pacer struct {
	db        *database
	scheduler *scheduler
	sender    *sender
	settler   *settler
	log       *slog.Logger

	failures retry.Backoff
	failed   bool

	shared *Shared // nil: there are no other sources
	far    farRates
}

// run reserves until ctx is done.
func (p *pacer) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	defer p.far.asking.Wait()
	for ctx.Err() == nil {
		wants, wait := p.scheduler.slotWants(time.Now())
		if wants = p.askOthers(ctx, wants); len(wants) > 0 {
			wait = p.reserve(ctx, wants)
		}
		if wait <= 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-p.scheduler.paceSignal:
		}
	}
}

// reserve asks for slots, and starts what may start. It returns how long to wait after a failure.
func (p *pacer) reserve(parent context.Context, wants []queue.SlotWant) time.Duration {
	ctx, cancel := context.WithTimeout(parent, statementTimeout)
	defer cancel()
	asked := time.Now()
	slots, err := queue.ReserveSlots(ctx, p.db.claims, wants)
	p.take(wants, slots, asked)
	switch {
	case parent.Err() != nil:
	case err == nil:
		if p.failed {
			p.failed = false
			p.log.Info("requests of triggers with a rate are planned again")
		}
	case !p.failed:
		p.failed, p.failures = true, pg.Backoff(firstRetry)
		p.log.Error("can't plan the requests of triggers with a rate; their events wait", "error", err)
		fallthrough
	default:
		wait, _ := p.failures.Next() // without a limit it never stops
		return wait
	}
	return 0
}

// take takes in slots, and starts what may start.
func (p *pacer) take(wants []queue.SlotWant, slots []queue.Slots, asked time.Time) {
	start, unsent := p.scheduler.reserved(wants, slots, asked, time.Now())
	for _, sh := range start {
		p.sender.send(sh)
	}
	p.settler.giveBack(unsent)
}

// slotWants returns what to reserve now, or how long to wait.
func (s *scheduler) slotWants(now time.Time) (wants []queue.SlotWant, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait = time.Hour
	for id, l := range s.lanes {
		p := &l.pace
		if p.off() || s.halted || s.closed && p.waiting == 0 {
			continue
		}
		if n := p.wants(now, l.loads()); n > 0 {
			p.asking = true
			w := queue.SlotWant{Trigger: id, Every: p.every(), Burst: p.rate.Burst, N: n, Name: l.trigger.Spec.Name}
			if s.source != "" && p.rate.HeldBy != s.source {
				w.Holder = p.rate.HeldBy // else this database is the only one, or the one
			}
			wants = append(wants, w)
			continue
		}
		if !p.opens.IsZero() && l.state != drained {
			if at := p.opens.Add(-paceAhead); now.Before(at) {
				wait = min(wait, at.Sub(now))
			} else {
				s.wake() // the claimer
			}
		}
		if l.loads()+p.waiting > 0 {
			if now.Before(p.askAt) {
				wait = min(wait, p.askAt.Sub(now))
			}
			if n := len(p.runs); n > 0 {
				last := p.runs[n-1]
				wait = min(wait, max(last.next.Add(time.Duration(last.left-1)*p.every()-slotsInTime).Sub(now), time.Millisecond))
			}
		}
	}
	sorting.By(wants, func(a, b queue.SlotWant) int { return int(a.Trigger) - int(b.Trigger) })
	return wants, wait
}

// reserved takes in slots. It returns what may start by them, and what is not to be kept here until
// there is one.
func (s *scheduler) reserved(wants []queue.SlotWant, slots []queue.Slots, asked, now time.Time) (start []*shipment, unsent []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range wants {
		l, ok := s.lanes[w.Trigger]
		if !ok || l.pace.every() != w.Every {
			continue // the rate has changed meanwhile
		}
		i := slices.IndexFunc(slots, func(got queue.Slots) bool { return got.Trigger == w.Trigger })
		if i < 0 {
			l.pace.failed(now)
			continue
		}
		if l.pace.got(slots[i], asked, now) > paceAhead {
			unsent = append(unsent, s.dropQueue(l)...)
		}
	}
	return s.take(now), unsent
}

// onPace reports whether a lane with a rate has a slot now. Else it will be asked for, or waited for.
func (s *scheduler) onPace(l *lane, now time.Time) bool {
	ok, at := l.pace.admits(now)
	switch {
	case ok:
	case at.IsZero():
		s.askForSlots()
	default:
		s.later.note(at)
	}
	return ok
}

// pacedEvents counts the claimed events that wait for their rate, by trigger. nil: there are none.
func (s *scheduler) pacedEvents() map[string]queue.Paced {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all map[string]queue.Paced
	for _, l := range s.lanes {
		if l.pace.off() || l.queued() == 0 {
			continue
		}
		var p queue.Paced
		for _, d := range l.queue[l.head:] {
			if d.placed != nil {
				continue
			}
			if p.Events++; d.tries > 1 {
				p.Retried++
			}
		}
		if p.Events > 0 {
			if all == nil {
				all = map[string]queue.Paced{}
			}
			all[l.trigger.Spec.Name] = p
		}
	}
	return all
}

// alive says how many instances there are. A lane with a rate claims its part of what may be sent.
func (s *scheduler) alive(instances int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instances = instances
}

// aliveInstances returns how many instances are alive, this one included, as last seen.
func (s *scheduler) aliveInstances() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.instances
}

// askForSlots wakes the pacer.
func (s *scheduler) askForSlots() {
	select {
	case s.paceSignal <- struct{}{}:
	default:
	}
}

// awaitSlot waits until a further request of a shipment may be sent. It returns false if that is not
// before until.
func (s *scheduler) awaitSlot(ctx context.Context, l *lane, until time.Time) bool {
	timer := time.NewTimer(0)
	defer timer.Stop()
	s.mu.Lock()
	l.pace.waiting++
	defer func() {
		l.pace.waiting--
		s.mu.Unlock()
	}()
	for {
		now := time.Now()
		ok, at := l.pace.admits(now)
		if ok {
			l.pace.take()
			return true
		}
		if at.IsZero() || at.After(until) {
			at = until
		}
		if now.After(until) || ctx.Err() != nil {
			return false
		}
		if l.pace.changed == nil {
			l.pace.changed = make(chan struct{})
		}
		changed := l.pace.changed
		s.askForSlots()
		s.mu.Unlock()
		timer.Reset(at.Sub(now))
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		s.mu.Lock()
	}
}
