package ramdisk_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/lab/internal/ramdisk"
)

// TestADiskFillsUpAndEmpties needs root. Without it, the test only looks at the error.
func TestADiskFillsUpAndEmpties(t *testing.T) {
	t.Parallel()
	v, err := ramdisk.Mount(t.TempDir(), 8)
	if err != nil {
		require.ErrorIs(t, err, syscall.EPERM)
		return
	}
	defer func() { require.NoError(t, v.Unmount()) }()
	free := func() float64 {
		var fs syscall.Statfs_t
		require.NoError(t, syscall.Statfs(v.Dir, &fs))
		return float64(fs.Bavail) / float64(fs.Blocks)
	}
	require.Equal(t, 1.0, free())
	require.NoError(t, v.FillAllBut(0.25))
	require.InDelta(t, 0.25, free(), 0.01)
	require.NoError(t, v.Fill())
	require.Zero(t, free())
	require.ErrorIs(t, os.WriteFile(filepath.Join(v.Dir, "x"), make([]byte, 1), 0o600), syscall.ENOSPC)
	require.NoError(t, v.Free())
	require.GreaterOrEqual(t, free(), 0.9)
}
