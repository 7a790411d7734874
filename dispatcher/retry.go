package dispatcher

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// backoff returns the wait after the failed attempt with this number, from 1. It depends on nothing
// but its arguments. The jitter of an exponential backoff comes from the event's id, so that the
// schedule of an event is the same in every process, and the schedules of many events are spread.
//
//	fixed        interval, every time
//	exponential  interval * 2^(attempt-1), at most max_interval, then shortened by up to a quarter
//	schedule     what it says, as it is; the last entry repeats
func backoff(r trigger.Retry, attempt int, event [16]byte) time.Duration {
	if n := len(r.Schedule); n > 0 {
		return r.Schedule[min(max(attempt, 1), n)-1].Std()
	}
	interval, limit := r.Interval.Std(), r.MaxInterval.Std()
	if r.Backoff != trigger.BackoffExponential {
		return interval
	}
	delay := interval
	for n := 1; n < attempt && delay < limit; n++ {
		if delay > limit/2 {
			delay = limit
			break
		}
		delay *= 2
	}
	if limit > 0 {
		delay = min(delay, limit)
	}
	h := fnv.New64a()
	_, _ = h.Write(event[:])
	_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(attempt)))
	quarter := uint64(delay / 4)
	if quarter == 0 {
		return delay
	}
	return delay - time.Duration(h.Sum64()%quarter)
}

// fate decides what becomes of an event after an attempt. attempt is its number, from 1.
func fate(r trigger.Retry, attempt int, event [16]byte, result *webhook.Result) (queue.Fate, time.Duration) {
	switch {
	case result.Delivered():
		return queue.Delivered, 0
	case result.Kind == webhook.KindCanceled:
		return queue.Retried, 0 // the dispatcher stopped; the receiver is not to blame
	case attempt > r.Limit || result.Hopeless || givenUp(r, result):
		return queue.Dead, 0
	case result.HasRetryAfter && result.RetryAfter > 0:
		return queue.Retried, retryAfter(r, result.RetryAfter)
	}
	return queue.Retried, backoff(r, attempt, event)
}

// givenUp reports whether the trigger gives an event up for this answer, whatever attempts are left.
func givenUp(r trigger.Retry, result *webhook.Result) bool {
	return len(r.Statuses) > 0 && !result.Delivered() && r.Statuses.Then(result.Status) == trigger.StatusDead
}

// pauses reports whether the trigger is to be paused for this answer.
func pauses(r trigger.Retry, result *webhook.Result) bool {
	return len(r.Statuses) > 0 && !result.Delivered() && r.Statuses.Then(result.Status) == trigger.StatusPause
}

// expires returns when an event is given up without another attempt; zero: never. It goes by our
// clock.
func expires(spec *trigger.Spec, d *delivery) time.Time {
	if spec.Retry.MaxAge <= 0 {
		return time.Time{}
	}
	since := d.renewed
	if since.IsZero() {
		since = d.event.CreatedAt.Add(spec.Delay.Std())
	}
	return since.Add(spec.Retry.MaxAge.Std())
}

// expired reports whether an event is too old to be sent.
func expired(spec *trigger.Spec, d *delivery, now time.Time) bool {
	return spec.Retry.MaxAge > 0 && !now.Before(expires(spec, d))
}

// atLast shortens a wait that ends behind the time at which the event expires, so that it is given
// up then.
func atLast(spec *trigger.Spec, d *delivery, what queue.Fate, delay time.Duration, now time.Time) time.Duration {
	if spec.Retry.MaxAge <= 0 || what != queue.Retried {
		return delay
	}
	return min(delay, max(expires(spec, d).Sub(now), 0))
}

// expiredReason begins as each reason of an event that has expired does.
func expiredReason(spec *trigger.Spec) string {
	return fmt.Sprintf("expired: it was not delivered within max_age (%v)", spec.Retry.MaxAge)
}

// retryAfter bounds the wait that a receiver asked for. It is leastRetryAfter at least, so that
// attempts are not used up in no time, and max_interval at most, whichever backoff is configured.
func retryAfter(r trigger.Retry, wait time.Duration) time.Duration {
	limit := r.MaxInterval.Std()
	if limit <= 0 {
		limit = trigger.DefaultMaxInterval.Std()
	}
	return min(max(wait, leastRetryAfter), limit)
}

const leastRetryAfter = time.Second
