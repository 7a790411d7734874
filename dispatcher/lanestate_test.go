package dispatcher

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// queueOf is a model of a trigger's events in the database: by when they are due, in steps, how
// many are visible. A claim is what it was when it was sent.
type queueOf struct {
	visible map[int]int
	floor   int
	state   laneState

	claiming bool
	limit    int
	took     map[int]int
	full     bool
	top      int
}

func (q *queueOf) left() (n int) {
	for _, k := range q.visible {
		n += k
	}
	return n
}

// commit makes an event visible that is due at a step, and has the lane marked as its notification
// does.
func (q *queueOf) commit(due int) {
	q.visible[due]++
	q.state = q.state.mark(true)
}

// ask sends a claim, if the lane wants one.
func (q *queueOf) ask(maySweep bool, limit int) claimStart {
	var start claimStart
	start, q.state = q.state.ask(maySweep)
	if start == noClaim {
		return start
	}
	from := q.floor
	if start == sweep {
		from = 0
	}
	q.claiming, q.limit, q.took, q.top = true, limit, map[int]int{}, -1
	n := 0
	for _, due := range slices.Sorted(maps.Keys(q.visible)) {
		for ; due >= from && q.visible[due] > 0 && n < limit; n++ {
			q.visible[due]--
			q.took[due]++
			q.top = due
		}
	}
	q.full = n == limit
	return start
}

// answer takes in the answer to the claim, as scheduler.claimed does.
func (q *queueOf) answer() {
	q.claiming = false
	if q.full || q.top > q.floor {
		q.floor = max(q.top, 0)
	}
	q.state = q.state.answer(q.full)
}

// fail has the claim fail: it took nothing, and is marked as scheduler.requeue does.
func (q *queueOf) fail() {
	q.claiming = false
	for due, n := range q.took {
		q.visible[due] += n
	}
	q.state = q.state.mark(true)
}

func TestALaneIsDrainedOnlyWhenAllThatItWasToldOfIsClaimed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q := &queueOf{visible: map[int]int{}}
		t.Repeat(map[string]func(*rapid.T){
			"commit": func(t *rapid.T) { q.commit(rapid.IntRange(0, 9).Draw(t, "due")) },
			"hint":   func(*rapid.T) { q.state = q.state.mark(false) },
			"ask": func(t *rapid.T) {
				if q.claiming {
					t.Skip("one claim at a time")
				}
				q.ask(rapid.Bool().Draw(t, "may sweep"), rapid.IntRange(1, 4).Draw(t, "limit"))
			},
			"answer": func(t *rapid.T) {
				if !q.claiming {
					t.Skip("no claim is under way")
				}
				q.answer()
			},
			"fail": func(t *rapid.T) {
				if !q.claiming {
					t.Skip("no claim is under way")
				}
				q.fail()
			},
			"": func(t *rapid.T) {
				if q.state == drained {
					require.Zero(t, q.left(), "events wait that nobody looks for")
				}
				require.True(t, q.state != asked || q.claiming, "it waits for the answer to no claim")
			},
		})
		if q.claiming {
			q.answer()
		}
		for range 200 { // a sweep may begin each time, so all of it is found
			if q.ask(true, 4) == noClaim {
				break
			}
			q.answer()
		}
		require.Equal(t, drained.String(), q.state.String())
		require.Zero(t, q.left())
	})
}

func TestALaneWhoseSweepHasToWaitGoesOnFromTheFloorAndOwesTheSweep(t *testing.T) {
	t.Parallel()
	start, s := dueBelow.ask(false)
	require.Equal(t, fromFloor, start)
	require.Equal(t, sweepOwed, s)
	start, s = s.answer(false).ask(false)
	require.Equal(t, noClaim, start, "nothing was marked since")
	start, _ = s.mark(false).ask(false)
	require.Equal(t, fromFloor, start, "something was marked since")
	start, s = s.ask(true)
	require.Equal(t, sweep, start)
	require.Equal(t, drained, s.answer(false))
}

func TestADueTimeIsKnownOrAskedForWhileThereIsOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1000, 0)
		var d dueTime
		waiting := map[time.Time]bool{} // due times in the database that are not over
		least := func() (at time.Time) {
			for w := range waiting {
				if at.IsZero() || w.Before(at) {
					at = w
				}
			}
			return at
		}
		add := func(t *rapid.T) time.Time {
			at := now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "in")) * time.Second)
			waiting[at] = true
			return at
		}
		t.Repeat(map[string]func(*rapid.T){
			"settled for later":     func(t *rapid.T) { d.note(add(t)) },
			"another instance died": func(t *rapid.T) { add(t); d.forget() },
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 10).Draw(t, "seconds")) * time.Second)
				ripe := d.ripen(now)
				for at := range waiting {
					if !at.After(now) {
						require.True(t, ripe || d.unasked, "something is due and the lane is not marked")
						delete(waiting, at) // marked below the floor, so it is claimed
					}
				}
			},
			"drained": func(*rapid.T) {
				if d.ask() && len(waiting) > 0 {
					d.note(least())
				}
			},
			"": func(t *rapid.T) {
				if at := least(); !at.IsZero() && !d.unasked {
					require.False(t, d.at.IsZero(), "nobody will look at %v", at)
					require.False(t, d.at.After(at), "it is looked at too late")
				}
			},
		})
	})
}

func TestOneSlowSweepDoesNotPutOffTheNext(t *testing.T) {
	t.Parallel()
	var l sweeping
	l.ended(10 * time.Millisecond)
	require.Zero(t, l.pause())
	l.ended(2 * time.Second)
	require.Equal(t, 100*time.Millisecond, l.pause(), "the slow one may have waited for a lock")
	l.ended(2 * time.Second)
	require.Equal(t, time.Second, l.pause(), "sweeps that stay slow run every second")
}
