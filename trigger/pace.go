package trigger

import (
	"encoding/json"
	"fmt"
)

// Order is the order in which events are delivered. In JSON and YAML it is "row" or a map. The zero
// value asks for no order.
//
// Events with the same key are sent one after another, in the order of their changes. Events with
// different keys do not wait for each other.
type Order struct {
	// By are the columns of the key. A single "row" (OrderByRow) stands for the primary key.
	By []string
	// Strict also keeps the order of transactions that change different rows of one key. It waits
	// for every transaction that is open.
	Strict bool
	// OnDead is OnDeadSkip or OnDeadBlock. "" means OnDeadSkip.
	OnDead string
	// Latest sends only the newest of several waiting changes of a row. The key has to hold the
	// primary key.
	Latest bool
}

// The values of Order.By and Order.OnDead.
const (
	OrderByRow  = "row"   // the only element of Order.By: the primary key
	OnDeadSkip  = "skip"  // events behind a dead letter of their key are sent
	OnDeadBlock = "block" // they wait until it is redelivered or discarded
)

// IsZero reports whether no order is asked for.
func (o Order) IsZero() bool { return len(o.By) == 0 }

// ByRow reports whether the key is the primary key.
func (o Order) ByRow() bool { return len(o.By) == 1 && o.By[0] == OrderByRow }

// Blocks reports whether a dead letter holds its key.
func (o Order) Blocks() bool { return o.OnDead == OnDeadBlock }

type orderMap struct {
	By     any    `json:"by"`
	Strict bool   `json:"strict,omitempty"`
	OnDead string `json:"on_dead,omitempty"`
	Latest bool   `json:"latest,omitempty"`
}

// MarshalJSON writes "row", or a map with by as "row" or a list of columns.
func (o Order) MarshalJSON() ([]byte, error) { return json.Marshal(o.plain()) }

// MarshalYAML writes what MarshalJSON writes.
func (o Order) MarshalYAML() (any, error) { return o.plain(), nil }

func (o Order) plain() any {
	m := orderMap{By: o.By, Strict: o.Strict, OnDead: o.OnDead, Latest: o.Latest}
	if m.OnDead == OnDeadSkip {
		m.OnDead = ""
	}
	switch {
	case o.IsZero():
		return nil
	case o.ByRow() && !m.Strict && m.OnDead == "" && !m.Latest:
		return OrderByRow
	case o.ByRow():
		m.By = OrderByRow
	}
	return m
}

// UnmarshalJSON reads what MarshalJSON writes.
func (o *Order) UnmarshalJSON(b []byte) error {
	var word string
	var m struct {
		orderMap
		By json.RawMessage `json:"by"`
	}
	if string(b) == "null" {
		*o = Order{}
		return nil
	}
	if json.Unmarshal(b, &word) != nil {
		if err := json.Unmarshal(b, &m); err != nil {
			return fmt.Errorf("read order: write \"row\" or {\"by\": ...}: %w", err)
		}
		*o = Order{Strict: m.Strict, OnDead: m.OnDead, Latest: m.Latest}
		if json.Unmarshal(m.By, &word) != nil {
			if err := json.Unmarshal(m.By, &o.By); err != nil {
				return fmt.Errorf("read order: write by as \"row\" or a list of columns: %w", err)
			}
			return nil
		}
	}
	if word != OrderByRow {
		return fmt.Errorf("read order: %q is not an order: write \"row\" or {\"by\": ...}", word)
	}
	o.By = []string{OrderByRow}
	return nil
}

// Batch says how many events of a trigger one request takes. The zero value sends each event in a
// request of its own.
type Batch struct {
	// Max is the largest number of events in a request, at least 2. 0: no batches.
	Max int `json:"max" yaml:"max"`
	// Bytes bounds the body of a request. An event that is larger by itself is sent alone. 0 means
	// DefaultBatchBytes.
	Bytes Size `json:"bytes,omitzero" yaml:"bytes,omitempty"`
	// Wait is how long the first event may wait for others. 0 takes what is there.
	Wait Duration `json:"wait,omitzero" yaml:"wait,omitempty"`
}

// IsZero reports whether events are sent one by one.
func (b Batch) IsZero() bool { return b.Max == 0 }

// Rate bounds the requests of a trigger over all dispatchers together. The zero value sets no bound.
type Rate struct {
	// Limit is the number of requests in a time, such as 50/s.
	Limit PerTime `json:"limit" yaml:"limit"`
	// Burst is how many requests may be sent at once after a pause. 0 means 1.
	Burst int `json:"burst,omitempty" yaml:"burst,omitempty"`
	// HeldBy is the source whose database holds the rate for the triggers of this name of all sources
	// together. "": each source has the rate for itself.
	HeldBy string `json:"held_by,omitempty" yaml:"held_by,omitempty"`
}

// IsZero reports whether there is no bound.
func (r Rate) IsZero() bool { return r.Limit.N == 0 }
