package operate

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/mask"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// Trial is a made-up event to send to the webhook of a trigger.
type Trial struct {
	Trigger string
	// Table is the table of the event, if the trigger has several. "" takes the first one.
	Table string
	// Op is insert, update, delete, truncate or manual. "" takes the first one that the trigger captures.
	Op string
	// Payload is the data of the event: {"old": ..., "new": ...}, or the row. nil: a row is made up
	// from the columns of the table.
	Payload json.RawMessage
	// Timeout replaces that of the trigger. 0 keeps it.
	Timeout time.Duration
	// Unsent has the request made and not sent.
	Unsent bool
	// Real takes the newest event of the trigger, of the operation if one is given, in the place of a
	// made-up one; or, if there is none, a row of the table. It is for Unsent alone.
	Real bool

	// Publish publishes an event of a trigger with nats. nil: this program can't.
	Publish func(ctx context.Context, spec *trigger.Spec, source trigger.Source, guard webhook.Guard, e *webhook.Event) (webhook.Result, error)
	// Source returns what gives out what the webhook that is tried refers to.
	Source  func(trigger.Webhook) trigger.Source
	Guard   webhook.Guard // in addition to the one that was applied
	Version string        // of the program
}

// TrialResult is the request of a Trial and what came of it.
type TrialResult struct {
	Trigger string       `json:"trigger"`
	Table   string       `json:"table"` // schema.table
	Op      string       `json:"op"`
	Event   string       `json:"event"` // its id, which no table has unless Data is DataEvent
	Data    string       `json:"data"`  // DataMadeUp, DataGiven, DataEvent or DataRow
	Request TrialRequest `json:"request"`

	Sent       bool     `json:"sent"`
	Delivered  bool     `json:"delivered"`   // the receiver answered with a 2xx status
	Status     *int     `json:"status"`      // null: there was no response
	DurationMS *float64 `json:"duration_ms"` // null: nothing was sent
	Error      string   `json:"error,omitempty"`
	ErrorKind  string   `json:"error_kind,omitempty"`
	Remedy     string   `json:"remedy,omitempty"` // what to do, if it was not delivered

	ResponseHeaders json.RawMessage `json:"response_headers,omitempty"` // secrets are redacted
	ResponseBody    string          `json:"response_body,omitempty"`    // its beginning
}

// bodyAsJSON returns the body of a request: JSON as it is, another one as a string, and null if there is
// none.
func bodyAsJSON(body []byte) json.RawMessage {
	switch {
	case len(body) == 0:
		return nil
	case json.Valid(body):
		return body
	}
	return template.AppendString(nil, body)
}

// TrialRequest is the request of a Trial. Secrets are redacted in its URL, headers and body. Body is a
// string if the body is not JSON, and null if there is none.
type TrialRequest struct {
	Method  string          `json:"method"`
	URL     string          `json:"url"`
	Headers json.RawMessage `json:"headers"`
	Body    json.RawMessage `json:"body"`
	// PublicKeys are those of the private keys that sign it, each as whpk_ and base64.
	PublicKeys []string `json:"public_keys,omitempty"`

	text string // Body as it is sent
}

// Text returns the body as it is sent.
func (r *TrialRequest) Text() string { return r.text }

// Where the data of a trial come from.
const (
	DataMadeUp = "made up"
	DataGiven  = "given"
	DataEvent  = "event" // the newest one of the trigger
	DataRow    = "row"   // one of the table
)

// Try sends one made-up, signed event to the webhook of a trigger. The body says "test": true. It
// writes nothing: not to the queue, not to the log of attempts, not to the audit. A failed attempt
// is no error: the result says what came of it.
func Try(ctx context.Context, db DB, o Trial) (*TrialResult, error) {
	t, err := o.prepare(ctx, db)
	if err != nil {
		return nil, err
	}
	client := webhook.NewClient(webhook.ClientConfig{Version: o.Version, Guard: t.guard})
	defer client.Close()
	to, err := o.open(t, client)
	if err != nil {
		return nil, problem(ErrRefused, "correct its webhook and apply, or run the command with the environment and the files of the dispatcher: a test is sent from here",
			"the webhook of %q can't be called from here: %s", o.Trigger, err)
	}
	event, err := t.event(time.Now())
	if err != nil {
		return nil, err
	}
	r := &TrialResult{Trigger: o.Trigger, Table: t.schema + "." + t.table, Op: event.OpName(), Event: hexUUID(event.ID), Data: t.from}
	masked := *event
	masked.Old, masked.New = t.mask.Apply(event.Old), t.mask.Apply(event.New)
	shown, err := to.preview(&masked)
	if err != nil {
		return nil, problem(ErrRefused, "an event with such data becomes a dead letter at once: correct the webhook in rowhook.yaml, or the data", "no request can be made of this event: %s", err)
	}
	r.Request = TrialRequest{Method: shown.Method, URL: shown.URL, Headers: shown.Header, Body: bodyAsJSON(shown.Body), text: string(shown.Body), PublicKeys: to.keys()}
	if o.Unsent {
		return r, nil
	}
	result, err := to.send(ctx, event)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if t.mask != nil && o.Payload != nil { // what was made up may be repeated
		result = result.Masked()
		if result.Header = nil; len(result.Body) > 0 {
			result.Body = []byte(mask.Text)
		}
	}
	r.came(&result)
	if to.remedy != "" && r.Remedy != "" {
		r.Remedy = to.remedy
	}
	return r, nil
}

// trialTo is where a trial is sent.
type trialTo struct {
	preview func(*webhook.Event) (webhook.Preview, error)
	send    func(context.Context, *webhook.Event) (webhook.Result, error)
	keys    func() []string
	remedy  string // "": that of an attempt by HTTP
}

// open makes ready to send to the destination of the trigger.
func (o *Trial) open(t *trial, client *webhook.Client) (*trialTo, error) {
	source := o.Source(t.spec.Webhook)
	if t.spec.Kind() == trigger.KindNATS {
		return o.openNATS(t, source)
	}
	endpoint, err := webhook.NewEndpointFrom(t.spec.Webhook, source)
	if err == nil {
		err = client.Prepare(endpoint)
	}
	if err != nil {
		return nil, err
	}
	to := &trialTo{keys: endpoint.PublicKeys}
	if t.spec.Batch.IsZero() {
		to.preview = func(e *webhook.Event) (webhook.Preview, error) { return client.Preview(endpoint, e) }
		to.send = func(ctx context.Context, e *webhook.Event) (webhook.Result, error) {
			return client.Send(ctx, endpoint, e, nil), nil
		}
		return to, nil
	}
	to.preview = func(e *webhook.Event) (webhook.Preview, error) {
		return client.PreviewBatch(endpoint, []*webhook.Event{e})
	}
	to.send = func(ctx context.Context, e *webhook.Event) (webhook.Result, error) {
		result, failed := client.SendBatch(ctx, endpoint, []*webhook.Event{e})
		if len(failed) > 0 {
			result = result.Rejected()
		}
		return result, nil
	}
	return to, nil
}

// openNATS makes ready to publish.
func (o *Trial) openNATS(t *trial, source trigger.Source) (*trialTo, error) {
	m, err := webhook.NewMessage(&t.spec.NATS, source, 0)
	if err == nil {
		err = m.Prepare()
	}
	if err != nil {
		return nil, err
	}
	return &trialTo{
		preview: m.Preview, keys: m.PublicKeys, remedy: "docs/nats.md has each error with what to do",
		send: func(ctx context.Context, e *webhook.Event) (webhook.Result, error) {
			if o.Publish == nil {
				return webhook.Result{}, problem(ErrRefused, "use rowhook-nats, which is in the same release; --print and --dry-run show the message here, too", "this program can't publish to NATS")
			}
			return o.Publish(ctx, &t.spec, source, t.guard, e)
		},
	}, nil
}

// trial is what a Trial needs of the database.
type trial struct {
	spec          trigger.Spec
	schema, table string
	op            byte
	old, new      json.RawMessage
	guard         webhook.Guard
	from          string // see TrialResult.Data
	real          *raw   // nil: the event is made up
	mask          *mask.Mask
}

func (o *Trial) prepare(ctx context.Context, db DB) (*trial, error) {
	t := &trial{spec: trigger.DefaultSpec()}
	err := read(ctx, db, func(tx pgx.Tx) error {
		ts, err := readTriggers(ctx, tx)
		if err != nil {
			return err
		}
		known, err := ts.active(o.Trigger)
		if err != nil {
			return err
		}
		of, err := known.choose(ctx, tx, o.Table, true)
		if err != nil {
			return err
		}
		t.schema, t.table, t.mask = of.Schema, of.Table, known.mask
		if err := json.Unmarshal([]byte(known.Spec), &t.spec); err != nil {
			return fmt.Errorf("read the spec of %s: %w", known.Name, err)
		}
		if t.op, err = o.operation(t.spec.On); err != nil {
			return err
		}
		cfg, err := queue.Load(ctx, tx)
		if err != nil {
			return err
		}
		if t.guard, err = guardWith(o.Guard, cfg.Settings.Network); err != nil {
			return err
		}
		if o.Payload != nil {
			t.from = DataGiven
			return t.take(o.Payload)
		}
		if o.Real {
			if found, err := t.findReal(ctx, tx, o, known, of); found || err != nil {
				return err
			}
		}
		t.from = DataMadeUp
		return t.makeUp(ctx, tx, of)
	})
	if o.Timeout > 0 {
		if t.spec.Kind() == trigger.KindNATS {
			t.spec.NATS.Timeout = trigger.Duration(o.Timeout)
		} else {
			t.spec.Webhook.Timeout = trigger.Duration(o.Timeout)
		}
	}
	return t, err
}

// operation returns the operation as in rowhook.event_log.op.
func (o *Trial) operation(on trigger.On) (byte, error) {
	var captured []string
	for _, c := range []struct {
		name string
		on   bool
	}{{"insert", on.Insert}, {"update", on.Update.Enabled}, {"delete", on.Delete}, {"truncate", on.Truncate}, {"manual", on.Manual}} {
		if !c.on {
			continue
		}
		captured = append(captured, c.name)
		if o.Op == "" || strings.EqualFold(o.Op, c.name) {
			return c.name[0] &^ 0x20, nil // upper case
		}
	}
	if o.Op == "" {
		return 0, problem(ErrRefused, "", "the trigger %q captures no operation", o.Trigger)
	}
	return 0, problem(ErrInvalid, "it captures "+strings.Join(captured, ", "), "the trigger %q does not capture %q", o.Trigger, o.Op)
}

// take takes the data that were given.
func (t *trial) take(payload json.RawMessage) error {
	if t.op == 'T' {
		return problem(ErrInvalid, "leave it out", "a TRUNCATE has no payload")
	}
	if !json.Valid(payload) || !utf8.Valid(payload) {
		return problem(ErrInvalid, `write JSON, such as {"id": 7} or {"old": {...}, "new": {...}}`, "the payload is not JSON")
	}
	payload = bytes.TrimSpace(payload)
	var both map[string]json.RawMessage
	if json.Unmarshal(payload, &both) == nil && len(both) > 0 {
		from, hasOld := both["old"]
		to, hasNew := both["new"]
		if keys := len(both); hasOld && keys == 1 || hasNew && keys == 1 || hasOld && hasNew && keys == 2 {
			t.old, t.new = from, to
			return nil
		}
	}
	if t.op == 'D' {
		t.old = payload
	} else {
		t.new = payload
	}
	return nil
}

// findReal takes the newest event of the trigger, or a row of its table. It returns false if there is
// none, or none that may be read.
func (t *trial) findReal(ctx context.Context, tx pgx.Tx, o *Trial, known *knownTrigger, of *chosenTable) (bool, error) {
	f := Filter{Triggers: []string{known.Name}, Table: o.Table}
	if o.Op != "" {
		f.Ops = []string{strings.ToUpper(o.Op)}
	}
	ts, q, err := f.read(ctx, tx)
	if err != nil {
		return false, err
	}
	page, err := list(ctx, tx, ts, q, 1, "", ListOptions{})
	if err != nil {
		return false, err
	}
	if len(page.Events) > 0 {
		f = Filter{IDs: []string{page.Events[0].ID}}
		if _, q, err = f.read(ctx, tx); err != nil {
			return false, err
		}
		if t.real, err = find(ctx, tx, q); err != nil {
			return false, err
		}
		if t.real.problem == "" {
			t.from = DataEvent
			own := known.of(t.real.RelationID)
			t.schema, t.table = own.Schema, own.Table
			return true, nil
		}
		t.real = nil
	}
	if t.op == 'M' || t.op == 'T' {
		return false, nil
	}
	s, err := readSampler(ctx, tx, of.Relation, time.Now())
	if err != nil {
		return false, err
	}
	columns := s.selected(t.spec.Payload.ColumnsOf(t.op), t.spec.Payload.Numbers == trigger.NumbersText)
	var row []byte
	err = apart(ctx, tx, func() error {
		return tx.QueryRow(ctx, "select pg_catalog.row_to_json(r)::text from (select "+columns+" from "+pg.QuoteName(of.Schema, of.Table)+" limit 1) r").Scan(&row)
	})
	switch {
	case isNone(err) || pg.IsData(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read a row of %s: %w", of.qualified(), err)
	}
	t.from = DataRow
	if t.op != 'I' {
		t.old = row
	}
	if t.op != 'D' {
		t.new = row
	}
	return true, nil
}

// makeUp makes up a row of the table.
func (t *trial) makeUp(ctx context.Context, tx pgx.Tx, of *chosenTable) error {
	switch t.op {
	case 'M':
		t.new = json.RawMessage(`{"sample":1}`)
		return nil
	case 'T':
		return nil
	}
	var exists bool
	if err := tx.QueryRow(ctx, "select exists (select from pg_catalog.pg_class where oid = $1)", of.Relation).Scan(&exists); err != nil {
		return fmt.Errorf("look for the table: %w", err)
	}
	s, err := readSampler(ctx, tx, of.Relation, time.Now())
	if err != nil {
		return err
	}
	if !exists {
		return problem(ErrRefused, "give the data by --payload, or apply a configuration with another table", "the table %s of the trigger %q does not exist any more", of.qualified(), t.spec.Name)
	}
	chosen := t.spec.Payload.ColumnsOf(t.op)
	s.textNumbers = t.spec.Payload.Numbers == trigger.NumbersText
	switch t.op {
	case 'I':
		t.new = s.row(chosen, nil)
	case 'U':
		t.old, t.new = s.row(chosen, nil), s.row(chosen, s.changing(t.spec.On.Update.Columns))
	case 'D':
		t.old = s.row(chosen, nil)
	}
	return nil
}

func (t *trial) event(now time.Time) (*webhook.Event, error) {
	if r := t.real; r != nil {
		id, err := uuid.Parse(r.ID)
		if err != nil {
			return nil, fmt.Errorf("read an event's id: %w", err)
		}
		event := &webhook.Event{
			ID: id, CreatedAt: r.CreatedAt, Schema: t.schema, Table: t.table, Trigger: t.spec.Name, Op: r.Op[0],
			Old: r.Old, New: r.New, Session: r.Session, Trace: r.Trace, MaxRetries: t.spec.Retry.Limit, Sequence: r.Seq,
		}
		event.Trim(t.spec.Payload)
		return event, nil
	}
	id, err := newUUID(now)
	if err != nil {
		return nil, err
	}
	sequence := int64(0)
	if !t.spec.Order.IsZero() && t.op != 'M' {
		sequence = 1 // below that of any event to come, so a receiver that keeps the highest drops none
	}
	event := &webhook.Event{
		Sequence: sequence, ID: id, CreatedAt: now, Schema: t.schema, Table: t.table, Trigger: t.spec.Name, Op: t.op, Old: t.old, New: t.new,
		MaxRetries: t.spec.Retry.Limit, Test: true,
	}
	event.Trim(t.spec.Payload)
	return event, nil
}

// newUUID returns a UUID of version 7, as rowhook.uuid7 does. It is no event's.
func newUUID(now time.Time) (id [16]byte, err error) {
	if _, err := rand.Read(id[:]); err != nil {
		return id, fmt.Errorf("make an id: %w", err)
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(id[:6], ms[2:])
	id[6], id[8] = id[6]&0x0f|0x70, id[8]&0x3f|0x80
	return id, nil
}

func hexUUID(id [16]byte) string {
	s := hex.EncodeToString(id[:])
	return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
}

// came takes over what came of the attempt.
func (r *TrialResult) came(result *webhook.Result) {
	ms := float64(result.Duration.Round(10*time.Microsecond)) / float64(time.Millisecond)
	r.Sent, r.Delivered, r.DurationMS = true, result.Delivered(), &ms
	r.Error, r.ErrorKind = result.Err, string(result.Kind)
	if result.Status != 0 {
		r.Status = &result.Status
	}
	r.ResponseHeaders, r.ResponseBody = result.Header, string(result.Body)
	if !r.Delivered {
		r.Remedy = trialRemedy(result)
	}
}

// trialRemedy says what to look at after a failed attempt.
func trialRemedy(result *webhook.Result) string {
	switch result.Kind {
	case webhook.KindResponse:
	case webhook.KindRefused:
		return "start the receiver, or correct the host and the port of the URL"
	case webhook.KindDNS:
		return "correct the host of the URL; inside of docker compose a service is called by its name"
	case webhook.KindTLS:
		return "look at the receiver's certificate and at tls in rowhook.yaml"
	case webhook.KindTimeout:
		return "look at what the receiver does, or raise webhook.timeout"
	case webhook.KindDenied:
		return "for this test alone, pass --allow-addresses"
	case webhook.KindToken:
		return "look at oauth2 in rowhook.yaml and at the endpoint for tokens; the error says what it answered"
	case webhook.KindReset:
		return "look at the receiver's log; does it expect https?"
	default:
		return "look at the receiver's log"
	}
	switch status := result.Status; {
	case status/100 == 3:
		return "write the URL that it redirects to into rowhook.yaml"
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return "compare the secret and the headers of the webhook with what the receiver expects"
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		return "correct the path of the URL; the receiver has to accept POST there"
	case status == http.StatusRequestEntityTooLarge:
		return "raise the receiver's limit, or leave large columns out by payload.columns"
	}
	return "look at the receiver's log"
}

// Err returns an error that says what to do, if the event was sent and not delivered.
func (r *TrialResult) Err() error {
	if !r.Sent || r.Delivered {
		return nil
	}
	return fmt.Errorf("the test was not delivered: %s: %s", r.Error, r.Remedy)
}
