package dispatcher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

func TestFixedBackoffIsTheIntervalEveryTime(t *testing.T) {
	t.Parallel()
	r := trigger.Retry{Interval: trigger.Duration(10 * time.Second), Backoff: trigger.BackoffFixed, MaxInterval: trigger.Duration(time.Second)}
	for attempt := range 20 {
		require.Equal(t, 10*time.Second, backoff(r, attempt+1, [16]byte{}))
	}
}

func TestExponentialBackoffDoublesUpToItsMaximumAndNeverDependsOnTheProcess(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := trigger.Retry{
			Backoff:     trigger.BackoffExponential,
			Interval:    trigger.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "interval")),
			MaxInterval: trigger.Duration(rapid.Int64Range(1, int64(24*time.Hour)).Draw(t, "max")),
		}
		var event [16]byte
		copy(event[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "event"))
		attempt := rapid.IntRange(1, 200).Draw(t, "attempt")
		got := backoff(r, attempt, event)
		require.Equal(t, got, backoff(r, attempt, event))
		full := min(float64(r.Interval)*pow2(attempt-1), float64(r.MaxInterval))
		require.LessOrEqual(t, float64(got), full+1)
		require.GreaterOrEqual(t, float64(got), 0.75*full-2)
	})
}

func pow2(n int) float64 {
	f := 1.0
	for range n {
		f *= 2
	}
	return f
}

func TestJitterSpreadsEvents(t *testing.T) {
	t.Parallel()
	r := trigger.Retry{Backoff: trigger.BackoffExponential, Interval: trigger.Duration(time.Minute), MaxInterval: trigger.Duration(time.Hour)}
	seen := map[time.Duration]bool{}
	for i := range 100 {
		seen[backoff(r, 1, [16]byte{byte(i)})] = true
	}
	require.Greater(t, len(seen), 90)
}

func TestFateOfAnAttempt(t *testing.T) {
	t.Parallel()
	r := trigger.Retry{Limit: 2, Interval: trigger.Duration(10 * time.Second), Backoff: trigger.BackoffFixed, MaxInterval: trigger.Duration(time.Minute)}
	for name, c := range map[string]struct {
		attempt int
		result  webhook.Result
		fate    queue.Fate
		delay   time.Duration
	}{
		"2xx is delivered":                         {1, webhook.Result{Status: 204}, queue.Delivered, 0},
		"2xx is delivered at any attempt":          {9, webhook.Result{Status: 200}, queue.Delivered, 0},
		"a redirect is a failure":                  {1, webhook.Result{Status: 302}, queue.Retried, 10 * time.Second},
		"an error is retried":                      {2, webhook.Result{Status: 500}, queue.Retried, 10 * time.Second},
		"no response is retried":                   {1, webhook.Result{Kind: webhook.KindRefused}, queue.Retried, 10 * time.Second},
		"the attempt after the last retry is last": {3, webhook.Result{Status: 500}, queue.Dead, 0},
		"claims lost in crashes count":             {4, webhook.Result{Status: 500}, queue.Dead, 0},
		"Retry-After is honoured":                  {1, webhook.Result{Status: 503, RetryAfter: 2 * time.Second, HasRetryAfter: true}, queue.Retried, 2 * time.Second},
		"Retry-After 0 is the trigger's own wait":  {1, webhook.Result{Status: 503, HasRetryAfter: true}, queue.Retried, 10 * time.Second},
		"Retry-After is a second at least":         {1, webhook.Result{Status: 503, RetryAfter: time.Millisecond, HasRetryAfter: true}, queue.Retried, time.Second},
		"Retry-After is bounded":                   {1, webhook.Result{Status: 429, RetryAfter: 24 * time.Hour, HasRetryAfter: true}, queue.Retried, time.Minute},
		"Retry-After gives no more attempts":       {3, webhook.Result{Status: 429, RetryAfter: time.Second, HasRetryAfter: true}, queue.Dead, 0},
		"our own stop is nobody's fault":           {3, webhook.Result{Kind: webhook.KindCanceled}, queue.Retried, 0},
		"a broken 200 is retried":                  {1, webhook.Result{Status: 200, Kind: webhook.KindReset}, queue.Retried, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			what, delay := fate(r, c.attempt, [16]byte{}, &c.result)
			require.Equal(t, string(rune(c.fate)), string(rune(what)))
			require.Equal(t, c.delay, delay)
		})
	}
}
