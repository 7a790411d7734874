package dispatcher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

func TestOnlyAnInstanceThatIsAloneAndHasNothingToDoBeatsLessOften(t *testing.T) {
	t.Parallel()
	s := newScheduler(10, 10)
	c := &calm{scheduler: s}
	p := newPulse(nil, nil, nil, nil)
	now := time.Now()
	p.calm = c.is
	require.Equal(t, beatEvery, p.nextBeat(now.Add(time.Hour)), "it shares nothing")
	p.slots = now
	next := func(after time.Duration) time.Duration {
		now = now.Add(after)
		return p.nextBeat(now).Round(beatEvery)
	}
	require.Equal(t, beatEvery, next(beatSlot))
	require.Equal(t, beatEvery, next(calmAfter-time.Second))
	require.Equal(t, calmBeat, next(time.Second))
	require.Less(t, calmBeat, p.watchWithin(), "the peers wait for its watch")
	for what, change := range map[string]func() (undo func()){
		"an event was taken in": func() func() { s.linked++; return func() {} },
		"one is in flight":      func() func() { s.open++; return func() { s.open-- } },
		"there are others":      func() func() { s.instances = 2; return func() { s.instances = 1 } },
		"it has lanes":          func() func() { s.order.lanes = []*lane{{}}; return func() { s.order.lanes = nil } },
		"it may have shares": func() func() {
			s.lanes[1] = &lane{trigger: queue.Trigger{Spec: trigger.Spec{ConcurrencyTotal: 1}}}
			return func() { delete(s.lanes, 1) }
		},
	} {
		undo := change()
		require.Equal(t, beatEvery, next(time.Hour), what)
		undo()
		require.Equal(t, beatEvery, next(calmAfter-time.Second), what)
		require.Equal(t, calmBeat, next(time.Second), what)
	}
}
