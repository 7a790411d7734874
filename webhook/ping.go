package webhook

import (
	"context"
	"net/http"
	"time"

	"github.com/rowhook/rowhook/trigger"
)

// NewHeartbeat returns an endpoint for Ping: a URL that is called by GET. See NewEndpoint.
func NewHeartbeat(url string, timeout time.Duration, lookup func(string) (string, bool)) (*Endpoint, error) {
	ep, err := NewEndpoint(trigger.Webhook{URL: url, Timeout: trigger.Duration(timeout)}, lookup)
	if err == nil {
		ep.request.Method = http.MethodGet
		delete(ep.header, "Content-Type")
	}
	return ep, err
}

// Ping calls a heartbeat once. Its Result is delivered if the answer has a 2xx status.
func (c *Client) Ping(ctx context.Context, ep *Endpoint) Result {
	r := Result{StartedAt: time.Now()}
	s := c.scratch.Get().(*scratch)
	s.most = c.keep + ep.scrub.longest()
	if c.ready(ctx, ep, &r) {
		c.exchange(ctx, ep, withHeader(ctx, ep.headerFor(c.agent)), nil, s, &r)
	}
	c.release(s, &r)
	r.Duration = time.Since(r.StartedAt)
	return r
}
