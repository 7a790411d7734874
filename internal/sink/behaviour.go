package sink

import (
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Behaviour is how events are answered. The zero value accepts each at once, with 200 and the body ok.
type Behaviour struct {
	// Status and BodySize (in bytes) of the answer to an event that is accepted. 0: 200, and the body ok.
	Status   int
	BodySize int
	// Delay comes before every answer.
	Delay time.Duration

	// Fail is how many attempts of each event fail before one is accepted. Negative: all of them.
	Fail int
	// FailRate is the part of attempts, 0 to 1, that fail in addition, chosen at random but the same for the same Seed.
	FailRate float64
	Seed     uint64

	// How an attempt fails. With neither Hang, CloseConnection nor Redirect it is answered FailStatus (0: 500). If one of
	// these is set and both Fail and FailRate are 0, every attempt fails.
	FailStatus      int
	Hang            bool   // no answer until the sender gives up
	CloseConnection bool   // the connection is closed without an answer
	Redirect        string // answered 302 to this location, or FailStatus if that is 3xx
	// RetryAfter, if not 0, is asked for in failures that are answered: in whole seconds, rounded up, or as a date.
	RetryAfter       time.Duration
	RetryAfterAsDate bool
}

// action is what happens to one attempt. status 0: no answer.
type action struct {
	status int
	failed bool
}

// decide says what happens to the attempt that is the tries-th of its event.
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

// answer writes the response, or whatever happens in its place.
func (a action) answer(w http.ResponseWriter, r *http.Request, b Behaviour) {
	if b.Delay > 0 && !wait(r, b.Delay) {
		panic(http.ErrAbortHandler)
	}
	if a.status == 0 {
		if b.Hang {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler) // net/http closes the connection, and logs nothing
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

// wait reports false if the request ended before d was over.
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

// dice holds a random sequence for each seed in use.
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

// attempts remembers how often each event came, at each path. It holds one to two million events: the older million
// is dropped when the younger one is full.
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

// next counts one more attempt of an event, and says whether an earlier one was accepted.
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
