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
}

// totals takes and gives up shares. The loop of the peers calls update at each watch, and nothing
// else changes them.
type totals struct {
	db        *database
	self      *identity
	scheduler *scheduler
	pulse     *pulse
	log       *slog.Logger

	had    []int32 // triggers with shares of this instance
	failed bool
}

// update adjusts the shares of this instance.
func (t *totals) update(ctx context.Context) {
	if t.db.schema.Load() < queue.OrderedSchema {
		t.scheduler.withoutTotals()
		return
	}
	enrolled := t.pulse.enrolled.Load()
	triggers := t.scheduler.totals()
	var err error
	for _, id := range triggers {
		if err == nil {
			err = t.adjust(ctx, id, enrolled)
		}
	}
	if err == nil && !slices.Equal(triggers, t.had) {
		if err = queue.LeaveShares(ctx, t.db.claims, t.self.id, triggers); err == nil {
			t.had = triggers
		}
	}
	if failed := err != nil && ctx.Err() == nil; failed != t.failed {
		if t.failed = failed; failed {
			t.log.Error("can't share the total concurrency of triggers with other instances; keeping to the share that this one has", "error", err)
		}
	}
}

// adjust moves the share of one trigger towards an even one.
func (t *totals) adjust(ctx context.Context, id int32, enrolled int64) error {
	seen, err := queue.ReadShares(ctx, t.db.claims, id)
	if err != nil {
		return err
	}
	wanted, limit, had := t.scheduler.wantShare(id, t.self.id, enrolled, seen)
	if slices.Contains(seen.All, wanted) && had == limit {
		return nil
	}
	registered, err := queue.TakeShare(ctx, t.db.claims, id, t.self.id, func(now queue.Shares) queue.Share {
		wanted, limit, _ = t.scheduler.wantShare(id, t.self.id, enrolled, now)
		return wanted
	})
	if err == nil && registered {
		t.scheduler.gotShare(id, limit, enrolled)
	}
	return err
}

// totals returns the triggers with a total of which this instance needs a share.
func (s *scheduler) totals() []int32 {
	triggers := []int32{} // not nil, which is null in SQL
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.lanes {
		switch {
		case l.trigger.Spec.ConcurrencyTotal == 0:
		case l.idle() && l.inFlight == 0:
			l.share = share{on: true}
		default:
			l.share.on = true
			triggers = append(triggers, id)
		}
	}
	slices.Sort(triggers)
	return triggers
}

// withoutTotals lifts the bounds: the schema has no table for them.
func (s *scheduler) withoutTotals() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		l.share = share{}
	}
}

// wantShare returns the share that this instance should have, how many requests it may then have in
// flight, and how many it may have now. It lowers the latter at once. The share itself goes down to
// what is in flight, at first, and up to what the others leave.
func (s *scheduler) wantShare(id, instance int32, enrolled int64, shares queue.Shares) (want queue.Share, limit, now int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lanes[id]
	if !ok {
		return queue.Share{Instance: instance}, 0, 0
	}
	total := l.trigger.Spec.ConcurrencyTotal
	free := total
	members := []queue.Share{{Instance: instance, Busy: l.busy()}}
	for _, other := range shares.All {
		if other.Instance != instance {
			free -= other.N
			members = append(members, other)
		}
	}
	even := 0
	if !l.idle() {
		even = evenShare(total, instance, members, shares.Turn)
	}
	if l.share.enrolled != enrolled { // what it had, others may have by now
		l.share.n, l.share.enrolled = 0, enrolled
	}
	l.share.n = min(l.share.n, even)
	want = queue.Share{Instance: instance, N: max(min(even, free), l.inFlight, 0), Busy: members[0].Busy}
	return want, min(want.N, even), l.share.n
}

// gotShare takes in that the instance has a share.
func (s *scheduler) gotShare(id int32, n int, enrolled int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lanes[id]
	if !ok {
		return
	}
	grown := n > l.share.n
	l.share.n, l.share.enrolled = n, enrolled
	if grown {
		s.later.note(time.Now()) // what waits may start
		s.wake()
	}
}

// busy reports that the lane has requests in flight, or that events wait as far as is known.
func (l *lane) busy() bool { return l.inFlight > 0 || l.queued() > 0 || l.state != drained }

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
