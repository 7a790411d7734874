package dispatcher

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/webhook"
)

// The log says that a trigger's attempts fail once when that begins. Then it counts them each
// sayEvery. It says once that it is over, when an attempt has succeeded and none has failed for
// calmFor. Single attempts are logged at level debug, since a dead endpoint has thousands in a
// second.
const (
	sayEvery = time.Minute
	calmFor  = time.Second
)

// failing logs failed attempts.
type failing struct {
	log   *slog.Logger
	begin occasion // a trigger is in triggers

	mu       sync.Mutex
	triggers map[string]*failures // that fail, or have failed within sayEvery
}

// failures are the failed attempts of one trigger.
type failures struct {
	now       bool      // its attempts fail
	said      bool      // the log says that they fail
	since     time.Time // when they began to fail
	last      time.Time // the last failure
	succeeded time.Time // last success since they fail
	line      time.Time // when the log last had a line about it
	dead      time.Time // when the log last named a dead letter of it

	attempts, died, delivered int         // since the last line that counted them
	reason                    []slog.Attr // of the last failure
}

// of returns what is known of a trigger. f.mu must be held.
func (f *failing) of(trigger string) *failures {
	if f.triggers == nil {
		f.triggers = map[string]*failures{}
	}
	t := f.triggers[trigger]
	if t == nil {
		t = &failures{}
		f.triggers[trigger] = t
		f.begin.arises()
	}
	return t
}

// failed records an attempt that failed. It returns which lines the log is to have about it.
func (f *failing) failed(trigger string, now time.Time, dead bool, reason []slog.Attr) (begins, firstDead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.of(trigger)
	if !t.now {
		t.now, t.since = true, now
	}
	t.last, t.reason = now, reason
	if !t.said && now.Sub(t.line) >= sayEvery {
		t.said, t.line = true, now
		begins = true
	}
	t.attempts++
	if dead {
		t.died++
		if now.Sub(t.dead) >= sayEvery {
			firstDead = true
		}
		if firstDead {
			t.dead = now
		}
	}
	return begins, firstDead
}

// succeeded records an attempt that did not fail.
func (f *failing) succeeded(trigger string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.triggers[trigger]; t != nil {
		t.succeeded = now
		t.delivered++
	}
}

// look writes the lines that are due: how many attempts failed, that a trigger fails, and that it
// fails no more. At the end of a dispatcher it logs all that was not counted yet. It reports whether there
// is more to come.
func (f *failing) look(now time.Time, end bool) (more bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx := context.Background()
	for name, t := range f.triggers {
		due := end || now.Sub(t.line) >= sayEvery
		counts := append([]slog.Attr{
			slog.String("trigger", name), slog.Int("failed", t.attempts), slog.Int("dead", t.died), slog.Int("delivered", t.delivered), slog.Time("since", t.since),
		}, t.reason...)
		if t.now && t.succeeded.After(t.last) && now.Sub(t.last) >= calmFor {
			t.now = false
		}
		switch {
		case !t.now && t.said:
			f.log.LogAttrs(ctx, slog.LevelInfo, "a trigger's attempts succeed again", counts[:5]...)
			t.said, t.line = false, now
		case t.attempts > 1 && due, t.attempts > 0 && due && now.Sub(t.since) >= sayEvery:
			f.log.LogAttrs(ctx, slog.LevelWarn, "a trigger's attempts are failing: counts since the previous line", counts...)
			t.said, t.line = t.now, now
		case !t.now && due && now.Sub(t.dead) >= sayEvery:
			delete(f.triggers, name)
			continue
		default:
			continue
		}
		t.attempts, t.died, t.delivered = 0, 0, 0
	}
	return len(f.triggers) > 0
}

// run calls look until ctx is done.
func (f *failing) run(ctx context.Context) {
	f.begin.every(ctx, calmFor, func() bool { return f.look(time.Now(), false) })
}

// report logs how an attempt went.
func (f *failing) report(dl *delivery, ep fmt.Stringer, r *webhook.Result, what queue.Fate, delay time.Duration) {
	ctx := context.Background()
	now := time.Now()
	if r.Kind == webhook.KindCanceled {
		return // the attempt was broken off, and the endpoint did not fail
	}
	if what == queue.Delivered {
		f.succeeded(dl.event.Trigger, now)
		if f.log.Enabled(ctx, slog.LevelDebug) {
			f.log.LogAttrs(ctx, slog.LevelDebug, "delivered", slog.String("event", eventID(dl)), slog.String("trigger", dl.event.Trigger),
				slog.Int("status", r.Status), slog.Duration("took", r.Duration), slog.Duration("since_change", time.Since(dl.event.CreatedAt)), slog.String("note", r.Err))
		}
		return
	}
	reason := []slog.Attr{slog.String("error", reason(r)), slog.String("endpoint", ep.String())}
	if r.Kind != "" {
		reason = append(reason, slog.String("kind", string(r.Kind)))
	} else {
		reason = append(reason, slog.Int("status", r.Status))
	}
	attrs := append([]slog.Attr{
		slog.String("event", eventID(dl)), slog.String("trigger", dl.event.Trigger),
		slog.Int("attempt", int(dl.tries)), slog.Int("attempts", max(dl.event.MaxRetries+1, int(dl.tries))),
	}, reason...)
	dead := what == queue.Dead
	begins, firstDead := f.failed(dl.event.Trigger, now, dead, reason)
	if begins {
		f.log.LogAttrs(ctx, slog.LevelWarn, "a trigger's attempts are failing: counts follow each minute, and level debug logs each attempt", attrs...)
	}
	if firstDead {
		f.log.LogAttrs(ctx, slog.LevelError, "an event is given up and is now a dead letter; further dead letters of this trigger are only counted", attrs...)
	}
	if !f.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	if dead {
		f.log.LogAttrs(ctx, slog.LevelDebug, "attempt failed: the event is given up and is now a dead letter", attrs...)
		return
	}
	f.log.LogAttrs(ctx, slog.LevelDebug, "attempt failed, will retry", append(attrs,
		slog.Duration("in", delay.Round(time.Millisecond)), slog.Time("at", now.Add(delay)))...)
}
