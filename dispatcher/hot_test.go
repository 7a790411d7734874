// The race detector makes pools forget at random, and so allocate.

//go:build !race

package dispatcher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/listener"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// hotParts are the decisions that every event or every wake-up takes, each with the allocations
// that it may make.
func hotParts() map[string]struct {
	most float64
	run  func()
} {
	exponential := trigger.Retry{
		Limit: 10, Interval: trigger.Duration(time.Second), MaxInterval: trigger.Duration(time.Hour), Backoff: trigger.BackoffExponential,
	}
	failed, delivered := &webhook.Result{Status: 500}, &webhook.Result{Status: 200}
	event := [16]byte{1, 2, 3}
	l := &lane{}
	dl := &delivery{}
	now := time.Unix(1_700_000_000, 0)
	bell := &listener.Doorbell{}
	bell.Armed(now)
	return map[string]struct {
		most float64
		run  func()
	}{
		"fate, delivered": {0, func() { fate(exponential, 1, event, delivered) }},
		"fate, failed":    {0, func() { fate(exponential, 7, event, failed) }},
		"queue":           {0, func() { l.push(dl); l.pop(); l.observe(time.Millisecond) }},
		"prefetch":        {0, func() { prefetch(100, 50*time.Millisecond, 1000) }},
		"doorbell":        {0, func() { now = now.Add(time.Millisecond); bell.Rang(); bell.Found(1); bell.Next(now); bell.Wait(now) }},
	}
}

func TestHotPartsAllocateNoMoreThanTheyMust(t *testing.T) {
	for name, part := range hotParts() {
		require.LessOrEqual(t, testing.AllocsPerRun(1000, part.run), part.most, name)
	}
}

func BenchmarkHotParts(b *testing.B) {
	for name, part := range hotParts() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				part.run()
			}
		})
	}
}
