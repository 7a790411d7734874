package dispatcher

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
)

// commitTime is what a small commit takes. The rate at which writers that notify can commit depends
// on it, and so the rate at which the doorbell has to go silent.
type commitTime struct {
	db   *database
	self *identity

	last atomic.Int64 // nanoseconds; written by start and the peers' loop, read by the claimer
}

// get returns the last measurement; 0: there is none.
func (c *commitTime) get() time.Duration { return time.Duration(c.last.Load()) }

// measure takes the quickest of three.
func (c *commitTime) measure(ctx context.Context) {
	var least time.Duration
	for range 3 {
		began := time.Now()
		if err := queue.MeasureCommit(ctx, c.db.writes, c.self.id); err != nil {
			return // the last measurement stays; others report failures of the database
		}
		if took := time.Since(began); least == 0 || took < least {
			least = took
		}
	}
	c.last.Store(int64(least))
}
