package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

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

func TestReadTakesAConfigurationFromAnywhere(t *testing.T) {
	t.Parallel()
	c, err := config.Read("<stdin>", strings.NewReader(fileOf("webhook: {url: '${U}'}")), func(string) (string, bool) { return "", false })
	require.NoError(t, err)
	require.Equal(t, "<stdin>", c.File)
	require.Len(t, c.Warnings, 1)
	require.Contains(t, c.Warnings[0].String(), "<stdin>:5:20: triggers[0].webhook.url: environment variable U is not set here")
	_, err = config.Read("<stdin>", iotest.ErrReader(errors.New("gone")), nil)
	require.EqualError(t, err, "<stdin>: can't read it to its end (gone); try again, or give the path of a file")
	_, err = config.Read("<stdin>", strings.NewReader(""), nil)
	require.ErrorContains(t, err, "<stdin>: contains no configuration; ")
}
