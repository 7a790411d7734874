package queue

import (
	"context"
	"fmt"
	"math"
	"slices"
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

// activityKept is how long the minutes are kept. Readers look at the last hour.
const activityKept = 2 * time.Hour

// RecordActivity writes what an instance did. It replaces a minute that was written before. That a
// trigger has recovered is one more element of latency, 1, behind the buckets. Programs older than
// this element read the buckets alone.
func RecordActivity(ctx context.Context, db pg.Queryer, instance int32, batch []Activity) error {
	var b pgx.Batch
	for i := range batch {
		a := &batch[i]
		latency := a.Latency[:]
		if a.Recovered {
			latency = append(slices.Clone(latency), 1)
		}
		b.Queue(`
insert into rowhook.activity as a (minute, trigger_id, instance_id, delivered, failed, died, latency, error_at, error)
values ($1, $2, $3, $4, $5, $6, $7, $8, nullif($9, ''))
on conflict (minute, trigger_id, instance_id) do update
   set delivered = excluded.delivered, failed = excluded.failed, died = excluded.died, latency = excluded.latency,
       error_at = excluded.error_at, error = excluded.error`,
			a.Minute, a.Trigger, instance, a.Delivered, a.Failed, a.Died, latency, a.ErrorAt, a.Error)
	}
	if err := db.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("record activity: %w", err)
	}
	return nil
}

// ForgetActivity deletes minutes older than activityKept. The last error of each trigger stays.
// Version 1 of the schema has no table of activity.
func ForgetActivity(ctx context.Context, tx pgx.Tx) error {
	var exists bool
	if err := tx.QueryRow(ctx, "select to_regclass('rowhook.activity') is not null").Scan(&exists); err != nil || !exists {
		return err
	}
	_, err := tx.Exec(ctx, `
delete from rowhook.activity a
 where minute < now() - $1::interval
   and (error_at is null or exists (select from rowhook.activity b where b.trigger_id = a.trigger_id and (b.error_at, b.instance_id) > (a.error_at, a.instance_id)))`, activityKept)
	if err != nil {
		return fmt.Errorf("forget old activity: %w", err)
	}
	return nil
}
