package dispatcher

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// eager is a party that begins what it can when it is woken.
type eager struct {
	*party

	wants int
	woken bool
}

func (e *eager) start() {
	for e.wants > 0 && e.enter(false) {
		e.wants--
	}
	e.pass()
}

func TestAQuotaIsKeptAndNobodyIsForgotten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 20).Draw(t, "limit")
		q := &quota{least: rapid.IntRange(0, 1).Draw(t, "least"), spare: rapid.IntRange(0, limit-1).Draw(t, "spare")}
		all := make([]*eager, rapid.IntRange(1, 6).Draw(t, "parties"))
		for i := range all {
			e := &eager{}
			e.party = q.join(limit, func() { e.woken = true })
			all[i] = e
		}
		settle := func() {
			for woken := true; woken; {
				woken = false
				for _, e := range all {
					if e.woken {
						e.woken, woken = false, true
						e.start()
					}
				}
			}
		}
		one := func(t *rapid.T) *eager { return all[rapid.IntRange(0, len(all)-1).Draw(t, "who")] }
		t.Repeat(map[string]func(*rapid.T){
			"want": func(t *rapid.T) {
				e := one(t)
				e.wants += rapid.IntRange(1, 30).Draw(t, "n")
				e.start()
				settle()
			},
			"end": func(t *rapid.T) {
				if e := one(t); e.active > 0 {
					e.end(false)
					settle()
				}
			},
			"give up": func(t *rapid.T) { one(t).wants = 0 },
			"": func(t *rapid.T) {
				sum, waits := 0, 0
				for _, e := range all {
					sum += e.active
					if e.wants > 0 {
						waits++
						require.GreaterOrEqual(t, e.active, q.least)
					}
				}
				require.Equal(t, sum, q.active)
				require.LessOrEqual(t, sum, limit+q.least*len(all))
				if waits > 0 {
					require.GreaterOrEqual(t, sum, limit-q.spare, "no room is left while somebody waits")
				}
			},
		})
	})
}

func TestAFloodLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	q := &quota{least: 1, spare: 10}
	flood, other := &eager{wants: 1000}, &eager{wants: 5}
	flood.party, other.party = q.join(100, func() { flood.woken = true }), q.join(100, func() { other.woken = true })
	flood.start()
	require.Equal(t, 90, flood.active)
	other.start()
	require.Equal(t, 5, other.active)

	other.wants = 1000
	other.start()
	require.Equal(t, 10, other.active)
	for range 60 {
		flood.end(false)
		require.False(t, flood.woken, "who has fewer goes first")
		require.True(t, other.woken)
		other.woken = false
		other.start()
		if other.active >= flood.active {
			break
		}
	}
	require.InDelta(t, flood.active, other.active, 2)
}

func TestAQuotaIsKeptByPartiesThatBeginAtOnce(t *testing.T) {
	t.Parallel()
	const limit = 3
	q := &quota{}
	var now, most atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		p := q.join(limit, func() {})
		all.Go(func() {
			for range 20_000 {
				if !p.enter(true) {
					continue
				}
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				now.Add(-1)
				p.end(false)
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, most.Load(), int64(limit))
	require.Positive(t, most.Load())
}
