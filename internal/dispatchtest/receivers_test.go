package dispatchtest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/webhook"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const (
	writersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	writers      = "00-" + writersTrace + "-00f067aa0ba902b7-01"
)

// served is a database with a table of orders, and the receiver of its trigger.
type served struct {
	*pgtest.DB
	dispatcher *dispatchtest.Running
}

// serve runs a dispatcher with a trigger on a table of orders, whose keys are lines of YAML. URL in
// them is that of the receiver.
func serve(t *testing.T, receiver http.Handler, lines ...string) *served {
	t.Helper()
	server := httptest.NewServer(receiver)
	t.Cleanup(server.Close)
	db := pgtest.New(t)
	db.Exec(t, "create table orders (id bigint primary key, customer text, amount numeric)")
	file := "triggers:\n  - name: order_changed\n    table: public.orders\n    on: {insert: true, update: true, delete: true}\n    " + strings.Join(lines, "\n    ") + "\n"
	c, err := config.Parse("rowhook.yaml", []byte(strings.ReplaceAll(file, "URL", server.URL)))
	require.NoError(t, err)
	dispatchtest.Apply(t, db, c.Triggers...)
	return &served{db, dispatchtest.Run(t, dispatcher.Config{DatabaseURL: db.URL()})}
}

// inTrace runs a statement in a transaction with a trace context.
func (s *served) inTrace(t *testing.T, trace, statement string) {
	t.Helper()
	tx, err := s.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select set_config('rowhook.trace_context', $1, true), set_config('rowhook.session', '{\"x-user\": \"ada\"}', true)", trace)
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), statement)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
}

// receive waits for what a receiver got.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(dispatchtest.Patience):
		require.FailNow(t, "nothing arrives")
		panic("unreachable")
	}
}

func TestReceiverOfTheCloudEventsSDKIsServed(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"cloudevents", "cloudevents-binary"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			got := make(chan cloudevents.Event, 9)
			protocol, err := cloudevents.NewHTTP()
			require.NoError(t, err)
			receiver, err := cloudevents.NewHTTPReceiveHandler(t.Context(), protocol, func(_ context.Context, e cloudevents.Event) { got <- e })
			require.NoError(t, err)
			s := serve(t, receiver, "order: row", "webhook: {url: URL, format: "+format+"}")
			began := time.Now()
			s.inTrace(t, `{"traceparent": "`+writers+`", "tracestate": "vendor=a:b c"}`, "insert into orders values (9007199254740993, 'Ada Łovelace', 1.10)")
			e := receive(t, got)
			require.NoError(t, e.Validate())
			require.Equal(t, "1.0", e.SpecVersion())
			require.Equal(t, "/rowhook/order_changed", e.Source())
			require.Equal(t, "rowhook.order_changed.insert", e.Type())
			require.Equal(t, "public.orders", e.Subject())
			require.Equal(t, "application/json", e.DataContentType())
			require.WithinDuration(t, began, e.Time(), dispatchtest.Patience)
			require.Equal(t, writers, e.Extensions()["traceparent"])
			require.Contains(t, e.Extensions(), "tracestate")
			require.Regexp(t, `^\d{19}$`, e.Extensions()["sequence"])
			data := `{"op":"INSERT","table":{"schema":"public","name":"orders"},"old":null,` +
				`"new":{"id":9007199254740993,"customer":"Ada Łovelace","amount":1.10},"session_variables":{"x-user": "ada"},` +
				`"trace_context":{"traceparent": "` + writers + `", "tracestate": "vendor=a:b c"}}`
			require.Equal(t, data, string(e.Data()), "with every digit")

			s.Exec(t, "delete from orders")
			next := receive(t, got)
			require.Equal(t, "rowhook.order_changed.delete", next.Type())
			require.Greater(t, next.Extensions()["sequence"], e.Extensions()["sequence"])
			require.NotContains(t, next.Extensions(), "traceparent")
			require.NotEqual(t, e.ID(), next.ID())
		})
	}
}

func TestReceiverOfBatchesOfTheCloudEventsSDKIsServed(t *testing.T) {
	t.Parallel()
	got := make(chan cloudevents.Event, 99)
	first := true // requests come one after another: there is one slot
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all, err := cehttp.NewEventsFromHTTPRequest(r)
		if err != nil || r.Header.Get("Content-Type") != "application/cloudevents-batch+json" {
			http.Error(w, "not a batch", http.StatusBadRequest)
			return
		}
		if first {
			first = false
			_, _ = w.Write([]byte(`{"failed":["` + all[0].ID() + `"]}`))
			all = all[1:]
		}
		for _, e := range all {
			got <- e
		}
	}), "batch: {max: 10}", "concurrency: 1", "retry: {interval: 1s, backoff: fixed}", "webhook: {url: URL, format: cloudevents}")
	s.Exec(t, "insert into orders select i, 'a', i from generate_series(1, 20) i")
	ids := map[string]bool{}
	for len(ids) < 20 {
		e := receive(t, got)
		require.NoError(t, e.Validate())
		require.Equal(t, "rowhook.order_changed.insert", e.Type())
		require.False(t, ids[e.ID()], "an event that has failed is delivered once")
		ids[e.ID()] = true
	}
}

// slack answers as an incoming webhook of Slack does, as far as that shows at a sender: 200 and ok for
// a message with a text or blocks, and otherwise 400, with a word for why. got has the messages.
func slack(got chan<- map[string]any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var message map[string]any
		refuse := func(status int, why string) { http.Error(w, why, status) }
		body, err := io.ReadAll(r.Body)
		switch {
		case r.Method != http.MethodPost || r.URL.Path != "/services/T000/B000/XXXX":
			refuse(http.StatusNotFound, "no_service")
			return
		case err != nil || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") || json.Unmarshal(body, &message) != nil:
			refuse(http.StatusBadRequest, "invalid_payload")
			return
		}
		blocks, _ := message["blocks"].([]any)
		if text, _ := message["text"].(string); text == "" && len(blocks) == 0 {
			refuse(http.StatusBadRequest, "no_text")
			return
		}
		got <- message
		_, _ = io.WriteString(w, "ok")
	}
}

func TestSlackIsServedByATemplate(t *testing.T) {
	t.Parallel()
	got := make(chan map[string]any, 9)
	s := serve(t, slack(got), "webhook:", "  url: URL/services/T000/B000/XXXX", "  body:",
		"    text: 'Order ${new.id} of ${new.customer}: ${new.amount} <${old.amount ?? \"-\"}>'")
	s.Exec(t, `insert into orders values (9007199254740993, e'Ada "the first"\n', 1.10)`)
	require.Equal(t, map[string]any{"text": "Order 9007199254740993 of Ada \"the first\"\n: 1.10 <->"}, receive(t, got))
}

func TestSlackRefusesAnEventThatIsNoMessage(t *testing.T) {
	t.Parallel()
	refused := make(chan string, 9)
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		slack(nil)(answer, r)
		w.WriteHeader(answer.Code)
		refused <- answer.Body.String()
	}), "webhook: {url: URL/services/T000/B000/XXXX}", "retry: {limit: 0}")
	s.Exec(t, "insert into orders values (1, 'Ada', 1.10)")
	require.Equal(t, "no_text\n", receive(t, refused))
}

func TestAFormEndpointIsServed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key  string
		want url.Values
	}{
		"chosen fields": {"form: {order: $new.id, from: 'the shop & ${new.customer}', was: $old.amount}", url.Values{
			"order": {"9007199254740993"}, "from": {"the shop & Ada=Ł & +1%"}, "was": {""}}},
		"the row": {"body: form", url.Values{"id": {"9007199254740993"}, "customer": {"Ada=Ł & +1%"}, "amount": {"1.10"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(chan url.Values, 9)
			s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := r.ParseForm(); err != nil || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
					http.Error(w, "no form", http.StatusUnsupportedMediaType)
					return
				}
				got <- r.PostForm
			}), "webhook:", "  url: URL", "  "+c.key)
			s.Exec(t, "insert into orders values (9007199254740993, 'Ada=Ł & +1%', 1.10)")
			require.Equal(t, c.want, receive(t, got))
		})
	}
}

// An API behind a gateway that decompresses and verifies: both work together with a format and a
// trace.
func TestACompressedSignedBatchOfCloudEventsIsVerified(t *testing.T) {
	t.Parallel()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	got := make(chan cloudevents.Event, 99)
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnsupportedMediaType)
			return
		}
		body, err := io.ReadAll(in)
		if err == nil {
			err = webhook.Verify(secret, r.Header, body, time.Now())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		all, err := cehttp.NewEventsFromHTTPRequest(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, e := range all {
			got <- e
		}
	}), "batch: {max: 50}", "order: row", "webhook: {url: URL, format: cloudevents, compress: gzip, secret: "+secret+"}")
	s.inTrace(t, writers, "insert into orders select i, repeat('Ada ', 500), i from generate_series(1, 20) i")
	for range 20 {
		e := receive(t, got)
		require.NoError(t, e.Validate())
		require.Equal(t, writers, e.Extensions()["traceparent"])
	}
}

// oauthProtected is an API behind OAuth: /token gives out tokens by the grant of client credentials,
// and every other path wants the newest one that was not revoked.
type oauthProtected struct {
	mu    sync.Mutex
	given int // tokens
	got   chan string
}

func (o *oauthProtected) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.URL.Path == "/token" {
		id, secret, basic := r.BasicAuth()
		if !basic {
			id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
		}
		w.Header().Set("Content-Type", "application/json")
		if id != "shop" || secret != "s3cr3t" || r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("scope") != "orders.write" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"invalid_client"}`)
			return
		}
		o.given++
		_, _ = fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"Bearer","expires_in":3600}`, o.given)
		return
	}
	if r.Header.Get("Authorization") != fmt.Sprintf("Bearer token-%d", o.given) {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	o.got <- r.Header.Get("Authorization")
}

// revoke makes the tokens so far invalid.
func (o *oauthProtected) revoke() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.given++
}

func TestAnOAuthProtectedEndpointIsServed(t *testing.T) {
	t.Parallel()
	api := &oauthProtected{got: make(chan string, 9)}
	s := serve(t, api, "retry: {limit: 0}", "webhook:", "  url: URL/orders",
		"  oauth2: {token_url: URL/token, client_id: shop, client_secret: s3cr3t, scopes: [orders.write]}")
	s.Exec(t, "insert into orders values (1, 'Ada', 1.10)")
	require.Equal(t, "Bearer token-1", receive(t, api.got))
	s.Exec(t, "insert into orders values (2, 'Ada', 1.10)")
	require.Equal(t, "Bearer token-1", receive(t, api.got))
	api.revoke()
	s.Exec(t, "insert into orders values (3, 'Ada', 1.10)")
	require.Equal(t, "Bearer token-3", receive(t, api.got), "one that was refused is replaced within the attempt")
}
