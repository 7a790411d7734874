package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/sorting"
)

// Activity is what was delivered and what failed, by trigger and minute, as the dispatchers have
// recorded it some seconds late.
type Activity struct {
	From     time.Time         `json:"from"`     // beginning of the first minute; the last one is not over
	StepS    int               `json:"step_s"`   // 60
	Triggers []TriggerActivity `json:"triggers"` // by name; those that had something
}

// TriggerActivity is the activity of a trigger. Each slice has an element for each minute.
type TriggerActivity struct {
	Name      string     `json:"name"`
	Delivered []int64    `json:"delivered"` // events that were sent and taken
	Failed    []int64    `json:"failed"`    // attempts
	Died      []int64    `json:"died"`      // events that became dead letters
	P50MS     []*float64 `json:"p50_ms"`    // from the change or the redelivery to the end of the delivery; null: none was delivered
	P95MS     []*float64 `json:"p95_ms"`
	// Outcomes counts the attempts of all minutes by how they ended: the status or its class, or
	// the kind of a failure. An attempt of a batch counts for each of its events.
	Outcomes map[string]int64 `json:"outcomes"`
}

// Rates is what was done within the last minute.
type Rates struct {
	DeliveredPerS float64  `json:"delivered_per_s"` // events
	FailedPerS    float64  `json:"failed_per_s"`    // attempts
	P50MS         *float64 `json:"p50_ms"`          // null: none was delivered
	P95MS         *float64 `json:"p95_ms"`
}

// MaxMinutes is the greatest value of ActivityOptions.Minutes.
const MaxMinutes = 24 * 60

// ActivityOptions says which activity to read.
type ActivityOptions struct {
	Triggers []string // none: all
	Minutes  int      // 0: 60
}

// ReadActivity reads the activity of the last minutes.
func ReadActivity(ctx context.Context, db DB, o ActivityOptions) (*Activity, error) {
	if o.Minutes == 0 {
		o.Minutes = 60
	}
	if o.Minutes < 1 || o.Minutes > MaxMinutes {
		return nil, problem(ErrInvalid, fmt.Sprintf("write a number from 1 to %d", MaxMinutes), "minutes can't be %d", o.Minutes)
	}
	out := &Activity{StepS: 60, Triggers: []TriggerActivity{}}
	err := read(ctx, db, func(tx pgx.Tx) error {
		ts, err := readTriggers(ctx, tx)
		if err != nil {
			return err
		}
		var ids []int32
		for _, name := range o.Triggers {
			t, err := ts.named(name)
			if err != nil {
				return err
			}
			ids = append(ids, t.ID)
		}
		var now time.Time
		if err := tx.QueryRow(ctx, "select clock_timestamp()").Scan(&now); err != nil {
			return fmt.Errorf("read the time: %w", err)
		}
		out.From = now.UTC().Truncate(time.Minute).Add(-time.Duration(o.Minutes-1) * time.Minute)
		minutes, err := readMinutes(ctx, tx, ids, out.From)
		if err != nil {
			return err
		}
		out.fill(ts, minutes, o.Minutes)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// fill takes the minutes, which are in the order of their triggers and times.
func (a *Activity) fill(ts triggers, minutes []minute, n int) {
	of, at := -1, -1 // the element of a.Triggers and of its slices
	latency := make([]int64, queue.LatencyBuckets)
	last := int32(0)
	flush := func() {
		if of >= 0 && at >= 0 {
			a.Triggers[of].P50MS[at], a.Triggers[of].P95MS[at] = quantile(latency, 0.5), quantile(latency, 0.95)
		}
		clear(latency)
	}
	for i := range minutes {
		m := &minutes[i]
		k := int(m.Minute.Sub(a.From) / time.Minute)
		if k >= n { // by a clock that is ahead
			k = n - 1
		}
		if of < 0 || m.TriggerID != last {
			flush()
			last, of, at = m.TriggerID, len(a.Triggers), k
			a.Triggers = append(a.Triggers, TriggerActivity{
				Name: ts.byID(m.TriggerID).Name, Delivered: make([]int64, n), Failed: make([]int64, n), Died: make([]int64, n),
				P50MS: make([]*float64, n), P95MS: make([]*float64, n), Outcomes: map[string]int64{},
			})
		}
		if k != at {
			flush()
			at = k
		}
		t := &a.Triggers[of]
		t.Delivered[k] += m.Delivered
		t.Failed[k] += m.Failed
		t.Died[k] += m.Died
		addLatency(latency, m.Latency)
		for class, n := range m.Outcomes {
			t.Outcomes[class] += n
		}
	}
	flush()
	sorting.By(a.Triggers, func(x, y TriggerActivity) int { return cmp.Compare(x.Name, y.Name) })
}

// minute is a row of rowhook.activity.
type minute struct {
	TriggerID int32
	Minute    time.Time
	Delivered int64
	Failed    int64
	Died      int64
	Latency   []int32
	Outcomes  map[string]int64
}

// readMinutes returns the rows from a time on, of some triggers or of all, in the order of the
// triggers' ids and of the times.
func readMinutes(ctx context.Context, tx pgx.Tx, ids []int32, from time.Time) ([]minute, error) {
	rows, err := tx.Query(ctx, `
select t.id, a.minute, a.delivered, a.failed, a.died, a.latency, coalesce(a.outcomes::text, '')
  from rowhook.trigger t cross join lateral (select a.* from rowhook.activity a where a.trigger_id = t.id and a.minute >= $1 order by a.minute offset 0) as a
 where $2::integer[] is null or t.id = any($2)
 order by t.id, a.minute`, from, ids)
	if err != nil {
		return nil, fmt.Errorf("read the activity: %w", err)
	}
	var all []minute
	var m minute
	var text string
	_, err = pgx.ForEachRow(rows, []any{&m.TriggerID, &m.Minute, &m.Delivered, &m.Failed, &m.Died, &m.Latency, &text}, func() error {
		row := m
		m.Latency = nil // the next row gets its own
		if text != "" {
			if err := json.Unmarshal([]byte(text), &row.Outcomes); err != nil {
				return fmt.Errorf("read the outcomes: %w", err)
			}
		}
		all = append(all, row)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the activity: %w", err)
	}
	return all, nil
}

func addLatency(sum []int64, counts []int32) {
	for i, n := range counts[:min(len(counts), len(sum))] {
		sum[i] += int64(n)
	}
}

// recentSums is a trigger's activity of the last hour, and its last error.
type recentSums struct {
	Delivered int64
	Failed    int64
	Died      int64
	Latency   []int64
	ErrorAt   *time.Time
	Error     string
	Failing   bool       // nothing is known to have been delivered since that error
	Since     *time.Time // see Trigger.FailingSince; set if Failing is
}

// readRecent reads the activity of the last hour. It sets s.Rates.
func (s *Status) readRecent(ctx context.Context, tx pgx.Tx) (map[int32]*recentSums, error) {
	var now time.Time
	if err := tx.QueryRow(ctx, "select clock_timestamp()").Scan(&now); err != nil {
		return nil, fmt.Errorf("read the time: %w", err)
	}
	minutes, err := readMinutes(ctx, tx, nil, now.Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	s.Rates = rates(minutes, now)
	out := map[int32]*recentSums{}
	of := func(id int32) *recentSums {
		if out[id] == nil {
			out[id] = &recentSums{Latency: make([]int64, queue.LatencyBuckets)}
		}
		return out[id]
	}
	for i := range minutes {
		m, r := &minutes[i], of(minutes[i].TriggerID)
		r.Delivered, r.Failed, r.Died = r.Delivered+m.Delivered, r.Failed+m.Failed, r.Died+m.Died
		addLatency(r.Latency, m.Latency)
	}
	var failing []int32
	err = escaping(ctx, tx, func(write func(string) string) error {
		failing = failing[:0]
		rows, err := tx.Query(ctx, `
select t.id, e.error_at, coalesce(`+write("e.error")+`, ''),
       cardinality(e.latency) <= $1 and not exists (select from rowhook.activity d where d.trigger_id = t.id and d.minute > e.error_at and d.delivered > 0)
  from rowhook.trigger t
 cross join lateral (select a.error_at, a.error, a.latency from rowhook.activity a where a.trigger_id = t.id and a.error_at is not null order by a.error_at desc limit 1) as e`,
			queue.LatencyBuckets)
		if err != nil {
			return err
		}
		var id int32
		var at time.Time
		var text string
		var fails bool
		_, err = pgx.ForEachRow(rows, []any{&id, &at, &text, &fails}, func() error {
			r, at := of(id), at
			if r.ErrorAt, r.Error, r.Failing = &at, text, fails; fails {
				r.Since = &at
				failing = append(failing, id)
			}
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the last errors: %w", err)
	}
	if len(failing) > 0 {
		err = failingSince(ctx, tx, failing, of)
	}
	return out, err
}

// failingSince sets since when triggers have been failing: the first minute with a failure and
// without a delivery after it.
func failingSince(ctx context.Context, tx pgx.Tx, ids []int32, of func(int32) *recentSums) error {
	type since struct {
		ID int32
		At time.Time
	}
	found, err := pg.Collect[since](ctx, tx, `
select f.id, s.minute as at
  from unnest($1::integer[]) as f(id)
 cross join lateral (
   select coalesce((select a.minute from rowhook.activity a where a.trigger_id = f.id and a.delivered > 0 order by a.minute desc limit 1), '-infinity') as minute) as d
 cross join lateral (
   select a.minute from rowhook.activity a where a.trigger_id = f.id and a.minute > d.minute and a.failed > 0 order by a.minute limit 1) as s`, ids)
	if err != nil {
		return fmt.Errorf("read since when triggers fail: %w", err)
	}
	for _, f := range found {
		if r := of(f.ID); f.At.Before(*r.Since) {
			r.Since = &f.At
		}
	}
	return nil
}

// rates sums the minute before now: what there is of the present one, and as much of the one before
// as is missing.
func rates(minutes []minute, now time.Time) Rates {
	present := now.Truncate(time.Minute)
	part := 1 - now.Sub(present).Minutes() // of the minute before
	var delivered, failed float64
	latency := make([]float64, queue.LatencyBuckets)
	for i := range minutes {
		m, share := &minutes[i], 1.0
		switch {
		case m.Minute.Before(present.Add(-time.Minute)):
			continue
		case m.Minute.Before(present):
			share = part
		}
		delivered, failed = delivered+share*float64(m.Delivered), failed+share*float64(m.Failed)
		for i, n := range m.Latency[:min(len(m.Latency), len(latency))] {
			latency[i] += share * float64(n)
		}
	}
	counts := make([]int64, len(latency))
	for i, n := range latency {
		counts[i] = int64(math.Ceil(n))
	}
	return Rates{DeliveredPerS: perSecond(delivered), FailedPerS: perSecond(failed), P50MS: quantile(counts, 0.5), P95MS: quantile(counts, 0.95)}
}

// perSecond returns a minute's count as a rate with two digits behind the point.
func perSecond(n float64) float64 { return math.Round(n/60*100) / 100 }

func quantile(counts []int64, q float64) *float64 {
	d, ok := queue.Quantile(counts, q)
	if !ok {
		return nil
	}
	ms := float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
	return &ms
}
