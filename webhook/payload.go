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

// inlineBody is the size up to which a request body is an allocation of its own, read through a bytes.Reader. net/http
// sends such a body in one write with the headers; before a reader it does not know it flushes them, which costs a second
// write here and a second read there.
const inlineBody = 12 << 10

// attach makes data the body of req, and says how to take it back.
func attach(req *http.Request, data []byte) (detach func()) {
	req.ContentLength = int64(len(data))
	if len(data) > inlineBody {
		p := newPayload(data)
		req.Body, req.GetBody = &p.first, p.again
		return p.detach
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	req.Body, _ = req.GetBody()
	return func() {}
}

// payload lends a large request body to net/http, which may go on reading it after RoundTrip and even after the response
// has been read (a receiver that answers early, a timeout). detach takes it back: once it returns nobody reads data,
// so that the buffer can hold the next event's body.
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

// again is a request's GetBody: net/http calls it to repeat a request from the start.
func (p *payload) again() (io.ReadCloser, error) { return &reader{payload: p}, nil }

// reader is one pass over a payload. It must not be an io.WriterTo: that would hand out data itself, not copies.
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

// attemptContext is an attempt's context. net/http dials in the background, without the deadline of the request that
// asked for the connection but with its values, and a dial that outlives its attempt would hold one of the host's
// connections. So the deadline is a value, too.
type attemptContext struct {
	context.Context
	deadline time.Time
	traced   context.Context // holds the hook of scratch.follow
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
