package dispatcher

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
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
			all[i].configure([]queue.Trigger{{ID: 1, Spec: spec}}, func(trigger.Spec) (*webhook.Endpoint, error) { return nil, nil })
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
			want, limit, _ := all[i].wantShare(1, id, 0, shares)
			table[id] = want
			all[i].gotShare(1, limit, 0)
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
