package dispatcher_test

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// ailing is an answer that can be turned between 503 and 200.
type ailing struct {
	well     atomic.Bool
	requests atomic.Int64
	header   http.Header // of the 503
}

func (a *ailing) answer(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) {
	a.requests.Add(1)
	if !a.well.Load() {
		for name, values := range a.header {
			w.Header()[name] = values
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// quickRetry has failed events retried soon, so that a test need not wait for them.
func quickRetry(s *trigger.Spec) {
	s.Retry = trigger.Retry{Limit: 100, Interval: trigger.Duration(time.Second), Backoff: trigger.BackoffFixed, MaxInterval: trigger.Duration(time.Hour)}
	s.Concurrency = 4
}

const (
	failingRows = "select count(*)::integer from rowhook.health where state = 'failing'"
	healthRows  = "select count(*)::integer from rowhook.health"
	attemptRows = "select count(*)::integer from rowhook.invocation_log"
	deadRows    = "select count(*)::integer from rowhook.dead_letter"
)

func (b *fixture) insert(t *testing.T, table string, n int) {
	t.Helper()
	b.Exec(t, "insert into "+table+" (n) select generate_series(1, "+strconv.Itoa(n)+")")
}

func TestEventsOfAnEndpointThatFailsWaitWhileOneAtATimeProbesIt(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	a := &ailing{}
	b.receiver.respond(a.answer)
	b.watch(t, "orders", quickRetry)
	d := b.start(t)
	conn := b.Conn(t)
	b.insert(t, "orders", 500)
	eventually(t, conn, 1, failingRows)
	require.Equal(t, "trigger "+strconv.Itoa(one[int](t, conn, "select id from rowhook.trigger")), one[string](t, conn, "select target from rowhook.health"))
	eventually(t, conn, true, "select probes >= 3 from rowhook.health")
	eventually(t, conn, 0, "select count(*)::integer from rowhook.event_log where claimed_by is not null and not exists (select from rowhook.health where prober is not null)")

	requests := int(a.requests.Load()) // before and after the rest is read, as probes go on meanwhile
	attempts := one[int](t, conn, attemptRows)
	require.LessOrEqual(t, attempts, 10+2*4, "ten failures, and what was in flight")
	probes := one[int](t, conn, "select probes from rowhook.health")
	require.LessOrEqual(t, requests, attempts+probes+1)
	require.GreaterOrEqual(t, int(a.requests.Load()), attempts+probes-1)
	require.LessOrEqual(t, one[int](t, conn, "select count(*)::integer from rowhook.event_log where tries > 0"), attempts+1, "a failed probe counts no attempt")
	probed := map[string]bool{}
	for _, r := range b.receiver.on("orders")[attempts:] {
		probed[r.id] = true
	}
	require.Greater(t, len(probed), 1, "each probe takes another event")

	status, err := operate.ReadStatus(t.Context(), conn)
	require.NoError(t, err)
	require.Equal(t, "failing", status.Triggers[0].Health.State)
	require.False(t, status.Triggers[0].Health.Host)
	require.Regexp(t, `^its endpoint has been failing since .* \(answered 503 Service Unavailable\): its events wait, (next probe (now|in .*s)|a probe is running)$`, status.Triggers[0].Health.Explain(status.Now))
	page, err := operate.List(t.Context(), conn, operate.Filter{States: []operate.State{operate.Waiting}}, operate.ListOptions{Limit: 1})
	require.NoError(t, err)
	require.Equal(t, "endpoint", page.Events[0].WaitsFor)
	event, err := operate.Show(t.Context(), conn, page.Events[0].ID)
	require.NoError(t, err)
	require.Contains(t, event.Next, "attempt 1 of 101 when its endpoint answers again")
	require.True(t, d.Stats().Triggers[0].Failing)

	a.well.Store(true)
	b.settled(t)
	require.Equal(t, 500, b.receiver.unique("orders"))
	require.Zero(t, one[int](t, conn, deadRows))
	eventually(t, conn, 0, healthRows)
	d.says(t, "has recovered")
	require.Equal(t, 1, strings.Count(d.log.String(), "an endpoint fails"))
	require.Contains(t, d.log.String(), "answered 503")
	require.Less(t, strings.Count(d.log.String(), "\n"), 20)
}

func TestAHostThatIsDownHoldsAllItsTriggersOnAllInstances(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	there := func(s *trigger.Spec) { s.Webhook.URL = "http://" + address + "/" + s.Name }
	b.watch(t, "orders", quickRetry, there)
	b.watch(t, "items", quickRetry, there)
	b.watch(t, "other", quickRetry)
	b.start(t)
	b.start(t, func(c *dispatcher.Config) { c.NoListen, c.PollInterval = true, 100*time.Millisecond })
	conn := b.Conn(t)
	b.insert(t, "orders", 100)
	eventually(t, conn, "http://"+address, "select coalesce(max(target), '') from rowhook.health where state = 'failing'")
	require.Equal(t, 2, one[int](t, conn, "select cardinality(triggers) from rowhook.health"))
	// By the next watch every instance knows.
	probes := one[int](t, conn, "select probes from rowhook.health")
	eventually(t, conn, true, "select probes >= $1 from rowhook.health", probes+2)
	b.insert(t, "items", 100)
	b.insert(t, "other", 100)
	b.receiver.await(t, "other", 100)
	probes = one[int](t, conn, "select probes from rowhook.health")
	eventually(t, conn, true, "select probes >= $1 from rowhook.health", probes+2)
	require.Zero(t, one[int](t, conn, attemptRows+" i join rowhook.trigger t on t.id = i.trigger_id where t.name = 'items'"), "no attempt but probes")

	listener, err = net.Listen("tcp", address)
	require.NoError(t, err)
	server := &http.Server{Handler: b.receiver, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	b.settled(t)
	require.Equal(t, 100, b.receiver.unique("items"))
	require.Equal(t, 100, b.receiver.unique("orders"))
	require.Zero(t, one[int](t, conn, deadRows))
}

func TestAnEndpointThatFailsHoldsNoOtherOfItsHost(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	a := &ailing{}
	b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, r *http.Request) {
		if d.path == "ill" {
			a.answer(n, d, w, r)
		}
	})
	b.watch(t, "ill", quickRetry)
	b.watch(t, "well", quickRetry)
	b.start(t)
	b.insert(t, "ill", 50)
	eventually(t, b.Conn(t), 1, failingRows)
	b.insert(t, "well", 50)
	b.receiver.await(t, "well", 50)
}

func TestADispatcherThatStartsKnowsWhichEndpointsFail(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	a := &ailing{}
	b.receiver.respond(a.answer)
	b.watch(t, "orders", quickRetry)
	first := b.start(t)
	conn := b.Conn(t)
	b.insert(t, "orders", 100)
	eventually(t, conn, 1, failingRows)
	first.Stop(t)
	attempts := one[int](t, conn, attemptRows)
	probes := one[int](t, conn, "select probes from rowhook.health")
	b.start(t)
	eventually(t, conn, true, "select probes >= $1 from rowhook.health", probes+2)
	require.Equal(t, attempts, one[int](t, conn, attemptRows), "it makes no attempt but probes")
	a.well.Store(true)
	b.settled(t)
	require.Zero(t, one[int](t, conn, deadRows))
}

func TestWithoutABreakerAReceiverThatFailsIsCalledOn(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.receiver.respond((&ailing{}).answer)
	b.watch(t, "orders", quickRetry, func(s *trigger.Spec) { s.Breaker = trigger.BreakerOff })
	b.start(t)
	conn := b.Conn(t)
	b.insert(t, "orders", 100)
	eventually(t, conn, true, "select count(*) >= 100 from rowhook.invocation_log")
	require.Zero(t, one[int](t, conn, healthRows))
}

func TestAnEventNeverDiesFromProbes(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	a := &ailing{}
	b.receiver.respond(a.answer)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Retry.Limit, s.Concurrency = 0, 1 })
	b.start(t)
	conn := b.Conn(t)
	b.insert(t, "orders", 50)
	eventually(t, conn, true, "select coalesce(max(probes), 0) >= 3 from rowhook.health")
	require.Equal(t, 10, one[int](t, conn, deadRows), "the first ten had one attempt, and the others none yet")
	a.well.Store(true)
	b.settled(t)
	require.Equal(t, 10, one[int](t, conn, deadRows))
}

func TestANewURLEndsTheFailureOfTheOldOne(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	a := &ailing{header: http.Header{"Retry-After": {"600"}}}
	b.receiver.respond(func(n int, d delivery, w http.ResponseWriter, r *http.Request) {
		if d.path == "orders" {
			a.answer(n, d, w, r)
		}
	})
	b.watch(t, "orders", quickRetry)
	b.start(t)
	conn := b.Conn(t)
	b.insert(t, "orders", 100)
	eventually(t, conn, 1, failingRows)
	require.True(t, one[bool](t, conn, "select probe_at > now() + interval '9 minutes' from rowhook.health"), "the receiver asked for ten minutes")
	b.apply(t, b.Spec("orders", quickRetry, func(s *trigger.Spec) { s.Webhook.URL = b.receiver.URL + "/elsewhere" }))
	b.receiver.await(t, "elsewhere", 80)
	eventually(t, conn, 0, healthRows)
}

func TestEventsOfAnOrderedTriggerThatFailsWaitAndKeepTheirOrder(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	a := &ailing{}
	b.receiver.respond(a.answer)
	b.watch(t, "orders", quickRetry, byRow)
	b.start(t)
	conn := b.Conn(t)
	b.insert(t, "orders", 100)
	b.Exec(t, "update orders set v = 'new'")
	eventually(t, conn, true, "select coalesce(max(probes), 0) >= 3 from rowhook.health where state = 'failing'")
	attempts := one[int](t, conn, attemptRows)
	require.LessOrEqual(t, attempts, 10+2*4)
	eventually(t, conn, true, "select probes >= 6 from rowhook.health")
	require.Equal(t, attempts, one[int](t, conn, attemptRows), "probes are no attempts")
	require.GreaterOrEqual(t, int(a.requests.Load()), attempts+4, "they are made")
	a.well.Store(true)
	b.settled(t)
	require.Zero(t, one[int](t, conn, deadRows))
	last := map[string]string{}
	for _, d := range b.receiver.on("orders")[attempts+6:] {
		id := string(d.new["id"])
		require.False(t, last[id] == "UPDATE" && d.event[:6] == "INSERT", "the insert of a row comes before its update")
		last[id] = d.event[:6]
	}
	require.Len(t, last, 100)
}

func TestAPausedTriggerIsNotProbed(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	a := &ailing{}
	b.receiver.respond(a.answer)
	b.watch(t, "orders", quickRetry)
	b.start(t)
	conn := b.Conn(t)
	b.insert(t, "orders", 50)
	eventually(t, conn, true, "select coalesce(max(probes), 0) >= 1 from rowhook.health")
	b.Exec(t, "update rowhook.trigger set paused = true where name = 'orders'")
	b.Exec(t, "update rowhook.setting set value = to_jsonb((value #>> '{}')::bigint + 1) where name = 'generation'")
	b.Exec(t, "notify rowhook, 'config'")
	var probes int
	require.Eventually(t, func() bool { // probes come each second
		was := probes
		probes = one[int](t, conn, "select probes from rowhook.health")
		return probes == was
	}, patience, 2500*time.Millisecond)
}
