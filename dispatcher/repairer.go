package dispatcher

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// repairer gives back what claims took whose answers were lost. The claimer goes on meanwhile: by
// its number, each claim can be told from every other.
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
	by      queue.Claimant
	wants   []queue.Want
	backend uint32 // process id of the session that sent it
	asked   time.Time
	// If its session could not be ended, the claim may run after its events were given back. So
	// they are given back again, at next, with waits that double.
	next time.Time
	wait time.Duration
}

// over reports that the leases of all that it may have taken are over.
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
	failures, failed := pg.Backoff(firstRetry), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.signal:
		case <-timer.C:
		}
		err := r.all(ctx, false)
		if err == nil {
			failures, failed = pg.Backoff(firstRetry), false
			timer.Reset(r.rest())
			continue
		}
		if !failed && ctx.Err() == nil {
			failed = true
			r.log.Warn("can't give back the events of an interrupted claim; retrying, and they are due again when their leases end at the latest", "error", err)
		}
		wait, _ := failures.Next() // without a limit it never stops
		timer.Reset(wait)
	}
}

// finish repairs what is left when claiming has ended. It reports whether nothing is left.
func (r *repairer) finish(ctx context.Context) bool {
	if err := r.all(ctx, true); err != nil {
		r.log.Warn("can't give back the events of an interrupted claim; they are due again when their leases end", "error", err)
		return false
	}
	return true
}

// rest is how long there is nothing to repair.
func (r *repairer) rest() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	rest := time.Hour
	for n := range r.lost {
		rest = min(rest, time.Until(r.lost[n].next))
	}
	return max(rest, 0)
}

// firstRepeat is how soon a claim whose session could not be ended is given back for the second
// time.
const firstRepeat = time.Second

// all repairs what is due by now. It keeps what failed, and what has to be done again. The last
// time, it does not wait for what is due later.
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
			if !r.db.pooled || last {
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
	// The claim may still be on its way to the server, or running there. Its session is ended
	// first, so that it takes nothing after we have looked. The process ids of a pooler are not
	// those of the server. There we look again, until the leases would have ended.
	if !r.db.pooled {
		if err := queue.EndSession(ctx, r.db.writes, i.backend, r.db.application); err != nil {
			return err
		}
	}
	n, err := queue.ReleaseUnknown(ctx, r.db.writes, i.by, i.wants)
	if n > 0 {
		r.log.Warn("gave back the events of an interrupted claim", "events", n)
		r.scheduler.markAll(true)
	}
	return err
}

// repairTimeout bounds one try. Its statements are short, but there may be many of them.
const repairTimeout = 5 * time.Minute
