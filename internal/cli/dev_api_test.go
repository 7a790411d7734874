//go:build unix

package cli_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDevServesSQLItsReceiverAndItsConfigurationToItsToken(t *testing.T) {
	t.Parallel()
	file, ready := write(t, "rowhook.yaml", signedOrders), filepath.Join(t.TempDir(), "ready.json")
	require.NoError(t, os.Chmod(file, 0o640))
	p := start(t, postgresBin(), "dev", "-f", file, "--init", write(t, "schema.sql", orders), "--ready-file", ready, "--output", "json", "--log-level", "info")
	var about struct {
		URL          string
		DashboardURL string `json:"dashboard_url"`
		Token        string
	}
	require.NoError(t, json.Unmarshal([]byte(p.stdout.waitFor(t, `\{.*\}\n`)[0]), &about))
	require.Equal(t, about.URL+"/#token="+about.Token, about.DashboardURL)
	call := func(method, path string, body, into any) int {
		t.Helper()
		text, err := json.Marshal(body)
		require.NoError(t, err)
		var in bytes.Buffer
		if body != nil {
			in.Write(text)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, about.URL+path, &in)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+about.Token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		if into != nil {
			require.NoError(t, json.NewDecoder(resp.Body).Decode(into))
		}
		return resp.StatusCode
	}

	type sqlAnswer struct {
		Results []struct {
			Tag  string
			Rows [][]*string
		}
		Error *struct{ Code, Message string }
	}
	run := func(sql string) (out sqlAnswer) {
		require.Equal(t, http.StatusOK, call("POST", "/api/v1/dev/sql", map[string]any{"sql": sql}, &out))
		return out
	}
	require.Equal(t, "INSERT 0 1", run("insert into orders values (1, 1, 'a')").Results[0].Tag)
	require.Equal(t, "rowhook_dev", *run("select current_user").Results[0].Rows[0][0])
	require.Nil(t, run("create table mine (a int); insert into mine values (1)").Error)
	require.Equal(t, "off", *run("select current_setting('is_superuser')").Results[0].Rows[0][0])
	require.Equal(t, "42501", run("copy mine to program 'true'").Error.Code)
	require.Equal(t, "42501", run("set role postgres").Error.Code)
	const rise = "alter role rowhook_dev superuser"
	require.Nil(t, run("create function rise() returns bool language plpgsql as 'begin "+rise+"; return true; end'").Error)
	backfill := func(where string) int {
		return call("POST", "/api/v1/triggers/order_changed/backfill", map[string]any{"where": where, "restart": true}, nil)
	}
	require.Equal(t, http.StatusForbidden, backfill("public.rise()"))
	require.Equal(t, http.StatusForbidden, backfill("pg_catalog.pg_read_file('PG_VERSION') <> ''"))
	require.Equal(t, http.StatusOK, backfill("id > 1000"))
	require.Equal(t, "off", *run("select current_setting('is_superuser')").Results[0].Rows[0][0])

	var got struct {
		Deliveries []struct{ Trigger, Signature string }
	}
	require.Eventually(t, func() bool {
		require.Equal(t, http.StatusOK, call("GET", "/api/v1/dev/deliveries", nil, &got))
		return len(got.Deliveries) == 2
	}, patience, patience/1000)
	signatures := map[string]string{}
	for _, d := range got.Deliveries {
		signatures[d.Trigger] = d.Signature
	}
	require.Equal(t, map[string]string{"order_changed": "valid", "note_changed": "none"}, signatures)

	type configuration struct {
		Path, Text, ETag string
		Problems         []struct {
			Line, Column int
			Message      string
		}
		Plan *struct {
			Changes []struct{ Action, Name string }
		}
		Applied bool
	}
	var c configuration
	require.Equal(t, http.StatusOK, call("GET", "/api/v1/dev/config", nil, &c))
	require.Equal(t, []any{file, signedOrders}, []any{c.Path, c.Text})
	require.Empty(t, c.Problems)
	require.Empty(t, c.Plan.Changes, "it is applied")
	was := c.ETag

	c = configuration{}
	require.Equal(t, http.StatusOK, call("PUT", "/api/v1/dev/config", map[string]any{"text": strings.Replace(signedOrders, "insert: true", "inserts: true", 1)}, &c))
	require.Equal(t, 6, c.Problems[0].Line)
	require.Nil(t, c.Plan)
	c = configuration{}
	require.Equal(t, http.StatusOK, call("PUT", "/api/v1/dev/config", map[string]any{"text": strings.Replace(signedOrders, "public.orders", "public.nosuch", 1), "etag": was, "apply": true}, &c))
	require.Contains(t, c.Problems[0].Message, "public.nosuch")
	require.False(t, c.Applied)

	changed := strings.ReplaceAll(signedOrders, "note_changed", "memo_changed")
	c = configuration{}
	require.Equal(t, http.StatusOK, call("PUT", "/api/v1/dev/config", map[string]any{"text": changed, "etag": was}, &c))
	require.NotEmpty(t, c.Plan.Changes)
	require.False(t, c.Applied)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, signedOrders, string(text), "only checked")

	c = configuration{}
	require.Equal(t, http.StatusOK, call("PUT", "/api/v1/dev/config", map[string]any{"text": changed, "etag": was, "apply": true}, &c))
	require.True(t, c.Applied)
	text, err = os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, changed, string(text))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode())
	require.Equal(t, http.StatusConflict, call("PUT", "/api/v1/dev/config", map[string]any{"text": signedOrders, "etag": was, "apply": true}, nil))
	c = configuration{}
	require.Equal(t, http.StatusOK, call("GET", "/api/v1/dev/config", nil, &c))
	require.Empty(t, c.Plan.Changes)

	// A change of the file by hand is still taken up.
	require.NoError(t, os.WriteFile(file, []byte(signedOrders), 0o600))
	p.stderr.waitFor(t, "(?s)applied the changed configuration.*the configuration has changed: applying it.*applied the changed configuration")
}
