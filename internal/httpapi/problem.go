package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
)

// Problem is an error as RFC 9457 has it. Its type is about:blank, so the title is the status' own; code tells more apart.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`

	header http.Header
}

func (p *Problem) Error() string { return p.Detail }

func newProblem(status int, code, detail, remedy string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail, Remedy: remedy, header: http.Header{}}
}

func (p *Problem) with(name, value string) *Problem {
	p.header.Set(name, value)
	return p
}

// asProblem says over HTTP what an error says. Those that are ours or the database's to answer for are logged.
func (s *Server) asProblem(r *http.Request, err error) *Problem {
	var p *Problem
	var o *operate.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &o):
		return operationProblem(o)
	case errors.As(err, &tooLarge):
		return newProblem(http.StatusRequestEntityTooLarge, "too_large", "the request's body is too large", "")
	case errors.Is(err, context.DeadlineExceeded):
		return newProblem(http.StatusGatewayTimeout, "timeout", "the database did not answer in time", "ask for less, or try again later")
	case errors.Is(err, context.Canceled):
		return newProblem(http.StatusServiceUnavailable, "stopping", "the server is stopping", "ask another instance").with("Retry-After", "5")
	case pg.IsState(err, pgerrcode.InsufficientPrivilege):
		s.log.Warn("HTTP: the role may not do that", "path", r.URL.Path, "error", err)
		return newProblem(http.StatusForbidden, "no_rights", "the role that this instance works as may not do that",
			"name the owner of the queue, or another role that may, by ROWHOOK_HTTP_DATABASE_URL")
	case isUnavailable(err):
		s.log.Warn("HTTP: the database does not answer", "path", r.URL.Path, "error", err)
		return newProblem(http.StatusServiceUnavailable, "database", "the database does not answer", "try again; /readyz says when it does").with("Retry-After", "5")
	}
	s.log.Error("HTTP: a request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	return newProblem(http.StatusInternalServerError, "internal", "the request failed; the log of the dispatcher says why", "")
}

func operationProblem(o *operate.Error) *Problem {
	status, code := http.StatusInternalServerError, "internal"
	switch {
	case errors.Is(o, operate.ErrNotFound):
		status, code = http.StatusNotFound, "not_found"
	case errors.Is(o, operate.ErrBusy):
		status, code = http.StatusConflict, "busy"
	case errors.Is(o, operate.ErrRefused):
		status, code = http.StatusUnprocessableEntity, "refused"
	case errors.Is(o, operate.ErrInvalid):
		status, code = http.StatusBadRequest, "invalid"
	}
	return newProblem(status, code, o.Problem, o.Remedy)
}

// isUnavailable reports that there is no server, or none that works just now.
func isUnavailable(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "57P") || strings.HasPrefix(pg.Code, "53")
	}
	var connect *pgconn.ConnectError
	return errors.As(err, &connect) || pgconn.SafeToRetry(err)
}

func (p *Problem) write(w http.ResponseWriter) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	_ = writeJSON(w, p.Status, "application/problem+json", p) // it holds nothing but text
}

// writeJSON answers. What can't be encoded is an error before anything is sent. That a client has gone meanwhile is its own affair.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) error {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
	return nil
}
