package dispatcher

import (
	"context"
	"time"
)

// occasion has a loop do something at intervals while there is anything to do. A loop that has nothing to
// do does not wake: a process may have a hundred dispatchers, and each of them a dozen loops.
type occasion chan struct{}

func newOccasion() occasion { return make(occasion, 1) }

// arises says that there is something to do. It does not block.
func (o occasion) arises() {
	select {
	case o <- struct{}{}:
	default:
	}
}

// every waits until there is something to do, and then calls f after each period until f says that
// there is no more. It does so until ctx is done.
func (o occasion) every(ctx context.Context, period time.Duration, f func() (more bool)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o:
		}
		working, stop := context.WithCancel(ctx)
		every(working, period, func() {
			if !f() {
				stop()
			}
		})
		stop()
	}
}
