package sqlschema

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"flag"
	"io"
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite migrations.zip")

func TestTheProgramHasTheMigrations(t *testing.T) {
	t.Parallel()
	directory := os.DirFS("migrations")
	names, err := fs.Glob(directory, "*")
	require.NoError(t, err)
	if *update {
		var archive bytes.Buffer
		w := zip.NewWriter(&archive)
		w.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) { return flate.NewWriter(out, flate.BestCompression) })
		for _, name := range names {
			text, err := fs.ReadFile(directory, name)
			require.NoError(t, err)
			file, err := w.Create(name)
			require.NoError(t, err)
			_, err = file.Write(text)
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		require.NoError(t, os.WriteFile("migrations.zip", archive.Bytes(), 0o644))
		return
	}
	const remedy = "go test ./sqlschema -run TheProgramHasTheMigrations -update"
	embedded, err := migrations()
	require.NoError(t, err)
	have, err := fs.Glob(embedded, "*")
	require.NoError(t, err)
	require.Equal(t, names, have, remedy)
	for _, name := range names {
		want, err := fs.ReadFile(directory, name)
		require.NoError(t, err)
		got, err := fs.ReadFile(embedded, name)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%s has changed: %s", name, remedy)
	}
}
