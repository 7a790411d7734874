package cli_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
)

// served is the address that a process serves on.
func served(t *testing.T, p *process) string {
	t.Helper()
	return p.stderr.waitFor(t, `serving HTTP.* address=(\S+)`)[1]
}

// ask makes a request with a token, and returns the status and the body.
func ask(t *testing.T, method, address, path, token, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader(body))
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

func TestRunServesHealthMetricsAndOperations(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	s, receiverURL := receiver(t)
	const token, readToken = "0123456789abcdef-write", "0123456789abcdef-read"
	env := append(database(db.URL()), "ROWHOOK_HTTP_TOKEN="+token, "ROWHOOK_HTTP_READ_TOKEN="+readToken)
	p := start(t, env, "run", "-f", ordersConfig(t, receiverURL), "--http", "0.0.0.0:0")
	_, port, err := net.SplitHostPort(served(t, p))
	require.NoError(t, err)
	address := "127.0.0.1:" + port
	p.stderr.waitFor(t, "ready")
	db.Exec(t, "insert into orders values (1, 1, 'a')")
	arrived(t, s, 1)

	code, _, stderr := rowhook(t, env, "healthcheck", "--http", "0.0.0.0:"+port)
	require.Zero(t, code, stderr)
	require.Eventually(t, func() bool { // the receiver has it before the answer is counted
		status, text := ask(t, "GET", address, "/metrics", readToken, "")
		return status == http.StatusOK && strings.Contains(text, `rowhook_attempts_total{outcome="delivered",trigger="order_changed"} 1`)
	}, patience, tick)
	status, text := ask(t, "GET", address, "/api/v1/status", readToken, "")
	require.Equal(t, http.StatusOK, status, text)
	require.True(t, json.Valid([]byte(text)))
	status, _ = ask(t, "POST", address, "/api/v1/pause", readToken, `{"all": true}`)
	require.Equal(t, http.StatusForbidden, status)
	status, text = ask(t, "POST", address, "/api/v1/pause", token, `{"all": true}`)
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `{"changed": ["order_changed"]}`, text)
	p.stderr.waitFor(t, `HTTP: pause`)
	status, _ = ask(t, "GET", address, "/api/v1/status", "", "")
	require.Equal(t, http.StatusUnauthorized, status)

	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
	code, _, stderr = rowhook(t, env, "healthcheck", "--http", address)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "no dispatcher", "nothing listens there, so the database is asked")
	require.NotContains(t, p.stderr.String(), token)
}

// Readiness and metrics are about deliveries, which go on.
func TestOperationsThatWaitDoNotMakeAnInstanceUnready(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	_, receiverURL := receiver(t)
	p := start(t, database(db.URL()), "run", "-f", ordersConfig(t, receiverURL), "--http", "127.0.0.1:0")
	address := served(t, p)
	p.stderr.waitFor(t, "INF ready ")         // not the name of this test, which stands in paths
	holder, watcher := db.Conn(t), db.Conn(t) // a transaction goes on seeing the activity that it saw first
	_, err := holder.Exec(t.Context(), "begin; lock table orders in access exclusive mode")
	require.NoError(t, err)
	for range 4 {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+address+"/api/v1/triggers/order_changed/backfill", strings.NewReader("{}"))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Prefer", "wait=0")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusAccepted, resp.StatusCode)
	}
	require.Eventually(t, func() bool {
		var waiting int
		err := watcher.QueryRow(t.Context(), "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").Scan(&waiting)
		return err == nil && waiting == 4
	}, patience, 10*time.Millisecond)
	status, text := ask(t, "GET", address, "/readyz", "", "")
	require.Equal(t, http.StatusOK, status, text)
	_, text = ask(t, "GET", address, "/metrics", "", "")
	require.Contains(t, text, "rowhook_database_up 1")
	_, err = holder.Exec(t.Context(), "rollback")
	require.NoError(t, err)
}

func TestATakenAddressIsAnErrorOnlyWhereItWasChosen(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	taken := l.Addr().String()
	code, _, stderr := rowhook(t, database(db.URL()), "run", "--http", taken)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "another program uses "+taken+", perhaps another instance; set another address with --http, or --http off")
	code, _, stderr = rowhook(t, append(database(db.URL()), "ROWHOOK_HTTP="+taken), "run")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "another program uses "+taken)

	if d, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:8787"); err == nil { // else somebody else has it
		t.Cleanup(func() { _ = d.Close() })
	}
	p := start(t, database(db.URL()), "run")
	p.stderr.waitFor(t, `not serving HTTP: another program uses the default address`)
	p.stderr.waitFor(t, "ready")
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
}

func TestServingIsRefusedWhereItWouldBeUnsafe(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for want, c := range map[string]struct {
		env  string
		args []string
	}{
		"other hosts can reach :0":    {"X=", []string{"--http", ":0"}},
		"write HOST:PORT":             {"X=", []string{"--http", "8787"}},
		"ROWHOOK_HTTP_TOKEN is too":   {"ROWHOOK_HTTP_TOKEN=secret", []string{"--http", "127.0.0.1:0"}},
		"OTEL_EXPORTER_OTLP_PROTOCOL": {"OTEL_EXPORTER_OTLP_PROTOCOL=grpc", []string{"--http", "off"}},
		"invalid connection string":   {"X=", []string{"--http", "127.0.0.1:0", "--http-database-url", "postgres://%"}},
	} {
		code, _, stderr := rowhook(t, append(database(db.URL()), "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", c.env), append([]string{"run"}, c.args...)...)
		require.Equal(t, 2, code, stderr)
		require.Contains(t, stderr, want)
		require.NotContains(t, stderr, "secret")
	}
}

func TestARoleThatOnlyDispatchesIsWatchedAndSteersByAnother(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	_, ownerURL, _ := ownerOfOrders(t, db)
	role, roleURL := db.Role(t)
	_, receiverURL := receiver(t)
	code, _, stderr := rowhook(t, database(ownerURL), "apply", "-f", ordersConfig(t, receiverURL), "--grant-to", role)
	require.Zero(t, code, stderr)

	p := start(t, database(roleURL), "run", "--http", "127.0.0.1:0")
	address := served(t, p)
	p.stderr.waitFor(t, "ready")
	for _, path := range []string{"/readyz", "/api/v1/status", "/api/v1/triggers", "/api/v1/drain"} {
		status, text := ask(t, "GET", address, path, "", "")
		require.Equal(t, http.StatusOK, status, text)
	}
	_, text := ask(t, "GET", address, "/metrics", "", "")
	require.Contains(t, text, "rowhook_database_up 1")
	status, text := ask(t, "POST", address, "/api/v1/pause", "", `{"all": true}`)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, text, `"code":"no_rights"`)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))

	p = start(t, database(roleURL), "run", "--http", "127.0.0.1:0", "--http-database-url", ownerURL)
	address = served(t, p)
	p.stderr.waitFor(t, "ready")
	status, text = ask(t, "POST", address, "/api/v1/pause", "", `{"all": true}`)
	require.Equal(t, http.StatusOK, status, text)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
	db.Exec(t, "alter role "+role+" nologin")
}

func TestRunSendsTracesWhereTheEnvironmentSaysSo(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, orders)
	spans, parents := make(chan string, 9), make(chan string, 9)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { spans <- r.URL.Path }))
	t.Cleanup(collector.Close)
	endpoint := newServer(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { parents <- r.Header.Get("Traceparent") }))
	p := start(t, append(database(db.URL()), "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL), "run", "-f", ordersConfig(t, endpoint), "--http", "off")
	p.stderr.waitFor(t, "ready")
	db.Exec(t, `begin; set local rowhook.trace_context = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'; insert into orders values (1, 1, 'a'); commit`)
	require.Contains(t, <-parents, "00-4bf92f3577b34da6a3ce929d0e0e4736-")
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
	require.Equal(t, "/v1/traces", <-spans, "what was not sent yet is sent at the end")
}
