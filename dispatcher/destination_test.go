package dispatcher_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

func TestWebhooksConform(t *testing.T) {
	t.Parallel()
	dispatchtest.Conform(t, func(t *testing.T) dispatchtest.FarEnd {
		far := &farReceiver{address: "127.0.0.1:0"}
		far.Return(t)
		t.Cleanup(func() { far.Leave(t) })
		return far
	})
}

// farReceiver is a receiver as a far end.
type farReceiver struct {
	address string
	server  *http.Server
	served  chan struct{}
	client  *webhook.Client

	mu     sync.Mutex
	taken  []string
	answer func(w http.ResponseWriter, r *http.Request) // nil: it takes events
}

func (f *farReceiver) Destination(t *testing.T, maxBody int64) dispatcher.Destination {
	t.Helper()
	f.client = webhook.NewClient(webhook.ClientConfig{MaxRequestBody: int(maxBody)})
	d := dispatcher.NewWebhooks(f.client)
	t.Cleanup(d.Close)
	return d
}

func (f *farReceiver) Spec(timeout time.Duration) trigger.Spec {
	spec := trigger.DefaultSpec()
	spec.Name, spec.Table = "orders", "public.orders"
	spec.Webhook.URL, spec.Webhook.Timeout = "http://"+f.address+"/hook", trigger.Duration(timeout)
	spec.Webhook.Headers = map[string]string{"X-Secret": "${SECRET}"}
	return spec
}

func (f *farReceiver) Received() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.taken...)
}

func (f *farReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	answer := f.answer
	if answer == nil {
		f.taken = append(f.taken, idsIn(body)...)
	}
	f.mu.Unlock()
	if answer != nil {
		answer(w, r)
	}
}

// idsIn returns the id of a body, or those of a batch.
func idsIn(body []byte) (ids []string) {
	type event struct{ ID string }
	var all []event
	if json.Unmarshal(body, &all) != nil {
		all = make([]event, 1)
		if json.Unmarshal(body, &all[0]) != nil {
			return nil
		}
	}
	for _, e := range all {
		ids = append(ids, e.ID)
	}
	return ids
}

func (f *farReceiver) set(answer func(w http.ResponseWriter, r *http.Request)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *farReceiver) Accept(*testing.T) { f.set(nil) }

func (f *farReceiver) Reject(*testing.T) {
	f.set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo", r.Header.Get("X-Secret"))
		http.Error(w, "not "+r.Header.Get("X-Secret"), http.StatusUnprocessableEntity)
	})
}

func (f *farReceiver) Overload(*testing.T) {
	f.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
}

func (f *farReceiver) Hang(*testing.T) {
	f.set(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

func (f *farReceiver) Leave(t *testing.T) {
	t.Helper()
	if f.server == nil {
		return
	}
	require.NoError(t, f.server.Close())
	<-f.served
	f.server = nil
}

func (f *farReceiver) Return(t *testing.T) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", f.address)
	require.NoError(t, err)
	f.address = l.Addr().String()
	server, served := &http.Server{Handler: f, ReadHeaderTimeout: time.Minute}, make(chan struct{})
	f.server, f.served = server, served
	go func() { defer close(served); _ = server.Serve(l) }()
}
