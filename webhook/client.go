package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// The defaults and limits of a [Client].
const (
	DefaultConcurrency = 100      // idle connections kept to one host
	DefaultKeepBody    = 16 << 10 // bytes

	maxHeaderBytes = 64 << 10    // of a response
	drainBytes     = 256 << 10   // read beyond the kept bytes, so that the connection can be reused
	drainTime      = time.Second // for reading drainBytes
	keepBuffer     = 1 << 20     // larger buffers are not pooled

	// handshakeTimeout bounds a TLS handshake. net/http makes it in the background, without the
	// deadline of the attempt.
	handshakeTimeout = 15 * time.Second
)

// ClientConfig configures a [Client]. The zero value works.
type ClientConfig struct {
	// Version is the version in the User-Agent, Rowhook/VERSION. "" means dev.
	Version string
	// Concurrency is the largest number of idle connections that are kept to one host. 0 means
	// DefaultConcurrency. The client does not bound the connections in use. Two endpoints may share
	// a host, and one that hangs must not keep the other one from connecting. The caller bounds
	// them by the number of concurrent Sends.
	Concurrency int
	// KeepBody is the number of bytes of a response's body that a Result keeps. 0 means
	// DefaultKeepBody. A negative number keeps none.
	KeepBody int
	// MaxRequestBody is the largest request body in bytes. An event with a larger one is not sent:
	// its Result has KindTooLarge and Hopeless. 0 sets no limit.
	MaxRequestBody int
	// Guard decides which addresses may be dialled. SetGuard replaces it.
	Guard Guard
	// TLS is the configuration for https. The client clones it. nil means the roots of the system,
	// and TLS 1.2 or later. The files of an endpoint replace its roots and certificates.
	TLS *tls.Config
	// Proxy returns the proxy for a request. nil means HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as
	// [http.ProxyFromEnvironment] reads them.
	//
	// A proxy makes the connection, so the guard can't see the address. Instead the guard checks
	// the host that the proxy is asked for: the address, or each address that the name resolves to
	// on this machine. If only the proxy can resolve a name, the guard does not check it.
	Proxy func(*http.Request) (*url.URL, error)
	// Resolver looks up hosts. nil means the resolver of the system.
	Resolver *net.Resolver
	// Problem is called when a TLS file of an endpoint has changed and can't be used. The client
	// keeps using the files that it read before. Optional.
	Problem func(error)
}

// Client sends events. It keeps connections open, so a process should have one. Any number of
// goroutines may use it.
type Client struct {
	config     ClientConfig // with defaults
	proxies    *proxies     // those of the environment; nil: config.Proxy was given
	plain      atomic.Pointer[http.Transport]
	wires      atomic.Pointer[wirePool] // for what goes without TLS, a proxy and large bodies
	agent      string
	keep       int
	maxRequest int
	scratch    sync.Pool
	packers    packers

	mu     sync.Mutex
	guard  Guard
	secure map[tlsFiles]*secureTransport
	tokens map[grant]*tokens
}

// scratch is the memory that one attempt needs while it lasts.
type scratch struct {
	request, response, out, value []byte
	packed                        []byte // the request, compressed
	names                         []string
	values                        template.Values // of the present event, for the endpoint's templates

	// Of an attempt by wire.
	sent   []byte // the whole request
	in     *bufio.Reader
	answer answer
	wire   *wire // nil: none, or none yet

	// Of the response:
	most        int    // how many bytes of its body to read
	read        error  // why reading its body ended; nil: there are more than most bytes
	contentType string // its header, if most is that of a batch

	conn      *earlyConn      // of the current attempt; nil: none yet, or a TLS connection
	connected bool            // the current attempt has a connection
	kept      *tls.Conn       // this connection, if it is one with TLS that an earlier attempt has used
	traced    context.Context // its trace sets these three; made once, to save an allocation
}

func newScratch() *scratch {
	s := &scratch{}
	s.traced = httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		// net/http asks again if a kept connection turns out to be closed.
		GetConn: func(string) { s.connected = false },
		GotConn: func(info httptrace.GotConnInfo) {
			s.connected, s.kept = true, nil
			if info.Reused {
				s.kept, _ = info.Conn.(*tls.Conn)
			}
			if s.conn, _ = info.Conn.(*earlyConn); s.conn != nil {
				s.conn.status.expect()
			}
		},
	})
	return s
}

// NewClient returns a client. Close closes its idle connections.
func NewClient(config ClientConfig) *Client {
	keep := config.KeepBody
	if config.Concurrency <= 0 {
		config.Concurrency = DefaultConcurrency
	}
	if keep == 0 {
		keep = DefaultKeepBody
	}
	if config.Version == "" {
		config.Version = "dev"
	}
	var fromEnvironment *proxies
	if config.Proxy == nil {
		fromEnvironment = newProxies(httpproxy.FromEnvironment())
		config.Proxy = fromEnvironment.proxy
	}
	if config.Resolver == nil {
		config.Resolver = net.DefaultResolver
	}
	if config.Problem == nil {
		config.Problem = func(error) {}
	}
	c := &Client{
		config:     config,
		proxies:    fromEnvironment,
		agent:      "Rowhook/" + config.Version,
		keep:       max(keep, 0),
		maxRequest: config.MaxRequestBody,
		scratch:    sync.Pool{New: func() any { return newScratch() }},
		guard:      config.Guard,
		secure:     map[tlsFiles]*secureTransport{},
	}
	c.plain.Store(c.newTransport(config.Guard, config.TLS.Clone()))
	c.wires.Store(c.newWirePool(config.Guard))
	return c
}

// SetGuard replaces the guard. Connections that were made under another guard are not used for
// further requests.
func (c *Client) SetGuard(guard Guard) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.guard.Equal(guard) {
		return
	}
	c.guard = guard
	c.plain.Swap(c.newTransport(guard, c.config.TLS.Clone())).CloseIdleConnections()
	c.wires.Swap(c.newWirePool(guard)).close()
	for files, s := range c.secure {
		s.close()
		delete(c.secure, files)
	}
}

func (c *Client) newWirePool(guard Guard) *wirePool {
	return &wirePool{
		dialer: net.Dialer{Resolver: c.config.Resolver, ControlContext: guard.control},
		most:   c.config.Concurrency, idle: map[string][]*wire{},
	}
}

func (c *Client) newTransport(guard Guard, secure *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:                  c.proxy(guard),
		DialContext:            dialEarly(dialWithin(&net.Dialer{Resolver: c.config.Resolver, ControlContext: guard.control})),
		TLSClientConfig:        secure,
		TLSHandshakeTimeout:    handshakeTimeout,
		DisableCompression:     true,
		WriteBufferSize:        inlineBody + 4<<10, // one write for the headers and a small body
		MaxIdleConnsPerHost:    c.config.Concurrency,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true, // net/http turns HTTP/2 off when it is given a dialer
		// All HTTP/2 requests to a host share one connection. A dead one is noticed within 30 s.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 20 * time.Second, PingTimeout: 10 * time.Second},
	}
}

// proxy returns the proxy for a request. It returns an error if the guard forbids the host behind
// the proxy.
func (c *Client) proxy(guard Guard) func(*http.Request) (*url.URL, error) {
	return func(req *http.Request) (*url.URL, error) {
		proxy, err := c.config.Proxy(req)
		if err != nil || proxy == nil {
			return proxy, err
		}
		ctx := req.Context()
		if deadline, ok := ctx.Value(deadlineKey{}).(time.Time); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline)
			defer cancel()
		}
		// LookupNetIP returns an address unchanged. A name that does not resolve here is left to
		// the proxy.
		addresses, _ := c.config.Resolver.LookupNetIP(ctx, "ip", req.URL.Hostname())
		for _, a := range addresses {
			if err := guard.Check(a); err != nil {
				return nil, err
			}
		}
		return proxy, nil
	}
}

// dialWithin dials until the deadline of the attempt that asked for the connection: see
// attemptContext.
func dialWithin(dialer *net.Dialer) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if deadline, ok := ctx.Value(deadlineKey{}).(time.Time); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline)
			defer cancel()
		}
		return dialer.DialContext(ctx, network, address)
	}
}

// Close closes idle connections. A connection in use is closed when its attempt ends.
func (c *Client) Close() {
	c.plain.Load().CloseIdleConnections()
	c.wires.Load().close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.secure {
		s.close()
	}
}

// Send makes one attempt: it POSTs e to ep and reads the response, within the timeout of ep. body
// is the request body of e; if it is nil, Send builds it. When Send returns, nothing reads body or
// e any more. Send does not follow redirects.
//
// If ctx ends first, by cancellation or by its own deadline, the attempt fails with KindCanceled. If
// ctx was canceled with a cause, Err says the cause.
// If the receiver closed a kept connection before it answered a byte, Send repeats the request on
// another connection. In that case the receiver may see the request twice in one attempt.
func (c *Client) Send(ctx context.Context, ep *Endpoint, e *Event, body []byte) Result {
	r := Result{StartedAt: time.Now()}
	s := c.scratch.Get().(*scratch)
	// A secret may begin in the bytes to keep, and end behind them. So more bytes are read.
	s.most = c.keep + ep.scrub.longest()
	c.send(ctx, ep, e, body, s, &r)
	c.release(s, &r)
	r.Duration = time.Since(r.StartedAt)
	return r
}

// release gives back the memory of an attempt.
func (c *Client) release(s *scratch, r *Result) {
	if cap(s.request) > keepBuffer {
		s.request = nil
	}
	if cap(s.packed) > keepBuffer/4 {
		s.packed = nil
	}
	if cap(s.response) > keepBuffer/4 {
		s.response = nil
	}
	r.Connected = s.connected
	s.conn, s.connected, s.kept, s.read, s.contentType = nil, false, nil, nil, ""
	s.wire, s.answer = nil, answer{}
	if s.in != nil {
		s.in.Reset(nil)
	}
	c.scratch.Put(s)
}

// ready reports whether an attempt can be made, and says in r why not.
func (c *Client) ready(ctx context.Context, ep *Endpoint, r *Result) bool {
	switch {
	case ep.problem != nil:
		r.Kind, r.Err = KindBadURL, ep.problem.Error()
	case ctx.Err() != nil:
		r.Kind, r.Err = KindCanceled, ep.scrub.text(describeCancel(ctx))
	default:
		return true
	}
	return false
}

func (c *Client) send(ctx context.Context, ep *Endpoint, e *Event, body []byte, s *scratch, r *Result) {
	if !c.ready(ctx, ep, r) {
		return
	}
	m, bad := c.make(ctx, ep, parcel{event: e}, body, r.StartedAt, s)
	if bad != nil {
		bad.tell(r)
		return
	}
	c.exchange(ctx, ep, m, s, r)
}

// exchange sends a request, with a token if the endpoint wants one, and reads its response.
func (c *Client) exchange(ctx context.Context, ep *Endpoint, m made, s *scratch, r *Result) {
	if ep.issuer != nil {
		c.exchangeAuthorized(ctx, ep, m, s, r)
		return
	}
	c.exchangeOnce(ctx, ep, m, s, r)
}

func (c *Client) exchangeOnce(ctx context.Context, ep *Endpoint, m made, s *scratch, r *Result) {
	deadline := r.StartedAt.Add(ep.timeout)
	if wires := c.direct(ep, m); wires != nil {
		var err error
		s.sent, s.names, err = appendRequest(s.sent[:0], ep.request, m, s.names)
		if err != nil || len(s.sent) <= mostOnWire {
			var resp *http.Response
			var stop func()
			if err == nil {
				resp, stop, err = wires.carry(ctx, ep, deadline, s) //nolint:bodyclose // conclude closes it
			}
			c.conclude(ctx, ep, m, resp, stop, err, deadline, s, r)
			return
		}
	}
	timed, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	req := ep.request.WithContext(&attemptContext{timed, deadline, s.traced})
	req.URL, req.Header = m.url, m.header
	defer attach(req, m.body)()

	transport, err := c.transport(ep)
	if err != nil {
		r.Kind, r.Err = KindTLS, ep.scrub.text(oneLine(err.Error()))
		return
	}
	resp, err := s.roundTrip(transport, req) //nolint:bodyclose // conclude closes it
	c.conclude(ctx, ep, m, resp, cancel, err, deadline, s, r)
}

// conclude reads the response, or says why there is none.
func (c *Client) conclude(ctx context.Context, ep *Endpoint, m made, resp *http.Response, cancel func(), err error, deadline time.Time, s *scratch, r *Result) {
	if err != nil {
		fail(ctx, ep, err, deadline, r)
		if status := s.statusRead(); status/100 == 2 && ctx.Err() == nil {
			// A 2xx status says that the receiver has the event. Its headers are not needed.
			r.Kind, r.Status, r.Err = KindResponse, status, "the response's headers could not be read: "+r.Err
		}
		return
	}
	c.receive(ctx, ep, resp, cancel, deadline, s, r)
	if m.plain != nil && r.Status == http.StatusUnsupportedMediaType {
		r.Err += ": if the receiver can't decompress gzip, remove compress from the webhook"
	}
}

// roundTrip sends a request, and once more if it went over a kept connection that was stale.
func (s *scratch) roundTrip(transport http.RoundTripper, req *http.Request) (*http.Response, error) {
	resp, err := transport.RoundTrip(req)
	if err == nil || !s.stale(err) || req.Context().Err() != nil {
		return resp, err
	}
	again := *req
	again.Body, _ = req.GetBody()
	return transport.RoundTrip(&again)
}

// stale reports whether a request by HTTP/2 failed because the receiver had closed a kept connection.
// net/http repeats such a request by itself only if the receiver has said that it will close the
// connection, and a process that was killed says nothing. In HTTP/1 it always does.
func (s *scratch) stale(err error) bool {
	return s.kept != nil && s.kept.ConnectionState().NegotiatedProtocol == "h2" && isAny(err, brokenConnection...)
}

// statusRead returns the status of a response whose headers could not be read, or 0 if no status
// was read.
func (s *scratch) statusRead() int {
	switch {
	case s.wire != nil:
		return s.wire.status.read()
	case s.conn != nil:
		return s.conn.status.read()
	}
	return 0
}

// fail sets the kind and the text of r for an attempt that ended in err before a status arrived.
func fail(ctx context.Context, ep *Endpoint, err error, deadline time.Time, r *Result) {
	r.Kind = Classify(err)
	text := ""
	switch {
	case ctx.Err() != nil:
		r.Kind = KindCanceled
		text = describeCancel(ctx)
	case outOfTime(r.Kind, deadline):
		r.Kind = KindTimeout
		text = fmt.Sprintf("no response within %s", trigger.Duration(ep.timeout))
	default:
		text = describe(err, r.Kind, ep.request.URL.Host)
	}
	r.Err = ep.scrub.text(text)
}

// describeCancel says why ctx has ended.
func describeCancel(ctx context.Context) string {
	if cause := context.Cause(ctx); !errors.Is(cause, ctx.Err()) {
		return "canceled: " + oneLine(cause.Error())
	}
	return describe(ctx.Err(), KindCanceled, "")
}

func outOfTime(kind Kind, deadline time.Time) bool {
	return !time.Now().Before(deadline) || kind == KindCanceled
}

// describeBody says why the body behind a status could not be read to its end.
func describeBody(ctx context.Context, ep *Endpoint, err error, deadline time.Time) string {
	kind := Classify(err)
	switch {
	case ctx.Err() != nil:
		return "Rowhook stopped before it was complete"
	case outOfTime(kind, deadline):
		return fmt.Sprintf("it was not complete within %s", trigger.Duration(ep.timeout))
	}
	return describe(err, kind, ep.request.URL.Host)
}

// receive reads resp into r.
func (c *Client) receive(ctx context.Context, ep *Endpoint, resp *http.Response, cancel func(), deadline time.Time, s *scratch, r *Result) {
	defer resp.Body.Close()
	r.Status = resp.StatusCode
	err := io.EOF
	s.response = s.response[:0]
	if resp.ContentLength != 0 {
		s.response, err = readUpTo(s.response, resp.Body, s.most)
		if err == nil && !drain(resp.Body, cancel) {
			s.answer.reuse = false
		}
	}
	s.read = err
	if s.most >= MaxVerdict {
		s.contentType = resp.Header.Get("Content-Type")
	}
	c.keepTexts(ep, resp.Header, s, r)
	broken := ""
	if err != nil && !errors.Is(err, io.EOF) && len(s.response) < c.keep {
		broken = describeBody(ctx, ep, err, deadline)
	}
	// The status alone says whether the receiver has the event, even if the body is not complete.
	text := "answered " + resp.Status
	switch {
	case r.Status/100 == 2 && broken == "":
		return
	case r.Status/100 == 2:
		text = fmt.Sprintf("status %d arrived, so the event is delivered, but the response's body is incomplete: %s", r.Status, broken)
	case r.Status/100 == 3:
		text += ": redirects are not followed"
	case broken != "":
		text += "; the response's body is incomplete: " + broken
	}
	r.Err = ep.scrub.text(oneLine(text))
	if r.Status/100 != 2 {
		r.RetryAfter, r.HasRetryAfter = retryAfter(resp.Header, time.Now())
	}
}

// keepTexts stores the headers and the beginning of the body of the response, in one allocation.
func (c *Client) keepTexts(ep *Endpoint, header http.Header, s *scratch, r *Result) {
	s.out, s.names, s.value = appendHeader(s.out[:0], header, &ep.scrub, s.names, s.value)
	n := len(s.out)
	s.value = scrubbed(&ep.scrub, s.value[:0], s.response, c.keep)
	s.out = append(s.out, cleaned(s.value, len(s.response) > c.keep)...)
	texts := bytes.Clone(s.out)
	r.Header = texts[:n:n]
	if len(texts) > n {
		r.Body = texts[n:]
	}
}

// readUpTo appends the content of r to dst. The error is io.EOF if that was all of it. The error is
// nil if there are more than most bytes.
func readUpTo(dst []byte, r io.Reader, most int) ([]byte, error) {
	for len(dst) <= most {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, 512)
		}
		n, err := r.Read(dst[len(dst):min(cap(dst), most+1)])
		dst = dst[:len(dst)+n]
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// drain reads the rest of a short body, since a connection can be reused only after its response
// was read to the end. The attempt does not depend on it. It returns false if cancel was called, or
// still will be.
func drain(body io.Reader, cancel func()) bool {
	timer := time.AfterFunc(drainTime, cancel)
	_, _ = io.CopyN(io.Discard, body, drainBytes)
	return timer.Stop()
}
