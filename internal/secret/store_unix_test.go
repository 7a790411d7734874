//go:build unix

package secret_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/secret"
	"github.com/rowhook/rowhook/trigger"
)

func TestOnlyRegularFilesOfABearableSizeAreRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600)) // a read would wait for ever
	write(t, filepath.Join(dir, "large"), strings.Repeat("x", secret.Largest+1))
	write(t, filepath.Join(dir, "largest"), strings.Repeat("x", secret.Largest))
	write(t, filepath.Join(dir, "empty"), "")
	write(t, filepath.Join(dir, "newline"), "\n")
	s := open(t, secret.Rules{Dirs: []string{dir}})
	for name, want := range map[string]string{"fifo": "no regular file", "large": "more than 1048576 bytes", "empty": "is empty", "newline": "is empty"} {
		_, err := s.Get(trigger.FilePrefix + filepath.Join(dir, name))
		require.ErrorContains(t, err, want, name)
		require.Less(t, len(err.Error()), 400)
	}
	value, err := s.Get(trigger.FilePrefix + filepath.Join(dir, "largest"))
	require.NoError(t, err)
	require.Len(t, value, secret.Largest)
}
