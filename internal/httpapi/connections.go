package httpapi

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// connections closes the longest idle connection when there are more than maxConnections. Otherwise
// clients that keep idle connections could block the health probe, and the supervisor would restart
// the process.
type connections struct {
	mu  sync.Mutex
	all map[net.Conn]idling
}

// idling is the state of a connection: since when it is idle, or busy with a request.
type idling struct {
	idle  bool
	since time.Time
}

// changed is the server's ConnState hook.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	var oldest net.Conn
	c.mu.Lock()
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(c.all, conn)
	default:
		c.all[conn] = idling{state == http.StateIdle || state == http.StateNew, time.Now()}
		if len(c.all) > maxConnections {
			oldest = c.oldest(conn)
			delete(c.all, oldest)
		}
	}
	c.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close() // a client that sends a request on it at this moment retries
	}
}

// oldest returns the connection that has been idle for longest, without but; nil: no other is idle.
func (c *connections) oldest(but net.Conn) (found net.Conn) {
	for conn, i := range c.all {
		if i.idle && conn != but && (found == nil || i.since.Before(c.all[found].since)) {
			found = conn
		}
	}
	return found
}
