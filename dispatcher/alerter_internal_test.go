package dispatcher

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/alert"
	"github.com/rowhook/rowhook/trigger"
)

// TestAHeartbeatIsNeverLateByALook has looks come a little early and late, as tickers do.
func TestAHeartbeatIsNeverLateByALook(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{10 * time.Second, 15 * time.Second, 25 * time.Second, time.Minute} {
		a := &alerter{}
		beats := []alert.Destination{{ID: "one", Alert: trigger.Alert{Every: trigger.Duration(every)}}}
		start := time.Date(2026, 11, 26, 14, 0, 0, 0, time.UTC)
		last, calls := start, 0
		for i := range 1000 {
			jitter := time.Duration(rand.IntN(200)-100) * time.Millisecond
			now := start.Add(time.Duration(i)*alertEvery + jitter)
			if len(a.dueBeats(beats, now)) == 0 {
				continue
			}
			require.LessOrEqual(t, now.Sub(last), every+lookJitter, every)
			last, calls = now, calls+1
		}
		looks := int(every / alertEvery) // between two calls, at most
		require.InDelta(t, 1000/looks, calls, 5, every)
	}
}
