package dispatcher_test

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/timed"
	"github.com/rowhook/rowhook/trigger"
)

// newShared makes what dispatchers share.
func newShared(t *testing.T, cfg dispatcher.SharedConfig) *dispatcher.Shared {
	t.Helper()
	s, err := dispatcher.NewShared(cfg)
	require.NoError(t, err)
	return s
}

// sharing has a dispatcher share, under a name.
func sharing(s *dispatcher.Shared, name string) func(*dispatcher.Config) {
	return func(c *dispatcher.Config) { c.Shared, c.SourceName = s, name }
}

// beside makes another database with the same receiver.
func (b *fixture) beside(t *testing.T) *fixture {
	t.Helper()
	return &fixture{&dispatchtest.Site{DB: pgtest.New(t), Endpoint: b.receiver.URL}, b.receiver}
}

// crowd counts requests at once.
type crowd struct{ now, most atomic.Int64 }

func (c *crowd) in() {
	n := c.now.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
}

func (c *crowd) out() { c.now.Add(-1) }

func TestASourceIsNamedInBodiesLogsAndToObservers(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	var told, configured atomic.Value
	d := b.start(t, func(c *dispatcher.Config) { c.SourceName = "eu" }, observing(dispatcher.Observer{
		Attempted:  func(a dispatcher.Attempt) { told.Store(a.Event.Source) },
		Configured: func(all []dispatcher.TriggerRef) { configured.Store(all[0].Source) },
	}))
	b.Exec(t, "insert into orders default values")
	got := b.receiver.await(t, "orders", 1)
	var body struct{ Source string }
	require.NoError(t, json.Unmarshal([]byte(got[0].body), &body))
	require.Equal(t, "eu", body.Source)
	b.settled(t)
	require.Equal(t, "eu", told.Load())
	require.Equal(t, "eu", configured.Load())
	require.Contains(t, d.log.String(), "msg=ready source=eu")
}

func TestDispatchersThatShareKeepToOneConcurrency(t *testing.T) {
	t.Parallel()
	a := newFixture(t)
	b := a.beside(t)
	var requests crowd
	a.receiver.respond(func(int, delivery, http.ResponseWriter, *http.Request) {
		requests.in()
		defer requests.out()
		<-time.After(5 * time.Millisecond)
	})
	s := newShared(t, dispatcher.SharedConfig{Concurrency: 8})
	for name, f := range map[string]*fixture{"a": a, "b": b} {
		f.watch(t, "orders")
		f.watch(t, "items")
		f.start(t, sharing(s, name))
	}
	for _, f := range []*fixture{a, b} {
		f.insert(t, "orders", 300)
		f.insert(t, "items", 300)
	}
	a.settled(t)
	b.settled(t)
	require.Equal(t, 600, a.receiver.unique("orders"))
	require.Equal(t, 600, a.receiver.unique("items"))
	require.LessOrEqual(t, requests.most.Load(), int64(8+2), "and one for each")
	require.GreaterOrEqual(t, requests.most.Load(), int64(6))
}

func TestTheConcurrencyOfATriggerHoldsForAllDatabasesTogether(t *testing.T) {
	t.Parallel()
	a := newFixture(t)
	b := a.beside(t)
	var requests crowd
	a.receiver.respond(func(int, delivery, http.ResponseWriter, *http.Request) {
		requests.in()
		defer requests.out()
		<-time.After(5 * time.Millisecond)
	})
	s := newShared(t, dispatcher.SharedConfig{})
	for name, f := range map[string]*fixture{"a": a, "b": b} {
		f.watch(t, "orders", func(s *trigger.Spec) { s.Concurrency = 3 })
		f.start(t, sharing(s, name))
	}
	a.insert(t, "orders", 100)
	b.insert(t, "orders", 100)
	a.settled(t)
	b.settled(t)
	require.Equal(t, 200, a.receiver.unique("orders"))
	require.Equal(t, int64(3), requests.most.Load())
}

func TestAFloodThatHangsTakesNothingFromADispatcherThatShares(t *testing.T) {
	timed.Alone(t)
	a := newFixture(t)
	b := newFixture(t)
	held := make(chan struct{})
	defer close(held)
	a.receiver.respond(func(_ int, _ delivery, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-held:
		case <-r.Context().Done():
		}
	})
	s := newShared(t, dispatcher.SharedConfig{Concurrency: 20})
	a.watch(t, "orders")
	b.watch(t, "orders")
	hangs := a.start(t, sharing(s, "a"), func(c *dispatcher.Config) { c.GracePeriod = time.Millisecond })
	b.start(t, sharing(s, "b"))
	a.insert(t, "orders", 500)
	require.Eventually(t, func() bool { return hangs.Stats().Triggers[0].InFlight >= 18 }, patience, time.Millisecond)
	for n := 1; n <= 20; n++ {
		began := time.Now()
		b.Exec(t, "insert into orders default values")
		b.receiver.await(t, "orders", n)
		require.Less(t, time.Since(began), 800*time.Millisecond, "those that hang are given up after a second")
	}
}

func TestWhatOneDispatcherFindsOutAboutAHostHoldsForAllThatShare(t *testing.T) {
	t.Parallel()
	a := newFixture(t)
	b := a.beside(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	s := newShared(t, dispatcher.SharedConfig{})
	away := func(s *trigger.Spec) {
		quickRetry(s)
		s.Webhook.URL = "http://" + address + "/" + s.Name
	}
	a.watch(t, "orders", away)
	b.watch(t, "orders", away)
	first, second := a.start(t, sharing(s, "a")), b.start(t, sharing(s, "b"))
	// Neither of them sees enough by itself.
	a.insert(t, "orders", 6)
	b.insert(t, "orders", 6)
	fails := func(d *running) bool { return d.Stats().Triggers[0].Failing }
	require.Eventually(t, func() bool { return fails(first) && fails(second) }, patience, 5*time.Millisecond)
	eventually(t, a.Conn(t), 1, failingRows)
	eventually(t, b.Conn(t), 1, failingRows)

	back := &http.Server{Handler: a.receiver, ReadHeaderTimeout: time.Minute}
	listener, err = net.Listen("tcp", address)
	require.NoError(t, err)
	go func() { _ = back.Serve(listener) }()
	t.Cleanup(func() { _ = back.Close() })
	a.settled(t)
	b.settled(t)
	require.Equal(t, 12, a.receiver.unique("orders"))
	eventually(t, a.Conn(t), 0, healthRows)
	eventually(t, b.Conn(t), 0, healthRows)
	require.Equal(t, 1, strings.Count(second.log.String(), "an endpoint fails"))
}
