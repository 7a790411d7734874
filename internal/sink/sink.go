// Package sink is a webhook receiver for experiments and tests. It prints deliveries, keeps them,
// and fails on demand.
package sink

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/webapi"
	"github.com/rowhook/rowhook/webhook"
)

// Limits and defaults.
const (
	MaxBody     = 64 << 20 // bytes; a larger request gets status 413
	DefaultKeep = 10_000   // deliveries
	// DefaultKeepBytes bounds the memory of the kept deliveries with their headers and bodies.
	DefaultKeepBytes = 64 << 20

	stopWithin = 5 * time.Second
)

// Sink is a webhook receiver, an http.Handler. Its zero value responds to every event with 200 and
// prints nothing. Fields must not change after it has begun to serve.
//
//	POST   any path       accepts an event, or a batch of events
//	GET    /, /healthz    says that it responds
//	GET    /deliveries    lists deliveries, or waits for some
//	DELETE /deliveries    drops deliveries
//	POST   /verify        judges what has arrived, or what arrives
//	*      /behaviour     rules for the responses
//	GET    /openapi.json  describes all of it
//
// A POST to a path of this list is an event as well, if it is signed or its body is one.
type Sink struct {
	// Behaviour says how it responds to events. Paths overrides it by exact path.
	Behaviour Behaviour
	Paths     map[string]Behaviour
	// Respond, if set, makes the responses, instead of Behaviour and Paths. The delivery is recorded
	// with them. It may be called by several goroutines at once. ctx ends when the sender gives up.
	Respond func(ctx context.Context, d Delivery) Response
	// Secret, if set, is the key that requests must be signed with. Others get status 401.
	Secret string
	// SecretOf returns the key of a trigger, by which Delivery.Signature is judged; "": unknown. No
	// request is rejected for it. Optional.
	SecretOf func(trigger string) string
	// Triggers returns the names of all triggers that there are. Requests of the control interface
	// that name another one are rejected. nil: it is not known which there are.
	Triggers func() []string
	// Keep is the number of deliveries that are kept. 0: DefaultKeep; negative: none.
	Keep int
	// KeepBytes bounds their size in bytes; 0: DefaultKeepBytes. Older deliveries are dropped, even
	// within Keep. The newest one is kept whatever its size.
	KeepBytes int
	// Out gets a text for each delivery, in the format Format. nil: none.
	Out    io.Writer
	Format Format
	// OnDelivery is called with each delivery before the response, by several goroutines at once.
	// Optional.
	OnDelivery func(Delivery)

	journal journal
	rules   rules
	dice    dice       // of Behaviour and Paths; guarded by the journal's mutex
	turns   turns      // of questions
	print   sync.Mutex // one delivery is printed at a time

	controlling atomic.Int64 // requests that are no events
}

// Response is what Sink.Respond responds with.
type Response struct {
	Status int // 0: the connection is closed without a response
	Header http.Header
	Body   []byte
	// Note is recorded with the delivery, such as why there is no response.
	Note string
}

// Counts counts requests since the start or the last Clear.
type Counts struct {
	Requests   int `json:"requests"`   // POSTs of any kind; a batch counts as its events
	Rejected   int `json:"rejected"`   // not an event, or not signed correctly
	Accepted   int `json:"accepted"`   // got a response of 2xx
	Failed     int `json:"failed"`     // failed on purpose: another response, or none
	Events     int `json:"events"`     // different event ids; approximate beyond 262,144
	Duplicates int `json:"duplicates"` // accepted again
}

// ServeHTTP implements http.Handler.
func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost && !isTold(r.Header) {
		s.control(w, r, nil)
		return
	}
	d := Delivery{Path: r.URL.Path, Header: r.Header, reused: reused(r)}
	body, err := readAll(w, r, MaxBody)
	if err == nil && r.Header.Get("Content-Encoding") == "gzip" {
		body, err = decompress(body, MaxBody)
	}
	d.ReceivedAt, d.Body = time.Now(), body
	if err != nil {
		p := unreadable(err)
		if p.Status == http.StatusRequestEntityTooLarge {
			d.Body = nil
		}
		s.reject(w, d, p)
		return
	}
	var events []Delivery
	if isTold(r.Header) {
		err = d.parseTold(r)
	} else if isBatch(body) {
		events, err = d.parseBatch()
	} else {
		err = d.parse()
	}
	switch {
	case err == nil && events != nil:
		s.receiveBatch(w, r, d, events)
	case err == nil:
		s.receive(w, r, d)
	case takesOver(d.Path) && r.Header.Get(webhook.HeaderID) == "":
		s.control(w, r, body)
	default:
		s.reject(w, d, invalid(err.Error(), noEventRemedy(d.Path)))
	}
}

// receive responds to an event.
func (s *Sink) receive(w http.ResponseWriter, r *http.Request, d Delivery) {
	if err := s.checkSignature(&d); err != nil {
		s.reject(w, d, webapi.NewProblem(http.StatusUnauthorized, "unauthorized", err.Error(), "sign requests with the secret of this receiver"))
		return
	}
	rule := s.rules.now().find(&d)
	if rule == nil && s.Respond != nil {
		s.relay(w, r, d)
		return
	}
	b, rolls := s.behaviour(&d, rule)
	act := s.decide(&d, b, rule, rolls)
	s.finish(&d)
	act.respond(w, r, b, s.rules.standing(&d, rule))
}

type connectionKey struct{}

// reused reports whether a request is not the first one of its connection, as far as Serve knows.
func reused(r *http.Request) bool {
	requests, ok := r.Context().Value(connectionKey{}).(*atomic.Int64)
	return ok && requests.Add(1) > 1
}

// readAll reads a body into a slice of its size, since it is kept. The sender's word for the size is
// taken up to a MiB, and for a size above limit, of which nothing is read.
func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	const trusted = 1 << 20
	size, in := r.ContentLength, http.MaxBytesReader(w, r.Body, limit)
	if size > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	if size > 0 && size <= trusted {
		body := make([]byte, size)
		n, err := io.ReadFull(in, body)
		return body[:n], err
	}
	body, err := io.ReadAll(in)
	if err == nil && cap(body) > len(body)+len(body)/8 {
		body = bytes.Clone(body)
	}
	return body, err
}

// errNotGzip is the error of decompress for a body that can't be decompressed.
var errNotGzip = errors.New("the body is not in the format gzip, although its Content-Encoding says so")

// decompress returns what is compressed in body, or an error if that is more than limit.
func decompress(body []byte, limit int64) ([]byte, error) {
	in, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, errNotGzip
	}
	out, err := io.ReadAll(io.LimitReader(in, limit+1))
	switch {
	case err != nil:
		return nil, errNotGzip
	case int64(len(out)) > limit:
		return nil, &http.MaxBytesError{Limit: limit}
	}
	return bytes.Clone(out), nil
}

// unreadable explains an error of readAll or decompress.
func unreadable(err error) *webapi.Problem {
	var tooLarge *http.MaxBytesError
	if errors.Is(err, errNotGzip) {
		return invalid(err.Error(), "compress it, or leave out the header")
	}
	if errors.As(err, &tooLarge) {
		return webapi.NewProblem(http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body has more than %d bytes", tooLarge.Limit), "send less")
	}
	return invalid("the body ended early", "")
}

// behaviour returns what holds for d, and the dice for it.
func (s *Sink) behaviour(d *Delivery, rule *activeRule) (Behaviour, *dice) {
	if rule != nil {
		return rule.Behaviour, &rule.dice
	}
	if b, ok := s.Paths[d.Path]; ok {
		return b, &s.dice
	}
	return s.Behaviour, &s.dice
}

// reject refuses a request. If it is an event, this counts as an attempt of it.
func (s *Sink) reject(w http.ResponseWriter, d Delivery, p *webapi.Problem) {
	d.Status, d.Problem = p.Status, p.Detail
	isEvent := d.Signature != "" // what is none is not checked
	if !isEvent {
		d.Signature = presence(d.Header)
	}
	s.journal.reject(&d, isEvent, s.limits())
	s.finish(&d)
	w.Header().Set("X-Content-Type-Options", "nosniff") // the body may have text of the sender
	p.Write(w)
}

// noEventRemedy says what to do about a POST to path that is not an event.
func noEventRemedy(path string) string {
	if near := suggest.Near(path, []string{"/verify"}, 1); near != nil && near[0] != path {
		return "did you mean " + near[0] + "?"
	}
	return "POST is for events; to ask the receiver use GET /deliveries, POST /verify or PUT /behaviour"
}

// decide counts and keeps the delivery, and returns the response to it.
func (s *Sink) decide(d *Delivery, b Behaviour, rule *activeRule, rolls *dice) action {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	step := s.journal.arrive(d, rule)
	act := b.decide(step, rolls)
	s.journal.settle(d, act.status, s.limits())
	return act
}

// relay has Respond respond.
func (s *Sink) relay(w http.ResponseWriter, r *http.Request, d Delivery) {
	s.journal.mu.Lock()
	s.journal.arrive(&d, nil)
	s.journal.mu.Unlock()
	response := s.Respond(r.Context(), d)
	s.record(&d, response)
	response.write(w)
}

// record keeps a delivery with the response that Respond made.
func (s *Sink) record(d *Delivery, response Response) {
	d.Note = response.Note
	s.journal.mu.Lock()
	s.journal.settle(d, response.Status, s.limits())
	s.journal.mu.Unlock()
	s.finish(d)
}

func (r *Response) write(w http.ResponseWriter) {
	if r.Status == 0 {
		panic(http.ErrAbortHandler) // net/http closes the connection and logs nothing
	}
	for name, values := range r.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.Body)
}

// limits returns what the journal keeps.
func (s *Sink) limits() limits {
	limit := limits{deliveries: s.Keep, bytes: s.KeepBytes}
	if limit.deliveries == 0 {
		limit.deliveries = DefaultKeep
	}
	if limit.bytes == 0 {
		limit.bytes = DefaultKeepBytes
	}
	return limit
}

// finish prints a delivery that the journal holds, calls OnDelivery, and wakes those who wait.
func (s *Sink) finish(d *Delivery) {
	if s.Out != nil {
		text := s.Format.text(d)
		s.print.Lock()
		_, _ = s.Out.Write(text)
		s.print.Unlock()
	}
	if s.OnDelivery != nil {
		s.OnDelivery(*d)
	}
	s.journal.announce()
}

// Counts returns the present counts.
func (s *Sink) Counts() Counts { return s.journal.all().counts }

// Deliveries returns the kept deliveries, oldest first.
func (s *Sink) Deliveries() []Delivery { return s.List(Match{}) }

// Clear drops all deliveries and resets the counts, including the failed attempts of each event. It
// returns how many deliveries it has dropped.
func (s *Sink) Clear() (dropped int) { return s.journal.clear() }

// Wait returns nil when enough returns true for the counts. If ctx ends first, it returns ctx's
// error with the counts.
func (s *Sink) Wait(ctx context.Context, enough func(Counts) bool) error {
	for {
		v := s.journal.since(math.MaxUint64 - 1)
		if enough(v.counts) {
			return nil
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for deliveries: %w; so far %+v", ctx.Err(), v.counts)
		}
	}
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
		Handler:     s,
		BaseContext: func(net.Listener) context.Context { return serving },
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, new(atomic.Int64))
		},
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
