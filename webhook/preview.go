package webhook

import (
	"context"
	"maps"
	"net/http"
	"time"

	"github.com/rowhook/rowhook/trigger"
)

// Preview is a request as it would be sent, for people.
type Preview struct {
	Method string
	// URL is like Template, with the data of the event in it.
	URL string
	// Template is the URL as Endpoint.String returns it.
	Template string
	// Header holds the headers of Rowhook and of the configuration as a JSON object, like
	// Result.Header. Credentials are redacted, and values from the environment are replaced by
	// their references.
	Header []byte
	// Body holds references in the place of values from the environment. It is JSON, but for the
	// body of a form, and empty if there is none.
	Body []byte
}

// Preview returns the request that Send would make for e now. It sends nothing. The endpoint must
// have no Problem. An error says why no request can be made of this event.
func (c *Client) Preview(ep *Endpoint, e *Event) (Preview, error) {
	return c.preview(ep, parcel{event: e})
}

// PreviewBatch is Preview for the request that SendBatch would make.
func (c *Client) PreviewBatch(ep *Endpoint, events []*Event) (Preview, error) {
	return c.preview(ep, parcel{batch: events})
}

func (c *Client) preview(ep *Endpoint, p parcel) (Preview, error) {
	s := newScratch()
	m, bad := c.make(context.Background(), ep, p, nil, time.Now(), s)
	if bad != nil {
		return Preview{}, bad
	}
	if m.plain != nil {
		m.body = m.plain
	}
	header := maps.Clone(m.header)
	maps.DeleteFunc(header, func(_ string, values []string) bool { return len(values) == 0 })
	if ep.issuer != nil {
		header["Authorization"] = []string{redacted}
	}
	if ep.request.Host != ep.request.URL.Host {
		header["Host"] = []string{ep.request.Host}
	}
	shown, _, _ := appendHeader(nil, header, &ep.scrub, nil, nil)
	return Preview{Method: ep.request.Method, URL: ep.shownFor(s), Template: ep.shown, Header: shown, Body: ep.shownBody(m.body)}, nil
}

// shownBody returns a body for people. The body of an endpoint without a template holds nothing from
// the environment.
func (ep *Endpoint) shownBody(body []byte) []byte {
	if !ep.expandsBody {
		return body
	}
	return scrubbed(&ep.scrub, nil, body, len(body))
}

// Unexpanded returns the request for an event, or for a batch of it alone, as the configuration says.
// References to the environment are not expanded, and there is no signature. Its headers are those of
// the configuration. It is for programs that do not have the dispatcher's environment.
func Unexpanded(w trigger.Webhook, e *Event, batch bool) (Preview, map[string]string, error) {
	// The URL can often not be parsed without the environment, and it is not needed.
	ep, _ := NewEndpointFrom(w, func(name string) (string, error) { return "${" + name + "}", nil })
	p := Preview{Method: methodOf(&w), URL: ep.shown, Template: ep.shown}
	s := newScratch()
	of := parcel{event: e}
	if batch {
		of = parcel{batch: []*Event{e}}
	}
	if ep.templates != nil {
		if bad := s.fill(ep, e); bad != nil {
			return p, nil, bad
		}
	}
	p.URL = ep.shownFor(s)
	headers := maps.Clone(w.Headers)
	if of := ep.ownHeader(of); len(of) > 0 {
		if headers == nil {
			headers = map[string]string{}
		}
		for name, values := range of {
			headers[name] = values[0]
		}
	}
	for _, t := range ep.headers {
		for name := range headers {
			if http.CanonicalHeaderKey(name) == t.name {
				headers[name] = string(t.value.Append(nil, &s.values))
			}
		}
	}
	body, bad := s.build(ep, of, nil)
	if bad != nil {
		return p, nil, bad
	}
	p.Body = body
	return p, headers, nil
}

// ownHeader returns the headers that the format of an endpoint adds, but for those that the
// configuration has.
func (ep *Endpoint) ownHeader(p parcel) http.Header {
	h := http.Header{}
	if ep.format == nil {
		return h
	}
	if kind := ep.format.contentType(p.batch != nil); kind != jsonType && kind != "" {
		h["Content-Type"] = []string{kind}
	}
	if p.batch == nil {
		ep.format.header(h, p.event)
	}
	maps.DeleteFunc(h, func(name string, _ []string) bool { return ep.given[name] })
	return h
}

// Error says why no request can be made of an event.
func (f *refusal) Error() string { return f.err }
