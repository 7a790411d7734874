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
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
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
		"refused":                           {gone.URL, ClientConfig{}, KindRefused, false},
		"a handshake that takes too long":   {"https://" + silent, ClientConfig{}, KindTimeout, false},
		"a host that does not speak TLS":    {"https://" + answers.Listener.Addr().String(), ClientConfig{}, KindTLS, false},
		"a proxy that can't reach the host": {"https://example.invalid", ClientConfig{Proxy: proxied}, KindOther, false},
		"a proxy that answers for the host": {"http://example.invalid", ClientConfig{Proxy: proxied}, KindResponse, true},
		"a name that can't be resolved":     {"http://example.invalid", ClientConfig{}, KindDNS, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ep := endpoint(t, trigger.Webhook{URL: c.url, Timeout: trigger.Duration(500 * time.Millisecond)})
			if c.kind == KindDNS {
				ep = endpoint(t, trigger.Webhook{URL: c.url})
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
		require.False(t, r.Connected, "net/http tries a kept connection first, which is closed")
	}
}

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
