package webhook

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// way is one of the two ways in which a request is carried.
type way struct {
	name string // behind that of a test
	of   func(*Endpoint) *Endpoint
}

func ways() []way {
	return []way{{"", func(ep *Endpoint) *Endpoint { return ep }}, {", by net/http", byNetHTTP}}
}

// byNetHTTP makes net/http carry the requests of an endpoint.
func byNetHTTP(ep *Endpoint) *Endpoint {
	ep.address = ""
	return ep
}

// idleWires returns how many wires a client keeps.
func idleWires(c *Client) int {
	p := c.wires.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, idle := range p.idle {
		n += len(idle)
	}
	if n != p.count {
		return -1
	}
	return n
}

func TestARequestByWireHasTheBytesOfOneByNetHTTP(t *testing.T) {
	t.Parallel()
	requests := make(chan string, 1)
	address := onAccept(t, func(_ int, conn *net.TCPConn) {
		var raw bytes.Buffer
		in := bufio.NewReader(io.TeeReader(conn, &raw))
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		requests <- raw.String()
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	for name, w := range map[string]trigger.Webhook{
		"plain":         {URL: "/hook"},
		"no path":       {URL: ""},
		"a query":       {URL: "/a%20b?c=d%26&e", Query: map[string]string{"row": "$new.id"}},
		"user and path": {URL: "/ü/$new.id"},
		"PUT":           {URL: "/", Method: http.MethodPut},
		"GET":           {URL: "/", Method: http.MethodGet},
		"DELETE":        {URL: "/", Method: http.MethodDelete},
		"an empty body": {URL: "/", Method: http.MethodPatch, Body: `""`},
		"headers":       {URL: "/", Headers: map[string]string{"x-b": " two ", "X-A": "1", "Host": "other.example", "X-Row": "${new.id} ü"}},
		"an agent":      {URL: "/", Headers: map[string]string{"User-Agent": "mine"}},
		"no agent":      {URL: "/", Headers: map[string]string{"User-Agent": ""}},
		"a form":        {URL: "/", Form: map[string]string{"id": "$new.id"}},
		"cloudevents":   {URL: "/", Format: trigger.FormatCloudEventsBinary},
	} {
		w.URL = "http://user:pw@" + address + w.URL
		c := newClient(t, ClientConfig{})
		seen := [2]string{}
		for i, ep := range []*Endpoint{endpoint(t, w), byNetHTTP(endpoint(t, w))} {
			require.Equal(t, i == 0, c.direct(ep, made{}) != nil, name)
			r := c.Send(context.Background(), ep, orderPlaced(), nil)
			require.Equal(t, http.StatusNoContent, r.Status, "%s: %s", name, r.Err)
			seen[i] = <-requests
		}
		require.Equal(t, seen[1], seen[0], name)
	}
}

// TestWhatBelongsToNoRequestIsNoAnswer has a receiver that answers once more than it is asked.
func TestWhatBelongsToNoRequestIsNoAnswer(t *testing.T) {
	t.Parallel()
	const ok, more = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
	for name, at := range map[string]string{"at once": ok + more, "later": ok} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, later := make(chan struct{}), make(chan struct{})
			var connections atomic.Int32
			address := onAccept(t, func(n int, conn *net.TCPConn) {
				connections.Add(1)
				readRequest(conn)
				if n > 0 {
					_, _ = io.WriteString(conn, ok)
					return
				}
				_, _ = io.WriteString(conn, at)
				if at == ok {
					<-first
					_, _ = io.WriteString(conn, more)
					close(later)
				}
				_, _ = io.Copy(io.Discard, conn)
			})
			c, ep := newClient(t, ClientConfig{}), plain(t, "http://"+address)
			require.True(t, new(c.Send(context.Background(), ep, orderPlaced(), nil)).Delivered())
			if close(first); at == ok {
				<-later
			}
			r := c.Send(context.Background(), ep, orderPlaced(), nil)
			require.True(t, r.Delivered(), r.Err)
			require.Equal(t, int32(2), connections.Load())
		})
	}
}

func TestAWireIsKeptOnlyWhereTheReceiverLeavesItOpen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer string
		kept   int
	}{
		"a length":               {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1},
		"no content":             {"HTTP/1.1 204 No Content\r\n\r\n", 1},
		"chunks with a trailer":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: b\r\n\r\n", 1},
		"a hint before":          {"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1},
		"an error":               {"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", 1},
		"the receiver closes":    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 0},
		"HTTP/1.0":               {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 0},
		"HTTP/1.0, kept":         {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", 1},
		"more than the length":   {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay", 0},
		"a body without content": {"HTTP/1.1 204 No Content\r\n\r\nok", 0},
		"another protocol":       {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 0},
		"a longer body":          {"HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1000000), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := onAccept(t, func(_ int, conn *net.TCPConn) {
				readRequest(conn)
				_, _ = io.WriteString(conn, c.answer)
				_, _ = io.Copy(io.Discard, conn)
			})
			client := newClient(t, ClientConfig{})
			r := client.Send(context.Background(), plain(t, "http://"+address), orderPlaced(), nil)
			require.Equal(t, KindResponse, r.Kind, r.Err)
			require.Equal(t, c.kept, idleWires(client))
			client.Close()
			require.Zero(t, idleWires(client))
		})
	}
}

// TestIdleWiresAreClosedWhenTheirReceiversAre leaves no connection half closed until the next event.
func TestIdleWiresAreClosedWhenTheirReceiversAre(t *testing.T) {
	t.Parallel()
	shut, closed := make(chan struct{}), make(chan struct{})
	address := onAccept(t, func(_ int, conn *net.TCPConn) {
		readRequest(conn)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		<-shut
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn) // ends when the client closes
		close(closed)
	})
	c := newClient(t, ClientConfig{})
	require.True(t, new(c.Send(context.Background(), plain(t, "http://"+address), orderPlaced(), nil)).Delivered())
	pool := c.wires.Load()
	pool.look()
	require.Equal(t, 1, idleWires(c), "it is open")
	close(shut)
	require.Eventually(t, func() bool { pool.look(); return idleWires(c) == 0 }, time.Minute, time.Millisecond)
	<-closed
}

func TestNoMoreWiresAreKeptThanTheClientMay(t *testing.T) {
	t.Parallel()
	const wires, kept = 5, 3
	all := make(chan struct{}, wires)
	release := make(chan struct{})
	s := receiver(t, func(http.ResponseWriter, *http.Request) {
		all <- struct{}{}
		<-release
	})
	c := newClient(t, ClientConfig{Concurrency: kept})
	done, ep := make(chan bool), plain(t, s.URL)
	for range wires {
		go func() { done <- new(c.Send(context.Background(), ep, orderPlaced(), nil)).Delivered() }()
	}
	for range wires {
		<-all
	}
	close(release)
	for range wires {
		require.True(t, <-done)
	}
	require.Equal(t, kept, idleWires(c))
}

// TestAnAttemptThatIsCanceledLeavesNoWire, as the deadline of its end could hit the next one.
func TestAnAttemptThatIsCanceledLeavesNoWire(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(context.Background())
	address := onAccept(t, func(_ int, conn *net.TCPConn) {
		readRequest(conn)
		cancel(errors.New("by Ann"))
		_, _ = io.Copy(io.Discard, conn)
	})
	c := newClient(t, ClientConfig{})
	r := c.Send(ctx, plain(t, "http://"+address), orderPlaced(), nil)
	require.Equal(t, KindCanceled, r.Kind)
	require.Zero(t, idleWires(c))
}

// TestAKeptWireThatBreaksCostsNoAttempt has a receiver that resets instead of answering a second
// request. It may be sent twice: the receiver may not have seen the first one.
func TestAKeptWireThatBreaksCostsNoAttempt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer string // the beginning of one
		kind   Kind
	}{
		"without a byte":         {"", KindResponse},
		"with part of an answer": {"HTTP/1.1 500 No\r\nX-A: b\r\n", KindReset},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			address := onAccept(t, func(_ int, conn *net.TCPConn) {
				in := bufio.NewReader(conn)
				for range 2 {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					if requests.Add(1) == 2 {
						_, _ = io.WriteString(conn, c.answer)
						return
					}
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			client, ep := newClient(t, ClientConfig{}), plain(t, "http://"+address)
			require.True(t, new(client.Send(context.Background(), ep, orderPlaced(), nil)).Delivered())
			r := client.Send(context.Background(), ep, orderPlaced(), nil)
			require.Equal(t, c.kind, r.Kind, r.Err)
		})
	}
}
