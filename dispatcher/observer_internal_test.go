package dispatcher

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

func TestWithoutObserversAnAttemptAllocatesNothingForThem(t *testing.T) {
	d, err := New(Config{})
	require.NoError(t, err)
	d.sender.ctx = context.Background()
	dl := &delivery{lane: &lane{}}
	ep, err := webhook.NewEndpoint(trigger.Webhook{URL: "http://127.0.0.1"}, nil)
	require.NoError(t, err)
	var r webhook.Result
	require.Zero(t, testing.AllocsPerRun(100, func() {
		ctx, ended := d.sender.tell.attempting(d.sender.ctx, &dl.event, 1)
		if ctx != d.sender.ctx {
			t.Error("another context")
		}
		d.sender.tell.attempted(dl, ep, &r, "", queue.Delivered, 0, ended)
	}))
}

func BenchmarkAttemptWithoutObservers(b *testing.B) {
	d, err := New(Config{})
	require.NoError(b, err)
	d.sender.ctx = context.Background()
	dl := &delivery{lane: &lane{}}
	ep, err := webhook.NewEndpoint(trigger.Webhook{URL: "http://127.0.0.1"}, nil)
	require.NoError(b, err)
	var r webhook.Result
	b.ReportAllocs()
	for b.Loop() {
		_, ended := d.sender.tell.attempting(d.sender.ctx, &dl.event, 1)
		d.sender.tell.attempted(dl, ep, &r, "", queue.Delivered, 0, ended)
	}
}

func TestEveryObserverIsToldWhateverTheirOrder(t *testing.T) {
	t.Parallel()
	var told []string
	counting := Observer{Attempted: func(Attempt) { told = append(told, "counted") }, Rang: func() { told = append(told, "rang") }}
	tracing := Observer{Attempting: func(*Event, int) (http.Header, func(Attempt)) {
		return http.Header{"Traceparent": {"00-x"}}, func(a Attempt) { told = append(told, "traced "+string(a.Outcome)) }
	}}
	other := Observer{Attempting: func(*Event, int) (http.Header, func(Attempt)) { return http.Header{"X-Other": {"y"}}, nil }}
	got := make(chan http.Header, 2)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	defer receiver.Close()
	client := webhook.NewClient(webhook.ClientConfig{Concurrency: 1})
	defer client.Close()
	ep, err := webhook.NewEndpoint(trigger.Webhook{URL: receiver.URL}, nil)
	require.NoError(t, err)
	for _, all := range [][]Observer{{counting, tracing, other}, {other, tracing, counting}} {
		told = nil
		o := newObservers(all, "")
		dl := &delivery{lane: &lane{}}
		ctx, ended := o.attempting(t.Context(), &dl.event, 1)
		result := client.Send(ctx, ep, &dl.event, nil)
		header := <-got
		require.Equal(t, []string{"00-x", "y"}, []string{header.Get("Traceparent"), header.Get("X-Other")})
		o.attempted(dl, ep, &result, "", queue.Dead, 0, ended)
		o.rang()
		require.ElementsMatch(t, []string{"counted", "traced dead", "rang"}, told)
	}
}
