// Package jetstream publishes events to streams of NATS JetStream. It is a destination of package
// dispatcher.
//
// Each attempt publishes one message and waits for its acknowledgement. Attempts of all triggers of one
// cluster and one login share a connection, on which as many messages are under way as the dispatcher
// makes attempts, also over the databases of one process. The connection does not mend itself: when it is lost, the next attempt makes another
// one. So no message waits in a buffer behind the end of its attempt, and what keeps a connection from
// being made is what the attempt says.
package jetstream

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// Connections are those of a process. Its dispatchers share them: whoever publishes to the same servers
// with the same login, under the same rules about addresses, uses the same connection. The zero value has
// none.
type Connections struct {
	waiters sync.Pool

	mu    sync.Mutex
	slots []*slot
}

// slotKey is what connections differ by, beside the rules about addresses.
type slotKey struct {
	servers string
	login   webhook.Login
	files   [3]string
}

// destination is what one dispatcher has of the connections. The mutex of all guards it.
type destination struct {
	all    *Connections
	config dispatcher.DestinationConfig
	guard  dispatcher.Guard
	slots  map[slotKey]*slot
	closed bool
}

// Destination returns the destination for a dispatcher.
func (c *Connections) Destination(config dispatcher.DestinationConfig) dispatcher.Destination {
	return &destination{all: c, config: config, guard: config.Guard, slots: map[slotKey]*slot{}}
}

// Endpoint makes the endpoint of a trigger with nats.
func (d *destination) Endpoint(spec *trigger.Spec, source trigger.Source) (dispatcher.Endpoint, error) {
	m, err := webhook.NewMessage(&spec.NATS, source, d.config.MaxBody)
	ep := &endpoint{
		Message: m, destination: d,
		key: slotKey{strings.Join(m.Servers(), ","), m.Login(), m.Files()},
	}
	return ep, err
}

// SetGuard replaces the rules about addresses, and leaves the connections that were made under others.
func (d *destination) SetGuard(guard dispatcher.Guard) {
	d.all.mu.Lock()
	defer d.all.mu.Unlock()
	if d.closed = false; d.guard.Equal(guard) {
		return
	}
	d.guard = guard
	d.leave()
}

// Close leaves the connections. It closes those that no other dispatcher uses.
func (d *destination) Close() {
	d.all.mu.Lock()
	d.closed = true
	ended := d.leave()
	d.all.mu.Unlock()
	for _, s := range ended {
		s.dials.Wait()
	}
}

// leave ends the use of all slots, and returns those that it has closed. The mutex is held.
func (d *destination) leave() (ended []*slot) {
	for _, s := range d.slots {
		if delete(s.members, d); len(s.members) == 0 {
			s.end()
			d.all.forget(s)
			ended = append(ended, s)
		}
	}
	clear(d.slots)
	return ended
}

// forget takes a slot away. The mutex is held.
func (c *Connections) forget(s *slot) {
	c.slots = slices.DeleteFunc(c.slots, func(other *slot) bool { return other == s })
	for d := range s.members {
		delete(d.slots, s.key)
	}
}

// slot returns the place of the connection of an endpoint.
func (d *destination) slot(ep *endpoint) (*slot, error) {
	d.all.mu.Lock()
	defer d.all.mu.Unlock()
	if d.closed {
		return nil, errors.New("the program is stopping")
	}
	s := d.slots[ep.key]
	if s == nil {
		s = d.all.slot(ep.key, d.guard)
		s.members[d] = true
		d.slots[ep.key] = s
	}
	return s, nil
}

// slot returns the slot for a key and the rules about addresses. The mutex is held.
func (c *Connections) slot(key slotKey, guard dispatcher.Guard) *slot {
	if i := slices.IndexFunc(c.slots, func(s *slot) bool { return s.key == key && s.guard.Equal(guard) }); i >= 0 {
		return c.slots[i]
	}
	s := &slot{all: c, key: key, guard: guard, members: map[*destination]bool{}}
	s.idle = time.AfterFunc(idleFor, s.reap)
	c.slots = append(c.slots, s)
	return s
}

// endpoint is where the messages of a trigger go.
type endpoint struct {
	*webhook.Message
	destination *destination
	key         slotKey

	mu      sync.Mutex // guards what Prepare found
	looked  time.Time
	problem error
}

// filesEvery is how often the files for TLS are looked at.
const filesEvery = time.Second

// Prepare returns why nothing can be published from here.
func (ep *endpoint) Prepare() error {
	if !ep.OwnTLS() || ep.Problem() != nil {
		return ep.Problem()
	}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if now := time.Now(); now.Sub(ep.looked) >= filesEvery {
		ep.looked, ep.problem = now, ep.Message.Prepare()
	}
	return ep.problem
}

// SendBatch publishes the events one by one: a trigger with nats has no batches, so there is one.
func (ep *endpoint) SendBatch(ctx context.Context, events []*dispatcher.Event) (r dispatcher.Result, failed []int) {
	for i, e := range events {
		one := ep.Send(ctx, e)
		if i == 0 || !one.Delivered() {
			one.StartedAt = earlier(r.StartedAt, one.StartedAt)
			r = one
		}
		if !one.Delivered() {
			return r, nil
		}
	}
	r.Duration = time.Since(r.StartedAt)
	return r, nil
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
