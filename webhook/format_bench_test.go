package webhook

import (
	"context"
	"testing"

	"github.com/rowhook/rowhook/trigger"
)

// BenchmarkRequest makes the request of an event, without sending it, and so shows the price of each
// option.
func BenchmarkRequest(b *testing.B) {
	text := func(e *Event) { e.Trace = []byte(`"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"`) }
	traced := func(e *Event) {
		e.Trace = []byte(`{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"a=1"}`)
	}
	for _, c := range []struct {
		name   string
		size   int // of the row; 0: a small one
		change func(*trigger.Webhook)
		event  func(*Event)
	}{
		{"hasura", 0, nil, nil},
		{"hasura, traced by a text", 0, nil, text},
		{"hasura, traced", 0, nil, traced},
		{"cloudevents", 0, func(w *trigger.Webhook) { w.Format = trigger.FormatCloudEvents }, nil},
		{"cloudevents, traced", 0, func(w *trigger.Webhook) { w.Format = trigger.FormatCloudEvents }, traced},
		{"cloudevents-binary", 0, func(w *trigger.Webhook) { w.Format = trigger.FormatCloudEventsBinary }, nil},
		{"2 kB", 2 << 10, nil, nil},
		{"2 kB, gzip", 2 << 10, func(w *trigger.Webhook) { w.Compress = trigger.CompressGzip }, nil},
		{"20 kB", 20 << 10, nil, nil},
		{"20 kB, gzip", 20 << 10, func(w *trigger.Webhook) { w.Compress = trigger.CompressGzip }, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := trigger.Webhook{URL: "http://example.com"}
			if c.change != nil {
				c.change(&w)
			}
			e := orderPlaced()
			if c.size > 0 {
				e.New = rowsOf(c.size)
			}
			if c.event != nil {
				c.event(e)
			}
			client, ep := newClient(b, ClientConfig{}), endpoint(b, w)
			s := newScratch()
			b.ReportAllocs()
			for b.Loop() {
				m, bad := client.make(context.Background(), ep, parcel{event: e}, nil, e.CreatedAt, s)
				if bad != nil || len(m.body) == 0 {
					b.Fatal(bad)
				}
			}
		})
	}
}
