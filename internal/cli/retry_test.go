//go:build unix

package cli_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestASuiteReachesADeadLetterWithoutWaitingForTheInterval(t *testing.T) {
	t.Parallel()
	g := host(t, nil, "-f", write(t, "rowhook.yaml", strings.ReplaceAll(signedOrders, "100ms", "1h")), "--init", write(t, "schema.sql", orders))
	ask := func(method, url, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return string(text)
	}
	ask(http.MethodPut, g.env["ROWHOOK_SINK_URL"]+"/behaviour", `{"statuses": [503]}`)
	env := database(g.env["DATABASE_URL"])
	code, stdout, _ := rowhook(t, env, "retry", "order_changed")
	require.Zero(t, code)
	require.Equal(t, "Nothing to do: no event of order_changed waits for a retry.\n", stdout)
	code, _, stderr := rowhook(t, env, "retry", "order_changed", "--wait", "20ms")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "after 20ms no event of order_changed waits for a retry")

	execOn(t, g.env["DATABASE_URL"], "insert into orders values (7, 1.10, 'a')")
	code, stdout, stderr = rowhook(t, env, "retry", "order_changed", "--wait", patience.String())
	require.Zero(t, code, stderr)
	require.Equal(t, "1 retry of order_changed, due now.\n", stdout)
	require.Contains(t, ask(http.MethodPost, g.env["ROWHOOK_URL"]+"/api/v1/triggers/order_changed/retry?wait=30", ""), `"events":1`)
	require.Eventually(t, func() bool {
		return strings.Contains(ask(http.MethodGet, g.env["ROWHOOK_URL"]+"/api/v1/events/count?state=dead&trigger=order_changed", ""), `"events":1`)
	}, patience, patience/1000)
	require.Zero(t, g.end(t, "0"))
}
