package cli_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func requireJSONLines(t *testing.T, text string) (lines []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &fields), "%q", line)
		at, _ := fields["time"].(string)
		_, err := time.Parse(time.RFC3339Nano, at)
		require.NoError(t, err, line)
		require.Contains(t, fields, "level")
		require.Contains(t, fields, "msg")
		lines = append(lines, fields)
	}
	require.NotEmpty(t, lines)
	return lines
}

func TestMistakesAreJSONLinesWhereTheLogIs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  []string
		args []string
	}{
		{nil, []string{"run", "--log-format", "json", "--nosuch"}},
		{nil, []string{"--log-format=json", "nosuch"}},
		{nil, []string{"run", "--poll-interval", "x", "--log-format=json"}},
		{nil, []string{"run", "--log-format", "json", "extra"}},
		{[]string{"ROWHOOK_LOG_FORMAT=json"}, []string{"run", "--nosuch"}},
		{[]string{"ROWHOOK_LOG_FORMAT=json", "ROWHOOK_POLL_INTERVAL=x"}, []string{"run"}},
		{[]string{"ROWHOOK_LOG_FORMAT=json", "DATABASE_URL=nonsense"}, []string{"run"}},
		{[]string{"ROWHOOK_LOG_FORMAT=json", "ROWHOOK_POLL_INTERVALL=1s"}, []string{"nosuch", "--help"}},
	} {
		code, _, stderr := rowhook(t, c.env, c.args...)
		require.Equal(t, 2, code, "%v: %s", c.args, stderr)
		requireJSONLines(t, stderr)
	}
}

func TestADeadEndpointFillsNoLogAndAllOfItIsJSON(t *testing.T) {
	t.Parallel()
	db, _, env := installed(t, 0)
	dead := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(dead.Close)
	config, err := os.ReadFile(ordersConfig(t, dead.URL))
	require.NoError(t, err)
	code, _, stderr := rowhook(t, env, "apply", "-f", write(t, "rowhook.yaml", string(config)+"    breaker: off # it would hold most of the events\n"))
	require.Zero(t, code, stderr)
	p := start(t, append(env, "ROWHOOK_LOG_FORMAT=json", "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+closedPort(t), "OTEL_TRACES_SAMPLER=nonsense"), "run")
	p.stderr.waitFor(t, "ready")
	db.Exec(t, "insert into orders (status) select 'x' from generate_series(1, 1000)")
	require.Eventually(t, func() bool { return count(t, db, "rowhook.invocation_log") >= 1000 }, patience, 20*time.Millisecond)
	p.signal(t, syscall.SIGTERM)
	require.Zero(t, p.exit(t))
	said := 0
	lines := requireJSONLines(t, p.stderr.String())
	for _, l := range lines {
		if l["trigger"] != nil && l["status"] != nil {
			said++
			require.EqualValues(t, http.StatusServiceUnavailable, l["status"])
		}
	}
	require.GreaterOrEqual(t, said, 1)
	require.LessOrEqual(t, said, 3, "%v", p.stderr)
}
