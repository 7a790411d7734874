package rowhooktest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/sink"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// Handle has a handler respond to the events of the trigger with this name; "": of all that have none of their own.
// So the program's own receiver is tested, too. The handler gets the requests as they were sent,
// under the path and the query of the configured URL. They are signed with [Harness.Secret]. Statuses
// of [Harness.Respond] go before the handler.
func (h *Harness) Handle(name string, handler http.Handler) {
	h.t.Helper()
	h.mustMeet(h.t, "Handle", name, nil)
	h.receiver.handlers.set(name, handler)
}

// Secret returns the secret that the requests of a trigger are signed with, for the receiver under
// test: as the configuration says or, where its variables are not set, one that is made up; "": they
// are not signed.
func (h *Harness) Secret(trigger string) string {
	h.t.Helper()
	h.mustMeet(h.t, "Secret", trigger, nil)
	return sandbox.Secrets(h.settings.triggers, sandbox.Variables(h.receiver.url, h.settings.secret, h.settings.source))[trigger]
}

// handlers respond to events. Without one, an event gets a 200.
type handlers struct {
	paths map[string]string // of the configured URLs, by trigger

	mu        sync.Mutex
	byTrigger map[string]http.Handler
}

// paths returns the paths with the queries of the configured URLs. A variable that is not set counts as
// empty, so ${ORDERS_URL}/hooks/orders has the path /hooks/orders.
func (in *installation) paths() map[string]string {
	orEmpty := func(name string) (string, error) {
		value, _ := in.source(name)
		return value, nil
	}
	paths := map[string]string{}
	for _, s := range in.config.Triggers {
		paths[s.Name] = "/"
		if template.HasData(s.Webhook.URL) { // each request has its own
			continue
		}
		text, err := trigger.Expand(s.Webhook.URL, orEmpty)
		if err != nil {
			continue
		}
		if u, err := url.Parse(text); err == nil && strings.HasPrefix(u.RequestURI(), "/") {
			paths[s.Name] = u.RequestURI()
		}
	}
	return paths
}

func (h *handlers) set(trigger string, handler http.Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byTrigger == nil {
		h.byTrigger = map[string]http.Handler{}
	}
	h.byTrigger[trigger] = handler
}

func (h *handlers) of(trigger string) http.Handler {
	h.mu.Lock()
	defer h.mu.Unlock()
	if handler := h.byTrigger[trigger]; handler != nil {
		return handler
	}
	return h.byTrigger[""]
}

// respond has the handler of a delivery's trigger respond. A handler that panics responds with 500.
func (h *handlers) respond(ctx context.Context, d sink.Delivery) (response sink.Response) {
	handler := h.of(d.Trigger)
	if handler == nil {
		return sink.Response{Status: http.StatusOK, Body: []byte("ok\n")}
	}
	path := d.Target(h.paths[d.Trigger])
	header, body := d.ToPassOn()
	r, err := http.NewRequestWithContext(ctx, cmp.Or(d.Method, http.MethodPost), path, bytes.NewReader(body))
	if err != nil {
		return sink.Response{Status: http.StatusInternalServerError, Note: err.Error()}
	}
	r.Header, r.RequestURI, r.RemoteAddr = header, path, "127.0.0.1:0"
	defer func() {
		if p := recover(); p != nil {
			response = sink.Response{Status: http.StatusInternalServerError, Note: fmt.Sprintf("the handler panicked: %v", p)}
		}
	}()
	w := &answer{header: http.Header{}}
	handler.ServeHTTP(w, r)
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return sink.Response{Status: w.status, Header: w.header, Body: w.body.Bytes()}
}
