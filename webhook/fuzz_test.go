package webhook

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// FuzzResponse lets a receiver answer with any bytes. The stored texts must fit into Postgres and
// hold no secret.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 503 \x00\xff\r\nRetry-After: 1\r\nX-\xe9: caf\xe9\r\n\r\n\x00\xff",
		"HTTP/1.0 302 Found\r\nLocation: http://169.254.169.254/\r\nSet-Cookie: a=verysecret\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
		"HTTP/1.1 500 verysecret\r\nX-Echo: verysecret\r\n\r\nvery\nverysecret", "SSH-2.0-x\r\n", "", "\r\n\r\n", "HTTP/2.0 200\r\n\r\n", "HTTP/1.1 999 x\r\n\r\n", "HTTP/1.1 -1 x\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		address := onAccept(t, func(_ int, conn *net.TCPConn) {
			readRequest(conn)
			_, _ = conn.Write(raw)
		})
		const keep = 100
		ep := endpoint(t, trigger.Webhook{URL: "http://" + address, Timeout: trigger.Duration(2 * time.Second), Headers: map[string]string{"X-Auth": "${T}"}}, "T", "verysecret")
		r := newClient(t, ClientConfig{KeepBody: keep}).Send(context.Background(), ep, orderPlaced(), nil)
		require.LessOrEqual(t, len(r.Body), 3*keep)
		for _, text := range []string{string(r.Header), string(r.Body), r.Err} {
			require.True(t, utf8.ValidString(text))
			require.NotContains(t, text, "\x00")
			require.NotContains(t, text, "verysecret")
		}
		require.NotContains(t, r.Err, "\n")
		if r.Header != nil {
			require.True(t, json.Valid(r.Header), "%s", r.Header)
		}
		require.True(t, r.Delivered() || r.Err != "", "what is not delivered says why")
		require.GreaterOrEqual(t, r.RetryAfter, time.Duration(0))
	})
}

// FuzzEndpoint prepares requests to any URL with any header. The URL is rejected, or there is one
// request to a host that is written in it.
func FuzzEndpoint(f *testing.F) {
	for _, seed := range [][3]string{
		{"http://h/x", "X-A", "b"}, {"https://u:p@[::1]:8443/a?b=c#d", "Host", "other.example"}, {"http://h\r\nX: y/", "X", "y"}, {"http://2852039166/", "X", "a\r\nB: c"},
		{"http://h/%0d%0aX:%20y", "X\r\nY", "z"}, {"//h", "", ""}, {"http://h@evil/", "Content-Length", "0"}, {"http://１２７.1/", "Transfer-Encoding", "chunked"}, {"http:h", "X", "\x00"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, url, name, value string) {
		ep, err := NewEndpoint(trigger.Webhook{URL: "${U}", Headers: map[string]string{name: "${V}"}}, env("U", url, "V", value))
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		var out strings.Builder
		req := ep.request.Clone(context.Background())
		req.Header = ep.headerFor("a").Clone()
		if req.Write(&out) != nil {
			return // rejected by net/http
		}
		head := out.String()
		require.True(t, strings.HasPrefix(head, http.MethodPost+" "))
		require.Equal(t, 1, strings.Count(head, "\r\n\r\n"), "%q", head)
		require.LessOrEqual(t, strings.Count(head, "\r\n"), 7+1, "%q", head)
		for line := range strings.SplitSeq(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n") {
			require.False(t, strings.ContainsAny(line, "\r\n\x00"), "%q", head)
		}
	})
}
