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
	// Body, if set, is the body of every response, instead of BodySize.
	Body string
	// Statuses are those of the responses to the attempts of each event: the first attempt gets the
	// first one, and the last one repeats. Status and Fail then have no effect.
	Statuses []int
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
	if n := len(b.Statuses); n > 0 && !(b.FailRate > 0 && d.roll(b.Seed) < b.FailRate) {
		status := b.Statuses[min(tries, n)-1]
		return action{status: status, failed: status/100 != 2}
	}
	special := b.Hang || b.CloseConnection || b.Redirect != ""
	failed := len(b.Statuses) > 0 || b.Fail < 0 || tries <= b.Fail ||
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

// respond writes the response, hangs, or closes the connection. When the behaviour holds no longer, a
// delay ends, and a connection that hangs is closed.
func (a action) respond(w http.ResponseWriter, r *http.Request, b Behaviour, holds standing) {
	if b.Delay > 0 && !holds.delay(r, b.Delay) {
		panic(http.ErrAbortHandler)
	}
	if a.status == 0 {
		if b.Hang {
			holds.wait(r.Context(), nil)
		}
		panic(http.ErrAbortHandler) // net/http closes the connection and logs nothing
	}
	if b.Redirect != "" && a.status/100 == 3 {
		w.Header().Set("Location", b.Redirect)
	}
	if a.failed && b.RetryAfter > 0 {
		w.Header().Set("Retry-After", b.retryAfter(time.Now()))
	}
	body := io.Reader(strings.NewReader("ok\n"))
	switch {
	case b.Body != "":
		body = strings.NewReader(b.Body)
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

// delay waits for d. It returns false if the request ends before.
func (s standing) delay(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	return s.wait(r.Context(), timer.C)
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
