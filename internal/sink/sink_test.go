package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// sender sends events to a sink like Rowhook.
type sender struct {
	*testing.T
	server  *httptest.Server
	client  *webhook.Client
	timeout time.Duration
	secret  string
}

func start(t *testing.T, s *Sink) *sender {
	server := httptest.NewServer(s)
	client := webhook.NewClient(webhook.ClientConfig{})
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return &sender{T: t, server: server, client: client, timeout: 10 * time.Second}
}

func event(n byte) *webhook.Event {
	return &webhook.Event{ID: [16]byte{15: n}, CreatedAt: time.Now().Add(-5 * time.Millisecond), Schema: "public", Table: "orders", Trigger: "order_placed",
		Op: 'I', New: []byte(`{"id":1, "amount":1.10}`), MaxRetries: 5}
}

func (s *sender) send(path string, e *webhook.Event) webhook.Result {
	return s.sendBody(path, e, nil)
}

func (s *sender) sendBody(path string, e *webhook.Event, body []byte) webhook.Result {
	return s.sendWithin(context.Background(), path, e, body)
}

func (s *sender) sendWithin(ctx context.Context, path string, e *webhook.Event, body []byte) webhook.Result {
	ep, err := webhook.NewEndpoint(trigger.Webhook{URL: s.server.URL + path, Timeout: trigger.Duration(s.timeout), Secret: s.secret},
		func(string) (string, bool) { return "", false })
	require.NoError(s, err)
	return s.client.Send(ctx, ep, e, body)
}

func (s *sender) call(method, path string) (int, string) {
	req, err := http.NewRequestWithContext(context.Background(), method, s.server.URL+path, nil)
	require.NoError(s, err)
	resp, err := s.server.Client().Do(req)
	require.NoError(s, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(s, err)
	return resp.StatusCode, string(body)
}

func TestSinkAcceptsRemembersAndCounts(t *testing.T) {
	t.Parallel()
	var hooked []Delivery
	s := &Sink{OnDelivery: func(d Delivery) { hooked = append(hooked, d) }}
	to := start(t, s)
	first, second := event(1), event(2)
	first.CurrentRetry = 2
	for _, e := range []*webhook.Event{first, second, first} {
		r := to.send("/hooks/orders", e)
		require.True(t, r.Delivered(), r.Err)
		require.Equal(t, "ok\n", string(r.Body))
	}
	require.Equal(t, Counts{Requests: 3, Accepted: 3, Events: 2, Duplicates: 1}, s.Counts())
	all := s.Deliveries()
	require.Len(t, all, 3)
	require.Equal(t, all, hooked)
	d := all[0]
	require.Equal(t, "00000000-0000-0000-0000-000000000001", d.ID)
	require.Equal(t, []any{"/hooks/orders", "INSERT", "public", "orders", "order_placed", 1, 2, 5, 200}, []any{d.Path, d.Op, d.Schema, d.Table, d.Trigger, d.Attempt, d.CurrentRetry, d.MaxRetries, d.Status})
	require.Equal(t, string(webhook.AppendBody(nil, first)), string(d.Body))
	require.Equal(t, `{"id":1, "amount":1.10}`, string(d.New()))
	require.Nil(t, d.Old())
	require.GreaterOrEqual(t, d.Latency(), 5*time.Millisecond)
	require.True(t, all[2].Duplicate)
	require.Equal(t, 2, all[2].Attempt)
}

func TestDeliveriesAreListedAndCleared(t *testing.T) {
	t.Parallel()
	s := &Sink{Keep: 3}
	to := start(t, s)
	for n := range byte(5) {
		e := event(n)
		e.New = []byte(`{"a":"<&>","big":50755254975729665123}`)
		require.True(t, new(to.send("/", e)).Delivered())
	}
	type listing struct {
		Counts
		Deliveries []struct {
			ID        string
			Attempt   int
			LatencyMS float64 `json:"latency_ms"`
			Headers   http.Header
			Body      json.RawMessage
		}
	}
	var got listing
	status, body := to.call("GET", "/deliveries")
	require.Equal(t, 200, status)
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Equal(t, 5, got.Accepted)
	require.Len(t, got.Deliveries, 3)
	require.Equal(t, "00000000-0000-0000-0000-000000000002", got.Deliveries[0].ID)
	require.Equal(t, "application/json", got.Deliveries[0].Headers.Get("Content-Type"))
	require.Positive(t, got.Deliveries[0].LatencyMS)
	require.Contains(t, body, `"a": "<&>"`)
	require.Contains(t, body, `50755254975729665123`)

	_, body = to.call("GET", "/deliveries?last=1")
	got = listing{}
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Len(t, got.Deliveries, 1)
	require.Equal(t, "00000000-0000-0000-0000-000000000004", got.Deliveries[0].ID)
	status, body = to.call("GET", "/deliveries?last=x")
	require.Equal(t, 400, status)
	require.Contains(t, body, "write last=10")

	status, body = to.call("DELETE", "/deliveries")
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"dropped": 3}`, body)
	_, body = to.call("GET", "/deliveries")
	require.JSONEq(t, `{"requests":0,"rejected":0,"accepted":0,"failed":0,"events":0,"duplicates":0,"matching":0,"cursor":5,"dropped":0,"deliveries":[]}`, body)
}

func TestSinkAnswersProbesAndRefusesOtherMethods(t *testing.T) {
	t.Parallel()
	to := start(t, &Sink{})
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/", 200, "ok\n"}, {"GET", "/healthz", 200, `{"status":"ok"}`}, {"HEAD", "/healthz", 200, ""},
		{"GET", "/other", 404, "POST events to any path"}, {"PUT", "/", 405, "send events with POST"},
	} {
		status, body := to.call(c.method, c.path)
		require.Equal(t, c.status, status)
		require.Contains(t, body, c.body)
	}
}

func TestSinkFailsAsToldThenWorks(t *testing.T) {
	t.Parallel()
	s := &Sink{
		Behaviour: Behaviour{Fail: 2, FailStatus: 503, RetryAfter: 1500 * time.Millisecond},
		Paths: map[string]Behaviour{
			"/date":     {Fail: -1, RetryAfter: 10 * time.Second, RetryAfterAsDate: true},
			"/redirect": {Redirect: "/elsewhere"},
			"/moved":    {Redirect: "/elsewhere", FailStatus: 308},
			"/close":    {CloseConnection: true},
			"/big":      {Status: 202, BodySize: 10_000, Delay: 20 * time.Millisecond},
			"/none":     {Status: 204},
		},
	}
	to := start(t, s)
	for range 2 { // two attempts per event
		for n := range byte(2) {
			r := to.send("/any", event(n))
			require.Equal(t, 503, r.Status)
			require.Equal(t, 2*time.Second, r.RetryAfter)
			require.Equal(t, "failing on purpose\n", string(r.Body))
		}
	}
	require.True(t, new(to.send("/any", event(0))).Delivered())
	require.Equal(t, Counts{Requests: 5, Accepted: 1, Failed: 4, Events: 2}, s.Counts())

	r := to.send("/date", event(0))
	require.Equal(t, 500, r.Status)
	require.True(t, r.HasRetryAfter)
	require.InDelta(t, 10, r.RetryAfter.Seconds(), 2)
	r = to.send("/redirect", event(0))
	require.Equal(t, 302, r.Status)
	require.Contains(t, string(r.Header), `"Location":"/elsewhere"`)
	require.Equal(t, 308, to.send("/moved", event(0)).Status)
	require.Equal(t, webhook.KindReset, to.send("/close", event(0)).Kind)
	r = to.send("/big", event(0))
	require.Equal(t, 202, r.Status)
	require.Equal(t, strings.Repeat("x", 10_000), string(r.Body))
	require.GreaterOrEqual(t, r.Duration, 20*time.Millisecond)
	require.Equal(t, 204, to.send("/none", event(0)).Status)
}

func TestSinkHangsUntilTheSenderGivesUp(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1)
	to := start(t, &Sink{
		Behaviour:  Behaviour{Hang: true},
		Paths:      map[string]Behaviour{"/once": {Hang: true, Fail: 1}, "/slow": {Delay: time.Hour}},
		OnDelivery: func(Delivery) { arrived <- struct{}{} },
	})
	for _, path := range []string{"/", "/slow", "/once"} {
		ctx, giveUp := context.WithCancel(context.Background())
		result := make(chan webhook.Result, 1)
		go func() { result <- to.sendWithin(ctx, path, event(0), nil) }()
		<-arrived
		require.Empty(t, result)
		giveUp()
		require.Equal(t, webhook.KindCanceled, (<-result).Kind)
	}
	require.True(t, new(to.send("/once", event(0))).Delivered())
}

func TestFailRateIsTheSameForTheSameSeed(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) string {
		var d dice
		out := ""
		for range 200 {
			out += fmt.Sprint(Behaviour{FailRate: 0.25, Seed: seed}.decide(1, &d).status, " ")
		}
		return out
	}
	require.Equal(t, run(1), run(1))
	require.NotEqual(t, run(1), run(2))
	require.InDelta(t, 50, strings.Count(run(1), "500"), 25)
}

func TestSinkChecksSignatures(t *testing.T) {
	t.Parallel()
	s := &Sink{Secret: secret}
	to := start(t, s)
	r := to.send("/", event(1))
	require.Equal(t, 401, r.Status)
	require.Contains(t, string(r.Body), "webhook-signature is missing")
	to.secret = secret
	require.True(t, new(to.send("/", event(1))).Delivered())
	to.secret = "another"
	require.Equal(t, 401, to.send("/", event(1)).Status)
	require.Equal(t, Counts{Requests: 3, Rejected: 2, Accepted: 1, Events: 1}, s.Counts())
}

func TestWhatIsNoEventIsRefusedAndShown(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &Sink{Out: &out}
	to := start(t, s)
	for body, want := range map[string]string{
		"{\"id\":\x1b[31mred": "body is not JSON from byte 7 on",
		`[1]`:                 "body is JSON, but not an event",
		`{"id":"x"}`:          "id is not a UUID",
		`{"id":"0199ABCD-ef01-7abc-8def-0123456789ab"}`:                                                  "id is not a UUID",
		`{"id":"0199abcd-ef01-7abc-8def-0123456789ab"}`:                                                  "event.op is missing",
		`{"id":"0199abcd-ef01-7abc-8def-0123456789ab","event":{"op":"INSERT"}}`:                          "created_at is missing",
		`{"id":"0199abcd-ef01-7abc-8def-0123456789ab","event":{"op":"INSERT"},"created_at":"yesterday"}`: "body is JSON, but not an event",
	} {
		out.Reset()
		r := to.sendBody("/", event(1), []byte(body))
		require.Equal(t, 400, r.Status, body)
		require.Contains(t, string(r.Body), want)
		require.Contains(t, out.String(), "rejected with 400: ")
		require.Contains(t, out.String(), want)
		require.NotContains(t, out.String(), "\x1b")
	}
	require.Equal(t, 7, s.Counts().Rejected)
	status, list := to.call("GET", "/deliveries")
	require.Equal(t, 200, status)
	require.True(t, json.Valid([]byte(list)))
	r := to.sendBody("/", event(1), make([]byte, MaxBody+1))
	require.True(t, r.Status == 413 || r.Kind == webhook.KindReset, r.Err)
}

func delivery(op, old, new string) *Delivery {
	at := time.Date(2026, 11, 23, 9, 41, 0, 0, time.UTC)
	return &Delivery{ReceivedAt: at.Add(2340 * time.Microsecond), CreatedAt: at, ID: "0199abcd-ef01-7abc-8def-0123456789ab", Op: op,
		Schema: "public", Table: "orders", Trigger: "order_placed", Status: 200, Attempt: 1,
		Body: json.RawMessage(`{"event": {"data": {"old": ` + old + `, "new": ` + new + `}}}`)}
}

func TestALineSaysWhatArrivedAndWhatChanged(t *testing.T) {
	t.Parallel()
	const head = "09:41:00.002  %-6s  public.orders  order_placed  0123456789ab  attempt %d  2.34 ms"
	retried := delivery("DELETE", `{"id": 1}`, "null")
	retried.CurrentRetry, retried.Status = 2, 503
	again := delivery("INSERT", "null", `{"id":1}`)
	again.Duplicate = true
	hung := delivery("MANUAL", "null", `{"id":1}`)
	hung.Status = 0
	for _, c := range []struct {
		delivery *Delivery
		want     string
	}{
		{delivery("INSERT", "null", `{"id": 1, "amount": 1.10}`), fmt.Sprintf(head, "INSERT", 1) + `  {"id":1,"amount":1.10}`},
		{delivery("UPDATE", `{"z":1,"status":"a","gone":1}`, `{"z":1,"status":"b","n":{"x": 2}}`), fmt.Sprintf(head, "UPDATE", 1) + `  status: "a" -> "b", n: {"x":2}`},
		{delivery("UPDATE", `{"z":1}`, `{"z":1}`), fmt.Sprintf(head, "UPDATE", 1) + `  no column differs: {"z":1}`},
		{retried, fmt.Sprintf(head, "DELETE", 3) + `  -> 503  {"id":1}`},
		{again, fmt.Sprintf(head, "INSERT", 1) + `  again  {"id":1}`},
		{hung, fmt.Sprintf(head, "MANUAL", 1) + `  -> no response  {"id":1}`},
		{delivery("INSERT", "null", `"`+strings.Repeat("ü", 200)+`"`), fmt.Sprintf(head, "INSERT", 1) + `  "` + strings.Repeat("ü", 119) + "… (163 bytes more)"},
	} {
		require.Equal(t, c.want+"\n", string(FormatLine.text(c.delivery)))
	}
}

func TestRowsCantTalkToTheTerminal(t *testing.T) {
	t.Parallel()
	nasty := delivery("INSERT", "null", `{"a":"`+"\u009b31m\u202e\U000e0001\xff"+`"}`)
	nasty.Table = "or\x1b[2Jders\n"
	for _, f := range []Format{FormatLine, FormatFull, FormatJSON} {
		text := string(f.text(nasty))
		for _, bad := range []string{"\x1b", "\u009b", "\u202e", "\U000e0001", "\xff"} {
			require.NotContains(t, text, bad)
		}
		require.Contains(t, text, `\u001b[2J`)
		require.Contains(t, text, `\u009b31m\u202e\udb40\udc01`)
	}
}

func TestFullFormatIndentsTheBody(t *testing.T) {
	t.Parallel()
	text := string(FormatFull.text(delivery("INSERT", "null", `1.10`)))
	require.True(t, strings.HasSuffix(text, "2.34 ms\n  {\n    \"event\": {\n      \"data\": {\n        \"old\": null,\n        \"new\": 1.10\n      }\n    }\n  }\n"), text)
}

func TestJSONFormatIsOneObjectALine(t *testing.T) {
	t.Parallel()
	text := FormatJSON.text(delivery("INSERT", "null", `{"a": "<\n\u001b>"}`))
	require.Equal(t, 1, bytes.Count(text, []byte("\n")))
	var got struct {
		Op      string
		Latency float64 `json:"latency_ms"`
		Body    struct {
			Event struct {
				Data struct{ New map[string]string }
			}
		}
	}
	require.NoError(t, json.Unmarshal(text, &got))
	require.Equal(t, "INSERT", got.Op)
	require.InDelta(t, 2.34, got.Latency, 1e-9)
	require.Equal(t, "<\n\x1b>", got.Body.Event.Data.New["a"])
}

func TestWaitReturnsOnceEnoughArrived(t *testing.T) {
	t.Parallel()
	s := &Sink{}
	to := start(t, s)
	waited := make(chan error, 1)
	go func() {
		waited <- s.Wait(context.Background(), func(c Counts) bool { return c.Accepted >= 3 })
	}()
	for n := range byte(3) {
		require.Empty(t, waited)
		require.True(t, new(to.send("/", event(n))).Delivered())
	}
	require.NoError(t, <-waited)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorContains(t, s.Wait(ended, func(Counts) bool { return false }), "so far {Requests:3")
}

// Who has waited for so many looks at the deliveries next.
func TestWhatIsCountedIsListed(t *testing.T) {
	t.Parallel()
	s := &Sink{Behaviour: Behaviour{FailRate: 0.3}}
	sender := start(t, s)
	const senders, each = 8, 25
	var all sync.WaitGroup
	for n := range byte(senders) {
		all.Go(func() {
			for range each {
				_ = sender.send("/", event(n))
			}
		})
	}
	for counted := 0; counted < senders*each; {
		v := s.journal.all()
		counted = v.counts.Accepted + v.counts.Failed
		require.Len(t, v.deliveries, counted)
	}
	all.Wait()
}

func TestServeEndsWithItsContextAndCutsWhatHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	arrived := make(chan struct{})
	s := &Sink{Behaviour: Behaviour{Hang: true}, OnDelivery: func(Delivery) { close(arrived) }}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	result := make(chan webhook.Result, 1)
	to := &sender{T: t, server: &httptest.Server{URL: "http://" + l.Addr().String()}, client: webhook.NewClient(webhook.ClientConfig{}), timeout: time.Minute}
	t.Cleanup(to.client.Close)
	go func() { result <- to.send("/", event(1)) }()
	<-arrived
	cancel()
	require.NoError(t, <-served)
	require.Equal(t, webhook.KindReset, (<-result).Kind)
}

func TestRunNamesTheAddressItCantListenOn(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	require.ErrorContains(t, new(Sink).Run(context.Background(), l.Addr().String()), "listen on "+l.Addr().String())
}

func TestAttemptsOfRecentEventsSurviveAChangeOfGeneration(t *testing.T) {
	t.Parallel()
	a := attempts{generation: 2}
	arrive := func(id byte) count {
		key, c := a.load("/", [16]byte{id})
		c.tries++
		a.store(key, c)
		return c
	}
	arrive(1)
	for n := range byte(2) {
		arrive(2 + n)
	}
	require.EqualValues(t, 2, arrive(1).tries, "it is of the older generation")
	for n := range byte(4) {
		arrive(4 + n)
	}
	require.EqualValues(t, 1, arrive(1).tries)
	require.LessOrEqual(t, len(a.young)+len(a.old), 4)
}
