package webhook

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/template"
)

// The content types of requests whose format is CloudEvents.
const (
	contentTypeCloudEvent = "application/cloudevents+json"
	contentTypeCloudBatch = "application/cloudevents-batch+json"
)

// AppendCloudEvent appends e as a CloudEvent 1.0 in its JSON format to dst and returns the extended
// slice:
//
//	{"specversion":"1.0","id":ID,"source":"/rowhook/TRIGGER","type":"rowhook.TRIGGER.OP",
//	 "subject":"SCHEMA.TABLE","time":CREATED_AT,"datacontenttype":"application/json","data":DATA}
//
// Where there are several databases, the name of the event's one stands before the trigger:
// /rowhook/SOURCE/TRIGGER. DATA is what AppendCloudEventData writes. Before it are extensions: sequence, of an ordered
// trigger, with 19 digits, since texts must sort in its order; traceparent and tracestate, where the
// writer's trace_context has them; and "rowhooktest":true for an event that was made up. OP is
// insert, update, delete, truncate or manual.
func AppendCloudEvent(dst []byte, e *Event) []byte {
	dst = append(dst, `{"specversion":"1.0","id":"`...)
	dst = appendUUID(dst, e.ID)
	dst = append(dst, `","source":"`...)
	dst = appendSource(dst, e)
	dst = append(dst, `","type":`...)
	var room [128]byte
	dst = template.AppendString(dst, appendType(room[:0], e))
	dst = append(dst, `,"subject":`...)
	dst = template.AppendString(dst, appendSubject(room[:0], e))
	dst = append(dst, `,"time":"`...)
	dst = e.CreatedAt.UTC().AppendFormat(dst, createdAtLayout)
	dst = append(dst, `","datacontenttype":"application/json"`...)
	if e.Sequence != 0 {
		dst = append(dst, `,"sequence":"`...)
		dst = appendSequence(dst, e)
		dst = append(dst, '"')
	}
	if c := ParseTraceContext(e.Trace); c.Parent != "" {
		dst = append(dst, `,"traceparent":`...)
		dst = template.AppendString(dst, c.Parent)
		if c.State != "" {
			dst = append(dst, `,"tracestate":`...)
			dst = template.AppendString(dst, c.State)
		}
	}
	if e.Test {
		dst = append(dst, `,"rowhooktest":true`...)
	}
	dst = append(dst, `,"data":`...)
	return append(AppendCloudEventData(dst, e), '}')
}

// AppendCloudEventData appends the data of a CloudEvent to dst and returns the extended slice. It
// is {"op":"INSERT","table":{"schema":...,"name":...},"old":...,"new":...,"session_variables":...,
// "trace_context":...}, with the values of AppendBody. If AppendBody writes changed, it is here, too,
// behind op.
func AppendCloudEventData(dst []byte, e *Event) []byte {
	dst = append(dst, `{"op":"`...)
	dst = append(dst, e.OpName()...)
	dst = append(dst, '"')
	dst = e.appendChanged(dst)
	dst = append(dst, `,"table":{"schema":`...)
	dst = template.AppendString(dst, e.Schema)
	dst = append(dst, `,"name":`...)
	dst = template.AppendString(dst, e.Table)
	dst = append(dst, `},"old":`...)
	dst = appendRaw(dst, e.Old)
	dst = append(dst, `,"new":`...)
	dst = appendRaw(dst, e.New)
	dst = append(dst, `,"session_variables":`...)
	dst = appendRaw(dst, e.Session)
	dst = append(dst, `,"trace_context":`...)
	dst = appendRaw(dst, e.Trace)
	return append(dst, '}')
}

// AppendCloudBatch appends events in the JSON batch format of CloudEvents to dst and returns the
// extended slice: an array of what AppendCloudEvent writes.
func AppendCloudBatch(dst []byte, events []*Event) []byte {
	dst = append(dst, '[')
	for i, e := range events {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendCloudEvent(dst, e)
	}
	return append(dst, ']')
}

// cloudEvents is the format of an endpoint with CloudEvents in the structured mode, and of batches.
type cloudEvents struct{}

func (cloudEvents) appendBody(dst []byte, e *Event, _ *template.Values) []byte {
	return AppendCloudEvent(dst, e)
}

func (cloudEvents) contentType(batch bool) string {
	if batch {
		return contentTypeCloudBatch
	}
	return contentTypeCloudEvent
}

func (cloudEvents) header(http.Header, *Event) {}

// size is an estimate, because the writer's trace context would have to be read.
func (cloudEvents) size(e *Event) int { return e.cloudEventDataSize() + 2*len(e.Trigger) + 512 }

func (cloudEvents) exactSize(e *Event) int { return e.cloudEventBodySize() }

// binaryCloudEvents is the format of an endpoint with CloudEvents in the binary mode.
type binaryCloudEvents struct{}

func (binaryCloudEvents) appendBody(dst []byte, e *Event, _ *template.Values) []byte {
	return AppendCloudEventData(dst, e)
}

func (binaryCloudEvents) contentType(bool) string        { return jsonType }
func (binaryCloudEvents) header(h http.Header, e *Event) { setCloudEvent(h, e) }
func (binaryCloudEvents) size(e *Event) int              { return e.cloudEventDataSize() }
func (binaryCloudEvents) exactSize(e *Event) int         { return e.cloudEventDataSize() }

// appendSource appends a URI reference, whatever the trigger's name is.
func appendSource(dst []byte, e *Event) []byte {
	dst = append(dst, "/rowhook/"...)
	if e.Source != "" {
		dst = append(appendSegment(dst, e.Source), '/')
	}
	return appendSegment(dst, e.Trigger)
}

// appendSegment appends a name as a segment of a path.
func appendSegment(dst []byte, name string) []byte {
	for i := range len(name) {
		c := name[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			dst = append(dst, c)
		} else {
			dst = appendPercent(dst, c)
		}
	}
	return dst
}

func appendType(dst []byte, e *Event) []byte {
	dst = append(dst, "rowhook."...)
	dst = appendAttribute(dst, e.Trigger)
	dst = append(dst, '.')
	n := len(dst)
	dst = append(dst, e.OpName()...)
	for i := n; i < len(dst); i++ {
		dst[i] |= 0x20 // a letter in lower case
	}
	return dst
}

func appendSubject(dst []byte, e *Event) []byte {
	dst = appendAttribute(dst, e.Schema)
	dst = append(dst, '.')
	return appendAttribute(dst, e.Table)
}

func appendSequence(dst []byte, e *Event) []byte {
	var room [20]byte
	digits := strconv.AppendInt(room[:0], e.Sequence, 10)
	const all = "0000000000000000000"
	return append(append(dst, all[min(len(digits), len(all)):]...), digits...)
}

// appendAttribute appends a text of an attribute. CloudEvents do not allow control characters and
// noncharacters in one, which the name of a table can have. They become U+FFFD.
func appendAttribute(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r < ' ' || 0x7F <= r && r <= 0x9F || 0xFDD0 <= r && r <= 0xFDEF || r&0xFFFE == 0xFFFE {
			r = utf8.RuneError
		}
		dst = utf8.AppendRune(dst, r)
		i += n
	}
	return dst
}

// appendPercent appends a byte in percent-encoding.
func appendPercent(dst []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(dst, '%', digits[c>>4], digits[c&15])
}

// cloudHeader is what the attributes of CloudEvents are in the headers of a request.
type cloudHeader struct {
	names []string
	ends  []int // in text
	text  []byte
}

// add ends the value of a header, of which the text so far is at from. It encodes it as the HTTP
// binding of CloudEvents says: by percent, except printable ASCII without blank, quote and percent.
func (c *cloudHeader) add(name string) {
	from := 0
	if len(c.ends) > 0 {
		from = c.ends[len(c.ends)-1]
	}
	plain := func(b byte) bool { return '!' <= b && b <= '~' && b != '"' && b != '%' }
	if value := c.text[from:]; slices.ContainsFunc(value, func(b byte) bool { return !plain(b) }) {
		value = slices.Clone(value)
		c.text = c.text[:from]
		for _, b := range value {
			if plain(b) {
				c.text = append(c.text, b)
			} else {
				c.text = appendPercent(c.text, b)
			}
		}
	}
	c.names, c.ends = append(c.names, name), append(c.ends, len(c.text))
}

// setCloudEvent sets the headers of e in the binary mode of CloudEvents: each attribute of
// AppendCloudEvent behind ce-.
func setCloudEvent(h http.Header, e *Event) {
	var text [384]byte
	var names [10]string
	var ends [10]int
	c := cloudHeader{names[:0], ends[:0], text[:0]}
	c.text = append(c.text, "1.0"...)
	c.add("Ce-Specversion")
	c.text = appendUUID(c.text, e.ID)
	c.add("Ce-Id")
	c.text = appendSource(c.text, e)
	c.add("Ce-Source")
	c.text = appendType(c.text, e)
	c.add("Ce-Type")
	c.text = appendSubject(c.text, e)
	c.add("Ce-Subject")
	c.text = e.CreatedAt.UTC().AppendFormat(c.text, createdAtLayout)
	c.add("Ce-Time")
	if e.Sequence != 0 {
		c.text = appendSequence(c.text, e)
		c.add("Ce-Sequence")
	}
	if t := ParseTraceContext(e.Trace); t.Parent != "" {
		c.text = append(c.text, t.Parent...)
		c.add("Ce-Traceparent")
		if t.State != "" {
			c.text = append(c.text, t.State...)
			c.add("Ce-Tracestate")
		}
	}
	if e.Test {
		c.text = append(c.text, "true"...)
		c.add("Ce-Rowhooktest")
	}
	all, values, from := string(c.text), make([]string, len(c.names)), 0
	for i, name := range c.names {
		values[i] = all[from:c.ends[i]]
		from = c.ends[i]
		h[name] = values[i : i+1 : i+1]
	}
}

// cloudEventBodySize returns the length of what AppendCloudEvent writes.
func (e *Event) cloudEventBodySize() int {
	const fixed = len(`{"specversion":"1.0","id":"","source":"","type":,"subject":,"time":"","datacontenttype":"application/json","data":}`) +
		36 + len(createdAtLayout)
	var room, quoted [160]byte
	n := fixed + e.cloudEventDataSize() + len(appendSource(room[:0], e)) +
		len(template.AppendString(quoted[:0], appendType(room[:0], e))) + len(template.AppendString(quoted[:0], appendSubject(room[:0], e)))
	if e.Sequence != 0 {
		n += len(`,"sequence":"0000000000000000000"`)
	}
	if c := ParseTraceContext(e.Trace); c.Parent != "" {
		n += len(`,"traceparent":""`) + len(c.Parent)
		if c.State != "" {
			n += len(`,"tracestate":`) + stringSize(c.State)
		}
	}
	if e.Test {
		n += len(`,"rowhooktest":true`)
	}
	return n
}

// cloudEventDataSize returns the length of what AppendCloudEventData writes.
func (e *Event) cloudEventDataSize() int {
	const fixed = len(`{"op":"","table":{"schema":,"name":},"old":,"new":,"session_variables":,"trace_context":}`)
	return fixed + len(e.OpName()) + stringSize(e.Schema) + stringSize(e.Table) + rawSize(e.Old) + rawSize(e.New) + rawSize(e.Session) + rawSize(e.Trace) +
		e.changedSize()
}
