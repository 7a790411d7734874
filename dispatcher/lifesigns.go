package dispatcher

import (
	"time"

	"github.com/rowhook/rowhook/internal/queue"
)

// lifeSigns judges which of the other instances are dead. An instance writes its row each second,
// by any session that it has; while it does, it is alive. It is dead once it has been silent for
// queue.UnseenAfter. If its row says that it holds its lock and it does not, it is dead after
// queue.LockLostAfter, since a living instance corrects its row. Time is measured by this
// process from look to look, so that a clock that is set kills nobody.
type lifeSigns struct {
	seen   map[int32]sighting
	looked time.Time
}

// sighting is an instance, and since when it has not changed.
type sighting struct {
	queue.Instance

	since time.Time
	looks int // how many looks, beyond the first, found it so
}

// A lifeSigns that has not looked for blindAfter, or whose own instance has not written its row for
// that time, knows nothing of the others. It begins anew.
const blindAfter = 4 * time.Second

// judge takes in a look, and returns who is dead. beat is when this instance last wrote its own
// row: if it can't write, the others may not be able to either, and must not be taken for dead.
func (o *lifeSigns) judge(all []queue.Instance, self int32, now, beat time.Time) (dead []queue.Instance) {
	blind := now.Sub(o.looked) > blindAfter || now.Sub(beat) > blindAfter
	o.looked = now
	before := o.seen
	o.seen = make(map[int32]sighting, len(all))
	for _, i := range all {
		if i.ID == self {
			continue
		}
		s, known := before[i.ID]
		if blind || !known || s.Instance != i {
			o.seen[i.ID] = sighting{Instance: i, since: now}
			continue
		}
		s.looks++
		o.seen[i.ID] = s
		if s.dead(now) {
			dead = append(dead, i)
		}
	}
	return dead
}

func (s *sighting) dead(now time.Time) bool {
	within := queue.UnseenAfter
	if s.Listens && !s.Locked {
		within = queue.LockLostAfter
	}
	return s.looks > 1 && now.Sub(s.since) >= within
}

// untilDead is how long until the first of those whose lock is lost is dead, at most most.
func (o *lifeSigns) untilDead(now time.Time, most time.Duration) time.Duration {
	for _, s := range o.seen {
		if s.Listens && !s.Locked {
			most = min(most, max(queue.LockLostAfter-now.Sub(s.since), suspectEvery/10))
		}
	}
	return most
}

// anySuspect reports that an instance may be dead, so that the next look must be soon.
func (o *lifeSigns) anySuspect() bool {
	for _, s := range o.seen {
		if s.Listens && !s.Locked || s.looks > 1 {
			return true
		}
	}
	return false
}
