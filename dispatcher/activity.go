package dispatcher

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/webhook"
)

// activityCounter counts attempts by trigger and minute. It is written to rowhook.activity, from
// which status reads: the history would take long to count where it is large, and there may be
// none. What was counted since the last write is lost in a crash.
type activityCounter struct {
	db   *database
	self *identity
	log  *slog.Logger

	mu      sync.Mutex
	minutes map[minuteOf]*counted
	// since is the start of the latency of events that were sent again by hand, and failed then.
	since map[[16]byte]time.Time
}

type minuteOf struct {
	minute  int64 // Unix
	trigger int32
}

type counted struct {
	queue.Activity
	dirty bool
}

// activityEvery is how often the counts that have changed are written.
const activityEvery = 3 * time.Second

// mostMinutes bounds the counts that are kept while the database can't be written.
const mostMinutes = 10_000

// mostSince bounds activityCounter.since.
const mostSince = 10_000

func newActivityCounter(db *database, self *identity, log *slog.Logger) *activityCounter {
	return &activityCounter{db: db, self: self, log: log, minutes: map[minuteOf]*counted{}, since: map[[16]byte]time.Time{}}
}

// add counts an attempt.
func (a *activityCounter) add(dl *delivery, r *webhook.Result, what queue.Fate) {
	if what == queue.Released || r.Kind == webhook.KindCanceled {
		return
	}
	end, since := r.StartedAt.Add(r.Duration), a.began(dl, what)
	key := minuteOf{end.Truncate(time.Minute).Unix(), dl.lane.id}
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.minutes[key]
	if c == nil {
		if len(a.minutes) >= mostMinutes {
			return
		}
		c = &counted{Activity: queue.Activity{Minute: time.Unix(key.minute, 0), Trigger: key.trigger}}
		a.minutes[key] = c
	}
	c.dirty = true
	if what == queue.Delivered {
		c.Delivered++
		c.Latency.Add(end.Sub(since))
		if c.ErrorAt != nil && r.StartedAt.After(*c.ErrorAt) {
			c.Recovered = true
		}
		return
	}
	c.Failed++
	if what == queue.Dead {
		c.Died++
	}
	if c.ErrorAt == nil || r.StartedAt.After(*c.ErrorAt) {
		at := r.StartedAt
		c.ErrorAt, c.Error, c.Recovered = &at, reason(r), false
	}
}

// began returns the start of an event's latency: its change, or the time when it was sent again by
// hand. Its first attempt was due then.
func (a *activityCounter) began(dl *delivery, what queue.Fate) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	since, known := a.since[dl.event.ID]
	switch {
	case dl.tries == 1:
		since = dl.due
	case !known:
		since = dl.event.CreatedAt
	}
	if redelivered := since.Sub(dl.event.CreatedAt) > time.Second; redelivered && what == queue.Retried && len(a.since) < mostSince {
		a.since[dl.event.ID] = since
	} else if what != queue.Retried {
		delete(a.since, dl.event.ID)
	}
	return since
}

// take returns the counts that have changed, and forgets the minutes that are over and written.
func (a *activityCounter) take(now time.Time) (batch []queue.Activity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, c := range a.minutes {
		if c.dirty {
			c.dirty = false
			batch = append(batch, c.Activity)
		} else if now.Unix()-key.minute > 3*60 { // attempts may end a while after they are counted
			delete(a.minutes, key)
		}
	}
	return batch
}

// takeBack marks counts whose write failed, so that the next take returns them again.
func (a *activityCounter) takeBack(batch []queue.Activity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range batch {
		if c := a.minutes[minuteOf{batch[i].Minute.Unix(), batch[i].Trigger}]; c != nil {
			c.dirty = true
		}
	}
}

// write writes the counts that have changed. An older schema has no table for them.
func (a *activityCounter) write(ctx context.Context) {
	batch := a.take(time.Now())
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	err := queue.RecordActivity(ctx, a.db.writes, a.self.id, batch)
	// The error that is among the counts may have characters that the database's encoding lacks.
	// All figures would be lost for that.
	if pg.IsBadData(err) {
		plain := slices.Clone(batch)
		for i := range plain {
			plain[i].Error = toASCII(plain[i].Error)
		}
		err = queue.RecordActivity(ctx, a.db.writes, a.self.id, plain)
	}
	if err == nil || pg.IsState(err, pgerrcode.UndefinedTable) {
		return
	}
	a.takeBack(batch)
	a.log.Debug("can't write the counts of attempts; retrying", "error", err)
}
