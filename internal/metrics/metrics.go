// Package metrics counts what a dispatcher does, for Prometheus.
package metrics

import (
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/webhook"
)

// Metrics are the metrics of one process. New makes them.
type Metrics struct {
	registry    *prometheus.Registry
	register    prometheus.Registerer // registry, with the label of the source
	definitions map[string]Definition

	captured, handed, attempts, failures, dead *prometheus.CounterVec
	first, delivery, webhook                   *prometheus.HistogramVec
	claims, errors                             *prometheus.CounterVec
	claimTook, claimBatch                      prometheus.Observer
	settleTook, settleBatch                    prometheus.Observer
	claimEvents, claimEmpty                    prometheus.Counter
	rings, silences, missed                    prometheus.Counter
	reconnects, vacuums                        prometheus.Counter
	droppedPartitions, droppedBytes            prometheus.Counter

	listened atomic.Bool                       // a session has listened
	triggers atomic.Pointer[map[int32]*series] // the configured triggers; replaced as a whole
}

// series are the series of one trigger, looked up once.
type series struct {
	name                                          string
	captured, handed, delivered, failed, canceled prometheus.Counter
	dead                                          prometheus.Counter
	first, delivery, webhook                      prometheus.Observer
}

// The buckets are in seconds. They begin at half a millisecond, because a delivery takes about one,
// and end at the hours that retries may take.
func delays() []float64 {
	return []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200}
}

func durations() []float64 {
	return []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60}
}

func batchSizes() []float64 {
	return []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000}
}

// New returns metrics for this version of the program.
func New(version string) *Metrics {
	m := newProcess(version)
	m.count()
	return m
}

// empty returns metrics without any. The source is their label; "": they have none.
func empty(source string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), definitions: map[string]Definition{}}
	m.register = m.registry
	if source != "" {
		m.register = prometheus.WrapRegistererWith(prometheus.Labels{sourceLabel: source}, m.registry)
	}
	for _, d := range Definitions() {
		m.definitions[d.Name] = d
	}
	return m
}

// newProcess returns the metrics of the process alone.
func newProcess(version string) *Metrics {
	m := empty("")
	m.register.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.gauges("rowhook_build_info").WithLabelValues(version, runtime.Version()).Set(1)
	return m
}

// newOf returns the metrics of a source.
func newOf(source string) *Metrics {
	m := empty(source)
	m.count()
	return m
}

// count makes the metrics of a dispatcher.
func (m *Metrics) count() {
	m.captured, m.handed, m.attempts = m.counters("rowhook_events_captured_total"), m.counters("rowhook_events_handed_over_total"), m.counters("rowhook_attempts_total")
	m.failures, m.dead = m.counters("rowhook_attempt_failures_total"), m.counters("rowhook_events_dead_total")
	m.first = m.histograms("rowhook_first_attempt_delay_seconds", delays())
	m.delivery = m.histograms("rowhook_delivery_delay_seconds", delays())
	m.webhook = m.histograms("rowhook_webhook_duration_seconds", durations())
	m.claims, m.errors = m.counters("rowhook_claims_total"), m.counters("rowhook_database_errors_total")
	m.claimEvents, m.claimEmpty = m.claims.WithLabelValues("events"), m.claims.WithLabelValues("empty")
	for _, statement := range []string{"claim", "settle"} {
		for _, reason := range []string{reasonConnection, reasonDiskFull} {
			m.errors.WithLabelValues(statement, reason)
		}
	}
	m.claimTook = m.histograms("rowhook_claim_duration_seconds", durations()).WithLabelValues()
	m.claimBatch = m.histograms("rowhook_claim_batch_events", batchSizes()).WithLabelValues()
	m.settleTook = m.histograms("rowhook_settle_duration_seconds", durations()).WithLabelValues()
	m.settleBatch = m.histograms("rowhook_settle_batch_outcomes", batchSizes()).WithLabelValues()
	m.rings, m.silences = m.counters("rowhook_doorbell_rings_total").WithLabelValues(), m.counters("rowhook_doorbell_silences_total").WithLabelValues()
	m.missed = m.counters("rowhook_poll_found_events_total").WithLabelValues()
	m.droppedPartitions = m.counters("rowhook_history_dropped_partitions_total").WithLabelValues()
	m.droppedBytes = m.counters("rowhook_history_dropped_bytes_total").WithLabelValues()
	m.vacuums = m.counters("rowhook_queue_vacuums_total").WithLabelValues()
	m.reconnects = m.counters("rowhook_listener_reconnects_total").WithLabelValues()
	m.triggers.Store(&map[int32]*series{})
}

func (m *Metrics) counters(name string) *prometheus.CounterVec {
	d := m.definitions[name]
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: d.Name, Help: d.Help}, d.Labels)
	m.register.MustRegister(v)
	return v
}

func (m *Metrics) gauges(name string) *prometheus.GaugeVec {
	d := m.definitions[name]
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: d.Name, Help: d.Help}, d.Labels)
	m.register.MustRegister(v)
	return v
}

func (m *Metrics) histograms(name string, buckets []float64) *prometheus.HistogramVec {
	d := m.definitions[name]
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: d.Name, Help: d.Help, Buckets: buckets}, d.Labels)
	m.register.MustRegister(v)
	return v
}

// Handler serves the metrics: at most four scrapes at once, each for at most nine seconds.
func (m *Metrics) Handler(log *slog.Logger) http.Handler { return handler(m.registry, log) }

func handler(all prometheus.Gatherer, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{
		ErrorLog: errorLog{log}, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 9 * time.Second,
	})
}

// errorLog passes promhttp's errors to our logger.
type errorLog struct{ log *slog.Logger }

func (l errorLog) Println(v ...any) { l.log.Warn("can't serve the metrics", "error", v) }

// Observer returns an observer that counts what the dispatcher does.
func (m *Metrics) Observer() dispatcher.Observer {
	return dispatcher.Observer{
		Configured: m.configured,
		Claimed:    m.claimed,
		Attempted:  m.attempted,
		Missed:     func(events int) { m.missed.Add(float64(events)) },
		Settled: func(outcomes int, took time.Duration) {
			m.settleTook.Observe(took.Seconds())
			m.settleBatch.Observe(float64(outcomes))
		},
		Rang: func() { m.rings.Inc() },
		Doorbell: func(silent bool) {
			if silent {
				m.silences.Inc()
			}
		},
		Listening: func(listens bool) {
			if listens && m.listened.Swap(true) {
				m.reconnects.Inc()
			}
		},
		Dropped: func(partitions int, bytes int64) {
			m.droppedPartitions.Add(float64(partitions))
			m.droppedBytes.Add(float64(bytes))
		},
		Maintained: func(done dispatcher.Maintenance) {
			if done.Vacuumed {
				m.vacuums.Inc()
			}
		},
		Failed: func(statement string, err error) { m.errors.WithLabelValues(statement, errorReason(err)).Inc() },
	}
}

// configured adds the series of new triggers and drops those of removed ones. After an uninstall
// ids start again, so a known id may belong to a new trigger. One goroutine at a time calls
// configured.
func (m *Metrics) configured(triggers []dispatcher.TriggerRef) {
	before, now, named := *m.triggers.Load(), make(map[int32]*series, len(triggers)), make(map[string]bool, len(triggers))
	for i := range triggers {
		id, name := triggers[i].ID, triggers[i].Name
		named[name] = true
		if b := before[id]; b != nil && b.name == name {
			now[id] = b
			continue
		}
		now[id] = &series{
			name: name, captured: m.captured.WithLabelValues(name), handed: m.handed.WithLabelValues(name), dead: m.dead.WithLabelValues(name),
			delivered: m.attempts.WithLabelValues(name, "delivered"), failed: m.attempts.WithLabelValues(name, "failed"),
			canceled: m.attempts.WithLabelValues(name, "canceled"),
			first:    m.first.WithLabelValues(name), delivery: m.delivery.WithLabelValues(name), webhook: m.webhook.WithLabelValues(name),
		}
	}
	m.triggers.Store(&now)
	for _, s := range before {
		if !named[s.name] {
			m.forget(s.name)
		}
	}
}

func (m *Metrics) forget(trigger string) {
	labels := prometheus.Labels{"trigger": trigger}
	for _, v := range []interface{ DeletePartialMatch(prometheus.Labels) int }{
		m.captured, m.handed, m.attempts, m.failures, m.dead, m.first, m.delivery, m.webhook,
	} {
		v.DeletePartialMatch(labels)
	}
}

func (m *Metrics) claimed(events []dispatcher.ClaimedEvent, took time.Duration) {
	m.claimTook.Observe(took.Seconds())
	if len(events) == 0 {
		m.claimEmpty.Inc()
		return
	}
	m.claimEvents.Inc()
	m.claimBatch.Observe(float64(len(events)))
	triggers := *m.triggers.Load()
	for i := range events {
		s := triggers[events[i].TriggerID]
		if s == nil {
			continue
		}
		if events[i].Attempt == 1 {
			s.captured.Inc()
		}
		if events[i].Handed {
			s.handed.Inc()
		}
	}
}

func (m *Metrics) attempted(a dispatcher.Attempt) {
	s := (*m.triggers.Load())[a.TriggerID]
	if s == nil {
		return // the trigger was removed in the meantime
	}
	since := a.Event.CreatedAt
	if a.Number == 1 {
		since = a.DueAt // the same time, unless the event was redelivered
		s.first.Observe(max(a.Result.StartedAt.Sub(since).Seconds(), 0))
	}
	s.webhook.Observe(a.Result.Duration.Seconds())
	switch {
	case a.Outcome == dispatcher.Delivered:
		s.delivered.Inc()
		s.delivery.Observe(max(a.Result.StartedAt.Add(a.Result.Duration).Sub(since).Seconds(), 0))
		return
	case a.Result.Kind == webhook.KindCanceled:
		s.canceled.Inc()
		return
	case a.Outcome == dispatcher.Dead:
		s.dead.Inc()
	}
	s.failed.Inc()
	m.failures.WithLabelValues(s.name, failureReason(&a.Result)).Inc()
}

// failureReason returns the label of a failed attempt. There are about a dozen.
func failureReason(r *dispatcher.Result) string {
	switch class := r.Status / 100; {
	case r.Kind != webhook.KindResponse:
		return string(r.Kind)
	case class >= 3 && class <= 5:
		return strconv.Itoa(class) + "xx"
	}
	return "other"
}

const (
	reasonConnection = "connection"
	reasonDiskFull   = "disk_full"
)

// errorReason returns the label of a database error, by the class of its SQLSTATE.
func errorReason(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return reasonConnection // the server sent no error
	}
	switch class := pg.Code[:min(2, len(pg.Code))]; {
	case pg.Code == pgerrcode.DiskFull:
		return reasonDiskFull
	case pg.Code == pgerrcode.ReadOnlySQLTransaction:
		return "read_only"
	case class == "08" || pg.Code == pgerrcode.AdminShutdown || pg.Code == pgerrcode.CrashShutdown || pg.Code == pgerrcode.CannotConnectNow:
		return reasonConnection
	case class == "57":
		return "canceled"
	case class == "22" || class == "23" || class == "42":
		return "rejected"
	}
	return "other"
}
