package httpapi

import (
	"fmt"
	"net/http"
	"sync"

	"github.com/rowhook/rowhook/internal/webapi"
)

const (
	maxStreams     = 32 // at a time: tails, streams of the status and exports together
	maxStreamsEach = 16 // of one token, so that whoever holds it can't keep all others out
)

// streams counts the open streams by who reads them. Its zero value counts none.
type streams struct {
	mu   sync.Mutex
	open map[string]int // by bearer.actor
	all  int
}

// enter counts a stream of who has sent the request, until leave is called. It returns a problem if
// too many are open.
func (s *streams) enter(r *http.Request) (leave func(), err error) {
	who := bearerOf(r.Context()).actor
	s.mu.Lock()
	defer s.mu.Unlock()
	var full string
	switch {
	case s.open[who] >= maxStreamsEach:
		full = fmt.Sprintf("%d streams are open for this token, which is the limit", maxStreamsEach)
	case s.all >= maxStreams:
		full = fmt.Sprintf("%d streams are open, which is the limit", maxStreams)
	}
	if full != "" {
		return nil, webapi.NewProblem(http.StatusTooManyRequests, "too_many", full, "close one").With("Retry-After", "10")
	}
	if s.open == nil {
		s.open = map[string]int{}
	}
	s.open[who]++
	s.all++
	return func() { s.leave(who) }, nil
}

func (s *streams) leave(who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.open[who]--; s.open[who] == 0 {
		delete(s.open, who)
	}
}
