package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// Activity counts what a dispatcher did for a trigger in one minute.
type Activity struct {
	Minute    time.Time // its beginning
	Trigger   int32     // rowhook.trigger.id
	Delivered int64     // events
	Failed    int64     // attempts
	Died      int64     // events that became dead letters
	Latency   Latency
	ErrorAt   *time.Time // when the last failed attempt began; nil: there was none
	Error     string     // of that attempt
	Recovered bool       // an attempt that began later has delivered its event
	// Outcomes counts attempts by how they ended: the status or its class, 2xx, 429, or the kind of
	// a failure without a status.
	Outcomes map[string]int64
}

// Latency counts deliveries by the time from the change to the end of the attempt. The bounds of
// its buckets grow by a factor of 2^(1/4), which is about a fifth.
type Latency [LatencyBuckets]int32

// LatencyBuckets is the number of buckets. They reach from 0.1 ms to 29 hours.
const LatencyBuckets = 120

// Add counts a delivery.
func (l *Latency) Add(d time.Duration) {
	n := int(math.Ceil(4 * math.Log2(float64(max(d, time.Microsecond))/float64(100*time.Microsecond))))
	l[min(max(n, 1), LatencyBuckets)-1]++
}

// Quantile estimates the latency that a part q (0 to 1) of the deliveries did not exceed, to a
// fifth. ok is false if there were no deliveries.
func Quantile(counts []int64, q float64) (d time.Duration, ok bool) {
	var total int64
	for _, n := range counts {
		total += n
	}
	if total == 0 {
		return 0, false
	}
	rank := max(int64(math.Ceil(q*float64(total))), 1)
	var seen int64
	for i, n := range counts {
		if seen+n < rank {
			seen += n
			continue
		}
		low, high := latencyBound(i), latencyBound(i+1)
		return low + time.Duration(float64(high-low)*float64(rank-seen)/float64(n)), true
	}
	return latencyBound(len(counts)), true
}

// latencyBound returns the lower bound of bucket i, which is the upper bound of the bucket before
// it.
func latencyBound(i int) time.Duration {
	if i == 0 {
		return 0
	}
	return time.Duration(float64(100*time.Microsecond) * math.Exp2(float64(i)/4))
}

// activityKept is how long the minutes are kept. activityRows bounds those of more than activitySoon
// ago, the oldest go first: each trigger has one for each minute and dispatcher in which it had
// something.
const (
	activityKept = 25 * time.Hour
	activitySoon = 2 * time.Hour
	activityRows = 200_000
)

// RecordActivity writes what an instance did. It replaces minutes that were written before. That a
// trigger has recovered is one more element of latency, behind all buckets: 1.
func RecordActivity(ctx context.Context, db pg.Queryer, instance int32, batch []Activity) error {
	minutes, triggers := make([]time.Time, len(batch)), make([]int32, len(batch))
	delivered, failed, died := make([]int64, len(batch)), make([]int64, len(batch)), make([]int64, len(batch))
	latencies, errorsAt, messages, outcomes := make([]string, len(batch)), make([]*time.Time, len(batch)), make([]string, len(batch)), make([]string, len(batch))
	for i := range batch {
		a := &batch[i]
		minutes[i], triggers[i], delivered[i], failed[i], died[i] = a.Minute, a.Trigger, a.Delivered, a.Failed, a.Died
		latencies[i], errorsAt[i], messages[i] = a.latency(), a.ErrorAt, a.Error
		text, err := json.Marshal(a.Outcomes)
		if err != nil {
			return fmt.Errorf("encode the outcomes of attempts: %w", err)
		}
		outcomes[i] = string(text)
	}
	return execute(ctx, db, "record activity", `
insert into rowhook.activity as a (minute, trigger_id, instance_id, delivered, failed, died, latency, error_at, error, outcomes)
select minute, trigger_id, $1, delivered, failed, died, latency::integer[], error_at, nullif(error, ''), outcomes::jsonb
  from unnest($2::timestamptz[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::timestamptz[], $9::text[], $10::text[])
    as r(minute, trigger_id, delivered, failed, died, latency, error_at, error, outcomes)
on conflict (minute, trigger_id, instance_id) do update
   set delivered = excluded.delivered, failed = excluded.failed, died = excluded.died, latency = excluded.latency,
       error_at = excluded.error_at, error = excluded.error, outcomes = excluded.outcomes`,
		instance, minutes, triggers, delivered, failed, died, latencies, errorsAt, messages, outcomes)
}

// latency is the text of the column latency.
func (a *Activity) latency() string {
	n := LatencyBuckets
	for n > 0 && a.Latency[n-1] == 0 {
		n--
	}
	counts := a.Latency[:n]
	if a.Recovered {
		counts = append(slices.Clone(a.Latency[:]), 1)
	}
	text := make([]byte, 0, 4*len(counts)+2)
	text = append(text, '{')
	for i, n := range counts {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, int64(n), 10)
	}
	return string(append(text, '}'))
}

// ForgetActivity deletes minutes that are over their time, or too many. The last error of each
// trigger stays.
func ForgetActivity(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `
delete from rowhook.activity a
 where minute < greatest(now() - $1::interval, least(now() - $2::interval, coalesce((select minute from rowhook.activity order by minute desc offset $3 limit 1), '-infinity')))
   and (error_at is null or exists (select from rowhook.activity b where b.trigger_id = a.trigger_id and (b.error_at, b.instance_id) > (a.error_at, a.instance_id)))`,
		activityKept, activitySoon, activityRows)
	if err != nil {
		return fmt.Errorf("forget old activity: %w", err)
	}
	return nil
}
