package webhook

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestAHeaderOfTheContextIsAddedUnlessTheEndpointSetsIt(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	t.Cleanup(server.Close)
	ep, err := NewEndpoint(trigger.Webhook{URL: server.URL, Headers: map[string]string{"x-own": "configured"}, Secret: "whsec_c2VjcmV0"}, nil)
	require.NoError(t, err)
	c := NewClient(ClientConfig{})
	t.Cleanup(c.Close)
	ctx := WithHeader(t.Context(), http.Header{"Traceparent": {"00-1-2-01"}, "X-Own": {"added"}})
	r := c.Send(ctx, ep, &Event{Op: 'I'}, nil)
	require.True(t, r.Delivered(), r.Err)
	h := <-got
	require.Equal(t, "00-1-2-01", h.Get("Traceparent"))
	require.Equal(t, "configured", h.Get("X-Own"))
	require.NotEmpty(t, h.Get(HeaderSignature))

	r = c.Send(t.Context(), ep, &Event{Op: 'I'}, nil)
	require.True(t, r.Delivered(), r.Err)
	require.Empty(t, (<-got).Get("Traceparent"), "the next request has nothing of it")
}
