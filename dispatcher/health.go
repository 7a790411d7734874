package dispatcher

import (
	"sync/atomic"
	"time"
)

// health is whether the statements of a loop get through.
type health struct {
	failure atomic.Pointer[failure] // nil: none
	// began is when the statement that is under way began, in Unix nanoseconds; 0: none is.
	began atomic.Int64
}

type failure struct {
	since time.Time
	err   string
}

// hungAfter is how long a statement may take before it counts as stuck. Claims and settlements take
// milliseconds.
const hungAfter = 10 * time.Second

func (h *health) begin(now time.Time) { h.began.Store(now.UnixNano()) }

// ended records how a statement ended.
func (h *health) ended(err error) {
	h.began.Store(0)
	switch {
	case err != nil && h.failure.Load() == nil:
		h.failure.Store(&failure{time.Now(), err.Error()})
	case err == nil && h.failure.Load() != nil:
		h.failure.Store(nil)
	}
}

func (h *health) problem(now time.Time) string {
	if f := h.failure.Load(); f != nil {
		return "database statements have failed since " + f.since.UTC().Format(time.RFC3339) + ": " + f.err
	}
	if began := h.began.Load(); began != 0 && now.Sub(time.Unix(0, began)) > hungAfter {
		return "the database has not answered since " + time.Unix(0, began).UTC().Format(time.RFC3339)
	}
	return ""
}
