package webhook

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestTheWritersTraceIsInTheHeaders(t *testing.T) {
	t.Parallel()
	const (
		trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
		parent      = "00-" + trace + "-" + span + "-01"
		attempt     = "00-" + trace + "-1111111111111111-00" // a span of the attempt
		hasura      = `{"trace_id":"` + trace + `","span_id":"` + span + `","sampling_state":"1"}`
	)
	for name, c := range map[string]struct {
		context    string
		configured map[string]string
		span       string
		want       string // the headers of traces
	}{
		"none":                            {``, nil, "", ``},
		"a text":                          {`"` + parent + `"`, nil, "", "traceparent=" + parent},
		"with a state":                    {`{"traceparent":"` + parent + `","tracestate":"a=1, b=2"}`, nil, "", "traceparent=" + parent + " tracestate=a=1,b=2"},
		"hostile":                         {`{"traceparent":"` + parent + `\r\nX-A: 1"}`, nil, "", ``},
		"a hostile state":                 {`{"traceparent":"` + parent + `","tracestate":"a=1\r\nX-A: 1"}`, nil, "", "traceparent=" + parent},
		"Hasura":                          {hasura, nil, "", "traceparent=" + parent + " x-b3-sampled=1 x-b3-spanid=" + span + " x-b3-traceid=" + trace},
		"Hasura, undecided":               {`{"trace_id":"` + trace[16:] + `","span_id":"` + span + `"}`, nil, "", "traceparent=00-0000000000000000" + trace[16:] + "-" + span + "-01 x-b3-spanid=" + span + " x-b3-traceid=" + trace[16:]},
		"a span of the attempt":           {`{"traceparent":"` + parent + `","tracestate":"a=1"}`, nil, attempt, "traceparent=" + attempt + " tracestate=a=1"},
		"a span, and Hasura":              {hasura, nil, attempt, "traceparent=" + attempt + " tracestate=a=1 x-b3-sampled=0 x-b3-spanid=1111111111111111 x-b3-traceid=" + trace},
		"a configured parent":             {`{"traceparent":"` + parent + `","tracestate":"a=1"}`, map[string]string{"traceparent": "mine"}, "", "traceparent=mine"},
		"a configured parent, and a span": {`"` + parent + `"`, map[string]string{"traceparent": "mine"}, attempt, "traceparent=mine"},
		"a configured state":              {`{"traceparent":"` + parent + `","tracestate":"a=1"}`, map[string]string{"tracestate": "b=2"}, "", "tracestate=b=2"},
		"a configured header of B3":       {hasura, map[string]string{"x-b3-traceid": "mine"}, "", "traceparent=" + parent + " x-b3-traceid=mine"},
		"a configured header, single":     {hasura, map[string]string{"b3": "0"}, "", "b3=0 traceparent=" + parent},
		"a configured parent, and B3's":   {hasura, map[string]string{"traceparent": "mine"}, "", "traceparent=mine x-b3-sampled=1 x-b3-spanid=" + span + " x-b3-traceid=" + trace},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(chan string, 1)
			s := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
				var all []string
				for _, name := range []string{"b3", "traceparent", "tracestate", "x-b3-parentspanid", "x-b3-sampled", "x-b3-spanid", "x-b3-traceid", "x-a"} {
					if values := r.Header.Values(name); len(values) > 0 {
						all = append(all, name+"="+strings.Join(values, ";"))
					}
				}
				got <- strings.Join(all, " ")
			})
			e := orderPlaced()
			e.Trace = []byte(c.context)
			ctx := context.Background()
			if c.span != "" {
				ctx = WithHeader(ctx, http.Header{"Traceparent": {c.span}, "Tracestate": {"a=1"}})
			}
			ep, client := endpoint(t, trigger.Webhook{URL: s.URL, Headers: c.configured}), newClient(t, ClientConfig{})
			r := client.Send(ctx, ep, e, nil)
			require.True(t, r.Delivered(), r.Err)
			require.Equal(t, c.want, <-got)
			_, _ = client.SendBatch(ctx, ep, []*Event{e, orderPlaced()})
			require.Equal(t, c.want, <-got, "a batch has the trace of its first event")
			_, _ = client.SendBatch(ctx, ep, []*Event{orderPlaced(), e})
			if c.span == "" && len(c.configured) == 0 {
				require.Empty(t, <-got)
			}
		})
	}
}

// FuzzEventInHeaders makes requests of an event with any names, trace and session in every format.
// Each has the headers that the format says, and none can hold a character that ends a line.
func FuzzEventInHeaders(f *testing.F) {
	for _, seed := range [][4]string{
		{"order_placed", "orders", `"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"`, `{"x-user":"ada"}`},
		{"a\r\nX-A: 1", "b\r\n\r\nGET / HTTP/1.1", `{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nX-A: 1","tracestate":"a=1\r\nX-A: 1"}`, `{"\r\nX-A":"1"}`},
		{"\x00\x7f\xff", "é\u2028", `{"trace_id":"1\r\nX: 2","span_id":"3","sampling_state":"\n"}`, "\r\n"},
		{"", "", `{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","sampling_state":"0"}`, `x`},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	allowed := map[string]bool{}
	for _, name := range []string{
		"Content-Type", "User-Agent", "Idempotency-Key", headerParent, headerState, headerTraceID, headerSpanID, headerSampled,
		"Ce-Specversion", "Ce-Id", "Ce-Source", "Ce-Type", "Ce-Subject", "Ce-Time", "Ce-Traceparent", "Ce-Tracestate",
	} {
		allowed[name] = true
	}
	f.Fuzz(func(t *testing.T, name, table, trace, session string) {
		e := orderPlaced()
		e.Trigger, e.Table, e.Trace, e.Session = name, table, []byte(trace), []byte(session)
		for _, format := range []string{"", trigger.FormatCloudEvents, trigger.FormatCloudEventsBinary} {
			m, bad := newClient(t, ClientConfig{}).make(context.Background(), endpoint(t, trigger.Webhook{URL: "http://h", Format: format}), parcel{event: e}, nil, e.CreatedAt, newScratch())
			require.Nil(t, bad)
			for name, values := range m.header {
				require.True(t, allowed[name], name)
				for _, value := range values {
					require.Regexp(t, `^[ -~]*$`, value, name)
				}
			}
		}
	})
}
