package sink

import (
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Behaviour says how a Sink responds to events. The zero value accepts each event at once, with
// status 200 and the body ok.
type Behaviour struct {
	// Status and BodySize, in bytes, are those of the response to an accepted event. 0: 200, and
	// the body ok.
	Status   int
	BodySize int
	// Delay is the wait before every response.
	Delay time.Duration

	// Fail is the number of attempts of each event that fail before one is accepted. Negative: all
	// attempts fail.
	Fail int
	// FailRate is the share of attempts, 0 to 1, that fail in addition. They are chosen at random,
	// and the same Seed chooses the same ones.
	FailRate float64
	Seed     uint64

	// The following fields say how an attempt fails. Without Hang, CloseConnection and Redirect the
	// response has FailStatus (0: 500). If one of the three is set and Fail and FailRate are 0,
	// every attempt fails.
	FailStatus      int
	Hang            bool   // no response until the sender gives up
	CloseConnection bool   // close the connection without a response
	Redirect        string // respond with 302 to this location, or with FailStatus if that is 3xx
	// RetryAfter, if not 0, is the Retry-After of failed responses: in whole seconds, rounded up,
	// or as a date.
	RetryAfter       time.Duration
	RetryAfterAsDate bool
}

// action is the response to one attempt. status 0: no response.
type action struct {
	status int
	failed bool
}

// decide returns the response to the attempt with the number tries of an event.
func (b Behaviour) decide(tries int, d *dice) action {
	special := b.Hang || b.CloseConnection || b.Redirect != ""
	failed := b.Fail < 0 || tries <= b.Fail ||
		special && b.Fail == 0 && b.FailRate == 0 ||
		b.FailRate > 0 && d.roll(b.Seed) < b.FailRate
	switch {
	case !failed:
		return action{status: orDefault(b.Status, http.StatusOK)}
	case b.Hang || b.CloseConnection:
		return action{failed: true}
	case b.Redirect != "" && b.FailStatus/100 != 3:
		return action{status: http.StatusFound, failed: true}
	}
	return action{status: orDefault(b.FailStatus, http.StatusInternalServerError), failed: true}
}

// respond writes the response, hangs, or closes the connection.
func (a action) respond(w http.ResponseWriter, r *http.Request, b Behaviour) {
	if b.Delay > 0 && !wait(r, b.Delay) {
		panic(http.ErrAbortHandler)
	}
	if a.status == 0 {
		if b.Hang {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler) // net/http closes the connection and logs nothing
	}
	if a.failed && b.Redirect != "" {
		w.Header().Set("Location", b.Redirect)
	}
	if a.failed && b.RetryAfter > 0 {
		w.Header().Set("Retry-After", b.retryAfter(time.Now()))
	}
	body := io.Reader(strings.NewReader("ok\n"))
	switch {
	case a.failed:
		body = strings.NewReader("failing on purpose\n")
	case b.BodySize > 0:
		body = io.LimitReader(filler{}, int64(b.BodySize))
		w.Header().Set("Content-Length", strconv.Itoa(b.BodySize))
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(a.status)
	if a.status != http.StatusNoContent && a.status != http.StatusNotModified {
		_, _ = io.Copy(w, body)
	}
}

func (b Behaviour) retryAfter(now time.Time) string {
	wait := (b.RetryAfter + time.Second - 1).Truncate(time.Second)
	if b.RetryAfterAsDate {
		return now.Add(wait).UTC().Format(http.TimeFormat)
	}
	return strconv.Itoa(int(wait.Seconds()))
}

// wait waits for d. It returns false if the request ends before.
func wait(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

func orDefault(status, otherwise int) int {
	if status == 0 {
		return otherwise
	}
	return status
}

type filler struct{}

func (filler) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// dice is a random sequence for each seed in use.
type dice struct{ bySeed map[uint64]*rand.Rand }

func (d *dice) roll(seed uint64) float64 {
	if d.bySeed == nil {
		d.bySeed = map[uint64]*rand.Rand{}
	}
	if d.bySeed[seed] == nil {
		d.bySeed[seed] = rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // repeatable on purpose
	}
	return d.bySeed[seed].Float64()
}

// attempts counts the arrivals of each event at each path. It keeps one to two million events: when
// the younger million is full, the older one is dropped.
type attempts struct{ young, old map[visit]count }

type visit struct {
	path string
	id   [16]byte
}

type count struct {
	tries    int
	accepted bool
}

const generation = 1 << 20

// next counts an attempt of an event. accepted reports whether an earlier one was accepted.
func (a *attempts) next(path string, id [16]byte) (tries int, accepted bool) {
	key := visit{path, id}
	c, ok := a.young[key]
	if !ok {
		c = a.old[key]
	}
	if a.young == nil || len(a.young) >= generation {
		a.old, a.young = a.young, map[visit]count{}
	}
	c.tries++
	a.young[key] = c
	return c.tries, c.accepted
}

func (a *attempts) accept(path string, id [16]byte) {
	key := visit{path, id}
	c := a.young[key]
	c.accepted = true
	a.young[key] = c
}
