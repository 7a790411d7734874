package httpapi_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/webapi/apitest"
)

var update = flag.Bool("update", false, "rewrite the list in docs/api.md and openapi.yaml.gz")

func TestReferenceListsTheOperations(t *testing.T) {
	t.Parallel()
	const file, begin = "../../docs/api.md", "-update -->\n"
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	prose, list, ok := strings.Cut(string(text), begin)
	require.True(t, ok)
	doc := apitest.NewDocument(t, apitest.Packed(t, *update))
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
