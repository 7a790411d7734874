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

func TestBeatsOfThoseWhoHaveWorkAreSpreadAndTheOthersComeTogether(t *testing.T) {
	t.Parallel()
	calm, began := false, time.Now()
	phases := map[time.Duration]bool{}
	for range 20 {
		p := newPulse(nil, nil, nil, nil)
		p.slots, p.calm = began, func(time.Time) bool { return calm }
		at := began.Add(time.Hour)
		for range 3 {
			calm = false
			wait := p.nextBeat(at)
			require.Greater(t, wait, beatEvery-beatSlot)
			require.LessOrEqual(t, wait, beatEvery)
			at = at.Add(wait)
			require.Equal(t, p.phase, at.Sub(began)%beatSlot)
			calm = true
			require.Zero(t, at.Add(p.nextBeat(at)).Sub(began)%beatSlot)
		}
		phases[p.phase] = true
	}
	require.Greater(t, len(phases), 10)
}
