package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// HeaderBatch is the header of a request whose body is an array of events. Its value is their
// number.
const HeaderBatch = "Rowhook-Batch"

// MaxVerdict is how many bytes of the response to a batch are read. A list of 25,000 ids fits.
const MaxVerdict = 1 << 20

// BatchID returns the webhook-id of a batch: batch_ and 32 hexadecimal digits, which are the first
// half of the SHA-256 of the events' ids in their order. So it is the same when the same events are
// sent again.
func BatchID(events []*Event) string {
	hash := sha256.New()
	for _, e := range events {
		hash.Write(e.ID[:])
	}
	sum := hash.Sum(nil)
	return "batch_" + hex.EncodeToString(sum[:16])
}

// AppendBatch appends the request body of a batch to dst and returns the extended slice: a JSON
// array of the bodies that AppendBody writes.
func AppendBatch(dst []byte, events []*Event) []byte {
	dst = append(dst, '[')
	for i, e := range events {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendBody(dst, e)
	}
	return append(dst, ']')
}

// SendBatch makes one attempt to send events of one trigger in one request. See Send.
//
// If the receiver answered with a 2xx status, failed holds the places of the events that its
// response lists under failed: these were not delivered, and the others were. A response that can't
// be understood fails the whole batch: the Result has KindBadAnswer and the status.
func (c *Client) SendBatch(ctx context.Context, ep *Endpoint, events []*Event) (r Result, failed []int) {
	r.StartedAt = time.Now()
	s := c.scratch.Get().(*scratch)
	s.most = max(c.keep+ep.scrub.longest(), MaxVerdict)
	c.sendBatch(ctx, ep, events, s, &r)
	if r.Delivered() {
		var err error
		if failed, err = s.verdict(events); err != nil {
			r.Kind = KindBadAnswer
			r.Err = ep.scrub.text(oneLine(fmt.Sprintf("answered %d, but %v: all events of the batch count as failed", r.Status, err)))
		}
	}
	c.release(s, &r)
	r.Duration = time.Since(r.StartedAt)
	return r, failed
}

func (c *Client) sendBatch(ctx context.Context, ep *Endpoint, events []*Event, s *scratch, r *Result) {
	if !c.ready(ctx, ep, r) {
		return
	}
	m, bad := c.make(ctx, ep, parcel{batch: events}, nil, r.StartedAt, s)
	if bad != nil {
		bad.tell(r)
		return
	}
	c.exchange(ctx, ep, m, s, r)
}

// Rejected returns the Result of an event that the response to its batch lists under failed.
func (r *Result) Rejected() Result {
	e := *r
	e.Kind, e.Err = KindRejected, fmt.Sprintf("answered %d, and the response lists this event under failed", r.Status)
	return e
}
