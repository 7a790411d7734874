package tracing

import (
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/webhook"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// collector receives OTLP over HTTP. answer, unless nil, handles request n, counted from 0.
type collector struct {
	*httptest.Server
	answer func(n int, w http.ResponseWriter)

	mu      sync.Mutex
	headers []http.Header
	paths   []string
	traces  []*tracepb.TracesData
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		data, err := io.ReadAll(body)
		traces := &tracepb.TracesData{} // has the same bytes as an ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(data, traces)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		n := len(c.paths)
		c.headers, c.paths = append(c.headers, r.Header), append(c.paths, r.URL.Path)
		if c.answer != nil {
			c.answer(n, w)
			if n == 0 {
				return
			}
		}
		c.traces = append(c.traces, traces)
	}))
	t.Cleanup(c.Close)
	return c
}

// spans returns all spans that have arrived.
func (c *collector) spans() (out []*tracepb.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.traces {
		for _, r := range t.ResourceSpans {
			for _, s := range r.ScopeSpans {
				out = append(out, s.Spans...)
			}
		}
	}
	return out
}

func variables(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func attributes(s *tracepb.Span) map[string]any {
	out := map[string]any{}
	for _, kv := range s.Attributes {
		out[kv.Key] = kv.Value.GetStringValue()
		if n := kv.Value.GetIntValue(); n != 0 {
			out[kv.Key] = n
		}
	}
	return out
}

const (
	writersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	writersSpan  = "00f067aa0ba902b7"
	writers      = "00-" + writersTrace + "-" + writersSpan + "-01"
)

func TestAnAttemptIsASpanInTheWritersTrace(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	tracer, err := New(t.Context(), variables("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL, "OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b"), Options{Version: "v9", Instance: "host:1"})
	require.NoError(t, err)
	header, ended := tracer.attempting(&dispatcher.Event{
		ID: [16]byte{1, 2, 3}, Schema: "public", Table: "orders", Trigger: "order_placed", Op: 'I', Trace: []byte(`"` + writers + `"`), Source: "eu",
	}, 2)
	began := time.Now()
	ended(dispatcher.Attempt{
		Number: 2, Endpoint: "${ORDERS_URL}/x", Method: "PUT", Outcome: dispatcher.Retried,
		Result: dispatcher.Result{StartedAt: began, Duration: 3 * time.Second, Status: 503, Err: "answered 503 Service Unavailable"},
	})
	require.NoError(t, tracer.Close(t.Context()))

	spans := c.spans()
	require.Len(t, spans, 1)
	s := spans[0]
	require.Equal(t, "deliver order_placed", s.Name)
	require.Equal(t, writersTrace, hexOf(s.TraceId))
	require.Equal(t, writersSpan, hexOf(s.ParentSpanId))
	require.Equal(t, tracepb.Span_SPAN_KIND_CLIENT, s.Kind)
	require.Equal(t, tracepb.Status_STATUS_CODE_ERROR, s.Status.Code)
	require.Equal(t, "answered 503 Service Unavailable", s.Status.Message)
	require.EqualValues(t, 0x301, s.Flags)
	require.Equal(t, uint64(began.Add(3*time.Second).UnixNano()), s.EndTimeUnixNano)
	require.Less(t, s.StartTimeUnixNano, s.EndTimeUnixNano)
	require.Equal(t, map[string]any{
		"rowhook.source": "eu", "http.request.method": "PUT", "http.response.status_code": int64(503), "http.request.resend_count": int64(1), "url.full": "${ORDERS_URL}/x",
		"error.type": "Service Unavailable", "rowhook.event.id": "01020300-0000-0000-0000-000000000000", "rowhook.trigger": "order_placed",
		"rowhook.table": "public.orders", "rowhook.op": "INSERT", "rowhook.attempt": int64(2), "rowhook.outcome": "retried",
	}, attributes(s))
	require.Equal(t, []string{"00-" + writersTrace + "-" + hexOf(s.SpanId) + "-01"}, header["Traceparent"])
	require.Equal(t, []string{"/v1/traces"}, c.paths)
	require.Equal(t, "application/x-protobuf", c.headers[0].Get("Content-Type"))
	require.Equal(t, "a b", c.headers[0].Get("X-Key"))
	resource := map[string]string{}
	for _, kv := range c.traces[0].ResourceSpans[0].Resource.Attributes {
		resource[kv.Key] = kv.Value.GetStringValue()
	}
	require.Equal(t, "rowhook", resource["service.name"])
	require.Equal(t, "v9", resource["service.version"])
	require.Equal(t, "host:1", resource["service.instance.id"])
	require.Equal(t, "opentelemetry", resource["telemetry.sdk.name"])
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, x := range b {
		s.WriteByte(digits[x>>4])
		s.WriteByte(digits[x&15])
	}
	return s.String()
}

// The test covers the way from a writer's setting to a receiver's header.
func TestDeliveriesAreTraced(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	tracer, err := newTracer(t.Context(), sdk.WithSyncer(spans), Options{})
	require.NoError(t, err)
	got := make(chan string, 9)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("traceparent") }))
	t.Cleanup(receiver.Close)
	db := pgtest.New(t)
	conn := db.Conn(t)
	db.Exec(t, "create table orders (id bigint)")
	dispatchtest.Apply(t, db, dispatchtest.Spec("orders", receiver.URL))
	d := dispatchtest.Run(t, dispatcher.Config{DatabaseURL: db.URL(), Observers: []dispatcher.Observer{tracer.Observer()}})
	for _, setting := range []string{writers, `{"trace_id": "` + writersTrace + `", "span_id": "` + writersSpan + `"}`} {
		tx, err := conn.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "select set_config('rowhook.trace_context', $1, true)", setting)
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "insert into orders values (1)")
		require.NoError(t, err)
		require.NoError(t, tx.Commit(t.Context()))
		require.Contains(t, <-got, "00-"+writersTrace+"-")
	}
	d.Stop(t)
	ended := spans.GetSpans()
	require.Len(t, ended, 2)
	for _, s := range ended {
		require.Equal(t, writersSpan, s.Parent.SpanID().String())
	}
}

func TestWritersContextIsReadInEveryForm(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ text, want string }{
		"a string":          {`"` + writers + `"`, writers},
		"in capitals":       {`"00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-00"`, "00-" + writersTrace + "-" + writersSpan + "-00"},
		"an object":         {`{"traceparent": "` + writers + `", "tracestate": "a=1"}`, writers},
		"a bad tracestate":  {`{"traceparent": "` + writers + `", "tracestate": "= ="}`, writers},
		"Hasura's":          {`{"trace_id": "` + writersTrace + `", "span_id": "` + writersSpan + `"}`, writers},
		"Hasura's, 64 bits": {`{"trace_id": "a3ce929d0e0e4736", "span_id": "67aa0ba902b7"}`, "00-0000000000000000a3ce929d0e0e4736-000067aa0ba902b7-01"},
		"Hasura's, unsampled": {`{"trace_id": "` + writersTrace + `", "span_id": "` + writersSpan + `", "sampling_state": "0"}`,
			"00-" + writersTrace + "-" + writersSpan + "-00"},
		"a later version": {`"01-` + writersTrace + "-" + writersSpan + `-01-more"`, writers},
		"none":            {``, ""},
		"null":            {`null`, ""},
		"a number":        {`7`, ""},
		"another text":    {`"hello"`, ""},
		"other fields":    {`{"a": 1}`, ""},
		"zeros":           {`"00-00000000000000000000000000000000-` + writersSpan + `-01"`, ""},
		"too long":        {`"00-` + writersTrace + "-" + writersSpan + `-01-more"`, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := writersContext([]byte(c.text))
			if c.want == "" {
				require.False(t, got.IsValid())
				return
			}
			header := http.Header{}
			propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(t.Context(), got), propagation.HeaderCarrier(header))
			require.Equal(t, c.want, header.Get("traceparent"))
		})
	}
}

func TestTracingIsOffUnlessTheEnvironmentNamesAnEndpoint(t *testing.T) {
	t.Parallel()
	for name, env := range map[string][]string{
		"nothing":      nil,
		"only a name":  {"OTEL_SERVICE_NAME", "x"},
		"none":         {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://a", "OTEL_TRACES_EXPORTER", "none"},
		"switched off": {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://a", "OTEL_SDK_DISABLED", "TRUE"},
	} {
		tracer, err := New(t.Context(), variables(env...), Options{})
		require.NoError(t, err, name)
		require.Nil(t, tracer, name)
	}
}

func TestSettingsFollowTheSpecification(t *testing.T) {
	t.Parallel()
	const all, traces = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	good := map[string]struct {
		env  []string
		want string
	}{
		"a path is added":       {[]string{all, "https://c.example/otlp/"}, "https://c.example/otlp/v1/traces"},
		"not to that of traces": {[]string{all, "http://no", traces, "http://c.example/x"}, "http://c.example/x"},
		"the local collector":   {[]string{"OTEL_TRACES_EXPORTER", "otlp"}, "http://localhost:4318/v1/traces"},
	}
	for name, c := range good {
		s, on, err := readSettings(variables(c.env...))
		require.NoError(t, err, name)
		require.True(t, on, name)
		require.Equal(t, c.want, s.url, name)
	}
	bad := map[string][]string{
		"OTEL_EXPORTER_OTLP_PROTOCOL":       {all, "http://a", "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"},
		all + " is no":                      {all, "localhost:4318"},
		"OTEL_TRACES_EXPORTER":              {"OTEL_TRACES_EXPORTER", "zipkin"},
		"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": {all, "http://a", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s"},
		"OTEL_EXPORTER_OTLP_HEADERS":        {all, "http://a", "OTEL_EXPORTER_OTLP_HEADERS", "secret-without-name"},
		"OTEL_EXPORTER_OTLP_COMPRESSION":    {all, "http://a", "OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"},
		"OTEL_EXPORTER_OTLP_CERTIFICATE":    {all, "http://a", "OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file"},
	}
	for want, env := range bad {
		_, err := New(t.Context(), variables(env...), Options{})
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret-without-name")
	}
}

func TestSpansAreSentAgainWhenTheCollectorIsBusy(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	c.answer = func(n int, w http.ResponseWriter) {
		if n == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	tracer, err := New(t.Context(), variables("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL, "OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), Options{})
	require.NoError(t, err)
	_, ended := tracer.attempting(&dispatcher.Event{Trigger: "a"}, 1)
	ended(dispatcher.Attempt{Outcome: dispatcher.Delivered, Result: webhook.Result{StartedAt: time.Now(), Status: 200}})
	require.NoError(t, tracer.Close(t.Context()))
	require.Len(t, c.spans(), 1)
	require.Len(t, c.paths, 2)
	require.Empty(t, c.spans()[0].ParentSpanId)
}

func TestACollectorThatIsDownIsLoggedOnceAndHoldsNothingUp(t *testing.T) {
	t.Parallel()
	var lines strings.Builder
	c, err := newClient(settings{url: "http://127.0.0.1:1/v1/traces", timeout: 50 * time.Millisecond}, Options{Logger: slog.New(slog.NewTextHandler(&lines, nil))})
	require.NoError(t, err)
	e := otlptrace.NewUnstarted(c)
	spans := tracetest.SpanStubs{{Name: "a"}}.Snapshots()
	for range 3 {
		require.NoError(t, e.ExportSpans(t.Context(), spans))
	}
	require.Equal(t, 1, strings.Count(lines.String(), "can't send traces"))
}
