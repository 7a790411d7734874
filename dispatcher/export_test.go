package dispatcher

import (
	"context"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
)

// Pretend has a dispatcher that does not run yet see what f makes of each Watch.
func Pretend(d *Dispatcher, f func(*queue.Watch)) { d.peers.pretend = f }

// RingWithin gives notifications of a dispatcher that does not run yet another time to arrive.
func RingWithin(d *Dispatcher, within time.Duration) { d.claimer.ringWithin = within }

// LookAtCaptures is what a dispatcher does once a minute.
func LookAtCaptures(ctx context.Context, d *Dispatcher) { d.captures.look(ctx) }

// TestLog is a log that a test reads while it is written.
type TestLog = testLog

// LookForTrouble has a dispatcher look for trouble to tell, and returns when it has.
func LookForTrouble(ctx context.Context, d *Dispatcher) {
	for range 2 { // the second one is taken after the first look
		select {
		case d.alerter.now <- struct{}{}:
		case <-ctx.Done():
		}
	}
}
