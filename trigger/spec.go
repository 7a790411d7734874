package trigger

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Spec is one trigger as configured: which table, which of its changes, where they are sent, and
// how a failed attempt is retried. The column rowhook.trigger.spec holds its JSON form, from which
// every dispatcher works. Its YAML form is an entry of triggers in rowhook.yaml. References such as
// ${ORDERS_URL} are not expanded in either form.
//
// The zero value has no retries, no timeout and no mode. Start from [DefaultSpec].
type Spec struct {
	// Name identifies the trigger: 1 to 42 letters, digits, _ and -, starting with a letter or _. A
	// Spec under another name is another trigger.
	Name string `json:"name" yaml:"name"`
	// Table is the table to watch, as schema.table. A name that SQL would quote is quoted here,
	// too. "": Tables says which.
	Table string `json:"table,omitempty" yaml:"table,omitempty"`
	// Tables are the tables that one trigger watches, instead of Table: names as in Table, and
	// patterns. In a pattern, such as billing.* or tenant_*.orders, each * stands for any
	// characters of the schema or of the table, outside of quotes. nil: the trigger has one Table.
	Tables []string `json:"tables,omitempty" yaml:"tables,omitempty"`
	// Except are the tables that are not watched although Tables match them, written like these.
	Except []string `json:"except,omitempty" yaml:"except,omitempty"`
	// Follow has dispatchers look each minute for tables that match Tables and are not watched yet.
	// Without it, the next apply finds them.
	Follow bool `json:"follow,omitempty" yaml:"follow,omitempty"`
	// On are the operations that the trigger captures. At least one must be set.
	On On `json:"on" yaml:"on"`
	// At is AtChange, which is stored as "", or AtCommit.
	At string `json:"at,omitempty" yaml:"at,omitempty"`
	// When is a boolean SQL expression over old and new, or "". Postgres evaluates it before it
	// calls Rowhook's function.
	When string `json:"when,omitempty" yaml:"when,omitempty"`
	// Payload says what old and new hold. The zero value takes the whole row.
	Payload Payload `json:"payload,omitzero" yaml:"payload,omitempty"`
	// Webhook is where events are sent. NATS is where they are published instead: then Webhook is its
	// zero value.
	Webhook Webhook `json:"webhook" yaml:"webhook,omitempty"`
	NATS    NATS    `json:"nats,omitzero" yaml:"nats,omitempty"`
	// Retry is what happens after a failed attempt.
	Retry Retry `json:"retry" yaml:"retry,omitempty"`
	// Delay is the time from a change to its first attempt, in whole milliseconds. 0: none.
	Delay Duration `json:"delay,omitzero" yaml:"delay,omitempty"`
	// Order is the order of delivery. The zero value asks for none.
	Order Order `json:"order,omitzero" yaml:"order,omitempty"`
	// Batch puts several events into one request.
	Batch Batch `json:"batch,omitzero" yaml:"batch,omitempty"`
	// Rate bounds the requests over all dispatchers.
	Rate Rate `json:"rate,omitzero" yaml:"rate,omitempty"`
	// Concurrency is the largest number of attempts in flight for this trigger in one dispatcher.
	// 0 leaves only the dispatcher's own limit.
	Concurrency int `json:"concurrency,omitempty" yaml:"concurrency,omitempty"`
	// ConcurrencyTotal is that number over all dispatchers together. 0 sets no bound. It is a key of
	// its own in JSON, so that programs of the schema version before read Concurrency. In YAML both
	// are concurrency: {each: 20, total: 50}.
	ConcurrencyTotal int `json:"concurrency_total,omitempty" yaml:"-"`
	// Breaker is BreakerOn, which is stored as "", or BreakerOff.
	Breaker string `json:"breaker,omitempty" yaml:"breaker,omitempty"`
	// Notify is NotifyAuto or NotifyNever.
	Notify string `json:"notify" yaml:"notify,omitempty"`
	// Capture says how changes are captured: CaptureRows, CaptureStatement, or CaptureAuto, which is
	// stored as "". Where the table and the Spec allow it, CaptureAuto captures inserts by the
	// statement, and CaptureStatement updates and deletes, too.
	Capture string `json:"capture,omitempty" yaml:"capture,omitempty"`
	// Retention says how long history of the trigger is kept, in the place of Settings.Retention.
	Retention OwnRetention `json:"retention,omitzero" yaml:"retention,omitempty"`
	// OnReplication captures the changes of a logical replication apply worker as well.
	OnReplication bool `json:"on_replication,omitempty" yaml:"on_replication,omitempty"`
}

// Many reports whether the trigger watches the tables of Tables, instead of one Table.
func (s *Spec) Many() bool { return len(s.Tables) > 0 }

// Watches returns the table, or the entries of Tables, for people.
func (s *Spec) Watches() string {
	if !s.Many() {
		return s.Table
	}
	watches := strings.Join(s.Tables, ", ")
	if len(s.Except) > 0 {
		watches += " except " + strings.Join(s.Except, ", ")
	}
	return watches
}

// MarshalYAML writes the form of rowhook.yaml.
func (s Spec) MarshalYAML() (any, error) {
	type plain Spec
	if s.ConcurrencyTotal == 0 {
		return plain(s), nil
	}
	type both struct {
		Each  int `yaml:"each,omitempty"`
		Total int `yaml:"total"`
	}
	concurrency := both{s.Concurrency, s.ConcurrencyTotal}
	s.Concurrency = 0
	return struct {
		Plain       plain `yaml:",inline"`
		Concurrency both  `yaml:"concurrency"`
	}{plain(s), concurrency}, nil
}

// On says which operations a trigger captures.
type On struct {
	Insert   bool     `json:"insert,omitempty" yaml:"insert,omitempty"`     // captures inserts
	Update   UpdateOn `json:"update,omitzero" yaml:"update,omitempty"`      // captures updates
	Delete   bool     `json:"delete,omitempty" yaml:"delete,omitempty"`     // captures deletes
	Truncate bool     `json:"truncate,omitempty" yaml:"truncate,omitempty"` // captures TRUNCATE, as one event without rows
	Manual   bool     `json:"manual,omitempty" yaml:"manual,omitempty"`     // allows rowhook.emit
}

// IsZero reports whether nothing is captured.
func (o On) IsZero() bool { return !o.Rows() && !o.Truncate && !o.Manual }

// Rows reports whether changes of rows are captured.
func (o On) Rows() bool { return o.Insert || o.Update.Enabled || o.Delete }

// UpdateOn says which updates a trigger captures. In JSON and YAML it is true (any column), false,
// or {columns: [a, b]}.
type UpdateOn struct {
	Enabled bool     // captures updates
	Columns []string // only updates that change one of these columns; nil: any column
}

// IsZero reports whether updates are not captured.
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

// UnmarshalJSON reads what MarshalJSON writes. An empty list of columns is an error.
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
		return fmt.Errorf("read update: write true, false or {\"columns\": [...]}: %w", err)
	}
	if len(cols.Columns) == 0 {
		return errors.New("read update: columns is empty: name at least one column, or write true for any column")
	}
	*u = UpdateOn{Enabled: true, Columns: cols.Columns}
	return nil
}

// Payload says what old and new hold.
type Payload struct {
	// Columns are the names of the columns. nil takes every column, also one that is added later.
	Columns []string `json:"columns,omitempty" yaml:"columns,omitempty"`
	// Insert, Update and Delete are for events of that operation alone.
	Insert PayloadOf `json:"insert,omitzero" yaml:"insert,omitempty"`
	Update PayloadOf `json:"update,omitzero" yaml:"update,omitempty"`
	Delete PayloadOf `json:"delete,omitzero" yaml:"delete,omitempty"`
	// Old is what old holds in an update: OldChanged, OldNone, or OldAll, which is stored as "". In a
	// delete, old is the row whatever Old says.
	Old string `json:"old,omitempty" yaml:"old,omitempty"`
	// Changed adds the names of the changed columns to the body of an update.
	Changed bool `json:"changed,omitempty" yaml:"changed,omitempty"`
	// Numbers is how values of the types bigint and numeric are written: NumbersText, or
	// NumbersJSON, which is stored as "".
	Numbers string `json:"numbers,omitempty" yaml:"numbers,omitempty"`
	// Mask are paths into old and new whose values are sent, and shown nowhere else: a column, or
	// members of it behind dots, as in email, address.city and lines.*.price.
	Mask []string `json:"mask,omitempty" yaml:"mask,omitempty"`
}

// PayloadOf says what old and new hold in the events of one operation.
type PayloadOf struct {
	// Columns are the names of the columns, instead of Payload.Columns. nil takes those.
	Columns []string `json:"columns,omitempty" yaml:"columns,omitempty"`
}

// IsZero reports whether nothing is said.
func (p PayloadOf) IsZero() bool { return len(p.Columns) == 0 }

// IsZero reports whether nothing is configured.
func (p Payload) IsZero() bool {
	return len(p.Columns) == 0 && p.Insert.IsZero() && p.Update.IsZero() && p.Delete.IsZero() && p.Old == "" && !p.Changed && p.Numbers == "" && len(p.Mask) == 0
}

// ColumnsOf returns the columns that old and new hold in the events of an operation: I, U or D as in
// rowhook.event_log.op. nil is every column.
func (p Payload) ColumnsOf(op byte) []string {
	own := map[byte]PayloadOf{'I': p.Insert, 'U': p.Update, 'D': p.Delete}[op]
	if !own.IsZero() {
		return own.Columns
	}
	return p.Columns
}

// IsTrimmed reports whether a part of what was captured of an update is not sent, or something is
// sent that is computed from it.
func (p Payload) IsTrimmed() bool { return p.Old == OldChanged || p.Old == OldNone || p.Changed }

// Webhook is the HTTP endpoint to which events are sent. URL, Query, header values, Body, Form, Secret,
// the paths of TLS and the values of OAuth2 may hold references: ${NAME} and ${file:PATH}. URL behind
// its host, Query, header values, Body and Form may hold placeholders such as $new.id, which stand for
// data of the event.
type Webhook struct {
	// URL is an absolute http or https URL.
	URL string `json:"url" yaml:"url"`
	// Method is POST, which is stored as "", PUT, PATCH, DELETE or GET. A GET has no body, and a
	// DELETE has one only if Body or Form is set.
	Method string `json:"method,omitempty" yaml:"method,omitempty"`
	// Query is added to the query of the URL, by name, sorted.
	Query map[string]string `json:"query,omitempty" yaml:"query,omitempty"`
	// Headers are added to each request, by name.
	Headers map[string]string `json:"headers,omitempty" yaml:"headers,omitempty"`
	// Body is a template of the request's body.
	Body Body `json:"body,omitempty" yaml:"body,omitempty"`
	// Form is the request's body as application/x-www-form-urlencoded, by the names of its fields,
	// sorted. Body and Form exclude each other.
	Form map[string]string `json:"form,omitempty" yaml:"form,omitempty"`
	// Format is FormatHasura, which is stored as "", FormatCloudEvents or FormatCloudEventsBinary.
	Format string `json:"format,omitempty" yaml:"format,omitempty"`
	// Compress is CompressGzip or CompressNone, which is stored as "".
	Compress string `json:"compress,omitempty" yaml:"compress,omitempty"`
	// Timeout bounds one attempt, from connecting to the last byte of the response.
	Timeout Duration `json:"timeout" yaml:"timeout"`
	// Secret signs each request as Standard Webhooks describe, by the headers webhook-id,
	// webhook-timestamp and webhook-signature. It holds one secret or several that are separated by
	// spaces: whsec_ for an HMAC, whsk_ for Ed25519. "" sends no signature.
	Secret string `json:"secret,omitempty" yaml:"secret,omitempty"`
	// TLS is for an https URL. The zero value trusts what the system trusts.
	TLS TLS `json:"tls,omitzero" yaml:"tls,omitempty"`
	// OAuth2 has each request carry a token. The zero value sends none.
	OAuth2 OAuth2 `json:"oauth2,omitzero" yaml:"oauth2,omitempty"`
}

// IsZero reports whether nothing is configured, so that events go elsewhere.
func (w Webhook) IsZero() bool {
	return w.URL == "" && w.Method == "" && len(w.Query) == 0 && len(w.Headers) == 0 && w.Body == "" && len(w.Form) == 0 && w.Format == "" &&
		w.Compress == "" && w.Timeout == 0 && w.Secret == "" && w.TLS.IsZero() && w.OAuth2.IsZero()
}

// LeaseMargin is the part of a lease beyond the timeout of the attempt. It allows for waiting in
// memory and for settling.
const LeaseMargin = 30 * time.Second

// LongestLease bounds a lease without its LeaseMargin. A longer Webhook.Timeout does not lengthen
// the lease.
const LongestLease = 24 * time.Hour

// Lease returns how long a claimed event belongs to its claimer: Timeout, at most [LongestLease],
// plus [LeaseMargin]. A Timeout of 0 or less counts as [DefaultTimeout].
func (w Webhook) Lease() time.Duration {
	timeout := w.Timeout.Std()
	if timeout <= 0 {
		timeout = DefaultTimeout.Std()
	}
	return min(timeout, LongestLease) + LeaseMargin
}

// TLS names PEM files for an https webhook. The files are on the machine of the dispatcher. The
// paths may hold ${NAME} references.
type TLS struct {
	// CAFile holds the trusted certificate authorities. "" trusts those of the system.
	CAFile string `json:"ca_file,omitempty" yaml:"ca_file,omitempty"`
	// CertFile holds a client certificate with its chain. "" sends none.
	CertFile string `json:"cert_file,omitempty" yaml:"cert_file,omitempty"`
	// KeyFile holds the private key of CertFile.
	KeyFile string `json:"key_file,omitempty" yaml:"key_file,omitempty"`
}

// IsZero reports whether no file is named.
func (t TLS) IsZero() bool { return t == TLS{} }

// Retry says when a failed attempt is retried, and when an event is given up. It gets 1 + Limit
// attempts. Then it becomes a dead letter.
type Retry struct {
	// Limit is the number of attempts after the first one.
	Limit int `json:"limit" yaml:"limit"`
	// Interval is the time from a failed attempt to the next one, for BackoffExponential from the
	// first to the second. With a Schedule it is 0.
	Interval Duration `json:"interval" yaml:"interval"`
	// Backoff is BackoffFixed or BackoffExponential. With a Schedule it is "".
	Backoff string `json:"backoff" yaml:"backoff,omitempty"`
	// MaxInterval bounds an exponential interval and a receiver's Retry-After. With 0, an
	// exponential interval does not grow, and DefaultMaxInterval bounds Retry-After.
	MaxInterval Duration `json:"max_interval" yaml:"max_interval"`
	// Schedule are the times from each failed attempt to the next one, in the place of Interval and
	// Backoff. The last one repeats as far as Limit goes. nil: there is none.
	Schedule []Duration `json:"schedule,omitempty" yaml:"schedule,omitempty"`
	// Statuses say which answers end the retries.
	Statuses Statuses `json:"statuses,omitempty" yaml:"statuses,omitempty"`
	// MaxAge is the time after which an event is given up without another attempt. It counts from
	// when the event was first due: from its change and Spec.Delay, or from the redelivery. 0: none.
	MaxAge Duration `json:"max_age,omitzero" yaml:"max_age,omitempty"`
}

// hasOwnEnd reports whether events are given up at other times than in schema version 6.
func (r *Retry) hasOwnEnd() bool {
	return len(r.Schedule) > 0 || len(r.Statuses) > 0 || r.MaxAge > 0
}

// plainRetry is a Retry without its methods.
type plainRetry Retry

// scheduledRetry is the form of a Retry with a Schedule: it has no interval and no backoff.
type scheduledRetry struct {
	Limit       int        `json:"limit" yaml:"limit,omitempty"`
	MaxInterval Duration   `json:"max_interval" yaml:"max_interval"`
	Schedule    []Duration `json:"schedule" yaml:"schedule"`
	Statuses    Statuses   `json:"statuses,omitempty" yaml:"statuses,omitempty"`
	MaxAge      Duration   `json:"max_age,omitzero" yaml:"max_age,omitempty"`
}

// MarshalJSON leaves interval and backoff out beside a Schedule.
func (r Retry) MarshalJSON() ([]byte, error) {
	if len(r.Schedule) == 0 {
		return json.Marshal(plainRetry(r))
	}
	return json.Marshal(scheduledRetry{r.Limit, r.MaxInterval, r.Schedule, r.Statuses, r.MaxAge})
}

// UnmarshalJSON reads what MarshalJSON writes. Keys that are missing keep the values of r.
func (r *Retry) UnmarshalJSON(b []byte) error {
	plain := plainRetry(*r)
	if err := json.Unmarshal(b, &plain); err != nil {
		return err
	}
	if len(plain.Schedule) > 0 {
		plain.Interval, plain.Backoff = 0, ""
	}
	*r = Retry(plain)
	return nil
}

// MarshalYAML writes the form of rowhook.yaml. Beside a Schedule there is no interval, and no limit
// that is the length of it.
func (r Retry) MarshalYAML() (any, error) {
	if len(r.Schedule) == 0 {
		return plainRetry(r), nil
	}
	limit := r.Limit
	if limit == len(r.Schedule) {
		limit = 0
	}
	return scheduledRetry{limit, r.MaxInterval, r.Schedule, r.Statuses, r.MaxAge}, nil
}

// The values of Webhook.Format, Webhook.Compress, Retry.Backoff, Spec.Notify, Spec.Capture,
// Spec.Breaker, Payload.Old and Payload.Numbers.
const (
	FormatHasura            = "hasura"             // the word of rowhook.yaml for Webhook.Format ""
	FormatCloudEvents       = "cloudevents"        // CloudEvents 1.0 in the structured mode, batches in the batched mode
	FormatCloudEventsBinary = "cloudevents-binary" // CloudEvents 1.0 in the binary mode
	CompressNone            = "none"               // the word of rowhook.yaml for Webhook.Compress ""
	CompressGzip            = "gzip"               // bodies above 1 kB are sent with Content-Encoding: gzip

	BackoffFixed       = "fixed"       // each interval is Retry.Interval
	BackoffExponential = "exponential" // each is twice the one before, shortened by up to a quarter
	NotifyAuto         = "auto"        // writers notify unless dispatchers silenced the doorbell
	NotifyNever        = "never"       // writers never notify; dispatchers poll
	AtChange           = "change"      // the word of rowhook.yaml for Spec.At "": an event for each change
	AtCommit           = "commit"      // one event for a row and transaction: the first old, the last new
	CaptureAuto        = "auto"        // the word of rowhook.yaml for Spec.Capture ""
	CaptureRows        = "rows"        // row by row
	CaptureStatement   = "statement"   // by the statement; an apply fails where none of its changes can be
	BreakerOn          = "on"          // the word of rowhook.yaml for Spec.Breaker ""
	BreakerOff         = "off"         // a receiver that fails is called as before
	OldAll             = "all"         // the word of rowhook.yaml for Payload.Old ""
	OldChanged         = "changed"     // only the columns that the update changed
	OldNone            = "none"        // null
	NumbersJSON        = "json"        // the word of rowhook.yaml for Payload.Numbers ""
	NumbersText        = "text"        // as JSON strings, of which JavaScript loses no digit
)

// The defaults of a Spec. The rowhook.yaml of this repository shows them in comments.
const (
	DefaultTimeout       = Duration(60 * time.Second) // as in Hasura
	DefaultRetryLimit    = 12                         // with the default backoff some four hours and a half
	DefaultRetryInterval = Duration(10 * time.Second) // as in Hasura
	DefaultMaxInterval   = Duration(time.Hour)
	// DefaultBatchBytes bounds a batch whose Bytes is 0.
	DefaultBatchBytes = Size(1 << 20)
)

// DefaultSpec returns a Spec with the defaults of rowhook.yaml. A decoder that decodes on top of it
// keeps the default of each key that is left out, and keeps an explicit zero.
func DefaultSpec() Spec {
	return Spec{
		Webhook: Webhook{Timeout: DefaultTimeout},
		Retry: Retry{
			Limit: DefaultRetryLimit, Interval: DefaultRetryInterval,
			Backoff: BackoffExponential, MaxInterval: DefaultMaxInterval,
		},
		Notify: NotifyAuto,
	}
}

// Settings are the keys of rowhook.yaml for the whole installation. They are stored in the table
// rowhook.setting, one row for each key, so that all dispatchers use the same ones.
type Settings struct {
	Retention Retention `json:"retention" yaml:"retention"`     // how long history is kept
	Network   Network   `json:"network" yaml:"network"`         // at which addresses webhooks may be
	Alerts    []Alert   `json:"alerts" yaml:"alerts,omitempty"` // who is told of trouble
}

// Network says at which addresses webhooks may be. A rule is a word (private, loopback, link-local,
// metadata, reserved), an IP address, or a prefix in CIDR notation. Of the rules that match an
// address, the one with the longest prefix decides. If two are equally long, Deny decides.
type Network struct {
	Deny  []string `json:"deny" yaml:"deny"`   // rules for addresses that are rejected
	Allow []string `json:"allow" yaml:"allow"` // rules for addresses that are allowed
}

// OwnRetention says how long history of one trigger is kept. nil: as Settings.Retention says. A
// duration of 0 keeps none.
type OwnRetention struct {
	Delivered *Duration `json:"delivered,omitempty" yaml:"delivered,omitempty"` // rowhook.event_archive
	Attempts  *Duration `json:"attempts,omitempty" yaml:"attempts,omitempty"`   // rowhook.invocation_log
}

// IsZero reports whether all is as Settings.Retention says.
func (r OwnRetention) IsZero() bool { return r == OwnRetention{} }

// Of returns the retention of a trigger: general, with what is its own.
func (r OwnRetention) Of(general Retention) Retention {
	if r.Delivered != nil {
		general.Delivered = *r.Delivered
	}
	if r.Attempts != nil {
		general.Attempts = *r.Attempts
	}
	return general
}

// Retention says how long history is kept. A duration of 0 keeps none.
type Retention struct {
	Delivered Duration `json:"delivered" yaml:"delivered"` // rowhook.event_archive
	Attempts  Duration `json:"attempts" yaml:"attempts"`   // rowhook.invocation_log
	// MaxSize bounds the disk space of both histories together, with their indexes. The oldest days
	// are dropped first. 0 sets no bound.
	MaxSize Size `json:"max_size,omitzero" yaml:"max_size"`
}

// DefaultSettings returns the Settings of a rowhook.yaml without settings: a retention of 7 days
// for both histories, no bound of their size, no network rules and no alerts.
func DefaultSettings() Settings {
	week := Duration(7 * 24 * time.Hour)
	return Settings{Retention: Retention{Delivered: week, Attempts: week}, Network: Network{Deny: []string{}, Allow: []string{}}, Alerts: []Alert{}}
}
