package dispatcher

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

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
	notice{behind, "order_placed", "--concurrency", ""}.log(slog.New(slog.NewTextHandler(&out, nil)))
	require.Contains(t, out.String(), "trigger=order_placed")
	require.Contains(t, out.String(), "raise --concurrency")
	out.Reset()
	bounded := lane{}
	bounded.trigger.Spec.Rate.Limit = trigger.PerTime{N: 5, Time: time.Second}
	notice{behind, "order_placed", "--concurrency", bounded.bound()}.log(slog.New(slog.NewTextHandler(&out, nil)))
	require.Contains(t, out.String(), `bound="rate: 5/s"`)
	require.NotContains(t, out.String(), "--concurrency")
}
