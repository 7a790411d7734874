// Package fleet runs the dispatchers of several databases in one process.
//
// Each database is a member with a goroutine that prepares it (such as: applies a configuration) and one
// that runs its dispatcher. What fails is tried again, for each member by itself and without end, so a
// database that is away, full, read-only or of another schema version costs the others nothing.
//
// Several processes share their members: in each database they see who is there, and each works out by
// itself which ones it serves. The others it stands by.
package fleet

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/sqlschema"
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
	// New makes a dispatcher whose Config.Process is process. It is called again after one could not
	// start. It is required.
	New func(process int32) (*dispatcher.Dispatcher, error)
	// Connect opens a session straight to the database, in which this process sees who else is there.
	// nil: it serves the database whatever others do, and process is 0.
	Connect func(ctx context.Context) (*pgx.Conn, error)
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
	// Tried says that it was found out once whether the dispatcher can start, or need not.
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
	ctx     context.Context
	cancel  context.CancelFunc
	process int32 // number of this process
	alarm   alarm
	waiting atomic.Int64 // members that stand by

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
	return &Fleet{ctx: ctx, cancel: cancel, process: newProcess(), members: map[string]*member{}, all: map[*member]struct{}{}}
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
		fleet: f, made: with.Made, with: with, cancel: cancel, log: with.Logger, post: post{self: f.process, source: with.Name}, dispatchers: map[*dispatcher.Dispatcher]struct{}{},
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
	fleet    *Fleet
	made     string
	cancel   context.CancelFunc
	prepare  chan struct{} // holds a token if there is something new to prepare
	prepared chan struct{} // closed after the first Prepare has ended
	turn     chan struct{} // holds a token while Prepare runs
	works    chan struct{} // holds a token if a Prepare has succeeded after a failure
	log      *slog.Logger
	post     post           // deliver alone uses it
	blind    bool           // it was said that this process does not see others; likewise
	asked    time.Time      // when a member that is served last looked who is there; likewise
	draining sync.WaitGroup // dispatchers that others have taken over from

	mu          sync.Mutex
	with        Member
	dispatcher  *dispatcher.Dispatcher // nil: none was made
	dispatchers map[*dispatcher.Dispatcher]struct{}
	aborted     bool
	problems    map[Stage]error
	done        bool // the last Prepare succeeded
	tried       bool
	standby     bool
	seen        dispatcher.Members // who is there
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
	for d := range m.dispatchers {
		d.Abort()
	}
}

func (m *member) state() State {
	m.mu.Lock()
	s := State{Name: m.with.Name, Prepared: m.done, Tried: m.tried}
	standby, seen := m.standby, m.seen
	running, preparing, d := m.problems[Running], m.problems[Preparing], m.dispatcher
	m.mu.Unlock()
	if d != nil {
		s.Stats = d.Stats()
	}
	s.Stats.Standby, s.Stats.Processes, s.Stats.Schema = standby, len(seen.All), cmp.Or(s.Stats.Schema, seen.Schema)
	for _, other := range seen.All {
		if other.Serves || other.Process == m.fleet.process && s.Stats.Started {
			s.Stats.Serving++
		}
	}
	switch {
	case s.Stats.Started, standby:
		s.Tried, s.Problem = true, preparing
	case running != nil:
		s.Problem = running
		if sqlschema.IsUnworkable(running) {
			s.Stats.Unworkable = running.Error()
		}
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
	defer m.draining.Wait()
	waits := backoff()
	for {
		with := m.member()
		m.awaitPrepare(ctx)
		started, left, err := m.takePart(ctx, with)
		if ctx.Err() != nil {
			if !started { // there is nothing that could be lost
				err = nil
			}
			return err
		}
		if started {
			waits = backoff()
		}
		if left {
			continue
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

// takePart stands by until this process is to serve, and then serves. started says that a dispatcher
// has, and left that others serve now.
func (m *member) takePart(ctx context.Context, with Member) (started, left bool, err error) {
	session, err := m.standBy(ctx, with)
	if err != nil {
		return false, false, err
	}
	process := int32(0)
	if session != nil {
		defer session.close()
		process = m.fleet.process
	}
	d, err := with.New(process)
	if err != nil {
		return false, false, err
	}
	left, err = m.serve(ctx, with, d, session)
	return left || d.Stats().Started, left, err
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

// serve runs a dispatcher until it ends, or until others serve: then it ends by itself.
func (m *member) serve(ctx context.Context, with Member, d *dispatcher.Dispatcher, session *standing) (left bool, err error) {
	m.mu.Lock()
	m.dispatcher, m.dispatchers[d] = d, struct{}{}
	if m.aborted {
		d.Abort()
	}
	m.mu.Unlock()
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	m.draining.Go(func() {
		defer stop()
		err := d.Run(ctx)
		m.mu.Lock()
		delete(m.dispatchers, d)
		m.mu.Unlock()
		ended <- err
	})
	ready, looks := d.Ready(), m.looks(serveEvery)
	defer looks.stop()
	for {
		select {
		case err := <-ended:
			return false, err
		case <-ready:
			ready = nil
			session.close() // that of the dispatcher shows now that this process is there
			m.isReady(with)
			continue
		case <-looks.timer.C:
		case <-looks.alarm:
		}
		looks.next()
		if session == nil || m.isToServe(ctx, d) {
			continue
		}
		m.log.Info("another process serves the source now; this one stands by, and ends what it has in flight")
		m.mu.Lock()
		m.dispatcher = nil
		m.mu.Unlock()
		stop()
		m.draining.Go(func() {
			if err := <-ended; err != nil {
				m.log.Warn("not all that this process had of the source could be settled", "error", err)
			}
		})
		return true, nil
	}
}

// isReady takes in that a dispatcher works.
func (m *member) isReady(with Member) {
	m.mu.Lock()
	m.tried = true
	m.mu.Unlock()
	m.found(with, Running, nil)
	if m.state().Problem != nil { // it can be reached, so there is no need to wait
		signal(m.prepare)
	}
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
