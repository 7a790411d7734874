package dispatcher

import (
	"time"

	"github.com/rowhook/rowhook/internal/webhook"
	"github.com/rowhook/rowhook/sqlschema"
)

// lane is one trigger in this dispatcher: what it is, what of it waits here for a slot, and from where its next claim
// starts. The scheduler's mutex guards it.
type lane struct {
	id       int32 // of the trigger
	trigger  sqlschema.Trigger
	endpoint *webhook.Endpoint
	unable   error // why this instance can't call the endpoint; nil: it can
	gone     bool  // no longer configured

	qualified     string // the table as the last claim called it
	schema, table string

	queue    []*delivery // claimed, waiting for a slot
	head     int         // of queue
	inFlight int
	waiting  bool // in scheduler.waiting

	dirty   bool // more may be due: in scheduler.dirty
	search  bool // the next claim starts from the beginning
	pending bool // a wake-up came while a claim was under way

	floor   time.Time     // everything visible that was due before has been claimed; by the server's clock
	swept   time.Time     // when a claim last started from the beginning, by ours
	price   time.Duration // of that
	before  time.Duration // of the one before
	busy    time.Time     // when a claim last found something
	rang    time.Time     // when its writers last notified
	nextDue time.Time     // when a retry or lease becomes due, by our clock; zero: none known
	fired   bool          // nextDue has passed and the one after it is not known
	asked   time.Time     // when the latest claim for it was sent
	average time.Duration // of an attempt, exponentially weighted; 0: none yet
	lag     lag
	poison  time.Time // when the payload of one of its events could last not be read
}

// delivery is a claimed event on its way.
type delivery struct {
	lane    *lane
	event   webhook.Event
	tries   int32
	claim   int64     // number of its claim; 0: none
	broken  bool      // its claim before was interrupted
	held    int64     // bytes of payload that the claim left behind, as stored
	packed  bool      // they are compressed
	due     time.Time // when it was due, by the server's clock
	expires time.Time // when the lease ends, by our clock
	started time.Time // zero: waits for a slot
	stalled bool      // counts no longer as active

	prev, next *delivery // in scheduler.outstanding
}

// settleMargin is what must be left of a lease after the timeout when an attempt starts.
const settleMargin = 5 * time.Second

// longestLease bounds a lease whatever timeout is configured.
const longestLease = sqlschema.LongestLease

// holding is the event under its claim, as statements are fenced by it.
func (d *delivery) holding() sqlschema.Holding {
	return sqlschema.Holding{ID: d.event.ID, Tries: d.tries, Claim: d.claim}
}

// lease is how long a claim lasts.
func (l *lane) lease() time.Duration { return l.trigger.Spec.Webhook.Lease() }

// Looking from the beginning may take one part in sweepShare of the time, and is put off by longestPause at most: where a
// long transaction keeps settled events in the index it gets slow.
const (
	sweepShare   = 10
	longestPause = time.Second
)

// priced notes what looking from the beginning took.
func (l *lane) priced(took time.Duration) { l.before, l.price = l.price, took }

// pause is how long to wait between two such looks. A single slow one, that waited for a lock perhaps, does not count.
func (l *lane) pause() time.Duration { return min(sweepShare*min(l.price, l.before), longestPause) }

// idle reports that nothing is claimed for it: what it would claim could not be sent, or may not.
func (l *lane) idle() bool { return l.trigger.Paused || l.unable != nil }

func (l *lane) queued() int { return len(l.queue) - l.head }

func (l *lane) concurrency(global int) int {
	if c := l.trigger.Spec.Concurrency; c > 0 {
		return c
	}
	return global
}

func (l *lane) push(d *delivery) {
	if l.head > 0 && l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
	l.queue = append(l.queue, d)
}

func (l *lane) pop() *delivery {
	d := l.queue[l.head]
	l.queue[l.head] = nil
	l.head++
	return d
}

// drain takes all that waits in the queue.
func (l *lane) drain() []*delivery {
	rest := append([]*delivery(nil), l.queue[l.head:]...)
	l.queue, l.head = nil, 0
	return rest
}

// prefetchAhead is for how long claimed events should last while the next claim is under way.
const prefetchAhead = 25 * time.Millisecond

// prefetch is how many events beyond its slots a lane may hold: what they get through in prefetchAhead. An endpoint that
// is slow, or of which nothing is known, gets none, so that its events don't wait in memory while their lease runs.
func prefetch(slots int, average time.Duration, most int) int {
	if average <= 0 {
		return 0
	}
	return min(int(time.Duration(slots)*prefetchAhead/average), most)
}

// observe takes the duration of an attempt into the average.
func (l *lane) observe(d time.Duration) {
	if l.average == 0 {
		l.average = max(d, time.Microsecond)
		return
	}
	l.average = max(l.average+(d-l.average)/8, time.Microsecond)
}

// named takes the table's present name, as the claim found it.
func (l *lane) named(qualified string) {
	if qualified == l.qualified {
		return
	}
	l.qualified = qualified
	if schema, table, err := sqlschema.SplitName(qualified); err == nil {
		l.schema, l.table = schema, table
	}
	// A bare oid means that the table is gone; its events keep the name it had.
}
