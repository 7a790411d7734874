package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/rowhook/rowhook/internal/webapi"
)

// isBatch reports whether a body is an array, as that of a batch.
func isBatch(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("["))
}

// parseBatch reads the events of a batch. Each of them is a delivery of its own, with the headers of
// the request.
func (d *Delivery) parseBatch() (events []Delivery, err error) {
	var bodies []json.RawMessage
	if err := json.Unmarshal(d.Body, &bodies); err != nil {
		return nil, fmt.Errorf("the body begins as a batch, but is not JSON: %w", err)
	}
	if len(bodies) == 0 {
		return nil, errors.New("the body is a batch without events")
	}
	for i, body := range bodies {
		e := Delivery{Path: d.Path, Header: d.Header, ReceivedAt: d.ReceivedAt, Body: body, reused: d.reused}
		if err := e.parse(); err != nil {
			return nil, fmt.Errorf("event %d of the batch: %w", i+1, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// receiveBatch responds to a batch. Each event is treated as if it had come by itself. If some are
// accepted and some are not, the response is 200 and lists those which are not. Else it is that of the
// first event.
func (s *Sink) receiveBatch(w http.ResponseWriter, r *http.Request, d Delivery, events []Delivery) {
	d.Trigger = events[0].Trigger
	if err := s.checkSignature(&d); err != nil {
		s.reject(w, d, webapi.NewProblem(http.StatusUnauthorized, "unauthorized", err.Error(), "sign requests with the secret of this receiver"))
		return
	}
	var failed []string
	var accepted, refused func()
	delay := time.Duration(0)
	for i := range events {
		e := &events[i]
		e.Signature, e.SignatureProblem = d.Signature, d.SignatureProblem
		respond, wait := s.judge(w, r, e)
		delay = max(delay, wait)
		switch {
		case e.Accepted() && accepted == nil:
			accepted = respond
		case !e.Accepted() && refused == nil:
			refused = respond
		}
		if !e.Accepted() {
			failed = append(failed, e.ID)
		}
	}
	switch {
	case refused == nil:
		accepted()
	case accepted == nil:
		refused()
	default:
		s.listFailed(w, r, failed, delay)
	}
}

// judge decides about one event of a batch and records it. It returns how the sink would respond to
// it, and after which delay.
func (s *Sink) judge(w http.ResponseWriter, r *http.Request, e *Delivery) (respond func(), delay time.Duration) {
	rule := s.rules.now().find(e)
	if rule == nil && s.Respond != nil {
		s.journal.mu.Lock()
		s.journal.arrive(e, nil)
		s.journal.mu.Unlock()
		response := s.Respond(r.Context(), *e)
		s.record(e, response)
		return func() { response.write(w) }, 0
	}
	b, rolls := s.behaviour(e, rule)
	act := s.decide(e, b, rule, rolls)
	s.finish(e)
	return func() { act.respond(w, r, b, s.rules.standing(e, rule)) }, b.Delay
}

// listFailed responds that some events of a batch have failed.
func (s *Sink) listFailed(w http.ResponseWriter, r *http.Request, failed []string, delay time.Duration) {
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler) // net/http closes the connection and logs nothing
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string][]string{"failed": failed}) // the sender may be gone
}
