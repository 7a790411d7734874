package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/hint"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/webapi"
	"github.com/rowhook/rowhook/sqlschema"
)

// Problem is an error.
type Problem = webapi.Problem

// asProblem turns an error into a Problem. It logs errors that the client did not cause.
func (s *Server) asProblem(r *http.Request, err error) *Problem {
	var p *Problem
	var o *operate.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &o):
		p := operationProblem(o)
		p.Remedy = hint.Of(s.cfg.Source, p.Remedy)
		return p
	case errors.As(err, &tooLarge):
		return webapi.NewProblem(http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the request's body has more than %d bytes", tooLarge.Limit), "send less")
	case errors.Is(err, context.DeadlineExceeded):
		return webapi.NewProblem(http.StatusGatewayTimeout, "timeout", "the database did not respond in time", "narrow the request, or try again later")
	case errors.Is(err, context.Canceled):
		return webapi.NewProblem(http.StatusServiceUnavailable, "stopping", "the server is stopping", "use another instance").With("Retry-After", "5")
	case pg.IsState(err, pgerrcode.InsufficientPrivilege):
		s.log.Warn("HTTP: the database role lacks a privilege", "path", r.URL.Path, "error", err)
		return webapi.NewProblem(http.StatusForbidden, "no_rights", "the database role of this instance lacks a privilege for this",
			"set ROWHOOK_HTTP_DATABASE_URL to a URL with the owner of the schema rowhook, or another role with the privilege")
	case isUnavailable(err):
		s.log.Warn("HTTP: the database does not respond", "path", r.URL.Path, "error", err)
		return webapi.NewProblem(http.StatusServiceUnavailable, "database", "the database does not respond", "try again; /readyz says when it responds").With("Retry-After", "5")
	}
	if pg.IsOtherSchema(err) {
		if p := s.unworkable(r.Context()); p != nil {
			return p
		}
	}
	s.log.Error("HTTP: request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	return webapi.NewProblem(http.StatusInternalServerError, "internal", "the request failed", "the dispatcher's log says why")
}

// unworkable returns a Problem if this program can't work on the schema rowhook as it is now.
func (s *Server) unworkable(ctx context.Context) *Problem {
	if err := s.cfg.Schema(ctx); sqlschema.IsUnworkable(err) {
		return webapi.NewProblem(http.StatusServiceUnavailable, "schema", "this program can't work on the database as it is now: "+err.Error(), "")
	}
	return nil
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
	return webapi.NewProblem(status, code, o.Problem, o.Remedy)
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
