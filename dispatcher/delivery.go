package dispatcher

import (
	"time"

	"github.com/rowhook/rowhook/internal/webhook"
	"github.com/rowhook/rowhook/sqlschema"
)

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
