package cli_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

// TestImportSequinWritesAFileThatApplies applies what was imported, so that Postgres and the templates accept it.
func TestImportSequinWritesAFileThatApplies(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	out := filepath.Join(t.TempDir(), "rowhook.yaml")
	from := write(t, "sequin.yaml", `
http_endpoints: [{name: shop, url: "https://shop.example/", encrypted_headers: {Authorization: Bearer t0psecret}}]
sinks:
  - name: orders
    table: public.orders
    filters: [{column_name: amount, operator: ">", comparison_value: 5}, {column_name: note, operator: in, comparison_value: [a, b]}]
    destination: {type: webhook, http_endpoint: shop, http_endpoint_path: hook}
  - {name: queue, table: public.orders, destination: {type: sqs}}
`)
	code, stdout, stderr := rowhook(t, nil, "import", "sequin", from, "--out", out)
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "Imported 3 triggers from Sequin's configuration (")
	require.Contains(t, stderr, "queue: ")
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	require.NotContains(t, string(text)+stdout+stderr, "t0psecret")
	code, _, stderr = rowhook(t, database(db.URL()), "apply", "-f", out)
	require.Zero(t, code, stderr)

	code, _, _ = rowhook(t, nil, "import", "sequin", from, "--strict", "--json")
	require.Equal(t, 1, code, "a sink is not imported")
	code, _, stderr = rowhook(t, nil, "import", "sequin", write(t, "x.yaml", "a: 1"))
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "sequin config export")
	code, _, _ = rowhook(t, nil, "import", "sequin", "no-such-file.yaml")
	require.Equal(t, 2, code)
}
