package dispatcher

import (
	"time"

	"github.com/rowhook/rowhook/sqlschema"
)

// Stats is how a Dispatcher stands.
type Stats struct {
	Instance int32  // rowhook.instance.id; 0: not started yet
	Name     string // of the instance: Config.Name, or its default
	Started  bool   // connected, registered and the triggers loaded
	Stopping bool
	Polls    bool // Config.NoListen is set: no session listens, and none will
	Listens  bool // a session listens
	// Registered says that it is in rowhook.instance. While it is not, it claims nothing. It
	// registers again by itself.
	Registered bool
	Instances  int  // that are registered and not dead, this one included, as last seen; 0: not seen yet
	Silent     bool // writers are silent on this dispatcher's account
	// Claiming is why nothing can be claimed, and Settling why outcomes can't be recorded, for
	// people; "": they can.
	Claiming, Settling string
	// Schema is the version of the schema rowhook, as last seen; 0: not seen yet. Unworkable is why this
	// program can't work on it, for people; "": it can.
	Schema     int32
	Unworkable string
	// Uncaptured lists triggers whose changes are not captured, as of the last minute.
	Uncaptured []sqlschema.Uncaptured
	// History is why events are settled without history. HistoryEnds is why they soon will be. "":
	// they are not, and will not be.
	History, HistoryEnds string
	PayloadBytes         int64 // of large payloads, in memory
	// NotificationQueue is the share of the server's queue of notifications that is in use, as last
	// seen; nil: not seen yet.
	NotificationQueue *float64
	Triggers          []TriggerStats // by name

	// Standby says that no dispatcher runs here, since other processes serve the database. Processes is
	// how many are there, this one included, and Serving how many of them serve it. They are set by who
	// runs dispatchers for several processes; those of a Dispatcher are zero.
	Standby            bool
	Processes, Serving int
}

// TriggerStats is how a trigger stands in one dispatcher.
type TriggerStats struct {
	Name     string
	Paused   bool
	Unable   string // why this dispatcher can't send for it, and so claims nothing; "": it can
	Failing  bool   // its endpoint or its host fails, so that its events wait
	InFlight int    // attempts under way
	Queued   int    // claimed events that wait for a slot
}

// Stats returns how the dispatcher stands. It may be called at any time. It sends nothing to the
// database.
func (d *Dispatcher) Stats() Stats {
	s := Stats{
		Instance: d.instance.Load(), Name: d.cfg.Name, Stopping: d.stopping.Load(), Polls: d.cfg.NoListen, Silent: d.claimer.silent.Load(),
		Claiming: d.claimer.health.problem(time.Now()), Settling: d.settler.health.problem(time.Now()),
		Uncaptured: d.captures.uncaptured(), PayloadBytes: d.payloads.room.inUse(d.self), NotificationQueue: d.notifications.usage.Load(), Triggers: d.scheduler.stats(),
	}
	s.History, s.HistoryEnds = d.history.problem()
	if s.Claiming == "" {
		s.Claiming = d.taker.health.problem(time.Now())
	}
	if problem := d.db.schema.unworkable(); problem != nil {
		s.Unworkable = problem.Error()
		s.Claiming = s.Unworkable
	}
	s.Schema = d.db.schema.version.Load()
	s.Started = s.Instance != 0
	s.Registered = d.pulse.registered.Load()
	s.Listens = d.inbox.listening()
	s.Instances = d.scheduler.aliveInstances()
	return s
}
