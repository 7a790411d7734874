package order

import "time"

// Moves are the heads that wait for another key.
type Moves struct {
	Tell   []*Entry // heads with Leave: their events may be sent, and nobody knows yet
	Leave  []*Entry // heads with Leave that were told: have the events left the queue?
	Arrive []*Entry // events at the head: may they be sent?
}

// Moves returns the heads that wait for another key.
func (l *Lanes) Moves() (m Moves) {
	for k := range l.moves {
		switch head := k.waiting[0]; {
		case head.Move:
			m.Arrive = append(m.Arrive, head)
		case head.Told:
			m.Leave = append(m.Leave, head)
		default:
			m.Tell = append(m.Tell, head)
		}
	}
	return m
}

// Moving reports whether keys wait for another key.
func (l *Lanes) Moving() bool { return len(l.moves) > 0 }

// Arrived says that nothing of the old key is in the way of an event.
func (l *Lanes) Arrived(e *Entry, now time.Time) {
	l.now = now
	e.Move = false
	l.place(e.key)
}

// Left says that the event of an entry with Leave is not in the queue any more.
func (l *Lanes) Left(e *Entry, now time.Time) {
	l.now = now
	l.strike(e)
}

// strike takes an entry out that waits.
func (l *Lanes) strike(e *Entry) {
	k := e.key
	if k.state == forgotten {
		return
	}
	for i, other := range k.waiting {
		if other == e {
			k.waiting = append(k.waiting[:i], k.waiting[i+1:]...)
			l.remove(k.lane, e)
			break
		}
	}
	l.place(k)
}

// mostChecked is how many entries of a key are looked at again together with its head.
const mostChecked = 100

// Stale returns entries that have to be looked at again before they are sent.
func (l *Lanes) Stale(most int) (stale []*Entry) {
	for k := range l.checks {
		for i, e := range k.waiting {
			if i >= mostChecked && !l.options.Latest || e.Leave {
				break
			}
			stale = append(stale, e)
		}
		if len(stale) >= most {
			break
		}
	}
	return stale
}

// Timed returns some of the entries whose time their keys wait for, in turn: somebody may have them sent
// sooner.
func (l *Lanes) Timed(most int) (some []*Entry) {
	for range min(most, len(l.timed)) {
		l.rotation++
		if e := l.pacing(l.timed[l.rotation%len(l.timed)]); !e.Leave {
			some = append(some, e)
		}
	}
	return some
}

// Seen says what was found of an entry that was looked at again at a time.
func (l *Lanes) Seen(e *Entry, there bool, tries int32, due, at, now time.Time) {
	l.now = now
	k := e.key
	if k.state == forgotten || e.epoch != 0 || k.lane.known[e.known()] != e || !e.Read.Before(at) {
		return // it is out, or gone, or was seen since
	}
	if !there {
		l.strike(e)
		return
	}
	e.Tries, e.Due, e.Read = tries, due, at
	if k.waiting[0] == e || l.options.Latest {
		l.place(k)
	}
}
