package cli

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/fleet"
	"github.com/rowhook/rowhook/internal/httpapi"
	"github.com/rowhook/rowhook/internal/metrics"
)

// fleetWeb is what run with sources serves over HTTP. A nil *fleetWeb serves nothing.
type fleetWeb struct {
	app     *app
	serving serving
	base    httpapi.Config
	fleet   *fleet.Fleet
	metrics *metrics.Several
	stop    func()

	mu      sync.Mutex
	order   []string
	sources map[string]*webSource
}

// webSource is the interface of a source. It is made when it is first needed, since a file with its
// connection string may come later.
type webSource struct {
	app    func() (*app, error) // for the source
	made   string               // what of
	server *httpapi.Server      // nil: not made yet
	close  func()
}

// serveFleet serves health, metrics and the interfaces of sources. It returns nil if HTTP is off.
func (a *app) serveFleet(ctx context.Context, o serving, f *fleet.Fleet) (*fleetWeb, error) {
	l, err := a.listenHTTP(ctx, o)
	if l == nil || err != nil {
		return nil, err
	}
	base, err := a.guarded(o)
	if err != nil {
		closeUnused(l)
		return nil, err
	}
	w := &fleetWeb{app: a, serving: o, base: base, fleet: f, metrics: metrics.NewSeveral(build()), sources: map[string]*webSource{}}
	front := base
	front.Sources, front.Metrics = w, w.metrics.Handler(a.log)
	ready := httpapi.New(front)
	w.metrics.WatchSources(func() map[string]metrics.SourceState { return ready.SourceStates(context.Background()) })
	w.stop = a.serving(ctx, l, front)
	return w, nil
}

// observers returns what counts for the metrics of a source.
func (w *fleetWeb) observers(source string) []dispatcher.Observer {
	if w == nil {
		return nil
	}
	return []dispatcher.Observer{w.metrics.Source(source).Observer()}
}

// set makes these the sources.
func (w *fleetWeb) set(r *fleetRun, all *config.Config, chosen []config.Source) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.order = config.SourceNames(chosen)
	for name, s := range w.sources {
		if !slices.Contains(w.order, name) {
			s.end()
			w.metrics.Remove(name)
			delete(w.sources, name)
		}
	}
	for _, s := range chosen {
		made := r.madeOf(s)
		old := w.sources[s.Name]
		if old != nil && old.made == made {
			continue
		}
		if old != nil {
			old.end()
			w.metrics.Remove(s.Name)
		}
		source := &webSource{app: func() (*app, error) { return r.at(all, s) }, made: made}
		w.sources[s.Name] = source
		if err := w.open(s.Name, source); err != nil { // it is tried again when it is needed
			r.log.Debug("can't serve HTTP for the source yet", "source", s.Name, "error", err)
		}
	}
}

// Names are those of the sources.
func (w *fleetWeb) Names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.order)
}

// Trying reports that a source has neither worked nor failed yet.
func (w *fleetWeb) Trying(name string) bool {
	s, ok := w.fleet.State(name)
	return ok && !s.Tried && s.Problem == nil
}

// Server returns the interface of a source.
func (w *fleetWeb) Server(name string) (*httpapi.Server, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sources[name]
	if s == nil {
		return nil, errors.New("it was removed")
	}
	if s.server == nil {
		if err := w.open(name, s); err != nil {
			return nil, err
		}
	}
	return s.server, nil
}

// open makes the interface of a source. Its pools connect at their first use.
func (w *fleetWeb) open(name string, s *webSource) error {
	a, err := s.app()
	if err != nil {
		return err
	}
	o := w.serving
	o.database = a.global.httpURL
	target, err := a.databaseTarget()
	if err != nil {
		return err
	}
	pool, err := a.httpPool(o, httpConnections)
	if err != nil {
		return err
	}
	probes, err := a.httpPool(o, 1)
	if err != nil {
		pool.Close()
		return err
	}
	stats := func() dispatcher.Stats {
		state, _ := w.fleet.State(name)
		return state.Stats
	}
	m := w.metrics.Source(name)
	m.Watch(stats)
	m.WatchDatabase(probes, metrics.DatabaseEvery)
	cfg := w.base
	cfg.Logger, cfg.Database, cfg.DB, cfg.Schema, cfg.Stats, cfg.Unprobed = a.log, target.database()+" on "+target.address(), pool, compatible(pool), stats, true
	cfg.Metrics, cfg.Source = m.Handler(a.log), name
	cfg.Starting = func() string {
		if state, _ := w.fleet.State(name); state.Problem != nil {
			return explainOf(state.Problem, originOf(name)).Error()
		}
		return ""
	}
	s.server = httpapi.New(cfg)
	end := s.server.Begin(context.Background())
	s.close = func() {
		end()
		pool.Close()
		probes.Close()
	}
	return nil
}

// end ends the interface of a source, if there is one.
func (s *webSource) end() {
	if s.close != nil {
		s.close()
	}
}

// close ends all.
func (w *fleetWeb) close() {
	if w == nil {
		return
	}
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sources {
		s.end()
	}
	clear(w.sources)
}
