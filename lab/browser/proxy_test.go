package browser_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// behindProxy puts a proxy before a house: the page is below /x/y/, and the program hears of another
// host. wrap changes its transport; nil: as it is.
func (h *house) behindProxy(t *testing.T, wrap func(http.RoundTripper) http.RoundTripper) {
	t.Helper()
	target, err := url.Parse(h.running.url)
	require.NoError(t, err)
	transport := http.DefaultTransport
	if wrap != nil {
		transport = wrap(transport)
	}
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Path, r.Out.URL.RawPath = strings.TrimPrefix(r.Out.URL.Path, "/x/y"), ""
			r.SetURL(target) // it has the target's host
			r.SetXForwarded()
		},
		FlushInterval: -1, Transport: transport,
	})
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
	})
	h.front = front.URL + "/x/y"
}

func TestThePageWorksBelowAPathOfAProxy(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	h.behindProxy(t, nil)
	tb := newPerson(t).SignedIn(t, h, adminToken, "")
	tb.Sees("main", "public.orders")
	// Requests that change something are told to be the page's own, though the Host is another.
	tb.Clicks("main", "Pause orders")
	tb.Types("dialog", "Reason", "by way of a proxy")
	tb.Clicks("dialog", "Pause")
	tb.Sees("main", "“by way of a proxy”")
	h.Command(t, "resume", "orders")
	tb.Sees("main", "delivers")
	for hash, shows := range map[string]string{"#/events": "There are no events yet", "#/health": "The database answers", "#/dead": "There are no dead letters"} {
		tb.Goes(hash)
		tb.Sees("main", shows)
	}
	tb.Goes("#/events")
	tb.Sees("main", "live")
	h.Exec(t, "insert into orders (customer) values ('ann')")
	tb.wait("the event appears by itself", `document.querySelectorAll("tr[data-id]").length === 1`)
	for _, asked := range tb.requests() {
		require.True(t, strings.HasPrefix(asked, h.front+"/"), "%s is not below the proxy's path", asked)
	}
}

// buffering is a transport that hands on no response before it has ended, as some proxies do.
type buffering struct{ http.RoundTripper }

func (b buffering) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	all, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(all))
	return response, err
}

func TestThePageAsksWhereStreamsDoNotGetThrough(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "orders")
	h.behindProxy(t, func(next http.RoundTripper) http.RoundTripper { return buffering{next} })
	p := newPerson(t)
	tb, list := p.SignedIn(t, h, adminToken, ""), p.SignedIn(t, h, adminToken, "#/events")
	tb.Sees("main", "public.orders")
	list.Sees("main", "looked at every 3 s")
	h.Exec(t, "insert into orders (customer) values ('ann')")
	list.wait("the event appears by itself", `document.querySelectorAll("tr[data-id]").length === 1`)
	h.Command(t, "pause", "orders", "--reason", "seen without a stream")
	tb.Sees("main", "seen without a stream")
}
