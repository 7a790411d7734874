package httpapi

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// connections closes the one that has been idle for longest whenever there are more than maxConnections: otherwise clients that keep theirs open
// would keep out the probe of whoever restarts what does not answer.
type connections struct {
	mu  sync.Mutex
	all map[net.Conn]idling
}

// idling is a connection on which nothing is asked, or that something is asked on.
type idling struct {
	idle  bool
	since time.Time
}

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
		_ = oldest.Close() // a client that asks on it just now tries again
	}
}

// oldest is the connection that has been idle for longest, but for the one that has just come; nil: none is.
func (c *connections) oldest(but net.Conn) (found net.Conn) {
	for conn, i := range c.all {
		if i.idle && conn != but && (found == nil || i.since.Before(c.all[found].since)) {
			found = conn
		}
	}
	return found
}
