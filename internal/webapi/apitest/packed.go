package apitest

import (
	"bytes"
	"compress/gzip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/webapi"
)

// Packed returns the openapi.yaml of a package as JSON, and holds openapi.yaml.gz, which the program has, to it.
// With update it writes that file.
func Packed(t *testing.T, update bool) []byte {
	t.Helper()
	text, err := os.ReadFile("openapi.yaml")
	require.NoError(t, err)
	if update {
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		require.NoError(t, err)
		_, err = w.Write(text)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		require.NoError(t, os.WriteFile("openapi.yaml.gz", packed.Bytes(), 0o644)) //nolint:gosec // for everyone to read
	}
	packed, err := os.ReadFile("openapi.yaml.gz")
	require.NoError(t, err)
	got, err := webapi.Unpack(packed)
	require.NoError(t, err)
	require.True(t, bytes.Equal(text, got), "openapi.yaml has changed: go test -run Reference -update in its directory")
	doc, err := webapi.Document(packed)
	require.NoError(t, err)
	return doc
}
