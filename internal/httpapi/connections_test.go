package httpapi_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	address := strings.TrimPrefix(d.url, "http://")
	dial := func(ask bool) net.Conn {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		if ask {
			fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			resp.Body.Close()
		}
		return conn
	}
	for range 400 {
		dial(true) // and leave it open
	}
	for range 400 {
		dial(false)
	}
	require.Equal(t, http.StatusOK, d.ask(t, "GET", "/healthz", nil).StatusCode)
	require.Equal(t, http.StatusOK, d.ask(t, "GET", "/api/v1/triggers", nil).StatusCode)
}

func TestAnEventOfDeepJSONIsAnswered(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.Exec(t, "set max_stack_depth = '7MB'")
	id := d.bury(t, 1)[0]
	_, err := d.conn.Exec(t.Context(), "set max_stack_depth = '7MB'")
	require.NoError(t, err)
	_, err = d.conn.Exec(t.Context(), "update rowhook.dead_letter set new = (repeat('[', 12000) || repeat(']', 12000))::json")
	require.NoError(t, err)
	for _, path := range []string{"/api/v1/events/" + id, "/api/v1/events?with_payload=true"} {
		a := d.ask(t, "GET", path, nil)
		require.Equal(t, http.StatusOK, a.StatusCode)
		require.Contains(t, a.text, strings.Repeat("[", 12_000), path)
	}
}
