package operate_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// sample is a receiver under test.
type sample struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
}

func newSample(t *testing.T, answer func(n int, w http.ResponseWriter)) *sample {
	s := &sample{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.requests, s.bodies = append(s.requests, r), append(s.bodies, string(body))
		n := len(s.requests)
		s.mu.Unlock()
		if answer != nil {
			answer(n, w)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestAReplayToAnotherOriginHasNothingOfTheTriggersCredentials(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	own, other := newSample(t, nil), newSample(t, nil)
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	d.Apply(t, d.Spec("a", func(s *trigger.Spec) {
		s.Webhook.URL, s.Webhook.Secret = "${HOST}/hooks", "${SECRET}"
		s.Webhook.Headers = map[string]string{"Authorization": "Bearer ${TOKEN}", "X-Shop": "eu"}
	}))
	ids := d.delivered(t, "a", 3)
	o := operate.ReplayTo{Trigger: "a", From: past, Source: variables(map[string]string{"HOST": own.URL, "SECRET": secret, "TOKEN": "hidden-token"}), Version: "v9"}
	o.URL = other.URL + "/x"
	r, err := o.Send(t.Context(), d.conn)
	require.NoError(t, err)
	require.True(t, r.Done)
	require.False(t, r.SameOrigin)
	require.Equal(t, []int64{3, 3, 0}, []int64{r.Sent, r.Delivered, r.Failed})
	require.Equal(t, ids[2], r.Last)
	require.Len(t, other.requests, 3)
	for i, req := range other.requests {
		require.Empty(t, req.Header.Get("Authorization"))
		require.Empty(t, req.Header.Get("X-Shop"))
		require.Empty(t, req.Header.Get("Webhook-Signature"))
		require.NotContains(t, other.bodies[i], "hidden")
		require.Contains(t, other.bodies[i], `"user":`)
	}

	o.URL = own.URL + "/other/path"
	r, err = o.Send(t.Context(), d.conn)
	require.NoError(t, err)
	require.True(t, r.SameOrigin)
	require.Len(t, own.requests, 3)
	require.Equal(t, "/other/path", own.requests[0].URL.Path)
	require.Equal(t, "Bearer hidden-token", own.requests[0].Header.Get("Authorization"))
	require.NotEmpty(t, own.requests[0].Header.Get("Webhook-Signature"))

	// A host that is not known is another one, and no reference is expanded.
	o.Source = variables(nil)
	r, err = o.Send(t.Context(), d.conn)
	require.NoError(t, err)
	require.False(t, r.SameOrigin)
	o.Source, o.URL = variables(map[string]string{"HOST": own.URL, "TOKEN": "hidden-token"}), other.URL+"/${TOKEN}"
	_, err = o.Send(t.Context(), d.conn)
	require.ErrorIs(t, err, operate.ErrInvalid)
	d.Apply(t, d.Spec("a", func(s *trigger.Spec) {
		s.Webhook.Method, s.Webhook.Query = trigger.MethodPut, map[string]string{"key": "${TOKEN}"}
		s.Webhook.OAuth2 = trigger.OAuth2{TokenURL: own.URL + "/token", ClientID: "c", ClientSecret: "${TOKEN}"}
	}))
	o.URL = other.URL + "/y"
	before := len(own.requests)
	_, err = o.Send(t.Context(), d.conn)
	require.NoError(t, err)
	last := other.requests[len(other.requests)-1]
	require.Equal(t, "PUT /y", last.Method+" "+last.URL.String())
	require.Empty(t, last.Header.Get("Authorization"))
	require.Len(t, own.requests, before, "no token was asked for")
	d.Apply(t, d.Spec("a", func(s *trigger.Spec) { s.Webhook.Form = map[string]string{"key": "${TOKEN}"} }))
	_, err = o.Send(t.Context(), d.conn)
	require.ErrorIs(t, err, operate.ErrRefused)
	require.NotContains(t, err.Error(), "hidden")
	require.Zero(t, d.count(t, "rowhook.event_log"))
	require.Zero(t, d.count(t, "rowhook.invocation_log"))
	require.Zero(t, d.count(t, "rowhook.replay"))
	require.Equal(t, 3, d.count(t, "rowhook.event_archive"))
}

func TestAReplayToAURLListsWhatFailedAndGoesOnAfterAnEvent(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	ids := d.delivered(t, "a", 250)
	r := newSample(t, func(n int, w http.ResponseWriter) {
		if n == 7 {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := operate.ReplayTo{Trigger: "a", From: past, URL: r.URL, Source: variables(nil), AsNew: true}
	o.Progress = func(p operate.ReplayToResult) {
		if p.Sent >= 150 {
			cancel()
		}
	}
	part, err := o.Send(ctx, d.conn)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, part.Done)
	require.Len(t, part.Failures, 1)
	require.Contains(t, part.Failures[0].Error, "answered 418")
	require.Error(t, part.Err())
	require.NotContains(t, strings.Join(r.bodies, ""), ids[0], "they have new ids")
	o.Progress, o.After = nil, part.Last
	rest, err := o.Send(t.Context(), d.conn)
	require.NoError(t, err)
	require.True(t, rest.Done)
	require.Equal(t, ids[249], rest.Last)
	require.GreaterOrEqual(t, part.Sent+rest.Sent, int64(250))
	require.LessOrEqual(t, part.Sent+rest.Sent, int64(270), "those that were in flight may be sent twice")
	o.After = "x"
	_, err = o.Send(t.Context(), d.conn)
	require.ErrorIs(t, err, operate.ErrInvalid)
}
