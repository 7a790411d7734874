// Package tracing makes an OpenTelemetry span of each attempt, in the trace of the row's writer,
// and sends the spans by OTLP over HTTP.
//
// OpenTelemetry's own environment variables configure it. It is off unless they name an endpoint.
// OpenTelemetry's otlptrace writes the spans as OTLP. Only the POST is this package's own, because
// otlptracehttp compiles 68 packages of gRPC for it.
package tracing

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/webhook"
)

// Tracer makes and sends spans. New makes it, and Close sends the last spans.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// Options describe the program to the receiver of its spans.
type Options struct {
	Version  string
	Instance string // service.instance.id; "": none
	Logger   *slog.Logger
}

// New returns a tracer configured by environment variables, which it reads by lookup. It returns
// nil if they do not enable tracing. It does not connect. OpenTelemetry's SDK itself reads
// OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_BSP_* and OTEL_SPAN_* from
// the process.
func New(ctx context.Context, lookup func(string) (string, bool), o Options) (*Tracer, error) {
	settings, on, err := readSettings(lookup)
	if err != nil || !on {
		return nil, err
	}
	c, err := newClient(settings, o)
	if err != nil {
		return nil, err
	}
	e, err := otlptrace.New(ctx, c)
	if err != nil {
		return nil, err
	}
	if o.Logger != nil { // the SDK would print plain text on standard error, where other lines may be JSON
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { o.Logger.Warn("traces: error from OpenTelemetry's SDK", "error", err) }))
	}
	return newTracer(ctx, sdk.WithBatcher(e), o)
}

func newTracer(ctx context.Context, processor sdk.TracerProviderOption, o Options) (*Tracer, error) {
	attributes := []attribute.KeyValue{attribute.String("service.name", "rowhook"), attribute.String("service.version", o.Version)}
	if o.Instance != "" {
		attributes = append(attributes, attribute.String("service.instance.id", o.Instance))
	}
	// The environment comes last, so it overrides the attributes.
	res, err := resource.New(ctx, resource.WithAttributes(attributes...), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, err
	}
	p := sdk.NewTracerProvider(processor, sdk.WithResource(res))
	return &Tracer{p, p.Tracer("github.com/rowhook/rowhook", trace.WithInstrumentationVersion(o.Version))}, nil
}

// Close sends the remaining spans.
func (t *Tracer) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// Observer returns an observer that makes the spans of a dispatcher's attempts.
func (t *Tracer) Observer() dispatcher.Observer { return dispatcher.Observer{Attempting: t.attempting} }

// attempting begins the span of an attempt. It returns the headers that carry the span's context,
// and the function that ends the span.
func (t *Tracer) attempting(e *dispatcher.Event, number int) (http.Header, func(dispatcher.Attempt)) {
	parent := writersContext(e.Trace)
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), parent)
	ctx, span := t.tracer.Start(ctx, "deliver "+e.Trigger, trace.WithSpanKind(trace.SpanKindClient))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("rowhook.event.id", uuid.UUID(e.ID).String()),
			attribute.String("rowhook.trigger", e.Trigger),
			attribute.String("rowhook.table", e.Schema+"."+e.Table),
			attribute.String("rowhook.op", e.OpName()),
			attribute.Int("rowhook.attempt", number),
		)
		if e.Source != "" {
			span.SetAttributes(attribute.String("rowhook.source", e.Source))
		}
	}
	header := http.Header{}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(header))
	return header, func(a dispatcher.Attempt) { end(span, &a) }
}

func end(span trace.Span, a *dispatcher.Attempt) {
	if span.IsRecording() {
		span.SetAttributes(attribute.String("url.full", a.Endpoint), attribute.String("rowhook.outcome", string(a.Outcome)))
		if a.Method != "" {
			span.SetAttributes(attribute.String("http.request.method", a.Method))
		}
		if a.Result.Status != 0 {
			span.SetAttributes(attribute.Int("http.response.status_code", a.Result.Status))
		}
		if a.Number > 1 {
			span.SetAttributes(attribute.Int("http.request.resend_count", a.Number-1))
		}
		if a.Outcome != dispatcher.Delivered {
			kind := string(a.Result.Kind)
			if a.Result.Kind == webhook.KindResponse {
				kind = http.StatusText(a.Result.Status)
			}
			span.SetAttributes(attribute.String("error.type", kind))
			span.SetStatus(codes.Error, a.Result.Err)
		}
	}
	span.End(trace.WithTimestamp(a.Result.StartedAt.Add(a.Result.Duration)))
}

// writersContext reads an event's trace_context. For what is no trace it returns an empty context.
func writersContext(raw []byte) trace.SpanContext {
	c := webhook.ParseTraceContext(raw)
	carrier := propagation.MapCarrier{"traceparent": c.Parent, "tracestate": c.State}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}

// sendTimeout is the default of OTEL_EXPORTER_OTLP_TIMEOUT.
const sendTimeout = 10 * time.Second
