package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
)

// route is one operation of openapi.yaml.
type route struct {
	method, path string
	access       access
	query        []string // parameters that it knows
	body         int64    // at most so many bytes; 0: it takes none
	timeout      time.Duration
	// handle answers, or returns what to answer: a status and a value for JSON. Status 0: it has answered itself.
	handle func(w http.ResponseWriter, r *http.Request) (status int, answer any, err error)
}

func (s *Server) routes() []route {
	filter := []string{"id", "trigger", "state", "table", "since", "until", "payload", "error", "status", "kind"}
	get := func(path string, query []string, handle func(http.ResponseWriter, *http.Request) (int, any, error)) route {
		return route{method: http.MethodGet, path: path, access: read, query: query, timeout: s.cfg.Timeout, handle: handle}
	}
	post := func(path string, body int64, handle func(http.ResponseWriter, *http.Request) (int, any, error)) route {
		return route{method: http.MethodPost, path: path, access: write, body: body, timeout: s.cfg.Timeout, handle: handle}
	}
	health := func(path string, handle func(http.ResponseWriter, *http.Request) (int, any, error)) route {
		return route{method: http.MethodGet, path: path, access: public, timeout: s.cfg.Timeout, handle: handle}
	}
	tail := get("/api/v1/events/tail", filter, s.tail)
	tail.timeout = 0
	drain := get("/api/v1/drain", []string{"trigger", "wait"}, s.drain)
	drain.timeout = maxDrain + 10*time.Second
	return []route{
		health("/healthz", s.alive),
		health("/readyz", s.ready),
		{method: http.MethodGet, path: "/metrics", access: read, timeout: s.cfg.Timeout, handle: s.metrics},
		health("/api/v1/openapi.json", s.document),
		get("/api/v1/status", nil, s.status),
		get("/api/v1/triggers", nil, s.triggers),
		get("/api/v1/events", slices.Concat(filter, []string{"limit", "cursor", "with_payload"}), s.list),
		get("/api/v1/events/count", filter, s.count),
		get("/api/v1/events/groups", slices.Concat(filter, []string{"by"}), s.groups),
		tail,
		get("/api/v1/events/{id}", nil, s.show),
		post("/api/v1/events/redeliver", maxBody, s.redeliver),
		post("/api/v1/events/discard", maxBody, s.discard),
		post("/api/v1/triggers/{name}/invoke", maxPayload, s.invoke),
		post("/api/v1/triggers/{name}/backfill", maxBody, s.backfill),
		post("/api/v1/pause", maxBody, s.pause),
		post("/api/v1/resume", maxBody, s.resume),
		drain,
		get("/api/v1/audit", []string{"trigger", "action", "since", "until", "limit", "cursor"}, s.audit),
		get("/api/v1/operations", nil, s.listOperations),
		get("/api/v1/operations/{id}", nil, s.showOperation),
		{method: http.MethodDelete, path: "/api/v1/operations/{id}", access: write, timeout: s.cfg.Timeout, handle: s.cancelOperation},
	}
}

// routed is the whole interface.
func (s *Server) routed() http.Handler {
	mux := http.NewServeMux()
	for _, route := range s.routes() {
		mux.Handle(route.method+" "+route.path, s.serve(route))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		if r.ContentLength != 0 {
			// Before it answers, the server reads what is left of a body, for as long as it takes; one that never comes would hold the connection.
			awaitBody(w, strayTimeout)
		}
		handler, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r) // which also sets the path's values
			return
		}
		// What the mux would say of a path or a method that it does not know, as a problem.
		if p := s.guard.check(r, public); p != nil {
			p.write(w)
			return
		}
		said := answer{header: http.Header{}}
		handler.ServeHTTP(&said, r)
		if said.status == http.StatusMethodNotAllowed {
			allow := said.header.Get("Allow")
			newProblem(said.status, "method_not_allowed", fmt.Sprintf("%s is not for %s", r.Method, r.URL.Path), "use "+allow).with("Allow", allow).write(w)
			return
		}
		newProblem(http.StatusNotFound, "not_found", "there is nothing at "+r.URL.Path, "GET /api/v1/openapi.json says what there is").write(w)
	})
}

// answer is what a handler answered, without its body.
type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return len(p), nil }

// serve is a route behind all that goes for every one.
func (s *Server) serve(route route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler { //nolint:errorlint // it is thrown as it is
					panic(v)
				}
				s.log.Error("HTTP: a handler panicked", "path", r.URL.Path, "panic", v)
				newProblem(http.StatusInternalServerError, "internal", "the request failed; the log of the dispatcher says why", "").write(w)
			}
		}()
		if p := s.guard.check(r, route.access); p != nil {
			p.write(w)
			return
		}
		if route.access != public {
			if s.busy.Add(1) > maxConnections {
				defer s.busy.Add(-1)
				newProblem(http.StatusServiceUnavailable, "too_many", fmt.Sprintf("%d requests are being answered", maxConnections), "try again later").with("Retry-After", "5").write(w)
				return
			}
			defer s.busy.Add(-1)
		}
		if p := s.checkRequest(w, r, route); p != nil {
			p.write(w)
			return
		}
		if route.access == write {
			r = r.WithContext(queue.WithActor(r.Context(), s.guard.actor(r)))
		}
		if route.timeout > 0 {
			ctx, cancel := context.WithTimeout(r.Context(), route.timeout)
			defer cancel()
			r = r.WithContext(ctx)
		}
		status, answer, err := route.handle(w, r)
		if err == nil && status != 0 {
			err = writeJSON(w, status, "application/json", answer)
		}
		if err != nil {
			s.asProblem(r, err).write(w)
		}
	})
}

// checkRequest refuses parameters and bodies that a route does not take, and bounds the body.
func (s *Server) checkRequest(w http.ResponseWriter, r *http.Request, route route) *Problem {
	parameters, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return newProblem(http.StatusBadRequest, "invalid", "the parameters can't be read: "+err.Error(), "encode what is special in them by %")
	}
	for name := range parameters {
		if !slices.Contains(route.query, name) {
			remedy := "it takes no parameters"
			if len(route.query) > 0 {
				remedy = "it takes " + strings.Join(route.query, ", ")
			}
			return newProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("%s has no parameter %q", r.URL.Path, name), remedy)
		}
	}
	if route.body == 0 {
		r.Body = http.MaxBytesReader(w, r.Body, 0)
		return nil
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		// A form of a web page can't send this type without asking first, which is refused.
		return newProblem(http.StatusUnsupportedMediaType, "not_json", "the request's body has to be JSON", "send it with the header Content-Type: application/json")
	}
	if r.ContentLength > route.body {
		return newProblem(http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the request's body is over %d bytes", route.body), "")
	}
	r.Body = http.MaxBytesReader(w, r.Body, route.body)
	awaitBody(w, bodyTimeout)
	return nil
}

// awaitBody bounds how long the rest of a request's body may take.
func awaitBody(w http.ResponseWriter, timeout time.Duration) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout)) // not every writer can; a server's own does
}

// decode reads the request's body into v, which knows all its fields. No body is an empty object.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("more follows the JSON value")
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return newProblem(http.StatusRequestTimeout, "timeout", fmt.Sprintf("the request's body did not arrive within %s", bodyTimeout), "")
	}
	return newProblem(http.StatusBadRequest, "invalid", "the request's body can't be read: "+strings.TrimPrefix(err.Error(), "json: "), "")
}
