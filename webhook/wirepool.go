package webhook

import (
	"context"
	"net"
	"sync"
	"time"
)

// wirePool keeps idle wires by their addresses.
type wirePool struct {
	dialer net.Dialer
	most   int // idle wires to one address

	mu     sync.Mutex
	idle   map[string][]*wire // those that were used last are at the end
	count  int
	closed bool        // nothing is kept any more
	sweep  *time.Timer // nil: nothing is idle
}

const (
	wireIdle  = 90 * time.Second // how long a wire is kept
	wireSweep = 5 * time.Second  // how often idle wires are looked at
)

// take returns an idle wire to an address, or nil. It closes those that can carry nothing any more.
func (p *wirePool) take(address string) *wire {
	for {
		w := p.pop(address)
		if w == nil || w.idles() {
			return w
		}
		w.close()
	}
}

func (p *wirePool) pop(address string) *wire {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := p.idle[address]
	if len(idle) == 0 {
		return nil
	}
	last := len(idle) - 1
	w := idle[last]
	idle[last] = nil
	p.idle[address] = idle[:last]
	p.count--
	return w
}

// put keeps a wire for another request.
func (p *wirePool) put(w *wire) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle[w.address]) >= p.most {
		w.close()
		return
	}
	w.since = time.Now()
	p.idle[w.address] = append(p.idle[w.address], w)
	p.count++
	if p.sweep == nil {
		p.sweep = time.AfterFunc(wireSweep, p.look)
	}
}

// look closes wires that were idle for long, or whose receivers have closed them.
func (p *wirePool) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep = nil
	now := time.Now()
	for address, idle := range p.idle {
		kept := idle[:0]
		for _, w := range idle {
			if now.Sub(w.since) < wireIdle && w.idles() {
				kept = append(kept, w)
			} else {
				w.close()
				p.count--
			}
		}
		clear(idle[len(kept):])
		if p.idle[address] = kept; len(kept) == 0 {
			delete(p.idle, address)
		}
	}
	if p.count > 0 {
		p.sweep = time.AfterFunc(wireSweep, p.look)
	}
}

// close closes all that is idle, and keeps nothing from now on.
func (p *wirePool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for address, idle := range p.idle {
		for _, w := range idle {
			w.close()
		}
		delete(p.idle, address)
	}
	p.count = 0
	if p.sweep != nil {
		p.sweep.Stop()
		p.sweep = nil
	}
}

// dial makes a wire.
func (p *wirePool) dial(ctx context.Context, address string, deadline time.Time) (*wire, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := p.dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err //nolint:wrapcheck // it has the operation and the address
	}
	return newWire(conn.(*net.TCPConn), p, address) //nolint:forcetypeassert // the network is tcp
}
