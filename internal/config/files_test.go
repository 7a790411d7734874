package config_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func TestFingerprintChangesWithWhatLoadReadsAndWithNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yaml")
	write(t, file, "triggers: []\n")
	printOf := func(path string) string {
		t.Helper()
		f, err := config.Fingerprint(path)
		require.NoError(t, err)
		return f
	}
	one, all := printOf(file), printOf(dir)
	write(t, filepath.Join(dir, "notes.txt"), "x")
	write(t, filepath.Join(dir, ".b.yaml"), "x")
	require.Equal(t, all, printOf(dir), "what is not read does not count")
	write(t, file, "triggers: []\n")
	require.Equal(t, []string{one, all}, []string{printOf(file), printOf(dir)}, "a file that is written again is the same")

	write(t, filepath.Join(dir, "b.yml"), "")
	two := printOf(dir)
	require.NotEqual(t, all, two, "a new file")
	require.Equal(t, one, printOf(file))
	require.NoError(t, os.Rename(filepath.Join(dir, "b.yml"), filepath.Join(dir, "c.yml")))
	require.NotEqual(t, two, printOf(dir), "another name")
	write(t, file, "triggers: [ ]")
	require.NotEqual(t, one, printOf(file), "another content of the same length")

	_, err := config.Fingerprint(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = config.Fingerprint(t.TempDir())
	require.ErrorContains(t, err, "it is empty")
}
