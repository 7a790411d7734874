package order

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestALookBackFindsWhatNobodyTold(t *testing.T) {
	t.Parallel()
	w := newWorld(false)
	w.ofKey = mostOfKey
	w.begin()
	w.seq = 9
	w.rows[9] = &row{seq: 9, key: "k0"}
	w.round(10, func() {})
	require.True(t, w.send(t, 1))
	w.settle(0, 1)
	w.rows[4] = &row{seq: 4, key: "k0"} // behind the cursor, and no transaction was open
	w.l.Mark()
	w.round(10, func() {})
	require.False(t, w.send(t, 1), "nobody tells of it")
	w.l.LookBack()
	require.True(t, w.l.Marked())
	w.round(10, func() {})
	require.True(t, w.send(t, 1))
	require.Equal(t, int64(4), w.out[0][0].Seq)
}
