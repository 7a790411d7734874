package sink

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/webapi"
)

//go:embed openapi.yaml.gz
var packedDocument []byte

// Document returns the OpenAPI document of the control interface as JSON.
func Document() ([]byte, error) { return webapi.Document(packedDocument) }

// Limits of the control interface.
const (
	maxControl   = 1000             // requests at a time, most of which wait
	maxControlIn = 1 << 20          // bytes of a body
	maxWait      = 10 * time.Minute // of one request
	writeTimeout = time.Minute      // for a response to a slow client
)

// operation is one operation of openapi.yaml.
type operation struct {
	method, path string
	query        []string // the parameters that it accepts
	// handle responds. An error that is no *webapi.Problem is the client's.
	handle func(w http.ResponseWriter, r *http.Request, body []byte) error
}

func (s *Sink) operations() []operation {
	filter := []string{"trigger", "op", "table", "id", "path", "value", "attempt", "accepted", "test", "after"}
	return []operation{
		{"GET", "/", nil, ok},
		{"GET", "/healthz", nil, alive},
		{"GET", "/openapi.json", nil, describeJSON},
		{"GET", "/openapi.yaml", nil, describeYAML},
		{"GET", "/deliveries", slices.Concat(filter, []string{"attempts", "count", "wait", "last"}), s.list},
		{"DELETE", "/deliveries", filter, s.forget},
		{"POST", "/verify", nil, s.verify},
		{"GET", "/behaviour", nil, s.showBehaviour},
		{"PUT", "/behaviour", nil, s.setBehaviour},
		{"DELETE", "/behaviour", []string{"trigger", "id"}, s.revertBehaviour},
	}
}

// takesOver reports whether a POST to path that is not an event is for the control interface.
func takesOver(path string) bool {
	switch path {
	case "/openapi.json", "/openapi.yaml", "/deliveries", "/verify", "/behaviour":
		return true
	}
	return false
}

// control serves a request that is not an event. body is that of a POST, which was read already.
func (s *Sink) control(w http.ResponseWriter, r *http.Request, body []byte) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if err := s.operate(w, r, body); err != nil {
		problem(err).Write(w)
	}
}

func (s *Sink) operate(w http.ResponseWriter, r *http.Request, body []byte) error {
	o, err := s.route(r)
	if err != nil {
		return err
	}
	if o.path != "/" && o.path != "/healthz" {
		if err := guard(r); err != nil {
			return err
		}
		defer s.controlling.Add(-1)
		if s.controlling.Add(1) > maxControl {
			return webapi.NewProblem(http.StatusServiceUnavailable, "too_many", fmt.Sprintf("%d requests are waiting, which is the limit", maxControl), "try again later").
				With("Retry-After", "1")
		}
	}
	if err := o.checkQuery(r); err != nil {
		return err
	}
	if r.Method == http.MethodPut {
		if body, err = readAll(w, r, maxControlIn); err != nil {
			return unreadable(err)
		}
	}
	if len(body) > maxControlIn {
		return webapi.NewProblem(http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the request's body has more than %d bytes", maxControlIn), "send less")
	}
	return o.handle(w, r, body)
}

// route finds the operation for a request.
func (s *Sink) route(r *http.Request) (operation, error) {
	var allowed []string
	for _, o := range s.operations() {
		if o.path != r.URL.Path {
			continue
		}
		head := r.Method == http.MethodHead && (o.path == "/" || o.path == "/healthz")
		if o.method == r.Method || head {
			return o, nil
		}
		allowed = append(allowed, o.method)
	}
	if r.URL.Path == "/" || r.URL.Path == "/healthz" {
		allowed = append(allowed, "HEAD")
	}
	if allowed == nil && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		return operation{}, webapi.NewProblem(http.StatusNotFound, "not_found", "there is no "+r.URL.Path+s.pathHint(r.URL.Path),
			"POST events to any path; GET /deliveries shows them, and GET /openapi.json describes everything")
	}
	remedy := "send events with POST"
	if r.URL.Path == "/verify" {
		remedy = "use POST, with a body such as {\"match\": {\"trigger\": \"order_placed\"}, \"within\": \"5s\"}"
	} else if allowed != nil {
		remedy = "use " + strings.Join(allowed, ", ") + "; send events with POST"
	}
	if !slices.Contains(allowed, "POST") {
		allowed = append(allowed, "POST") // of an event
	}
	return operation{}, webapi.NewProblem(http.StatusMethodNotAllowed, "method_not_allowed", fmt.Sprintf("%s does not accept %s", r.URL.Path, notEvent(r.Method)), remedy).
		With("Allow", strings.Join(allowed, ", "))
}

func notEvent(method string) string {
	if method == http.MethodPost {
		return "a POST that is not an event"
	}
	return method
}

func (s *Sink) pathHint(path string) string {
	var paths []string
	for _, o := range s.operations() {
		paths = append(paths, o.path)
	}
	return suggest.Hint(path, slices.Compact(paths))
}

// guard rejects requests of web pages. If the sink is reached by loopback, the Host header must name
// this host: a name that another host's name server has pointed here does not.
func guard(r *http.Request) error {
	if p := webapi.FromPage(r); p != nil {
		return p
	}
	local, isAddr := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if isAddr && webapi.IsLoopback(webapi.Hostname(local.String())) && !webapi.IsLoopback(webapi.Hostname(r.Host)) {
		return webapi.NewProblem(http.StatusForbidden, "wrong_host", fmt.Sprintf("the Host header is %q, and must name this host", r.Host), "use localhost or 127.0.0.1")
	}
	return nil
}

// checkQuery rejects parameters that o does not have.
func (o operation) checkQuery(r *http.Request) error {
	parameters, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalid("the parameters can't be parsed: "+err.Error(), "percent-encode special characters")
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		if !slices.Contains(o.query, name) {
			remedy := "this operation has no parameters"
			if len(o.query) > 0 {
				remedy = "the parameters are " + strings.Join(o.query, ", ")
			}
			return invalid(fmt.Sprintf("%s %s has no parameter %q%s", o.method, o.path, name, suggest.Hint(name, o.query)), remedy)
		}
		if len(parameters[name]) > 1 && name != "path" && name != "value" {
			return invalid(fmt.Sprintf("the parameter %s is there %d times", name, len(parameters[name])), "give it once")
		}
	}
	return nil
}

func invalid(detail, remedy string) *webapi.Problem {
	return webapi.NewProblem(http.StatusBadRequest, "invalid", detail, remedy)
}

func stopping(r *http.Request) error {
	if r.Context().Err() == nil {
		return nil
	}
	return webapi.NewProblem(http.StatusServiceUnavailable, "stopping", "the receiver is stopping", "start it again").With("Connection", "close")
}

func ok(w http.ResponseWriter, _ *http.Request, _ []byte) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := fmt.Fprintln(w, "ok")
	return ignore(err)
}

// alive responds in JSON, as the health check of the HTTP interface does.
func alive(w http.ResponseWriter, _ *http.Request, _ []byte) error {
	return webapi.WriteJSON(w, http.StatusOK, "application/json", struct {
		Status string `json:"status"`
	}{"ok"})
}

func describeJSON(w http.ResponseWriter, _ *http.Request, _ []byte) error {
	doc, err := Document()
	if err != nil {
		return webapi.NewProblem(http.StatusInternalServerError, "internal", err.Error(), "")
	}
	webapi.WriteDocument(w, doc)
	return nil
}

func describeYAML(w http.ResponseWriter, _ *http.Request, _ []byte) error {
	text, err := webapi.Unpack(packedDocument)
	if err != nil {
		return webapi.NewProblem(http.StatusInternalServerError, "internal", err.Error(), "")
	}
	w.Header().Set("Content-Type", "application/yaml")
	_, err = w.Write(text)
	return ignore(err)
}

// ignore drops the error of a client that is gone.
func ignore(error) error { return nil }

// hurried runs write, which responds, with a limit of time, so that a client that does not read
// can't hold deliveries in memory.
func hurried(w http.ResponseWriter, write func()) {
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(writeTimeout)) // only writers in tests can't do this
	write()
	if c.Flush() == nil {
		_ = c.SetWriteDeadline(time.Time{})
	}
}

// withWait returns a context that ends after wait, or with the request.
func withWait(r *http.Request, wait time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithValue(r.Context(), clientKey{}, r.Context()), wait)
}
