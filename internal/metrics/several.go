package metrics

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// sourceLabel is the label of the metrics of a process that works on several sources.
const sourceLabel = "source"

// Several are the metrics of a process that works on several sources. Those of a source have the label
// source. NewSeveral makes them.
type Several struct {
	process *Metrics

	mu      sync.Mutex
	sources map[string]*Metrics
}

// NewSeveral returns the metrics of the process, without sources.
func NewSeveral(version string) *Several {
	return &Several{process: newProcess(version), sources: map[string]*Metrics{}}
}

// Source returns the metrics of a source, new ones if it has none yet.
func (s *Several) Source(name string) *Metrics {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.sources[name]
	if m == nil {
		m = newOf(name)
		s.sources[name] = m
	}
	return m
}

// Remove forgets a source.
func (s *Several) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sources, name)
}

// SourceState is how a source stands in a process.
type SourceState struct {
	Ready, Served bool
	Processes     int // 0: this process does not see others
}

// WatchSources adds how each source stands. Each scrape calls states.
func (s *Several) WatchSources(states func() map[string]SourceState) {
	s.process.register.MustRegister(&scraped{m: s.process, names: []string{"rowhook_source_ready", "rowhook_source_served", "rowhook_source_processes"}, read: func(emit emitter) {
		for source, is := range states() {
			emit("rowhook_source_ready", truth(is.Ready), source)
			emit("rowhook_source_served", truth(is.Served), source)
			emit("rowhook_source_processes", float64(is.Processes), source)
		}
	}})
}

// Handler serves the metrics, as that of Metrics does.
func (s *Several) Handler(log *slog.Logger) http.Handler { return handler(s, log) }

// Gather gathers all sources at once, so that one whose database hangs costs the others no time.
func (s *Several) Gather() ([]*dto.MetricFamily, error) {
	s.mu.Lock()
	all := prometheus.Gatherers{s.process.registry}
	for _, m := range s.sources {
		all = append(all, m.registry)
	}
	s.mu.Unlock()
	gathered := make(prometheus.Gatherers, len(all))
	var gathering sync.WaitGroup
	for i, g := range all {
		gathering.Go(func() {
			families, err := g.Gather()
			gathered[i] = prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, err })
		})
	}
	gathering.Wait()
	return gathered.Gather()
}

// DatabaseEvery is how often at most the database of each of several sources is read for metrics.
const DatabaseEvery = 30 * time.Second
