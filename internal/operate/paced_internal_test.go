package operate

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/queue"
)

func TestEventsThatWaitForTheirRateAreNotInFlight(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		paced          queue.Paced
		inFlight       int64
		f, w, retrying int64
	}{
		{queue.Paced{}, 5, 5, 1, 2},
		{queue.Paced{Events: 4, Retried: 1}, 5, 1, 4, 3},
		{queue.Paced{Events: 9, Retried: 3}, 5, 0, 3, 5}, // recorded a moment ago
		{queue.Paced{Events: 9, Retried: 9}, 5, 0, 1, 7},
	} {
		f, w, r := notInFlight(c.paced, c.inFlight, 1, 2)
		require.Equal(t, []int64{c.f, c.w, c.retrying}, []int64{f, w, r}, c.paced)
	}
}

func TestAProbeThatIsRunningIsNotTheNextOne(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 14, 0, 0, 0, time.UTC)
	h := EndpointHealth{State: "failing", Since: now.Add(-time.Minute), Reason: "answered 503", ProbeAt: now.Add(10 * time.Second)}
	const since = "its endpoint has been failing since 2026-11-26 13:59:00 UTC (answered 503): its events wait, "
	require.Equal(t, since+"next probe in 10s", h.Explain(now))
	h.ProberID = new(int32)
	require.Equal(t, since+"a probe is running", h.Explain(now))
}
