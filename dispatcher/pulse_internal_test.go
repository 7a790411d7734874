package dispatcher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A time that was read from the monotonic clock prints its reading. One that was made of a wall
// clock has none, and its age changes when the clock is set.
func TestABeatIsToldByTheMonotonicClock(t *testing.T) {
	t.Parallel()
	p := newPulse(nil, nil, nil, nil)
	now := time.Now()
	require.True(t, p.lastBeat().IsZero())
	require.False(t, p.isFresh(now))
	p.beaten(now)
	require.Contains(t, p.lastBeat().String(), " m=")
	require.True(t, p.lastBeat().Equal(now))
	require.True(t, p.isFresh(now.Add(freshFor-time.Millisecond)))
	require.False(t, p.isFresh(now.Add(freshFor)))
}
