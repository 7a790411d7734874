package dispatcher

import (
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// delivery is a claimed event on its way.
type delivery struct {
	lane    *lane
	event   webhook.Event
	tries   int32
	claim   int64     // number of its claim
	broken  bool      // the claim before this one ended without an outcome
	held    int64     // bytes of payload that the claim did not fetch, as stored
	packed  bool      // they are compressed
	due     time.Time // when the event was due, by the server's clock
	renewed time.Time // when it was sent again by hand, likewise; zero: never
	expires time.Time // when the lease ends, by our clock
	taken   time.Time // when it arrived here
	size    int       // of its body and a comma, with batches; 0: not measured
	key     string    // within which its order holds; "": no order
	bulk    bool      // its trigger had batches when it was claimed
	handed  bool      // its writer has handed it over

	placed *placed // its place in the order of its key; nil: it was claimed

	shipment *shipment    // in which it is sent; nil: it waits for a slot
	own      shipment     // of this delivery alone: see ship
	self     [1]*delivery // own.deliveries

	prev, next *delivery // in scheduler.outstanding
}

// settleMargin is what must be left of a lease, beyond the timeout, when an attempt starts.
const settleMargin = 5 * time.Second

// longestLease bounds a lease whatever timeout is configured.
const longestLease = trigger.LongestLease

// begun notes that a request with the event begins.
func (d *delivery) begun(sent bool) {
	if d.placed != nil && sent {
		d.placed.tried = true
	}
}

// holding names the event and its claim. It is the fence of statements.
func (d *delivery) holding() queue.Holding {
	return queue.Holding{ID: d.event.ID, Tries: d.tries, Claim: d.claim, Ordered: d.placed != nil}
}
