package dispatcher

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/rowhook/rowhook/sqlschema"
)

// A trigger whose endpoint this instance can't build is not claimed for: a variable is not set here, the URL or a header is malformed,
// a TLS file is missing. Its events wait, without an attempt counted, for an instance that can, or for the cure.

// unableAgain is how often an instance tries again to build what it could not: a file may have appeared.
const unableRetry = 5 * time.Second

// disable gives back an event that can't be sent for want of an endpoint, and whatever else of its trigger waits here.
func (d *Dispatcher) disable(dl *delivery, why error) {
	before := d.scheduler.unable()
	unsent := d.scheduler.disable(dl.lane, why)
	d.tellUnable(before, map[string]bool{dl.event.Trigger: false})
	d.giveBack(append(unsent, dl))
}

// tellUnable logs each trigger that can no longer be sent for, or can again. able holds those that were looked at.
func (d *Dispatcher) tellUnable(before map[string]string, able map[string]bool) {
	now := d.scheduler.unable()
	for _, trigger := range slices.Sorted(maps.Keys(able)) {
		why, was := now[trigger], before[trigger]
		switch {
		case why == "" && was != "":
			d.log.Info("a trigger can be sent for again", "trigger", trigger)
		case why != was:
			d.log.Error("can't send for a trigger, so its events wait for an instance that can: correct its webhook and apply, or set the variable and restart",
				"trigger", trigger, "error", why)
		}
	}
}

// retryUnable has the endpoints built again that could not be, now and then.
func (d *Dispatcher) retryUnable(now time.Time) {
	if len(d.scheduler.unable()) > 0 && now.Sub(d.triedUnable) >= unableRetry {
		d.triedUnable = now
		d.askReload()
	}
}

// troubleAgain is how often the record of what this instance can't do is looked after: someone may have made its row anew.
const troubleRepeat = 10 * time.Second

// recordTrouble writes what this instance can't do where those see it who ask the database how things stand.
func (d *Dispatcher) recordTrouble(ctx context.Context, now time.Time) {
	trouble := sqlschema.Trouble{Unable: d.scheduler.unable()}
	trouble.History, _ = d.history.problem()
	same := trouble.Equal(&d.trouble)
	if same && (trouble.IsZero() || now.Sub(d.toldTrouble) < troubleRepeat) {
		return
	}
	err := d.onSchema(ctx, func(schema int32) error {
		if schema < sqlschema.TroubleSchema {
			return nil // there is no place for it
		}
		return sqlschema.RecordTrouble(ctx, d.writes, d.id, &trouble)
	})
	if err != nil {
		d.log.Debug("can't record what this instance can't do, trying again later", "error", err)
		return
	}
	d.trouble, d.toldTrouble = trouble, now
}
