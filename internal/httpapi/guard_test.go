package httpapi_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/httpapi"
)

const (
	writeToken = "0123456789abcdef-write"
	readToken  = "0123456789abcdef-read"
)

func TestTokensSayWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(c *httpapi.Config) { c.WriteToken, c.ReadToken = writeToken, readToken })
	look := func(token string) string { return d.outcome(t, token, "GET", "/api/v1/status", nil) }
	steer := func(token string) string {
		return d.outcome(t, token, "POST", "/api/v1/pause", map[string]any{"all": true})
	}
	require.Equal(t, "200", look(writeToken))
	require.Equal(t, "200", look(readToken))
	require.Equal(t, "403 read_only", steer(readToken))
	for _, wrong := range []string{"", "x", writeToken + "x", writeToken[:len(writeToken)-1], strings.ToUpper(writeToken)} {
		require.Equal(t, "401 unauthorized", look(wrong), wrong)
		require.Equal(t, "401 unauthorized", steer(wrong), wrong)
		require.Equal(t, "401 unauthorized", d.outcome(t, wrong, "GET", "/metrics", nil))
	}
	require.Empty(t, d.ids(t, "select name from rowhook.trigger where paused"))
	require.Equal(t, "200", steer(writeToken))
	require.Equal(t, "200", d.outcome(t, "", "GET", "/healthz", nil))

	d.token = ""
	require.Equal(t, `Bearer realm="rowhook"`, d.ask(t, "GET", "/api/v1/status", nil).Header.Get("WWW-Authenticate"))
	require.Equal(t, "401 unauthorized", d.problem(t, "GET", "/api/v1/status", nil, "Authorization", "Basic "+writeToken))
	d.set(func(s *dispatcher.Stats) { s.Claiming = "the host db.example.com does not answer" })
	require.NotContains(t, d.ask(t, "GET", "/readyz", nil).text, "db.example.com", "details are for whoever may look")
	d.token = readToken
	require.Contains(t, d.ask(t, "GET", "/readyz", nil).text, "db.example.com")
}

func (d *desk) outcome(t *testing.T, token, method, path string, body any) string {
	t.Helper()
	d.token = token
	a := d.ask(t, method, path, body)
	if a.StatusCode/100 == 2 {
		return "200"
	}
	var p httpapi.Problem
	a.into(t, &p)
	return a.Status[:3] + " " + p.Code
}

func TestAReadTokenAloneLetsNobodyWrite(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(c *httpapi.Config) { c.ReadToken = readToken })
	require.Equal(t, "403 read_only", d.outcome(t, readToken, "POST", "/api/v1/pause", map[string]any{"all": true}))
	require.Equal(t, "401 unauthorized", d.outcome(t, "", "POST", "/api/v1/pause", map[string]any{"all": true}))
}

// A web page can make a browser on this host send requests to loopback. With DNS rebinding it can
// even read the responses.
func TestBrowsersAreRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, header := range [][]string{
		{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Origin", "http://localhost:1"}, {"Origin", "http://127.0.0.1"},
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "same-site", "Origin", d.url}, {"Sec-Fetch-Site", "new"},
	} {
		require.Equal(t, "403 cross_origin", d.problem(t, "GET", "/api/v1/status", nil, header...), header)
		require.Equal(t, "403 cross_origin", d.problem(t, "POST", "/api/v1/pause", map[string]any{"all": true}, header...), header)
		require.Equal(t, "403 cross_origin", d.problem(t, "OPTIONS", "/api/v1/pause", nil, header...), header)
	}
	for _, host := range []string{"evil.example", "evil.example:8787", "127.0.0.1.evil.example", "10.0.0.1"} {
		require.Equal(t, "403 wrong_host", d.problem(t, "GET", "/api/v1/status", nil, "Host", host), host)
		require.Equal(t, "403 wrong_host", d.problem(t, "GET", "/nothing", nil, "Host", host), host)
	}
	for _, host := range []string{"localhost", "localhost:1", "127.0.0.1:8787", "127.1.2.3", "[::1]:8787", "[::1]", "LOCALHOST."} {
		require.Equal(t, http.StatusOK, d.ask(t, "GET", "/api/v1/status", nil, "Host", host).StatusCode, host)
	}
	require.Equal(t, http.StatusOK, d.ask(t, "GET", "/api/v1/status", nil, "Sec-Fetch-Site", "none").StatusCode, "typed by a person")
	rebound := []string{"Host", "evil.example", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin"}
	require.Equal(t, "403 wrong_host", d.problem(t, "GET", "/api/v1/status", nil, rebound...), "DNS rebinding makes it one of the same origin")
	require.Empty(t, d.ids(t, "select name from rowhook.trigger where paused"))
}

// The dashboard is a page that this server sends.
func TestTheOwnPageMayAsk(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	host := strings.TrimPrefix(d.url, "http://")
	for _, header := range [][]string{
		{"Origin", d.url, "Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "same-origin"}, {"Origin", d.url},
		{"Origin", "https://" + host}, // a proxy has ended TLS
		{"Origin", "https://rowhook.example.com", "Sec-Fetch-Site", "same-origin"}, // a proxy has changed the Host
	} {
		require.Equal(t, http.StatusOK, d.ask(t, "GET", "/api/v1/status", nil, header...).StatusCode, header)
		require.Equal(t, http.StatusOK, d.ask(t, "POST", "/api/v1/resume", map[string]any{"all": true}, header...).StatusCode, header)
	}
}

func TestAddressesThatOthersCanReachDemandATokenThatIsOne(t *testing.T) {
	t.Parallel()
	good := []struct{ address, write, read string }{
		{"127.0.0.1:8787", "", ""}, {"localhost:0", "", ""}, {"[::1]:8787", "", ""}, {":8787", writeToken, ""}, {"0.0.0.0:8787", "", readToken},
		{"db.example.com:80", writeToken, readToken},
	}
	for _, c := range good {
		require.NoError(t, httpapi.CheckAddress(c.address, c.write, c.read, false), c.address)
	}
	require.NoError(t, httpapi.CheckAddress(":8787", "", "", true), "with a file of tokens")
	bad := []struct{ address, write, read, want string }{
		{":8787", "", "", "other hosts can reach"}, {"0.0.0.0:8787", "", "", "other hosts can reach"}, {"[::]:1", "", "", "other hosts can reach"},
		{"example.com:8787", "", "", "other hosts can reach"}, {"127.0.0.1", "", "", "HOST:PORT"}, {"127.0.0.1:8787", "short", "", "too short"},
		{":8787", writeToken, writeToken, "are equal"}, {":8787", writeToken + "\n", "", "line break"},
	}
	for _, c := range bad {
		err := httpapi.CheckAddress(c.address, c.write, c.read, false)
		require.ErrorContains(t, err, c.want, c.address)
		require.NotContains(t, err.Error(), writeToken)
	}
}

func TestABodyWithoutALengthIsBoundedToo(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	endless := struct{ io.Reader }{io.MultiReader(strings.NewReader(`{"triggers": ["`), strings.NewReader(strings.Repeat("x", 3<<20)))}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/api/v1/pause", endless)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
}

// Clients without a token must not be able to occupy all connections.
func TestABodyThatNeverComesHoldsNoConnection(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(c *httpapi.Config) { c.WriteToken = writeToken })
	for name, c := range map[string]struct{ head, want string }{
		"nobody wants it":      {"GET /healthz HTTP/1.1\r\nContent-Length: 1000", "200"},
		"chunked":              {"GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked", "200"},
		"without a token":      {"POST /api/v1/pause HTTP/1.1\r\nContent-Length: 1000\r\nContent-Type: application/json", "401"},
		"nowhere":              {"POST /nothing HTTP/1.1\r\nContent-Length: 1000", "404"},
		"by another method":    {"PUT /healthz HTTP/1.1\r\nContent-Length: 1000", "405"},
		"on behalf of a page":  {"POST /api/v1/pause HTTP/1.1\r\nContent-Length: 1000\r\nOrigin: https://evil.example", "403"},
		"to stream for a page": {"GET /api/v1/events/tail HTTP/1.1\r\nContent-Length: 1000\r\nOrigin: https://evil.example", "403"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(d.url, "http://"))
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
			_, err = conn.Write([]byte(c.head + "\r\nHost: localhost\r\n\r\n"))
			require.NoError(t, err)
			all, err := io.ReadAll(conn) // until the server closes it
			require.NoError(t, err)
			require.Contains(t, string(all), "HTTP/1.1 "+c.want+" ")
		})
	}
}
