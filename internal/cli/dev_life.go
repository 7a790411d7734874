package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/rowhook/rowhook/internal/child"
)

// errParentEnded is the cause of an end with the program that has started this one.
var errParentEnded = errors.New("the program that has started rowhook dev has ended")

// interruptedError is the cause of an end by a signal.
type interruptedError struct{ signal os.Signal }

func (e *interruptedError) Error() string { return "interrupted by " + e.signal.String() }

// code returns the exit code that a shell has for the signal.
func (e *interruptedError) code() int {
	if number, ok := e.signal.(syscall.Signal); ok {
		return 128 + int(number)
	}
	return exitFailed
}

// devLife says when dev ends: at the first signal, or with the program that has started it. A second
// signal hurries the end. While a command runs, the signals are the command's.
type devLife struct {
	end   context.CancelCauseFunc
	hurry func()
	wg    sync.WaitGroup
	done  chan struct{}

	mu      sync.Mutex
	command chan os.Signal // nil: no command runs
	ended   bool           // by a signal, or with the command
	last    time.Time      // when the last signal came
}

// live starts a life. The context ends with it; hurry is called by a second signal.
func live(parent context.Context, outlive bool, hurry func()) (context.Context, *devLife) {
	began := os.Getppid()
	ctx, end := context.WithCancelCause(parent)
	l := &devLife{end: end, hurry: hurry, done: make(chan struct{})}
	nohup := signal.Ignored(syscall.SIGHUP) // whoever started it so wants it to outlive the shell
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, child.Ending()...)
	l.wg.Go(func() { l.heed(signals) })
	// The parent is 1 in a container, where that is the init process, or if the first parent has
	// gone on purpose. It is 0 if it is outside of the container.
	if !outlive && !nohup && began > 1 {
		l.wg.Go(func() { l.watchParent(began) })
	}
	return ctx, l
}

// stop ends the life, and waits for its goroutines.
func (l *devLife) stop() {
	close(l.done)
	l.end(nil)
	l.wg.Wait()
}

func (l *devLife) heed(signals chan os.Signal) {
	defer signal.Stop(signals)
	for {
		select {
		case s := <-signals:
			l.came(s)
		case <-l.done:
			return
		}
	}
}

// came acts on a signal. Two in quick succession count as one; see sameInterrupt.
func (l *devLife) came(s os.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.command != nil {
		return
	}
	again := time.Since(l.last) >= sameInterrupt
	l.last = time.Now()
	switch {
	case !l.ended:
		l.ended = true
		l.end(&interruptedError{s})
	case again:
		l.hurry()
	}
}

// give gives the signals to a command until take is called.
func (l *devLife) give() (signals <-chan os.Signal, take func()) {
	passed := make(chan os.Signal, 16)
	l.mu.Lock()
	l.command = passed
	l.mu.Unlock()
	signal.Notify(passed, child.PassedOn()...)
	return passed, func() {
		signal.Stop(passed)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.command, l.ended, l.last = nil, true, time.Now()
	}
}

// parentEvery is the interval between checks that the parent is alive. Linux could tell by a signal,
// but sends it already when the parent's thread ends.
const parentEvery = 250 * time.Millisecond

// watchParent ends dev when the parent ends: then the process has another one.
func (l *devLife) watchParent(began int) {
	ticker := time.NewTicker(parentEvery)
	defer ticker.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-ticker.C:
			if os.Getppid() != began {
				l.end(fmt.Errorf("%w; to go on without it, use --outlive-parent", errParentEnded))
				return
			}
		}
	}
}
