package operate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// Event is an event and its present state.
type Event struct {
	ID          string     `json:"id"`
	Trigger     string     `json:"trigger"`
	Table       string     `json:"table"` // schema.table
	Op          string     `json:"op"`    // INSERT, UPDATE, DELETE, TRUNCATE or MANUAL
	State       State      `json:"state"`
	Attempts    int        `json:"attempts"` // begun so far, including the present one
	CreatedAt   time.Time  `json:"created_at"`
	DueAt       *time.Time `json:"due_at,omitempty"`        // waiting, retrying: when it is sent
	LeaseEndsAt *time.Time `json:"lease_ends_at,omitempty"` // in flight: when another instance may take it over
	InstanceID  *int32     `json:"instance_id,omitempty"`   // in flight: the instance that has it
	DeliveredAt *time.Time `json:"delivered_at,omitempty"`
	DiedAt      *time.Time `json:"died_at,omitempty"`
	Reason      string     `json:"reason,omitempty"` // dead: why it is a dead letter
	// Key is the key within which events of an ordered trigger are sent in order, as the JSON of
	// its values. Missing: the event has no order.
	Key string `json:"key,omitempty"`
	// Sequence is its place in that order, as in the body that is sent. 0: none.
	Sequence int64 `json:"sequence,omitempty"`
	// Blocks is set for a dead letter that holds its key: later events of the key wait for it.
	Blocks bool `json:"blocks,omitempty"`
	// MergedInto is the id of the later event that was sent in its stead. Its State is delivered.
	MergedInto string `json:"merged_into,omitempty"`
	// Unsent is set if MergedInto is the deletion of a row that came and went before anything of it
	// was sent, so that nothing was. It may be this event itself.
	Unsent  bool     `json:"unsent,omitempty"`
	Payload *Payload `json:"payload,omitempty"`
	// PayloadProblem says why a requested Payload is missing.
	PayloadProblem string `json:"payload_problem,omitempty"`
	// WaitsFor says why an event that is due is waiting or retrying: endpoint, if that fails;
	// answer, if it is being sent, which no claim says of an event with a key, by InstanceID;
	// dead_letter, if one holds its key; transaction, if the strict order of its trigger waits for
	// one that is open. "": nothing of this is known. It is sent after the earlier events of its key,
	// when a dispatcher has a free slot.
	WaitsFor string `json:"waits_for,omitempty"`
	// WaitsOn is the id of that dead letter, or names the session of that transaction.
	WaitsOn string `json:"waits_on,omitempty"`
	// Last is how the last attempt ended. Missing: none has ended, or it is no longer in the log.
	// Lists have it; a Detail has the whole log.
	Last *LastAttempt `json:"last_attempt,omitempty"`

	health *EndpointHealth // of its endpoint, if it waits for that
}

// LastAttempt is how the last logged attempt of an event ended.
type LastAttempt struct {
	StartedAt time.Time `json:"started_at"`
	Status    *int16    `json:"status,omitempty"` // HTTP status of the response; nil: there was no response
	Kind      string    `json:"kind,omitempty"`   // kind of failure without a response
}

// Payload is the data of an event, as JSON. Missing parts are null.
type Payload struct {
	Old              json.RawMessage `json:"old"`
	New              json.RawMessage `json:"new"`
	SessionVariables json.RawMessage `json:"session_variables"`
	TraceContext     json.RawMessage `json:"trace_context"`
}

// MarshalJSON writes parts that are nested deeper than deepest as JSON strings.
func (p Payload) MarshalJSON() ([]byte, error) {
	type plain Payload
	return marshal(plain{shallow(p.Old), shallow(p.New), shallow(p.SessionVariables), shallow(p.TraceContext)})
}

// MarshalJSON writes a Body that is nested deeper than deepest as a JSON string.
func (r Request) MarshalJSON() ([]byte, error) {
	type plain Request
	r.Body = shallow(r.Body)
	return marshal(plain(r))
}

// marshal is json.Marshal without escapes for <, > and &, as in all responses.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// deepest is the greatest nesting of JSON that is passed on as JSON. encoding/json, and most other
// parsers, accept 10,000 levels.
const deepest = 9_900

// shallow returns text, or text as a JSON string if it is nested deeper than deepest.
func shallow(text json.RawMessage) json.RawMessage {
	depth, quoted, escaped := 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		}
		if depth > deepest {
			out, err := marshal(string(text))
			if err != nil {
				return text
			}
			return out
		}
	}
	return text
}

// ListOptions choose a page of a list of events.
type ListOptions struct {
	Limit   int    // events per page, at most MaxLimit; 0: DefaultLimit
	Cursor  string // Next of the previous page; "": the first page
	Payload bool   // include payloads
	Last    bool   // include how the last attempts ended
	// Budget bounds the time of a search that no index supports; 0: DefaultBudget.
	Budget time.Duration
}

// Defaults and bounds of ListOptions.
const (
	DefaultLimit  = 50
	MaxLimit      = 1000
	DefaultBudget = 150 * time.Millisecond
)

// Page is a page of a list of events, newest first.
type Page struct {
	Events []Event `json:"events"`
	// Next is the cursor of the next page; "": this is the last page.
	Next string `json:"next,omitempty"`
	// LookedBackTo is set if the budget ran out before the page was full. Events older than this
	// were not examined yet. The page at Next continues there.
	LookedBackTo *time.Time `json:"looked_back_to,omitempty"`
}

// List returns a page of the events that the filter chooses, newest first. A wrong Limit, Cursor or
// filter is ErrInvalid; an unknown trigger or table is ErrNotFound.
func List(ctx context.Context, db DB, f Filter, o ListOptions) (*Page, error) {
	if o.Limit < 0 || o.Limit > MaxLimit {
		return nil, problem(ErrInvalid, "use the cursor for more", "limit must be 1 to %d, got %d", MaxLimit, o.Limit)
	}
	limit := cmp.Or(o.Limit, DefaultLimit)
	cursor := ""
	if o.Cursor != "" {
		u, err := uuid.Parse(o.Cursor)
		if err != nil {
			return nil, problem(ErrInvalid, "copy it from \"next\" of the previous page", "%q is not a cursor", o.Cursor)
		}
		cursor = u.String()
	}
	var page *Page
	err := read(ctx, db, func(tx pgx.Tx) error {
		ts, q, err := f.read(ctx, tx)
		if err != nil {
			return err
		}
		page, err = list(ctx, tx, ts, q, limit, cursor, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

func list(ctx context.Context, tx pgx.Tx, ts triggers, q *query, limit int, cursor string, o ListOptions) (*Page, error) {
	budget := cmp.Or(o.Budget, DefaultBudget)
	began := time.Now()
	var found []raw
	horizon := "" // some source was not searched below this id
	all := sources()
	for i, s := range all {
		w := &walk{query: q, source: s, descending: true, reasons: true, after: cursor, deadline: began.Add(budget * time.Duration(i+1) / time.Duration(len(all)))}
		events, reached, err := w.next(ctx, tx, limit+1)
		if err != nil {
			return nil, err
		}
		found = append(found, events...)
		if reached != "" && len(events) <= limit {
			horizon = max(horizon, reached)
		}
	}
	sorting.By(found, func(a, b raw) int { return cmp.Compare(b.ID, a.ID) })
	if end := slices.IndexFunc(found, func(r raw) bool { return r.ID < horizon }); end >= 0 {
		found = found[:end]
	}
	page := &Page{Events: []Event{}}
	most := min(limit, len(found))
	if o.Payload {
		var err error
		if most, err = fetchPayloads(ctx, tx, found[:most]); err != nil {
			return nil, err
		}
	}
	for i := range found[:most] {
		page.Events = append(page.Events, found[i].event(ts, o.Payload))
	}
	shown := make([]*Event, len(page.Events))
	for i := range page.Events {
		shown[i] = &page.Events[i]
	}
	if err := waitFor(ctx, tx, ts, began, shown...); err != nil {
		return nil, err
	}
	if err := findUnsent(ctx, tx, ts, shown...); err != nil {
		return nil, err
	}
	if o.Last {
		if err := lastAttempts(ctx, tx, shown...); err != nil {
			return nil, err
		}
	}
	if most < len(found) {
		page.Next = page.Events[most-1].ID
		return page, nil
	}
	if horizon != "" {
		at := idTime(horizon)
		page.Next, page.LookedBackTo = horizon, &at
	}
	return page, nil
}

// Detail is everything that is known of one event.
type Detail struct {
	Event
	MaxAttempts int       `json:"max_attempts"` // the trigger's present configuration
	Request     Request   `json:"request"`      // by the present configuration
	Log         []Attempt `json:"attempt_log"`  // oldest first; attempts older than their retention are deleted
	Next        string    `json:"next"`         // what happens next, for people
	// Masked is what of old and new the trigger masks; see the mask of a payload. None: nothing.
	Masked []string `json:"masked,omitempty"`

	strict bool // its trigger has a strict order
	held   bool // its trigger has a bound: a dispatcher may hold it for a while before it sends it

	trigger *knownTrigger
	address string // the URL of the request without data of the event
}

// Request is the HTTP request of an event. References to the environment are not expanded.
type Request struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers,omitempty"`
	// Body is the same for every attempt but for current_retry, which is the attempt's number minus
	// 1. It is a string if the body is not JSON. null: there is none, or see PayloadProblem.
	Body json.RawMessage `json:"body"`
}

// Attempt is one attempt as it was logged.
type Attempt struct {
	Number          int             `json:"number"` // from 1; a redelivery starts again at 1
	StartedAt       time.Time       `json:"started_at"`
	DurationMS      float64         `json:"duration_ms"`
	InstanceID      int32           `json:"instance_id"`
	Status          *int            `json:"status,omitempty"`     // HTTP status of the response; nil: there was no response
	ErrorKind       string          `json:"error_kind,omitempty"` // kind of failure without a response
	Error           string          `json:"error,omitempty"`
	ResponseHeaders json.RawMessage `json:"response_headers,omitempty"`
	ResponseBody    string          `json:"response_body,omitempty"` // its beginning
	// Batch is the webhook-id of the request, if its trigger had batches: other events may have been
	// in it.
	Batch string `json:"batch,omitempty"`
}

// Show returns one event with its payload and every logged attempt. An unknown id is ErrNotFound.
func Show(ctx context.Context, db DB, id string) (*Detail, error) {
	f := Filter{IDs: []string{id}}
	var d *Detail
	err := read(ctx, db, func(tx pgx.Tx) error {
		ts, q, err := f.read(ctx, tx)
		if err != nil {
			return err
		}
		r, err := find(ctx, tx, q)
		if err != nil {
			return err
		}
		d, err = detail(ctx, tx, ts, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// find reads the event that a query by a single id chooses.
func find(ctx context.Context, tx pgx.Tx, q *query) (*raw, error) {
	// An event may move to a table that was already searched. The second round finds it there.
	for range 2 {
		for _, s := range sources() {
			w := &walk{query: q, source: s, reasons: true}
			events, _, err := w.next(ctx, tx, 1)
			if err != nil {
				return nil, err
			}
			if len(events) > 0 {
				_, err := fetchPayloads(ctx, tx, events)
				return &events[0], err
			}
		}
	}
	return nil, notFound(q.ids[0])
}

func notFound(id string) error {
	return problem(ErrNotFound, "check the id; delivered events are deleted after their retention, discarded ones at once", "event %s not found", id)
}

func detail(ctx context.Context, tx pgx.Tx, ts triggers, r *raw) (*Detail, error) {
	t := ts.byID(r.TriggerID).of(r.RelationID)
	sent := *r // with what r.event masks
	d := &Detail{Event: r.event(ts, true)}
	spec := trigger.DefaultSpec()
	if t.Spec != "" {
		if err := json.Unmarshal([]byte(t.Spec), &spec); err != nil {
			return nil, fmt.Errorf("read the spec of %s: %w", t.Name, err)
		}
	}
	d.MaxAttempts, d.Masked = spec.Retry.Limit+1, spec.Payload.Mask
	d.strict, d.held = spec.Order.Strict, !spec.Rate.IsZero() || spec.ConcurrencyTotal > 0 || spec.Concurrency > 0
	next := r.Tries // failed attempts before the next one
	if d.State == InFlight || d.State == Delivered || d.State == Dead {
		next = max(r.Tries-1, 0)
	}
	id, err := uuid.Parse(r.ID)
	if err != nil {
		return nil, fmt.Errorf("read an event's id: %w", err)
	}
	event := &webhook.Event{
		ID: id, CreatedAt: r.CreatedAt, Schema: t.Schema, Table: t.Table, Trigger: t.Name, Op: r.Op[0],
		Old: sent.Old, New: sent.New, Session: r.Session, Trace: r.Trace, CurrentRetry: next, MaxRetries: spec.Retry.Limit, Sequence: r.Seq,
	}
	event.Trim(spec.Payload)
	event.Old, event.New = t.mask.Apply(event.Old), t.mask.Apply(event.New)
	d.Request, d.address = requestOf(&spec, event, r.problem == "")
	if d.Log, err = attempts(ctx, tx, r.ID); err != nil {
		return nil, err
	}
	for i := range d.Log {
		t.hushAttempt(&d.Log[i])
	}
	if err := waitFor(ctx, tx, ts, time.Now(), &d.Event); err != nil {
		return nil, err
	}
	if err := findUnsent(ctx, tx, ts, &d.Event); err != nil {
		return nil, err
	}
	d.trigger, d.Next = t, d.outlook(t)
	return d, nil
}

// requestOf returns the request of an event, perhaps with others in a batch, and its URL without data.
// readable says that the event's data could be read.
func requestOf(spec *trigger.Spec, e *webhook.Event, readable bool) (r Request, address string) {
	var shown webhook.Preview
	var headers map[string]string
	var err error
	if spec.Kind() == trigger.KindNATS {
		shown, headers, err = webhook.UnexpandedMessage(&spec.NATS, e)
	} else {
		shown, headers, err = webhook.Unexpanded(spec.Webhook, e, !spec.Batch.IsZero())
	}
	r = Request{Method: shown.Method, URL: shown.URL, Headers: headers}
	switch {
	case err != nil: // no request can be made of this event
		r.URL, r.Headers = shown.Template, spec.Request().Headers
	case readable:
		r.Body = bodyAsJSON(shown.Body)
	default:
		r.URL = shown.Template
	}
	return r, shown.Template
}

// QuoteNothing removes from Next what a receiver may have said, and from the URL the data of the event.
func (d *Detail) QuoteNothing() {
	d.Request.URL = d.address
	if d.health == nil {
		return
	}
	health := *d.health
	health.Reason = cmp.Or(webhook.Brief(health.Reason), "why is withheld")
	d.health = &health
	d.Next = d.outlook(d.trigger)
}

func attempts(ctx context.Context, tx pgx.Tx, id string) (out []Attempt, err error) {
	err = escaping(ctx, tx, func(write func(string) string) (err error) {
		out, err = readAttempts(ctx, tx, id, write)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the attempts: %w", err)
	}
	return out, nil
}

// lastAttempts sets Event.Last.
func lastAttempts(ctx context.Context, tx pgx.Tx, events ...*Event) error {
	of := map[string]*Event{}
	for _, e := range events {
		of[e.ID] = e
	}
	rows, err := tx.Query(ctx, `
select w.id, l.started_at, l.status, coalesce(l.error_kind, '')
  from unnest($1::text[]) as w(id) cross join lateral (
    select i.started_at, i.status, i.error_kind from rowhook.invocation_log i where i.event_id = w.id::uuid order by i.started_at desc limit 1) as l`,
		slices.Collect(maps.Keys(of)))
	if err != nil {
		return fmt.Errorf("read the last attempts: %w", err)
	}
	var id string
	var last LastAttempt
	_, err = pgx.ForEachRow(rows, []any{&id, &last.StartedAt, &last.Status, &last.Kind}, func() error {
		e, own := of[id], last
		e.Last, last.Status = &own, nil
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the last attempts: %w", err)
	}
	return nil
}

func readAttempts(ctx context.Context, tx pgx.Tx, id string, write func(string) string) ([]Attempt, error) {
	headers := "response_headers"
	if write(headers) != headers { // escaped JSON is no JSON: it becomes a JSON string
		headers = "pg_catalog.to_json(" + write(headers+"::text") + ")"
	}
	rows, err := tx.Query(ctx, `
select attempt, started_at, duration_us, instance_id, status, coalesce(error_kind, ''), coalesce(`+write("error")+`, ''), `+headers+`, coalesce(`+write("response_body")+`, ''), coalesce(batch, '')
  from rowhook.invocation_log where event_id = $1::text::uuid order by started_at, attempt`, id)
	if err != nil {
		return nil, err
	}
	out := []Attempt{}
	var a Attempt
	var us int64
	var status *int16
	var header []byte
	_, err = pgx.ForEachRow(rows, []any{&a.Number, &a.StartedAt, &us, &a.InstanceID, &status, &a.ErrorKind, &a.Error, &header, &a.ResponseBody, &a.Batch}, func() error {
		a.DurationMS = float64(us) / 1000
		a.Status, a.ResponseHeaders = nil, nil
		if status != nil {
			s := int(*status)
			a.Status = &s
		}
		if header != nil {
			a.ResponseHeaders = slices.Clone(header)
		}
		out = append(out, a)
		return nil
	})
	return out, err
}

// outlook describes, for people, what happens next.
func (d *Detail) outlook(t *knownTrigger) string {
	at := func(t *time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }
	left := fmt.Sprintf("attempt %d of %d", d.Attempts+1, max(d.MaxAttempts, d.Attempts+1))
	switch {
	case d.State == Delivered && d.MergedInto == "":
		return "nothing: it was delivered. To send it again: rowhook redeliver " + d.ID
	case d.Unsent:
		return "nothing: its row came and went before anything of it was sent, so that nothing was"
	case d.State == Delivered:
		return "nothing: it was not sent itself. A later event of its key was sent in its stead, " + d.MergedInto
	case d.State == Dead && t.Removed:
		return "nothing: its trigger was removed. Add the trigger again and apply, then: rowhook redeliver " + d.ID
	case d.State == Dead && d.Blocks:
		return "nothing, and later events of its key wait, until someone sends it again (rowhook redeliver " + d.ID + ") or discards it"
	case d.State == Dead:
		return "nothing, until someone sends it again (rowhook redeliver " + d.ID + ") or discards it"
	case d.State == InFlight:
		doing := " is running"
		if d.held {
			doing = " is running, or is made as soon as the trigger's rate or its concurrency lets it"
		}
		return "attempt " + fmt.Sprint(d.Attempts) + doing + "; if its dispatcher dies, another one takes over by " + at(d.LeaseEndsAt)
	case t.Removed:
		return "its trigger was removed: it becomes a dead letter"
	case t.Paused:
		return left + " when the trigger is resumed: rowhook resume " + t.Name
	case d.WaitsFor == WaitsForAnswer:
		return fmt.Sprintf("attempt %d is running: dispatcher %d waits for the answer. To break it off and send again: rowhook cancel %s", d.Attempts+1, *d.InstanceID, t.Name)
	case d.WaitsFor == WaitsForDeadLetter:
		return left + " when the dead letter that holds its key is out of the way: rowhook redeliver " + d.WaitsOn + " or rowhook discard " + d.WaitsOn
	case d.DueAt.After(time.Now()):
		return left + " at " + at(d.DueAt)
	case d.health != nil:
		return left + " when its endpoint answers again: " + d.health.Explain(time.Now())
	}
	if d.WaitsFor == WaitsForTransaction {
		return left + " when all transactions that began before it have ended, since the order is strict: " + d.WaitsOn
	}
	if d.Key != "" && d.strict {
		return left + " as soon as the earlier events of its key are settled, all transactions that began before it have ended, and a dispatcher has a free slot, if it is not being sent just now"
	}
	if d.Key != "" {
		return left + " as soon as the earlier events of its key are settled, and a dispatcher has a free slot, if it is not being sent just now"
	}
	return left + " as soon as a dispatcher has a free slot"
}

// isNone reports whether err says that a query found no row.
func isNone(err error) bool { return errors.Is(err, pgx.ErrNoRows) }
