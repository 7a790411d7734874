package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// interruptible ends the returned context at the first SIGINT or SIGTERM. A second signal ends the
// program at once.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// sameInterrupt is the time within which two signals count as one. A terminal sends Ctrl-C to the
// whole process group, and a wrapper may pass it on once more.
const sameInterrupt = 200 * time.Millisecond

// interrupts ends the returned context at the first SIGINT or SIGTERM, and calls again at the
// second one. Once one has come, the program is ending: then no further one ends it before it has
// said how, and with which exit code.
func interrupts(parent context.Context, again func()) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	var ending atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		heed(signals, done, func() {
			ending.Store(true)
			cancel()
		}, again)
	})
	return ctx, func() {
		if !ending.Load() {
			signal.Stop(signals)
		}
		close(done)
		cancel()
		wg.Wait()
	}
}

// heed calls first at the first signal and again at the second, until done is closed.
func heed(signals <-chan os.Signal, done <-chan struct{}, first, again func()) {
	var came time.Time
	for {
		select {
		case <-signals:
		case <-done:
			return
		}
		switch {
		case came.IsZero():
			came = time.Now()
			first()
		case time.Since(came) >= sameInterrupt:
			again()
			return
		}
	}
}
