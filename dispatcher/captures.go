package dispatcher

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
)

// captures is whether the watched tables are captured as configured. A change that is not captured
// shows nowhere else: there is no event that could wait or fail.
type captures struct {
	db  *database
	log *slog.Logger

	mu      sync.Mutex
	lacking []sqlschema.Uncaptured // as last logged
	looked  bool                   // lacking is known
	refused string                 // why new tables could not be watched, as last logged
	// changed holds a token if a new configuration was loaded since the last look.
	changed chan struct{}
}

// confirmAfter is how long a fault has to last before it is logged. An apply that moves a trigger
// takes it off one table before it makes it on the other.
const confirmAfter = 2 * time.Second

// look compares the catalog with the configuration. It logs once when a fault begins, and once when
// it ends.
func (c *captures) look(ctx context.Context) {
	if c.db.schema.standsStill() {
		return
	}
	found, err := c.find(ctx)
	if err == nil && slices.ContainsFunc(found, func(u sqlschema.Uncaptured) bool { return u.Unwatched }) && c.follow(ctx) {
		found, err = c.find(ctx)
	}
	if err == nil && len(without(found, c.uncaptured())) > 0 {
		timer := time.NewTimer(confirmAfter)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		first := found
		found, err = c.find(ctx)
		found = slices.DeleteFunc(found, func(u sqlschema.Uncaptured) bool {
			return !slices.Contains(first, u) && !slices.Contains(c.uncaptured(), u)
		})
	}
	if err != nil {
		if ctx.Err() == nil {
			c.log.Error("can't check whether the watched tables are captured; retrying", "in", tidyEvery, "error", queue.ExplainHidden(err))
		}
		return
	}
	c.mu.Lock()
	before := c.lacking
	c.lacking, c.looked = found, true
	c.mu.Unlock()
	for _, u := range without(found, before) {
		c.log.Error("changes of a watched table are not captured: "+u.Problem, "trigger", u.Trigger, "remedy", u.Remedy)
	}
	for _, u := range without(before, found) {
		if !slices.ContainsFunc(found, func(f sqlschema.Uncaptured) bool { return f.Trigger == u.Trigger }) {
			c.log.Info("changes of the watched table are captured again", "trigger", u.Trigger)
		}
	}
}

// followFor bounds how long tables that triggers follow may keep the maintenance from the rest.
const followFor = 30 * time.Second

// follow has triggers watch the tables that have come to match, if this role may do that. It
// returns whether one is watched now.
func (c *captures) follow(ctx context.Context) bool {
	if c.db.pooled { // an advisory lock of a session is of no use through it
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, followFor)
	defer cancel()
	var joined []sqlschema.Joined
	conn, err := c.db.writes.Acquire(ctx)
	if err == nil {
		joined, _, err = sqlschema.Applier{Patience: followFor / 4}.Follow(ctx, conn.Conn(), c.log)
		conn.Release()
	}
	for _, j := range joined {
		c.log.Info("a new table is watched", "trigger", j.Trigger, "table", j.Table)
	}
	why := ""
	if err != nil {
		why = err.Error()
	}
	c.mu.Lock()
	before := c.refused
	c.refused = why
	c.mu.Unlock()
	if why != "" && why != before && ctx.Err() == nil {
		c.log.Warn("can't watch a new table", "error", err, "remedy", `run "rowhook apply"`)
	}
	return len(joined) > 0
}

func (c *captures) find(ctx context.Context) ([]sqlschema.Uncaptured, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if err := queue.CheckVisible(ctx, c.db.writes); err != nil {
		return nil, err
	}
	return sqlschema.FindUncaptured(ctx, c.db.writes)
}

// uncaptured returns the faults that look found last.
func (c *captures) uncaptured() []sqlschema.Uncaptured {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lacking)
}

// known returns the faults, and whether anything is known of them.
func (c *captures) known() (faults []sqlschema.Uncaptured, looked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lacking), c.looked
}

// without returns those of all that are not among the others.
func without(all, others []sqlschema.Uncaptured) []sqlschema.Uncaptured {
	return slices.DeleteFunc(slices.Clone(all), func(u sqlschema.Uncaptured) bool { return slices.Contains(others, u) })
}

// lookAgain has the maintenance look soon: an apply may have corrected a fault.
func (c *captures) lookAgain() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}
