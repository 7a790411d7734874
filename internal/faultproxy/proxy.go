// Package faultproxy passes TCP connections on to a target, and misbehaves as networks do. It cuts
// and resets connections, stalls them, leaves them half open, slows them down, and refuses new
// ones.
package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Mode is how a Proxy treats its connections, present and new ones.
type Mode int

// The modes.
const (
	Pass   Mode = iota // as they are
	Stall              // no byte and no end of a connection goes through, in either direction
	Slow               // a few bytes at a time
	Refuse             // new connections are reset at once; present ones pass
)

// Slow connections move slowPiece bytes each slowEvery: 1.6 kB/s in each direction.
const (
	slowPiece = 32
	slowEvery = 20 * time.Millisecond
)

// Proxy passes connections on until Close. Listen makes one. Several goroutines may call its
// methods at once.
type Proxy struct {
	listener *net.TCPListener
	target   string
	ended    context.Context
	end      context.CancelFunc
	working  sync.WaitGroup

	mu      sync.Mutex
	mode    Mode
	links   map[*link]bool
	changed chan struct{} // closed and replaced when mode or a link's state changes
}

// link is a client's connection, and its counterpart to the server.
type link struct {
	client, server *net.TCPConn
	abandoned      bool // what either side sends vanishes, and neither learns that the other has ended
}

// Listen starts a proxy on a free port of 127.0.0.1.
func Listen(ctx context.Context, target string) (*Proxy, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the proxy: %w", err)
	}
	p := &Proxy{listener: l.(*net.TCPListener), target: target, links: map[*link]bool{}, changed: make(chan struct{})}
	p.ended, p.end = context.WithCancel(context.WithoutCancel(ctx))
	p.working.Go(p.accept)
	return p, nil
}

// Addr is the host and port to connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Port is the port of Addr.
func (p *Proxy) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// Set changes the mode.
func (p *Proxy) Set(m Mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	p.tell()
}

// Abandon leaves the present connections half open: what either side sends vanishes, and neither
// side learns when the other closes. New connections pass. Heal ends the abandoned ones. Abandon
// returns how many there were.
func (p *Proxy) Abandon() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.abandoned = true
	}
	p.tell()
	return len(p.links)
}

// Strand ends the clients' sides of the present connections and keeps the servers' sides. The
// servers do not hear of it, as when a router forgets connections or a host loses power. New
// connections pass. Heal ends the stranded ones. Strand returns how many there were.
func (p *Proxy) Strand() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.abandoned = true
		abort(l.client)
	}
	p.tell()
	return len(p.links)
}

// Heal lets everything pass again, and resets the connections that Abandon or Strand left.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = Pass
	for l := range p.links {
		if l.abandoned {
			l.reset()
		}
	}
	p.tell()
}

// Cut closes the present connections in order, with FIN. It returns how many there were.
func (p *Proxy) Cut() int {
	return p.each(func(l *link) {
		_ = l.client.Close() // the pumps notice
		_ = l.server.Close()
	})
}

// Reset ends the present connections with RST. It returns how many there were.
func (p *Proxy) Reset() int { return p.each((*link).reset) }

// Open returns the number of present connections.
func (p *Proxy) Open() int { return p.each(func(*link) {}) }

func (p *Proxy) each(do func(*link)) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		do(l)
	}
	return len(p.links)
}

// Close stops listening, resets every connection, and waits until all goroutines have ended.
func (p *Proxy) Close() {
	_ = p.listener.Close() // accept notices
	p.end()
	p.Reset()
	p.working.Wait()
}

// tell wakes the pumps that wait. The caller holds the mutex.
func (p *Proxy) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.working.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client *net.TCPConn) {
	p.mu.Lock()
	refused := p.mode == Refuse
	p.mu.Unlock()
	if refused {
		abort(client)
		return
	}
	server, err := new(net.Dialer).DialContext(p.ended, "tcp", p.target)
	if err != nil {
		abort(client)
		return
	}
	l := &link{client: client, server: server.(*net.TCPConn)}
	p.mu.Lock()
	if p.ended.Err() != nil {
		l.reset()
	}
	p.links[l] = true
	p.mu.Unlock()

	var back sync.WaitGroup
	back.Go(func() { p.pump(l, l.client, l.server) })
	p.pump(l, l.server, l.client)
	back.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	_ = client.Close() // both directions have ended
	_ = server.Close()
}

// pump moves the bytes of one direction until it ends.
func (p *Proxy) pump(l *link, to, from *net.TCPConn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !p.move(l, to, buffer[:n]) {
			abort(from)
			return
		}
		if err == nil {
			continue
		}
		p.hideEnd(l)
		if errors.Is(err, io.EOF) {
			_ = to.CloseWrite() // it may have ended meanwhile
		} else {
			abort(to)
		}
		return
	}
}

// move writes bytes as the mode says. It returns false if they can't be written.
func (p *Proxy) move(l *link, to *net.TCPConn, b []byte) bool {
	for len(b) > 0 {
		mode, abandoned := p.gate(l)
		if abandoned {
			return true
		}
		piece := b
		if mode == Slow {
			piece = b[:min(len(b), slowPiece)]
		}
		n, err := to.Write(piece)
		if err != nil {
			return false
		}
		b = b[n:]
		if mode == Slow && !p.pause() {
			return false
		}
	}
	return true
}

func (p *Proxy) pause() bool {
	timer := time.NewTimer(slowEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.ended.Done():
		return false
	}
}

// gate waits while connections are stalled.
func (p *Proxy) gate(l *link) (mode Mode, abandoned bool) {
	for {
		p.mu.Lock()
		mode, abandoned, changed := p.mode, l.abandoned, p.changed
		p.mu.Unlock()
		if mode != Stall || abandoned {
			return mode, abandoned
		}
		select {
		case <-changed:
		case <-p.ended.Done():
			return Pass, true
		}
	}
}

// hideEnd waits while the end of one side is to be hidden from the other.
func (p *Proxy) hideEnd(l *link) {
	for {
		p.mu.Lock()
		hidden, changed := p.mode == Stall || l.abandoned && !l.over(), p.changed
		p.mu.Unlock()
		if !hidden {
			return
		}
		select {
		case <-changed:
		case <-p.ended.Done():
			return
		}
	}
}

// over reports that both sides are closed here.
func (l *link) over() bool {
	closed := func(c *net.TCPConn) bool { return c.SetDeadline(time.Time{}) != nil }
	return closed(l.client) && closed(l.server)
}

func (l *link) reset() {
	abort(l.client)
	abort(l.server)
}

// abort ends a connection with RST.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0) // both fail on a connection that has ended, and then nothing is left to do
	_ = c.Close()
}
