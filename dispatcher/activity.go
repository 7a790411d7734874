package dispatcher

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

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

	counts  occasion // there are counts
	mu      sync.Mutex
	minutes map[minuteOf]*counted
	err     string // why they can't be written; "": they can
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

// activityTimeout bounds such a write.
const activityTimeout = 5 * time.Second

// mostMinutes bounds the counts that are kept while the database can't be written.
const mostMinutes = 10_000

// mostSince bounds activityCounter.since.
const mostSince = 10_000

func newActivityCounter(db *database, self *identity, log *slog.Logger) *activityCounter {
	return &activityCounter{db: db, self: self, log: log, counts: newOccasion(), minutes: map[minuteOf]*counted{}, since: map[[16]byte]time.Time{}}
}

// add counts an attempt.
func (a *activityCounter) add(dl *delivery, r *webhook.Result, what queue.Fate) {
	if what == queue.Released || r.Kind == webhook.KindCanceled {
		return
	}
	end := r.StartedAt.Add(r.Duration)
	key := minuteOf{end.Truncate(time.Minute).Unix(), dl.lane.id}
	a.mu.Lock()
	defer a.mu.Unlock()
	since := a.began(dl, what)
	c := a.of(key)
	if c == nil {
		return
	}
	c.dirty = true
	c.Outcomes[classOf(r)]++
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

// died counts events that were given up without an attempt.
func (a *activityCounter) died(trigger int32, n int64, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.of(minuteOf{now.Truncate(time.Minute).Unix(), trigger}); c != nil {
		c.dirty = true
		c.Died += n
	}
}

// of returns the counts of a minute; nil: too many are kept already. The caller holds mu.
func (a *activityCounter) of(key minuteOf) *counted {
	c := a.minutes[key]
	if c == nil && len(a.minutes) < mostMinutes {
		c = &counted{Activity: queue.Activity{Minute: time.Unix(key.minute, 0), Trigger: key.trigger, Outcomes: map[string]int64{}}}
		a.minutes[key] = c
		a.counts.arises()
	}
	return c
}

// classOf says how an attempt ended: by the kind of its failure, or by the class of its status. A
// receiver that asks for less is a class of its own.
func classOf(r *webhook.Result) string {
	switch {
	case r.Kind != webhook.KindResponse:
		return string(r.Kind)
	case r.Status == http.StatusTooManyRequests:
		return "429"
	}
	if n := r.Status / 100; n >= 1 && n <= 5 {
		return [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}[n-1]
	}
	return string(webhook.KindOther)
}

// began returns the start of an event's latency: its change, or the time when it was sent again by
// hand. Its first attempt was due then. The caller holds mu.
func (a *activityCounter) began(dl *delivery, what queue.Fate) time.Time {
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
			taken := c.Activity
			taken.Outcomes = maps.Clone(c.Outcomes)
			batch = append(batch, taken)
		} else if now.Unix()-key.minute > 3*60 { // attempts may end a while after they are counted
			delete(a.minutes, key)
		}
	}
	return batch
}

// any reports whether there are counts that may have to be written.
func (a *activityCounter) any() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.minutes) > 0
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

// run writes the counts every activityEvery until ctx is done.
func (a *activityCounter) run(ctx context.Context) {
	a.counts.every(ctx, activityEvery, func() bool {
		if !a.db.schema.standsStill() {
			a.write(ctx)
		}
		return a.any()
	})
}

// every calls f after each period until ctx is done.
func every(ctx context.Context, period time.Duration, f func()) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f()
		}
	}
}

// write writes the counts that have changed, by one statement. It gives up soon, since it uses one
// of the sessions that settle: the next write has all that this one had.
func (a *activityCounter) write(ctx context.Context) {
	batch := a.take(time.Now())
	if len(batch) == 0 {
		return
	}
	within, cancel := context.WithTimeout(ctx, activityTimeout)
	defer cancel()
	err := a.record(within, batch)
	// The error that is among the counts may have characters that the database's encoding lacks.
	// All figures would be lost for that.
	if pg.IsBadData(err) {
		for i := range batch {
			batch[i].Error = toASCII(batch[i].Error)
		}
		err = a.record(within, batch)
	}
	if err != nil {
		a.takeBack(batch)
	}
	if ctx.Err() == nil {
		a.wrote(err)
	}
}

func (a *activityCounter) record(ctx context.Context, batch []queue.Activity) error {
	return a.db.onSchema(ctx, func(int32) error {
		return queue.RecordActivity(ctx, a.db.writes, a.self.id, batch)
	})
}

// wrote tells of a write that failed where the server has refused it, and of the end of that. What
// keeps the database from being reached is told by others.
func (a *activityCounter) wrote(err error) {
	a.mu.Lock()
	was := a.err
	switch {
	case err == nil:
		a.err = ""
	case pg.WasRefused(err) || errors.Is(err, context.DeadlineExceeded):
		a.err = err.Error()
	}
	now := a.err
	a.mu.Unlock()
	switch {
	case was == "" && now != "":
		a.log.Warn("can't write the figures of the last hour; deliveries continue, and status and the dashboard show too few; retrying", "every", activityEvery, "error", err)
	case was != "" && now == "":
		a.log.Info("the figures of the last hour are written again")
	case err != nil && now == "":
		a.log.Debug("can't write the counts of attempts; retrying", "error", err)
	}
}

// problem returns why the counts can't be written; "": they can.
func (a *activityCounter) problem() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}
