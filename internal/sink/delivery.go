package sink

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Delivery is a POST that arrived.
type Delivery struct {
	// Sequence numbers the deliveries in the order in which they were recorded, from 1. It goes on
	// after a Clear.
	Sequence   uint64    `json:"sequence"`
	ReceivedAt time.Time `json:"received_at"`
	Path       string    `json:"path"`
	// Attempt counts this event's arrivals at this path, from 1. 0: it is no event.
	Attempt   int  `json:"attempt"`
	Duplicate bool `json:"duplicate,omitempty"` // accepted now and before
	// Status is the HTTP status of the response; 0: no response.
	Status  int    `json:"status"`
	Problem string `json:"problem,omitempty"` // why it was rejected
	Note    string `json:"note,omitempty"`    // that of Response
	// Signature is what the sink knows of the request's signature, and SignatureProblem says why it
	// is invalid.
	Signature        Signature `json:"signature"`
	SignatureProblem string    `json:"signature_problem,omitempty"`

	// These fields come from the body.
	ID           string    `json:"id"`
	CreatedAt    time.Time `json:"created_at,omitzero"`
	Op           string    `json:"op"`
	Schema       string    `json:"schema"`
	Table        string    `json:"table"`
	Trigger      string    `json:"trigger"`
	CurrentRetry int       `json:"current_retry"`
	MaxRetries   int       `json:"max_retries"`
	Test         bool      `json:"test,omitempty"` // made up by rowhook test

	// Header and Body are the request's. Body has the bytes that arrived, decompressed. The JSON
	// form omits a body that is not JSON.
	Header http.Header     `json:"headers"`
	Body   json.RawMessage `json:"body"`

	// Method is that of a request whose headers say which event it is of; "": POST. Behind is what its
	// path and query have behind the name of the trigger.
	Method string `json:"-"`
	Behind string `json:"-"`

	key    [16]byte // ID
	reused bool     // the connection had a request before
}

// Accepted reports whether the response was 2xx.
func (d *Delivery) Accepted() bool { return d.Status/100 == 2 }

// Latency returns the time from the row's change, by the database's clock, to the arrival, by this
// machine's clock.
func (d *Delivery) Latency() time.Duration { return d.ReceivedAt.Sub(d.CreatedAt) }

// Old returns the row before the change as it arrived; nil if null. It parses the body.
func (d *Delivery) Old() json.RawMessage {
	old, _ := d.rows()
	return old
}

// New returns the row after the change as it arrived; nil if null. It parses the body.
func (d *Delivery) New() json.RawMessage {
	_, new := d.rows()
	return new
}

// rows returns the row before and after the change. A delivery does not hold them, since they would
// double its memory.
func (d *Delivery) rows() (old, new json.RawMessage) {
	if d.Op == "" && !json.Valid(d.Body) {
		return nil, nil // it was rejected
	}
	old, _ = rootIn(d.Body, "old")
	new, _ = rootIn(d.Body, "new")
	return orNil(old), orNil(new)
}

// MarshalJSON writes the fields and latency_ms.
func (d Delivery) MarshalJSON() ([]byte, error) {
	type plain Delivery
	v := struct {
		plain
		Latency float64 `json:"latency_ms"`
	}{plain: plain(d)}
	if !d.CreatedAt.IsZero() {
		v.Latency = milliseconds(d.Latency())
	}
	if !json.Valid(d.Body) {
		v.Body = nil
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return out.Bytes(), err
}

// parse reads d.Body as an event.
func (d *Delivery) parse() error {
	if d.isCloudEvent() {
		return d.parseCloudEvent()
	}
	var body struct {
		SpecVersion string `json:"specversion"` // of a CloudEvent

		ID        string    `json:"id"`
		CreatedAt time.Time `json:"created_at"`
		Table     struct {
			Schema string `json:"schema"`
			Name   string `json:"name"`
		} `json:"table"`
		Trigger struct {
			Name string `json:"name"`
		} `json:"trigger"`
		Event struct {
			Op string `json:"op"`
		} `json:"event"`
		Test bool `json:"test"`
		Info struct {
			CurrentRetry int `json:"current_retry"`
			MaxRetries   int `json:"max_retries"`
		} `json:"delivery_info"`
	}
	if err := json.Unmarshal(d.Body, &body); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return fmt.Errorf("the body is not JSON from byte %d on: %w", syntax.Offset, err)
		}
		return fmt.Errorf("the body is JSON, but not an event: %w", err)
	}
	if body.SpecVersion != "" {
		return d.parseCloudEvent()
	}
	d.ID, d.CreatedAt, d.Op = body.ID, body.CreatedAt, body.Event.Op
	d.Schema, d.Table, d.Trigger = body.Table.Schema, body.Table.Name, body.Trigger.Name
	d.CurrentRetry, d.MaxRetries = body.Info.CurrentRetry, body.Info.MaxRetries
	d.Test = body.Test
	switch {
	case !d.readID():
		return errors.New("the body is JSON, but not an event: id is not a UUID")
	case d.Op == "":
		return errors.New("the body is JSON, but not an event: event.op is missing")
	case d.CreatedAt.IsZero():
		return errors.New("the body is JSON, but not an event: created_at is missing")
	}
	return nil
}

// readID parses the id into d.key. It accepts lower case only, as Postgres writes it.
func (d *Delivery) readID() bool {
	if len(d.ID) != 36 || strings.ToLower(d.ID) != d.ID {
		return false
	}
	for _, i := range []int{8, 13, 18, 23} {
		if d.ID[i] != '-' {
			return false
		}
	}
	key, err := hex.DecodeString(strings.ReplaceAll(d.ID, "-", ""))
	return err == nil && copy(d.key[:], key) == len(d.key)
}

func orNil(raw json.RawMessage) json.RawMessage {
	if string(raw) == "null" {
		return nil
	}
	return raw
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}
