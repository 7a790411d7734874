package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
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
// second one.
func interrupts(parent context.Context, again func()) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { heed(signals, done, cancel, again) })
	return ctx, func() {
		signal.Stop(signals)
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
