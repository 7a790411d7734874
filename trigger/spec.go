package trigger

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Spec is one trigger as configured: which table and which of its changes, where they are sent, and how a
// failure is retried. Its JSON form is what rowhook.trigger.spec holds and what every dispatcher works from;
// its YAML form is an entry of rowhook.yaml's triggers. References such as ${ORDERS_URL} stay unexpanded in both.
type Spec struct {
	Name  string `json:"name" yaml:"name"`
	Table string `json:"table" yaml:"table"`
	On    On     `json:"on" yaml:"on"`
	// When is a boolean SQL expression over old and new that Postgres evaluates before it calls Rowhook.
	When    string  `json:"when,omitempty" yaml:"when,omitempty"`
	Payload Payload `json:"payload,omitzero" yaml:"payload,omitempty"`
	Webhook Webhook `json:"webhook" yaml:"webhook"`
	Retry   Retry   `json:"retry" yaml:"retry,omitempty"`
	// Concurrency is the most attempts in flight for this trigger in one dispatcher. 0: the dispatcher's own limit.
	Concurrency int `json:"concurrency,omitempty" yaml:"concurrency,omitempty"`
	// Notify is NotifyAuto or NotifyNever.
	Notify string `json:"notify" yaml:"notify,omitempty"`
	// Capture is CaptureRows or CaptureStatement: how inserts are captured. "": by the statement where the table and the spec allow it.
	Capture string `json:"capture,omitempty" yaml:"capture,omitempty"`
	// OnReplication captures changes that a logical replication apply makes, too.
	OnReplication bool `json:"on_replication,omitempty" yaml:"on_replication,omitempty"`
}

// On says which operations a trigger captures.
type On struct {
	Insert bool     `json:"insert,omitempty" yaml:"insert,omitempty"`
	Update UpdateOn `json:"update,omitzero" yaml:"update,omitempty"`
	Delete bool     `json:"delete,omitempty" yaml:"delete,omitempty"`
	Manual bool     `json:"manual,omitempty" yaml:"manual,omitempty"`
}

// UpdateOn is written true (any column) or {columns: [a, b]} (an update fires only where one of these changed).
type UpdateOn struct {
	Enabled bool
	Columns []string // nil: any column
}

// IsZero reports that updates are not captured.
func (u UpdateOn) IsZero() bool { return !u.Enabled }

// MarshalJSON writes true, false or {"columns": […]}.
func (u UpdateOn) MarshalJSON() ([]byte, error) { return json.Marshal(u.plain()) }

// MarshalYAML writes true, false or {columns: […]}.
func (u UpdateOn) MarshalYAML() (any, error) { return u.plain(), nil }

func (u UpdateOn) plain() any {
	if !u.Enabled || u.Columns == nil {
		return u.Enabled
	}
	return map[string][]string{"columns": u.Columns}
}

// UnmarshalJSON reads what MarshalJSON writes.
func (u *UpdateOn) UnmarshalJSON(b []byte) error {
	var on bool
	if json.Unmarshal(b, &on) == nil {
		*u = UpdateOn{Enabled: on}
		return nil
	}
	var cols struct {
		Columns []string `json:"columns"`
	}
	if err := json.Unmarshal(b, &cols); err != nil {
		return fmt.Errorf("read update: want true, false or {\"columns\": [...]}: %w", err)
	}
	if len(cols.Columns) == 0 {
		return errors.New("read update: columns is empty: name at least one column, or write true for any column")
	}
	*u = UpdateOn{Enabled: true, Columns: cols.Columns}
	return nil
}

// Payload chooses what old and new hold.
type Payload struct {
	Columns []string `json:"columns,omitempty" yaml:"columns,omitempty"` // nil: every column, also those added later
}

// IsZero reports that the payload is the whole row.
func (p Payload) IsZero() bool { return len(p.Columns) == 0 }

// Webhook is where events are POSTed. URL, header values and Secret may hold ${NAME} references.
type Webhook struct {
	URL     string            `json:"url" yaml:"url"`
	Headers map[string]string `json:"headers,omitempty" yaml:"headers,omitempty"`
	Timeout Duration          `json:"timeout" yaml:"timeout"` // of one attempt, from connecting to the last byte of the response
	// Secret signs each request as Standard Webhooks describe (webhook-id, webhook-timestamp, webhook-signature).
	Secret string `json:"secret,omitempty" yaml:"secret,omitempty"`
	TLS    TLS    `json:"tls,omitzero" yaml:"tls,omitempty"`
}

// LeaseMargin is what a lease lasts beyond the attempt's timeout: for waiting in memory and for settling.
const LeaseMargin = 30 * time.Second

// LongestLease bounds a lease, less LeaseMargin, whatever timeout is configured.
const LongestLease = 24 * time.Hour

// Lease is for how long an event is its claimer's.
func (w Webhook) Lease() time.Duration {
	timeout := w.Timeout.Std()
	if timeout <= 0 {
		timeout = DefaultTimeout.Std()
	}
	return min(timeout, LongestLease) + LeaseMargin
}

// TLS names the PEM files of the dispatcher's machine that an https webhook is called with. The paths may hold ${NAME} references.
type TLS struct {
	CAFile   string `json:"ca_file,omitempty" yaml:"ca_file,omitempty"`     // trusted certificate authorities; "": the system's
	CertFile string `json:"cert_file,omitempty" yaml:"cert_file,omitempty"` // client certificate with its chain; "": none
	KeyFile  string `json:"key_file,omitempty" yaml:"key_file,omitempty"`   // its private key
}

// IsZero reports that there is nothing but what the system trusts.
func (t TLS) IsZero() bool { return t == TLS{} }

// Retry says what happens to an event whose attempt failed. An event gets 1 + Limit attempts.
type Retry struct {
	Limit       int      `json:"limit" yaml:"limit"`
	Interval    Duration `json:"interval" yaml:"interval"`
	Backoff     string   `json:"backoff" yaml:"backoff,omitempty"` // BackoffFixed or BackoffExponential
	MaxInterval Duration `json:"max_interval" yaml:"max_interval"` // bounds a backoff and a receiver's Retry-After
}

// The values of Retry.Backoff, Spec.Notify and Spec.Capture.
const (
	BackoffFixed       = "fixed"
	BackoffExponential = "exponential"
	NotifyAuto         = "auto"
	NotifyNever        = "never"
	CaptureAuto        = "auto"      // what "" means, for the file
	CaptureRows        = "rows"      // row by row
	CaptureStatement   = "statement" // by the statement, or not at all
)

// Defaults of a Spec, as the commented rowhook.yaml shows them.
const (
	DefaultTimeout       = Duration(60 * time.Second) // Hasura's
	DefaultRetryLimit    = 5
	DefaultRetryInterval = Duration(10 * time.Second) // Hasura's
	DefaultMaxInterval   = Duration(time.Hour)
)

// DefaultSpec holds what a key left out of rowhook.yaml means. Decoding on top of it keeps an explicit zero.
func DefaultSpec() Spec {
	return Spec{
		Webhook: Webhook{Timeout: DefaultTimeout},
		Retry: Retry{
			Limit: DefaultRetryLimit, Interval: DefaultRetryInterval,
			Backoff: BackoffFixed, MaxInterval: DefaultMaxInterval,
		},
		Notify: NotifyAuto,
	}
}

// Settings are what rowhook.yaml says of the whole installation. They live in rowhook.setting, a row per key, so that
// every dispatcher works from the same ones.
type Settings struct {
	Retention Retention `json:"retention" yaml:"retention"`
	Network   Network   `json:"network" yaml:"network"`
}

// Network says at which addresses webhooks may be. Each rule is a word (private, loopback, link-local, metadata, reserved), an
// address, or a prefix. The longest prefix that holds an address decides, and Deny where both are as long.
type Network struct {
	Deny  []string `json:"deny" yaml:"deny"`
	Allow []string `json:"allow" yaml:"allow"`
}

// Retention says how long history is kept. 0 keeps none.
type Retention struct {
	Delivered Duration `json:"delivered" yaml:"delivered"`
	Attempts  Duration `json:"attempts" yaml:"attempts"`
	// MaxSize bounds both together, with their indexes: the oldest days go first. 0: no bound.
	MaxSize Size `json:"max_size,omitzero" yaml:"max_size"`
}

// DefaultSettings holds what rowhook.yaml means where it says nothing.
func DefaultSettings() Settings {
	week := Duration(7 * 24 * time.Hour)
	return Settings{Retention: Retention{Delivered: week, Attempts: week}, Network: Network{Deny: []string{}, Allow: []string{}}}
}
