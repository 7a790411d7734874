package cli

import (
	"log/slog"
	"math"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
)

func TestAllowedMemoryIsTheLeastOfTheControlGroups(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no control groups": {nil, 0},
		"no limit, version 2": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n",
		}, 0},
		"no limit, version 1": {map[string]string{
			"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		"a container, version 2": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "67108864\n",
		}, 64 << 20},
		"a service": {map[string]string{
			"proc/self/cgroup": "0::/system.slice/rowhook.service\n", "sys/fs/cgroup/system.slice/memory.max": "max\n",
			"sys/fs/cgroup/system.slice/rowhook.service/memory.max": "268435456\n",
		}, 256 << 20},
		"a slice that has less than its service": {map[string]string{
			"proc/self/cgroup": "0::/system.slice/rowhook.service\n", "sys/fs/cgroup/system.slice/memory.max": "134217728\n",
			"sys/fs/cgroup/system.slice/rowhook.service/memory.max": "268435456\n",
		}, 128 << 20},
		"a container, version 1, which has its path on the host but not its files": {map[string]string{
			"proc/self/cgroup":                           "10:cpuset:/docker/4e74\n4:cpu,memory:/docker/4e74\n0::/docker/4e74\n",
			"sys/fs/cgroup/memory.max":                   "not a number\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864\n",
		}, 64 << 20},
		"a group outside of what the container sees": {map[string]string{
			"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/memory.max": "67108864\n",
		}, 64 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := fstest.MapFS{}
			for path, text := range c.files {
				root[path] = &fstest.MapFile{Data: []byte(text)}
			}
			require.Equal(t, c.want, allowedMemory(root))
		})
	}
}

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
