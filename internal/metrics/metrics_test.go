package metrics_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/metrics"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/webhook"
)

func TestMetricsFollowWhatIsDelivered(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	s := newStage(t, db)
	conn := db.Conn(t)
	require.Eventually(t, func() bool { // before that, nobody hears a notification
		var armed bool
		err := conn.QueryRow(t.Context(), "select is_called and last_value = 1 from rowhook.doorbell").Scan(&armed)
		return err == nil && armed
	}, patience, 5*time.Millisecond)
	s.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 20)")
	s.until(t, is(20), "rowhook_attempts_total", "trigger=orders", "outcome=delivered")
	s.until(t, atLeast(1), "rowhook_settle_batch_outcomes")
	for name, want := range map[string]float64{
		"rowhook_events_captured_total": 20, "rowhook_first_attempt_delay_seconds": 20, "rowhook_delivery_delay_seconds": 20,
		"rowhook_webhook_duration_seconds": 20, "rowhook_events_dead_total": 0,
	} {
		s.until(t, is(want), name, "trigger=orders") // one is counted after the other
	}
	for _, name := range []string{"rowhook_claims_total", "rowhook_claim_duration_seconds", "rowhook_claim_batch_events", "rowhook_doorbell_rings_total"} {
		require.Positive(t, s.value(t, name), name)
	}
	s.until(t, is(0), "rowhook_backlog_events", "trigger=orders")
	for name, want := range map[string]float64{
		"rowhook_claiming": 1, "rowhook_settling": 1, "rowhook_listening": 1, "rowhook_database_up": 1, "rowhook_listener_reconnects_total": 0,
		"rowhook_poll_found_events_total": 0, "rowhook_trigger_paused": 0,
	} {
		require.Equal(t, want, s.value(t, name), name)
	}
	require.InDelta(t, 1, s.value(t, "rowhook_instances", "state=alive"), 0)
}

func TestSeveralLabelTheMetricsOfEachSource(t *testing.T) {
	t.Parallel()
	all := metrics.NewSeveral("v1")
	all.WatchSources(func() map[string]metrics.SourceState {
		return map[string]metrics.SourceState{"eu": {Ready: true, Served: true, Processes: 2}, "us": {}}
	})
	for _, source := range []string{"eu", "us"} {
		all.Source(source).Watch(func() dispatcher.Stats { return dispatcher.Stats{Started: source == "eu"} })
		require.Same(t, all.Source(source), all.Source(source))
	}
	text := func() string {
		w := httptest.NewRecorder()
		all.Handler(slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		require.Equal(t, http.StatusOK, w.Code, w.Body.String())
		return w.Body.String()
	}
	for _, line := range []string{`rowhook_source_ready{source="eu"} 1`, `rowhook_source_ready{source="us"} 0`, `rowhook_claiming{source="eu"} 1`, `rowhook_claiming{source="us"} 0`, "go_goroutines "} {
		require.Contains(t, text(), line)
	}
	all.Remove("us")
	require.NotContains(t, text(), `rowhook_claiming{source="us"}`)
}

func TestEveryDefinedMetricIsServedAndNoOther(t *testing.T) {
	t.Parallel()
	s := newStage(t, pgtest.New(t))
	s.status.Store(500)
	s.Exec(t, "insert into orders (v) values ('x')")
	s.until(t, is(1), "rowhook_events_dead_total")
	served := s.scrape(t)
	var defined []string
	for _, d := range metrics.Definitions() {
		if slices.Equal(d.Labels, []string{"source"}) { // that of Several
			continue
		}
		defined = append(defined, d.Name)
		f := served[d.Name]
		require.NotNil(t, f, d.Name)
		require.Equal(t, string(d.Kind), strings.ToLower(f.GetType().String()), d.Name)
		require.Equal(t, d.Help, f.GetHelp(), d.Name)
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName())
			}
			require.ElementsMatch(t, d.Labels, labels, d.Name)
		}
	}
	for name := range served {
		if strings.HasPrefix(name, "rowhook_") {
			require.Contains(t, defined, name)
		}
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		require.Contains(t, served, name)
	}
}

func TestMetricsKeepTheConventionsOfPrometheus(t *testing.T) {
	t.Parallel()
	s := newStage(t, pgtest.New(t))
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	problems, err := promlint.New(w.Body).Lint()
	require.NoError(t, err)
	problems = slices.DeleteFunc(problems, func(p promlint.Problem) bool { return !strings.HasPrefix(p.Metric, "rowhook_") })
	require.Empty(t, problems)
}

func TestSeriesOfRemovedTriggersDisappear(t *testing.T) {
	t.Parallel()
	s := newStage(t, pgtest.New(t))
	s.Apply(t, s.spec("orders"), s.spec("others"))
	s.status.Store(404)
	s.Exec(t, "insert into orders (v) values ('x'); insert into others values (1)")
	s.until(t, is(1), "rowhook_events_dead_total", "trigger=orders")
	s.until(t, is(1), "rowhook_events_dead_total", "trigger=others")
	s.until(t, is(4), "rowhook_attempt_failures_total", "trigger=others", "reason=4xx")
	s.Apply(t, s.spec("orders"))
	require.Eventually(t, func() bool {
		for _, family := range s.scrape(t) {
			for _, m := range family.Metric {
				if matches(m, []string{"trigger=others"}) {
					return false
				}
			}
		}
		return true
	}, patience, 50*time.Millisecond)
	require.InDelta(t, 1, s.value(t, "rowhook_events_dead_total", "trigger=orders"), 0, "the others stay")
}

// An uninstall and a new installation number the triggers from 1 again, while a dispatcher runs.
func TestSeriesAreNamedByTheTriggerThatHasTheIDNow(t *testing.T) {
	t.Parallel()
	m := metrics.New("v1")
	h := m.Observer()
	configure := func(names ...string) {
		var triggers []dispatcher.TriggerRef
		for i, name := range names {
			triggers = append(triggers, dispatcher.TriggerRef{ID: int32(i + 1), Name: name})
		}
		h.Configured(triggers)
		h.Claimed([]dispatcher.ClaimedEvent{{TriggerID: 1, Attempt: 1}}, time.Millisecond)
	}
	configure("a", "b")
	configure("b", "c")
	w := httptest.NewRecorder()
	m.Handler(slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	require.Contains(t, w.Body.String(), `rowhook_events_captured_total{trigger="b"} 1`)
	require.Contains(t, w.Body.String(), `rowhook_events_captured_total{trigger="c"} 0`)
	require.NotContains(t, w.Body.String(), `trigger="a"`)
}

// Attempts are the hot path. Counting one costs some hundred nanoseconds and no memory.
func TestCountingAnAttemptAllocatesNothing(t *testing.T) {
	h, a := observerOf("orders")
	events := []dispatcher.ClaimedEvent{{TriggerID: 7, Attempt: 1}}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		h.Rang()
		h.Claimed(events, time.Millisecond)
		h.Attempted(a)
		h.Settled(1, time.Millisecond)
	}))
}

func BenchmarkAttempt(b *testing.B) {
	h, a := observerOf("orders")
	b.ReportAllocs()
	for b.Loop() {
		h.Attempted(a)
	}
}

func observerOf(name string) (dispatcher.Observer, dispatcher.Attempt) {
	h := metrics.New("v1").Observer()
	h.Configured([]dispatcher.TriggerRef{{ID: 7, Name: name}})
	now := time.Now()
	return h, dispatcher.Attempt{
		TriggerID: 7, Number: 1, DueAt: now, Outcome: dispatcher.Delivered, Result: webhook.Result{StartedAt: now.Add(time.Millisecond), Status: 200},
		Event: dispatcher.Event{CreatedAt: now},
	}
}

func TestADatabaseThatDoesNotAnswerCostsTheSharedMetricsOnly(t *testing.T) {
	t.Parallel()
	m := metrics.New("v1")
	pool := pgtest.New(t).Pool(t)
	pool.Close()
	m.WatchDatabase(pool, 0)
	s := &stage{metrics: m, handler: m.Handler(slog.New(slog.DiscardHandler))}
	require.InDelta(t, 0, s.value(t, "rowhook_database_up"), 0)
	require.InDelta(t, 1, s.value(t, "rowhook_build_info", "version=v1"), 0)
	require.InDelta(t, -1, s.value(t, "rowhook_instances"), 0)
}
