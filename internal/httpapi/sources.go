package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/hint"
	"github.com/rowhook/rowhook/internal/metrics"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/webapi"
)

// Sources are the databases of a process that works on several. A Server with them serves what is the
// process's own, and leaves the rest to the Server of the source that a request names.
type Sources interface {
	// Names returns their names, in the order in which they are shown.
	Names() []string
	// Server returns the Server of a source, or why there is none now.
	Server(name string) (*Server, error)
	// Trying reports that a source has neither worked nor failed yet, since the process has just begun.
	Trying(name string) bool
}

// SourceReadiness is the readiness of a source.
type SourceReadiness struct {
	Source string  `json:"source"`
	Status string  `json:"status"` // ready, or not ready
	Checks []Check `json:"checks"`
	// Standby says that other processes serve the source, and this one stands by.
	Standby bool `json:"standby"`
	// Schema is the version of its schema, as last seen; 0: not seen yet.
	Schema int32 `json:"schema"`
	// Processes is how many processes share the source, and Serving how many of them serve it; 0: this one
	// does not see others.
	Processes int `json:"processes"`
	Serving   int `json:"serving"`
}

// sourceParameter names the source of a request.
const sourceParameter = "source"

// front are the paths that a Server with sources answers itself.
var front = []string{"/healthz", "/readyz", "/metrics", "/api/v1/openapi.json", "/api/v1/sources"}

// toSource hands a request to the Server of its source. It reports whether it has.
func (s *Server) toSource(w http.ResponseWriter, r *http.Request) bool {
	if s.cfg.Sources == nil || slices.Contains(front, r.URL.Path) || !strings.HasPrefix(r.URL.Path, "/api/") {
		return false
	}
	if _, p := s.guard.check(r, access.Status); p != nil {
		p.Write(w)
		return true
	}
	query := r.URL.Query()
	inner, p := s.sourceOf(query)
	if p != nil {
		p.Write(w)
		return true
	}
	query.Del(sourceParameter)
	own := r.Clone(r.Context())
	own.URL = &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: query.Encode()}
	inner.handler.ServeHTTP(w, own)
	return true
}

// sourceOf returns the Server of the source that the parameters name, or of the only one.
func (s *Server) sourceOf(query url.Values) (*Server, *Problem) {
	names, asked := s.cfg.Sources.Names(), query[sourceParameter]
	switch {
	case len(asked) == 0 && len(names) == 1:
		asked = names
	case len(asked) != 1:
		return nil, webapi.NewProblem(http.StatusBadRequest, "source_needed", "this process works on several sources, and the request names none of them, or more than one",
			"add the parameter source; GET /api/v1/sources lists them")
	case !slices.Contains(names, asked[0]):
		return nil, webapi.NewProblem(http.StatusNotFound, "not_found", fmt.Sprintf("there is no source %q%s", asked[0], suggest.Hint(asked[0], names)), "GET /api/v1/sources lists them")
	}
	inner, err := s.cfg.Sources.Server(asked[0])
	if err != nil {
		return nil, webapi.NewProblem(http.StatusServiceUnavailable, "unavailable", fmt.Sprintf("the source %s can't be used now: %v", asked[0], err), "").With("Retry-After", "5")
	}
	return inner, nil
}

// sources lists the sources, each with its readiness.
func (s *Server) sources(_ http.ResponseWriter, r *http.Request) (int, any, error) {
	return http.StatusOK, map[string][]SourceReadiness{"sources": s.lookAtSources(r.Context())}, nil
}

// lookAtSources asks all sources at once. It is fast: what they say comes from memory.
func (s *Server) lookAtSources(ctx context.Context) []SourceReadiness {
	if s.cfg.Sources == nil {
		return []SourceReadiness{}
	}
	names := s.cfg.Sources.Names()
	all := make([]SourceReadiness, len(names))
	var looking sync.WaitGroup
	for i, name := range names {
		looking.Go(func() {
			all[i] = SourceReadiness{Source: name, Status: statusNotReady, Checks: []Check{}}
			inner, err := s.cfg.Sources.Server(name)
			if err != nil {
				all[i].Checks = append(all[i].Checks, Check{Name: "running", Detail: err.Error(), Remedy: remedies()["running"]})
				return
			}
			found := inner.readiness.look(ctx)
			for i := range found.Checks {
				c := &found.Checks[i]
				c.Detail, c.Remedy = hint.Of(name, c.Detail), hint.Of(name, c.Remedy)
			}
			all[i].Status, all[i].Checks = found.Status, found.Checks
			stats := inner.cfg.Stats()
			all[i].Standby, all[i].Schema, all[i].Processes, all[i].Serving = stats.Standby, stats.Schema, stats.Processes, stats.Serving
		})
	}
	looking.Wait()
	return all
}

// readinessOfSources is that of the process: it is ready if one of its sources is, and if of each it is
// known whether it works. So one that is away keeps nobody from an upgrade, and a process that has just
// begun does not count before it has tried them all.
func (s *Server) readinessOfSources(ctx context.Context) Readiness {
	out := Readiness{Status: statusReady, Sources: s.lookAtSources(ctx)}
	ready := 0
	var not, trying []string
	for i := range out.Sources {
		source := &out.Sources[i]
		switch {
		case source.Status == statusReady:
			ready++
		case s.cfg.Sources.Trying(source.Source):
			trying = append(trying, source.Source)
		default:
			not = append(not, source.Source)
		}
	}
	c := Check{Name: "sources", OK: (ready > 0 || len(out.Sources) == 0) && len(trying) == 0}
	if len(not)+len(trying) > 0 {
		c.Detail = fmt.Sprintf("%d of %d are ready", ready, len(out.Sources))
		if len(not) > 0 {
			c.Detail += "; not ready: " + strings.Join(not, ", ")
		}
		if len(trying) > 0 {
			c.Detail += "; not tried to the end yet: " + strings.Join(trying, ", ")
		}
		c.Remedy = "look at the checks of these sources; each is tried again by itself"
	}
	if !c.OK {
		out.Status = statusNotReady
	}
	out.Checks = []Check{c}
	return out
}

// SourceStates returns how the sources stand, for metrics.
func (s *Server) SourceStates(ctx context.Context) map[string]metrics.SourceState {
	states := map[string]metrics.SourceState{}
	for _, source := range s.lookAtSources(ctx) {
		ready := source.Status == statusReady
		states[source.Source] = metrics.SourceState{Ready: ready, Served: ready && !source.Standby, Processes: source.Processes}
	}
	return states
}

// Begin lets the Server of a source work, without an address of its own. end waits until what it does
// has ended.
func (s *Server) Begin(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.operations.begin(ctx)
	s.live.begin(ctx)
	return func() {
		cancel()
		s.operations.wait()
		s.live.wait()
	}
}
