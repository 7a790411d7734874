// Package jetstream publishes events to streams of NATS JetStream. It is a destination of package
// dispatcher.
//
// Each attempt publishes one message and waits for its acknowledgement. Attempts of all triggers of one
// cluster and one login share a connection, on which as many messages are under way as the dispatcher
// makes attempts. The connection does not mend itself: when it is lost, the next attempt makes another
// one. So no message waits in a buffer behind the end of its attempt, and what keeps a connection from
// being made is what the attempt says.
package jetstream

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// destination keeps the connections of endpoints.
type destination struct {
	config dispatcher.DestinationConfig

	mu     sync.Mutex
	guard  dispatcher.Guard
	slots  map[slotKey]*slot
	closed bool
	loops  sync.WaitGroup // dials
}

// slotKey is what connections differ by.
type slotKey struct {
	servers string
	login   webhook.Login
	files   [3]string
	timeout time.Duration // of the library, for acknowledgements
}

// New returns the destination.
func New(config dispatcher.DestinationConfig) dispatcher.Destination {
	return &destination{config: config, guard: config.Guard, slots: map[slotKey]*slot{}}
}

// Endpoint makes the endpoint of a trigger with nats.
func (d *destination) Endpoint(spec *trigger.Spec, source trigger.Source) (dispatcher.Endpoint, error) {
	m, err := webhook.NewMessage(&spec.NATS, source, d.config.MaxBody)
	ep := &endpoint{
		Message: m, destination: d,
		key: slotKey{strings.Join(m.Servers(), ","), m.Login(), m.Files(), m.Timeout()},
	}
	return ep, err
}

// SetGuard replaces the rules about addresses, and ends the connections that were made under others.
func (d *destination) SetGuard(guard dispatcher.Guard) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed = false; d.guard.Equal(guard) {
		return
	}
	d.guard = guard
	for key, s := range d.slots {
		s.end()
		delete(d.slots, key)
	}
}

// Close closes the connections.
func (d *destination) Close() {
	d.mu.Lock()
	d.closed = true
	for key, s := range d.slots {
		s.end()
		delete(d.slots, key)
	}
	d.mu.Unlock()
	d.loops.Wait()
}

// slot returns the place of the connection of an endpoint.
func (d *destination) slot(ep *endpoint) (*slot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.New("the program is stopping")
	}
	s := d.slots[ep.key]
	if s == nil {
		s = &slot{destination: d, key: ep.key, guard: d.guard}
		s.idle = time.AfterFunc(idleFor, s.reap)
		d.slots[ep.key] = s
	}
	return s, nil
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
