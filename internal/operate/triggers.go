package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// Trigger is a trigger as it was applied, without what may be a secret, and how it is doing.
type Trigger struct {
	Name    string       `json:"name"`
	Table   string       `json:"table"`             // schema.table, or the entries of tables
	Several bool         `json:"several,omitempty"` // it watches several tables
	State   TriggerState `json:"state"`
	Paused  bool         `json:"paused"`
	On      trigger.On   `json:"on"`
	When    string       `json:"when,omitempty"`
	Columns []string     `json:"columns,omitempty"` // of the payload; none: all
	Mask    []string     `json:"mask,omitempty"`    // paths of the payload that are shown nowhere
	// Payload has what the payload says besides columns and masks.
	Payload          trigger.Payload       `json:"payload,omitzero"`
	URL              string                `json:"url"`                // references to the environment are not expanded; of NATS, servers and subject
	NATS             *TriggerNATS          `json:"nats,omitempty"`     // none: events go to a webhook
	Method           string                `json:"method,omitempty"`   // none: POST
	Format           string                `json:"format,omitempty"`   // cloudevents, cloudevents-binary, template or form; none: that of Hasura
	Compress         string                `json:"compress,omitempty"` // none: bodies are not compressed
	Headers          []string              `json:"headers"`            // names only
	Signed           bool                  `json:"signed"`
	OAuth2           bool                  `json:"oauth2,omitempty"` // requests have a token
	TLS              *trigger.TLS          `json:"tls,omitempty"`    // the names of its files
	TimeoutMS        int64                 `json:"timeout_ms"`
	Retry            trigger.Retry         `json:"retry"`
	Delay            string                `json:"delay,omitempty"`             // of the first attempt; none: there is none
	Retention        *trigger.OwnRetention `json:"retention,omitempty"`         // none: the general one
	Order            *TriggerOrder         `json:"order,omitempty"`             // none: events have no order
	Batch            *trigger.Batch        `json:"batch,omitempty"`             // none: an event is a request
	Rate             *trigger.Rate         `json:"rate,omitempty"`              // none: no bound
	Concurrency      int                   `json:"concurrency,omitempty"`       // none: the dispatcher's default
	ConcurrencyTotal int                   `json:"concurrency_total,omitempty"` // none: no bound
	Breaker          string                `json:"breaker"`                     // on or off
	Notify           string                `json:"notify"`
	At               string                `json:"at"`
	Capture          string                `json:"capture"`
	OnReplication    bool                  `json:"on_replication"`

	// Tables are those of a trigger with several, where one trigger is read.
	Tables []sqlschema.WatchedTable `json:"tables,omitempty"`

	Pause    *queue.Pause `json:"pause,omitempty"` // since when, by whom and why, if that is known
	Problems []Warning    `json:"problems"`        // what keeps its changes from being recorded or sent
	// FailingSince is when its endpoint began to fail, if Health says that it does. Otherwise it is
	// about when the present failures began: the minute of the first one after the last delivery.
	// null: the trigger does not fail.
	FailingSince *time.Time `json:"failing_since"`
	LastErrorAt  *time.Time `json:"last_error_at"`
	LastError    string     `json:"last_error,omitempty"`
	// Health is set while the endpoint fails, so that events wait. null: it is ok.
	Health *EndpointHealth `json:"health"`
	Owed   int64           `json:"owed"` // events that wait, are in flight or are retried; above some thousands an estimate
	Dead   int64           `json:"dead"` // dead letters; likewise
}

// TriggerNATS is where messages go, in the place of a webhook.
type TriggerNATS struct {
	Subject string `json:"subject"`
	Stream  string `json:"stream,omitempty"` // none: any
	Login   string `json:"login,omitempty"`  // creds, user or token; none: there is no login, or it is in the URL
}

// natsOf returns where the messages of a trigger go. nil: it has a webhook.
func natsOf(spec *trigger.Spec) *TriggerNATS {
	n := &spec.NATS
	if n.IsZero() {
		return nil
	}
	out := &TriggerNATS{Subject: n.Subject, Stream: n.Stream}
	switch {
	case n.Creds != "":
		out.Login = "creds"
	case n.User != "":
		out.Login = "user"
	case n.Token != "":
		out.Login = "token"
	}
	return out
}

// shownAddress returns where events go, for people. References are not expanded.
func shownAddress(spec *trigger.Spec) string {
	none := trigger.Variables(func(string) (string, bool) { return "", false })
	// The error does not matter: the address is there in any case, with all references.
	if spec.Kind() == trigger.KindNATS {
		shown, _ := webhook.NewMessage(&spec.NATS, none, 0)
		return shown.String()
	}
	shown, _ := webhook.NewEndpointFrom(spec.Webhook, none)
	return shown.String()
}

// formatOf returns what the bodies of a webhook are; "": those of Hasura, or there are none.
func formatOf(w *trigger.Webhook) string {
	switch {
	case w.Body == trigger.BodyForm || len(w.Form) > 0:
		return "form"
	case w.IsTemplate():
		return "template"
	}
	return w.Format
}

// TriggerOrder is the order of a trigger's events.
type TriggerOrder struct {
	By     []string `json:"by"` // the columns of the key; ["row"]: the primary key
	Strict bool     `json:"strict"`
	OnDead string   `json:"on_dead"`
	Latest bool     `json:"latest"`
}

// TriggerState is the state of a trigger in a word. Where several apply, it is the first one of
// this order.
type TriggerState string

// The states.
const (
	TriggerRemoved    TriggerState = "removed"    // it is configured no longer
	TriggerUncaptured TriggerState = "uncaptured" // changes of its table are not recorded
	TriggerUnable     TriggerState = "unable"     // a dispatcher can't send for it
	TriggerPaused     TriggerState = "paused"     // its events are recorded, and not sent
	TriggerFailing    TriggerState = "failing"    // attempts fail, and none has succeeded since
	TriggerActive     TriggerState = "active"
)

// ListTriggers returns the triggers by name: the configured ones, and removed ones while they have
// events. Its time does not depend on the number of events.
func ListTriggers(ctx context.Context, db DB) ([]Trigger, error) {
	out := []Trigger{}
	err := read(ctx, db, func(tx pgx.Tx) error {
		ts, s, err := readStanding(ctx, tx)
		if err != nil {
			return err
		}
		for i := range s.Triggers {
			t, err := ts.named(s.Triggers[i].Name)
			if err != nil {
				return err
			}
			shown, err := s.trigger(t, &s.Triggers[i])
			if err != nil {
				return err
			}
			out = append(out, shown)
		}
		return nil
	})
	return out, err
}

// ReadTrigger returns one trigger, also a removed one. The error for an unknown name lists the
// triggers.
func ReadTrigger(ctx context.Context, db DB, name string) (out Trigger, err error) {
	err = read(ctx, db, func(tx pgx.Tx) error {
		_, out, err = readTrigger(ctx, tx, name)
		return err
	})
	return out, err
}

func readTrigger(ctx context.Context, tx pgx.Tx, name string) (*knownTrigger, Trigger, error) {
	ts, s, err := readStanding(ctx, tx)
	if err != nil {
		return nil, Trigger{}, err
	}
	t, err := ts.named(name)
	if err != nil {
		return nil, Trigger{}, err
	}
	st := &TriggerStatus{Name: t.Name, Table: t.watched(), Several: t.watches != "", Paused: t.Paused, Removed: t.Removed}
	if i := slices.IndexFunc(s.Triggers, func(st TriggerStatus) bool { return st.Name == name }); i >= 0 {
		st = &s.Triggers[i]
	}
	out, err := s.trigger(t, st)
	if err == nil && t.watches != "" && !t.Removed {
		out.Tables, err = sqlschema.FindWatchedTables(ctx, tx, name)
	}
	return t, out, err
}

// readStanding reads the part of the status that tells how triggers are doing.
func readStanding(ctx context.Context, tx pgx.Tx) (triggers, *Status, error) {
	s := &Status{Warnings: []Warning{}}
	var err error
	if s.Schema.Database, s.Schema.Program, err = sqlschema.Version(ctx, tx.Conn()); err != nil {
		return nil, nil, err
	}
	ts, err := readTriggers(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	for _, part := range []func(context.Context, pgx.Tx) error{s.readTriggers, s.readInstances} {
		if err := part(ctx, tx); err != nil {
			return nil, nil, err
		}
	}
	for _, check := range []func(context.Context, pgx.Tx) error{s.warnOfUncaptured, s.warnOfTrouble} {
		if err := s.orWarn(ctx, tx, check); err != nil {
			return nil, nil, err
		}
	}
	return ts, s, nil
}

// trigger joins what was applied with how it is doing.
func (s *Status) trigger(t *knownTrigger, st *TriggerStatus) (Trigger, error) {
	spec := trigger.DefaultSpec()
	if err := json.Unmarshal([]byte(t.Spec), &spec); err != nil {
		return Trigger{}, fmt.Errorf("read the spec of %s: %w", t.Name, err)
	}
	w := spec.Request()
	out := Trigger{
		Name: t.Name, Table: st.Table, Several: st.Several, Paused: t.Paused, On: spec.On, When: spec.When, Columns: spec.Payload.Columns, Mask: spec.Payload.Mask,
		URL: shownAddress(&spec), Headers: slices.AppendSeq([]string{}, maps.Keys(w.Headers)), Signed: w.Secret != "",
		TimeoutMS: w.Timeout.Std().Milliseconds(), Retry: spec.Retry, Concurrency: spec.Concurrency, Notify: spec.Notify,
		At: spec.At, Capture: spec.Capture, OnReplication: spec.OnReplication, Pause: st.Pause, Problems: []Warning{},
		FailingSince: st.FailingSince, LastErrorAt: st.LastErrorAt, LastError: st.LastError, Health: st.Health,
		Owed: st.Waiting + st.InFlight + st.Retrying, Dead: st.Dead,
	}
	out.Payload = spec.Payload
	out.Payload.Columns, out.Payload.Mask = nil, nil
	slices.Sort(out.Headers)
	out.Method, out.Format, out.Compress, out.OAuth2, out.NATS = w.Method, formatOf(&w), w.Compress, !w.OAuth2.IsZero(), natsOf(&spec)
	if spec.Delay > 0 {
		out.Delay = spec.Delay.String()
	}
	if !spec.Retention.IsZero() {
		out.Retention = &spec.Retention
	}
	out.ConcurrencyTotal, out.Breaker = spec.ConcurrencyTotal, cmp.Or(spec.Breaker, trigger.BreakerOn)
	if o := spec.Order; !o.IsZero() {
		out.Order = &TriggerOrder{By: o.By, Strict: o.Strict, OnDead: cmp.Or(o.OnDead, trigger.OnDeadSkip), Latest: o.Latest}
	}
	if !spec.Batch.IsZero() {
		spec.Batch.Bytes = cmp.Or(spec.Batch.Bytes, trigger.DefaultBatchBytes)
		out.Batch = &spec.Batch
	}
	if !spec.Rate.IsZero() {
		spec.Rate.Burst = max(spec.Rate.Burst, 1)
		out.Rate = &spec.Rate
	}
	if out.At == "" {
		out.At = trigger.AtChange
	}
	if out.Capture == "" {
		out.Capture = trigger.CaptureAuto
	}
	if !w.TLS.IsZero() {
		out.TLS = &w.TLS
	}
	for _, w := range s.Warnings {
		if w.Trigger == t.Name {
			out.Problems = append(out.Problems, w)
		}
	}
	out.State = stateOf(t, &out)
	return out, nil
}

func stateOf(t *knownTrigger, out *Trigger) TriggerState {
	uncaptured := func(w Warning) bool { return w.Code == Uncaptured }
	switch {
	case t.Removed:
		return TriggerRemoved
	case slices.ContainsFunc(out.Problems, uncaptured):
		return TriggerUncaptured
	case len(out.Problems) > 0:
		return TriggerUnable
	case out.Paused:
		return TriggerPaused
	case out.FailingSince != nil:
		return TriggerFailing
	}
	return TriggerActive
}
