package cli_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

func TestTestSendsOneEventAndShowsTheAnswer(t *testing.T) {
	t.Parallel()
	var status, requests atomic.Int32
	status.Store(http.StatusOK)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("X-Request-Id", "r7")
		w.WriteHeader(int(status.Load()))
		_, _ = w.Write([]byte("thanks \x1b[31m"))
	}))
	t.Cleanup(server.Close)
	db := pgtest.New(t)
	db.Exec(t, orders)
	env := []string{"DATABASE_URL=" + db.URL()}
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
triggers:
  - name: order_placed
    table: public.orders
    on: {update: true, insert: true}
    webhook: {url: "${HOOKS}/orders"}
`), 0o600))
	code, _, stderr := rowhook(t, env, "apply", "-f", file)
	require.Zero(t, code, stderr)

	code, stdout, stderr := rowhook(t, env, "test", "order_placed")
	require.Equal(t, 1, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "HOOKS is not set")
	require.Contains(t, stderr, "environment and the files of the dispatcher")

	env = append(env, "HOOKS="+server.URL)
	code, stdout, stderr = rowhook(t, env, "test", "order_placed", "--dry-run")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "POST "+server.URL+"/orders\n")
	require.Contains(t, stdout, "  Rowhook-Test: 1\n")
	require.Contains(t, stdout, `"test":true}`)
	require.Contains(t, stdout, "nothing was sent")
	require.Zero(t, requests.Load())

	db.Exec(t, "set session_replication_role = replica; insert into orders (id) values (42); set session_replication_role = origin")
	code, stdout, stderr = rowhook(t, env, "test", "order_placed", "--op", "insert", "--print")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, `"new":{"id":42`)
	require.Contains(t, stdout, "with the data of a row of public.orders: nothing was sent")
	db.Exec(t, "delete from orders")
	require.Zero(t, requests.Load())

	code, stdout, stderr = rowhook(t, env, "test", "order_placed")
	require.Zero(t, code, stderr)
	require.Regexp(t, `(?m)^200 OK in \S+$`, stdout)
	require.Contains(t, stdout, "  X-Request-Id: r7\n")
	require.Contains(t, stdout, `  thanks \x1b[31m`)
	require.EqualValues(t, 1, requests.Load())

	status.Store(http.StatusServiceUnavailable)
	code, stdout, stderr = rowhook(t, env, "test", "order_placed", "--op", "update", "--json")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "the test was not delivered: answered 503 Service Unavailable: look at the receiver's log")
	var result struct {
		Op        string
		Delivered bool
		Status    int
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &result))
	require.Equal(t, "UPDATE", result.Op)
	require.False(t, result.Delivered)
	require.Equal(t, 503, result.Status)

	for _, wrong := range [][]string{
		{"order_placed", "--op", "truncate"}, {"order_placed", "--op", "delete"}, {"order_placed", "--timeout", "0s"}, {"order_placed", "--timeout", "-1s"},
		{"order_placed", "--payload", "{"}, {"order_placed", "--payload", "@/nowhere"}, {}, {"a", "b"},
	} {
		code, _, stderr = rowhook(t, env, append([]string{"test"}, wrong...)...)
		require.Equal(t, 2, code, "%v: %s", wrong, stderr)
	}
	code, _, stderr = rowhook(t, append(env, "ROWHOOK_DENY_ADDRESSES=loopback"), "test", "order_placed")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--allow-addresses")
	require.EqualValues(t, 2, requests.Load())
}

func TestTestTriesTheAlertsThatWereApplied(t *testing.T) {
	t.Parallel()
	var bodies sync.Map
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies.Store(r.Method+" "+r.URL.Path, string(body))
		if r.URL.Path == "/wrong" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	db := pgtest.New(t)
	env := []string{"DATABASE_URL=" + db.URL(), "HOOKS=" + server.URL}
	file := filepath.Join(t.TempDir(), "rowhook.yaml")
	apply := func(alerts string) {
		require.NoError(t, os.WriteFile(file, []byte("triggers: []\n"+alerts), 0o600))
		code, _, stderr := rowhook(t, env, "apply", "-f", file)
		require.Zero(t, code, stderr)
	}
	apply("")
	code, _, stderr := rowhook(t, env, "test", "--alerts")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "there are no alerts in the configuration that was applied")

	apply("alerts: [{url: '${HOOKS}/json'}, {url: '${HOOKS}/slack', format: slack}, {heartbeat: '${HOOKS}/beat'}]\n")
	code, stdout, stderr := rowhook(t, env, "test", "--alerts")
	require.Zero(t, code, stderr)
	require.Regexp(t, `(?m)^alerts\[0\] +alert +`+server.URL+` +200 OK in \S+$`, stdout)
	require.Regexp(t, `(?m)^alerts\[2\] +heartbeat +`, stdout)
	json, _ := bodies.Load("POST /json")
	require.Contains(t, json, `"test":true`)
	slack, _ := bodies.Load("POST /slack")
	require.Contains(t, slack, `{"text":"This is a test of Rowhook's alerts. *failing*: test`)
	_, called := bodies.Load("GET /beat")
	require.True(t, called)

	apply("alerts: [{url: '${HOOKS}/wrong'}, {url: '${NOWHERE}'}]\n")
	code, stdout, stderr = rowhook(t, env, "test", "--alerts")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "2 of 2 entries of alerts could not be reached")
	require.Contains(t, stdout, "answered 404 Not Found")
	require.Contains(t, stdout, "NOWHERE is not set")
	for _, wrong := range [][]string{{"--alerts", "a"}, {"--alerts", "--op", "insert"}} {
		code, _, _ := rowhook(t, env, append([]string{"test"}, wrong...)...)
		require.Equal(t, 2, code, wrong)
	}
}
