package jetstream_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	library "github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/jetstream"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// fixture is a database, a server of NATS, and a client that sees what it has.
type fixture struct {
	*dispatchtest.Site
	server *natsServer
	nc     *nats.Conn
	js     library.JetStream
}

func newFixture(t *testing.T, change ...func(*server.Options)) *fixture {
	t.Helper()
	f := &fixture{Site: &dispatchtest.Site{DB: pgtest.New(t)}, server: newServer(t, change...)}
	f.nc, f.js = client(t, f.server.url())
	return f
}

// spec is a trigger for every change of the table public.NAME, which publishes under NAME and the id.
func (f *fixture) spec(name string, change ...func(*trigger.Spec)) trigger.Spec {
	s := dispatchtest.Spec(name, "http://127.0.0.1", func(s *trigger.Spec) {
		s.Webhook = trigger.Webhook{}
		s.NATS = trigger.NATS{URL: f.server.url(), Subject: name + ".${new.id ?? 'none'}", Timeout: trigger.Duration(patience)}
		s.Retry.Interval, s.Retry.Backoff, s.Retry.Limit = trigger.Duration(100*time.Millisecond), trigger.BackoffFixed, 1000
	})
	for _, c := range change {
		c(&s)
	}
	return s
}

// run starts a dispatcher that publishes.
func (f *fixture) run(t *testing.T, change ...func(*dispatcher.Config)) *dispatchtest.Running {
	t.Helper()
	return f.Site.Run(t, append([]func(*dispatcher.Config){func(c *dispatcher.Config) { c.NATS = new(jetstream.Connections).Destination }}, change...)...)
}

// settled waits until nothing is owed.
func (f *fixture) settled(t *testing.T) {
	t.Helper()
	f.eventually(t, 0, "select count(*)::integer from rowhook.event_log")
}

func (f *fixture) eventually(t *testing.T, want int, sql string, args ...any) {
	t.Helper()
	conn := f.Conn(t)
	last := -1
	require.Eventually(t, func() bool {
		require.NoError(t, conn.QueryRow(t.Context(), sql, args...).Scan(&last))
		return last == want
	}, patience, 10*time.Millisecond, "%s: want %d, has %d", sql, want, last)
}

func (f *fixture) text(t *testing.T, sql string, args ...any) (v string) {
	t.Helper()
	require.NoError(t, f.Conn(t).QueryRow(t.Context(), sql, args...).Scan(&v))
	return v
}

func TestAnEventIsPublishedWithItsIDAndHeaders(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stream(t, f.js, "ORDERS")
	f.Table(t, "orders")
	f.Apply(t, f.spec("orders", func(s *trigger.Spec) {
		s.NATS.Stream, s.NATS.Secret = "ORDERS", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
		s.NATS.Headers = map[string]string{"x-Team": "shop", "X-Row": "$new.v"}
		s.Order = trigger.Order{By: []string{trigger.OrderByRow}}
	}))
	f.run(t)
	f.Exec(t, "insert into orders (v) values ('a')")
	f.settled(t)
	all := messages(t, f.js, "ORDERS")
	require.Len(t, all, 1)
	m := all[0]
	require.Equal(t, "orders.1", m.Subject)
	var body struct {
		ID    string
		Event struct {
			Op   string
			Data struct{ New struct{ V string } }
		}
	}
	require.NoError(t, json.Unmarshal(m.Data, &body))
	require.Equal(t, "INSERT", body.Event.Op)
	require.Equal(t, "a", body.Event.Data.New.V)
	for name, want := range map[string]string{
		"Nats-Msg-Id": body.ID, "Nats-Expected-Stream": "ORDERS", "webhook-id": body.ID, "Content-Type": "application/json", "x-Team": "shop", "X-Row": "a", "Rowhook-Attempt": "1",
	} {
		require.Equal(t, []string{want}, m.Header[name], name)
	}
	require.NotEmpty(t, m.Header["webhook-signature"])
	require.NotEmpty(t, m.Header["webhook-timestamp"])
	sequence, err := strconv.Atoi(m.Header.Get("Rowhook-Sequence"))
	require.NoError(t, err)
	require.Positive(t, sequence)
	require.NotContains(t, m.Header, "User-Agent")
	require.Equal(t, `200 {"stream":"ORDERS","seq":1}`, f.text(t, "select status || ' ' || response_body from rowhook.invocation_log"))
}

func TestTheStreamDropsWhatItHasAlready(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stream(t, f.js, "ORDERS")
	ep := open(t, f.spec("orders"))
	for i := range 3 {
		r := ep.Send(t.Context(), dispatchtest.Event(1))
		require.True(t, r.Delivered(), "%+v", r)
		require.Equal(t, i > 0, string(r.Body) == `{"stream":"ORDERS","seq":1,"duplicate":true}`, "%s", r.Body)
	}
	require.Len(t, messages(t, f.js, "ORDERS"), 1)
}

// open makes the endpoint of a trigger.
func open(t *testing.T, spec trigger.Spec, variables ...string) dispatcher.Endpoint {
	t.Helper()
	d := new(jetstream.Connections).Destination(dispatcher.DestinationConfig{})
	t.Cleanup(d.Close)
	given := map[string]string{}
	for i := 0; i < len(variables); i += 2 {
		given[variables[i]] = variables[i+1]
	}
	ep, err := d.Endpoint(&spec, trigger.Variables(func(name string) (string, bool) { value, ok := given[name]; return value, ok }))
	require.NoError(t, err)
	require.NoError(t, ep.Prepare())
	return ep
}

func TestAMissingStreamIsSaidAndUsedOnceItIsThere(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Table(t, "orders")
	f.Apply(t, f.spec("orders"))
	f.run(t)
	f.Exec(t, "insert into orders (v) values ('a')")
	f.eventually(t, 1, "select count(*)::integer from rowhook.event_log where tries > 1 or due_at > now()")
	f.eventually(t, 1, "select least(count(*), 1)::integer from rowhook.invocation_log where status = 503 and error like 'no stream takes the subject orders.1: create one%'")
	stream(t, f.js, "ORDERS")
	f.settled(t)
	require.Len(t, messages(t, f.js, "ORDERS"), 1)
}

func TestAFullStreamHoldsEventsUntilItHasRoom(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := stream(t, f.js, "ORDERS", func(c *library.StreamConfig) { c.MaxMsgs, c.Discard = 1, library.DiscardNew })
	f.Table(t, "orders")
	f.Apply(t, f.spec("orders"))
	f.run(t)
	f.Exec(t, "insert into orders (v) values ('a'), ('b')")
	f.eventually(t, 1, "select least(count(*), 1)::integer from rowhook.invocation_log where status = 503 and error like '%the stream is full%'")
	require.NoError(t, s.Purge(t.Context()))
	f.settled(t)
	f.eventually(t, 0, "select count(*)::integer from rowhook.dead_letter")
}

func TestAMessageThatIsTooLargeIsADeadLetterAlone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *server.Options) { o.MaxPayload = 8 << 10 })
	stream(t, f.js, "ORDERS", func(c *library.StreamConfig) { c.MaxMsgSize = 4 << 10 })
	f.Table(t, "orders")
	f.Apply(t, f.spec("orders"))
	f.run(t)
	f.Exec(t, "insert into orders (v) select repeat('x', n) from unnest(array[1, 5000, 20000, 2]) n")
	f.eventually(t, 2, "select count(*)::integer from rowhook.dead_letter")
	f.settled(t)
	require.Len(t, messages(t, f.js, "ORDERS"), 2)
	f.eventually(t, 1, "select count(*)::integer from rowhook.dead_letter where reason like '%max_msg_size%'")
	f.eventually(t, 1, "select count(*)::integer from rowhook.dead_letter where reason like '%max_payload%'")
}

func TestAServerThatIsAwayHoldsEventsUntilItIsBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stream(t, f.js, "ORDERS")
	f.Table(t, "orders")
	f.Apply(t, f.spec("orders"))
	f.run(t)
	f.Exec(t, "insert into orders (v) values ('a')")
	f.settled(t)
	f.server.stop()
	f.Exec(t, "insert into orders (v) select 'b' from generate_series(1, 50)")
	f.eventually(t, 1, "select least(count(*), 1)::integer from rowhook.invocation_log where error_kind = 'refused' and error like 'connection refused by 127.0.0.1:%'")
	f.server.start(t)
	f.settled(t)
	require.Eventually(t, f.nc.IsConnected, patience, 10*time.Millisecond)
	require.Len(t, messages(t, f.js, "ORDERS"), 51)
}

func TestOrderOfAKeyIsKeptWhileAnotherFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stream(t, f.js, "ORDERS", func(c *library.StreamConfig) { c.Subjects = []string{"orders.a"} })
	f.Table(t, "orders")
	f.Apply(t, f.spec("orders", func(s *trigger.Spec) {
		s.NATS.Subject, s.Order, s.Breaker = "orders.$new.v", trigger.Order{By: []string{"v"}}, trigger.BreakerOff
	}))
	f.run(t)
	f.Exec(t, "insert into orders (v, n) select case when n % 2 = 0 then 'a' else 'b' end, n from generate_series(1, 40) n")
	f.eventually(t, 20, "select count(*)::integer from rowhook.event_log")
	require.Len(t, messages(t, f.js, "ORDERS"), 20)
	stream(t, f.js, "ORDERS")
	f.settled(t)
	inOrder(t, messages(t, f.js, "ORDERS"), 40)
}

// inOrder requires n messages without a duplicate, in order within each subject.
func inOrder(t *testing.T, all []*library.RawStreamMsg, n int) {
	t.Helper()
	once(t, all, n)
	last := map[string]int{}
	for _, m := range all {
		at, err := strconv.Atoi(m.Header.Get("Rowhook-Sequence"))
		require.NoError(t, err)
		require.Greater(t, at, last[m.Subject], m.Subject)
		last[m.Subject] = at
	}
}

// once holds that n events are there, and none twice.
func once(t *testing.T, all []*library.RawStreamMsg, n int) {
	t.Helper()
	ids := map[string]bool{}
	for _, m := range all {
		id := m.Header.Get("Nats-Msg-Id")
		require.False(t, ids[id], "%s came twice", id)
		ids[id] = true
	}
	require.Len(t, ids, n)
}

func TestNoDataAddsATokenAWildcardOrABlank(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stream(t, f.js, "ORDERS")
	f.Table(t, "orders")
	f.Apply(t, f.spec("orders", func(s *trigger.Spec) { s.NATS.Subject = "orders.$new.v" }))
	f.run(t)
	values := []string{"", "a.b", "*", ">", "a b", "a\tb", "a\r\nPUB x 1", "%", "%2E", ".", "..", "日本", "ä", "_INBOX", "$SYS", "-", "A_b-9", "~", "a/b", "\\", "'", "\"", "\u007f"}
	for _, v := range values {
		f.Exec(t, "insert into orders (v) values ($1)", v)
	}
	f.settled(t)
	all := messages(t, f.js, "ORDERS")
	require.Len(t, all, len(values))
	seen := map[string]bool{}
	for _, m := range all {
		require.Regexp(t, `^orders\.(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+$|^orders\.%$`, m.Subject)
		require.False(t, seen[m.Subject], m.Subject)
		seen[m.Subject] = true
	}
	require.True(t, seen["orders.A_b-9"])
	require.True(t, seen["orders.a%2Eb"])
}

func TestALoginThatIsNotAcceptedIsSaid(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "all", Password: "right-password"},
			{Username: "some", Password: "right-password", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{"orders.>"}}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
			}},
			{Username: "deaf", Password: "right-password", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}}}},
		}
	})
	_, js := client(t, s.url(), nats.UserInfo("all", "right-password"))
	stream(t, js, "ORDERS")
	f := &fixture{server: s}
	of := func(user, password string) dispatcher.Endpoint {
		return open(t, f.spec("orders", func(s *trigger.Spec) {
			s.NATS.User, s.NATS.Password, s.NATS.Timeout = user, "${PASSWORD}", trigger.Duration(10*time.Minute)
		}), "PASSWORD", password)
	}
	for _, c := range []struct{ user, password, says string }{
		{"all", "wrong-password", "does not accept the login"}, {"some", "right-password", "may not publish under orders.1"}, {"deaf", "right-password", "_INBOX"},
	} {
		ep := of(c.user, c.password)
		began := time.Now()
		r := ep.Send(t.Context(), dispatchtest.Event(1))
		require.Equal(t, "unauthorized", string(r.Kind), "%+v", r)
		require.Contains(t, r.Err, c.says)
		require.NotContains(t, r.Err, c.password)
		require.Less(t, time.Since(began), patience, "it does not wait for the time-out")
	}
	r := of("all", "right-password").Send(t.Context(), dispatchtest.Event(1))
	require.True(t, r.Delivered(), "%+v", r)
}

func TestWhatTheLoginMayNotPublishHoldsForItsSubjectAlone(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "all", Password: "right-password"},
			{Username: "some", Password: "right-password", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"orders.>"}}}},
		}
	})
	nc, _ := client(t, s.url(), nats.UserInfo("all", "right-password"))
	held, err := nc.SubscribeSync("slow.>")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	f := &fixture{server: s}
	var all jetstream.Connections
	d := all.Destination(dispatcher.DestinationConfig{})
	t.Cleanup(d.Close)
	endpoint := func(name string) dispatcher.Endpoint {
		spec := f.spec(name, func(s *trigger.Spec) {
			s.NATS.User, s.NATS.Password, s.NATS.Timeout = "some", "right-password", trigger.Duration(patience)
		})
		ep, err := d.Endpoint(&spec, trigger.Variables(func(string) (string, bool) { return "", false }))
		require.NoError(t, err)
		return ep
	}
	slow, refused := endpoint("slow"), endpoint("orders")
	done := make(chan dispatcher.Result, 1)
	go func() { done <- slow.Send(t.Context(), dispatchtest.Event(1)) }()
	m, err := held.NextMsg(patience)
	require.NoError(t, err)
	r := refused.Send(t.Context(), dispatchtest.Event(2))
	require.Equal(t, webhook.KindUnauthorized, r.Kind, "%+v", r)
	require.NoError(t, m.Respond([]byte(`{"stream":"SLOW", "seq":1}`)))
	r = <-done
	require.True(t, r.Delivered(), "%+v", r)
}

func TestAnAnswerThatComesTooLateIsTakenForNoOther(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	nc, _ := client(t, s.url())
	var late *nats.Msg
	answer := func(m *nats.Msg, stream string) {
		if err := m.Respond([]byte(`{"stream":"` + stream + `", "seq":7}`)); err != nil {
			t.Error(err)
		}
	}
	_, err := nc.Subscribe("orders.>", func(m *nats.Msg) { // one goroutine calls it
		if late == nil {
			late = m
			return
		}
		answer(late, "LATE")
		answer(m, "ORDERS")
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	f := &fixture{server: s}
	d := new(jetstream.Connections).Destination(dispatcher.DestinationConfig{})
	t.Cleanup(d.Close)
	send := func(n byte, timeout time.Duration) dispatcher.Result {
		spec := f.spec("orders", func(s *trigger.Spec) { s.NATS.Timeout = trigger.Duration(timeout) })
		ep, err := d.Endpoint(&spec, trigger.Variables(func(string) (string, bool) { return "", false }))
		require.NoError(t, err)
		return ep.Send(t.Context(), dispatchtest.Event(n))
	}
	r := send(1, 200*time.Millisecond)
	require.Equal(t, webhook.KindTimeout, r.Kind, "%+v", r)
	for n := range byte(20) {
		r := send(2+n, patience)
		require.Equal(t, `{"stream":"ORDERS","seq":7}`, string(r.Body), "%+v", r)
	}
}

func TestAProgramWithoutNATSLeavesTheEventsToOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stream(t, f.js, "ORDERS")
	f.Table(t, "orders")
	f.Apply(t, f.spec("orders"))
	without := f.run(t, func(c *dispatcher.Config) { c.NATS = nil })
	f.Exec(t, "insert into orders (v) values ('a')")
	require.Eventually(t, func() bool {
		stats := without.Stats().Triggers
		return len(stats) == 1 && stats[0].Unable == dispatcher.ErrNoNATS.Error()
	}, patience, 10*time.Millisecond)
	f.eventually(t, 1, "select count(*)::integer from rowhook.event_log where tries = 0")
	f.run(t)
	f.settled(t)
	require.Len(t, messages(t, f.js, "ORDERS"), 1)
}

func TestATriggerMovesFromAWebhookToNATSAndBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stream(t, f.js, "ORDERS")
	f.Table(t, "orders")
	f.run(t)
	for i := range 4 {
		f.Apply(t, f.spec("orders", func(s *trigger.Spec) {
			if i%2 == 0 {
				s.NATS, s.Webhook = trigger.NATS{}, trigger.Webhook{URL: "http://127.0.0.1:1/nobody", Timeout: trigger.DefaultTimeout}
			}
		}))
		f.Exec(t, fmt.Sprintf("insert into orders (v) values ('%d')", i))
		if i%2 == 1 {
			f.settled(t)
			require.Len(t, messages(t, f.js, "ORDERS"), i+1)
		}
	}
}
