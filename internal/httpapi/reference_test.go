package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/httpapi"
	"github.com/rowhook/rowhook/internal/webapi"
	"github.com/rowhook/rowhook/internal/webapi/apitest"
)

var update = flag.Bool("update", false, "rewrite the list in docs/api.md and openapi.yaml.gz")

// packedReference returns the document as JSON. The program has it compressed, as the file says.
func packedReference(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("openapi.yaml")
	require.NoError(t, err)
	want, err := webapi.Document(text)
	require.NoError(t, err)
	if *update {
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		require.NoError(t, err)
		_, err = w.Write(text)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		require.NoError(t, os.WriteFile("openapi.yaml.gz", packed.Bytes(), 0o644))
		return want
	}
	got, err := httpapi.Document()
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "openapi.yaml has changed: go test ./internal/httpapi -run Reference -update")
	return want
}

func TestReferenceListsTheOperations(t *testing.T) {
	t.Parallel()
	const file, begin = "../../docs/api.md", "-update -->\n"
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	prose, list, ok := strings.Cut(string(text), begin)
	require.True(t, ok)
	doc := apitest.NewDocument(t, packedReference(t))
	want := doc.Reference()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(prose+begin+want), 0o644))
		return
	}
	require.Equal(t, want, list, "rewrite it: go test ./internal/httpapi -run Reference -update")
	for _, value := range doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		require.Contains(t, prose, fmt.Sprintf("`%s`", value), "the table of problems has each code")
	}
}
