package dispatcher

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"

	"github.com/rowhook/rowhook/internal/webhook"
	"github.com/rowhook/rowhook/sqlschema"
)

// tally counts what is done by trigger and minute, for those who ask the database how things stand: looking through the history
// for it would take long where there is much, and there may be none. What was counted since the last writing is lost in a crash.
type tally struct {
	mu      sync.Mutex
	minutes map[minuteOf]*counted
	// since says from when the latency of an event counts that was sent again by hand and failed then.
	since map[[16]byte]time.Time
}

type minuteOf struct {
	minute  int64 // Unix
	trigger int32
}

type counted struct {
	sqlschema.Activity
	dirty bool
}

// tallyEvery is how often it is written, where there is something.
const tallyEvery = 3 * time.Second

// mostMinutes bounds what is kept while it can't be written.
const mostMinutes = 10_000

// mostSince bounds how many events are known that were sent again and failed.
const mostSince = 10_000

func newTally() *tally {
	return &tally{minutes: map[minuteOf]*counted{}, since: map[[16]byte]time.Time{}}
}

// add counts an attempt.
func (t *tally) add(dl *delivery, r *webhook.Result, what sqlschema.Fate) {
	if what == sqlschema.Released || r.Kind == webhook.KindCanceled {
		return
	}
	end, since := r.StartedAt.Add(r.Duration), t.began(dl, what)
	key := minuteOf{end.Truncate(time.Minute).Unix(), dl.lane.id}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.minutes[key]
	if c == nil {
		if len(t.minutes) >= mostMinutes {
			return
		}
		c = &counted{Activity: sqlschema.Activity{Minute: time.Unix(key.minute, 0), Trigger: key.trigger}}
		t.minutes[key] = c
	}
	c.dirty = true
	if what == sqlschema.Delivered {
		c.Delivered++
		c.Latency.Add(end.Sub(since))
		if c.ErrorAt != nil && r.StartedAt.After(*c.ErrorAt) {
			c.Recovered = true
		}
		return
	}
	c.Failed++
	if what == sqlschema.Dead {
		c.Died++
	}
	if c.ErrorAt == nil || r.StartedAt.After(*c.ErrorAt) {
		at := r.StartedAt
		c.ErrorAt, c.Error, c.Recovered = &at, reason(r), false
	}
}

// began is from when an event's latency counts: its change, or when it was sent again by hand. Its first attempt was due then.
func (t *tally) began(dl *delivery, what sqlschema.Fate) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	since, known := t.since[dl.event.ID]
	switch {
	case dl.tries == 1:
		since = dl.due
	case !known:
		since = dl.event.CreatedAt
	}
	if again := since.Sub(dl.event.CreatedAt) > time.Second; again && what == sqlschema.Retried && len(t.since) < mostSince {
		t.since[dl.event.ID] = since
	} else if what != sqlschema.Retried {
		delete(t.since, dl.event.ID)
	}
	return since
}

// take returns what is to be written, and forgets the minutes that are over and written.
func (t *tally) take(now time.Time) (batch []sqlschema.Activity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, c := range t.minutes {
		if c.dirty {
			c.dirty = false
			batch = append(batch, c.Activity)
		} else if now.Unix()-key.minute > 3*60 { // attempts may end a while after they are counted
			delete(t.minutes, key)
		}
	}
	return batch
}

// again has minutes written anew.
func (t *tally) again(batch []sqlschema.Activity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range batch {
		if c := t.minutes[minuteOf{batch[i].Minute.Unix(), batch[i].Trigger}]; c != nil {
			c.dirty = true
		}
	}
}

// writeTally writes what was counted. A schema that is older than this program has no place for it.
func (d *Dispatcher) writeTally(ctx context.Context) {
	batch := d.tally.take(time.Now())
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	err := sqlschema.RecordActivity(ctx, d.writes, d.id, batch)
	if sqlschema.IsBadData(err) { // an error of which the database's encoding has not all characters must not hide the figures of all
		plain := slices.Clone(batch)
		for i := range plain {
			plain[i].Error = toASCII(plain[i].Error)
		}
		err = sqlschema.RecordActivity(ctx, d.writes, d.id, plain)
	}
	if err == nil || sqlschema.IsState(err, pgerrcode.UndefinedTable) {
		return
	}
	d.tally.again(batch)
	d.log.Debug("can't record the activity, trying again later", "error", err)
}
