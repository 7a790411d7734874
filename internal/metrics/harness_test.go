package metrics_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/metrics"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const patience = dispatchtest.Patience

// stage is a dispatcher between a database and a receiver. Every scrape of its metrics queries the
// database.
type stage struct {
	*dispatchtest.Site
	*dispatcher.Dispatcher
	metrics  *metrics.Metrics
	endpoint *httptest.Server
	status   atomic.Int32 // HTTP status of the receiver's responses; 0: 200
	handler  http.Handler
}

func newStage(t *testing.T, db *pgtest.DB) *stage {
	t.Helper()
	s := &stage{Site: &dispatchtest.Site{DB: db}, metrics: metrics.New("v1")}
	s.endpoint = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if status := s.status.Load(); status != 0 {
			w.WriteHeader(int(status))
		}
	}))
	t.Cleanup(s.endpoint.Close)
	s.Endpoint = s.endpoint.URL
	s.Exec(t, "create table orders (id bigint generated always as identity primary key, v text); create table others (id bigint)")
	s.Apply(t, s.spec("orders"))
	s.metrics.WatchDatabase(s.Pool(t), time.Millisecond)
	s.handler = s.metrics.Handler(slog.New(slog.DiscardHandler))
	s.run(t)
	return s
}

func (s *stage) spec(name string) trigger.Spec {
	return s.Spec(name, func(spec *trigger.Spec) {
		spec.On = trigger.On{Insert: true}
		spec.Webhook.Timeout = trigger.Duration(5 * time.Second)
		spec.Retry.Limit, spec.Retry.Interval = 3, trigger.Duration(50*time.Millisecond)
	})
}

func (s *stage) run(t *testing.T) {
	t.Helper()
	r := dispatchtest.Run(t, dispatcher.Config{DatabaseURL: s.URL(), Version: "v1", Observers: []dispatcher.Observer{s.metrics.Observer()}})
	s.Dispatcher = r.Dispatcher
	s.metrics.Watch(r.Stats)
}

// scrape reads all metrics like Prometheus.
func (s *stage) scrape(t testing.TB) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	require.Equal(t, http.StatusOK, w.Code)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	require.NoError(t, err)
	return families
}

// value returns the sum of a metric's series with these labels, given as name=value. For a
// histogram it is the number of observations. It is -1 for a missing metric, and never NaN.
func (s *stage) value(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	family := s.scrape(t)[name]
	if family == nil {
		return -1
	}
	sum, found := 0.0, false
	for _, m := range family.Metric {
		if !matches(m, labels) {
			continue
		}
		found = true
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	if !found {
		return -1
	}
	return sum
}

func matches(m *dto.Metric, labels []string) bool {
	for _, want := range labels {
		name, value, _ := strings.Cut(want, "=")
		ok := false
		for _, l := range m.Label {
			ok = ok || l.GetName() == name && l.GetValue() == value
		}
		if !ok {
			return false
		}
	}
	return true
}

// until waits until a metric has the wanted value.
func (s *stage) until(t *testing.T, want func(float64) bool, name string, labels ...string) {
	t.Helper()
	var last float64
	ok := false
	deadline := time.Now().Add(patience)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !ok && time.Now().Before(deadline) {
		<-ticker.C
		last = s.value(t, name, labels...)
		ok = want(last)
	}
	require.True(t, ok, "%s %v is %v", name, labels, last)
}

func is(want float64) func(float64) bool      { return func(got float64) bool { return got == want } }
func atLeast(want float64) func(float64) bool { return func(got float64) bool { return got >= want } }
