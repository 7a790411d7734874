package dispatcher

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/webhook"
	"github.com/rowhook/rowhook/sqlschema"
)

func TestFixedBackoffIsTheIntervalEveryTime(t *testing.T) {
	t.Parallel()
	r := sqlschema.Retry{Interval: sqlschema.Duration(10 * time.Second), Backoff: sqlschema.BackoffFixed, MaxInterval: sqlschema.Duration(time.Second)}
	for attempt := range 20 {
		require.Equal(t, 10*time.Second, backoff(r, attempt+1, [16]byte{}))
	}
}

func TestExponentialBackoffDoublesUpToItsMaximumAndNeverDependsOnTheProcess(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := sqlschema.Retry{
			Backoff:     sqlschema.BackoffExponential,
			Interval:    sqlschema.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "interval")),
			MaxInterval: sqlschema.Duration(rapid.Int64Range(1, int64(24*time.Hour)).Draw(t, "max")),
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
	r := sqlschema.Retry{Backoff: sqlschema.BackoffExponential, Interval: sqlschema.Duration(time.Minute), MaxInterval: sqlschema.Duration(time.Hour)}
	seen := map[time.Duration]bool{}
	for i := range 100 {
		seen[backoff(r, 1, [16]byte{byte(i)})] = true
	}
	require.Greater(t, len(seen), 90)
}

func TestFateOfAnAttempt(t *testing.T) {
	t.Parallel()
	r := sqlschema.Retry{Limit: 2, Interval: sqlschema.Duration(10 * time.Second), Backoff: sqlschema.BackoffFixed, MaxInterval: sqlschema.Duration(time.Minute)}
	for name, c := range map[string]struct {
		attempt int
		result  webhook.Result
		fate    sqlschema.Fate
		delay   time.Duration
	}{
		"2xx is delivered":                         {1, webhook.Result{Status: 204}, sqlschema.Delivered, 0},
		"2xx is delivered at any attempt":          {9, webhook.Result{Status: 200}, sqlschema.Delivered, 0},
		"a redirect is a failure":                  {1, webhook.Result{Status: 302}, sqlschema.Retried, 10 * time.Second},
		"an error is retried":                      {2, webhook.Result{Status: 500}, sqlschema.Retried, 10 * time.Second},
		"no response is retried":                   {1, webhook.Result{Kind: webhook.KindRefused}, sqlschema.Retried, 10 * time.Second},
		"the attempt after the last retry is last": {3, webhook.Result{Status: 500}, sqlschema.Dead, 0},
		"claims lost in crashes count":             {4, webhook.Result{Status: 500}, sqlschema.Dead, 0},
		"Retry-After is honoured":                  {1, webhook.Result{Status: 503, RetryAfter: 2 * time.Second, HasRetryAfter: true}, sqlschema.Retried, 2 * time.Second},
		"Retry-After 0 is the trigger's own wait":  {1, webhook.Result{Status: 503, HasRetryAfter: true}, sqlschema.Retried, 10 * time.Second},
		"Retry-After is a second at least":         {1, webhook.Result{Status: 503, RetryAfter: time.Millisecond, HasRetryAfter: true}, sqlschema.Retried, time.Second},
		"Retry-After is bounded":                   {1, webhook.Result{Status: 429, RetryAfter: 24 * time.Hour, HasRetryAfter: true}, sqlschema.Retried, time.Minute},
		"Retry-After gives no more attempts":       {3, webhook.Result{Status: 429, RetryAfter: time.Second, HasRetryAfter: true}, sqlschema.Dead, 0},
		"our own stop is nobody's fault":           {3, webhook.Result{Kind: webhook.KindCanceled}, sqlschema.Retried, 0},
		"a broken 200 is retried":                  {1, webhook.Result{Status: 200, Kind: webhook.KindReset}, sqlschema.Retried, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			what, delay := fate(r, c.attempt, [16]byte{}, &c.result)
			require.Equal(t, string(rune(c.fate)), string(rune(what)))
			require.Equal(t, c.delay, delay)
		})
	}
}

func TestPrefetchLastsFor25msAndASlowEndpointGetsNone(t *testing.T) {
	t.Parallel()
	require.Zero(t, prefetch(100, 0, 400), "nothing is known")
	require.Equal(t, 400, prefetch(100, 5*time.Millisecond, 400))
	require.Equal(t, 50, prefetch(100, 50*time.Millisecond, 400))
	require.Zero(t, prefetch(100, 10*time.Second, 400))
}

func TestLagWarnsOnceAndSaysWhenItIsOver(t *testing.T) {
	t.Parallel()
	var l lag
	now := time.Now()
	var got []change
	claim := func(full bool, n int, every time.Duration) {
		for range n {
			now = now.Add(every)
			if c := l.claimed(now, full); c != nothing {
				got = append(got, c)
			}
		}
	}
	claim(true, 100, time.Millisecond) // a burst
	claim(false, 1, time.Millisecond)
	require.Empty(t, got)
	claim(true, 100, 100*time.Millisecond)
	require.Equal(t, []change{behind}, got)
	claim(false, 3, time.Millisecond)
	require.Equal(t, []change{behind, caughtUp}, got)
}

func TestLagNoticeNamesTheSettingToRaise(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	notice{behind, "order_placed", "--concurrency"}.log(slog.New(slog.NewTextHandler(&out, nil)))
	require.Contains(t, out.String(), "trigger=order_placed")
	require.Contains(t, out.String(), "raise --concurrency")
}

// lanes makes a scheduler with lanes 1 to n.
func lanes(limit, batch, n int, concurrency int) *scheduler {
	b := newScheduler(limit, batch)
	var triggers []sqlschema.Trigger
	for id := range int32(n) {
		s := sqlschema.DefaultSpec()
		s.Concurrency = concurrency
		triggers = append(triggers, sqlschema.Trigger{ID: id + 1, Spec: s})
	}
	b.configure(triggers, func(sqlschema.Spec) (*webhook.Endpoint, error) { return nil, nil })
	return b
}

// fill claims everything the scheduler asks for of one trigger and returns what may start.
func fill(t require.TestingT, b *scheduler, now time.Time, trigger int32) (started []*delivery) {
	b.mark(trigger)
	for {
		wants, ls, _ := b.wants(now)
		var events []sqlschema.Claimed
		asked := false
		for _, w := range wants {
			if w.Trigger == trigger {
				asked = true
				for range w.Limit {
					events = append(events, sqlschema.Claimed{Trigger: trigger, DueAt: now, Tries: 1})
				}
			}
		}
		start, _, _ := b.claimed(wants, ls, events, now, now)
		started = append(started, start...)
		if !asked {
			return started
		}
		require.LessOrEqual(t, len(started), 1000)
	}
}

func TestAHangingEndpointLeavesSlotsToTheOthers(t *testing.T) {
	t.Parallel()
	b, now := lanes(100, 100, 3, 0), time.Now()
	hanging := fill(t, b, now, 1)
	require.Len(t, hanging, 100, "alone it may have all")
	require.Len(t, fill(t, b, now, 2), 10, "the others have places of their own")
	require.Len(t, fill(t, b, now, 3), 10)
	more := b.stall(now.Add(stallAfter + time.Millisecond))
	require.Empty(t, more)
	require.Len(t, fill(t, b, now.Add(2*time.Second), 2), 90, "an endpoint that hangs gives its places back")
	require.Empty(t, fill(t, b, now.Add(2*time.Second), 1), "but gets no more itself")
}

func TestSlotsNeverExceedTheLimits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit, own := rapid.IntRange(1, 30).Draw(t, "limit"), rapid.IntRange(0, 8).Draw(t, "own")
		b, now := lanes(limit, 5, 4, own), time.Now()
		var flying []*delivery
		t.Repeat(map[string]func(*rapid.T){
			"claim": func(t *rapid.T) {
				flying = append(flying, fill(t, b, now, rapid.Int32Range(1, 4).Draw(t, "trigger"))...)
			},
			"done": func(t *rapid.T) {
				if len(flying) == 0 {
					t.Skip("nothing flies")
				}
				i := rapid.IntRange(0, len(flying)-1).Draw(t, "which")
				d := flying[i]
				flying = append(flying[:i], flying[i+1:]...)
				if next := b.done(d, 3*time.Millisecond, true); next != nil {
					flying = append(flying, next)
				}
				b.settled([]*delivery{d})
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(flying), b.open)
				require.LessOrEqual(t, b.active, limit+4*b.reserve())
				queued := 0
				for _, l := range b.lanes {
					require.LessOrEqual(t, l.inFlight, l.concurrency(limit))
					queued += l.queued()
				}
				require.Equal(t, queued, b.queued)
				require.Equal(t, b.open+b.queued, b.count)
			},
		})
	})
}

func TestClosedSchedulerHandsBackWhatWaits(t *testing.T) {
	t.Parallel()
	b, now := lanes(2, 5, 1, 0), time.Now()
	b.lanes[1].average, b.average = time.Microsecond, time.Microsecond // fast: it prefetches
	started := fill(t, b, now, 1)
	require.Len(t, started, 2)
	require.NotEmpty(t, b.close())
	require.Nil(t, b.done(started[0], 0, true))
	b.mark(1)
	wants, _, _ := b.wants(now)
	require.Empty(t, wants)
}

func TestAFreedSlotWakesTheClaimerForWhicheverLaneWaitsForIt(t *testing.T) {
	t.Parallel()
	b, now := lanes(10, 5, 2, 0), time.Now()
	first := fill(t, b, now, 1)
	require.Len(t, first, 10)
	b.mark(2)
	b.lanes[2].inFlight = 1 // it has its own place already
	for len(b.signal) > 0 {
		<-b.signal
	}
	wants, _, _ := b.wants(now)
	require.Empty(t, wants, "no slot is free")
	b.undirty(b.lanes[1])
	b.lanes[1].dirty = false
	require.Nil(t, b.done(first[0], time.Millisecond, true))
	require.Len(t, b.signal, 1)
}

func TestOneSlowSweepDoesNotPutOffTheNext(t *testing.T) {
	t.Parallel()
	var l lane
	l.priced(10 * time.Millisecond)
	require.Zero(t, l.pause())
	l.priced(2 * time.Second)
	require.Equal(t, 100*time.Millisecond, l.pause(), "the slow one may have waited for a lock")
	l.priced(2 * time.Second)
	require.Equal(t, time.Second, l.pause(), "sweeps that stay slow run every second")
}

func TestNothingIsClaimedWhileTooMuchIsUnsettled(t *testing.T) {
	t.Parallel()
	b := lanes(10, 5, 2, 0)
	b.count = maxOutstanding
	b.mark(1)
	wants, _, _ := b.wants(time.Now())
	require.Empty(t, wants)
}

func TestEmptyTriggersAreLeftOutFirstWhileThatIsCheaper(t *testing.T) {
	t.Parallel()
	now := time.Now()
	claims := func(s *claimCost, probing, nonEmptyTook time.Duration) (uses int) {
		for range 1000 {
			now = now.Add(10 * time.Millisecond)
			nonEmpty, d := s.preferNonEmpty(400, now), probing
			if nonEmpty {
				uses, d = uses+1, nonEmptyTook
			}
			s.note(400, nonEmpty, 2, d)
		}
		return uses
	}
	var s claimCost
	require.False(t, s.preferNonEmpty(comparedFrom-1, now), "for few lanes it makes no difference")
	require.Greater(t, claims(&s, 4*time.Millisecond, time.Millisecond), 990)
	require.Less(t, claims(&s, 4*time.Millisecond, 40*time.Millisecond), 10, "a long transaction makes it dear")
	require.Greater(t, claims(&s, 4*time.Millisecond, time.Millisecond), 300, "that is over, and noticed within ten seconds")
	s.note(400, true, 300, time.Second)
	s.note(400, true, 300, time.Second)
	require.Greater(t, claims(&s, 4*time.Millisecond, time.Millisecond), 990, "what a claim takes that finds much says nothing")
}
