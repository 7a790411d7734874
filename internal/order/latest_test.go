package order_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/order"
)

// laneWith returns lanes of which the entries were read.
func laneWith(options order.Options, now time.Time, entries ...*order.Entry) *order.Lanes {
	l := order.NewLanes(options)
	l.Take(0, 1)
	into(l, now, entries...)
	return l
}

func into(l *order.Lanes, now time.Time, entries ...*order.Entry) {
	l.Mark()
	reads := l.Reads(100, math.MaxInt64)
	for _, e := range entries {
		e.Read = now
	}
	l.Took(reads, []order.Page{{Entries: entries, End: order.End{Last: entries[len(entries)-1].Seq}}}, 0, false, now)
}

func TestWhatIsMergedWaitsForTheLatestRetryAmongIt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	due := now.Add(time.Second)
	first, second := &order.Entry{Seq: 1, Key: "k"}, &order.Entry{Seq: 2, Key: "k", Tries: 3, Due: due}
	l := laneWith(order.Options{Latest: true}, now, first, second)
	require.Nil(t, l.Next(now, 10), "another owner has sent both as one, and that has failed")
	into(l, now, &order.Entry{Seq: 3, Key: "k"})
	require.Nil(t, l.Next(now, 10))
	require.Equal(t, due, l.Tick(now))
	require.Equal(t, []*order.Entry{second}, l.Timed(10), "an operator retries the one that has failed")

	l.Tick(due)
	require.Len(t, l.Next(due, 10), 3, "what came meanwhile takes its place")
}

func TestARetryNowOfWhatWasMergedIsNoticed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	first, second := &order.Entry{Seq: 1, Key: "k"}, &order.Entry{Seq: 2, Key: "k", Tries: 3, Due: now.Add(time.Hour)}
	l := laneWith(order.Options{Latest: true}, now, first, second)
	later := now.Add(time.Second)
	l.Seen(second, true, 3, time.Time{}, later, later)
	require.Len(t, l.Next(later, 10), 2)
}

func TestWithoutMergingALaterEntryDoesNotHoldItsKey(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := laneWith(order.Options{}, now, &order.Entry{Seq: 1, Key: "k"}, &order.Entry{Seq: 2, Key: "k", Tries: 1, Due: now.Add(time.Hour)})
	require.Len(t, l.Next(now, 10), 1)
}
