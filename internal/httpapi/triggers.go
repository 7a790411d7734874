package httpapi

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/webapi"
)

// triggers responds with the triggers by name.
func (s *Server) triggers(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	all, err := operate.ListTriggers(r.Context(), s.cfg.DB)
	return http.StatusOK, map[string]any{"triggers": all}, err
}

// trigger responds with one trigger, its configuration and its SQL triggers.
func (s *Server) trigger(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	t, err := operate.ShowTrigger(r.Context(), s.cfg.DB, r.PathValue("name"))
	return http.StatusOK, t, err
}

func (s *Server) invoke(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	var in struct {
		Payload          json.RawMessage `json:"payload"`
		SessionVariables json.RawMessage `json:"session_variables"`
		TraceContext     json.RawMessage `json:"trace_context"`
	}
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	if in.Payload == nil {
		return 0, nil, webapi.NewProblem(http.StatusBadRequest, "invalid", "the key payload is missing", `send {"payload": ...}; null is a payload, too`)
	}
	id, err := operate.Record(r.Context(), s.cfg.DB, operate.Manual{
		Trigger: r.PathValue("name"), Payload: in.Payload, SessionVariables: in.SessionVariables, TraceContext: in.TraceContext,
	})
	if err == nil {
		s.logChange(r, "invoke", "trigger", r.PathValue("name"), "event", id)
	}
	return http.StatusCreated, map[string]string{"id": id}, err
}

// pausing is the body of pause and resume.
type pausing struct {
	Triggers []string `json:"triggers"`
	All      bool     `json:"all"`
}

func (s *Server) pause(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	var in struct {
		pausing
		Reason string `json:"reason"`
	}
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	return s.setPaused(r, "pause", in.pausing, func(ctx context.Context, db operate.DB, names ...string) ([]string, error) {
		return operate.PauseFor(ctx, db, in.Reason, names...)
	})
}

func (s *Server) resume(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	var in pausing
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	return s.setPaused(r, "resume", in, operate.Resume)
}

func (s *Server) setPaused(r *http.Request, what string, in pausing, set func(context.Context, operate.DB, ...string) ([]string, error)) (int, any, error) {
	if in.All == (len(in.Triggers) > 0) {
		return 0, nil, webapi.NewProblem(http.StatusBadRequest, "invalid", "the request must name triggers or say all, and not both", `send {"triggers": ["..."]} or {"all": true}`)
	}
	changed, err := set(r.Context(), s.cfg.DB, in.Triggers...)
	if err == nil {
		s.logChange(r, what, "trigger", changed)
	}
	return http.StatusOK, map[string][]string{"changed": changed}, err
}

// audit responds with a page of the audit.
func (s *Server) audit(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	q := r.URL.Query()
	o := operate.AuditOptions{Triggers: several(q, "trigger"), Actions: several(q, "action")}
	for _, action := range o.Actions {
		if !slices.Contains(operate.Audited(), action) {
			return 0, nil, invalid("action", action, "write one of "+strings.Join(operate.Audited(), ", "))
		}
	}
	var err error
	if o.Since, o.Until, err = readTimes(q); err != nil {
		return 0, nil, err
	}
	if o.Limit, err = number(q, "limit", 1, operate.MaxLimit); err != nil {
		return 0, nil, err
	}
	before, err := number(q, "cursor", 1, math.MaxInt)
	if err != nil {
		return 0, nil, err
	}
	o.Before = int64(before)
	page, err := operate.Audit(r.Context(), s.cfg.DB, o)
	return http.StatusOK, page, err
}

// maxDrain is the longest time that drain and retry may be told to wait.
const maxDrain = 60 * time.Second

// retry makes retries due at once. It may wait for them.
func (s *Server) retry(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	var in struct {
		IDs []string `json:"ids"`
	}
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	seconds, err := number(r.URL.Query(), "wait", 0, int(maxDrain/time.Second))
	if err != nil {
		return 0, nil, err
	}
	out, err := operate.RetryNow(r.Context(), s.cfg.DB, operate.RetryOptions{
		Trigger: r.PathValue("name"), IDs: in.IDs, Wait: time.Duration(seconds) * time.Second,
	})
	if err == nil && out.Events > 0 {
		s.logChange(r, "retry", "trigger", out.Trigger, "events", out.Events)
	}
	return http.StatusOK, out, err
}

// cancel breaks off the attempts of a trigger that are in flight.
func (s *Server) cancel(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	if err := decode(r, &struct{}{}); err != nil {
		return 0, nil, err
	}
	out, err := operate.Cancel(r.Context(), s.cfg.DB, r.PathValue("name"))
	if err == nil {
		s.logChange(r, "cancel", "trigger", out.Trigger, "in_flight", out.InFlight)
	}
	return http.StatusOK, out, err
}

// drain waits until all events are settled, or until the time is over. It responds with what is
// left.
func (s *Server) drain(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	q := r.URL.Query()
	seconds, err := number(q, "wait", 0, int(maxDrain/time.Second))
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(seconds)*time.Second) // with 0, Drain queries once
	defer cancel()
	left, err := operate.Drain(ctx, s.cfg.DB, several(q, "trigger"), nil)
	if err != nil {
		return 0, nil, err
	}
	if left == nil {
		left = []operate.Left{}
	}
	return http.StatusOK, map[string]any{"drained": len(left) == 0, "left": left}, nil
}

// logChange logs a change that a request made.
func (s *Server) logChange(r *http.Request, what string, args ...any) {
	s.log.Info("HTTP: "+what, append(args, "remote", r.RemoteAddr)...)
}
