package cli

import (
	"log/slog"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
)

func TestBigPayloadsGetAQuarterOfLittleMemory(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		allowed, given int64
		wantPayloads   int64
		wantLimit      int64
	}{
		"no limit":              {0, 0, 64 << 20, 192<<20 + 32000<<10},
		"much":                  {1 << 30, 0, 64 << 20, 192<<20 + 32000<<10},
		"256 MiB":               {256 << 20, 0, 64 << 20, 192<<20 + 32000<<10},
		"64 MiB":                {64 << 20, 0, 16 << 20, 64 << 20 / 10 * 9},
		"64 MiB, as it is said": {64 << 20, 40 << 20, 40 << 20, 64 << 20 / 10 * 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &app{log: slog.New(slog.DiscardHandler), environ: []string{"GOMEMLIMIT=off"}} // the limit would be that of all tests
			cfg := dispatcher.Config{PayloadMemory: dispatcher.DefaultPayloadMemory, Concurrency: dispatcher.DefaultConcurrency}
			if c.given != 0 {
				cfg.PayloadMemory = c.given
			}
			a.fitMemory(&cfg, c.allowed, c.given != 0)
			require.Equal(t, c.wantPayloads, cfg.PayloadMemory)
			require.Equal(t, c.wantLimit, softLimit(cfg, c.allowed))
		})
	}
}

func TestTheLargestBodyFitsTheMemoryLimit(t *testing.T) {
	t.Parallel()
	const none = int64(math.MaxInt64)
	require.EqualValues(t, 256<<20, fitBody(256<<20, 0, none))
	require.EqualValues(t, 64<<20, fitBody(256<<20, 512<<20, none))
	require.EqualValues(t, 64<<20, fitBody(256<<20, 0, 512<<20))
	require.EqualValues(t, 32<<20, fitBody(256<<20, 256<<20, 512<<20))
	require.EqualValues(t, 256<<20, fitBody(256<<20, 64<<30, none))
}

func TestTheHeapGrowsLessWithManySources(t *testing.T) {
	t.Parallel()
	require.Equal(t, 100, growth(1))
	require.Equal(t, 100, growth(manySources-1))
	require.Equal(t, 50, growth(manySources))
}
