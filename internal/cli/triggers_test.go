package cli_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestTriggersAreListedAndOneIsShown(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, orders)
	env := []string{"DATABASE_URL=" + db.URL()}
	code, stdout, stderr := rowhook(t, env, "triggers")
	require.Zero(t, code, stderr)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "rowhook apply")
	code, stdout, _ = rowhook(t, env, "triggers", "--json")
	require.Zero(t, code)
	require.JSONEq(t, `{"triggers": []}`, stdout)
	code, _, stderr = rowhook(t, env, "apply", "-f", manualConfig(t, "http://user:hidden@127.0.0.1:1"))
	require.Zero(t, code, stderr)
	code, stdout, _ = rowhook(t, env, "triggers")
	require.Zero(t, code)
	require.Regexp(t, `(?m)^order_changed +active +public\.orders .*http://<redacted>@127\.0\.0\.1:1`, stdout)
	code, stdout, _ = rowhook(t, env, "triggers", "order_changed")
	require.Zero(t, code)
	require.Regexp(t, `(?m)^state +active$`, stdout)
	require.NotContains(t, stdout, "hidden")
	code, stdout, _ = rowhook(t, env, "triggers", "order_changed", "--json")
	require.Zero(t, code)
	require.Contains(t, stdout, `"name": "order_changed"`)
	code, _, stderr = rowhook(t, env, "triggers", "order_change")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, `did you mean order_changed?`)
	code, _, _ = rowhook(t, env, "triggers", "a", "b")
	require.Equal(t, 2, code)
}

func TestATriggersRequestAndPayloadAreShown(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(t, orders)
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`triggers: [{name: a, table: orders, on: {update: true, delete: true, truncate: true}, webhook: {url: "http://127.0.0.1:1", method: PUT, body: {a: $id}, compress: gzip, oauth2: {token_url: "http://127.0.0.1:1/t", client_id: a, client_secret: "${B}"}},
  payload: {delete: {columns: [id]}, old: changed, changed: true, numbers: text}}]`), 0o600))
	env := []string{"DATABASE_URL=" + db.URL()}
	code, _, stderr := rowhook(t, env, "apply", "-f", file)
	require.Zero(t, code, stderr)
	code, stdout, _ := rowhook(t, env, "triggers", "a")
	require.Zero(t, code)
	require.Regexp(t, `(?m)^on +update, delete, truncate$`, stdout)
	require.Regexp(t, `(?m)^payload +delete \(id\), old changed, names of changed columns, numbers text$`, stdout)
	for name, value := range map[string]string{"method": "PUT", "format": "template", "compress": "gzip", "oauth2": "yes"} {
		require.Regexp(t, `(?m)^`+name+` +`+value+`$`, stdout)
	}
	code, stdout, _ = rowhook(t, env, "triggers", "a", "--json")
	require.Zero(t, code)
	require.Contains(t, stdout, `"numbers": "text"`)
	require.Contains(t, stdout, `"format": "template"`)
}
