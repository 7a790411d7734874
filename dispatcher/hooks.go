package dispatcher

import (
	"context"
	"net/http"
	"time"

	"github.com/rowhook/rowhook/internal/webhook"
	"github.com/rowhook/rowhook/listener"
	"github.com/rowhook/rowhook/sqlschema"
)

// Hooks are told what a Dispatcher does, for metrics and traces. Each is optional, and costs nothing where it is nil. They are
// called on the dispatcher's own goroutines, several at once, and must not block; slices are valid during the call.
type Hooks struct {
	// Configured is told of all triggers each time they were loaded.
	Configured func(triggers []sqlschema.Trigger)
	// Claimed is told of each claim that the database answered: the events that it brought, which may be none, and how long
	// it took.
	Claimed func(events []sqlschema.Claimed, took time.Duration)
	// Missed is told of new events that the interval poll found although writers rang: their wake-up was lost.
	Missed func(events int)
	// Attempting is told of each attempt before it is made, number from 1. The header it returns is added to the request, less what
	// the trigger itself sets; nil: none. ended, unless nil, is called with the outcome.
	Attempting func(e *Event, number int) (header http.Header, ended func(Attempt))
	// Attempted is told of each finished attempt, as Config.OnAttempt is.
	Attempted func(Attempt)
	// Settled is told of each statement that recorded outcomes: how many, and how long it took.
	Settled func(outcomes int, took time.Duration)
	// Rang is told of each notification.
	Rang func()
	// Doorbell is told when this dispatcher has asked writers for silence, or to ring again.
	Doorbell func(silent bool)
	// Listening is told of each session that listens, and that it was lost.
	Listening func(listens bool)
	// Dropped is told of history that was dropped, or emptied: how many partitions, and how large they were.
	Dropped func(partitions int, bytes int64)
	// Failed is told of each statement that failed and is tried again: what for (claim or settle), and why.
	Failed func(what string, err error)
}

// attempting asks the hook, and returns the context of the request.
func (d *Dispatcher) attempting(dl *delivery) (ctx context.Context, ended func(Attempt)) {
	if d.cfg.Hooks.Attempting == nil {
		return d.sendCtx, nil
	}
	header, ended := d.cfg.Hooks.Attempting(&dl.event, int(dl.tries))
	if len(header) == 0 {
		return d.sendCtx, ended
	}
	return webhook.WithHeader(d.sendCtx, header), ended
}

// attempted tells of an attempt all who want to know.
func (d *Dispatcher) attempted(dl *delivery, ep *webhook.Endpoint, r *webhook.Result, what sqlschema.Fate, delay time.Duration, ended func(Attempt)) {
	if d.cfg.OnAttempt == nil && d.cfg.Hooks.Attempted == nil && ended == nil {
		return
	}
	a := Attempt{
		Event: dl.event, TriggerID: dl.lane.id, Number: int(dl.tries), DueAt: dl.due,
		Result: *r, Fate: what, RetryIn: delay, Endpoint: ep.String(),
	}
	for _, tell := range [...]func(Attempt){d.cfg.OnAttempt, d.cfg.Hooks.Attempted, ended} {
		if tell != nil {
			tell(a)
		}
	}
}

func (d *Dispatcher) hookDoorbell(state listener.State) {
	d.silent.Store(state == listener.Silent)
	if d.cfg.Hooks.Doorbell != nil {
		d.cfg.Hooks.Doorbell(state == listener.Silent)
	}
}

func (d *Dispatcher) hookListening(listens bool) {
	if d.cfg.Hooks.Listening != nil {
		d.cfg.Hooks.Listening(listens)
	}
}

func (d *Dispatcher) hookFailed(what string, err error) {
	if d.cfg.Hooks.Failed != nil {
		d.cfg.Hooks.Failed(what, err)
	}
}
