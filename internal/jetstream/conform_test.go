package jetstream_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	library "github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/jetstream"
	"github.com/rowhook/rowhook/trigger"
)

func TestNATSConforms(t *testing.T) {
	t.Parallel()
	dispatchtest.Conform(t, func(t *testing.T) dispatchtest.FarEnd {
		t.Helper()
		far := &farServer{natsServer: newServer(t, func(o *server.Options) { o.Authorization = dispatchtest.Secret })}
		far.nc, far.js = client(t, far.url(), nats.Token(dispatchtest.Secret))
		far.test = t
		far.Accept(t)
		return far
	})
}

// farServer is a server as a far end, which asks for a token. Events go to its stream ORDERS.
type farServer struct {
	*natsServer
	test *testing.T
	nc   *nats.Conn
	js   library.JetStream
	hung *nats.Subscription
}

func (f *farServer) Destination(t *testing.T, maxBody int64) dispatcher.Destination {
	t.Helper()
	d := new(jetstream.Connections).Destination(dispatcher.DestinationConfig{MaxBody: int(maxBody)})
	t.Cleanup(d.Close)
	return d
}

func (f *farServer) Spec(timeout time.Duration) trigger.Spec {
	spec := trigger.DefaultSpec()
	spec.Name, spec.Table, spec.Webhook = "orders", "public.orders", trigger.Webhook{}
	spec.NATS = trigger.NATS{
		URL: f.url(), Subject: "orders.$new.id", Stream: "ORDERS", Token: "${SECRET}", Headers: map[string]string{"X-Secret": "${SECRET}"},
		Timeout: trigger.Duration(timeout),
	}
	return spec
}

func (f *farServer) Received() (ids []string) {
	for _, m := range messages(f.test, f.js, "ORDERS") {
		if id := m.Header.Get("Nats-Msg-Id"); id != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

func (f *farServer) drop(t *testing.T, name string) {
	t.Helper()
	if err := f.js.DeleteStream(t.Context(), name); err != nil {
		require.ErrorIs(t, err, library.ErrStreamNotFound)
	}
}

func (f *farServer) Accept(t *testing.T) {
	t.Helper()
	if f.hung != nil {
		require.NoError(t, f.hung.Unsubscribe())
		require.NoError(t, f.nc.Flush())
		f.hung = nil
	}
	f.drop(t, "OTHER")
	stream(t, f.js, "ORDERS")
}

func (f *farServer) Reject(t *testing.T) {
	t.Helper()
	f.drop(t, "ORDERS")
	stream(t, f.js, "OTHER", func(c *library.StreamConfig) { c.Subjects = []string{"orders.>"} })
}

func (f *farServer) Overload(t *testing.T) {
	t.Helper()
	_, err := f.js.Publish(t.Context(), "orders.filler", nil)
	require.NoError(t, err)
	stream(t, f.js, "ORDERS", func(c *library.StreamConfig) { c.MaxMsgs, c.Discard = 1, library.DiscardNew })
}

func (f *farServer) Hang(t *testing.T) {
	t.Helper()
	f.drop(t, "ORDERS")
	var err error
	f.hung, err = f.nc.SubscribeSync("orders.>")
	require.NoError(t, err)
	require.NoError(t, f.nc.Flush())
}

func (f *farServer) Leave(*testing.T) { f.stop() }

func (f *farServer) Return(t *testing.T) {
	t.Helper()
	f.start(t)
	require.Eventually(t, f.nc.IsConnected, patience, 10*time.Millisecond)
	require.Eventually(t, func() bool { _, err := f.js.Stream(t.Context(), "ORDERS"); return err == nil }, patience, 10*time.Millisecond)
}
