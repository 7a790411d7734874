package rowhooktest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/sink"
)

// Event is an event as it arrived, or as a transaction has recorded it.
type Event struct {
	ID        string    // the same at every attempt
	Trigger   string    // its name
	Op        string    // INSERT, UPDATE, DELETE, TRUNCATE or MANUAL
	Table     string    // schema.table
	CreatedAt time.Time // when the row was changed, by the server's clock

	// Old and New are the row before and after, or the parts that the trigger's payload has; nil
	// where there is none.
	Old, New json.RawMessage

	// The rest is that of the delivery, and zero for an event that is only recorded.

	Attempt int // number of the attempt, from 1
	Status  int // of the response; 0: there was none
	Header  http.Header
	Body    json.RawMessage // the bytes that arrived, decompressed, or that the first attempt would send
	// Signature says whether the request was signed with the trigger's secret: Valid, Invalid,
	// or None if it has no signature. SignatureProblem says why it is invalid.
	Signature        Signature
	SignatureProblem string
	ReceivedAt       time.Time

	sequence uint64
}

// Signature is what is known of the signature of a request.
type Signature string

// The verdicts on a signature. A request of a trigger without a secret has none.
const (
	Valid   Signature = Signature(sink.Valid)
	Invalid Signature = Signature(sink.Invalid)
	None    Signature = Signature(sink.None)
)

func newEvent(d *sink.Delivery) Event {
	return Event{
		ID: d.ID, Trigger: d.Trigger, Op: d.Op, Table: d.Schema + "." + d.Table, CreatedAt: d.CreatedAt, Old: d.Old(), New: d.New(),
		Attempt: d.Attempt, Status: d.Status, Header: d.Header, Body: d.Body, Signature: Signature(d.Signature),
		SignatureProblem: d.SignatureProblem, ReceivedAt: d.ReceivedAt, sequence: d.Sequence,
	}
}

// Decode decodes the row after the change into v, as [json.Unmarshal] does; that before it, if the
// row was deleted.
func (e Event) Decode(v any) error {
	row := e.New
	if row == nil {
		row = e.Old
	}
	if row == nil {
		return errors.New("the event has neither an old nor a new row")
	}
	return json.Unmarshal(row, v)
}

// Get returns the value at a path, as for [Path]: a string, a bool, nil, a map, a slice, an int for
// a whole number, and a [json.Number] with every digit for any other. It returns nil if there is no
// value, too; [Has] tells. It panics if the path is malformed.
func (e Event) Get(path string) any {
	raw, err := sink.Lookup(e.Body, path)
	if err != nil {
		panic(fmt.Sprintf("rowhooktest: Get: %v", err))
	}
	if raw == nil {
		return nil
	}
	in := json.NewDecoder(strings.NewReader(string(raw)))
	in.UseNumber()
	var v any
	if err := in.Decode(&v); err != nil {
		return nil
	}
	return whole(v)
}

// whole makes whole numbers ints, so that they compare with constants.
func whole(v any) any {
	switch v := v.(type) {
	case json.Number:
		var n int
		if json.Unmarshal([]byte(v), &n) == nil {
			return n
		}
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = whole(v[key])
		}
	}
	return v
}

// String describes the event in a line.
func (e Event) String() string {
	row := e.New
	if row == nil {
		row = e.Old
	}
	return fmt.Sprintf("%s %s %s %s", e.Trigger, e.Op, e.Table, row)
}

func lastElement(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
