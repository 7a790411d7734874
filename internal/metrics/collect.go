package metrics

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
)

// Watch adds metrics of the dispatcher. Each scrape calls stats.
func (m *Metrics) Watch(stats func() dispatcher.Stats) {
	m.register.MustRegister(&scraped{m: m, names: []string{
		"rowhook_attempts_in_flight", "rowhook_events_queued", "rowhook_trigger_unable", "rowhook_endpoint_failing", "rowhook_claiming", "rowhook_settling", "rowhook_history_written", "rowhook_payload_memory_bytes",
		"rowhook_doorbell_silent", "rowhook_listening", "rowhook_notification_queue_usage",
	}, read: func(emit emitter) {
		s := stats()
		if s.Standby {
			return // another process has them
		}
		for _, t := range s.Triggers {
			emit("rowhook_attempts_in_flight", float64(t.InFlight), t.Name)
			emit("rowhook_events_queued", float64(t.Queued), t.Name)
			emit("rowhook_trigger_unable", truth(t.Unable != ""), t.Name)
			emit("rowhook_endpoint_failing", truth(t.Failing), t.Name)
		}
		emit("rowhook_claiming", truth(s.Started && s.Claiming == ""))
		emit("rowhook_settling", truth(s.Settling == ""))
		emit("rowhook_history_written", truth(s.History == ""))
		emit("rowhook_payload_memory_bytes", float64(s.PayloadBytes))
		emit("rowhook_doorbell_silent", truth(s.Silent))
		if s.NotificationQueue != nil {
			emit("rowhook_notification_queue_usage", *s.NotificationQueue)
		}
		if !s.Polls {
			emit("rowhook_listening", truth(s.Listens))
		}
	}})
}

// WatchDatabase adds the metrics that describe the database. A scrape queries it, unless the last
// result is younger than every. 0: results are kept for readEvery, and for readShare times the
// duration of the queries if they are slow twice in a row.
func (m *Metrics) WatchDatabase(db operate.DB, every time.Duration) {
	c := &cache{db: db, every: every}
	m.register.MustRegister(&scraped{m: m, names: []string{
		"rowhook_backlog_events", "rowhook_backlog_oldest_age_seconds", "rowhook_dead_letters", "rowhook_blocked_keys", "rowhook_trigger_paused", "rowhook_trigger_uncaptured", "rowhook_instances",
		"rowhook_queue_live_tuples", "rowhook_queue_dead_tuples", "rowhook_queue_bytes", "rowhook_history_bytes", "rowhook_history_partitions", "rowhook_history_ahead_seconds",
		"rowhook_vacuum_held_back_seconds", "rowhook_vacuum_held_back_transactions", "rowhook_schema_version",
		"rowhook_database_up", "rowhook_database_read_seconds",
	}, read: func(emit emitter) {
		s := c.get()
		emit("rowhook_database_up", truth(s.status != nil))
		emit("rowhook_database_read_seconds", s.took.Seconds())
		if s.status != nil {
			s.emit(emit)
		}
	}})
}

type emitter func(name string, value float64, labels ...string)

// scraped are metrics that are read at each scrape.
type scraped struct {
	m     *Metrics
	names []string
	read  func(emit emitter)
}

func (s *scraped) desc(name string) *prometheus.Desc {
	d := s.m.definitions[name]
	return prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
}

func (s *scraped) Describe(out chan<- *prometheus.Desc) {
	for _, name := range s.names {
		out <- s.desc(name)
	}
}

func (s *scraped) Collect(out chan<- prometheus.Metric) {
	descs := make(map[string]*prometheus.Desc, len(s.names))
	for _, name := range s.names {
		descs[name] = s.desc(name)
	}
	s.read(func(name string, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(descs[name], prometheus.GaugeValue, value, labels...)
	})
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

const (
	readEvery   = 10 * time.Second
	readShare   = 50 // the queries may take a fiftieth of the time
	readTimeout = 5 * time.Second
)

// cache keeps the last result of the queries.
type cache struct {
	db     operate.DB
	every  time.Duration
	mu     sync.Mutex
	last   reading
	before time.Duration // duration of the reading before the last; 0: it failed, or there was none
}

// reading is the result of the queries. status is nil if they failed.
type reading struct {
	status *operate.Status
	holder *queue.Holder
	at     time.Time
	took   time.Duration
}

func (c *cache) get() reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.status != nil && time.Since(c.last.at) < cmp.Or(c.every, keep(c.last.took, c.before)) {
		return c.last
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	began := time.Now()
	a := reading{}
	var err error
	if a.status, err = operate.ReadStatus(ctx, c.db); err == nil {
		a.holder, err = queue.FindHolder(ctx, c.db, time.Second, 100_000)
	}
	if err != nil {
		a.status = nil
	}
	a.at = time.Now()
	a.took = a.at.Sub(began)
	c.before = 0
	if c.last.status != nil {
		c.before = c.last.took
	}
	c.last = a
	return a
}

// keep returns how long a reading is kept. It takes two slow readings in a row to keep one longer.
// The first reading after a restart of Postgres is slow, and it reports all dispatchers as dead
// because their sessions are. Keeping it would report that for minutes.
func keep(took, before time.Duration) time.Duration {
	return max(readEvery, readShare*min(took, before))
}

func (a *reading) emit(emit emitter) {
	s := a.status
	for i := range s.Triggers {
		t := &s.Triggers[i]
		if t.Removed {
			continue
		}
		emit("rowhook_backlog_events", float64(t.Waiting), t.Name, "waiting")
		emit("rowhook_backlog_events", float64(t.InFlight), t.Name, "in_flight")
		emit("rowhook_backlog_events", float64(t.Retrying), t.Name, "retrying")
		age := 0.0
		if t.OldestAt != nil { // the event ages while the reading is kept
			age = max((s.Now.Sub(*t.OldestAt) + time.Since(a.at)).Seconds(), 0)
		}
		emit("rowhook_backlog_oldest_age_seconds", age, t.Name)
		emit("rowhook_dead_letters", float64(t.Dead), t.Name)
		emit("rowhook_blocked_keys", float64(t.BlockedKeys), t.Name)
		emit("rowhook_trigger_paused", truth(t.Paused), t.Name)
		emit("rowhook_trigger_uncaptured", truth(s.Warns(operate.Uncaptured, t.Name)), t.Name)
	}
	alive, dead := 0, 0
	for i := range s.Instances {
		if s.Instances[i].Alive {
			alive++
		} else {
			dead++
		}
	}
	emit("rowhook_instances", float64(alive), "alive")
	emit("rowhook_instances", float64(dead), "dead")
	emit("rowhook_queue_live_tuples", float64(s.Queue.LiveTuples))
	emit("rowhook_queue_dead_tuples", float64(s.Queue.DeadTuples))
	emit("rowhook_queue_bytes", float64(s.Queue.Bytes))
	for _, h := range s.History {
		emit("rowhook_history_bytes", float64(h.Bytes), h.Table)
		emit("rowhook_history_partitions", float64(len(h.Partitions)), h.Table)
	}
	emit("rowhook_history_ahead_seconds", max(s.HistoryUntil().Sub(s.Now).Seconds(), 0))
	seconds, transactions := 0.0, int64(0)
	if h := a.holder; h != nil {
		transactions = h.Age
		if h.Since != nil {
			seconds = max((s.Now.Sub(*h.Since) + time.Since(a.at)).Seconds(), 0)
		}
	}
	emit("rowhook_vacuum_held_back_seconds", seconds)
	emit("rowhook_vacuum_held_back_transactions", float64(transactions))
	emit("rowhook_schema_version", float64(s.Schema.Database))
}
