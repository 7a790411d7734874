package webhook

import (
	"context"
	"time"

	"github.com/rowhook/rowhook/trigger"
)

// NewHeartbeat returns an endpoint for Ping: a URL that is called by GET. See NewEndpoint.
func NewHeartbeat(url string, timeout time.Duration, lookup func(string) (string, bool)) (*Endpoint, error) {
	return NewHeartbeatFrom(url, timeout, trigger.Variables(lookup))
}

// NewHeartbeatFrom is NewHeartbeat with what a source gives out. See NewEndpointFrom.
func NewHeartbeatFrom(url string, timeout time.Duration, source trigger.Source) (*Endpoint, error) {
	return NewEndpointFrom(trigger.Webhook{URL: url, Method: trigger.MethodGet, Timeout: trigger.Duration(timeout)}, source)
}

// Ping calls a heartbeat once. Its Result is delivered if the answer has a 2xx status.
func (c *Client) Ping(ctx context.Context, ep *Endpoint) Result {
	r := Result{StartedAt: time.Now()}
	s := c.scratch.Get().(*scratch)
	s.most = c.keep + ep.scrub.longest()
	if c.ready(ctx, ep, &r) {
		c.exchange(ctx, ep, made{url: ep.request.URL, header: withHeader(ctx, ep.headerFor(c.agent))}, s, &r)
	}
	c.release(s, &r)
	r.Duration = time.Since(r.StartedAt)
	return r
}
