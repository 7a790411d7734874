package webhook

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/rowhook/rowhook/internal/template"
)

// A request is made in steps, and each uses what those before it have made:
//
//  1. The endpoint's format makes the body.
//  2. The URL and the header are made. Most endpoints have the same for each event.
//  3. The signature is made, over the body.
//  4. A large body is compressed, where the configuration asks for that.

// parcel is what one request is about: an event, or a batch of events.
type parcel struct {
	event *Event
	batch []*Event // nil: event alone
}

// id returns the webhook-id of a request.
func (p parcel) id() string {
	if p.batch != nil {
		return BatchID(p.batch)
	}
	return string(appendUUID(make([]byte, 0, 36), p.event.ID))
}

// traced returns the event whose trace a request continues; nil: there is none.
func (p parcel) traced() *Event {
	e := p.event
	if len(p.batch) > 0 {
		e = p.batch[0]
	}
	if e == nil || len(e.Trace) == 0 {
		return nil
	}
	return e
}

// isTest reports whether one of the events was made up.
func (p parcel) isTest() bool {
	if p.batch == nil {
		return p.event.Test
	}
	return slices.ContainsFunc(p.batch, func(e *Event) bool { return e.Test })
}

// made is a request that is ready to be sent.
type made struct {
	url    *url.URL    // read only
	header http.Header // read only
	body   []byte
	plain  []byte // the body before it was compressed; nil: it was not
}

// format makes the bodies of an endpoint that has others than AppendBody makes.
type format interface {
	// appendBody appends the body of one event. v has what the endpoint's templates read of it.
	appendBody(dst []byte, e *Event, v *template.Values) []byte
	// contentType returns that of one body, or of a batch, which is a JSON array of bodies. "": none.
	contentType(batch bool) string
	// header adds what only this event has to the header of a request for it alone. The headers of the
	// configuration take precedence.
	header(h http.Header, e *Event)
	// size estimates the length of a body.
	size(e *Event) int
}

// wholeFormat is a format whose bodies hold the whole event, so that their length is known.
type wholeFormat interface {
	exactSize(e *Event) int
}

// holdsEvent reports whether a body holds the whole event.
func (ep *Endpoint) holdsEvent() bool {
	_, whole := ep.format.(wholeFormat)
	return whole || ep.format == nil
}

// refusal says why no request can be made of an event.
type refusal struct {
	kind Kind
	err  string
}

func (f *refusal) tell(r *Result) { r.Kind, r.Err, r.Hopeless = f.kind, f.err, true }

// make makes the request for a parcel. given is the body if it is not nil.
func (c *Client) make(ctx context.Context, ep *Endpoint, p parcel, given []byte, at time.Time, s *scratch) (made, *refusal) {
	if ep.templates != nil && p.batch == nil {
		if bad := s.fill(ep, p.event); bad != nil {
			return made{}, bad
		}
	}
	m := made{url: ep.request.URL}
	var bad *refusal
	if m.body, bad = c.body(ep, p, given, s); bad != nil {
		return made{}, bad
	}
	if ep.target != nil {
		if m.url, bad = ep.target.url(m.url, &s.values); bad != nil {
			return made{}, bad
		}
	}
	if m.header, bad = c.header(ctx, ep, p, s); bad != nil {
		return made{}, bad
	}
	if ep.signer != nil {
		m.header = ep.signer.signedHeader(m.header, p.id(), at, m.body)
	}
	if ep.compress && len(m.body) > compressAbove {
		c.compress(&m, s)
	}
	return m, nil
}

// fill reads what the templates of an endpoint need of an event.
func (s *scratch) fill(ep *Endpoint, e *Event) *refusal {
	if err := ep.templates.Read(&s.values, (*source)(e)); err != nil {
		return &refusal{KindBadPayload, fmt.Sprintf("the payload can't be put into the request: %v", err)}
	}
	return nil
}

// body makes the body of a request, in the memory of s.
func (c *Client) body(ep *Endpoint, p parcel, given []byte, s *scratch) ([]byte, *refusal) {
	size := max(len(given), p.dataSize())
	if p.batch == nil && ep.holdsEvent() && c.tooLarge(size) {
		return nil, c.oversized(p, size)
	}
	body, bad := s.build(ep, p, given)
	if bad == nil && c.tooLarge(len(body)) {
		bad = c.oversized(p, len(body))
	}
	return body, bad
}

// dataSize is a length that the body of a single event has at least.
func (p parcel) dataSize() int {
	if p.batch != nil {
		return 0
	}
	return len(p.event.Old) + len(p.event.New) + len(p.event.Session) + len(p.event.Trace)
}

func (c *Client) tooLarge(size int) bool { return c.maxRequest > 0 && size > c.maxRequest }

func (c *Client) oversized(p parcel, size int) *refusal {
	if p.batch != nil {
		return &refusal{KindTooLarge, fmt.Sprintf("the batch's body of %d bytes is over the limit of %d: raise --max-body, or lower the trigger's batch.bytes", size, c.maxRequest)}
	}
	return &refusal{KindTooLarge, fmt.Sprintf("the event's body of %d bytes is over the limit of %d: raise --max-body, or leave large columns out of the trigger's payload.columns", size, c.maxRequest)}
}

// build returns the body to send: given, or that of the parcel if given is nil.
func (s *scratch) build(ep *Endpoint, p parcel, given []byte) ([]byte, *refusal) {
	if given == nil {
		size := ep.bodySize(p)
		s.request = slices.Grow(s.request[:0], size)
		if ep.format == nil {
			s.request = appendHasura(s.request, p)
		} else if bad := s.appendFormat(ep, p); bad != nil {
			return nil, bad
		}
		return s.request, nil
	}
	return given, nil
}

func appendHasura(dst []byte, p parcel) []byte {
	if p.batch != nil {
		return AppendBatch(dst, p.batch)
	}
	return AppendBody(dst, p.event)
}

// appendFormat appends the body of an endpoint with a format to s.request.
func (s *scratch) appendFormat(ep *Endpoint, p parcel) *refusal {
	if p.batch == nil {
		s.request = ep.format.appendBody(s.request, p.event, &s.values)
		return nil
	}
	s.request = append(s.request, '[')
	for i, e := range p.batch {
		if i > 0 {
			s.request = append(s.request, ',')
		}
		if ep.templates != nil {
			if bad := s.fill(ep, e); bad != nil {
				return bad
			}
		}
		s.request = ep.format.appendBody(s.request, e, &s.values)
	}
	s.request = append(s.request, ']')
	return nil
}

// bodySize estimates the length of a body.
func (ep *Endpoint) bodySize(p parcel) int {
	size := func(e *Event) int {
		if ep.format != nil {
			return ep.format.size(e)
		}
		return e.size()
	}
	if p.batch == nil {
		return size(p.event)
	}
	all := 2
	for _, e := range p.batch {
		all += size(e) + 1
	}
	return all
}

// BodySize returns the length of the body of an event, or of its part of a batch. Of a form it is
// an estimate. A nil endpoint has bodies as AppendBody makes them.
func (ep *Endpoint) BodySize(e *Event) int {
	if ep == nil || ep.format == nil {
		return e.BodySize()
	}
	if exact, ok := ep.format.(wholeFormat); ok {
		return exact.exactSize(e)
	}
	body, ok := ep.format.(bodyTemplate)
	if !ok {
		return ep.format.size(e)
	}
	s, _ := ep.sizer.Get().(*scratch)
	if s == nil {
		s = &scratch{}
	}
	defer ep.sizer.Put(s)
	if ep.templates != nil && s.fill(ep, e) != nil {
		return ep.format.size(e)
	}
	s.request = body.appendBody(s.request[:0], e, &s.values)
	size := len(s.request)
	if cap(s.request) > keepBuffer {
		s.request = nil
	}
	return size
}

// header makes the header of a request, without its signature. Callers must not change it.
func (c *Client) header(ctx context.Context, ep *Endpoint, p parcel, s *scratch) (http.Header, *refusal) {
	h := withHeader(ctx, ep.headerFor(c.agent))
	if e := p.traced(); e != nil {
		h = withTrace(h, ep.given, e)
	}
	test := p.isTest()
	if !test && p.batch == nil && ep.format == nil && len(ep.headers) == 0 {
		return h, nil
	}
	h = maps.Clone(h)
	if p.batch != nil {
		h[HeaderBatch] = []string{strconv.Itoa(len(p.batch))}
	}
	if test {
		h[HeaderTest] = []string{"1"}
	}
	if ep.format != nil {
		ep.formatHeader(h, p)
	}
	for _, t := range ep.headers {
		value := t.value.Append(nil, &s.values)
		if len(value) > mostHeader {
			return nil, &refusal{KindTooLarge, fmt.Sprintf("the header %s has %d bytes with the data of this event, and %d are allowed", t.name, len(value), mostHeader)}
		}
		h[t.name] = []string{string(bytes.Trim(value, " \t"))}
	}
	return h, nil
}

// formatHeader adds the headers of a format, but for those of the configuration.
func (ep *Endpoint) formatHeader(h http.Header, p parcel) {
	if p.batch == nil {
		ep.format.header(h, p.event)
	} else if kind := ep.format.contentType(true); kind != "" {
		h["Content-Type"] = []string{kind}
	}
	for name := range ep.given {
		if values, ok := ep.header[name]; ok {
			h[name] = values
		}
	}
}

// mostHeader and mostURL bound what data can make of a header and a URL, in bytes. A receiver rejects
// longer ones, and some close the connection instead of an answer, which would count against the
// endpoint.
const (
	mostHeader = 16 << 10
	mostURL    = 16 << 10
)

// headerTemplate is a header whose value has data of the event.
type headerTemplate struct {
	name  string // canonical
	value *template.Text
}

// source is an event for templates.
type source Event

// Rows returns the JSON of an event.
func (s *source) Rows() (old, new, session, trace []byte) {
	return s.Old, s.New, s.Session, s.Trace
}

// AppendDatum appends a part of an event that is not in its rows, as JSON.
func (s *source) AppendDatum(dst []byte, d template.Datum) []byte {
	e := (*Event)(s)
	switch d {
	case template.ID:
		dst = append(dst, '"')
		return append(appendUUID(dst, e.ID), '"')
	case template.CreatedAt:
		dst = append(dst, '"')
		return append(e.CreatedAt.UTC().AppendFormat(dst, createdAtLayout), '"')
	case template.Sequence:
		if e.Sequence == 0 {
			return append(dst, "null"...)
		}
		return strconv.AppendInt(dst, e.Sequence, 10)
	case template.Attempt:
		return strconv.AppendInt(dst, int64(e.CurrentRetry)+1, 10)
	case template.Trigger:
		return template.AppendString(dst, e.Trigger)
	case template.Table:
		return template.AppendString(dst, e.Schema+"."+e.Table)
	case template.TableSchema:
		return template.AppendString(dst, e.Schema)
	case template.TableName:
		return template.AppendString(dst, e.Table)
	case template.Op:
		return template.AppendString(dst, e.OpName())
	case template.Changed:
		return appendRaw(dst, e.Changed)
	case template.Data:
		return appendData(dst, e)
	case template.Whole:
	}
	return appendEvent(dst, e)
}
