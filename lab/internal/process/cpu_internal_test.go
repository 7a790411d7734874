package process

import (
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStatOfAProcessWithAnUglyName(t *testing.T) {
	t.Parallel()
	s, ok := parseStat([]byte("4711 (a) b (c) S 12 4711 4711 0 -1 4194304 100 0 0 0 150 50 30 20 20 0 1 0 100 0 0"))
	require.True(t, ok)
	require.Equal(t, procStat{pid: 4711, parent: 12, own: 200, ticks: 250}, s)
	_, ok = parseStat([]byte("nonsense"))
	require.False(t, ok)
}

func TestCPUOfThisProcessIsCounted(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Log("no /proc here: CPU times are not measured")
		return
	}
	before := TreeCPU(os.Getpid())
	for x := 0.0; TreeCPU(os.Getpid())-before < 0.03; x++ {
		_ = math.Sqrt(x)
	}
	require.Positive(t, CPU(os.Getpid()))
}
