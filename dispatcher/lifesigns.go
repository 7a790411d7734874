package dispatcher

import (
	"time"

	"github.com/rowhook/rowhook/sqlschema"
)

// lifeSigns judges which of the other instances are dead. An instance is alive while it says so, by whatever session: it writes its row
// each second. It is dead once it has said nothing for long, and for a shorter time where it also says that it holds its lock and does
// not, as nobody who lives leaves that so. Time is the lifeSigns's own, from look to look, so that clocks that step kill nobody.
type lifeSigns struct {
	seen   map[int32]sighting
	looked time.Time
}

// sighting is since when an instance has not changed.
type sighting struct {
	sqlschema.Instance

	since time.Time
	looks int // that found it so, beyond the first
}

// A lifeSigns that could not look or write itself for so long knows nothing about the others: it begins anew.
const blindAfter = 4 * time.Second

// judge takes in a look, and returns who is dead. beat is when this instance last wrote that it is alive itself: who can't write must
// not take others for dead that can't either.
func (o *lifeSigns) judge(all []sqlschema.Instance, self int32, now, beat time.Time) (dead []sqlschema.Instance) {
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
	deserted := s.Listens && !s.Locked
	unchanged := now.Sub(s.since)
	switch {
	case s.Seen == 0: // it is of a version that has nothing but its lock, and once may be a session that is being opened anew
		return deserted && s.looks > 0 && unchanged > watchEvery/2
	case deserted:
		return s.looks > 1 && unchanged >= sqlschema.LockLostAfter
	}
	return s.looks > 1 && unchanged >= sqlschema.UnseenAfter
}

// anySuspect reports that an instance may be dead, so that the next look must be soon.
func (o *lifeSigns) anySuspect() bool {
	for _, s := range o.seen {
		if s.Listens && !s.Locked || s.looks > 1 && s.Seen != 0 {
			return true
		}
	}
	return false
}
