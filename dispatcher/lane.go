package dispatcher

import (
	"time"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// lane is one trigger in this dispatcher: what it is, what its next claim has to do, and which of
// its events wait here for a slot. Its state, with a drawing, is in lanestate.go. The mutex of the
// scheduler guards all of it.
type lane struct {
	id       int32  // of the trigger
	source   string // of its events
	trigger  queue.Trigger
	spec     *trigger.Spec // a copy of that of trigger, which nobody changes
	endpoint Endpoint
	unable   error // why this instance can't call the endpoint; nil: it can
	gone     bool  // no longer configured
	halted   bool  // the scheduler is
	// suspended is the version of the trigger that is being paused for an answer; "": none.
	suspended string

	// The table by its present name. qualified is what the last claim called it.
	qualified     string
	schema, table string

	// What the next claim has to do, and when there is one.
	state laneState
	// floor says that all that was visible and due before it has been claimed, by the server's
	// clock.
	floor      time.Time
	sweeping   sweeping
	next       dueTime
	sent       time.Time // when the latest claim was sent
	found      time.Time // when a claim last found an event
	rang       time.Time // when writers last notified
	unreadable time.Time // when the payload of an event could last not be read

	order orderMarks

	// Events that are claimed, and attempts.
	queue    []*delivery   // claimed, waiting for a slot
	head     int           // of queue
	waiting  bool          // in scheduler.waiting
	inFlight int           // shipments
	carried  int           // deliveries in them
	claimed  int           // deliveries that are claimed and not settled
	bytes    int           // of the bodies in the queue, with batches
	offered  time.Time     // since when a claim is put off that could bring little, with batches
	pace     pace          // of its rate
	share    share         // of its total concurrency
	common   common        // of its concurrency, with the dispatchers of other databases
	average  time.Duration // of an attempt, exponentially weighted; 0: none yet
	lag      lag
	gate     gate      // of its breakers
	probed   time.Time // when it was last to make a probe
}

// lease is how long a claim lasts.
func (l *lane) lease() time.Duration { return l.trigger.Spec.Lease() }

// idle reports that nothing may be claimed: the trigger is paused, this instance can't send for it,
// or it stands still.
func (l *lane) idle() bool { return l.trigger.Paused || l.unable != nil || l.halted }

func (l *lane) queued() int { return len(l.queue) - l.head }

// unsettled is how many deliveries have an outcome that is not yet written.
func (l *lane) unsettled() int { return l.claimed - l.carried - l.queued() }

func (l *lane) concurrency(global int) int {
	n := global
	if c := l.trigger.Spec.Concurrency; c > 0 {
		n = c
	}
	if l.share.on {
		n = min(n, l.share.n)
	}
	return n
}

func (l *lane) push(d *delivery) {
	if l.head > 0 && l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
	l.queue = append(l.queue, d)
	l.sizes(d, 1)
}

func (l *lane) pop() *delivery {
	d := l.queue[l.head]
	l.queue[l.head] = nil
	l.head++
	l.sizes(d, -1)
	return d
}

// drain takes all that waits in the queue.
func (l *lane) drain() []*delivery {
	rest := append([]*delivery(nil), l.queue[l.head:]...)
	l.queue, l.head, l.bytes = nil, 0, 0
	return rest
}

// prefetchAhead is how long the claimed events should last while the next claim is under way.
const prefetchAhead = 25 * time.Millisecond

// prefetch is how many events beyond its slots a lane may hold: as many as it delivers in
// prefetchAhead. A lane whose endpoint is slow, or has not been called yet, gets none, so that its
// events don't wait in memory while their lease runs.
func prefetch(slots int, average time.Duration, most int) int {
	if average <= 0 {
		return 0
	}
	return min(int(time.Duration(slots)*prefetchAhead/average), most)
}

// observe adds the duration of an attempt to the average.
func (l *lane) observe(d time.Duration) {
	if l.average == 0 {
		l.average = max(d, time.Microsecond)
		return
	}
	l.average = max(l.average+(d-l.average)/8, time.Microsecond)
}

// event makes what is sent of an event that was claimed, or read in its order.
func (l *lane) event(e *queue.Claimed) webhook.Event {
	l.named(e.Table)
	schema, table := l.schema, l.table
	if e.Own != nil {
		schema, table = e.Own.Schema, e.Own.Table
	}
	return webhook.Event{
		ID: e.ID, CreatedAt: e.CreatedAt, Sequence: e.Seq, Source: l.source, Schema: schema, Table: table, Trigger: l.trigger.Spec.Name, Op: e.Op,
		Old: e.Old, New: e.New, Session: e.Session, Trace: e.Trace,
		CurrentRetry: int(e.Tries) - 1, MaxRetries: l.trigger.Spec.Retry.Limit,
	}
}

// named takes over the table's present name, as a claim returned it.
func (l *lane) named(qualified string) {
	if qualified == l.qualified {
		return
	}
	l.qualified = qualified
	if schema, table, err := pg.SplitName(qualified); err == nil {
		l.schema, l.table = schema, table
	}
	// A bare oid means that the table is gone. Its events keep the name that it had.
}
