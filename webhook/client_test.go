package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/rowhook/rowhook/trigger"
)

// receiver starts an HTTP server for the test.
func receiver(t testing.TB, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// echo answers with the request's body. It reads the body to its end before the first byte of the
// response, as HTTP/1 servers must.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, _ = w.Write(body)
}

func quiet(s *httptest.Server) { s.Config.ErrorLog = log.New(io.Discard, "", 0) }

func newClient(t testing.TB, config ClientConfig) *Client {
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	c := NewClient(config)
	t.Cleanup(c.Close)
	return c
}

func endpoint(t testing.TB, w trigger.Webhook, pairs ...string) *Endpoint {
	ep, err := NewEndpoint(w, env(pairs...))
	require.NoError(t, err)
	return ep
}

func plain(t testing.TB, url string) *Endpoint {
	return endpoint(t, trigger.Webhook{URL: url, Timeout: trigger.Duration(time.Minute)})
}

// onAccept listens on a loopback port. It reads the head and the body of each request, and passes
// the connection to f.
func onAccept(t testing.TB, f func(n int, conn *net.TCPConn)) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				f(n, conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

func readRequest(conn net.Conn) {
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err == nil {
		_, _ = io.Copy(io.Discard, req.Body)
	}
}

func TestSendPostsTheBodyAndKeepsWhatCameBack(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	s := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header()["Date"] = nil
		w.Header().Add("X-Two", "a")
		w.Header().Add("X-Two", `b"`)
		w.Header().Set("Set-Cookie", "session=1")
		w.WriteHeader(201)
		_, _ = io.WriteString(w, "created")
	})
	c := newClient(t, ClientConfig{Version: "1.2.3"})
	r := c.Send(context.Background(), plain(t, s.URL+"/hook?a=b#fragment"), orderPlaced(), nil)

	require.True(t, r.Delivered())
	require.Equal(t, 201, r.Status)
	require.Empty(t, r.Err)
	require.JSONEq(t, `{"Content-Length":"7","Content-Type":"text/plain; charset=utf-8","Set-Cookie":"<redacted>","X-Two":["a","b\""]}`, string(r.Header))
	require.Equal(t, "created", string(r.Body))
	require.Positive(t, r.Duration)
	require.WithinDuration(t, time.Now(), r.StartedAt, time.Minute)

	require.Equal(t, string(AppendBody(nil, orderPlaced())), string(body))
	require.Equal(t, "POST", got.Method)
	require.Equal(t, "/hook?a=b", got.RequestURI)
	require.Equal(t, int64(len(body)), got.ContentLength)
	require.Equal(t, http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {"Rowhook/1.2.3"}, "Content-Length": {strconv.Itoa(len(body))},
	}, withLength(got))
}

func withLength(r *http.Request) http.Header {
	h := r.Header.Clone()
	h.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	return h
}

func TestConfiguredHeadersOverrideTheDefaultOnes(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	s := receiver(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r })
	c := newClient(t, ClientConfig{})
	ep := endpoint(t, trigger.Webhook{
		URL: strings.Replace(s.URL, "http://", "http://user:${PW}@", 1),
		Headers: map[string]string{
			"content-type": "application/cloudevents+json", "user-agent": "Mine", "Host": "other.example", "X-Token": "Bearer ${T}", "Idempotency-Key": "k",
		},
	}, "PW", "p%40ss", "T", "tok")
	require.True(t, new(c.Send(context.Background(), ep, orderPlaced(), nil)).Delivered())
	r := <-seen
	require.Equal(t, "application/cloudevents+json", r.Header.Get("Content-Type"))
	require.Equal(t, "Mine", r.Header.Get("User-Agent"))
	require.Equal(t, "other.example", r.Host)
	require.Equal(t, "Bearer tok", r.Header.Get("X-Token"))
	require.Equal(t, "k", r.Header.Get("Idempotency-Key"))
	user, password, _ := r.BasicAuth()
	require.Equal(t, "user:p@ss", user+":"+password)
}

func TestSignedRequestVerifies(t *testing.T) {
	t.Parallel()
	verified := make(chan error, 1)
	s := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if id := r.Header.Get("webhook-id"); id != "0199abcd-ef01-7abc-8def-0123456789ab" {
			verified <- errors.New("webhook-id is " + id)
			return
		}
		verified <- Verify(vectorSecret, r.Header, body, time.Now())
	})
	c := newClient(t, ClientConfig{})
	ep := endpoint(t, trigger.Webhook{URL: s.URL, Secret: "old ${KEY}"}, "KEY", vectorSecret)
	for range 2 { // the second time with hashes from the pool
		require.True(t, new(c.Send(context.Background(), ep, orderPlaced(), nil)).Delivered())
		require.NoError(t, <-verified)
	}
}

func TestAGivenBodyIsSentAsItIs(t *testing.T) {
	t.Parallel()
	s := receiver(t, echo)
	r := newClient(t, ClientConfig{}).Send(context.Background(), plain(t, s.URL), orderPlaced(), []byte("as is"))
	require.Equal(t, "as is", string(r.Body))
}

func TestEachRealFailureHasItsKindAndItsMessage(t *testing.T) {
	t.Parallel()
	short := trigger.Duration(100 * time.Millisecond)
	unresolved := resolver(t, func(dnsmessage.Question) (dnsmessage.RCode, netip.Addr) {
		return dnsmessage.RCodeNameError, netip.Addr{}
	})
	failing := resolver(t, func(dnsmessage.Question) (dnsmessage.RCode, netip.Addr) {
		return dnsmessage.RCodeServerFailure, netip.Addr{}
	})
	rebound := resolver(t, func(dnsmessage.Question) (dnsmessage.RCode, netip.Addr) {
		return dnsmessage.RCodeSuccess, netip.MustParseAddr("169.254.169.254")
	})

	type failure struct {
		url     string
		config  ClientConfig
		timeout trigger.Duration
		kind    Kind
		status  int
		message string // X stands for the address
	}
	answer := func(raw string) string {
		return onAccept(t, func(_ int, conn *net.TCPConn) {
			readRequest(conn)
			_, _ = io.WriteString(conn, raw)
		})
	}
	hang := func(raw string) string {
		return onAccept(t, func(_ int, conn *net.TCPConn) {
			readRequest(conn)
			_, _ = io.WriteString(conn, raw)
			_, _ = conn.Read(make([]byte, 1)) // until the client gives up
		})
	}
	secure := func(change func(*tls.Config)) string {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		quiet(s)
		s.TLS = &tls.Config{}
		change(s.TLS)
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	plainServer := receiver(t, func(http.ResponseWriter, *http.Request) {})
	quiet(plainServer)

	for name, f := range map[string]failure{
		"closed port":  {url: "http://" + closedPort, kind: KindRefused, message: "connection refused by X"},
		"no such name": {url: "http://nowhere.example", config: ClientConfig{Resolver: unresolved}, kind: KindDNS, message: "no such host: nowhere.example"},
		"name server fails": {url: "http://nowhere.example", config: ClientConfig{Resolver: failing}, kind: KindDNS,
			message: "could not look up host nowhere.example: server misbehaving"},
		"name leads to a guarded address": {url: "http://nowhere.example", config: ClientConfig{Resolver: rebound}, kind: KindDenied,
			message: "connecting to 169.254.169.254 is forbidden: if the webhook really is at that address, allow it under network in rowhook.yaml"},
		"guarded address": {url: "http://[fe80::1]", kind: KindDenied, message: "connecting to fe80::1 is forbidden: if the webhook really is at that address, allow it under network in rowhook.yaml"},
		"self-signed":     {url: secure(func(*tls.Config) {}), kind: KindTLS, message: "certificate signed by unknown authority"},
		"handshake refused": {url: secure(func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }), config: ClientConfig{TLS: &tls.Config{MaxVersion: tls.VersionTLS12}},
			kind: KindTLS, message: "TLS handshake rejected by X: protocol version not supported"},
		"http behind https": {url: strings.Replace(plainServer.URL, "http", "https", 1), kind: KindTLS, message: "X does not speak TLS: is its URL http, not https?"},
		"noise behind https": {url: "https://" + onAccept(t, func(_ int, conn *net.TCPConn) {
			_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n")
			_, _ = conn.Read(make([]byte, 4<<10)) // closing with unread bytes would reset the connection
		}), kind: KindTLS,
			message: "X does not speak TLS: is its URL http, not https?"},
		"hang":              {url: "http://" + hang(""), timeout: short, kind: KindTimeout, message: "no response within 100ms"},
		"hang in handshake": {url: "https://" + hang(""), timeout: short, kind: KindTimeout, message: "no response within 100ms"},
		"reset": {url: "http://" + onAccept(t, func(_ int, conn *net.TCPConn) {
			readRequest(conn)
			_ = conn.SetLinger(0)
		}), kind: KindReset, message: "connection reset by X"},
		"closed unanswered":    {url: "http://" + answer(""), kind: KindReset, message: "connection closed by X before the response was complete"},
		"closed mid-headers":   {url: "http://" + answer("HTTP/1.1 500 No\r\nX-A: b\r\n"), kind: KindReset, message: "connection closed by X before the response was complete"},
		"header bomb":          {url: "http://" + answer("HTTP/1.1 500 No\r\nX-Bomb: "+strings.Repeat("x", 70<<10)+"\r\n\r\n"), kind: KindTooLarge, message: "the response's headers are over the limit of 64 KiB"},
		"many headers":         {url: "http://" + answer("HTTP/1.1 500 No\r\n"+strings.Repeat("X-Bomb: 1\r\n", 7<<10)+"\r\n"), kind: KindTooLarge, message: "the response's headers are over the limit of 64 KiB"},
		"not HTTP":             {url: "http://" + answer("SSH-2.0-x\r\n"), kind: KindOther, message: `malformed HTTP response "SSH-2.0-x"`},
		"too large a payload":  {url: plainServer.URL, config: ClientConfig{MaxRequestBody: 100}, kind: KindTooLarge, message: "the event's body of 373 bytes is over the limit of 100: raise --max-body, or leave large columns out of the trigger's payload.columns"},
		"much too large a one": {url: plainServer.URL, config: ClientConfig{MaxRequestBody: 10}, kind: KindTooLarge, message: "the event's body of 58 bytes is over the limit of 10: raise --max-body, or leave large columns out of the trigger's payload.columns"},
	} {
		for _, way := range ways() {
			t.Run(name+way.name, func(t *testing.T) {
				t.Parallel()
				timeout := f.timeout
				if timeout == 0 {
					timeout = trigger.Duration(time.Minute)
				}
				ep := way.of(endpoint(t, trigger.Webhook{URL: f.url, Timeout: timeout}))
				r := newClient(t, f.config).Send(context.Background(), ep, orderPlaced(), nil)
				require.Equal(t, f.kind, r.Kind, r.Err)
				require.Equal(t, strings.Replace(f.message, "X", ep.request.URL.Host, 1), r.Err)
				require.Equal(t, f.status, r.Status)
				require.False(t, r.Delivered())
			})
		}
	}
}

func TestClassifyKnowsWhatCantBeProvokedEverywhere(t *testing.T) {
	t.Parallel()
	dial := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}, Err: os.NewSyscallError("connect", errno)}
	}
	for _, c := range []struct {
		err  error
		kind Kind
		text string
	}{
		{nil, KindResponse, ""},
		{dial(syscall.EHOSTUNREACH), KindUnreachable, "no route to 192.0.2.1:80"},
		{dial(syscall.ENETUNREACH), KindUnreachable, "no route to 192.0.2.1:80"},
		{dial(syscall.EADDRNOTAVAIL), KindUnreachable, "no local port or address left to connect to 192.0.2.1:80"},
		{dial(syscall.ETIMEDOUT), KindTimeout, "timed out talking to 192.0.2.1:80"},
		{&net.OpError{Op: "proxyconnect", Net: "tcp", Err: dial(syscall.ECONNREFUSED)}, KindRefused, "through the proxy: connection refused by 192.0.2.1:80"},
		{fmt.Errorf("write: %w", syscall.EPIPE), KindReset, "connection reset by host"},
		{errors.New("http2: server sent GOAWAY and closed the connection; LastStreamID=1"), KindReset, "connection closed by host before the response was complete"},
		{errors.New("stream error: stream ID 1; INTERNAL_ERROR; received from peer"), KindReset, "connection closed by host before the response was complete"},
		{errors.New("readLoopPeekFailLocked: %!w(<nil>)"), KindReset, "connection closed by host before the response was complete"},
		{context.Canceled, KindCanceled, "canceled: Rowhook is stopping"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), KindTimeout, "timed out talking to host"},
		{errors.New("net/http: HTTP/1.x transport connection broken: odd\nnews"), KindOther, "odd news"},
	} {
		require.Equal(t, c.kind, Classify(c.err), c.err)
		if c.err != nil {
			require.Equal(t, c.text, describe(c.err, c.kind, "host"))
		}
	}
}

func TestStatusesOtherThan2xxAreNotDelivered(t *testing.T) {
	t.Parallel()
	var visits atomic.Int32
	s := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		visits.Add(1)
		code, _ := strconv.Atoi(r.URL.Path[1:])
		w.Header().Set("Location", "/200")
		w.Header().Set("Retry-After", " 2 ")
		w.WriteHeader(code)
	})
	c := newClient(t, ClientConfig{})
	for code, want := range map[int]string{
		200: "", 204: "",
		302: "answered 302 Found: redirects are not followed", 308: "answered 308 Permanent Redirect: redirects are not followed",
		404: "answered 404 Not Found", 503: "answered 503 Service Unavailable",
	} {
		visits.Store(0)
		r := c.Send(context.Background(), plain(t, s.URL+"/"+strconv.Itoa(code)), orderPlaced(), nil)
		require.Equal(t, code, r.Status)
		require.Equal(t, KindResponse, r.Kind)
		require.Equal(t, want, r.Err)
		require.Equal(t, code < 300, r.Delivered())
		require.Equal(t, code >= 300, r.HasRetryAfter)
		if r.HasRetryAfter {
			require.Equal(t, 2*time.Second, r.RetryAfter)
		}
		require.Equal(t, int32(1), visits.Load(), "a redirect was followed")
	}
}

func TestASwitchOfProtocolsIsAFailureThatDoesNotHang(t *testing.T) {
	t.Parallel()
	address := onAccept(t, func(_ int, conn *net.TCPConn) {
		readRequest(conn)
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = conn.Read(make([]byte, 1))
	})
	r := newClient(t, ClientConfig{}).Send(context.Background(), plain(t, "http://"+address), orderPlaced(), nil)
	require.Equal(t, 101, r.Status)
	require.False(t, r.Delivered())
}

func TestCancelledSendIsCanceledNotTimedOut(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	s := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	})
	c := newClient(t, ClientConfig{})
	for range 2 { // canceled while it waits, and before it begins
		r := c.Send(ctx, plain(t, s.URL), orderPlaced(), nil)
		require.Equal(t, KindCanceled, r.Kind)
		require.Equal(t, "canceled: Rowhook is stopping", r.Err)
	}
	past, stop := context.WithDeadline(context.Background(), time.Now())
	defer stop()
	require.Equal(t, KindCanceled, c.Send(past, plain(t, s.URL), orderPlaced(), nil).Kind)
}

func TestConnectionClosedWhileIdleCostsNoAttempt(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	address := onAccept(t, func(n int, conn *net.TCPConn) {
		in := bufio.NewReader(conn)
		answer := func() bool {
			req, err := http.ReadRequest(in)
			if err != nil {
				return false
			}
			_, _ = io.Copy(io.Discard, req.Body)
			return true
		}
		if answer() {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
		// The first connection reads a second request and closes without a byte. A receiver that
		// closes its idle connections at that moment looks the same.
		if n == 0 && answer() {
			close(closed)
		}
	})
	c, ep := newClient(t, ClientConfig{}), plain(t, "http://"+address)
	require.True(t, new(c.Send(context.Background(), ep, orderPlaced(), nil)).Delivered())
	r := c.Send(context.Background(), ep, orderPlaced(), nil)
	require.True(t, r.Delivered(), r.Err)
	<-closed
}

func TestConnectionsAreUsedAgainAfterLongResponses(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		w.WriteHeader(500)
		_, _ = w.Write(bytes.Repeat([]byte("ü"), n/2))
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := newClient(t, ClientConfig{KeepBody: 1001})
	for range 3 {
		r := c.Send(context.Background(), plain(t, s.URL+"/100000"), orderPlaced(), nil)
		require.Equal(t, strings.Repeat("ü", 500), string(r.Body), "cut at a character")
	}
	require.Equal(t, int32(1), opened.Load())
	r := c.Send(context.Background(), plain(t, s.URL+"/10000000"), orderPlaced(), nil)
	require.Len(t, r.Body, 1000)
	require.Equal(t, 500, r.Status)
}

func TestReceiverThatStreamsForeverIsLeftAfterWhatIsKept(t *testing.T) {
	t.Parallel()
	s := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 2*DefaultKeepBody))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	r := newClient(t, ClientConfig{}).Send(context.Background(), plain(t, s.URL), orderPlaced(), nil)
	require.True(t, r.Delivered(), r.Err)
	require.Len(t, r.Body, DefaultKeepBody)
	require.Empty(t, r.Err, "the time-out is not what ends it")
}

func TestStoredBodyIsTextThatPostgresTakes(t *testing.T) {
	t.Parallel()
	s := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Latin", "caf\xe9")
		_, _ = w.Write([]byte("a\x00b\xffc"))
	})
	r := newClient(t, ClientConfig{}).Send(context.Background(), plain(t, s.URL), orderPlaced(), nil)
	require.Equal(t, "a\uFFFDb\uFFFDc", string(r.Body))
	require.True(t, json.Valid(r.Header))
	require.Contains(t, string(r.Header), "caf\uFFFD")
}

func TestValuesFromTheEnvironmentAreNeverKept(t *testing.T) {
	t.Parallel()
	const token, key, path = `s3cr<t"tok&n`, "whsec_c2VjcmV0LXNlY3JldA==", "/services/T0AAAAA/B0BBBBB"
	s := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo", r.Header.Get("X-Auth"))
		w.Header().Set("X-Access-Token", "unrelated")
		w.WriteHeader(http.StatusTeapot)
		_ = json.NewEncoder(w).Encode(map[string]any{"headers": r.Header, "uri": r.RequestURI, "form": url.Values{"t": {token}}.Encode()})
	})
	ep := endpoint(t, trigger.Webhook{
		URL: "${BASE}?key=1", Secret: "${KEY}", Headers: map[string]string{"X-Auth": "Bearer ${TOKEN}", "X-Short": "${SHORT}"},
	}, "BASE", strings.Replace(s.URL, "http://", "http://user:hunter22@", 1)+path, "KEY", key, "TOKEN", token, "SHORT", "ab")
	c := newClient(t, ClientConfig{})
	r := c.Send(context.Background(), ep, orderPlaced(), nil)
	require.Equal(t, http.StatusTeapot, r.Status)
	kept := string(r.Header) + string(r.Body) + r.Err
	for _, value := range []string{"s3cr", "tok&n", `tok\u0026n`, "tok%26n", "T0AAAAA", "hunter22", "dXNlcjpodW50ZXIyMg", "unrelated", "c2VjcmV0"} {
		require.NotContains(t, kept, value)
	}
	require.Contains(t, string(r.Header), `"X-Echo":"Bearer ${TOKEN}"`)
	require.Contains(t, string(r.Body), `"X-Auth":["Bearer ${TOKEN}"]`)
	require.Contains(t, string(r.Body), `"uri":"${BASE}?key=1"`)
	require.Contains(t, string(r.Body), `"X-Short":["ab"]`, "too short to be told from ordinary text")
}

func TestAHostFromAVariableIsShownInErrors(t *testing.T) {
	t.Parallel()
	host, port, _ := net.SplitHostPort(closedPort)
	ep := endpoint(t, trigger.Webhook{URL: "http://${HOST}:" + port}, "HOST", host)
	r := newClient(t, ClientConfig{}).Send(context.Background(), ep, orderPlaced(), nil)
	require.Equal(t, "connection refused by "+closedPort, r.Err, "the host is what one needs at night")
}

func TestSecretThatStraddlesTheLimitIsNotKeptInPart(t *testing.T) {
	t.Parallel()
	s := receiver(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0123456789verysecret") })
	for keep := 8; keep <= 22; keep++ {
		ep := endpoint(t, trigger.Webhook{URL: s.URL, Headers: map[string]string{"X": "${T}"}}, "T", "verysecret")
		r := newClient(t, ClientConfig{KeepBody: keep}).Send(context.Background(), ep, orderPlaced(), nil)
		require.NotContains(t, string(r.Body), "very")
		require.Equal(t, keep > 10, strings.HasSuffix(string(r.Body), "${T}"))
	}
}

func TestBufferIsTakenBackFromARequestThatIsStillBeingWritten(t *testing.T) {
	t.Parallel()
	// A receiver that answers at once and never reads stops net/http in the middle of the body.
	address := onAccept(t, func(_ int, conn *net.TCPConn) {
		_, _ = conn.Read(make([]byte, 1))
		_, _ = io.WriteString(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
		_, _ = conn.Read(make([]byte, 1))
	})
	body := bytes.Repeat([]byte("a"), 32<<20)
	r := newClient(t, ClientConfig{}).Send(context.Background(), plain(t, "http://"+address), orderPlaced(), body)
	clear(body) // the race detector objects if anything still reads it
	require.Equal(t, 413, r.Status, r.Err)
}

func TestDetachedPayloadEndsOnlyForReadersThatHaveAllOfIt(t *testing.T) {
	t.Parallel()
	p := newPayload([]byte("abc"))
	again, err := p.again()
	require.NoError(t, err)
	_, err = io.ReadFull(again, make([]byte, 3))
	require.NoError(t, err)
	_, err = p.first.Read(make([]byte, 1))
	require.NoError(t, err)
	p.detach()
	_, err = again.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	_, err = p.first.Read(make([]byte, 1))
	require.ErrorIs(t, err, errDetached)
}

func TestConcurrentSendsDoNotMixTheirBodies(t *testing.T) {
	t.Parallel()
	s := receiver(t, echo)
	c, ep := newClient(t, ClientConfig{Concurrency: 16}), plain(t, s.URL)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			e := orderPlaced()
			e.New = fmt.Appendf(nil, `{"filler":"%s"}`, strings.Repeat(string(rune('a'+i)), 100*i))
			want := string(AppendBody(nil, e))
			for range 20 {
				if r := c.Send(context.Background(), ep, e, nil); string(r.Body) != want {
					t.Errorf("sent %d bytes, got back %d others (%s)", len(want), len(r.Body), r.Err)
				}
			}
		})
	}
	wg.Wait()
}

func TestHTTP2IsSpokenOverTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Proto", r.Proto)
		echo(w, r)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c := newClient(t, ClientConfig{TLS: s.Client().Transport.(*http.Transport).TLSClientConfig})
	r := c.Send(context.Background(), plain(t, s.URL), orderPlaced(), nil)
	require.True(t, r.Delivered(), r.Err)
	require.Contains(t, string(r.Header), `"X-Proto":"HTTP/2.0"`)
	require.Equal(t, string(AppendBody(nil, orderPlaced())), string(r.Body))
}

func TestDialDoesNotOutliveTheAttemptThatAskedForIt(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	stuck := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		select {
		case ended <- ctx.Err():
		default:
		}
		return nil, ctx.Err()
	}}
	ep := endpoint(t, trigger.Webhook{URL: "http://nowhere.example", Timeout: trigger.Duration(50 * time.Millisecond)})
	r := newClient(t, ClientConfig{Resolver: stuck}).Send(context.Background(), ep, orderPlaced(), nil)
	require.Equal(t, KindTimeout, r.Kind)
	require.Equal(t, "no response within 50ms", r.Err)
	select {
	case err := <-ended:
		require.Error(t, err)
	case <-time.After(3 * time.Second): // the resolver's own timeout is five seconds
		t.Fatal("the look-up goes on")
	}
}

func TestCredentialsAreRecognisedByTheirHeadersNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "X-Auth-Token", "X-Csrf-Token",
		"Client-Secret", "X-PASSWORD", "Apikey"} {
		require.True(t, isCredential(name), name)
	}
	for _, name := range []string{"Content-Type", "Www-Authenticate", "X-Request-Id", "Key"} {
		require.False(t, isCredential(name), name)
	}
}

// resolver uses a name server of the test.
func resolver(t testing.TB, answer func(dnsmessage.Question) (dnsmessage.RCode, netip.Addr)) *net.Resolver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) == 0 {
				continue
			}
			q := m.Questions[0]
			code, addr := answer(q)
			m = dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RCode: code}, Questions: m.Questions}
			if code == dnsmessage.RCodeSuccess && q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: addr.As4()},
				}}
			}
			if packed, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}
	})
	t.Cleanup(func() {
		conn.Close()
		wg.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// BenchmarkSend also reports the processor time of an attempt. The receiver runs in the same
// process and does as little as possible.
func BenchmarkSend(b *testing.B) {
	address := onAccept(b, func(_ int, conn *net.TCPConn) {
		in := bufio.NewReaderSize(conn, 16<<10)
		for {
			length := 0
			for {
				line, err := in.ReadSlice('\n')
				if err != nil {
					return
				}
				if rest, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
					length, _ = strconv.Atoi(string(bytes.TrimSpace(rest)))
				}
				if len(line) == 2 {
					break
				}
			}
			_, _ = in.Discard(length)
			_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Mon, 23 Nov 2026 12:00:10 GMT\r\nContent-Length: 2\r\n\r\nok"))
		}
	})
	for name, c := range map[string]struct {
		secret string
		row    int
	}{"plain": {"", 50}, "signed": {vectorSecret, 50}, "large": {"", 100_000}} {
		b.Run(name, func(b *testing.B) {
			client := newClient(b, ClientConfig{})
			ep := endpoint(b, trigger.Webhook{URL: "http://" + address, Secret: c.secret, Headers: map[string]string{"Authorization": "Bearer ${T}"}}, "T", "verysecret")
			e := orderPlaced()
			e.New = fmt.Appendf(nil, `{"filler":"%s"}`, strings.Repeat("x", c.row))
			b.ReportAllocs()
			b.SetParallelism(32)
			before := processorTime()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if r := client.Send(context.Background(), ep, e, nil); !r.Delivered() {
						b.Error(r.Err)
					}
				}
			})
			b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
