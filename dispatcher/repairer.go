package dispatcher

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/rowhook/rowhook/sqlschema"
)

// repairer gives back what claims took whose answers were lost. It works beside the claimer, which goes on meanwhile: a claim's number tells
// its events from those of every other one.
type repairer struct {
	db        *database
	scheduler *scheduler
	log       *slog.Logger
	signal    chan struct{}

	mu   sync.Mutex
	lost []interrupted
}

// interrupted is a claim that may have succeeded without our knowing.
type interrupted struct {
	by      sqlschema.Claimant
	wants   []sqlschema.Want
	backend uint32 // process id of its session
	asked   time.Time
	// Where its session could not be ended, the claim may run later than it was given back: that is done again, at times that double.
	next time.Time
	wait time.Duration
}

// over reports that everything that it may have taken has come back by itself.
func (i *interrupted) over(now time.Time) bool {
	for _, w := range i.wants {
		if now.Sub(i.asked) < w.Lease+statementTimeout {
			return false
		}
	}
	return true
}

func newRepairer(db *database, scheduler *scheduler, log *slog.Logger) *repairer {
	return &repairer{db: db, scheduler: scheduler, log: log, signal: make(chan struct{}, 1)}
}

func (r *repairer) add(i interrupted) {
	r.mu.Lock()
	r.lost = append(r.lost, i)
	r.mu.Unlock()
	select {
	case r.signal <- struct{}{}:
	default:
	}
}

// run repairs until ctx is done.
func (r *repairer) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	failures, failed := untilItAnswers(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.signal:
		case <-timer.C:
		}
		err := r.all(ctx, false)
		if err == nil {
			failures, failed = untilItAnswers(), false
			timer.Reset(r.rest())
			continue
		}
		if !failed && ctx.Err() == nil {
			failed = true
			r.log.Warn("can't give back the events of an interrupted claim, trying again; they come back when their leases end at the latest", "error", err)
		}
		wait, _ := failures.Next() // without a limit it never stops
		timer.Reset(wait)
	}
}

// finish repairs what is left when claiming has ended. It reports whether nothing remains.
func (r *repairer) finish(ctx context.Context) bool {
	if err := r.all(ctx, true); err != nil {
		r.log.Warn("can't give back the events of an interrupted claim, they come back when their leases end", "error", err)
		return false
	}
	return true
}

// rest is how long there is nothing to do.
func (r *repairer) rest() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	rest := time.Hour
	for n := range r.lost {
		rest = min(rest, time.Until(r.lost[n].next))
	}
	return max(rest, 0)
}

// firstRepeat is how soon a claim is given back once more whose session could not be ended.
const firstRepeat = time.Second

// all repairs what there is to repair by now, and keeps what it could not, or has to do again. The last time it does not wait for anything.
func (r *repairer) all(ctx context.Context, last bool) (err error) {
	r.mu.Lock()
	lost := r.lost
	r.lost = nil
	r.mu.Unlock()
	var kept []interrupted
	for _, i := range lost {
		now := time.Now()
		if err != nil || !last && now.Before(i.next) {
			kept = append(kept, i)
			continue
		}
		if err = r.repair(ctx, &i); err == nil {
			if !r.db.pooled || i.by.Number == 0 || last {
				continue
			}
			i.wait = max(2*i.wait, firstRepeat)
			i.next = now.Add(i.wait)
		}
		if !i.over(now) {
			kept = append(kept, i)
		}
	}
	r.mu.Lock()
	r.lost = append(r.lost, kept...)
	r.mu.Unlock()
	return err
}

// repair gives back what one claim took.
func (r *repairer) repair(ctx context.Context, i *interrupted) error {
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	// The claim may still be on its way to the server, or running there: end its session first, so that it can't take
	// anything once we have looked. A pooler's process ids are not the server's, so there we look again, until its leases would have ended.
	if !r.db.pooled {
		if err := sqlschema.EndSession(ctx, r.db.writes, i.backend, r.db.application); err != nil {
			return err
		}
	}
	if i.by.Number == 0 {
		r.log.Warn("the answer to a claim was lost; its events come back when their leases end")
		return nil
	}
	n, err := sqlschema.Disown(ctx, r.db.writes, i.by, i.wants)
	if n > 0 {
		r.log.Warn("gave back events whose claim was interrupted", "events", n)
		r.scheduler.markAll(true)
	}
	return err
}

// repairTimeout bounds one try. Its statements are short, but there may be many.
const repairTimeout = 5 * time.Minute
