package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// inlineBody is the size up to which net/http gets a copy of a request body, which it reads through a
// bytes.Reader. It sends such a body in one write with the headers. If it does not know the type of
// the reader, it flushes the headers first. That costs a second write here and a second read at the
// receiver.
const inlineBody = 12 << 10

// attach makes data the body of req. The caller calls detach when the attempt is over. From then on
// nobody reads data.
func attach(req *http.Request, data []byte) (detach func()) {
	req.ContentLength = int64(len(data))
	if len(data) == 0 {
		req.Body, req.GetBody = http.NoBody, func() (io.ReadCloser, error) { return http.NoBody, nil }
		return func() {}
	}
	if len(data) > inlineBody {
		p := newPayload(data)
		req.Body, req.GetBody = &p.first, p.again
		return p.detach
	}
	data = bytes.Clone(data) // net/http may read it after the attempt
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	req.Body, _ = req.GetBody()
	return func() {}
}

// payload lends a large request body to net/http. net/http may go on reading it after RoundTrip,
// and even after the response was read: after a timeout, or when a receiver answers early. Once
// detach returns, nobody reads data any more. The buffer can then hold the body of the next event.
type payload struct {
	mu    sync.Mutex
	data  []byte
	size  int
	first reader
}

var errDetached = errors.New("the attempt is over")

func newPayload(data []byte) *payload {
	p := &payload{data: data, size: len(data)}
	p.first.payload = p
	return p
}

func (p *payload) detach() {
	p.mu.Lock()
	p.data = nil
	p.mu.Unlock()
}

// again is the GetBody of a request: net/http calls it to repeat the request.
func (p *payload) again() (io.ReadCloser, error) { return &reader{payload: p}, nil }

// reader reads a payload once. It must not implement io.WriterTo, which would hand out data itself
// instead of copies.
type reader struct {
	payload *payload
	off     int
}

func (r *reader) Read(dst []byte) (int, error) {
	p := r.payload
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case r.off == p.size:
		return 0, io.EOF
	case p.data == nil:
		return 0, errDetached
	}
	n := copy(dst, p.data[r.off:])
	r.off += n
	return n, nil
}

func (r *reader) Close() error { return nil }

// attemptContext is the context of an attempt. It holds the deadline as a value, too. net/http
// dials in the background, with the values of the request's context and without its deadline. A
// dial that outlives its attempt would occupy one of the connections to the host.
type attemptContext struct {
	context.Context
	deadline time.Time
	traced   context.Context // scratch.traced
}

type deadlineKey struct{}

func (c *attemptContext) Value(key any) any {
	if _, ok := key.(deadlineKey); ok {
		return c.deadline
	}
	if v := c.traced.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}
