package sink

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The headers by which a request says which event it is of, if its body does not: that of a trigger with
// a template, a form, or a method without a body. Package sandbox has triggers send them.
const (
	HeaderEvent     = "Rowhook-Sink-Event"      // the event's id
	HeaderTrigger   = "Rowhook-Sink-Trigger"    // its trigger
	HeaderOp        = "Rowhook-Sink-Op"         // INSERT, UPDATE, DELETE, TRUNCATE or MANUAL
	HeaderSchema    = "Rowhook-Sink-Schema"     // that of its table
	HeaderTable     = "Rowhook-Sink-Table"      // without its schema
	HeaderCreatedAt = "Rowhook-Sink-Created-At" // as in a body
	HeaderAttempt   = "Rowhook-Sink-Attempt"    // from 1
)

// Told returns the headers above with placeholders for what they hold.
func Told() map[string]string {
	return map[string]string{
		HeaderEvent: "$id", HeaderTrigger: "$trigger", HeaderOp: "$event.op", HeaderSchema: "$table.schema", HeaderTable: "$table.name",
		HeaderCreatedAt: "$created_at", HeaderAttempt: "$attempt",
	}
}

// Untold removes the headers above.
func Untold(h http.Header) {
	for name := range Told() {
		h.Del(name)
	}
}

// isTold reports whether a request says by headers which event it is of.
func isTold(h http.Header) bool { return h.Get(HeaderEvent) != "" }

// parseTold reads the headers of a request, and keeps its method and its address.
func (d *Delivery) parseTold(r *http.Request) (err error) {
	h := r.Header
	d.ID, d.Trigger, d.Op, d.Schema, d.Table = h.Get(HeaderEvent), h.Get(HeaderTrigger), h.Get(HeaderOp), h.Get(HeaderSchema), h.Get(HeaderTable)
	if d.CreatedAt, err = time.Parse(time.RFC3339Nano, h.Get(HeaderCreatedAt)); err != nil {
		return errors.New("the header " + HeaderCreatedAt + " is not a time")
	}
	attempt, _ := strconv.Atoi(h.Get(HeaderAttempt))
	d.CurrentRetry = max(attempt-1, 0)
	if !d.readID() {
		return errors.New("the header " + HeaderEvent + " is not a UUID")
	}
	d.Method = r.Method
	d.Behind = strings.TrimPrefix(r.URL.EscapedPath(), "/"+url.PathEscape(d.Trigger))
	if r.URL.RawQuery != "" {
		d.Behind += "?" + r.URL.RawQuery
	}
	return nil
}

// Target returns the address to which a delivery is passed on: base, with what the trigger's own
// request has behind it.
func (d *Delivery) Target(base string) string {
	if d.Behind == "" {
		return base
	}
	path, query, _ := strings.Cut(d.Behind, "?")
	before, own, _ := strings.Cut(base, "?")
	if path != "" {
		before = strings.TrimRight(before, "/")
	}
	if query = strings.Trim(own+"&"+query, "&"); query != "" {
		query = "?" + query
	}
	return before + path + query
}
