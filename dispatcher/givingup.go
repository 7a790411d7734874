package dispatcher

import (
	"context"
	"log/slog"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/hint"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// answerAgain is the delay before an event is sent again whose answer would have paused its trigger
// if nobody had resumed or changed the trigger meanwhile.
const answerAgain = time.Second

// pause pauses the trigger of a shipment for an answer of its receiver. The lane is suspended
// already, until it is known what has become of the trigger. What may pass by itself is waited for, as
// it is to settle events. If held is true, the events wait, their attempts do not count, and they are
// due again after a delay. If not, the trigger can't be paused, and they are retried.
func (s *sender) pause(sh *shipment, spec *trigger.Spec, status int) (held bool, delay time.Duration) {
	defer s.inbox.askReload() // until then nothing is claimed for the lane
	t := queue.Trigger{ID: sh.lane.id, Version: sh.version, Spec: *spec}
	var found queue.PausedByAnswer
	failed := false
	err := retry.Do(s.ctx, pg.Backoff(firstRetry), func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, statementTimeout)
		defer cancel()
		err = s.settler.db.onSchema(ctx, func(int32) (err error) {
			found, err = queue.PauseByAnswer(ctx, s.settler.db.writes, &t, status)
			return err
		})
		if err == nil || pg.WasRefused(err) && !pg.MayPass(err) {
			return err
		}
		if !failed && s.ctx.Err() == nil {
			failed = true
			s.log.Error("can't pause a trigger for the answer of its receiver; its events wait, and the pause is retried", "trigger", spec.Name, "status", status, "error", err)
		}
		if isDiskFull(err) {
			s.settler.disk.free(s.ctx)
		}
		return retry.RetryableError(err)
	})
	switch {
	case s.ctx.Err() != nil:
		return true, 0 // this dispatcher stops, and another one is answered the same
	case err != nil:
		s.log.Error("a trigger can't be paused, as its retry says for the answer of its receiver; its events are retried", "trigger", spec.Name, "status", status, "error", err)
		s.scheduler.unsuspend(sh.lane)
		return false, 0
	case found == queue.NowPaused:
		s.log.Warn("a trigger is paused, as its retry says for the answer of its receiver; its events wait", "trigger", spec.Name, "status", status,
			"remedy", hint.Of(s.scheduler.source, "correct the webhook or the receiver, then: rowhook resume "+spec.Name))
	case found == queue.OtherTrigger:
		return true, answerAgain
	}
	return true, 0
}

// expire makes dead letters of events that are too old to be sent.
func (s *sender) expire(all ...*delivery) {
	for _, dl := range all {
		spec := s.scheduler.specOf(dl.lane)
		why := expiredReason(&spec)
		s.settler.add(dl, queue.Settlement{Fate: queue.Dead, Reason: why, Unsent: true})
		s.activity.died(dl.lane.id, 1, time.Now())
		s.failing.expired(spec.Name, eventID(dl), why)
	}
}

// specOf returns the spec of a lane that is in force now.
func (s *scheduler) specOf(l *lane) trigger.Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.trigger.Spec
}

// expired logs that an event has expired, for each trigger at most once in sayEvery. event is "" if
// several have.
func (f *failing) expired(trigger, event, why string) {
	now := time.Now()
	f.mu.Lock()
	t := f.of(trigger)
	first := now.Sub(t.dead) >= sayEvery
	if first {
		t.dead = now
	}
	f.mu.Unlock()
	if first {
		f.log.LogAttrs(context.Background(), slog.LevelError, "events of a trigger have expired and are dead letters now; further ones are not logged",
			slog.String("trigger", trigger), slog.String("event", event), slog.String("reason", why))
	}
}

// expirer gives up events that have expired and that nobody claims: their endpoint fails, their rate
// is slow, or no instance can send for their trigger. Those of a paused trigger wait. What is claimed
// is given up by the sender, and what has an order by the orderer.
type expirer struct {
	db        *database
	scheduler *scheduler
	activity  *activityCounter
	failing   *failing
	log       *slog.Logger

	// places is how far the events of a trigger are looked through that wait behind those which have
	// expired.
	places map[int32]time.Time
	failed bool
}

const (
	expireEvery = 5 * time.Second
	// mostExpired bounds the events of a statement, and expireSteps the statements of one look. An
	// outage of days is over after a few looks.
	mostExpired = 1000
	expireSteps = 50
)

// run looks for events that have expired until ctx is done.
func (e *expirer) run(ctx context.Context) {
	e.places = map[int32]time.Time{}
	every(ctx, expireEvery, func() {
		if e.db.schema.standsStill() {
			return
		}
		for id, spec := range e.scheduler.expiring() {
			err := e.look(ctx, id, &spec)
			switch {
			case err != nil && ctx.Err() == nil && !e.failed:
				e.failed = true
				e.log.Error("can't look for events that have expired; retrying", "in", expireEvery, "error", queue.ExplainHidden(err))
			case err == nil && e.failed:
				e.failed = false
				e.log.Info("events that have expired are looked for again")
			}
		}
	})
}

// look gives up the events of one trigger. Those that wait longest are looked at each time. Behind
// them there are others only if they have been tried: one step further each time finds them.
func (e *expirer) look(ctx context.Context, id int32, spec *trigger.Spec) error {
	from := time.Time{}
	for range expireSteps {
		n, last, more, err := e.step(ctx, id, spec, from)
		switch {
		case err != nil:
			return err
		case !more:
			delete(e.places, id)
			return nil
		case n > 0:
			continue
		}
		if from = e.places[id]; from.Before(last) {
			from = last
		}
		_, last, more, err = e.step(ctx, id, spec, from)
		if e.places[id] = last; !more {
			delete(e.places, id)
		}
		return err
	}
	return nil
}

func (e *expirer) step(ctx context.Context, id int32, spec *trigger.Spec, from time.Time) (n int64, last time.Time, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	why := expiredReason(spec)
	err = e.db.onSchema(ctx, func(schema int32) (err error) {
		n, last, more, err = queue.Expire(ctx, e.db.writes, queue.Expiry{
			Trigger: id, Age: spec.Retry.MaxAge.Std(), Delay: spec.Delay.Std(), Reason: why, After: from, Limit: mostExpired,
		})
		return err
	})
	if n > 0 {
		e.activity.died(id, n, time.Now())
		e.failing.expired(spec.Name, "", why)
	}
	return n, last, more, err
}

// expiring returns the triggers whose events expire, by id, without those that are paused.
func (s *scheduler) expiring() map[int32]trigger.Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all map[int32]trigger.Spec
	for id, l := range s.lanes {
		if l.gone || l.trigger.Paused || l.trigger.Spec.Retry.MaxAge <= 0 {
			continue
		}
		if all == nil {
			all = map[int32]trigger.Spec{}
		}
		all[id] = l.trigger.Spec
	}
	return all
}
