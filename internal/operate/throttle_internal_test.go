package operate

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBatchesGrowWhileTheyAreTakenUpQuickly(t *testing.T) {
	t.Parallel()
	feed, err := newThrottle(triggers{{ID: 1, Spec: "{}"}})
	require.NoError(t, err)
	admit := func(took time.Duration) int {
		feed.adapt(took)
		feed.admitted(map[int32][]string{1: {"an event"}})
		return feed.step
	}
	require.Equal(t, throttleSize, feed.step)
	require.Greater(t, admit(throttleQuick), throttleSize)
	for range 100 {
		admit(time.Millisecond)
	}
	require.Equal(t, bulkBatch, feed.step, "no batch is larger than one without a throttle")
	require.Equal(t, bulkBatch, admit((throttleQuick+throttleSlow)/2))
	require.Equal(t, bulkBatch/2, admit(time.Second))
	for range 100 {
		admit(time.Second)
	}
	require.Equal(t, throttleSize, feed.step)
}
