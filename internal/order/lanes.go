package order

import (
	"container/heap"
	"time"
)

// staleAfter is how long an entry in memory is believed to be in the queue still. Somebody may
// discard it, or have it sent sooner. An entry that was read longer ago is looked at again before
// it is sent.
const staleAfter = 2 * time.Second

// Options say how the events of a trigger are ordered.
type Options struct {
	Strict bool // an event waits until no open transaction can come before it
	Blocks bool // a dead letter holds its key
	Latest bool // what waits of a key is sent together, when all of it is due
}

// Lanes are the lanes of one trigger that the caller owns, with what it knows of their events.
type Lanes struct {
	options Options
	lanes   map[int16]*lane
	bound   int64 // see Horizon.Bound
	reading bool

	ready    []*key // in the order in which they became ready; some are not any more
	isReady  int    // keys in state ready
	checks   map[*key]bool
	unsure   map[*key]bool
	moves    map[*key]bool // in states leaving and arriving
	timed    timers
	rotation int // of timed, for Timed
	entries  int // in memory, and handed out
	weight   int // of them
	now      time.Time
	ofKey    int // mostOfKey; lower in tests
	inAll    int // mostEntries; lower in tests
}

// NewLanes makes the Lanes of a trigger. None is owned yet.
func NewLanes(options Options) *Lanes {
	return &Lanes{ofKey: mostOfKey, inAll: mostEntries, options: options, lanes: map[int16]*lane{}, checks: map[*key]bool{}, unsure: map[*key]bool{}, moves: map[*key]bool{}}
}

// Configure changes the options.
func (l *Lanes) Configure(options Options) {
	if l.options == options {
		return
	}
	l.options = options
	for _, ln := range l.lanes {
		for _, k := range ln.keys {
			l.place(k)
		}
	}
}

// Take says that the caller owns a lane from now on. It is read from the beginning.
func (l *Lanes) Take(number int16, epoch int64) {
	ln := l.lanes[number]
	if ln == nil {
		l.lanes[number] = newLane(number, epoch)
		return
	}
	l.restart(ln, epoch)
}

// Restart has a lane read again from the beginning. What is out stays out, and a lane that is
// leaving goes on to leave.
func (l *Lanes) Restart(number int16) {
	ln := l.lanes[number]
	if ln == nil {
		return
	}
	leaving, holds := ln.leaving, ln.holds
	l.restart(ln, ln.epoch)
	ln.leaving, ln.holds = leaving, holds
	ln.review() // nothing of their places was read yet
	l.letGo(ln)
}

// Stay has a lane kept that is leaving. It is read again from the beginning. What is out stays out.
func (l *Lanes) Stay(number int16) {
	if ln := l.lanes[number]; ln != nil && ln.leaving {
		ln.leaving = false
		l.Restart(number)
	}
}

func (l *Lanes) restart(ln *lane, epoch int64) {
	for name, k := range ln.keys {
		l.shed(k)
		k.full, k.settled = false, false
		if k.out == 0 {
			l.forget(k)
			delete(ln.keys, name)
		}
	}
	out := ln.known
	ln.begin(epoch)
	ln.generation++
	ln.known = out
}

// Drop forgets a lane that the caller does not own any more.
func (l *Lanes) Drop(number int16) {
	ln := l.lanes[number]
	if ln == nil {
		return
	}
	for _, k := range ln.keys {
		l.shed(k)
		l.forget(k)
	}
	for _, e := range ln.known { // what is out
		l.entries--
		l.weight -= e.Weight
	}
	delete(l.lanes, number)
}

// shed forgets what waits in a key.
func (l *Lanes) shed(k *key) {
	for _, e := range k.waiting {
		delete(k.lane.known, e.known())
		l.weight -= e.Weight
	}
	l.entries -= len(k.waiting)
	k.waiting = nil
}

func (l *Lanes) forget(k *key) {
	l.enter(k, forgotten)
}

// Leave hands nothing more of a lane out. It reports whether nothing of it is out. When that is so,
// the lane may be given back.
func (l *Lanes) Leave(number int16) (idle bool) {
	ln := l.lanes[number]
	if ln == nil {
		return true
	}
	if !ln.leaving {
		ln.leaving = true
		for _, k := range ln.keys {
			l.place(k)
		}
	}
	return ln.out == 0
}

// Owned returns the epochs of the lanes by their numbers, without those that are leaving.
func (l *Lanes) Owned() map[int16]int64 {
	owned := make(map[int16]int64, len(l.lanes))
	for n, ln := range l.lanes {
		if !ln.leaving {
			owned[n] = ln.epoch
		}
	}
	return owned
}

// Leaving returns the lanes of which nothing more is handed out, and whether they are idle.
func (l *Lanes) Leaving() map[int16]bool {
	leaving := map[int16]bool{}
	for n, ln := range l.lanes {
		if ln.leaving {
			leaving[n] = ln.out == 0
		}
	}
	return leaving
}

// Epoch returns the epoch of a lane; 0: it is not owned.
func (l *Lanes) Epoch(number int16) int64 {
	if ln := l.lanes[number]; ln != nil {
		return ln.epoch
	}
	return 0
}

// Busy returns the lane's number of entries that are out.
func (l *Lanes) Busy(number int16) int {
	if ln := l.lanes[number]; ln != nil {
		return ln.out
	}
	return 0
}

// Next takes out what is to be sent next: up to most entries of one key, in their order. It returns
// nil if nothing is ready. Keys take turns.
func (l *Lanes) Next(now time.Time, most int) Run {
	l.now = now
	for len(l.ready) > 0 {
		k := l.ready[0]
		l.ready[0] = nil
		l.ready = l.ready[1:]
		k.queued = false
		if k.state != ready {
			continue
		}
		if now.Sub(k.waiting[0].Read) > staleAfter {
			l.enter(k, checking)
			continue
		}
		n := 1
		for n < len(k.waiting) && n < most && l.follows(k, k.waiting[n]) {
			n++
		}
		return l.takeOut(k, n)
	}
	l.ready = nil
	return nil
}

// TakeOld is Next for the heads that are not to be sent although they are ready: those which old
// chooses, at most most. Keys whose heads it leaves keep their turn.
func (l *Lanes) TakeOld(now time.Time, most int, old func(*Entry) bool) (out []*Entry) {
	l.now = now
	for _, k := range l.ready {
		if len(out) >= most {
			break
		}
		if k.state != ready || !old(k.waiting[0]) {
			continue
		}
		if now.Sub(k.waiting[0].Read) > staleAfter {
			l.enter(k, checking)
			continue
		}
		out = append(out, l.takeOut(k, 1)...)
	}
	return out
}

// takeOut hands out the first entries of a key.
func (l *Lanes) takeOut(k *key, n int) Run {
	run := make(Run, n)
	copy(run, k.waiting)
	k.drop(n)
	for _, e := range run {
		e.epoch, e.First = k.lane.epoch, !k.settled
	}
	k.out += n
	k.lane.out += n
	l.enter(k, sending)
	return run
}

// follows reports whether an entry behind a head that is ready may be sent with it.
func (l *Lanes) follows(k *key, e *Entry) bool {
	return !e.Leave && !e.Move && !e.Due.After(l.now) && (!l.options.Strict || e.Seq <= l.bound) &&
		!(l.options.Blocks && k.lane.isHeld(k.name, e.Seq)) && l.now.Sub(e.Read) <= staleAfter
}

// Done says what became of an entry that Next handed out. For Again the caller has set Due and
// Tries.
func (l *Lanes) Done(e *Entry, outcome Outcome, now time.Time) {
	l.now = now
	k := e.key
	if k.state == forgotten {
		return
	}
	ln := k.lane
	if e.epoch != ln.epoch && outcome != Gone {
		e.Read = time.Time{} // by the fence nothing was written: it is looked at again
	}
	e.epoch = 0
	k.out--
	ln.out--
	k.failing, k.settled = outcome == Again, k.settled || outcome != Returned
	if outcome == Gone {
		l.remove(ln, e)
	} else {
		if outcome == Again {
			e.Read = now
		}
		k.put(e)
	}
	l.place(k)
}

// remove forgets an entry that is not waiting any more.
func (l *Lanes) remove(ln *lane, e *Entry) {
	delete(ln.known, e.known())
	l.entries--
	l.weight -= e.Weight
	if l.reading {
		if ln.settled == nil {
			ln.settled = map[int64]bool{}
		}
		ln.settled[e.known()] = true
	}
}

// Followers reports whether the key of an entry has more to send.
func (l *Lanes) Followers(e *Entry) bool { return len(e.key.waiting) > 0 }

// Ready is how many keys could send at once.
func (l *Lanes) Ready() int { return l.isReady }

// Out is how many entries are handed out.
func (l *Lanes) Out() (n int) {
	for _, ln := range l.lanes {
		n += ln.out
	}
	return n
}

// Weight is how many bytes the entries in memory take, by their Weight.
func (l *Lanes) Weight() int { return l.weight }

// Entries is how many entries are in memory.
func (l *Lanes) Entries() int { return l.entries }

// Blocked is how many keys are blocked.
func (l *Lanes) Blocked() (n int) {
	for _, ln := range l.lanes {
		n += ln.blocked
	}
	return n
}

// Raise says that no open transaction can come before the numbers up to bound.
func (l *Lanes) Raise(bound int64) {
	if bound <= l.bound {
		return
	}
	l.bound = bound
	for k := range l.unsure {
		l.place(k)
	}
}

// Tick looks at the clock. It returns when the next entry becomes due; zero: none waits for its
// time.
func (l *Lanes) Tick(now time.Time) (next time.Time) {
	l.now = now
	for len(l.timed) > 0 {
		k := l.timed[0]
		if k.due.After(now) {
			return k.due
		}
		l.place(k)
	}
	return time.Time{}
}

// Unsure reports whether keys wait for open transactions.
func (l *Lanes) Unsure() bool { return len(l.unsure) > 0 }

// place decides the state of a key anew.
func (l *Lanes) place(k *key) {
	if k.state != forgotten {
		l.enter(k, l.judge(k))
	}
}

func (l *Lanes) judge(k *key) keyState {
	if k.out > 0 {
		return sending
	}
	if len(k.waiting) == 0 || k.lane.leaving {
		return empty
	}
	head := k.waiting[0]
	switch {
	case l.options.Blocks && k.lane.isHeld(k.name, head.Seq):
		return held
	case head.Leave:
		return leaving
	case l.pacing(k).Due.After(l.now):
		return timed
	case l.options.Strict && head.Seq > l.bound:
		return unsure
	case head.Move:
		return arriving
	case k.state == checking && l.now.Sub(head.Read) > staleAfter:
		return checking
	}
	return ready
}

// pacing returns the entry whose time a key waits for: its head, or the one that is due last of those
// that are sent together.
func (l *Lanes) pacing(k *key) *Entry {
	last := k.waiting[0]
	if !l.options.Latest {
		return last
	}
	for _, e := range k.waiting[1:] {
		if e.Leave || e.Move {
			break
		}
		if e.Tries > 0 && e.Due.After(last.Due) { // one that was not tried is only delayed
			last = e
		}
	}
	return last
}

// enter puts a key into a state, and keeps the sets of keys true.
func (l *Lanes) enter(k *key, s keyState) {
	was := k.state
	if was.blocks() && s != was {
		k.lane.blocked--
	}
	if s.blocks() && s != was {
		k.lane.blocked++
	}
	if was != s {
		switch was {
		case ready:
			l.isReady--
		case checking:
			delete(l.checks, k)
		case unsure:
			delete(l.unsure, k)
		case leaving, arriving:
			delete(l.moves, k)
		}
	}
	k.state = s
	switch {
	case s != timed && k.timer >= 0:
		heap.Remove(&l.timed, k.timer)
	case s == timed && k.timer >= 0:
		k.due = l.pacing(k).Due
		heap.Fix(&l.timed, k.timer)
	case s == timed:
		k.due = l.pacing(k).Due
		heap.Push(&l.timed, k)
	}
	if l.starves(k) {
		k.lane.starved = true
	}
	switch s {
	case ready:
		if was != ready {
			l.isReady++
		}
		if !k.queued {
			k.queued = true
			l.ready = append(l.ready, k)
		}
	case checking:
		l.checks[k] = true
	case unsure:
		l.unsure[k] = true
	case leaving, arriving:
		l.moves[k] = true
	case empty:
		if len(k.waiting) == 0 && !k.full {
			delete(k.lane.keys, k.name)
			k.state = forgotten
		}
	}
}
