package sink

import (
	"context"
	"sync"
)

// mostTurns is the number of questions that look through the kept deliveries at a time. The others
// wait for their turn: an explanation takes time and memory, and 1000 requests may want one.
const mostTurns = 4

// turns lets mostTurns questions in at a time.
type turns struct {
	once  sync.Once
	taken chan struct{}
}

// begin waits for a turn. Its caller calls end when it has looked. The only error is that client has
// ended.
func (t *turns) begin(client context.Context) (end func(), err error) {
	t.once.Do(func() { t.taken = make(chan struct{}, mostTurns) })
	select {
	case t.taken <- struct{}{}:
		return func() { <-t.taken }, nil
	case <-client.Done():
		return nil, client.Err()
	}
}

type clientKey struct{}

// clientOf returns a context that ends when nobody wants the answer any more. Others than those of
// requests want one when ctx has ended: what arrived until then.
func clientOf(ctx context.Context) context.Context {
	if client, ok := ctx.Value(clientKey{}).(context.Context); ok {
		return client
	}
	return context.WithoutCancel(ctx)
}
