package fleet

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/queue"
)

// rank sorts processes by their weights.
func rank(source string, processes []int32) []int32 {
	return slices.SortedFunc(slices.Values(processes), func(a, b int32) int {
		return cmp.Compare(weight(source, b), weight(source, a))
	})
}

// firsts are the first processes of some sources.
func firsts(sources []string, processes []int32) map[string]int32 {
	of := map[string]int32{}
	for _, s := range sources {
		of[s] = rank(s, processes)[0]
	}
	return of
}

func TestSourcesAreSpreadEvenlyAndMoveOnlyIfTheyMust(t *testing.T) {
	t.Parallel()
	var sources []string
	for i := range 1000 {
		sources = append(sources, fmt.Sprintf("tenant_%03d", i))
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		processes := make([]int32, 2+r.IntN(6))
		for i := range processes {
			processes[i] = r.Int32()
		}
		before := firsts(sources, processes)
		shares := map[int32]int{}
		for _, p := range before {
			shares[p]++
		}
		n := len(processes)
		for _, p := range processes {
			// Five standard deviations of so many throws.
			mean := float64(len(sources)) / float64(n)
			require.InDelta(t, mean, shares[p], 5*31.7/float64(n)*float64(n-1)/1.7, "%d of %d processes", shares[p], n)
		}
		shuffled := slices.Clone(processes)
		r.Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		require.Equal(t, before, firsts(sources, shuffled), "all processes get the same")
		for s, p := range firsts(sources, processes[1:]) {
			if before[s] != processes[0] {
				require.Equal(t, before[s], p, "%s has to stay where it is", s)
			}
		}
	}
}

// order returns three processes in the order of the source s.
func order() []int32 { return rank("s", []int32{1, 2, 3}) }

func there(members ...queue.Member) *dispatcher.Members { return &dispatcher.Members{All: members} }

func TestTheFirstServesAndTheOthersStandBy(t *testing.T) {
	t.Parallel()
	o, now := order(), time.Now()
	first, second := post{self: o[0], source: "s"}, post{self: o[1], source: "s"}
	all := there(queue.Member{Process: 1}, queue.Member{Process: 2}, queue.Member{Process: 3})
	require.True(t, first.decide(all, false, now))
	require.False(t, second.decide(all, false, now), "the first is there")
	require.True(t, second.decide(there(queue.Member{Process: o[1]}, queue.Member{Process: o[2]}), false, now), "it is the first now")
	require.True(t, second.decide(there(), false, now), "also if its own lock is not seen")

	require.True(t, second.decide(all, true, now), "the first is there, and does not serve yet")
	serves := there(queue.Member{Process: o[0], Serves: true}, queue.Member{Process: o[1], Serves: true}, queue.Member{Process: o[2]})
	require.False(t, second.decide(serves, true, now), "it serves")
	require.True(t, first.decide(serves, true, now))
}

func TestOthersServeIfThoseBeforeThemDoNot(t *testing.T) {
	t.Parallel()
	o, now := order(), time.Now()
	second, third := post{self: o[1], source: "s"}, post{self: o[2], source: "s"}
	all := there(queue.Member{Process: 1}, queue.Member{Process: 2}, queue.Member{Process: 3})
	for _, p := range []*post{&second, &third} {
		require.False(t, p.decide(all, false, now))
	}
	now = now.Add(takeAfter)
	require.True(t, second.decide(all, false, now))
	require.False(t, third.decide(all, false, now))
	now = now.Add(takeAfter - time.Millisecond)
	require.False(t, third.decide(there(queue.Member{Process: o[0]}, queue.Member{Process: o[1], Serves: true}), false, now))
	require.False(t, third.decide(all, false, now.Add(time.Hour)), "it counts anew")
}

func TestTheNextHelpsWhereEventsAreOverdueUntilNoneIs(t *testing.T) {
	t.Parallel()
	o, now := order(), time.Now()
	second, third := post{self: o[1], source: "s"}, post{self: o[2], source: "s"}
	look := func(p *post, overdue, serves bool, after time.Duration) bool {
		now = now.Add(after)
		seen := there(queue.Member{Process: o[0], Serves: true}, queue.Member{Process: o[1], Serves: serves}, queue.Member{Process: o[2]})
		seen.Overdue = overdue
		return p.decide(seen, serves, now)
	}
	require.False(t, look(&second, true, false, 0))
	require.False(t, look(&second, false, false, joinAfter))
	require.False(t, look(&second, true, false, time.Second))
	require.False(t, look(&third, true, false, 0))
	require.True(t, look(&second, true, false, joinAfter))
	require.False(t, look(&third, true, false, 0), "one more at a time")
	require.True(t, look(&second, true, true, time.Hour), "they stay overdue")
	require.True(t, look(&second, false, true, calmAfter-time.Second))
	require.False(t, look(&second, false, true, time.Second), "it is calm")
	require.False(t, look(&second, true, false, time.Second))
	require.True(t, look(&second, true, false, joinAfter), "it was not")
	require.True(t, look(&second, false, true, calmAfter), "now it stays for longer")
	require.False(t, look(&second, false, true, calmAfter))
	require.False(t, look(&second, true, false, time.Hour))
	require.True(t, look(&second, true, false, joinAfter))
	require.False(t, look(&second, false, true, calmAfter), "the time before is forgotten")
}
