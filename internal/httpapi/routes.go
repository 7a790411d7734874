package httpapi

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/webapi"
)

// route is one operation of openapi.yaml.
type route struct {
	method, path string
	scope        access.Scopes
	query        []string // the parameters that it accepts
	body         int64    // greatest size of the request's body in bytes; 0: no body
	timeout      time.Duration
	dev          bool           // only rowhook dev has it
	fields       func() *fields // of its response, which are withheld from some; set by newHandler
	// handle returns the status and the value of the JSON response. Status 0 means that it has
	// written the response itself.
	handle func(w http.ResponseWriter, r *http.Request) (status int, value any, err error)
}

func (s *Server) routes() []route {
	filter := []string{"id", "trigger", "state", "op", "table", "since", "until", "payload", "error", "status", "kind"}
	get := func(path string, query []string, handle func(http.ResponseWriter, *http.Request) (int, any, error)) route {
		return route{method: http.MethodGet, path: path, scope: access.Status, query: query, timeout: s.cfg.Timeout, handle: handle}
	}
	post := func(path string, body int64, handle func(http.ResponseWriter, *http.Request) (int, any, error)) route {
		return route{method: http.MethodPost, path: path, scope: access.Steer, body: body, timeout: s.cfg.Timeout, handle: handle}
	}
	health := func(path string, handle func(http.ResponseWriter, *http.Request) (int, any, error)) route {
		return route{method: http.MethodGet, path: path, scope: public, timeout: s.cfg.Timeout, handle: handle}
	}
	tail := get("/api/v1/events/tail", filter, s.tail)
	tail.timeout = 0
	stream := get("/api/v1/status/stream", nil, s.statusStream)
	stream.timeout = 0
	export := get("/api/v1/events/export", filter, s.export)
	export.timeout, export.scope = 0, access.Payloads
	drain := get("/api/v1/drain", []string{"trigger", "wait"}, s.drain)
	drain.timeout = maxDrain + 10*time.Second
	retry := post("/api/v1/triggers/{name}/retry", maxBody, s.retry)
	retry.query, retry.timeout = []string{"wait"}, drain.timeout
	dev := func(method, path string, scope access.Scopes, body int64, query []string, handle func(http.ResponseWriter, *http.Request) (int, any, error)) route {
		return route{method: method, path: path, scope: scope, body: body, query: query, timeout: s.cfg.Timeout, dev: true, handle: handle}
	}
	return []route{
		dev(http.MethodGet, "/api/v1/dev", access.Status, 0, nil, s.devAbout),
		dev(http.MethodGet, "/api/v1/dev/deliveries", access.Payloads, 0, []string{"after", "before", "trigger", "limit"}, s.devDeliveries),
		dev(http.MethodGet, "/api/v1/dev/answer", access.Status, 0, nil, s.devAnswers),
		dev(http.MethodPut, "/api/v1/dev/answer", access.Steer, maxBody, nil, s.setDevAnswer),
		dev(http.MethodDelete, "/api/v1/dev/answer", access.Steer, 0, []string{"trigger"}, s.removeDevAnswer),
		dev(http.MethodPost, "/api/v1/dev/sql", access.Admin, maxBody, nil, s.runDevSQL),
		dev(http.MethodGet, "/api/v1/dev/config", access.Admin, 0, nil, s.devConfig),
		dev(http.MethodPut, "/api/v1/dev/config", access.Admin, maxBody, nil, s.changeDevConfig),
		health("/healthz", s.alive),
		health("/readyz", s.ready),
		{method: http.MethodGet, path: "/metrics", scope: access.Status, timeout: s.cfg.Timeout, handle: s.metrics},
		health("/api/v1/openapi.json", s.document),
		get("/api/v1/sources", nil, s.sources),
		get("/api/v1/me", nil, s.me),
		get("/api/v1/status", []string{"tables"}, s.status),
		stream,
		get("/api/v1/activity", []string{"trigger", "minutes"}, s.activity),
		get("/api/v1/triggers", nil, s.triggers),
		get("/api/v1/triggers/{name}", nil, s.trigger),
		get("/api/v1/events", slices.Concat(filter, []string{"limit", "cursor", "with_payload"}), s.list),
		get("/api/v1/events/count", filter, s.count),
		get("/api/v1/events/groups", slices.Concat(filter, []string{"by"}), s.groups),
		tail,
		export,
		get("/api/v1/events/{id}", nil, s.show),
		post("/api/v1/events/redeliver", maxBody, s.redeliver),
		post("/api/v1/events/discard", maxBody, s.discard),
		post("/api/v1/triggers/{name}/invoke", maxPayload, s.invoke),
		post("/api/v1/triggers/{name}/backfill", maxBody, s.backfill),
		get("/api/v1/triggers/{name}/replay", []string{"from", "to", "op", "payload"}, s.planReplay),
		post("/api/v1/triggers/{name}/replay", maxBody, s.replay),
		retry,
		post("/api/v1/triggers/{name}/cancel", maxBody, s.cancel),
		post("/api/v1/pause", maxBody, s.pause),
		post("/api/v1/resume", maxBody, s.resume),
		drain,
		get("/api/v1/audit", []string{"trigger", "action", "since", "until", "limit", "cursor"}, s.audit),
		get("/api/v1/operations", nil, s.listOperations),
		get("/api/v1/operations/{id}", nil, s.showOperation),
		{method: http.MethodDelete, path: "/api/v1/operations/{id}", scope: access.Steer, timeout: s.cfg.Timeout, handle: s.cancelOperation},
	}
}

// newHandler returns the handler of the whole interface. A path or a method that no route has gets
// a Problem.
func (s *Server) newHandler() http.Handler {
	mux := http.NewServeMux()
	// Reading the document takes 14 MB, and it is needed only where something is withheld.
	known := sync.OnceValue(func() *schemas {
		all, err := readSchemas()
		if err != nil {
			panic(err) // the document is a part of the program, and tests read it
		}
		return all
	})
	for _, route := range s.routes() {
		route.fields = sync.OnceValue(func() *fields { return known().responseFields(&route) })
		mux.Handle(route.method+" "+route.path, s.routeHandler(route))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'") // the page sets its own
		h.Set("Cache-Control", "no-store")
		if r.ContentLength != 0 {
			// net/http reads the rest of the body before it responds, without a limit of time. A
			// body that never arrives would hold the connection.
			limitBodyTime(w, strayTimeout)
		}
		if s.servePage(w, r) || s.toSource(w, r) {
			return
		}
		handler, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r) // unlike handler.ServeHTTP it sets the path values
			return
		}
		// The mux knows whether the path or only the method is unknown. Turn its response into a
		// Problem.
		if _, p := s.guard.check(r, public); p != nil {
			p.Write(w)
			return
		}
		response := headerRecorder{header: http.Header{}}
		handler.ServeHTTP(&response, r)
		if response.status == http.StatusMethodNotAllowed {
			allow := response.header.Get("Allow")
			webapi.NewProblem(response.status, "method_not_allowed", fmt.Sprintf("%s does not accept %s", r.URL.Path, r.Method), "use "+allow).With("Allow", allow).Write(w)
			return
		}
		webapi.NewProblem(http.StatusNotFound, "not_found", "there is no route "+r.URL.Path, "GET /api/v1/openapi.json lists the routes").Write(w)
	})
}

// headerRecorder is a ResponseWriter that keeps the status and the header, and drops the body.
type headerRecorder struct {
	header http.Header
	status int
}

func (h *headerRecorder) Header() http.Header         { return h.header }
func (h *headerRecorder) WriteHeader(status int)      { h.status = status }
func (h *headerRecorder) Write(p []byte) (int, error) { return len(p), nil }

// routeHandler returns the handler of a route. It checks access, the limit of concurrent requests,
// parameters and body, and turns errors and panics into Problems.
func (s *Server) routeHandler(route route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler { //nolint:errorlint // net/http panics with the bare value
					panic(v)
				}
				s.log.Error("HTTP: handler panicked", "path", r.URL.Path, "panic", v)
				webapi.NewProblem(http.StatusInternalServerError, "internal", "the request failed", "the dispatcher's log says why").Write(w)
			}
		}()
		need := route.scope
		if route.dev && s.cfg.Dev == nil {
			need = public
		}
		sender, p := s.guard.check(r, need)
		if p == nil && need != route.scope {
			p = webapi.NewProblem(http.StatusNotFound, "not_found", "there is no route "+r.URL.Path+" here: only rowhook dev has it", "start rowhook dev")
		}
		if p != nil {
			p.Write(w)
			return
		}
		if route.scope != public {
			if s.busy.Add(1) > maxConnections {
				defer s.busy.Add(-1)
				webapi.NewProblem(http.StatusServiceUnavailable, "too_many", fmt.Sprintf("%d requests are running, which is the limit", maxConnections), "try again later").With("Retry-After", "5").Write(w)
				return
			}
			defer s.busy.Add(-1)
		}
		if p := s.checkRequest(w, r, route); p != nil {
			p.Write(w)
			return
		}
		if sender != nil {
			r = sender.by(r)
		}
		r = r.WithContext(context.WithValue(r.Context(), routeKey{}, &route))
		if route.timeout > 0 {
			ctx, cancel := context.WithTimeout(r.Context(), route.timeout)
			defer cancel()
			r = r.WithContext(ctx)
		} else {
			ctx, stop := s.guard.watch(r.Context(), sender)
			defer stop()
			r = r.WithContext(ctx)
		}
		// A newer schema may take what an older program writes, and mean something else by it.
		if r.Method != http.MethodGet && route.scope != public && !route.dev {
			if p := s.unworkable(r.Context()); p != nil {
				p.Write(w)
				return
			}
		}
		status, value, err := route.handle(w, r)
		if err == nil && status != 0 {
			value, err = shown(r, value)
		}
		if err == nil && status != 0 {
			err = webapi.WriteJSON(w, status, "application/json", value)
		}
		if err != nil {
			s.asProblem(r, err).Write(w)
		}
	})
}

// checkRequest rejects parameters and bodies that a route does not accept. It bounds the size and
// the time of the body.
func (s *Server) checkRequest(w http.ResponseWriter, r *http.Request, route route) *Problem {
	parameters, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return webapi.NewProblem(http.StatusBadRequest, "invalid", "the parameters can't be parsed: "+err.Error(), "percent-encode special characters")
	}
	for name := range parameters {
		if !slices.Contains(route.query, name) {
			remedy := "this route has no parameters"
			if len(route.query) > 0 {
				remedy = "the parameters are " + strings.Join(route.query, ", ")
			}
			return webapi.NewProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("%s has no parameter %q%s", r.URL.Path, name, suggest.Hint(name, route.query)), remedy)
		}
	}
	if route.body == 0 {
		r.Body = http.MaxBytesReader(w, r.Body, 0)
		return nil
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		// A web page can't send this type without a preflight request, which is rejected.
		return webapi.NewProblem(http.StatusUnsupportedMediaType, "not_json", "the request's body must be JSON", "send it with the header Content-Type: application/json")
	}
	if r.ContentLength > route.body {
		return webapi.NewProblem(http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the request's body has more than %d bytes", route.body), "send less")
	}
	r.Body = http.MaxBytesReader(w, r.Body, route.body)
	limitBodyTime(w, bodyTimeout)
	return nil
}

// limitBodyTime bounds how long the rest of a request's body may take to arrive.
func limitBodyTime(w http.ResponseWriter, timeout time.Duration) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout)) // only writers in tests can't do this
}

// decode parses the request's body into v, and rejects fields that v lacks. An empty body counts as
// {}.
func decode(r *http.Request, v any) error {
	err := webapi.Decode(r.Body, v)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil || errors.As(err, &tooLarge):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return webapi.NewProblem(http.StatusRequestTimeout, "timeout", fmt.Sprintf("the request's body did not arrive within %s", bodyTimeout), "")
	}
	if name := webapi.UnknownField(err); name != "" {
		known := fieldsOf(reflect.TypeOf(v), nil)
		return webapi.NewProblem(http.StatusBadRequest, "invalid", fmt.Sprintf("the request's body has an unknown field %q%s", name, suggest.Hint(name, known)),
			"the fields, with those within them, are "+strings.Join(known, ", "))
	}
	return webapi.NewProblem(http.StatusBadRequest, "invalid", "the request's body can't be parsed: "+strings.TrimPrefix(err.Error(), "json: "), "")
}

// fieldsOf appends the names that a body of this type may have, each once, with those of the objects in
// it: encoding/json does not say in which object a field is unknown.
func fieldsOf(t reflect.Type, names []string) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return names
	}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		names = fieldsOf(f.Type, names)
	}
	return names
}
