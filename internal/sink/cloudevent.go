package sink

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// cloudRoots are roots of a CloudEvent. The body of one in the binary mode is its data alone.
var cloudRoots = map[string][]string{
	"new":               {"data", "new"},
	"old":               {"data", "old"},
	"op":                {"data", "op"},
	"session_variables": {"data", "session_variables"},
	"trace_context":     {"data", "trace_context"},
	"event":             {"data"},
	"id":                {"id"},
	"created_at":        {"time"},
	"table":             {"data", "table"},
	"test":              {"rowhooktest"},
}

// rootIn returns the value of a root in a body, which may be a CloudEvent.
func rootIn(body json.RawMessage, name string) (json.RawMessage, bool) {
	if value, found := steps(body, roots[name]); found {
		return value, true
	}
	keys := cloudRoots[name]
	if len(keys) == 0 {
		return nil, false
	}
	if _, cloud := step(body, "specversion"); cloud {
		return steps(body, keys)
	}
	if _, data := step(body, "op"); data && keys[0] == "data" {
		if len(keys) == 1 {
			return body, true
		}
		return steps(body, keys[1:])
	}
	return nil, false
}

// isCloudEvent reports whether a request is a CloudEvent of the binary mode.
func (d *Delivery) isCloudEvent() bool { return d.Header.Get("Ce-Specversion") != "" }

// ToPassOn returns the header and the body by which a delivery is passed on to a program that is made
// for the webhook. The body is compressed if it was. An event of a batch of CloudEvents is one
// CloudEvent.
func (d *Delivery) ToPassOn() (http.Header, []byte) {
	header, body := d.Header.Clone(), []byte(d.Body)
	Untold(header)
	if kind := header.Get("Content-Type"); strings.HasPrefix(kind, "application/cloudevents-batch") && !isBatch(body) {
		header.Set("Content-Type", strings.Replace(kind, "-batch", "", 1))
	}
	if header.Get("Content-Encoding") == "gzip" {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, _ = w.Write(body) // a buffer returns no error
		_ = w.Close()
		body = packed.Bytes()
		header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	return header, body
}

// cloudEvent is what a sink reads of a CloudEvent.
type cloudEvent struct {
	ID     string    `json:"id"`
	Source string    `json:"source"`
	Time   time.Time `json:"time"`
	Test   bool      `json:"rowhooktest"`
	Data   cloudData `json:"data"`
}

type cloudData struct {
	Op    string `json:"op"`
	Table struct {
		Schema string `json:"schema"`
		Name   string `json:"name"`
	} `json:"table"`
}

// parseCloudEvent reads a CloudEvent of Rowhook: by the headers, or by the body alone.
func (d *Delivery) parseCloudEvent() error {
	var e cloudEvent
	var err error
	if d.isCloudEvent() {
		value := func(name string) string {
			text, _ := url.PathUnescape(d.Header.Get("Ce-" + name))
			return text
		}
		e.ID, e.Source, e.Test = value("Id"), value("Source"), value("Rowhooktest") == "true"
		e.Time, _ = time.Parse(time.RFC3339, value("Time")) // zero is reported below
		err = json.Unmarshal(d.Body, &e.Data)
	} else {
		err = json.Unmarshal(d.Body, &e)
	}
	if err != nil {
		return fmt.Errorf("the request is a CloudEvent, but not one of Rowhook: %w", err)
	}
	d.ID, d.CreatedAt, d.Op, d.Test = e.ID, e.Time, e.Data.Op, e.Test
	d.Schema, d.Table = e.Data.Table.Schema, e.Data.Table.Name
	if name, ok := strings.CutPrefix(e.Source, "/rowhook/"); ok {
		d.Trigger, _ = url.PathUnescape(name)
	}
	switch {
	case !d.readID():
		return errors.New("the request is a CloudEvent, but not one of Rowhook: its id is not a UUID")
	case d.Op == "":
		return errors.New("the request is a CloudEvent, but not one of Rowhook: data.op is missing")
	case d.CreatedAt.IsZero():
		return errors.New("the request is a CloudEvent, but not one of Rowhook: its time is missing")
	}
	return nil
}
