package dispatcher

import (
	"context"
	"sync"
)

// budget bounds the bytes of large payloads in memory. A trigger whose endpoint hangs holds its
// share for as long as an attempt may take. So one trigger gets half of the budget at most, and a
// trigger that holds nothing may go over the budget by half.
type budget struct {
	size    int64
	mu      sync.Mutex
	used    int64
	held    map[int32]int64 // by trigger
	changed chan struct{}   // closed when something is given back
}

func newBudget(size int64) *budget {
	return &budget{size: size, held: map[int32]int64{}, changed: make(chan struct{})}
}

// take waits for room for a trigger's payload. A payload that is larger than the budget counts as
// the whole budget.
func (b *budget) take(ctx context.Context, trigger int32, n int64) (free func(), err error) {
	n = min(n, b.size)
	for {
		b.mu.Lock()
		if b.fits(trigger, n) {
			b.used += n
			b.held[trigger] += n
			b.mu.Unlock()
			return func() { b.free(trigger, n) }, nil
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (b *budget) fits(trigger int32, n int64) bool {
	held := b.held[trigger]
	switch {
	case b.used == 0:
		return true
	case held == 0:
		return b.used+n <= b.size+b.size/2
	}
	return held+n <= b.size/2 && b.used+n <= b.size
}

func (b *budget) free(trigger int32, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.held[trigger] -= n; b.held[trigger] == 0 {
		delete(b.held, trigger)
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// inUse is how many bytes are held.
func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
