package order

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALaneThatStaysHandsOutAgainWhatItLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(false)
	w.ofKey = mostOfKey
	w.begin()
	w.seq = 9
	w.lanes = 1
	w.rows[3], w.rows[4], w.rows[9] = &row{seq: 3, key: "k0"}, &row{seq: 4, key: "k0"}, &row{seq: 9, key: "k1"}
	w.round(10, func() {})
	require.True(t, w.send(t, 1))
	require.False(t, w.l.Leave(0), "one is out")
	require.False(t, w.send(t, 1), "it is leaving")
	w.l.Stay(0)
	w.round(10, func() {})
	require.True(t, w.send(t, 1), "the other key")
	require.False(t, w.send(t, 1), "one of each key is out")
	w.settle(slices.IndexFunc(w.out, func(r Run) bool { return r[0].Key == "k0" }), 1) // either key may come first
	require.True(t, w.send(t, 1))
	require.Empty(t, w.l.Leaving())
}

func TestWhatIsOutWhenItsLaneIsClaimedAnewHoldsItsKeyAndIsLookedAtBeforeItIsSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(false)
	w.ofKey = mostOfKey
	w.begin()
	w.seq, w.lanes = 9, 1
	w.rows[3], w.rows[4] = &row{seq: 3, key: "k0"}, &row{seq: 4, key: "k0"}
	w.round(10, func() {})
	require.True(t, w.send(t, 1))
	w.byAnother(0, 2)
	w.rows[5] = &row{seq: 5, key: "k0"}
	w.epoch++
	w.l.Take(0, w.epoch)
	w.round(10, func() {})
	require.False(t, w.send(t, 1), "the old attempt hangs")
	w.settle(0, 1)
	w.send(t, 1) // has it looked at
	for w.send(t, 1) {
		w.settle(0, 1)
	}
	require.Equal(t, []int64{3, 4, 5}, w.sent["k0"])
}

func TestALaneThatBeginsAnewKeepsWhatHoldsItsKeys(t *testing.T) {
	t.Parallel()
	l := NewLanes(Options{Blocks: true})
	l.Take(0, 1)
	now := time.Now()
	dead := Hold{ID: [16]byte{1}, Lane: 0, Seq: 1, Key: "a"}
	l.Holds([]int16{0}, []Hold{dead}, now, now)
	read := func() {
		reads := l.Reads(10, 1)
		page := Page{End: End{Last: 2}, Entries: []*Entry{{ID: [16]byte{2}, Seq: 2, Key: "a", Read: now}}}
		l.Took(reads, []Page{page}, 0, false, now)
	}
	read()
	require.Nil(t, l.Next(now, 1))
	l.Restart(0)
	read()
	require.Nil(t, l.Next(now, 1), "the dead letter holds its key still")
	later := now.Add(time.Second)
	l.Holds([]int16{0}, nil, later, later) // it is gone, and its place is to be read again
	require.Nil(t, l.Next(now, 1))
	l.Restart(0)
	read()
	require.NotNil(t, l.Next(now, 1))
}
