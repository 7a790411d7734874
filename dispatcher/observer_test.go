package dispatcher_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/trigger"
)

func TestHooksAreToldWhatHappens(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Retry.Limit, s.Retry.Interval = 1, 0 })
	b.receiver.respond(failOnce)
	var mu sync.Mutex
	got := map[string]int{}
	count := func(what string, n int) {
		mu.Lock()
		defer mu.Unlock()
		got[what] += n
	}
	b.start(t, func(c *dispatcher.Config) {
		c.Observers = []dispatcher.Observer{{
			Configured: func(triggers []dispatcher.TriggerRef) { count("configured "+triggers[0].Name, 1) },
			Claimed:    func(events []dispatcher.ClaimedEvent, _ time.Duration) { count("claimed", len(events)) },
			Attempting: func(e *dispatcher.Event, number int) (http.Header, func(dispatcher.Attempt)) {
				count("attempting "+strconv.Itoa(number), 1)
				return http.Header{"X-Attempt": {strconv.Itoa(number)}}, func(a dispatcher.Attempt) {
					if a.Event.ID == e.ID && a.Number == number {
						count("ended", 1)
					}
				}
			},
			Attempted: func(a dispatcher.Attempt) { count("attempted "+a.Method+" "+strconv.Itoa(a.Result.Status), 1) },
			Settled:   func(n int, took time.Duration) { count("settled", n) },
			Rang:      func() { count("rang", 1) },
			Listening: func(listens bool) { count("listening "+strconv.FormatBool(listens), 1) },
		}}
	})
	eventually(t, b.Conn(t), true, "select is_called and last_value = 1 from rowhook.doorbell")
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 3)")
	for _, d := range b.receiver.await(t, "orders", 6) {
		require.Equal(t, strconv.Itoa(d.retry+1), d.header.Get("X-Attempt"))
	}
	b.settled(t)
	b.Exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query = 'listen \"rowhook\"'")
	said := func(what string) int {
		mu.Lock()
		defer mu.Unlock()
		return got[what]
	}
	for what, want := range map[string]int{
		"configured orders": 1, "claimed": 6, "attempting 1": 3, "attempting 2": 3, "ended": 6, "attempted POST 500": 3, "attempted POST 200": 3,
		"settled": 6, "rang": 1, "listening true": 1,
	} {
		require.Eventually(t, func() bool { return said(what) >= want }, patience, 5*time.Millisecond, what)
	}
	for _, exact := range []string{"attempted POST 500", "attempted POST 200", "ended"} {
		require.Zero(t, said(exact)%3, exact)
	}
}

func TestALostSessionIsToldToTheHookAndShownByStats(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	var heard, lost atomic.Int32
	r := b.start(t, observing(dispatcher.Observer{Listening: func(listens bool) {
		if listens {
			heard.Add(1)
		} else {
			lost.Add(1)
		}
	}}))
	s := r.Stats()
	require.True(t, s.Started)
	require.True(t, s.Listens)
	require.NotZero(t, s.Instance)
	require.Empty(t, s.Claiming)
	require.Equal(t, []dispatcher.TriggerStats{{Name: "orders"}}, s.Triggers)
	b.Exec(t, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database()) and objsubid = 2")
	require.Eventually(t, func() bool { return lost.Load() == 1 && heard.Load() == 2 }, patience, 5*time.Millisecond)
	require.Eventually(t, func() bool { return r.Stats().Listens }, patience, 5*time.Millisecond)
}

func TestStatsShowWhatIsInFlight(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Concurrency = 2 })
	held := make(chan struct{})
	b.receiver.respond(holdFirst(held))
	r := b.start(t)
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 2)")
	b.receiver.await(t, "orders", 2)
	require.Equal(t, []dispatcher.TriggerStats{{Name: "orders", InFlight: 2}}, r.Stats().Triggers)
	close(held)
	b.settled(t)
	require.Eventually(t, func() bool { return r.Stats().Triggers[0].InFlight == 0 }, patience, 5*time.Millisecond)
}

func TestOnlyEventsThatNobodyRangForCountAsMissed(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.watch(t, "quiet", func(s *trigger.Spec) { s.Notify = trigger.NotifyNever })
	var missed, claims atomic.Int32
	const within = 5 * time.Second // in which a notification arrives also on a busy machine
	b.startChanged(t, func(d *dispatcher.Dispatcher) { dispatcher.RingWithin(d, within) }, func(c *dispatcher.Config) {
		c.PollInterval = 50 * time.Millisecond
		c.Observers = []dispatcher.Observer{{
			Missed:  func(n int) { missed.Add(int32(n)) },
			Claimed: func([]dispatcher.ClaimedEvent, time.Duration) { claims.Add(1) },
		}}
	})
	conn := b.Conn(t)
	for n := range 40 { // over many polls
		b.Exec(t, "insert into orders default values")
		b.receiver.await(t, "orders", n+1)
	}
	b.Exec(t, "insert into quiet (v) select 'x' from generate_series(1, 5)")
	b.receiver.await(t, "quiet", 5)
	last := claims.Load()
	// An event counts as missed that long after the poll that found it.
	require.Never(t, func() bool { return missed.Load() > 0 }, within+time.Second, 100*time.Millisecond)
	require.Greater(t, claims.Load(), last, "each poll claims once")

	// Until writers ring again they are not expected to.
	require.Eventually(t, func() bool {
		_, err := conn.Exec(t.Context(), `
insert into rowhook.event_log (id, trigger_id, op, new)
select rowhook.uuid7(), id, 'I', '{}' from rowhook.trigger, generate_series(1, 3) where name = 'orders'`)
		return err == nil && missed.Load() >= 3
	}, patience, time.Second)
}

// TestEveryLineAboutAnEventNamesItAndItsTrigger reads what is logged while everything goes wrong.
func TestEveryLineAboutAnEventNamesItAndItsTrigger(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Retry.Limit, s.Retry.Interval = 1, 0 })
	b.receiver.respond(func(n int, _ delivery, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader([]int{500, 200, 404}[n%3])
	})
	lines := &dispatcher.TestLog{}
	b.start(t, func(c *dispatcher.Config) {
		c.Logger = slog.New(slog.NewJSONHandler(lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	b.Exec(t, "insert into orders default values; insert into orders default values")
	b.receiver.await(t, "orders", 4)
	b.settled(t)
	ids := map[string]bool{}
	for _, d := range b.receiver.on("orders") {
		ids[d.id] = true
	}
	about := 0
	for line := range strings.Lines(lines.String()) {
		var l struct{ Msg, Event, Trigger string }
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		if strings.Contains(l.Msg, "attempt") || l.Msg == "delivered" {
			about++
			require.True(t, ids[l.Event], line)
			require.Equal(t, "orders", l.Trigger, line)
		}
	}
	require.GreaterOrEqual(t, about, 4)
}

// TestLogCallsThatNameAnEventNameItsTrigger reads the source, for the lines that no test provokes.
func TestLogCallsThatNameAnEventNameItsTrigger(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); ok {
				if x, ok := f.X.(*ast.Ident); ok && x.Name == "slog" {
					return true // one attribute
				}
			}
			keys := map[string]bool{}
			for _, arg := range call.Args {
				if c, ok := arg.(*ast.CallExpr); ok && len(c.Args) > 0 {
					arg = c.Args[0] // slog.String("event", ...)
				}
				if s, ok := arg.(*ast.BasicLit); ok && s.Kind == token.STRING {
					keys[strings.Trim(s.Value, `"`)] = true
				}
			}
			if keys["event"] {
				found++
				require.True(t, keys["trigger"], "%s: a line names an event and not its trigger", file)
			}
			return true
		})
	}
	require.GreaterOrEqual(t, found, 5)
}
