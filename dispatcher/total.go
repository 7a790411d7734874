package dispatcher

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
)

// share is what this instance has of the total concurrency of a trigger.
type share struct {
	on       bool  // the trigger has a total
	n        int   // requests that may be in flight
	enrolled int64 // pulse.enrolled, when it was taken

	// As last written.
	held   int  // what others can't have: n, or what was in flight
	busy   bool // this instance has something to send
	others bool // others have
}

// shareEvery is the least time between two looks at the shares, so that a trigger whose events come
// one by one does not cost a look for each. What one instance gives up is another's after two looks
// at most.
const shareEvery = 100 * time.Millisecond

// totals takes and gives up shares. Its loop looks when something has changed here, when another
// instance tells that something has, when a turn ends, and at each watch.
type totals struct {
	db        *database
	self      *identity
	scheduler *scheduler
	pulse     *pulse
	log       *slog.Logger

	had    []int32 // triggers with shares of this instance
	failed bool
}

// run keeps the shares of this instance until ctx is done. While a stop waits for requests in
// flight, it gives up what they leave.
func (t *totals) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var looked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.scheduler.shareSignal:
		case <-timer.C:
		}
		if rest := shareEvery - time.Since(looked); rest > 0 {
			timer.Reset(rest)
			continue
		}
		next := t.look(ctx)
		looked = time.Now()
		timer.Reset(next)
	}
}

// look adjusts the shares of this instance. It returns when to look again at the latest.
func (t *totals) look(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	next, err := t.update(ctx)
	if failed := err != nil && ctx.Err() == nil && !t.db.schema.standsStill(); failed != t.failed {
		if t.failed = failed; failed {
			t.log.Error("can't share the total concurrency of triggers with other instances; keeping to the share that this one has", "error", err)
		}
	}
	return next
}

func (t *totals) update(ctx context.Context) (next time.Duration, err error) {
	next = time.Hour // reshare has it look before
	tell := false
	enrolled := t.pulse.enrolled.Load()
	triggers := t.scheduler.totals()
	if len(triggers) > 0 || len(t.had) > 0 {
		next = watchEvery
	}
	if len(triggers) > 0 {
		seen, err := queue.ReadShares(ctx, t.db.claims, triggers)
		if err != nil {
			return next, err
		}
		for _, id := range triggers {
			told, turn, err := t.adjust(ctx, id, enrolled, seen[id])
			if err != nil {
				return next, err
			}
			if tell = tell || told; turn {
				next = min(next, seen[id].Left+time.Millisecond)
			}
		}
	}
	if !slices.Equal(triggers, t.had) {
		if err := queue.LeaveShares(ctx, t.db.claims, t.self.id, triggers); err != nil {
			return next, err
		}
		for _, id := range t.had {
			tell = tell || !slices.Contains(triggers, id)
		}
		t.had = triggers
	}
	if tell {
		err = queue.NotifyPeers(ctx, t.db.claims, queue.SharesPayload)
	}
	return next, err
}

// adjust moves the share of one trigger towards an even one. tell says that the others are to look,
// and turns that the even share changes when the turn ends.
func (t *totals) adjust(ctx context.Context, id int32, enrolled int64, seen queue.Shares) (tell, turns bool, err error) {
	w := t.scheduler.wantShare(id, t.self.id, enrolled, seen)
	if slices.Contains(seen.All, w.share) && w.now == w.limit {
		return t.scheduler.gotShare(id, &w, enrolled), w.turns, nil
	}
	registered, err := queue.TakeShare(ctx, t.db.claims, id, t.self.id, func(now queue.Shares) queue.Share {
		w = t.scheduler.wantShare(id, t.self.id, enrolled, now)
		return w.share
	})
	if err == nil && registered {
		tell = t.scheduler.gotShare(id, &w, enrolled)
	}
	return tell, w.turns, err
}

// totals returns the triggers with a total of which this instance needs a share.
func (s *scheduler) totals() []int32 {
	triggers := []int32{} // not nil, which is null in SQL
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.lanes {
		switch {
		case l.trigger.Spec.ConcurrencyTotal == 0:
		case (l.idle() || s.closed) && l.inFlight == 0:
			l.share = share{on: true}
		default:
			l.share.on = true
			triggers = append(triggers, id)
		}
	}
	slices.Sort(triggers)
	return triggers
}

// wantedShare is the share that an instance should have.
type wantedShare struct {
	share  queue.Share
	even   int  // what it should have, if the others leave it
	limit  int  // requests that it may have in flight when it has the share
	now    int  // requests that it may have in flight until then
	others bool // others have something to send
	turns  bool // there are more instances than the total
}

// wantShare returns the share that this instance should have. It lowers at once how many requests
// may be in flight. The share itself goes down to what is in flight, at first, and up to what the
// others leave.
func (s *scheduler) wantShare(id, instance int32, enrolled int64, shares queue.Shares) (w wantedShare) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.share.Instance = instance
	l, ok := s.lanes[id]
	if !ok {
		return w
	}
	total := l.trigger.Spec.ConcurrencyTotal
	free := total
	w.share.Busy = s.sends(l)
	members := []queue.Share{w.share}
	for _, other := range shares.All {
		if other.Instance != instance {
			free -= other.N
			members = append(members, other)
			w.others = w.others || other.Busy
		}
	}
	w.turns = len(members) > total
	if !l.idle() && !s.closed {
		w.even = evenShare(total, instance, members, shares.Turn)
	}
	if l.share.enrolled != enrolled { // what it had, others may have by now
		l.share.n, l.share.enrolled = 0, enrolled
	}
	l.share.n = min(l.share.n, w.even)
	w.share.N = max(min(w.even, free), l.inFlight, 0)
	w.limit, w.now = min(w.share.N, w.even), l.share.n
	return w
}

// gotShare takes in that the instance has a share. It reports whether the others are to look: it has
// less than before, or it has begun to want what they have.
func (s *scheduler) gotShare(id int32, w *wantedShare, enrolled int64) (tell bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lanes[id]
	if !ok {
		return false
	}
	sh := &l.share
	tell = w.share.N < sh.held || w.share.Busy != sh.busy && (w.limit < w.even || !w.share.Busy && w.others)
	grown := w.limit > sh.n
	sh.n, sh.enrolled = w.limit, enrolled
	sh.held, sh.busy, sh.others = w.share.N, w.share.Busy, w.others
	if grown {
		s.later.note(time.Now()) // what waits may start
		s.wake()
		s.wakeOrderer()
	}
	s.weighShare(l) // a request may have ended meanwhile
	return tell
}

// reshare has the shares of totals looked at.
func (s *scheduler) reshare() {
	select {
	case s.shareSignal <- struct{}{}:
	default:
	}
}

// weighShare has the shares looked at if this instance holds what others may use, or could use more
// than it has.
func (s *scheduler) weighShare(l *lane) {
	sh, sends := &l.share, s.sends(l)
	if sh.on && (sh.held > max(sh.n, l.inFlight) ||
		sends && !sh.busy && l.inFlight >= sh.n && sh.n < l.trigger.Spec.ConcurrencyTotal ||
		!sends && sh.busy && sh.others) {
		s.reshare()
	}
}

// sends reports that the lane has requests in flight, or that events wait as far as is known, and
// that others may begin.
func (s *scheduler) sends(l *lane) bool {
	return !s.closed && !l.idle() && (l.inFlight > 0 || l.queued() > 0 || l.order.waits || l.state != drained)
}

// evenShare returns the share of one of the members. Those that are idle leave theirs to the others.
// If there are more than the total, they take turns.
func evenShare(total int, instance int32, members []queue.Share, turn int64) int {
	var ids []int32
	for _, busy := range [...]bool{true, false} {
		if len(ids) > 0 {
			break
		}
		for _, m := range members {
			if m.Busy == busy {
				ids = append(ids, m.Instance)
			}
		}
	}
	slices.Sort(ids)
	rank, ok := slices.BinarySearch(ids, instance)
	if !ok {
		return 0
	}
	k := len(ids)
	if k > total {
		rank = (rank + int(turn%int64(k))) % k
	}
	n := total / k
	if rank < total%k {
		n++
	}
	return n
}

// holdsShare reports whether a lane may start a request as far as its total is concerned: the share
// is still this instance's, since the others can't take it for dead yet.
func (s *scheduler) holdsShare(l *lane) bool {
	if s.pulse == nil {
		return true
	}
	return l.share.enrolled == s.pulse.enrolled.Load() && s.pulse.isFresh(time.Now())
}
