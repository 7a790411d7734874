package webhook

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http/httpguts"
)

// A wire is a connection for requests by HTTP/1.1 without TLS. The goroutine of an attempt writes the
// request and reads the response by itself. net/http has two goroutines for each connection, to
// which it hands requests and responses over, and buffers of 16 and 4 kB. A drain with net/http
// needed half as much processor time again in the dispatcher: see docs/benchmarks.md.
//
// A wire carries requests of up to mostOnWire bytes, which the system takes at once. So a receiver
// that answers early holds up nobody. net/http carries everything else: larger requests, TLS, and
// what goes through a proxy. Responses by wire are read by net/http's parser.
type wire struct {
	conn   *net.TCPConn
	expire func() // ends reading and writing at once

	raw    syscall.RawConn
	probe  func(fd uintptr) // reads one byte, without waiting
	probed error            // how that went
	one    [1]byte

	pool    *wirePool
	address string
	since   time.Time // since when it is idle

	left   int // how many bytes of headers may still be read
	status statusLine
}

const (
	mostOnWire  = inlineBody + 4<<10 // bytes of a request
	mostInterim = 5                  // responses before the final one, as net/http takes them
)

var (
	errLongHeader = errors.New("the response headers exceeded the limit")
	errInterim    = errors.New("too many interim responses (1xx)")
	errControl    = errors.New("the URL has a control character")
	longAgo       = time.Unix(1, 0)
)

func newWire(conn *net.TCPConn, pool *wirePool, address string) (*wire, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err //nolint:wrapcheck // it has the operation and the address
	}
	w := &wire{conn: conn, raw: raw, pool: pool, address: address}
	w.expire = func() { _ = conn.SetDeadline(longAgo) }
	w.probe = w.readOne
	return w, nil
}

// Read reads for the reader of a response.
func (w *wire) Read(p []byte) (int, error) {
	if w.left <= 0 {
		return 0, errLongHeader
	}
	n, err := w.conn.Read(p[:min(len(p), w.left)])
	if w.left -= n; !w.status.whole {
		w.status.note(p[:n])
	}
	return n, err //nolint:wrapcheck // the caller classifies it
}

func (w *wire) close() { _ = w.conn.Close() }

// answer is the body of a response that a wire has brought.
type answer struct {
	io.ReadCloser

	wire  *wire
	in    *bufio.Reader
	stop  func() bool // ends that the context of the attempt ends the wire
	reuse bool        // the receiver leaves the connection open
	whole bool        // it was read to its end
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		a.whole = true
	}
	return n, err //nolint:wrapcheck // the caller classifies it
}

// Close gives the wire back if it can carry another request. It does not read what is left of the
// body, as that of net/http would.
func (a *answer) Close() error {
	if w := a.wire; w != nil {
		a.wire = nil
		if quiet := a.stop(); quiet && a.reuse && a.whole && a.in.Buffered() == 0 {
			w.pool.put(w)
		} else {
			w.close()
		}
	}
	return nil
}

// carry sends s.sent by a wire to the address of the endpoint, and reads the header of the response.
// If the receiver has closed a kept connection without an answer, the request is sent once more, on a
// new one. The caller closes the body of the response. stop ends reading it at once.
func (p *wirePool) carry(ctx context.Context, ep *Endpoint, deadline time.Time, s *scratch) (resp *http.Response, stop func(), err error) {
	if w := p.take(ep.address); w != nil {
		resp, err = w.exchange(ctx, ep.request, deadline, s)
		if err == nil || w.status.begun() || !isAny(err, brokenConnection...) || ctx.Err() != nil {
			return resp, w.expire, err
		}
	}
	s.connected, s.wire = false, nil
	w, err := p.dial(ctx, ep.address, deadline)
	if err != nil {
		return nil, nil, err
	}
	resp, err = w.exchange(ctx, ep.request, deadline, s)
	return resp, w.expire, err
}

// exchange sends a request and reads the header of its response.
func (w *wire) exchange(ctx context.Context, req *http.Request, deadline time.Time, s *scratch) (*http.Response, error) {
	s.connected, s.wire = true, w
	_ = w.conn.SetDeadline(deadline) // it fails only if the connection is closed, and so does writing
	stop := context.AfterFunc(ctx, w.expire)
	w.left = maxHeaderBytes
	w.status.expect()
	if s.in == nil {
		s.in = bufio.NewReader(w)
	} else {
		s.in.Reset(w)
	}
	_, wrote := w.conn.Write(s.sent)
	if wrote != nil && !isAny(wrote, brokenConnection...) {
		stop()
		w.close()
		return nil, wrote //nolint:wrapcheck // the caller classifies it
	}
	// A receiver that closes without reading may have answered before.
	resp, err := w.readResponse(s.in, req)
	if err != nil {
		stop()
		w.close()
		if wrote != nil && !w.status.begun() {
			err = wrote
		}
		return nil, err
	}
	w.left = math.MaxInt
	s.answer = answer{
		ReadCloser: resp.Body, wire: w, in: s.in, stop: stop, whole: resp.Body == http.NoBody,
		reuse: wrote == nil && !resp.Close && resp.StatusCode != http.StatusSwitchingProtocols,
	}
	resp.Body = &s.answer
	return resp, nil
}

// readResponse reads the header of the final response.
func (w *wire) readResponse(in *bufio.Reader, req *http.Request) (*http.Response, error) {
	if _, err := in.Peek(1); err != nil {
		return nil, err //nolint:wrapcheck // the caller classifies it
	}
	for range mostInterim + 1 {
		resp, err := http.ReadResponse(in, req)
		if err != nil && w.left <= 0 {
			return nil, errLongHeader
		}
		if err != nil || resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err //nolint:wrapcheck // the caller classifies it
		}
	}
	return nil, errInterim
}

// appendRequest appends a request as net/http writes it. names is memory.
func appendRequest(dst []byte, req *http.Request, m made, names []string) ([]byte, []string, error) {
	target := m.url.RequestURI()
	if strings.ContainsFunc(target, isControl) {
		return dst, names, errControl
	}
	dst = append(append(append(dst, req.Method...), ' '), target...)
	dst = append(append(dst, " HTTP/1.1\r\nHost: "...), req.Host...)
	names = names[:0]
	for name, values := range m.header {
		if name != "User-Agent" && len(values) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	dst = append(dst, "\r\n"...)
	var err error
	if dst, err = appendField(dst, "User-Agent", m.header["User-Agent"]); err != nil {
		return dst, names, err
	}
	if len(m.body) > 0 || req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch {
		dst = append(strconv.AppendInt(append(dst, "Content-Length: "...), int64(len(m.body)), 10), "\r\n"...)
	}
	for _, name := range names {
		if dst, err = appendField(dst, name, m.header[name]); err != nil {
			return dst, names, err
		}
	}
	return append(append(dst, "\r\n"...), m.body...), names, nil
}

// appendField appends the values of a header.
func appendField(dst []byte, name string, values []string) ([]byte, error) {
	for _, value := range values {
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return dst, errors.New("net/http: invalid header field name " + strconv.Quote(name))
		case !httpguts.ValidHeaderFieldValue(value):
			return dst, errors.New("net/http: invalid header field value for " + strconv.Quote(name))
		case name == "User-Agent" && value == "": // the configuration wants none
			continue
		}
		dst = append(append(append(append(dst, name...), ": "...), strings.Trim(value, " \t")...), "\r\n"...)
	}
	return dst, nil
}

// wireAddress returns the host and port to which a wire connects for a URL. "" leaves it to net/http.
func wireAddress(u *url.URL, host string) string {
	if u.Scheme != "http" || u.Opaque != "" || strings.Contains(u.Host, "%") || !httpguts.ValidHostHeader(host) || strings.Contains(host, "%") {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// direct returns the wires for a request, or nil: that is left to net/http.
func (c *Client) direct(ep *Endpoint, m made) *wirePool {
	if ep.address == "" || len(m.body) > inlineBody {
		return nil
	}
	if c.proxies != nil {
		if c.proxies.config.HTTPProxy != "" {
			return nil
		}
	} else if proxy, err := c.config.Proxy(ep.request); err != nil || proxy != nil {
		return nil
	}
	return c.wires.Load()
}

func isControl(r rune) bool { return r <= ' ' || r == 0x7f }
