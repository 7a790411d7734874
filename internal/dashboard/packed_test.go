package dashboard_test

import (
	"archive/zip"
	"bytes"
	"flag"
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite static.zip")

func TestTheProgramHasTheFilesOfThePage(t *testing.T) {
	t.Parallel()
	want := map[string]string{}
	var packed bytes.Buffer
	w := zip.NewWriter(&packed)
	dir := os.DirFS("static")
	require.NoError(t, fs.WalkDir(dir, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(dir, name)
		require.NoError(t, err)
		want[name] = string(content)
		file, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate}) // without its time
		require.NoError(t, err)
		_, err = file.Write(content)
		return err
	}))
	require.NoError(t, w.Close())
	if *update {
		require.NoError(t, os.WriteFile("static.zip", packed.Bytes(), 0o644))
		return
	}
	data, err := os.ReadFile("static.zip")
	require.NoError(t, err)
	have, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	require.NoError(t, err)
	got := map[string]string{}
	for _, f := range have.File {
		content, err := fs.ReadFile(have, f.Name)
		require.NoError(t, err)
		got[f.Name] = string(content)
	}
	require.Equal(t, want, got, "rewrite it: go test ./internal/dashboard -run Program -update")
}
