package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// ReplayTo sends delivered events of a trigger to another URL.
type ReplayTo struct {
	Trigger  string
	From, To time.Time // as in ReplayOptions
	AsNew    bool
	Ops      []string
	Payload  string
	URL      string // without references
	After    string // only events after this id, see ReplayToResult.Last; "": all
	// Progress is called after each request that was answered, on the caller's goroutine. Optional.
	Progress func(ReplayToResult)

	// Source returns what gives out what the trigger's webhook refers to.
	Source  func(trigger.Webhook) trigger.Source
	Guard   webhook.Guard // in addition to the one that was applied
	Version string        // of the program
}

// ReplayToResult is what came of a ReplayTo.
type ReplayToResult struct {
	Trigger string `json:"trigger"`
	URL     string `json:"url"` // for people
	// SameOrigin says that the URL has scheme, host and port of the trigger's own one. Otherwise the
	// requests had none of its headers, and no signature.
	SameOrigin bool            `json:"same_origin"`
	Sent       int64           `json:"sent"` // events, each tried once
	Delivered  int64           `json:"delivered"`
	Failed     int64           `json:"failed"`
	Failures   []ReplayFailure `json:"failures"`       // the first mostSkips
	Last       string          `json:"last,omitempty"` // all events up to this id were tried
	Done       bool            `json:"done"`           // all were
}

// ReplayFailure is an event that was not delivered.
type ReplayFailure struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

const (
	// replayToConcurrency bounds the requests in flight. A receiver under test is a small one.
	replayToConcurrency = 10
	replayToPage        = 100 // events that are read at once
)

// Send sends the events, oldest first, each once, from this process. Nothing is written: not to the
// queue, not to the log of attempts. The rate and the batches of the trigger apply. Events of an
// ordered trigger are sent one after another. A failed attempt is no error: the result lists it. If
// ctx ends, the result says how far it is.
func (o *ReplayTo) Send(ctx context.Context, db DB) (*ReplayToResult, error) {
	s := replaySender{ReplayTo: o, replay: replay{db: db, opt: ReplayOptions{From: o.From, To: o.To, Ops: o.Ops, Payload: o.Payload}}}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	defer s.client.Close()
	return &s.result, s.run(ctx)
}

// Check finds out, before anything is asked or sent, whether Send could begin: that the URL is one, that
// the trigger exists, and that what it refers to is there.
func (o *ReplayTo) Check(ctx context.Context, db DB) error {
	checked := *o
	s := replaySender{ReplayTo: &checked, replay: replay{db: db, opt: ReplayOptions{From: o.From, To: o.To, Ops: o.Ops, Payload: o.Payload}}}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	s.client.Close()
	return nil
}

// replaySender is the state of one ReplayTo.Send.
type replaySender struct {
	*ReplayTo
	replay
	spec     trigger.Spec
	client   *webhook.Client
	endpoint *webhook.Endpoint
	result   ReplayToResult
	next     time.Time // when the next request may be sent
}

func (s *replaySender) prepare(ctx context.Context) error {
	if s.After != "" {
		id, err := uuid.Parse(s.After)
		if err != nil {
			return problem(ErrInvalid, "copy the id that the interrupted replay has printed", "%q is not an event id", s.After)
		}
		s.After = id.String()
	}
	s.spec = trigger.DefaultSpec()
	var guard webhook.Guard
	err := read(ctx, s.db, func(tx pgx.Tx) error {
		if err := s.check(ctx, tx, s.Trigger); err != nil {
			return err
		}
		s.query.sentBefore = time.Now()
		if err := json.Unmarshal([]byte(s.trigger.Spec), &s.spec); err != nil {
			return fmt.Errorf("read the spec of %s: %w", s.trigger.Name, err)
		}
		cfg, err := queue.Load(ctx, tx)
		if err == nil {
			guard, err = guardWith(s.Guard, cfg.Settings.Network)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.client = webhook.NewClient(webhook.ClientConfig{Version: s.Version, Guard: guard})
	if err := s.point(); err != nil {
		s.client.Close()
		return err
	}
	s.result = ReplayToResult{Trigger: s.Trigger, URL: s.endpoint.String(), SameOrigin: s.result.SameOrigin, Failures: []ReplayFailure{}, Last: s.After}
	return nil
}

// point makes the endpoint. Only to the origin of the trigger's own URL go its headers, its query, its
// secret and its certificate, and only there references are expanded.
func (s *replaySender) point() error {
	none := trigger.Variables(func(string) (string, bool) { return "", false })
	own := s.spec.Request()
	there, err := webhook.NewEndpointFrom(trigger.Webhook{URL: s.URL}, none)
	if err != nil {
		return problem(ErrInvalid, "write a URL such as https://test.example.com/hook", "--url: %s", err)
	}
	source := s.Source(own)
	if at, err := webhook.NewEndpointFrom(trigger.Webhook{URL: own.URL}, source); err == nil && at.Origin() != "" {
		s.result.SameOrigin = at.Origin() == there.Origin()
	}
	to := own
	if !s.result.SameOrigin { // a new key of the configuration does not go there unless it is named here
		source, to = none, trigger.Webhook{Method: own.Method, Body: own.Body, Form: own.Form, Format: own.Format, Compress: own.Compress, Timeout: own.Timeout}
	}
	to.URL = s.URL
	s.endpoint, err = webhook.NewEndpointFrom(to, source)
	if err == nil {
		err = s.client.Prepare(s.endpoint)
	}
	if err != nil {
		return problem(ErrRefused, "correct the webhook, or run the command with the environment and the files of the dispatcher: the events are sent from here", "%s can't be called from here: %s", s.endpoint, err)
	}
	return nil
}

func (s *replaySender) run(ctx context.Context) error {
	for {
		events, end, err := s.page(ctx)
		if err != nil {
			return err
		}
		if err := s.sendAll(ctx, events); err != nil {
			return err
		}
		if end {
			s.result.Done = true
			return nil
		}
	}
}

// page reads the next events with their payloads. Those of an ordered trigger are in the order of
// their sequence.
func (s *replaySender) page(ctx context.Context) (events []raw, end bool, err error) {
	err = read(ctx, s.db, func(tx pgx.Tx) error {
		w := s.walk()
		w.after = s.result.Last
		events, _, err = w.next(ctx, tx, replayToPage)
		if err != nil || len(events) == 0 {
			end = true
			return err
		}
		if from := slices.IndexFunc(events, func(r raw) bool { return idTime(r.ID).Equal(idTime(events[len(events)-1].ID)) }); s.ordered && len(events) == replayToPage && from > 0 {
			events = events[:from] // ids of one millisecond are in no order
		}
		n, err := fetchPayloads(ctx, tx, events)
		if events = events[:n]; s.ordered {
			sorting.By(events, func(a, b raw) int { return cmp.Compare(a.Seq, b.Seq) })
		}
		return err
	})
	return events, end, err
}

// sendAll sends a page, and moves the position on over what was tried.
func (s *replaySender) sendAll(ctx context.Context, events []raw) error {
	requests := s.requests(events)
	slots := replayToConcurrency
	if s.ordered {
		slots = 1
	} else if n := s.spec.Concurrency; n > 0 {
		slots = min(slots, n)
	}
	answers, done, out, began := make(chan int), make([]bool, len(requests)), 0, 0
	first := 0 // not tried yet; what is tried beyond it may be sent again after an interruption
	var stopped error
	for out > 0 || stopped == nil && began < len(requests) {
		if stopped == nil && began < len(requests) && out < slots && began < first+2*slots {
			if stopped = s.await(ctx); stopped == nil {
				n := began
				began, out = began+1, out+1
				go func() {
					requests[n].send(ctx, s)
					answers <- n
				}()
			}
			continue
		}
		n := <-answers
		out--
		if r := &requests[n]; r.tried {
			done[n] = true
			s.count(r)
		} else {
			stopped = ctx.Err()
		}
		for first < len(done) && done[first] {
			first++
		}
	}
	if len(events) == 0 {
		return stopped
	}
	if first == len(done) {
		s.result.Last = slices.MaxFunc(events, func(a, b raw) int { return strings.Compare(a.ID, b.ID) }).ID
		return nil
	}
	if first > 0 && !s.ordered { // the order of sequence is not that of ids
		ids := requests[first-1].ids
		s.result.Last = ids[len(ids)-1]
	}
	return cmp.Or(stopped, ctx.Err())
}

// replayRequest is one request of a ReplayTo.
type replayRequest struct {
	ids    []string
	events []*webhook.Event
	errors []string // for each event; "": it was delivered
	tried  bool
}

// requests makes the requests of a page. An event whose payload can't be read fails by itself.
func (s *replaySender) requests(events []raw) []replayRequest {
	var out []replayRequest
	most := max(s.spec.Batch.Max, 1)
	for i := range events {
		r := &events[i]
		if r.problem != "" {
			out = append(out, replayRequest{ids: []string{r.ID}, errors: []string{r.problem}})
			continue
		}
		e := s.event(r)
		if n := len(out); n == 0 || len(out[n-1].events) == 0 || len(out[n-1].events) >= most {
			out = append(out, replayRequest{})
		}
		last := &out[len(out)-1]
		last.ids, last.events, last.errors = append(last.ids, r.ID), append(last.events, e), append(last.errors, "")
	}
	return out
}

func (s *replaySender) event(r *raw) *webhook.Event {
	t := s.ts.byID(r.TriggerID).of(r.RelationID)
	id, err := uuid.Parse(r.ID)
	if err == nil && s.AsNew {
		id, err = uuid.NewV7()
	}
	if err != nil {
		id = uuid.Nil // the database holds only UUIDs, and there is always randomness
	}
	e := &webhook.Event{
		ID: id, CreatedAt: r.CreatedAt, Schema: t.Schema, Table: t.Table, Trigger: t.Name, Op: r.Op[0],
		Old: r.Old, New: r.New, Session: r.Session, Trace: r.Trace, MaxRetries: s.spec.Retry.Limit, Sequence: r.Seq,
	}
	e.Trim(s.spec.Payload)
	return e
}

func (r *replayRequest) send(ctx context.Context, s *replaySender) {
	if len(r.events) == 0 {
		r.tried = true
		return
	}
	var result webhook.Result
	var failed []int
	if s.spec.Batch.IsZero() {
		result = s.client.Send(ctx, s.endpoint, r.events[0], nil)
	} else {
		result, failed = s.client.SendBatch(ctx, s.endpoint, r.events)
	}
	if len(s.spec.Payload.Mask) > 0 {
		result = result.Masked()
	}
	if ctx.Err() != nil && !result.Delivered() { // it was broken off here
		return
	}
	r.tried = true
	for i := range r.errors {
		switch {
		case !result.Delivered():
			r.errors[i] = s.trigger.hush(result.Err)
		case slices.Contains(failed, i):
			r.errors[i] = "the receiver's answer lists it as failed"
		}
	}
}

func (s *replaySender) count(r *replayRequest) {
	for i, id := range r.ids {
		s.result.Sent++
		if r.errors[i] == "" {
			s.result.Delivered++
			continue
		}
		s.result.Failed++
		if len(s.result.Failures) < mostSkips {
			s.result.Failures = append(s.result.Failures, ReplayFailure{id, r.errors[i]})
		}
	}
	if s.Progress != nil {
		s.Progress(s.result)
	}
}

// await waits until the rate of the trigger allows another request.
func (s *replaySender) await(ctx context.Context) error {
	if s.spec.Rate.IsZero() {
		return ctx.Err()
	}
	now := time.Now()
	if s.next.Before(now) {
		s.next = now
	}
	wait := s.next.Sub(now)
	s.next = s.next.Add(s.spec.Rate.Limit.Interval())
	return Rest(ctx, wait)
}

// Err returns an error if events were not delivered.
func (r *ReplayToResult) Err() error {
	if r.Failed == 0 {
		return nil
	}
	return errors.New("not all events were delivered")
}
