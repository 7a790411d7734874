package dispatcher

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/listener"
	"github.com/rowhook/rowhook/webhook"
)

// Observer is told what a Dispatcher does, for metrics, traces and displays. Each function is
// optional; one that is nil costs nothing. They are called on the dispatcher's own goroutines,
// several at once, and must not block. Slices are valid during the call.
type Observer struct {
	// Configured receives all triggers each time the configuration was loaded.
	Configured func(triggers []TriggerRef)
	// Claimed receives the events of each claim that the database answered, possibly none, or of each
	// read of events that were handed over, and how
	// long the claim took.
	Claimed func(events []ClaimedEvent, took time.Duration)
	// Missed receives the number of new events that the interval poll found although writers ring:
	// the notification was lost.
	Missed func(events int)
	// Attempting is called before each attempt, for each event of a batch. number counts from 1. The header that it returns is
	// added to the request, where the trigger does not set the same name; nil adds nothing; a batch gets that of its first event. ended,
	// unless it is nil, is called with the outcome.
	Attempting func(e *Event, number int) (header http.Header, ended func(Attempt))
	// Attempted receives each finished attempt, on the goroutine that made it.
	Attempted func(Attempt)
	// Settled receives the number of outcomes that a statement recorded, and how long it took.
	Settled func(outcomes int, took time.Duration)
	// Rang is called for each notification.
	Rang func()
	// Doorbell is called when this dispatcher has asked writers for silence, or to ring again.
	Doorbell func(silent bool)
	// Listening is called when a session begins to listen, and when it is lost.
	Listening func(listens bool)
	// Dropped receives the history that was dropped or emptied: the number of partitions and their
	// size.
	Dropped func(partitions int, bytes int64)
	// Maintained receives what was found and done in looking after the tables: each minute, or each ten
	// minutes while there are no events. Only the instance that did so is told.
	Maintained func(Maintenance)
	// Failed receives each statement that failed and is tried again: its purpose, "claim", "take"
	// or "settle", and the error.
	Failed func(purpose string, err error)
}

// TriggerRef names a trigger.
type TriggerRef struct {
	ID     int32 // rowhook.trigger.id
	Name   string
	Source string // Config.SourceName
}

// ClaimedEvent is an event that a claim took, or that its writer has handed over.
type ClaimedEvent struct {
	ID        [16]byte
	TriggerID int32
	Attempt   int       // number of the attempt that the claim is for, from 1
	CreatedAt time.Time // when the row changed
	DueAt     time.Time // when the event became due, by the server's clock
	Handed    bool      // its writer has handed it over, and it was read without a claim
	Source    string    // Config.SourceName
}

// Outcome says what became of an event after an attempt.
type Outcome string

// Outcomes of an attempt.
const (
	Delivered Outcome = "delivered"
	Retried   Outcome = "retried"
	Dead      Outcome = "dead" // a dead letter: no attempt is left
)

func outcomeOf(f queue.Fate) Outcome {
	switch f {
	case queue.Delivered:
		return Delivered
	case queue.Dead:
		return Dead
	case queue.Retried, queue.Released:
	}
	return Retried
}

// Attempt is a finished attempt.
type Attempt struct {
	Event     Event         // its byte slices are valid during the call
	TriggerID int32         // rowhook.trigger.id
	Number    int           // from 1; interrupted attempts count
	DueAt     time.Time     // when the event became due for this attempt, by the server's clock
	Result    Result        // how the attempt went
	Outcome   Outcome       // what becomes of the event
	RetryIn   time.Duration // the wait until the next attempt, if Outcome is Retried
	// Endpoint is the URL for people: the host that was called, without what may be secret.
	Endpoint string
	// Method is the HTTP method of the request; "": there was no HTTP request.
	Method string
	// Batch is the webhook-id of the request, if its trigger has batches: other events may have the
	// same. Else it is "".
	Batch string
}

// Maintenance is what an instance found and did while it looked after the tables.
type Maintenance struct {
	Dropped  []DroppedPartition // history that is over its retention, or was too large
	DeadRows int64              // of rowhook.event_log, by the statistics
	Vacuumed bool               // it vacuumed rowhook.event_log, because autovacuum was late
	Holder   *VacuumHolder      // who holds back vacuum for long; nil: nobody
	Source   string             // Config.SourceName
}

// DroppedPartition is a day of history that is gone.
type DroppedPartition struct {
	Name    string
	Rows    int64 // estimated by the last analyze
	Bytes   int64 // with its indexes
	Emptied bool  // it is today's, and stays
}

// VacuumHolder is a transaction, replication slot or standby that keeps vacuum from removing dead
// rows.
type VacuumHolder struct {
	Description string    // for people: who it is
	Remedy      string    // for people: what to do about it
	Since       time.Time // when its transaction began; zero: not known
	Age         int64     // transactions that have begun since
}

// observers are all of a dispatcher, by what they want to be told.
type observers struct {
	source string // Config.SourceName

	onConfigured []func([]TriggerRef)
	onClaimed    []func([]ClaimedEvent, time.Duration)
	onMissed     []func(int)
	onAttempting []func(*Event, int) (http.Header, func(Attempt))
	onAttempted  []func(Attempt)
	onSettled    []func(int, time.Duration)
	onRang       []func()
	onDoorbell   []func(bool)
	onListening  []func(bool)
	onDropped    []func(int, int64)
	onMaintained []func(Maintenance)
	onFailed     []func(string, error)
}

func newObservers(all []Observer, source string) *observers {
	o := &observers{source: source}
	for i := range all {
		a := &all[i]
		o.onConfigured = with(o.onConfigured, a.Configured, a.Configured != nil)
		o.onClaimed = with(o.onClaimed, a.Claimed, a.Claimed != nil)
		o.onMissed = with(o.onMissed, a.Missed, a.Missed != nil)
		o.onAttempting = with(o.onAttempting, a.Attempting, a.Attempting != nil)
		o.onAttempted = with(o.onAttempted, a.Attempted, a.Attempted != nil)
		o.onSettled = with(o.onSettled, a.Settled, a.Settled != nil)
		o.onRang = with(o.onRang, a.Rang, a.Rang != nil)
		o.onDoorbell = with(o.onDoorbell, a.Doorbell, a.Doorbell != nil)
		o.onListening = with(o.onListening, a.Listening, a.Listening != nil)
		o.onDropped = with(o.onDropped, a.Dropped, a.Dropped != nil)
		o.onMaintained = with(o.onMaintained, a.Maintained, a.Maintained != nil)
		o.onFailed = with(o.onFailed, a.Failed, a.Failed != nil)
	}
	return o
}

func with[F any](all []F, f F, given bool) []F {
	if !given {
		return all
	}
	return append(all, f)
}

func (o *observers) configured(triggers []queue.Trigger) {
	if len(o.onConfigured) == 0 {
		return
	}
	refs := make([]TriggerRef, len(triggers))
	for i := range triggers {
		refs[i] = TriggerRef{triggers[i].ID, triggers[i].Spec.Name, o.source}
	}
	for _, f := range o.onConfigured {
		f(refs)
	}
}

func (o *observers) claimed(events []queue.Claimed, took time.Duration) {
	if len(o.onClaimed) == 0 {
		return
	}
	claimed := make([]ClaimedEvent, len(events))
	for i := range events {
		e := &events[i]
		claimed[i] = ClaimedEvent{ID: e.ID, TriggerID: e.Trigger, Attempt: int(e.Tries), CreatedAt: e.CreatedAt, DueAt: e.DueAt, Handed: e.Lease > 0, Source: o.source}
	}
	for _, f := range o.onClaimed {
		f(claimed, took)
	}
}

func (o *observers) missed(events int) {
	for _, f := range o.onMissed {
		f(events)
	}
}

// attempting returns ctx with the headers that observers add to the request, and their functions
// for the end of the attempt.
func (o *observers) attempting(ctx context.Context, e *Event, number int) (context.Context, []func(Attempt)) {
	header, ended := o.attemptingOne(e, number)
	if len(header) == 0 {
		return ctx, ended
	}
	return webhook.WithHeader(ctx, header), ended
}

// attemptingOne returns the headers that observers add to a request, and their functions for the
// end of the attempt.
func (o *observers) attemptingOne(e *Event, number int) (header http.Header, ended []func(Attempt)) {
	for _, f := range o.onAttempting {
		more, end := f(e, number)
		for name, values := range more {
			if header == nil {
				header = http.Header{}
			}
			header[name] = append(header[name], values...)
		}
		ended = with(ended, end, end != nil)
	}
	return header, ended
}

func (o *observers) attempted(dl *delivery, ep fmt.Stringer, r *webhook.Result, batch string, what queue.Fate, delay time.Duration, ended []func(Attempt)) {
	if len(o.onAttempted)+len(ended) == 0 {
		return
	}
	a := Attempt{
		Event: dl.event, TriggerID: dl.lane.id, Number: int(dl.tries), DueAt: dl.due,
		Result: *r, Outcome: outcomeOf(what), RetryIn: delay, Endpoint: ep.String(), Batch: batch,
	}
	if request, ok := ep.(interface{ Method() string }); ok {
		a.Method = request.Method()
	}
	for _, all := range [...][]func(Attempt){o.onAttempted, ended} {
		for _, f := range all {
			f(a)
		}
	}
}

func (o *observers) settled(outcomes int, took time.Duration) {
	for _, f := range o.onSettled {
		f(outcomes, took)
	}
}

func (o *observers) rang() {
	for _, f := range o.onRang {
		f()
	}
}

func (o *observers) doorbell(state listener.State) {
	for _, f := range o.onDoorbell {
		f(state == listener.Silent)
	}
}

func (o *observers) listening(listens bool) {
	for _, f := range o.onListening {
		f(listens)
	}
}

func (o *observers) dropped(dropped []queue.Dropped, bytes int64) {
	for _, f := range o.onDropped {
		f(len(dropped), bytes)
	}
}

func (o *observers) maintained(m maintained) {
	if len(o.onMaintained) == 0 {
		return
	}
	told := Maintenance{DeadRows: m.deadRows, Vacuumed: m.vacuumed, Source: o.source}
	for _, d := range m.dropped {
		told.Dropped = append(told.Dropped, DroppedPartition{d.Name, d.Rows, d.Bytes, d.Emptied})
	}
	if h := m.holder; h != nil {
		told.Holder = &VacuumHolder{Description: h.String(), Remedy: h.Remedy(), Age: h.Age}
		if h.Since != nil {
			told.Holder.Since = *h.Since
		}
	}
	for _, f := range o.onMaintained {
		f(told)
	}
}

func (o *observers) failed(purpose string, err error) {
	for _, f := range o.onFailed {
		f(purpose, err)
	}
}
