package dispatcher

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rowhook/rowhook/sqlschema"
)

// captures is whether the watched tables are captured as configured. What is not recorded shows nowhere else: there is no event that
// could wait or fail.
type captures struct {
	mu      sync.Mutex
	lacking []sqlschema.Uncaptured // as last said
	changed chan struct{}          // holds a token where the configuration was loaded since
}

// confirmAfter is how long a fault has to last before it is told: an apply that moves a trigger takes it off one table before it
// makes it on the other.
const confirmAfter = 2 * time.Second

// lookAtCaptures compares the catalog with the configuration, and tells once when a fault begins and once when it ends.
func (d *Dispatcher) lookAtCaptures(ctx context.Context) {
	found, err := d.findUncaptured(ctx)
	if err == nil && len(without(found, d.uncaptured())) > 0 {
		timer := time.NewTimer(confirmAfter)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		first := found
		found, err = d.findUncaptured(ctx)
		found = slices.DeleteFunc(found, func(u sqlschema.Uncaptured) bool {
			return !slices.Contains(first, u) && !slices.Contains(d.uncaptured(), u)
		})
	}
	if err != nil {
		if ctx.Err() == nil {
			d.log.Error("can't look whether the watched tables are captured, trying again later", "in", tidyEvery, "error", sqlschema.ExplainHidden(err))
		}
		return
	}
	d.captures.mu.Lock()
	before := d.captures.lacking
	d.captures.lacking = found
	d.captures.mu.Unlock()
	for _, u := range without(found, before) {
		d.log.Error("changes of a watched table are not captured: "+u.Problem, "trigger", u.Trigger, "remedy", u.Remedy)
	}
	for _, u := range without(before, found) {
		if !slices.ContainsFunc(found, func(f sqlschema.Uncaptured) bool { return f.Trigger == u.Trigger }) {
			d.log.Info("the changes are captured again", "trigger", u.Trigger)
		}
	}
}

func (d *Dispatcher) findUncaptured(ctx context.Context) ([]sqlschema.Uncaptured, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if err := sqlschema.CheckVisible(ctx, d.writes); err != nil {
		return nil, err
	}
	return sqlschema.FindUncaptured(ctx, d.writes)
}

// uncaptured is what was last told.
func (d *Dispatcher) uncaptured() []sqlschema.Uncaptured {
	d.captures.mu.Lock()
	defer d.captures.mu.Unlock()
	return slices.Clone(d.captures.lacking)
}

// without returns those that are not among the others.
func without(all, others []sqlschema.Uncaptured) []sqlschema.Uncaptured {
	return slices.DeleteFunc(slices.Clone(all), func(u sqlschema.Uncaptured) bool { return slices.Contains(others, u) })
}

// lookAgain has the captures looked at soon, as an apply may have put them right.
func (d *Dispatcher) lookAgain() {
	select {
	case d.captures.changed <- struct{}{}:
	default:
	}
}
