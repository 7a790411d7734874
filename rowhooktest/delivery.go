package rowhooktest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/clone"
	"github.com/rowhook/rowhook/internal/sandbox"
)

// delivery is the dispatcher of a test.
type delivery struct {
	*dispatcher.Dispatcher
	settled *bell           // rings when outcomes were written
	running context.Context // ends when it has ended
	cancel  context.CancelFunc
	ended   sync.WaitGroup
	done    chan struct{} // closed when it has ended
	err     error         // how it ended, after that
}

func startDelivery(ctx context.Context, h *Harness) (*delivery, error) {
	d := &delivery{settled: &bell{}, done: make(chan struct{})}
	in := h.settings
	config := dispatcher.Config{
		DatabaseURL: h.url, Name: "rowhooktest", Logger: slog.New(slog.NewTextHandler(h.log, nil)),
		Source:    sandbox.Variables(h.receiver.url, in.secret, in.source),
		Observers: []dispatcher.Observer{{Settled: func(int, time.Duration) { d.settled.ring() }}},
	}
	var err error
	if d.Dispatcher, err = dispatcher.New(config); err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.cancel = cancel
	alive, end := context.WithCancel(context.WithoutCancel(ctx))
	d.running = alive
	d.ended.Go(func() {
		d.err = clone.Persist(running, d.Run) // until the server has a session for it to start
		close(d.done)
		end()
	})
	select {
	case <-d.Ready():
		return d, nil
	case <-d.done:
		err = fmt.Errorf("the dispatcher has ended: %w", d.err)
	case <-ctx.Done():
		err = fmt.Errorf("the dispatcher does not get ready: %w", context.Cause(ctx))
	}
	d.stop()
	return nil, err
}

// stop ends the dispatcher. What is in flight is given up: the test is over.
func (d *delivery) stop() {
	d.cancel()
	d.Abort()
	d.ended.Wait()
}

// gone returns an error if the dispatcher has ended.
func (d *delivery) gone() error {
	select {
	case <-d.done:
		return errors.Join(errors.New("the dispatcher has ended"), d.err)
	default:
		return nil
	}
}

// bell wakes those that wait for the next ring.
type bell struct {
	mu   sync.Mutex
	next chan struct{} // closed by the next ring; nil: nobody waits
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// rings returns a channel that the next ring closes.
func (b *bell) rings() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}
