package dispatcher_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const patience = dispatchtest.Patience

// fixture is a database, a receiver and dispatchers between them.
type fixture struct {
	*dispatchtest.Site
	receiver *receiver
}

func newFixture(t *testing.T) *fixture { return newFixtureOn(t, pgtest.New(t)) }

func newFixtureOn(t *testing.T, db *pgtest.DB) *fixture {
	r := newReceiver(t)
	return &fixture{&dispatchtest.Site{DB: db, Endpoint: r.URL}, r}
}

// watch makes a table and applies a trigger for every change of it, posting to the receiver's path
// of the same name.
func (b *fixture) watch(t *testing.T, name string, change ...func(*trigger.Spec)) {
	t.Helper()
	b.Table(t, name)
	b.apply(t, b.Spec(name, change...))
}

// apply adds triggers to those that are there.
func (b *fixture) apply(t *testing.T, specs ...trigger.Spec) {
	t.Helper()
	conn := b.Conn(t)
	cfg, err := queue.Load(t.Context(), conn)
	require.NoError(t, err)
	for _, old := range cfg.Triggers {
		if !hasName(specs, old.Spec.Name) {
			specs = append(specs, old.Spec)
		}
	}
	_, err = sqlschema.Apply(t.Context(), conn, specs, cfg.Settings, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
}

func hasName(specs []trigger.Spec, name string) bool {
	for _, s := range specs {
		if s.Name == name {
			return true
		}
	}
	return false
}

// running is a dispatcher and its log.
type running struct {
	*dispatchtest.Running
	log *dispatcher.TestLog
}

// start runs a dispatcher whose poll interval is an hour, so that nothing is found by polling.
func (b *fixture) start(t *testing.T, change ...func(*dispatcher.Config)) *running {
	t.Helper()
	log := &dispatcher.TestLog{}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	logged := func(cfg *dispatcher.Config) { cfg.Logger = logger }
	return &running{b.Run(t, append([]func(*dispatcher.Config){logged}, change...)...), log}
}

// says waits until the log has a text. A line may come after what it tells of.
func (r *running) says(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(r.log.String(), text) }, patience, 5*time.Millisecond, text)
}

// delivery is one request that the receiver got.
type delivery struct {
	path   string
	at     time.Time
	header http.Header
	body   string
	id     string
	event  string // "op old new"
	retry  int
	new    map[string]json.RawMessage
}

// receiver is a real HTTP server that remembers everything. answer decides what it says; nil: 200.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	changed chan struct{} // closed at the next delivery
	all     []delivery
	answer  func(n int, d delivery, w http.ResponseWriter, r *http.Request) // n: deliveries of this event before
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{changed: make(chan struct{})}
	r.Server = httptest.NewServer(r)
	t.Cleanup(func() {
		r.CloseClientConnections()
		r.Close()
	})
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	at := time.Now()
	body, _ := io.ReadAll(req.Body)
	d := delivery{path: strings.TrimPrefix(req.URL.Path, "/"), at: at, header: req.Header, body: string(body)}
	var e struct {
		ID    string
		Event struct {
			Op   string
			Data struct{ Old, New json.RawMessage }
		}
		Info struct {
			Retry int `json:"current_retry"`
		} `json:"delivery_info"`
	}
	if err := json.Unmarshal(body, &e); err == nil {
		d.id, d.retry = e.ID, e.Info.Retry
		d.event = fmt.Sprintf("%s %s %s", e.Event.Op, e.Event.Data.Old, e.Event.Data.New)
		_ = json.Unmarshal(e.Event.Data.New, &d.new) // null for a delete
	}
	r.mu.Lock()
	n := 0
	for i := range r.all {
		if r.all[i].id == d.id && d.id != "" {
			n++
		}
	}
	r.all = append(r.all, d)
	answer := r.answer
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if answer != nil {
		answer(n, d, w, req)
	}
}

// respond sets the answer.
func (r *receiver) respond(answer func(n int, d delivery, w http.ResponseWriter, r *http.Request)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// on returns the deliveries to a path so far.
func (r *receiver) on(path string) (out []delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.all {
		if d.path == path {
			out = append(out, d)
		}
	}
	return out
}

// await waits for n deliveries to a path and returns them. It waits for each of them anew, so that many
// have more time than one.
func (r *receiver) await(t *testing.T, path string, n int) []delivery {
	t.Helper()
	timeout, before := time.NewTimer(patience), 0
	defer timeout.Stop()
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		got := r.on(path)
		if len(got) >= n {
			return got
		}
		if len(got) > before {
			timeout.Reset(patience)
			before = len(got)
		}
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("%d deliveries to %s, want %d", len(r.on(path)), path, n)
		}
	}
}

// unique returns how many different events came to a path.
func (r *receiver) unique(path string) int {
	seen := map[string]bool{}
	for _, d := range r.on(path) {
		seen[d.id] = true
	}
	return len(seen)
}

// one reads a single value.
func one[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), sql, args...).Scan(&v))
	return v
}

// eventually waits until a query yields want.
func eventually[T comparable](t *testing.T, conn *pgx.Conn, want T, sql string, args ...any) {
	t.Helper()
	var last T
	require.Eventually(t, func() bool {
		last = one[T](t, conn, sql, args...)
		return last == want
	}, patience, 5*time.Millisecond, "%s: want %v", sql, want)
}

// settled waits until the queue is empty.
func (b *fixture) settled(t *testing.T) {
	t.Helper()
	eventually(t, b.Conn(t), 0, "select count(*)::integer from rowhook.event_log")
}

// holdFirst answers the first request only when held is closed.
func holdFirst(held <-chan struct{}) func(int, delivery, http.ResponseWriter, *http.Request) {
	return func(n int, _ delivery, _ http.ResponseWriter, r *http.Request) {
		if n == 0 {
			select {
			case <-held:
			case <-r.Context().Done():
			}
		}
	}
}

// observing adds an observer.
func observing(o dispatcher.Observer) func(*dispatcher.Config) {
	return func(c *dispatcher.Config) { c.Observers = append(c.Observers, o) }
}
