// Package fleet runs the dispatchers of several databases in one process.
//
// Each database is a member with a goroutine that prepares it (such as: applies a configuration) and one
// that runs its dispatcher. What fails is tried again, for each member by itself and without end, so a
// database that is away, full, read-only or of another schema version costs the others nothing.
package fleet

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/dispatcher"
)

// Member is one database, as Set is told of it.
type Member struct {
	// Name identifies it. It is required.
	Name string
	// Made says what its dispatcher is made of. If that changes, the dispatcher is replaced.
	Made string
	// Prepare makes the database ready for what is configured. It is called again after each Set. It
	// may take long, and must end when ctx does. Optional.
	Prepare func(ctx context.Context) error
	// New makes a dispatcher. It is called again after one could not start. It is required.
	New func() (*dispatcher.Dispatcher, error)
	// Ended is called when the member is gone and its dispatcher has ended. Optional.
	Ended func()
	// Refused is told why Prepare or the dispatcher failed, once for each reason; nil: it is logged.
	Refused func(stage Stage, err error)
	// Logger is optional.
	Logger *slog.Logger
}

// Stage is what a member is doing, or can't do.
type Stage string

// The stages.
const (
	Preparing Stage = "prepare"
	Running   Stage = "run"
)

// State is how a member stands.
type State struct {
	Name string
	// Stats are those of its dispatcher; Started is false while none runs.
	Stats dispatcher.Stats
	// Prepared says that the last Prepare succeeded, or that there is nothing to prepare.
	Prepared bool
	// Problem is why the last Prepare failed or no dispatcher runs; nil: nothing is known to be wrong.
	Problem error
	// Tried says that it was found out once whether the dispatcher can start.
	Tried bool
}

// Waits of a member.
const (
	// leastWait and longestWait bound the time until what failed is tried again.
	leastWait, longestWait = 500 * time.Millisecond, 10 * time.Second
	// patience is how long a dispatcher waits for the first Prepare, which may wait for a lock of a
	// busy table. After that it starts with what was prepared before.
	patience = 15 * time.Second
)

// Fleet runs members. Make it by New.
type Fleet struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	members map[string]*member
	all     map[*member]struct{} // also those that are ending
	running sync.WaitGroup
	failed  error // of members that ended badly
	closed  bool
}

// New returns a Fleet without members.
func New() *Fleet {
	ctx, cancel := context.WithCancel(context.Background())
	return &Fleet{ctx: ctx, cancel: cancel, members: map[string]*member{}, all: map[*member]struct{}{}}
}

// Set makes these the members: it starts those that are new, stops those that are gone, replaces those
// that are made of something else, and has the others prepare again. It does not wait for any of it.
func (f *Fleet) Set(members []Member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	gone := maps.Clone(f.members)
	for _, m := range members {
		old := f.members[m.Name]
		if old != nil && old.made == m.Made {
			delete(gone, m.Name)
			old.again(m)
			continue
		}
		f.start(m)
	}
	for name, m := range gone {
		m.cancel()
		if f.members[name] == m {
			delete(f.members, name)
		}
	}
}

// start starts a member. The caller holds mu.
func (f *Fleet) start(with Member) {
	ctx, cancel := context.WithCancel(f.ctx)
	m := &member{
		made: with.Made, with: with, cancel: cancel, log: with.Logger,
		prepare: make(chan struct{}, 1), prepared: make(chan struct{}), works: make(chan struct{}, 1), turn: make(chan struct{}, 1), problems: map[Stage]error{},
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	f.members[with.Name], f.all[m] = m, struct{}{}
	f.running.Go(func() {
		err := m.run(ctx)
		cancel()
		if with.Ended != nil {
			with.Ended()
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.all, m)
		f.failed = errors.Join(f.failed, err)
	})
}

// Stop stops all members at once and waits until they have ended. Its error says what could not be
// settled.
func (f *Fleet) Stop() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.running.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// Abort has the dispatchers of a Fleet that stops give up what is in flight.
func (f *Fleet) Abort() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for m := range f.all {
		m.abort()
	}
}

// State returns how a member stands. ok is false if there is no such member.
func (f *Fleet) State(name string) (s State, ok bool) {
	f.mu.Lock()
	m := f.members[name]
	f.mu.Unlock()
	if m == nil {
		return State{}, false
	}
	return m.state(), true
}

// member is a database with its dispatcher.
type member struct {
	made     string
	cancel   context.CancelFunc
	prepare  chan struct{} // holds a token if there is something new to prepare
	prepared chan struct{} // closed after the first Prepare has ended
	turn     chan struct{} // holds a token while Prepare runs
	works    chan struct{} // holds a token if a Prepare has succeeded after a failure
	log      *slog.Logger

	mu         sync.Mutex
	with       Member
	dispatcher *dispatcher.Dispatcher // nil: none was made
	aborted    bool
	problems   map[Stage]error
	done       bool // the last Prepare succeeded
	tried      bool
}

// again has the member prepare again, as a later Set says.
func (m *member) again(with Member) {
	m.mu.Lock()
	m.with, m.done = with, false
	m.mu.Unlock()
	signal(m.prepare)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (m *member) member() Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.with
}

func (m *member) abort() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.aborted = true
	if m.dispatcher != nil {
		m.dispatcher.Abort()
	}
}

func (m *member) state() State {
	m.mu.Lock()
	s := State{Name: m.with.Name, Prepared: m.done, Tried: m.tried}
	running, preparing, d := m.problems[Running], m.problems[Preparing], m.dispatcher
	m.mu.Unlock()
	if d != nil {
		s.Stats = d.Stats()
	}
	switch {
	case s.Stats.Started:
		s.Tried, s.Problem = true, preparing
	case running != nil:
		s.Problem = running
	default:
		s.Problem = preparing
	}
	return s
}

// run prepares and delivers until ctx is done.
func (m *member) run(ctx context.Context) error {
	var preparing sync.WaitGroup
	preparing.Go(func() { m.keepPrepared(ctx) })
	defer preparing.Wait()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-m.prepared:
	case <-timer.C:
	case <-ctx.Done():
		return nil
	}
	return m.deliver(ctx)
}

// awaitPrepare waits for the end of a Prepare that runs, for patience at most: it may be making what the
// dispatcher needs.
func (m *member) awaitPrepare(ctx context.Context) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case m.turn <- struct{}{}:
		<-m.turn
	case <-timer.C:
	case <-ctx.Done():
	}
}

// keepPrepared calls Prepare, again after each Set and after a failure.
func (m *member) keepPrepared(ctx context.Context) {
	waits, failing := backoff(), false
	for first := true; ; first = false {
		with := m.member()
		var err error
		if with.Prepare != nil {
			m.turn <- struct{}{}
			err = with.Prepare(ctx)
			<-m.turn
		}
		if ctx.Err() != nil {
			return
		}
		m.mu.Lock()
		m.done = err == nil && len(m.prepare) == 0
		m.mu.Unlock()
		m.found(with, Preparing, err)
		if first {
			close(m.prepared)
		}
		if err == nil && failing {
			signal(m.works)
		}
		if failing = err != nil; !failing {
			waits = backoff()
		}
		if !m.pause(ctx, failing, waits, m.prepare) {
			return
		}
	}
}

// deliver runs dispatchers until ctx is done. It returns what the last one could not settle.
func (m *member) deliver(ctx context.Context) error {
	waits := backoff()
	for {
		with := m.member()
		m.awaitPrepare(ctx)
		d, err := with.New()
		started := false
		if err == nil {
			err = m.runOne(ctx, with, d)
			started = d.Stats().Started
		}
		if ctx.Err() != nil {
			if !started { // there is nothing that could be lost
				err = nil
			}
			return err
		}
		if started {
			waits = backoff()
		}
		m.mu.Lock()
		m.tried, m.dispatcher = true, nil
		m.mu.Unlock()
		m.found(with, Running, err)
		if !m.pause(ctx, true, waits, m.works) {
			return nil
		}
	}
}

// pause waits for a token of sooner, or if something is failing until it is tried again. It returns false if ctx
// is done first.
func (m *member) pause(ctx context.Context, failing bool, waits retry.Backoff, sooner <-chan struct{}) bool {
	var again <-chan time.Time
	if failing {
		wait, _ := waits.Next()
		timer := time.NewTimer(wait)
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-sooner:
	case <-again:
	}
	return true
}

// backoff says how long to wait before the first and further tries again.
func backoff() retry.Backoff {
	return retry.WithJitterPercent(20, retry.WithCappedDuration(longestWait, retry.NewExponential(leastWait)))
}

// runOne runs a dispatcher until it ends.
func (m *member) runOne(ctx context.Context, with Member, d *dispatcher.Dispatcher) error {
	m.mu.Lock()
	m.dispatcher = d
	if m.aborted {
		d.Abort()
	}
	m.mu.Unlock()
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-d.Ready():
			m.mu.Lock()
			m.tried = true
			m.mu.Unlock()
			m.found(with, Running, nil)
			if m.state().Problem != nil { // it can be reached, so there is no need to wait
				signal(m.prepare)
			}
		case <-watch.Done():
		}
	})
	defer watching.Wait()
	defer stop()
	return d.Run(ctx)
}

// found records how a stage has ended, and says so once for each reason.
func (m *member) found(with Member, stage Stage, err error) {
	m.mu.Lock()
	before := m.problems[stage]
	m.problems[stage] = err
	m.mu.Unlock()
	switch {
	case err == nil && before == nil:
	case err == nil:
		m.log.Info("the source works again", "stage", string(stage))
	case before != nil && before.Error() == err.Error():
	case with.Refused != nil:
		with.Refused(stage, err)
	default:
		m.log.Error("the source does not work; trying again, the others go on", "stage", string(stage), "error", err)
	}
}
