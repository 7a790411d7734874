package tracing

import (
	"math"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/protobuf/encoding/protowire"
)

// The field numbers are those of opentelemetry/proto/trace/v1/trace.proto, common/v1/common.proto and resource/v1/resource.proto.

// appendTraces appends an ExportTraceServiceRequest. All spans are of one resource and one scope, as they come from one tracer.
func appendTraces(b []byte, spans []sdk.ReadOnlySpan) []byte {
	return appendMessage(b, 1, func(b []byte) []byte { // resource_spans
		b = appendMessage(b, 1, func(b []byte) []byte { return appendResource(b, spans[0].Resource()) })
		b = appendMessage(b, 2, func(b []byte) []byte { // scope_spans
			b = appendMessage(b, 1, func(b []byte) []byte { return appendScope(b, spans[0].InstrumentationScope()) })
			for _, s := range spans {
				b = appendMessage(b, 2, func(b []byte) []byte { return appendSpan(b, s) })
			}
			return b
		})
		return appendText(b, 3, spans[0].Resource().SchemaURL())
	})
}

func appendResource(b []byte, r *resource.Resource) []byte {
	return appendAttributes(b, 1, r.Attributes())
}

func appendScope(b []byte, s instrumentation.Scope) []byte {
	b = appendText(b, 1, s.Name)
	return appendText(b, 2, s.Version)
}

func appendSpan(b []byte, s sdk.ReadOnlySpan) []byte {
	c := s.SpanContext()
	traceID, spanID := c.TraceID(), c.SpanID()
	b = appendBytes(b, 1, traceID[:])
	b = appendBytes(b, 2, spanID[:])
	b = appendText(b, 3, c.TraceState().String())
	flags := uint32(c.TraceFlags()) | 0x100 // it is known whether the parent is remote
	if parent := s.Parent(); parent.SpanID().IsValid() {
		id := parent.SpanID()
		b = appendBytes(b, 4, id[:])
		if parent.IsRemote() {
			flags |= 0x200
		}
	}
	b = appendText(b, 5, s.Name())
	b = appendNumber(b, 6, uint64(s.SpanKind())) // the SDK numbers the kinds as OTLP does
	b = appendFixed64(b, 7, uint64(s.StartTime().UnixNano()))
	b = appendFixed64(b, 8, uint64(s.EndTime().UnixNano()))
	b = appendAttributes(b, 9, s.Attributes())
	b = appendNumber(b, 10, uint64(s.DroppedAttributes()))
	if st := s.Status(); st.Code != codes.Unset {
		code := uint64(1) // ok
		if st.Code == codes.Error {
			code = 2
		}
		b = appendMessage(b, 15, func(b []byte) []byte { return appendNumber(appendText(b, 2, st.Description), 3, code) })
	}
	return protowire.AppendFixed32(protowire.AppendTag(b, 16, protowire.Fixed32Type), flags)
}

func appendAttributes(b []byte, field protowire.Number, all []attribute.KeyValue) []byte {
	for _, kv := range all {
		b = appendMessage(b, field, func(b []byte) []byte {
			b = appendText(b, 1, string(kv.Key))
			return appendMessage(b, 2, func(b []byte) []byte { return appendValue(b, kv.Value) })
		})
	}
	return b
}

// appendValue appends an AnyValue, of which one field is set whatever its value is.
func appendValue(b []byte, v attribute.Value) []byte {
	switch v.Type() {
	case attribute.BOOL:
		return protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), protowire.EncodeBool(v.AsBool()))
	case attribute.INT64:
		return protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), uint64(v.AsInt64()))
	case attribute.FLOAT64:
		return protowire.AppendFixed64(protowire.AppendTag(b, 4, protowire.Fixed64Type), math.Float64bits(v.AsFloat64()))
	default: // lists too, as JSON: the SDK's own process attributes are such
		return protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), v.String())
	}
}

// appendMessage appends a field that is a message of its own.
func appendMessage(b []byte, field protowire.Number, content func([]byte) []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), content(nil))
}

// The others leave out what is empty, as protobuf does.

func appendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func appendNumber(b []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

func appendFixed64(b []byte, field protowire.Number, n uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), n)
}
