package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rowhook/rowhook/internal/faultproxy"
	"github.com/rowhook/rowhook/lab/internal/process"
)

// slot is the place of one dispatcher, with its proxies. Its process is started again when it ends,
// as a service manager would do.
type slot struct {
	number   int
	binary   string
	args     []string
	database *faultproxy.Proxy
	listens  *faultproxy.Proxy // for listening; nil: it listens through database
	webhooks *faultproxy.Proxy
	env      []string
	metrics  string         // URL
	log      io.WriteCloser // optional

	mu      sync.Mutex
	child   *process.Process
	down    bool             // it is not to be started
	ended   *process.Process // the last one that take returned: it ends on purpose
	changed chan struct{}    // closed and replaced when down changes
	starts  int
	failed  int    // how often it ended by itself, with an error
	last    string // the last such error
}

// restartDelay is how soon a dispatcher that ended by itself is started again.
const restartDelay = 300 * time.Millisecond

// newSlot makes the proxies.
func (l *lab) newSlot(ctx context.Context, number int) (*slot, error) {
	s := &slot{number: number, binary: l.binary, changed: make(chan struct{})}
	address, err := l.receiver.listen(ctx, number)
	if err != nil {
		return nil, err
	}
	if s.webhooks, err = faultproxy.Listen(ctx, address); err != nil {
		return nil, err
	}
	server := fmt.Sprintf("127.0.0.1:%d", l.server.Port())
	if s.database, err = faultproxy.Listen(ctx, server); err != nil {
		return nil, err
	}
	serve, err := process.FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	s.metrics = "http://" + serve + "/metrics"
	s.env = []string{"DATABASE_URL=" + l.roleURL(s.database.Port()), "RECEIVER_URL=http://" + s.webhooks.Addr()}
	if p := l.opt.plan(); number < p.listeners() {
		if s.listens, err = faultproxy.Listen(ctx, server); err != nil {
			return nil, err
		}
		s.env = append(s.env, "ROWHOOK_LISTEN_URL="+l.roleURL(s.listens.Port()))
	}
	s.args = []string{
		"run", "--log-format", "json", "--poll-interval", l.opt.poll.String(), "--concurrency", "40", "--grace-period", "1s",
		"--connect-timeout", "1h", "--instance-name", s.name(), "--http", serve,
	}
	if l.opt.logs != "" {
		s.args = append(s.args, "--log-level", "debug")
		if s.log, err = os.Create(filepath.Join(l.opt.logs, s.name()+".log")); err != nil {
			return nil, fmt.Errorf("open the log file: %w", err)
		}
	}
	return s, nil
}

// proxies returns the proxies that the slot has.
func (s *slot) proxies() []*faultproxy.Proxy {
	return slices.DeleteFunc([]*faultproxy.Proxy{s.database, s.listens, s.webhooks}, func(p *faultproxy.Proxy) bool { return p == nil })
}

func (s *slot) name() string { return fmt.Sprintf("slot%d", s.number) }

// run keeps a dispatcher alive until ctx is done.
func (s *slot) run(ctx context.Context) error {
	for ctx.Err() == nil {
		s.mu.Lock()
		down, changed := s.down, s.changed
		s.mu.Unlock()
		if down {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		c, err := process.Start(process.Command{Name: s.name(), Path: s.binary, Args: s.args, Env: s.env, Log: s.log})
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.child = c
		s.starts++
		s.mu.Unlock()
		<-c.Done()
		s.mu.Lock()
		s.child = nil
		if s.ended != c {
			s.failed++
			s.last = fmt.Sprintf("%v%s", process.OrExited(c.Err()), c.Log())
		}
		s.mu.Unlock()
		wait(ctx, restartDelay)
	}
	return nil
}

// wait waits for a time, or until ctx is done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// take keeps the dispatcher from being started again, and returns the running one; nil: none runs.
func (s *slot) take() *process.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setDown(true)
	s.ended = s.child
	return s.child
}

// release lets it be started again.
func (s *slot) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setDown(false)
}

func (s *slot) setDown(down bool) {
	s.down = down
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *slot) running() *process.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.child
}

// ready waits until the dispatcher runs and is ready.
func (s *slot) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		if c := s.running(); c != nil {
			return c.WaitReady(ctx, time.Minute)
		}
		wait(ctx, 10*time.Millisecond)
	}
	return fmt.Errorf("%s does not run although no fault is left: %s", s.name(), s.last)
}

// stopPatience is how long a dispatcher may take to stop: its grace period, and the last writes to
// a database that does not answer.
const stopPatience = 40 * time.Second

// stop ends the dispatcher in order. hard sends a second signal.
func (s *slot) stop(hard bool) error {
	c := s.take()
	if c == nil {
		return nil
	}
	if hard {
		again := time.AfterFunc(200*time.Millisecond, func() { _ = c.Signal(syscall.SIGTERM) }) // it may have ended
		defer again.Stop()
	}
	return c.Stop(stopPatience)
}

// close ends what is left.
func (s *slot) close() {
	if c := s.take(); c != nil {
		_ = c.Signal(goOn) // in case it is stopped
		c.Kill()
	}
	for _, p := range s.proxies() {
		p.Close()
	}
	if s.log != nil {
		_ = s.log.Close() // for people
	}
}
