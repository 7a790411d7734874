// Package sink is a webhook receiver for experiments and tests. It prints deliveries, keeps them,
// and fails on demand.
package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/rowhook/rowhook/webhook"
)

// Limits and defaults.
const (
	MaxBody     = 64 << 20 // bytes; a larger request gets status 413
	DefaultKeep = 1000     // deliveries

	keptBytes  = 64 << 20 // greatest size of all kept bodies; older deliveries are dropped, even within Keep
	stopWithin = 5 * time.Second
)

// Sink is a webhook receiver, an http.Handler. Its zero value responds to every event with 200 and
// prints nothing. Fields must not change after it has begun to serve.
//
//	POST   any path     accepts an event
//	GET    /, /healthz  responds with ok
//	GET    /deliveries  returns the last deliveries and the counts as JSON; ?last=N limits them
//	DELETE /deliveries  drops the deliveries and resets the counts
type Sink struct {
	// Behaviour says how it responds to events. Paths overrides it by exact path.
	Behaviour Behaviour
	Paths     map[string]Behaviour
	// Secret, if set, is the key that requests must be signed with. Others get status 401.
	Secret string
	// Keep is the number of deliveries that are kept. 0: DefaultKeep; negative: none.
	Keep int
	// Out gets a text for each delivery, in the format Format. nil: none.
	Out    io.Writer
	Format Format
	// OnDelivery is called with each delivery before the response, by several goroutines at once.
	// Optional.
	OnDelivery func(Delivery)

	mu      sync.Mutex
	counts  Counts
	kept    []Delivery
	bytes   int
	seen    attempts
	dice    dice
	changed chan struct{} // closed by the next delivery; nil: nobody waits
}

// Counts counts requests since the start or the last Clear.
type Counts struct {
	Requests   int `json:"requests"`   // POSTs of any kind
	Rejected   int `json:"rejected"`   // not an event, or not signed correctly
	Accepted   int `json:"accepted"`   // got a response of 2xx
	Failed     int `json:"failed"`     // failed on purpose: another response, or none
	Events     int `json:"events"`     // different event ids; approximate beyond two million
	Duplicates int `json:"duplicates"` // accepted again
}

// ServeHTTP implements http.Handler.
func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case r.Method == http.MethodPost:
		s.receive(w, r)
	case read && (r.URL.Path == "/" || r.URL.Path == "/healthz"):
		_, _ = io.WriteString(w, "ok\n")
	case read && r.URL.Path == "/deliveries":
		s.list(w, r)
	case r.Method == http.MethodDelete && r.URL.Path == "/deliveries":
		s.Clear()
		w.WriteHeader(http.StatusNoContent)
	case read:
		http.Error(w, "not found: POST events to any path, and GET /deliveries to see them", http.StatusNotFound)
	default:
		w.Header().Set("Allow", "POST, GET")
		http.Error(w, "send events with POST", http.StatusMethodNotAllowed)
	}
}

func (s *Sink) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	d := Delivery{ReceivedAt: time.Now(), Path: r.URL.Path, Header: r.Header, Body: body}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		s.reject(w, d, http.StatusRequestEntityTooLarge, fmt.Errorf("the body has more than %d bytes", MaxBody))
		return
	case err != nil:
		s.reject(w, d, http.StatusBadRequest, errors.New("the body ended early"))
		return
	}
	if err := d.parse(); err != nil {
		s.reject(w, d, http.StatusBadRequest, err)
		return
	}
	if s.Secret != "" {
		if err := webhook.Verify(s.Secret, r.Header, body, d.ReceivedAt); err != nil {
			s.reject(w, d, http.StatusUnauthorized, err)
			return
		}
	}
	behaviour, ok := s.Paths[r.URL.Path]
	if !ok {
		behaviour = s.Behaviour
	}
	act := s.decide(&d, behaviour)
	s.finish(d)
	act.respond(w, r, behaviour)
}

func (s *Sink) reject(w http.ResponseWriter, d Delivery, status int, err error) {
	d.Status, d.Problem = status, err.Error()
	s.mu.Lock()
	s.counts.Requests++
	s.counts.Rejected++
	s.mu.Unlock()
	s.finish(d)
	http.Error(w, err.Error(), status)
}

// decide counts the delivery and returns the response to it.
func (s *Sink) decide(d *Delivery, b Behaviour) action {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Requests++
	tries, accepted := s.seen.next(d.Path, d.key)
	d.Attempt = tries
	if tries == 1 {
		s.counts.Events++
	}
	act := b.decide(tries, &s.dice)
	d.Status = act.status
	if act.status/100 != 2 {
		s.counts.Failed++
		return act
	}
	s.counts.Accepted++
	if accepted {
		d.Duplicate = true
		s.counts.Duplicates++
	}
	s.seen.accept(d.Path, d.key)
	return act
}

// finish keeps and prints a delivery, calls OnDelivery, and wakes calls of Wait.
func (s *Sink) finish(d Delivery) {
	keep := s.Keep
	if keep == 0 {
		keep = DefaultKeep
	}
	var text []byte
	if s.Out != nil {
		text = s.Format.text(&d)
	}
	s.mu.Lock()
	s.kept = append(s.kept, d)
	s.bytes += len(d.Body)
	for len(s.kept) > 0 && (len(s.kept) > keep || s.bytes > keptBytes) {
		s.bytes -= len(s.kept[0].Body)
		s.kept[0] = Delivery{}
		s.kept = s.kept[1:]
	}
	if s.Out != nil {
		_, _ = s.Out.Write(text)
	}
	s.mu.Unlock()
	if s.OnDelivery != nil {
		s.OnDelivery(d)
	}
	s.mu.Lock()
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	s.mu.Unlock()
}

// Counts returns the present counts.
func (s *Sink) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Deliveries returns the kept deliveries, oldest first.
func (s *Sink) Deliveries() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Delivery(nil), s.kept...)
}

// Clear drops all deliveries and resets the counts, including the failed attempts of each event.
func (s *Sink) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept, s.bytes, s.counts, s.seen = nil, 0, Counts{}, attempts{}
}

// Wait returns nil when enough returns true for the counts. If ctx ends first, it returns ctx's
// error with the counts.
func (s *Sink) Wait(ctx context.Context, enough func(Counts) bool) error {
	for {
		s.mu.Lock()
		counts := s.counts
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		if enough(counts) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for deliveries: %w; so far %+v", ctx.Err(), counts)
		}
	}
}

func (s *Sink) list(w http.ResponseWriter, r *http.Request) {
	all := s.Deliveries()
	if text := r.URL.Query().Get("last"); text != "" {
		last, err := strconv.Atoi(text)
		if err != nil || last < 0 {
			http.Error(w, "last is not a whole number of 0 or more: write /deliveries?last=10", http.StatusBadRequest)
			return
		}
		all = all[max(0, len(all)-last):]
	}
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	_ = out.Encode(struct {
		Counts
		Deliveries []Delivery `json:"deliveries"`
	}{s.Counts(), append([]Delivery{}, all...)})
}

// Run listens on address, HOST:PORT, and serves until ctx ends; see Serve.
func (s *Sink) Run(ctx context.Context, address string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	return s.Serve(ctx, l)
}

// Serve serves on l until ctx ends, and closes l. Then it finishes requests in flight, cuts off
// those that hang or are delayed on purpose, and returns nil.
func (s *Sink) Serve(ctx context.Context, l net.Listener) error {
	serving, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	server := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return serving },
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       5 * time.Minute, // longer than the sender's timeout, so that the sender closes first
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	cut()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	err := server.Shutdown(grace)
	if serveErr := <-ended; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("stop serving on %s: %w", l.Addr(), err), server.Close())
	}
	return nil
}
