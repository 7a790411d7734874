package dispatcher

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// lanes makes a scheduler with lanes 1 to n.
func lanes(limit, batch, n int, concurrency int) *scheduler {
	b := newScheduler(limit, batch)
	var triggers []queue.Trigger
	for id := range int32(n) {
		s := trigger.DefaultSpec()
		s.Concurrency = concurrency
		triggers = append(triggers, queue.Trigger{ID: id + 1, Spec: s})
	}
	b.configure(triggers, func(trigger.Spec) (Endpoint, error) { return nil, nil })
	return b
}

// fill claims everything the scheduler asks for of one trigger and returns what may start.
func fill(t require.TestingT, b *scheduler, now time.Time, trigger int32) (started []*shipment) {
	b.mark(trigger)
	for {
		wants, ls, _ := b.wants(now)
		var events []queue.Claimed
		asked := false
		for _, w := range wants {
			if w.Trigger == trigger {
				asked = true
				for range w.Limit {
					events = append(events, queue.Claimed{Trigger: trigger, DueAt: now, Tries: 1})
				}
			}
		}
		start, _, _, _ := b.claimed(wants, ls, events, now, now)
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
	more, flying := b.stall(now.Add(stallAfter + time.Millisecond))
	require.Empty(t, more)
	require.True(t, flying)
	require.Len(t, fill(t, b, now.Add(2*time.Second), 2), 90, "an endpoint that hangs gives its places back")
	require.Empty(t, fill(t, b, now.Add(2*time.Second), 1), "but gets no more itself")
}

func TestAnEventThatIsSentAloneAndHangsHoldsUpNothingForLong(t *testing.T) {
	t.Parallel()
	// alone is the shipment that is sent alone, which waited for ahead if that was to be sent alone, too.
	for name, waited := range map[string]bool{"the first one": false, "one that waited for another one": true} {
		b, now := lanes(10, 5, 2, 0), time.Now()
		flying := fill(t, b, now, 1)
		ahead, alone := flying[0], flying[1]
		if waited {
			mine, _ := b.quiesce(ahead)
			require.True(t, mine)
			mine, _ = b.quiesce(alone)
			require.False(t, mine)
		}
		start, _ := b.stall(time.Now().Add(stallAfter + time.Millisecond))
		require.Empty(t, start)
		b.done(ahead, time.Millisecond, true)
		mine, quiet := b.quiesce(alone)
		require.True(t, mine, name)
		require.True(t, quiet, "the others hang")
		require.Empty(t, fill(t, b, now, 2), "nothing else starts")
		start, _ = b.stall(time.Now().Add(stallAfter + time.Millisecond))
		require.Len(t, start, 10, name)
	}
}

func TestAnEventThatWaitsToBeSentAloneDoesNotHang(t *testing.T) {
	t.Parallel()
	b, now := lanes(10, 5, 2, 0), time.Now()
	alone := fill(t, b, now, 1)[0]
	alone.started = now.Add(-time.Hour)
	b.quiesce(alone)
	alone.started = now.Add(-time.Hour)
	_, quiet := b.quiesce(alone)
	require.False(t, quiet)
	b.stall(time.Now())
	require.False(t, alone.stalled)
	require.Equal(t, alone, b.alone)
}

func TestSlotsNeverExceedTheLimits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit, own := rapid.IntRange(1, 30).Draw(t, "limit"), rapid.IntRange(0, 8).Draw(t, "own")
		b, now := lanes(limit, 5, 4, own), time.Now()
		var flying []*shipment
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
				b.settled(d.deliveries)
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(flying), b.open)
				require.LessOrEqual(t, b.active, limit+4*b.reserve())
				queued := 0
				for _, l := range b.lanes {
					require.Equal(t, l.state != drained, slices.Contains(b.undrained, l), l.state)
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
	b.enter(b.lanes[1], drained)
	require.Nil(t, b.done(first[0], time.Millisecond, true))
	require.Len(t, b.signal, 1)
}

func TestNothingIsClaimedWhileTooMuchIsUnsettled(t *testing.T) {
	t.Parallel()
	b := lanes(10, 5, 2, 0)
	b.count = maxOutstanding
	b.mark(1)
	wants, _, _ := b.wants(time.Now())
	require.Empty(t, wants)
}

func TestPrefetchLastsFor25msAndASlowEndpointGetsNone(t *testing.T) {
	t.Parallel()
	require.Zero(t, prefetch(100, 0, 400), "nothing is known")
	require.Equal(t, 400, prefetch(100, 5*time.Millisecond, 400))
	require.Equal(t, 50, prefetch(100, 50*time.Millisecond, 400))
	require.Zero(t, prefetch(100, 10*time.Second, 400))
}

func TestAnAttemptThatWaitsForItsSettlementGivesItsPlaceBackOnce(t *testing.T) {
	t.Parallel()
	b, now := lanes(10, 5, 1, 0), time.Now()
	started := fill(t, b, now, 1)
	require.Len(t, started, 10)
	b.done(started[0], time.Millisecond, true)
	require.Equal(t, 9, b.active)
	b.stall(now.Add(time.Minute))
	require.Zero(t, b.active, "nine hang, and one has ended")
}

// only puts lane 1 of lanes in force, of a version and paused or not.
func only(b *scheduler, version string, paused bool) (unsent []*delivery) {
	t := b.lanes[1].trigger
	t.Version, t.Paused = version, paused
	return b.configure([]queue.Trigger{t}, func(trigger.Spec) (Endpoint, error) { return nil, nil })
}

func TestWhatAClaimBringsForATriggerThatIsBeingPausedIsNotSent(t *testing.T) {
	t.Parallel()
	b, now := lanes(100, 10, 1, 5), time.Now()
	b.mark(1)
	wants, ls, _ := b.wants(now)
	require.Len(t, wants, 1)
	require.Empty(t, b.suspend(b.lanes[1], "1"), "the answer comes while the claim is under way")
	start, unsent, _, _ := b.claimed(wants, ls, []queue.Claimed{{Trigger: 1, DueAt: now, Tries: 1}, {Trigger: 1, DueAt: now, Tries: 1}}, now, now)
	require.Empty(t, start)
	require.Len(t, unsent, 2)
	require.Zero(t, b.lanes[1].queued())
	wants, _, _ = b.wants(now)
	require.Empty(t, wants)
}

func TestALoadThatHasReadATriggerBeforeItsPauseDoesNotEndThePause(t *testing.T) {
	t.Parallel()
	asks := func(b *scheduler) bool {
		b.mark(1)
		wants, _, _ := b.wants(time.Now())
		return len(wants) > 0
	}
	b := lanes(100, 10, 1, 5)
	only(b, "1", false)
	require.True(t, asks(b))
	b.suspend(b.lanes[1], "1")
	only(b, "1", false)
	require.False(t, asks(b), "it was read before")
	only(b, "2", true)
	require.False(t, asks(b))
	only(b, "3", false)
	require.True(t, asks(b), "somebody has resumed it")

	b.suspend(b.lanes[1], "2")
	only(b, "3", false)
	require.True(t, asks(b), "the request was of before that")

	b.suspend(b.lanes[1], "3")
	b.unsuspend(b.lanes[1])
	only(b, "3", false)
	require.True(t, asks(b), "it could not be paused")
}
