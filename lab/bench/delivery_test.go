package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// arrivals are the stamps of n events, one after each step, from a moment on.
func arrivals(from time.Time, n int, step time.Duration) []int64 {
	stamps := make([]int64, n)
	for i := range stamps {
		stamps[i] = from.Add(time.Duration(i) * step).UnixNano()
	}
	return stamps
}

func TestTheRateIsCountedAfterItsBurst(t *testing.T) {
	t.Parallel()
	start := time.Now()
	stamps := append([]int64{0}, arrivals(start, rateBurst, 0)...)
	stamps = append(stamps, arrivals(start.Add(10*time.Millisecond), 600, 20*time.Millisecond)...)
	s := newSample()
	require.NoError(t, rateOf(s, stamps, 10*time.Second))
	require.InDelta(t, ratePerSecond, s.Values["mean"], 1)
	require.InDelta(t, 1, s.Values["of_rate"], 0.02)
	require.InDelta(t, 50, s.Values["highest"], 1)
	require.InDelta(t, rateBurst+50, s.Values["burst"], 1)
	crowded := append(stamps, arrivals(start.Add(5*time.Second), 20, time.Millisecond)...)
	require.NoError(t, rateOf(s, crowded, 10*time.Second))
	require.InDelta(t, 70, s.Values["highest"], 1)
	require.Error(t, rateOf(s, arrivals(start, 5, time.Second), time.Minute))
}

func TestFullSpeedIsFoundWhereItBegins(t *testing.T) {
	t.Parallel()
	opened := time.Now()
	stamps := arrivals(opened.Add(3*time.Second), 4, 200*time.Millisecond) // probes
	stamps = append(stamps, arrivals(opened.Add(5*time.Second), 10_000, time.Millisecond)...)
	back, rate := fullSpeed(stamps, opened.UnixNano())
	require.InDelta(t, 5, back, 0.21)
	require.InDelta(t, 1000, rate, 20)
}

func TestEventsOfAKeyThatArriveInTheWrongOrderAreFound(t *testing.T) {
	t.Parallel()
	require.NoError(t, inOrder(2)([]int64{0, 10, 5, 20, 15}))
	require.ErrorContains(t, inOrder(2)([]int64{0, 10, 5, 9, 15}), "event 3 arrived 1ns before event 1")
	require.NoError(t, inOrder(2)([]int64{0, 10, 5, 0, 15}), "it has not arrived")
}

func TestDeliveryNamesItsScenarios(t *testing.T) {
	t.Parallel()
	var keys []string
	for _, s := range (&lab{}).scenarios() {
		if s.delivery {
			require.True(t, s.named, s.key)
			keys = append(keys, s.key)
		}
	}
	for _, m := range deliveryMeasures() {
		require.Contains(t, keys, m.scenario)
	}
	require.Len(t, keys, 7)
}
