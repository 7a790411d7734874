package dispatcher

import (
	"context"
	"sync"
)

// budget bounds the bytes of large payloads in memory. A trigger whose endpoint hangs holds its
// share for as long as an attempt may take. So one trigger gets half of the budget at most, and a
// trigger that holds nothing may go over the budget by half. Where dispatchers share the budget, the
// same holds for each of them.
type budget struct {
	size    int64
	mu      sync.Mutex
	used    int64
	held    map[holder]int64
	sharers int
	changed chan struct{} // closed when something is given back
}

// holder is a trigger of a dispatcher, or with trigger 0 the dispatcher.
type holder struct {
	dispatcher *identity
	trigger    int32
}

func newBudget(size int64) *budget {
	return &budget{size: size, held: map[holder]int64{}, changed: make(chan struct{})}
}

// share makes a dispatcher one of those that share the budget, until leave is called.
func (b *budget) share() (leave func()) {
	add := func(n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sharers += n
	}
	add(1)
	return func() { add(-1) }
}

// take waits for room for a trigger's payload. A payload that is larger than the budget counts as
// the whole budget.
func (b *budget) take(ctx context.Context, by holder, n int64) (free func(), err error) {
	n = min(n, b.size)
	for {
		b.mu.Lock()
		if b.fits(by, n) {
			b.add(by, n)
			b.mu.Unlock()
			return func() { b.free(by, n) }, nil
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

func (b *budget) fits(by holder, n int64) bool {
	of := b.held[holder{by.dispatcher, 0}]
	if b.used > 0 && b.sharers > 1 && of > 0 && of+n > b.size/2 {
		return false
	}
	held := b.held[by]
	switch {
	case b.used == 0:
		return true
	case held == 0:
		return b.used+n <= b.size+b.size/2
	}
	return held+n <= b.size/2 && b.used+n <= b.size
}

func (b *budget) add(by holder, n int64) {
	b.used += n
	for _, h := range [...]holder{by, {by.dispatcher, 0}} {
		if b.held[h] += n; b.held[h] == 0 {
			delete(b.held, h)
		}
	}
}

func (b *budget) free(by holder, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(by, -n)
	close(b.changed)
	b.changed = make(chan struct{})
}

// inUse is how many bytes a dispatcher holds.
func (b *budget) inUse(by *identity) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held[holder{by, 0}]
}
