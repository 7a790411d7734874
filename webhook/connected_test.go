package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestAResultSaysWhetherThereWasAConnection(t *testing.T) {
	t.Parallel()
	silent := onAccept(t, func(_ int, conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) })
	breaks := onAccept(t, func(_ int, conn *net.TCPConn) {
		readRequest(conn)
		_ = conn.SetLinger(0)
	})
	answers := receiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	proxy := receiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	proxied := func(*http.Request) (*url.URL, error) { return url.Parse(proxy.URL) }
	for name, c := range map[string]struct {
		url       string
		config    ClientConfig
		kind      Kind
		connected bool
	}{
		"an answer":                         {answers.URL, ClientConfig{}, KindResponse, true},
		"no answer in time":                 {"http://" + silent, ClientConfig{}, KindTimeout, true},
		"a reset after the request":         {"http://" + breaks, ClientConfig{}, KindReset, true},
		"refused":                           {"http://" + closedPort, ClientConfig{}, KindRefused, false},
		"a handshake that takes too long":   {"https://" + silent, ClientConfig{}, KindTimeout, false},
		"a host that does not speak TLS":    {"https://" + answers.Listener.Addr().String(), ClientConfig{}, KindTLS, false},
		"a proxy that can't reach the host": {"https://example.invalid", ClientConfig{Proxy: proxied}, KindOther, false},
		"a proxy that answers for the host": {"http://example.invalid", ClientConfig{Proxy: proxied}, KindResponse, true},
		"a name that can't be resolved":     {"http://example.invalid", ClientConfig{}, KindDNS, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ep := endpoint(t, trigger.Webhook{URL: c.url})
			if c.kind == KindTimeout {
				ep = endpoint(t, trigger.Webhook{URL: c.url, Timeout: trigger.Duration(2 * time.Second)})
			}
			client := newClient(t, c.config)
			if c.config.Proxy != nil {
				client = NewClient(c.config)
				t.Cleanup(client.Close)
			}
			r := client.Send(context.Background(), ep, orderPlaced(), nil)
			require.Equal(t, c.kind, r.Kind, r.Err)
			require.Equal(t, c.connected, r.Connected, r.Err)
		})
	}
}

// closedPort is an address at which nobody listens. The system gives port 1 to no test that asks for
// a free port, as it may do with one that another test has closed.
const closedPort = "127.0.0.1:1"

// TestAKeptConnectionIsOneUntilItsHostIsGone may send before it knows that the kept connection is
// closed. Both ways end with a new connection.
func TestAKeptConnectionIsOneUntilItsHostIsGone(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		config := ClientConfig{}
		if secure { // by HTTP/2
			s.EnableHTTP2 = true
			s.StartTLS()
			roots := x509.NewCertPool()
			roots.AddCert(s.Certificate())
			config.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		c := newClient(t, config)
		for range 2 { // a new one and a kept one
			r := c.Send(context.Background(), plain(t, s.URL), orderPlaced(), nil)
			require.True(t, r.Delivered() && r.Connected, r.Err)
		}
		s.CloseClientConnections()
		s.Close()
		r := c.Send(context.Background(), plain(t, s.URL), orderPlaced(), nil)
		require.Equal(t, KindRefused, r.Kind, r.Err)
		require.False(t, r.Connected, "a kept connection is tried first, which is closed")
	}
}

// TestARequestIsRepeatedOnceWhereAKeptConnectionBreaks has a receiver that breaks the connection
// instead of answering one or two requests.
func TestARequestIsRepeatedOnceWhereAKeptConnectionBreaks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		breaks   func(request int64) bool
		requests int64
		kind     Kind
	}{
		"a kept one":           {func(n int64) bool { return n == 2 }, 3, KindResponse},
		"its replacement, too": {func(n int64) bool { return n >= 2 }, 3, KindReset},
		"a new one":            {func(n int64) bool { return n == 1 }, 1, KindReset},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if body, _ := io.ReadAll(r.Body); c.breaks(requests.Add(1)) {
					_ = r.Context().Value(connectionKey{}).(net.Conn).Close()
				} else {
					_, _ = w.Write(body)
				}
			}))
			s.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
				return context.WithValue(ctx, connectionKey{}, conn.(*tls.Conn).NetConn())
			}
			s.EnableHTTP2 = true
			quiet(s)
			s.StartTLS()
			t.Cleanup(s.Close)
			roots := x509.NewCertPool()
			roots.AddCert(s.Certificate())
			client := newClient(t, ClientConfig{TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
			var r Result
			for range 2 {
				r = client.Send(context.Background(), plain(t, s.URL), orderPlaced(), nil)
				if r.Kind != KindResponse {
					break
				}
			}
			require.Equal(t, c.kind, r.Kind, r.Err)
			require.Equal(t, c.requests, requests.Load())
			if r.Delivered() {
				require.JSONEq(t, string(AppendBody(nil, orderPlaced())), string(r.Body), "the body is sent anew")
			}
		})
	}
}

type connectionKey struct{}

func TestACanceledAttemptSaysItsCause(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(context.Background())
	s := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel(errors.New("by Ann"))
		<-r.Context().Done()
	})
	r := newClient(t, ClientConfig{}).Send(ctx, plain(t, s.URL), orderPlaced(), nil)
	require.Equal(t, KindCanceled, r.Kind)
	require.Equal(t, "canceled: by Ann", r.Err)
}

func TestEndpointsOfOneAddressHaveOneOrigin(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"https://api.example.com/a?b=c":       "https://api.example.com:443",
		"https://user:pw@API.example.com:443": "https://api.example.com:443",
		"http://api.example.com":              "http://api.example.com:80",
		"http://[::1]:8080/x":                 "http://[::1]:8080",
	} {
		require.Equal(t, want, endpoint(t, trigger.Webhook{URL: given}).Origin())
	}
	broken, err := NewEndpoint(trigger.Webhook{URL: "${MISSING}"}, func(string) (string, bool) { return "", false })
	require.Error(t, err)
	require.Empty(t, broken.Origin())
}
