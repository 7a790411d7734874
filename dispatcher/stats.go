package dispatcher

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rowhook/rowhook/sqlschema"
)

// Stats is how a Dispatcher stands.
type Stats struct {
	Instance int32 // rowhook.instance.id; 0: not started yet
	Started  bool  // connected, registered and the triggers loaded
	Stopping bool
	Polls    bool // Config.NoListen: it has no session that listens and wants none
	Listens  bool // a session listens
	// Registered says that it is in rowhook.instance. While it is not, it claims nothing; it registers again by itself.
	Registered bool
	Silent     bool // writers are silent on this dispatcher's account
	// Claiming is why nothing can be claimed, and Settling why outcomes can't be recorded, for people; "": they can.
	Claiming, Settling string
	// Uncaptured says of which triggers changes are not recorded, as of the last minute.
	Uncaptured []sqlschema.Uncaptured
	// History is why events are settled without history, and HistoryEnds why that will come to be; "": neither.
	History, HistoryEnds string
	PayloadBytes         int64 // of large payloads, in memory
	// NotificationQueue is the share of the server's queue of notifications that is in use, as last seen; nil: not seen yet.
	NotificationQueue *float64
	Triggers          []TriggerStats // by name
}

// TriggerStats is how a trigger stands in one dispatcher.
type TriggerStats struct {
	Name     string
	Paused   bool
	Unable   string // why this dispatcher can't send for it, so that it claims nothing of it; "": it can
	InFlight int    // attempts under way
	Queued   int    // events claimed that wait for a slot
}

// Stats returns how the dispatcher stands. It may be called at any time, and asks the database for nothing.
func (d *Dispatcher) Stats() Stats {
	s := Stats{
		Instance: d.instance.Load(), Stopping: d.stopping.Load(), Polls: d.cfg.NoListen, Silent: d.silent.Load(),
		Claiming: d.claiming.problem(time.Now()), Settling: d.settling.problem(time.Now()),
		Uncaptured: d.uncaptured(), PayloadBytes: d.payload.inUse(), NotificationQueue: d.notices.Load(), Triggers: d.board.stats(),
	}
	s.History, s.HistoryEnds = d.history.problem()
	s.Started = s.Instance != 0
	s.Registered = d.pulse.registered.Load()
	d.signals.mu.Lock()
	s.Listens = d.signals.listen
	d.signals.mu.Unlock()
	return s
}

func (b *board) stats() []TriggerStats {
	b.mu.Lock()
	out := make([]TriggerStats, 0, len(b.lanes))
	for _, l := range b.lanes {
		t := TriggerStats{Name: l.trigger.Spec.Name, Paused: l.trigger.Paused, InFlight: l.inFlight, Queued: l.queued()}
		if l.unable != nil {
			t.Unable = l.unable.Error()
		}
		out = append(out, t)
	}
	b.mu.Unlock()
	slices.SortFunc(out, func(a, b TriggerStats) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// health is whether the statements of a loop get through.
type health struct {
	failure atomic.Pointer[failure] // nil: none
	began   atomic.Int64            // when the statement that is under way began, Unix nanoseconds; 0: none is
}

type failure struct {
	since time.Time
	err   string
}

// hungAfter is how long a statement may take before it counts as stuck: claims and settlements take milliseconds.
const hungAfter = 10 * time.Second

func (h *health) begin(now time.Time) { h.began.Store(now.UnixNano()) }

// ended notes how a statement ended.
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
		return "the database fails since " + f.since.UTC().Format(time.RFC3339) + ": " + f.err
	}
	if began := h.began.Load(); began != 0 && now.Sub(time.Unix(0, began)) > hungAfter {
		return "the database has not answered since " + time.Unix(0, began).UTC().Format(time.RFC3339)
	}
	return ""
}
