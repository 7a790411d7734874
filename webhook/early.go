package webhook

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// earlyConn is a connection on which a response can be read that came while the request was being
// written. A receiver that rejects a large body answers 413 and closes the connection. The write
// then fails, and net/http would close the connection before it reads the response. So a failed
// write waits until the reader has read everything.
type earlyConn struct {
	net.Conn
	ended chan struct{} // closed when a read has failed, or the connection was closed
	end   func()
	last  atomic.Bool // TLS is sending close_notify: nobody reads any more

	status statusLine
}

// earlyWait bounds the wait of a failed write. If the reset of the receiver overtook the response,
// nothing can be read, and the read fails at once.
const earlyWait = time.Second

func newEarlyConn(conn net.Conn) *earlyConn {
	ended := make(chan struct{})
	return &earlyConn{Conn: conn, ended: ended, end: sync.OnceFunc(func() { close(ended) })}
}

func (c *earlyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.status.note(p[:n])
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.end()
	}
	return n, err
}

func (c *earlyConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || c.last.Load() {
		return n, err
	}
	timer := time.NewTimer(earlyWait)
	defer timer.Stop()
	select {
	case <-c.ended:
	case <-timer.C:
	}
	return n, err
}

// SetWriteDeadline is called only by crypto/tls, before it sends close_notify. That is on the
// goroutine that would read.
func (c *earlyConn) SetWriteDeadline(t time.Time) error {
	c.last.Store(true)
	return c.Conn.SetWriteDeadline(t)
}

func (c *earlyConn) Close() error {
	c.end()
	return c.Conn.Close()
}

// dialEarly returns a dial function whose connections wait for an early response.
func dialEarly(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return newEarlyConn(conn), nil
	}
}

// statusLine holds the first bytes of an HTTP/1 response. If net/http can't read the headers, its
// error does not hold the status before them. On a TLS connection the bytes are not HTTP, and no
// status is read.
type statusLine struct {
	mu    sync.Mutex
	bytes [len("HTTP/1.1 200 ")]byte
	n     int
	whole bool // the end of the line has arrived
}

// expect prepares for the next response.
func (s *statusLine) expect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n, s.whole = 0, false
}

func (s *statusLine) note(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.whole {
		return
	}
	s.n += copy(s.bytes[s.n:], b)
	s.whole = bytes.IndexByte(b, '\n') >= 0
}

// begun reports whether a byte has arrived.
func (s *statusLine) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n > 0
}

// read returns the status. It returns 0 if the line is incomplete or does not begin like HTTP/1.
func (s *statusLine) read() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := s.bytes[:s.n]
	if !s.whole || len(line) < len(s.bytes) || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' || line[12] != ' ' && line[12] != '\r' && line[12] != '\n' {
		return 0
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0
	}
	return status
}
