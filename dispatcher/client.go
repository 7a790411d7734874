package dispatcher

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rowhook/rowhook/webhook"
)

// client calls the endpoints of one dispatcher. Dispatchers that share use one [webhook.Client] as long
// as their guards are the same: a connection that was made under one guard is not used under another.
type client struct {
	pool *clients
	now  atomic.Pointer[guardedClient] // nil: guard was not called yet, or close was
}

// clients are those of all dispatchers that share.
type clients struct {
	make func(webhook.Guard) *webhook.Client

	mu  sync.Mutex
	all []*guardedClient
}

// guardedClient is the client of those whose guard is the same. The mutex of clients guards guard and
// users.
type guardedClient struct {
	*webhook.Client

	guard webhook.Guard
	users int
}

// guard says which addresses may be called from now on.
func (c *client) guard(g webhook.Guard) {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	was := c.now.Load()
	if was != nil && was.guard.Equal(g) {
		return
	}
	i := slices.IndexFunc(p.all, func(other *guardedClient) bool { return other.guard.Equal(g) })
	if i < 0 && was != nil && was.users == 1 {
		was.guard = g
		was.SetGuard(g)
		return
	}
	if i < 0 {
		i = len(p.all)
		p.all = append(p.all, &guardedClient{Client: p.make(g), guard: g})
	}
	p.all[i].users++
	c.now.Store(p.all[i])
	p.drop(was)
}

// close ends the use of the client, and closes its idle connections if nobody else uses it.
func (c *client) close() {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	c.pool.drop(c.now.Swap(nil))
}

// drop ends one use of a client. The mutex is held.
func (p *clients) drop(c *guardedClient) {
	if c == nil {
		return
	}
	if c.users--; c.users > 0 {
		return
	}
	p.all = slices.DeleteFunc(p.all, func(other *guardedClient) bool { return other == c })
	c.Close()
}

// Prepare is that of [webhook.Client].
func (c *client) Prepare(ep *webhook.Endpoint) error { return c.now.Load().Prepare(ep) }

// Send is that of [webhook.Client].
func (c *client) Send(ctx context.Context, ep *webhook.Endpoint, e *webhook.Event, body []byte) webhook.Result {
	return c.now.Load().Send(ctx, ep, e, body)
}

// SendBatch is that of [webhook.Client].
func (c *client) SendBatch(ctx context.Context, ep *webhook.Endpoint, events []*webhook.Event) (webhook.Result, []int) {
	return c.now.Load().SendBatch(ctx, ep, events)
}

// Ping is that of [webhook.Client].
func (c *client) Ping(ctx context.Context, ep *webhook.Endpoint) webhook.Result {
	return c.now.Load().Ping(ctx, ep)
}
