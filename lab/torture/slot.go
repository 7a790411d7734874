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

// slot is the place of one dispatcher in a source, with its proxies.
type slot struct {
	*runner

	database *faultproxy.Proxy
	listens  *faultproxy.Proxy // for listening; nil: it listens through database
	webhooks *faultproxy.Proxy
	messages *faultproxy.Proxy // to the server of NATS; nil: nothing is published
}

// runner is the process of a dispatcher, which serves all sources. It is started again when it ends, as a
// service manager would do.
type runner struct {
	number  int
	binary  string
	args    []string
	env     []string
	metrics string         // URL
	log     io.WriteCloser // optional

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

// newRunner makes the next dispatcher, with a slot in each source.
func (s *site) newRunner(ctx context.Context, number int) error {
	r := &runner{number: number, binary: s.binary, changed: make(chan struct{})}
	s.runners = append(s.runners, r)
	serve, err := process.FreeAddress(ctx)
	if err != nil {
		return err
	}
	r.metrics = "http://" + serve + "/metrics"
	r.args = []string{
		"run", "--log-format", "json", "--poll-interval", s.opt.poll.String(), "--concurrency", "40", "--grace-period", "1s",
		"--connect-timeout", "1h", "--instance-name", r.name(), "--http", serve,
	}
	if s.opt.logs != "" {
		r.args = append(r.args, "--log-level", "debug")
		if r.log, err = os.Create(filepath.Join(s.opt.logs, r.name()+".log")); err != nil {
			return fmt.Errorf("open the log file: %w", err)
		}
	}
	sources := "sources:\n"
	for _, l := range s.labs {
		if err := l.newSlot(ctx, r); err != nil {
			return err
		}
		sources += l.sourceOf(l.slots[number])
	}
	if len(s.labs) == 1 {
		return nil
	}
	file := filepath.Join(s.dir, r.name()+".yaml")
	if err := os.WriteFile(file, []byte(sources), 0o600); err != nil {
		return fmt.Errorf("write the sources: %w", err)
	}
	r.args = append(r.args, "--sources", file)
	return nil
}

// newSlot makes the proxies of a dispatcher in this source.
func (l *lab) newSlot(ctx context.Context, r *runner) error {
	s := &slot{runner: r}
	l.slots = append(l.slots, s)
	address, err := l.receiver.listen(ctx, r.number)
	if err != nil {
		return err
	}
	if s.webhooks, err = faultproxy.Listen(ctx, address); err != nil {
		return err
	}
	server := fmt.Sprintf("127.0.0.1:%d", l.server.Port())
	if s.database, err = faultproxy.Listen(ctx, server); err != nil {
		return err
	}
	r.env = append(r.env, l.variable("DATABASE_URL")+"="+l.roleURL(s.database.Port()), l.variable("RECEIVER_URL")+"=http://"+s.webhooks.Addr())
	if l.publishes() {
		if s.messages, err = faultproxy.Listen(ctx, l.broker.Address); err != nil {
			return err
		}
		r.env = append(r.env, l.variable("NATS_URL")+"=nats://"+s.messages.Addr(), fmt.Sprintf("%s=%d", l.variable("SLOT"), r.number))
	}
	p := l.opt.plan()
	if r.number >= p.listeners() {
		return nil
	}
	if s.listens, err = faultproxy.Listen(ctx, server); err != nil {
		return err
	}
	name := "ROWHOOK_LISTEN_URL"
	if len(l.labs) > 1 {
		name = l.variable("LISTEN_URL")
	}
	r.env = append(r.env, name+"="+l.roleURL(s.listens.Port()))
	return nil
}

// sourceOf is the source as a dispatcher's file has it.
func (l *lab) sourceOf(s *slot) string {
	listens := ""
	if s.listens != nil {
		listens = fmt.Sprintf(", listen_url: %q", "${"+l.variable("LISTEN_URL")+"}")
	}
	return fmt.Sprintf("  %s: {url: %q%s, env: [%q]}\n", l.name, "${"+l.variable("DATABASE_URL")+"}", listens, l.variable("*"))
}

// proxies returns the proxies that the slot has.
func (s *slot) proxies() []*faultproxy.Proxy {
	return slices.DeleteFunc([]*faultproxy.Proxy{s.database, s.listens, s.webhooks, s.messages}, func(p *faultproxy.Proxy) bool { return p == nil })
}

func (r *runner) name() string { return fmt.Sprintf("slot%d", r.number) }

// run keeps a dispatcher alive until ctx is done.
func (r *runner) run(ctx context.Context) error {
	for ctx.Err() == nil {
		r.mu.Lock()
		down, changed := r.down, r.changed
		r.mu.Unlock()
		if down {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		c, err := process.Start(process.Command{Name: r.name(), Path: r.binary, Args: r.args, Env: r.env, Log: r.log})
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.child = c
		r.starts++
		r.mu.Unlock()
		<-c.Done()
		r.mu.Lock()
		r.child = nil
		if r.ended != c {
			r.failed++
			r.last = fmt.Sprintf("%v%s", process.OrExited(c.Err()), c.Log())
		}
		r.mu.Unlock()
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
func (r *runner) take() *process.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setDown(true)
	r.ended = r.child
	return r.child
}

// release lets it be started again.
func (r *runner) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setDown(false)
}

func (r *runner) setDown(down bool) {
	r.down = down
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *runner) running() *process.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.child
}

// ready waits until the dispatcher runs and is ready.
func (r *runner) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		if c := r.running(); c != nil {
			return c.WaitReady(ctx, time.Minute)
		}
		wait(ctx, 10*time.Millisecond)
	}
	return fmt.Errorf("%s does not run although no fault is left: %s", r.name(), r.last)
}

// stopPatience is how long a dispatcher may take to stop: its grace period, and the last writes to
// a database that does not answer.
const stopPatience = 40 * time.Second

// stop ends the dispatcher in order. hard sends a second signal.
func (r *runner) stop(hard bool) error {
	c := r.take()
	if c == nil {
		return nil
	}
	if hard {
		again := time.AfterFunc(200*time.Millisecond, func() { _ = c.Signal(syscall.SIGTERM) }) // it may have ended
		defer again.Stop()
	}
	return c.Stop(stopPatience)
}

// close ends the proxies.
func (s *slot) close() {
	for _, p := range s.proxies() {
		p.Close()
	}
}

// close ends what is left.
func (r *runner) close() {
	if c := r.take(); c != nil {
		_ = c.Signal(process.GoOn) // in case it is stopped
		c.Kill()
	}
	if r.log != nil {
		_ = r.log.Close() // for people
	}
}
