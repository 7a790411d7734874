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

// Problem is an error in the form of RFC 9457. Its type is about:blank, so its title is the text of
// the status. Programs tell problems apart by code.
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

// asProblem turns an error into a Problem. It logs errors that the client did not cause.
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
		return newProblem(http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the request's body has more than %d bytes", tooLarge.Limit), "send less")
	case errors.Is(err, context.DeadlineExceeded):
		return newProblem(http.StatusGatewayTimeout, "timeout", "the database did not respond in time", "narrow the request, or try again later")
	case errors.Is(err, context.Canceled):
		return newProblem(http.StatusServiceUnavailable, "stopping", "the server is stopping", "use another instance").with("Retry-After", "5")
	case pg.IsState(err, pgerrcode.InsufficientPrivilege):
		s.log.Warn("HTTP: the database role lacks a privilege", "path", r.URL.Path, "error", err)
		return newProblem(http.StatusForbidden, "no_rights", "the database role of this instance lacks a privilege for this",
			"set ROWHOOK_HTTP_DATABASE_URL to a URL with the owner of the schema rowhook, or another role with the privilege")
	case isUnavailable(err):
		s.log.Warn("HTTP: the database does not respond", "path", r.URL.Path, "error", err)
		return newProblem(http.StatusServiceUnavailable, "database", "the database does not respond", "try again; /readyz says when it responds").with("Retry-After", "5")
	}
	s.log.Error("HTTP: request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	return newProblem(http.StatusInternalServerError, "internal", "the request failed", "the dispatcher's log says why")
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

// isUnavailable reports whether err means that the database can't be reached, or refuses
// connections for now.
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
	_ = writeJSON(w, p.Status, "application/problem+json", p) // texts can always be encoded
}

// writeJSON sends v as JSON. It returns an error, and sends nothing, if v can't be encoded. It
// ignores the error of a client that is gone.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) error {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode the response: %w", err)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
	return nil
}
