package dispatchtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// Secret is the value of the variable SECRET for the endpoints of [Conform].
const Secret = "s3cret-of-the-far-end"

// FarEnd is what a destination sends to, as a test steers it. Each of its methods returns when what it
// asks for holds.
type FarEnd interface {
	// Destination makes the destination with a largest body. The far end closes it.
	Destination(t *testing.T, maxBody int64) dispatcher.Destination
	// Spec returns a trigger that sends here. It refers to ${SECRET} in what is sent.
	Spec(timeout time.Duration) trigger.Spec
	// Received returns the ids of the events that have arrived and were taken.
	Received() []string
	// Accept has it take events, which it does from the start.
	Accept(t *testing.T)
	// Reject has it refuse events for a reason that is theirs or the configuration's, in words that
	// repeat the value of SECRET if it can.
	Reject(t *testing.T)
	// Overload has it refuse events because it can't take any at present.
	Overload(t *testing.T)
	// Hang has it answer nothing.
	Hang(t *testing.T)
	// Leave has nothing listen at its address, and Return ends that.
	Leave(t *testing.T)
	Return(t *testing.T)
}

// Conform has a destination do what each one has to do. make makes a far end.
func Conform(t *testing.T, make func(t *testing.T) FarEnd) {
	const usual, maxBody = Patience, 64 << 10
	source := trigger.Variables(func(name string) (string, bool) { return Secret, name == "SECRET" })
	open := func(t *testing.T, timeout time.Duration) (FarEnd, dispatcher.Destination, dispatcher.Endpoint) {
		t.Helper()
		far := make(t)
		d, spec := far.Destination(t, maxBody), far.Spec(timeout)
		ep, err := d.Endpoint(&spec, source)
		require.NoError(t, err)
		require.NoError(t, ep.Prepare())
		return far, d, ep
	}
	silent := func(t *testing.T, ep dispatcher.Endpoint, r *dispatcher.Result) {
		t.Helper()
		for _, text := range []string{r.Err, string(r.Header), string(r.Body), ep.String(), ep.Origin(), ep.Warning()} {
			require.NotContains(t, text, Secret)
		}
		require.False(t, r.StartedAt.IsZero())
		require.Positive(t, r.Duration)
		require.NotContains(t, r.Err, "\n")
	}

	t.Run("an event is delivered", func(t *testing.T) {
		t.Parallel()
		far, _, ep := open(t, usual)
		e := Event(1)
		r := ep.Send(t.Context(), e)
		require.True(t, r.Delivered(), "%+v", r)
		require.Empty(t, r.Err)
		require.True(t, r.Connected)
		require.Equal(t, []string{ID(e)}, far.Received())
		silent(t, ep, &r)
		require.Equal(t, usual, ep.Timeout())
		require.NotEmpty(t, ep.Origin())
		require.Positive(t, ep.BodySize(e))
	})
	t.Run("many events at once are delivered once each", func(t *testing.T) {
		t.Parallel()
		far, _, ep := open(t, usual)
		var all sync.WaitGroup
		want := []string{}
		for i := range byte(100) {
			e := Event(i)
			want = append(want, ID(e))
			all.Go(func() {
				r := ep.Send(t.Context(), e)
				if !r.Delivered() {
					t.Errorf("%+v", r)
				}
			})
		}
		all.Wait()
		require.ElementsMatch(t, want, far.Received())
	})
	t.Run("a single event in a batch is delivered", func(t *testing.T) {
		t.Parallel()
		far, _, ep := open(t, usual)
		r, failed := ep.SendBatch(t.Context(), []*dispatcher.Event{Event(1)})
		require.True(t, r.Delivered(), "%+v", r)
		require.Empty(t, failed)
		require.Len(t, far.Received(), 1)
	})
	t.Run("a refusal fails the attempt, and the next one may be delivered", func(t *testing.T) {
		t.Parallel()
		far, _, ep := open(t, usual)
		far.Reject(t)
		r := ep.Send(t.Context(), Event(1))
		require.False(t, r.Delivered(), "%+v", r)
		require.False(t, r.Hopeless)
		require.NotEmpty(t, r.Err)
		silent(t, ep, &r)
		require.Empty(t, far.Received())
		far.Accept(t)
		r = ep.Send(t.Context(), Event(1))
		require.True(t, r.Delivered(), "%+v", r)
	})
	t.Run("a far end that can take nothing now is ill", func(t *testing.T) {
		t.Parallel()
		far, _, ep := open(t, usual)
		far.Overload(t)
		r := ep.Send(t.Context(), Event(1))
		require.False(t, r.Delivered(), "%+v", r)
		require.False(t, r.Hopeless)
		require.GreaterOrEqual(t, r.Status, 500, "the breaker takes it for ill")
		require.Equal(t, webhook.KindResponse, r.Kind)
		require.NotEmpty(t, r.Err)
		silent(t, ep, &r)
		require.Empty(t, far.Received())
		far.Accept(t)
		r = ep.Send(t.Context(), Event(1))
		require.True(t, r.Delivered(), "%+v", r)
	})
	t.Run("an attempt ends at its time-out", func(t *testing.T) {
		t.Parallel()
		far, _, ep := open(t, time.Second)
		far.Hang(t)
		began := time.Now()
		r := ep.Send(t.Context(), Event(1))
		took := time.Since(began)
		require.Equal(t, webhook.KindTimeout, r.Kind, "%+v", r)
		require.Contains(t, r.Err, "1s")
		require.GreaterOrEqual(t, took, 990*time.Millisecond)
		require.Less(t, took, Patience)
		require.False(t, r.Hopeless)
		silent(t, ep, &r)
	})
	t.Run("an attempt ends when it is canceled, and says why", func(t *testing.T) {
		t.Parallel()
		far, _, ep := open(t, 10*time.Minute)
		far.Hang(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(100*time.Millisecond, func() { cancel(errors.New("somebody wants it")) })
		began := time.Now()
		r := ep.Send(ctx, Event(1))
		require.Less(t, time.Since(began), Patience)
		require.Equal(t, webhook.KindCanceled, r.Kind, "%+v", r)
		require.Contains(t, r.Err, "somebody wants it")
		r = ep.Send(ctx, Event(2))
		require.Equal(t, webhook.KindCanceled, r.Kind, "nothing is sent any more: %+v", r)
		far.Accept(t)
		require.NotContains(t, far.Received(), ID(Event(2)))
	})
	t.Run("an event that is too large is hopeless alone", func(t *testing.T) {
		t.Parallel()
		far, _, ep := open(t, usual)
		e := Event(1)
		e.New = []byte(`{"id": 1, "v": "` + strings.Repeat("x", maxBody) + `"}`)
		r := ep.Send(t.Context(), e)
		require.Equal(t, webhook.KindTooLarge, r.Kind, "%+v", r)
		require.True(t, r.Hopeless)
		require.NotEmpty(t, r.Err)
		r = ep.Send(t.Context(), Event(2))
		require.True(t, r.Delivered(), "%+v", r)
		require.Equal(t, []string{ID(Event(2))}, far.Received())
	})
	t.Run("the guard holds, also for connections that are there", func(t *testing.T) {
		t.Parallel()
		far, d, ep := open(t, usual)
		r := ep.Send(t.Context(), Event(1))
		require.True(t, r.Delivered(), "%+v", r)
		d.SetGuard(dispatcher.Guard{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
		r = ep.Send(t.Context(), Event(2))
		require.Equal(t, webhook.KindDenied, r.Kind, "%+v", r)
		require.Contains(t, r.Err, "127.0.0.1")
		require.Len(t, far.Received(), 1)
		d.SetGuard(dispatcher.Guard{})
		r = ep.Send(t.Context(), Event(2))
		require.True(t, r.Delivered(), "%+v", r)
	})
	t.Run("a far end that is away is refused, and is used again when it is back", func(t *testing.T) {
		t.Parallel()
		far, _, ep := open(t, usual)
		r := ep.Send(t.Context(), Event(1))
		require.True(t, r.Delivered(), "%+v", r)
		far.Leave(t)
		r = ep.Send(t.Context(), Event(2))
		require.Equal(t, webhook.KindRefused, r.Kind, "%+v", r)
		require.False(t, r.Connected)
		silent(t, ep, &r)
		far.Return(t)
		r = ep.Send(t.Context(), Event(2))
		require.True(t, r.Delivered(), "%+v", r)
	})
	t.Run("an endpoint that lacks a variable says so, and sends nothing", func(t *testing.T) {
		t.Parallel()
		far := make(t)
		d, spec := far.Destination(t, maxBody), far.Spec(usual)
		ep, err := d.Endpoint(&spec, trigger.Variables(func(string) (string, bool) { return "", false }))
		require.ErrorContains(t, err, "SECRET")
		require.NotNil(t, ep)
		require.ErrorContains(t, ep.Prepare(), "SECRET")
		require.NotEmpty(t, ep.String())
		require.Equal(t, usual, ep.Timeout())
		r := ep.Send(t.Context(), Event(1))
		require.Equal(t, webhook.KindBadURL, r.Kind, "%+v", r)
		require.Empty(t, far.Received())
	})
}

// Event returns an event whose row has n as its id.
func Event(n byte) *dispatcher.Event {
	return &dispatcher.Event{
		ID: [16]byte{1, 2, 3, 15: n}, CreatedAt: time.Unix(1_700_000_000, 0), Schema: "public", Table: "orders", Trigger: "orders", Op: 'I',
		New: fmt.Appendf(nil, `{"id": %d, "v": "a"}`, n), MaxRetries: 3,
	}
}

// ID is the id of an event as it is sent.
func ID(e *dispatcher.Event) string { return uuid.UUID(e.ID).String() }
