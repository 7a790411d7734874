package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/sink"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/webapi"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// Dev is what rowhook dev adds to the interface. All fields are required.
type Dev struct {
	// Token has all scopes. Whoever does not send it may do what is allowed without it.
	Token string
	// About says what runs.
	About func() DevAbout
	// Sink is the receiver.
	Sink *sink.Sink
	// Connect opens a session for SQL that somebody types in, as a role that is no superuser. notice
	// is called with what the server says.
	Connect func(ctx context.Context, notice func(*pgconn.Notice)) (*pgx.Conn, error)
	// Backfill opens a session of the same role for a backfill with a condition, which is SQL as well.
	Backfill func(ctx context.Context) (*pgx.Conn, error)
	// Config returns the configuration, with its problems, and its plan against what is applied.
	Config func(ctx context.Context) (*DevConfig, error)
	// Change checks another text for the configuration, and makes its plan. If it is told to, it
	// writes and applies it.
	Change func(ctx context.Context, to DevChange) (*DevConfig, error)
}

// DevAbout says what runs.
type DevAbout struct {
	SinkURL   string       `json:"sink_url"`   // of the receiver
	ToSink    bool         `json:"to_sink"`    // all deliveries go there, and not to the configured URLs
	ForwardTo *string      `json:"forward_to"` // the app that it sends them on to; null: none
	Config    *string      `json:"config"`     // the file or directory; null: the sample
	Triggers  []DevTrigger `json:"triggers"`
}

// DevTrigger is a trigger of rowhook dev.
type DevTrigger struct {
	Name       string `json:"name"`
	Table      string `json:"table"`
	URL        string `json:"url"` // where its events are sent; references are not expanded
	ForwardURL string `json:"forward_url,omitempty"`
	Signed     bool   `json:"signed"`
}

// DevConfig is the configuration of rowhook dev.
type DevConfig struct {
	Path *string `json:"path"` // null: the sample
	Text *string `json:"text"` // null: it has several files
	ETag string  `json:"etag"` // of the text
	// ReadOnly says why it can't be changed here; "": it can.
	ReadOnly string       `json:"read_only,omitempty"`
	Problems []DevProblem `json:"problems"` // what is wrong with it
	Warnings []DevProblem `json:"warnings"`
	// Plan is what an apply would change, as apply --dry-run --json prints it; null: see Problems. After
	// an apply it is what that has changed.
	Plan    json.RawMessage `json:"plan"`
	Applied bool            `json:"applied"`
}

// DevProblem is one thing that is wrong with a configuration. Line and Column count from 1; 0: it
// concerns the whole file.
type DevProblem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
}

// DevChange is another text for the configuration.
type DevChange struct {
	Text  string `json:"text"`
	ETag  string `json:"etag"` // of the text that was read before
	Apply bool   `json:"apply"`
}

func (s *Server) devAbout(http.ResponseWriter, *http.Request) (int, any, error) {
	return http.StatusOK, s.cfg.Dev.About(), nil
}

// devDelivery is a delivery as the receiver got it.
type devDelivery struct {
	Sequence         uint64              `json:"sequence"`
	ReceivedAt       time.Time           `json:"received_at"`
	Trigger          string              `json:"trigger,omitempty"`
	EventID          string              `json:"event_id,omitempty"`
	Op               string              `json:"op,omitempty"`
	Table            string              `json:"table,omitempty"`
	Attempt          int                 `json:"attempt"`
	Method           string              `json:"method"`
	Path             string              `json:"path"`
	Headers          map[string][]string `json:"headers"`
	Body             string              `json:"body"` // its beginning
	BodyBytes        int                 `json:"body_bytes"`
	Signature        string              `json:"signature"`
	SignatureProblem string              `json:"signature_problem,omitempty"`
	Status           *int                `json:"status"` // of the answer; null: there was none
	Note             string              `json:"note,omitempty"`
	Problem          string              `json:"problem,omitempty"`
	Duplicate        bool                `json:"duplicate,omitempty"`
}

type devDeliveries struct {
	Deliveries []devDelivery `json:"deliveries"`
	Cursor     uint64        `json:"cursor"`         // of the newest, for after
	Next       uint64        `json:"next,omitempty"` // for before: there are older ones; 0: there are none
}

const (
	maxDevDeliveries = 200
	maxDevBody       = 64 << 10 // bytes of a body that are shown
)

// devDeliveries responds with what the receiver got, newest first.
func (s *Server) devDeliveries(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	q := r.URL.Query()
	limit, err := number(q, "limit", 1, maxDevDeliveries)
	if err != nil {
		return 0, nil, err
	}
	if limit == 0 {
		limit = 50
	}
	var bounds [2]uint64
	for i, name := range []string{"after", "before"} {
		if text := q.Get(name); text != "" {
			if bounds[i], err = strconv.ParseUint(text, 10, 64); err != nil {
				return 0, nil, invalid(name, text, "copy it from an earlier answer")
			}
		}
	}
	if err := s.checkDevTrigger(q.Get("trigger")); err != nil {
		return 0, nil, err
	}
	// The cursor is taken first, so a delivery that arrives now comes again rather than never.
	out := devDeliveries{Deliveries: []devDelivery{}, Cursor: s.cfg.Dev.Sink.Cursor()}
	for _, d := range slices.Backward(s.cfg.Dev.Sink.List(sink.Match{Trigger: q.Get("trigger"), After: bounds[0]})) {
		if bounds[1] > 0 && d.Sequence >= bounds[1] {
			continue
		}
		if len(out.Deliveries) == limit {
			out.Next = out.Deliveries[limit-1].Sequence
			break
		}
		out.Deliveries = append(out.Deliveries, showDelivery(&d))
	}
	return http.StatusOK, out, nil
}

func showDelivery(d *sink.Delivery) devDelivery {
	out := devDelivery{
		Sequence: d.Sequence, ReceivedAt: d.ReceivedAt, Trigger: d.Trigger, EventID: d.ID, Op: d.Op, Attempt: d.Attempt, Method: cmp.Or(d.Method, http.MethodPost), Path: d.Path,
		Headers: map[string][]string{}, BodyBytes: len(d.Body), Signature: string(d.Signature), SignatureProblem: d.SignatureProblem,
		Note: d.Note, Problem: d.Problem, Duplicate: d.Duplicate,
	}
	if _, query, ok := strings.Cut(d.Behind, "?"); ok {
		out.Path += "?" + query // it may be all that a request without a body has of the event
	}
	if d.Table != "" {
		out.Table = d.Schema + "." + d.Table
	}
	if d.Status != 0 {
		out.Status = &d.Status
	}
	for name, values := range d.Header {
		if webhook.IsCredential(name) {
			values = []string{"<redacted>"}
		}
		out.Headers[name] = values
	}
	out.Body = strings.ToValidUTF8(string(d.Body[:min(len(d.Body), maxDevBody)]), "\uFFFD")
	return out
}

// checkDevTrigger rejects a trigger that there is not. "" is any.
func (s *Server) checkDevTrigger(name string) error {
	if name == "" {
		return nil
	}
	var names []string
	for _, t := range s.cfg.Dev.About().Triggers {
		names = append(names, t.Name)
	}
	if slices.Contains(names, name) {
		return nil
	}
	return webapi.NewProblem(http.StatusNotFound, "not_found", fmt.Sprintf("there is no trigger named %q%s", name, suggest.Hint(name, names)), "GET /api/v1/dev lists the triggers")
}

// devAnswer is how the receiver answers.
type devAnswer struct {
	Trigger *string          `json:"trigger"` // null: all that have none of their own
	Status  int              `json:"status,omitempty"`
	Delay   trigger.Duration `json:"delay,omitzero"`
	Hang    bool             `json:"hang,omitempty"`  // no answer until the dispatcher gives up
	Share   *float64         `json:"share,omitempty"` // of the attempts that fail so, at random; missing: all
	// More says that the receiver does more than this, as it was told by its own interface.
	More bool `json:"more,omitempty"`
}

// behaviour returns what the receiver is told, or what is wrong.
func (a *devAnswer) behaviour() (b sink.Behaviour, err error) {
	failing := a.Hang || a.Status != 0 && a.Status/100 != 2
	switch {
	case a.Status != 0 && (a.Status < 200 || a.Status > 599):
		return b, invalid("status", strconv.Itoa(a.Status), "write one from 200 to 599, or hang for no answer at all")
	case a.Hang && a.Status != 0:
		return b, invalid("status", strconv.Itoa(a.Status), "leave it out: hang means that there is no answer")
	case a.Share != nil && (!(*a.Share > 0) || *a.Share > 1):
		return b, invalid("share", fmt.Sprint(*a.Share), "write a number above 0, and up to 1, such as 0.3")
	case a.Share != nil && !failing:
		return b, invalid("share", fmt.Sprint(*a.Share), "it is the share of failures: add the status of these, such as 500, or hang")
	case a.Delay < 0 || a.Delay.Std() > maxDevDelay:
		return b, invalid("delay", a.Delay.String(), "write one up to 10m")
	}
	b = sink.Behaviour{Delay: a.Delay.Std(), Hang: a.Hang}
	switch {
	case !failing:
		b.Status = a.Status
	case a.Share != nil && *a.Share < 1:
		b.FailStatus, b.FailRate = a.Status, *a.Share
	default:
		b.FailStatus, b.Fail = a.Status, -1
	}
	return b, nil
}

const maxDevDelay = 10 * time.Minute

// showAnswer is the reverse of behaviour, as far as there is one.
func showAnswer(rule *sink.Rule) devAnswer {
	b := &rule.Behaviour
	out := devAnswer{Delay: trigger.Duration(b.Delay), Hang: b.Hang, Status: b.Status}
	if rule.Trigger != "" {
		out.Trigger = &rule.Trigger
	}
	if b.Fail < 0 || b.FailRate > 0 {
		if out.Status = b.FailStatus; out.Status == 0 && !b.Hang {
			out.Status = http.StatusInternalServerError
		}
	}
	if b.FailRate > 0 {
		out.Share = &b.FailRate
	}
	out.More = len(rule.Where) > 0 || len(b.Statuses) > 0 || b.Fail > 0 || b.CloseConnection || b.Redirect != "" || b.Body != "" || b.BodySize != 0 || b.RetryAfter != 0
	return out
}

func (s *Server) devAnswers(http.ResponseWriter, *http.Request) (int, any, error) {
	answers := []devAnswer{}
	for _, rule := range s.cfg.Dev.Sink.Rules() {
		answers = append(answers, showAnswer(&rule))
	}
	return http.StatusOK, map[string]any{"answers": answers}, nil
}

func (s *Server) setDevAnswer(w http.ResponseWriter, r *http.Request) (int, any, error) {
	var in devAnswer
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	b, err := in.behaviour()
	if err != nil {
		return 0, nil, err
	}
	if in.More {
		return 0, nil, invalid("more", "true", "leave it out: it is only in answers")
	}
	rule := sink.Rule{Behaviour: b}
	if in.Trigger != nil {
		rule.Trigger = *in.Trigger
	}
	if err := s.checkDevTrigger(rule.Trigger); err != nil {
		return 0, nil, err
	}
	if _, err := s.cfg.Dev.Sink.Behave(rule); err != nil {
		return 0, nil, webapi.NewProblem(http.StatusUnprocessableEntity, "refused", err.Error(), "DELETE /api/v1/dev/answer removes all")
	}
	return s.devAnswers(w, r)
}

// removeDevAnswer removes the answer of a trigger, or all answers.
func (s *Server) removeDevAnswer(w http.ResponseWriter, r *http.Request) (int, any, error) {
	name := r.URL.Query().Get("trigger")
	s.cfg.Dev.Sink.Revert(func(rule sink.Rule) bool { return name == "" || rule.Trigger == name && len(rule.Where) == 0 })
	return s.devAnswers(w, r)
}

func (s *Server) devConfig(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	c, err := s.cfg.Dev.Config(r.Context())
	return http.StatusOK, c, err
}

func (s *Server) changeDevConfig(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	var in DevChange
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	if in.Apply && in.ETag == "" {
		return 0, nil, webapi.NewProblem(http.StatusBadRequest, "invalid", "the key etag is missing", "send the one of GET /api/v1/dev/config, so that nobody's change is lost")
	}
	c, err := s.cfg.Dev.Change(r.Context(), in)
	if err == nil && c.Applied {
		s.logChange(r, "applied a changed configuration", "file", *c.Path)
	}
	return http.StatusOK, c, err
}

// DevConflict is the problem of a change whose file has changed meanwhile.
func DevConflict(path string) error {
	return webapi.NewProblem(http.StatusConflict, "conflict", path+" has changed since it was read", "read it again, and make the change on top of it")
}

// DevReadOnly is the problem of a change of a configuration that can't be changed here.
func DevReadOnly(why string) error {
	return webapi.NewProblem(http.StatusUnprocessableEntity, "refused", why, "change it where it is")
}
