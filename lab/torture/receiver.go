package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
)

// receiver takes webhooks, remembers every attempt and its response, and misbehaves according to
// its moods. It has a listener for each dispatcher, so that it knows who sent a request.
type receiver struct {
	seed    uint64
	source  string // whose events it gets; "": there is one database
	servers []*http.Server
	serving sync.WaitGroup
	closing chan struct{}

	mu     sync.Mutex
	events map[uuid.UUID]*seen
	moods  map[string]mood // by trigger
	wrong  []string        // bodies that can't be read, or differ from what was written
	alien  []string        // events of another source
	count  int             // attempts
}

// seen is an event that arrived.
type seen struct {
	trigger    string
	op         byte
	id         int64
	old, fresh int64 // versions of the row before and after; 0: none
	sequence   int64
	attempts   []attempt
}

// attempt is one arrival.
type attempt struct {
	op         byte  // as this body says: what earlier events are merged into may differ
	old        int64 // likewise
	slot       int
	number     int  // from 1, as the body says
	with       int  // events in its request
	listed     bool // the answer named this event as failed
	arrived    time.Time
	answered   time.Time // zero: not yet, or never
	status     int       // 0: no answer
	outcome    outcome
	retryAfter time.Duration // that was asked for; 0: none
}

// outcome is how an attempt ended from the receiver's view.
type outcome int

const (
	failed    outcome = iota
	delivered         // a whole response with 2xx was sent
	perhaps           // a response with 2xx was begun
)

// mood is how a receiver misbehaves for a share of the attempts.
type mood struct {
	kind  string
	share float64
	step  time.Duration // of its clock
	until chan struct{} // closed when held attempts are accepted
	// refuses has a receiver that fails answer 404, which no breaker counts.
	refuses bool
	// gone has held attempts answered 410, and not accepted.
	gone bool
	// after is how late a slow receiver accepts attempts.
	after time.Duration
}

// The moods. Each is a kind of fault.
const (
	moodFailing  = "receiver fails"
	moodDown     = "receiver is down" // every attempt fails
	moodHanging  = "receiver hangs"
	moodSeconds  = "retry-after seconds"
	moodDate     = "retry-after date"
	moodReset    = "receiver resets"
	moodDrip     = "receiver drips"
	moodEndless  = "receiver endless"
	moodRedirect = "receiver redirects"
	moodGarbage  = "receiver talks garbage"
	moodGone     = "receiver is gone" // it answers 410, which pauses the trigger
)

// moodHold is no fault: attempts are accepted when the mood's until is closed.
const moodHold = "held"

// moodSlow is no fault either: attempts are accepted after a while.
const moodSlow = "slow"

func newReceiver(seed uint64) *receiver {
	return &receiver{seed: seed, closing: make(chan struct{}), events: map[uuid.UUID]*seen{}, moods: map[string]mood{}}
}

// listen starts a listener for a slot and returns its address.
func (r *receiver) listen(ctx context.Context, slot int) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen for webhooks: %w", err)
	}
	s := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.take(w, req, slot) }),
		ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0), //nolint:forbidigo // http.Server wants one
	}
	r.servers = append(r.servers, s)
	r.serving.Go(func() { _ = s.Serve(l) }) // ends with close
	return l.Addr().String(), nil
}

func (r *receiver) close() {
	close(r.closing)
	for _, s := range r.servers {
		_ = s.Close() // nothing can be lost
	}
	r.serving.Wait()
}

// isGone reports whether a receiver answers 410.
func (r *receiver) isGone(trigger string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.moods[trigger].kind == moodGone || r.moods[trigger].gone
}

// setMood changes the behaviour for a trigger. The zero mood is good.
func (r *receiver) setMood(trigger string, m mood) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moods[trigger] = m
}

// attempts returns how many arrived so far.
func (r *receiver) attempts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// matching counts the events of a trigger for which the function returns true.
func (r *receiver) matching(trigger string, which func(*seen) bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, s := range r.events {
		if s.trigger == trigger && which(s) {
			n++
		}
	}
	return n
}

func (r *receiver) take(w http.ResponseWriter, req *http.Request, slot int) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the request did not arrive whole
	}
	group, m := r.enter(split(body), slot)
	if len(group) == 0 {
		return // the faults of its bodies are noted
	}
	h := group[0].choice
	reply := &reply{w: w, req: req, closing: r.closing, choice: h, note: func(status int, o outcome, retryAfter time.Duration) {
		r.note(group, status, o, retryAfter)
	}}
	switch {
	case m.kind != "" && share(mix(h, 1)) < m.share:
		reply.misbehave(m)
	case slices.ContainsFunc(group, func(a arrival) bool { return a.seen.poisonous() }):
		reply.status(http.StatusUnprocessableEntity)
	case group[0].seen.trigger == bulk && mix(h, 6)%10 == 0:
		r.answerApart(reply, group)
	default:
		reply.behave()
	}
}

// arrival is an event of a request.
type arrival struct {
	id     uuid.UUID
	seen   *seen
	index  int // of its attempt
	choice uint64
}

// enter remembers the events of a request. It returns the mood of the receiver.
func (r *receiver) enter(bodies [][]byte, slot int) (group []arrival, m mood) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, body := range bodies {
		id, s, number, source, err := readEvent(body)
		if source != r.source {
			r.alien = append(r.alien, fmt.Sprintf("event %s of %q arrived at the receiver of %q", id, source, r.source))
		}
		if err != nil {
			r.wrong = append(r.wrong, fmt.Sprintf("event %s: %v", id, err))
		}
		e, known := r.events[id]
		if !known {
			e = &s
			r.events[id] = e
		} else if differs(e, &s) {
			r.wrong = append(r.wrong, fmt.Sprintf("event %s arrived with two different bodies", id))
		}
		if len(bodies) > 1 && (s.trigger != bulk || len(bodies) > bulkMost) {
			r.wrong = append(r.wrong, fmt.Sprintf("event %s of %s arrived with %d others", id, s.trigger, len(bodies)-1))
		}
		group = append(group, arrival{id, e, len(e.attempts), mix(r.seed, uint64(s.id), uint64(s.old), uint64(s.fresh), uint64(number))})
		e.attempts = append(e.attempts, attempt{op: s.op, old: s.old, slot: slot, number: number, with: len(bodies), arrived: now})
		m = r.moods[s.trigger]
	}
	r.count++
	return group, m
}

// note remembers how an attempt ended.
func (r *receiver) note(group []arrival, status int, o outcome, retryAfter time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range group {
		t := &a.seen.attempts[a.index]
		t.answered, t.status, t.outcome, t.retryAfter = time.Now(), status, o, retryAfter
	}
}

// answerApart accepts a part of a batch, or answers with JSON that is cut off, which fails all of it.
func (r *receiver) answerApart(reply *reply, group []arrival) {
	reply.w.Header().Set("Content-Type", "application/json")
	if mix(reply.choice, 7)%4 == 0 {
		reply.note(http.StatusOK, failed, 0)
		_, _ = io.WriteString(reply.w, `{"failed": ["`) // the sender may be gone
		return
	}
	rejected := []string{}
	for _, a := range group {
		if mix(a.choice, 8)%2 == 0 {
			rejected = append(rejected, a.id.String())
			r.note([]arrival{a}, http.StatusOK, failed, 0)
			r.mu.Lock()
			a.seen.attempts[a.index].listed = true
			r.mu.Unlock()
		} else {
			r.note([]arrival{a}, http.StatusOK, delivered, 0)
		}
	}
	_ = json.NewEncoder(reply.w).Encode(map[string][]string{"failed": rejected}) // the sender may be gone
}

// poisonousBelow is the number of the first writer of which the receiver rejects nothing for good.
const poisonousBelow = 50

// poisonous reports whether the receiver rejects an event for good.
func (s *seen) poisonous() bool {
	return s.trigger == bulk && s.id%sourceSpan < poisonousBelow*writerSpan && mix(uint64(s.id), uint64(s.old), uint64(s.fresh), 9)%60 == 0
}

// split returns the events of a body. A batch is an array.
func split(body []byte) [][]byte {
	if !bytes.HasPrefix(body, []byte("[")) {
		return [][]byte{body}
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return [][]byte{body} // which can't be read
	}
	bodies := make([][]byte, len(raw))
	for i := range raw {
		bodies[i] = raw[i]
	}
	return bodies
}

// differs reports whether an event has arrived as another one. In what earlier changes are merged
// into it may differ: after a takeover they may be sent by themselves.
func differs(e, s *seen) bool {
	merged := e.trigger == latest && e.op != 'D' && s.op != 'D'
	return e.id != s.id || e.fresh != s.fresh || e.trigger != s.trigger || e.sequence != s.sequence || !merged && (e.op != s.op || e.old != s.old && e.trigger != latest)
}

// readEvent reads a body.
func readEvent(body []byte) (id uuid.UUID, s seen, number int, source string, err error) {
	var b struct {
		ID       uuid.UUID
		Sequence int64
		Source   string
		Table    struct{ Schema, Name string }
		Trigger  struct{ Name string }
		Event    struct {
			Op   string
			Data struct{ Old, New json.RawMessage }
		}
		Delivery struct {
			Current int `json:"current_retry"`
		} `json:"delivery_info"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return id, s, 0, "", fmt.Errorf("read the body: %w", err)
	}
	s.trigger, s.sequence = b.Trigger.Name, b.Sequence
	old, hadOld, oldErr := readImage(b.Event.Data.Old)
	fresh, hasNew, newErr := readImage(b.Event.Data.New)
	s.old, s.fresh, s.id = old.version, fresh.version, max(old.id, fresh.id)
	switch err = errors.Join(oldErr, newErr); {
	case err != nil:
	case hadOld && hasNew && old.id != fresh.id:
		err = errors.New("old and new are different rows")
	case b.Event.Op == "INSERT" && !hadOld && hasNew, b.Event.Op == "UPDATE" && hadOld && hasNew,
		b.Event.Op == "DELETE" && hadOld && !hasNew, b.Event.Op == "MANUAL" && !hadOld && hasNew:
		s.op = b.Event.Op[0]
	default:
		err = fmt.Errorf("%s with old %t and new %t", b.Event.Op, hadOld, hasNew)
	}
	if ordersByKey(s.trigger) && s.op != 'M' && s.sequence == 0 && err == nil {
		err = errors.New("the body has no sequence")
	}
	if t := tableOf(s.trigger); err == nil && (b.Table.Schema != "public" || b.Table.Name != t) {
		err = fmt.Errorf("table %s.%s instead of %s", b.Table.Schema, b.Table.Name, t)
	}
	return b.ID, s, b.Delivery.Current + 1, b.Source, err
}

// reply is the response to one attempt.
type reply struct {
	w       http.ResponseWriter
	req     *http.Request
	closing <-chan struct{}
	choice  uint64
	note    func(status int, o outcome, retryAfter time.Duration) // called before the response is sent
}

// behave accepts after a short delay. It rejects one attempt in a hundred.
func (r *reply) behave() {
	delay := time.Duration(mix(r.choice, 2)%20) * time.Millisecond
	if mix(r.choice, 3)%20 == 0 {
		delay = 100*time.Millisecond + 15*delay
	}
	if !r.wait(delay) {
		return
	}
	if mix(r.choice, 4)%100 == 0 {
		r.status(http.StatusInternalServerError)
		return
	}
	r.accept()
}

func (r *reply) accept() {
	r.note(http.StatusOK, delivered, 0)
	r.w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(r.w, `{"ok":true}`) // the sender may be gone
}

// wait waits for a time. It returns false if the sender went away.
func (r *reply) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.req.Context().Done():
	case <-r.closing:
	}
	return false
}

func (r *reply) status(code int) {
	r.note(code, failed, 0)
	r.w.WriteHeader(code)
}

func (r *reply) misbehave(m mood) {
	switch m.kind {
	case moodFailing:
		if m.refuses {
			r.status(http.StatusNotFound)
			return
		}
		r.status([]int{500, 502, 429, 404, 418}[mix(r.choice, 5)%5])
	case moodDown:
		r.status(http.StatusServiceUnavailable)
	case moodGone:
		r.status(http.StatusGone)
	case moodHold:
		select {
		case <-m.until:
			if m.gone {
				r.status(http.StatusGone)
				return
			}
			r.accept()
		case <-r.req.Context().Done():
		case <-r.closing:
		}
	case moodSlow:
		if r.wait(m.after) {
			r.accept()
		}
	case moodHanging:
		r.wait(time.Hour)
		panic(http.ErrAbortHandler)
	case moodSeconds:
		seconds := int(mix(r.choice, 5)%2) + 1
		r.note(http.StatusServiceUnavailable, failed, time.Duration(seconds)*time.Second)
		r.w.Header().Set("Retry-After", strconv.Itoa(seconds))
		r.w.WriteHeader(http.StatusServiceUnavailable)
	case moodDate:
		r.note(http.StatusTooManyRequests, failed, 0)
		r.w.Header().Set("Retry-After", time.Now().Add(m.step+time.Duration(mix(r.choice, 5)%3)*time.Second).UTC().Format(http.TimeFormat))
		r.w.WriteHeader(http.StatusTooManyRequests)
	case moodRedirect:
		r.w.Header().Set("Location", "/elsewhere")
		r.status(http.StatusTemporaryRedirect)
	case moodReset, moodGarbage:
		r.hijacked(m.kind)
	case moodDrip:
		r.drip()
	case moodEndless:
		r.endless()
	}
}

func (r *reply) hijacked(kind string) {
	conn, buffered, err := http.NewResponseController(r.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	if kind == moodGarbage {
		r.garbage(buffered)
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // the connection then ends with RST
	}
}

func (r *reply) garbage(to *bufio.ReadWriter) {
	_, _ = to.WriteString("SSH-2.0-OpenSSH_9.2\r\n\x00\xff\r\n\r\n") // the sender may be gone
	_ = to.Flush()
}

// drip sends a response that takes longer than any timeout. The status arrives in time, so the
// event counts as delivered.
func (r *reply) drip() {
	r.note(http.StatusOK, perhaps, 0)
	r.w.Header().Set("Content-Length", "100000")
	out := http.NewResponseController(r.w)
	for r.wait(50 * time.Millisecond) {
		if _, err := r.w.Write([]byte{'.'}); err != nil {
			return
		}
		_ = out.Flush() // the next write fails as well
	}
	panic(http.ErrAbortHandler)
}

// endless sends a response that never ends.
func (r *reply) endless() {
	r.note(http.StatusOK, perhaps, 0)
	chunk := make([]byte, 8<<10)
	for {
		if _, err := r.w.Write(chunk); err != nil {
			return
		}
		select {
		case <-r.closing:
			return
		default:
		}
	}
}
