package dispatcher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

func TestSharesNeverExceedATotalInSum(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		total, n := rapid.IntRange(1, 12).Draw(t, "total"), rapid.IntRange(1, 6).Draw(t, "instances")
		table := map[int32]queue.Share{}
		all := make([]*scheduler, n)
		for i := range all {
			all[i] = newScheduler(100, 100)
			spec := trigger.DefaultSpec()
			spec.ConcurrencyTotal = total
			all[i].configure([]queue.Trigger{{ID: 1, Spec: spec}}, func(trigger.Spec) (Endpoint, error) { return nil, nil })
		}
		sum := func() (held, open int) {
			for _, s := range table {
				held += s.N
			}
			for _, s := range all {
				open += s.lanes[1].inFlight
			}
			return held, open
		}
		adjust := func(i int, turn int64) {
			id := int32(i + 1)
			shares := queue.Shares{Turn: turn}
			for _, s := range table {
				shares.All = append(shares.All, s)
			}
			w := all[i].wantShare(1, id, 0, shares)
			table[id] = w.share
			all[i].gotShare(1, &w, 0)
		}
		t.Repeat(map[string]func(*rapid.T){
			"watch": func(t *rapid.T) {
				adjust(rapid.IntRange(0, n-1).Draw(t, "who"), rapid.Int64Range(0, 20).Draw(t, "turn"))
			},
			"start": func(t *rapid.T) {
				l := all[rapid.IntRange(0, n-1).Draw(t, "who")].lanes[1]
				if l.inFlight < l.concurrency(100) {
					l.inFlight++
				}
			},
			"end": func(t *rapid.T) {
				if l := all[rapid.IntRange(0, n-1).Draw(t, "who")].lanes[1]; l.inFlight > 0 {
					l.inFlight--
				}
			},
			"": func(t *rapid.T) {
				held, open := sum()
				require.LessOrEqual(t, held, total)
				require.LessOrEqual(t, open, held)
			},
		})
		for range 3 { // all are busy, or all are idle: the shares become even
			for i := range all {
				all[i].lanes[1].inFlight = 0
				all[i].enter(all[i].lanes[1], drained)
				adjust(i, 0)
			}
		}
		held, _ := sum()
		require.Equal(t, total, held)
		for _, s := range table {
			require.InDelta(t, float64(total)/float64(n), s.N, 1)
		}
	})
}

// sharing are instances that share a total without a clock: they look when they are signaled or told.
type sharing struct {
	t     *testing.T
	all   []*scheduler
	table map[int32]queue.Share
	turn  int64
	looks int
}

func newSharing(t *testing.T, total, instances int) *sharing {
	t.Helper()
	w := &sharing{t: t, table: map[int32]queue.Share{}}
	for range instances {
		s := newScheduler(100, 100)
		spec := trigger.DefaultSpec()
		spec.ConcurrencyTotal = total
		s.configure([]queue.Trigger{{ID: 1, Spec: spec}}, func(trigger.Spec) (Endpoint, error) { return nil, nil })
		s.enter(s.lanes[1], drained)
		w.all = append(w.all, s)
	}
	w.watch()
	return w
}

func (w *sharing) look(i int) {
	w.looks++
	shares := queue.Shares{Turn: w.turn}
	for _, s := range w.table {
		shares.All = append(shares.All, s)
	}
	want := w.all[i].wantShare(1, int32(i+1), 0, shares)
	w.table[want.share.Instance] = want.share
	if w.all[i].gotShare(1, &want, 0) {
		for other, s := range w.all {
			if other != i {
				s.reshare()
			}
		}
	}
}

// calm has instances look until none has to.
func (w *sharing) calm() {
	w.t.Helper()
	for w.looks = 0; ; {
		before := w.looks
		for i, s := range w.all {
			select {
			case <-s.shareSignal:
				w.look(i)
			default:
			}
		}
		if w.looks == before {
			return
		}
		require.Less(w.t, w.looks, 5*len(w.all), "they do not come to an end")
	}
}

// watch has all look, as they do each 1.5 s and at the end of a turn.
func (w *sharing) watch() {
	w.t.Helper()
	for i := range w.all {
		w.look(i)
	}
	w.calm()
}

func (w *sharing) finds(i int) {
	w.t.Helper()
	s := w.all[i]
	s.mark(1)
	s.wants(time.Now())
	s.mu.Lock()
	s.weighShare(s.lanes[1]) // as the answer of the claim does
	s.mu.Unlock()
	w.calm()
}

func (w *sharing) start(i int) {
	w.t.Helper()
	l := w.all[i].lanes[1]
	require.Less(w.t, l.inFlight, l.concurrency(100))
	l.inFlight++
}

// ends has a request end. more says that more events wait.
func (w *sharing) ends(i int, more bool) {
	w.t.Helper()
	s := w.all[i]
	s.enter(s.lanes[1], drained)
	if more {
		s.enter(s.lanes[1], due)
	}
	s.done(&shipment{lane: s.lanes[1]}, 0, false)
	w.calm()
}

func (w *sharing) shares() (all []int) {
	for _, s := range w.all {
		all = append(all, s.lanes[1].share.n)
	}
	return all
}

func TestAShareIsPassedOnWithoutAWatch(t *testing.T) {
	t.Parallel()
	w := newSharing(t, 1, 2)
	first, second := 0, 1
	if w.shares()[1] == 1 {
		first, second = 1, 0
	}
	for range 4 {
		w.finds(second)
		w.finds(first)
		for w.shares()[first] == 0 {
			w.turn++
			w.watch()
		}
		w.start(first)
		w.turn++
		w.watch()
		require.Equal(t, []int{0, 0}, w.shares(), "its request is in flight")
		w.ends(first, true)
		require.Equal(t, 1, w.shares()[second], "the turn of the first one is over")
		w.start(second)
		w.ends(second, false)
		require.Equal(t, 1, w.shares()[first], "the second one has nothing to send")
		w.start(first)
		w.ends(first, false)
		first, second = second, first
	}
}

func TestAnInstanceThatBeginsToSendGetsItsShareWithoutAWatch(t *testing.T) {
	t.Parallel()
	w := newSharing(t, 4, 2)
	w.finds(0)
	w.watch()
	require.Equal(t, []int{4, 0}, w.shares())
	for range 4 {
		w.start(0)
	}
	w.finds(1)
	require.Equal(t, []int{2, 0}, w.shares())
	w.ends(0, true)
	require.Equal(t, []int{2, 1}, w.shares())
	w.ends(0, true)
	require.Equal(t, []int{2, 2}, w.shares())
	w.all[0].close()
	w.ends(0, false)
	require.Equal(t, []int{0, 3}, w.shares())
	w.ends(0, false)
	require.Equal(t, []int{0, 4}, w.shares(), "a stop gives up what requests in flight leave")
}

// TestAnOrderedTriggerWithoutAShareHasEventsThatWait has no share, so none of them is in a queue.
func TestAnOrderedTriggerWithoutAShareHasEventsThatWait(t *testing.T) {
	t.Parallel()
	w := newSharing(t, 1, 2)
	w.finds(0)
	w.watch()
	require.Equal(t, []int{1, 0}, w.shares())
	w.all[1].waitsInOrder(w.all[1].lanes[1], true)
	w.calm()
	had := []int{0, 0}
	for range 4 {
		for i, n := range w.shares() {
			had[i] += n
		}
		w.turn++
		w.watch()
	}
	require.Equal(t, []int{2, 2}, had)
	w.all[1].waitsInOrder(w.all[1].lanes[1], false)
	w.calm()
	require.Equal(t, []int{1, 0}, w.shares())
}

func TestEventsThatComeOneByOneCostNoLookAtShares(t *testing.T) {
	t.Parallel()
	w := newSharing(t, 4, 2)
	for range 100 {
		w.finds(0)
		require.Zero(t, w.looks)
		w.start(0)
		w.ends(0, false)
		require.Zero(t, w.looks)
	}
}

func TestIdleInstancesLeaveTheirSharesAndManyTakeTurns(t *testing.T) {
	t.Parallel()
	members := []queue.Share{{Instance: 3}, {Instance: 1, Busy: true}, {Instance: 2, Busy: true}}
	require.Zero(t, evenShare(3, 3, members, 0))
	require.Equal(t, 2, evenShare(3, 1, members, 0))
	require.Equal(t, 1, evenShare(3, 2, members, 0))
	had := map[int32]int{}
	for turn := range int64(2) {
		for _, id := range []int32{1, 2} {
			had[id] += evenShare(1, id, members, turn)
		}
	}
	require.Equal(t, map[int32]int{1: 1, 2: 1}, had)
}
