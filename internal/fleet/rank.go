package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/queue"
)

// weight ranks processes by who is to work on a source first: the one of the greatest weight. All
// processes get the same ranking, without asking each other. When one comes or goes, only those sources
// move of which it is the first.
func weight(source string, process int32) uint64 {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, uint32(process)), source...))
	return binary.BigEndian.Uint64(sum[:])
}

// Times of a post.
const (
	// takeAfter is how long, for each process before this one, nobody has to serve a source until this
	// one does: those before it may be unable to.
	takeAfter = 3 * time.Second
	// joinAfter is how long, for each process before this one, events have to be overdue until this one
	// helps, beyond queue.OverdueAfter.
	joinAfter = queue.OverdueAfter
	// calmAfter is for how long no event may be overdue until it stops that. It is twice as long, up to
	// longestCalm, for each time that help was needed again within as long.
	calmAfter, longestCalm = 30 * time.Second, time.Hour
)

// post decides whether a process serves a source. What it is told may be out of date, and two
// processes may decide differently: that more than one serves does no harm. So in doubt it serves.
type post struct {
	self   int32
	source string

	unserved time.Time // since when nobody serves, as far as is known; zero: somebody does
	overdue  time.Time // since when events are overdue; zero: none are
	late     time.Time // when events were last overdue while this process served
	calm     time.Duration
}

// decide takes in who is there, and returns whether this process is to serve. serves says that it does.
func (p *post) decide(seen *dispatcher.Members, serves bool, now time.Time) bool {
	before, served, better := 0, false, false // better: one before this one serves
	for _, m := range seen.All {
		if m.Process == p.self {
			continue
		}
		served = served || m.Serves
		if weight(p.source, m.Process) > weight(p.source, p.self) {
			before++
			better = better || m.Serves
		}
	}
	since(&p.unserved, !served, now)
	since(&p.overdue, seen.Overdue, now)
	if serves {
		if seen.Overdue {
			p.late = now
		}
		return !better || !p.late.IsZero() && now.Sub(p.late) < p.calm
	}
	if before == 0 || !served && now.Sub(p.unserved) >= times(before, takeAfter) {
		return true
	}
	if !seen.Overdue || now.Sub(p.overdue) < times(before, joinAfter) {
		return false
	}
	if p.late.IsZero() || now.Sub(p.late) > 3*p.calm {
		p.calm = calmAfter
	} else {
		p.calm = min(2*p.calm, longestCalm)
	}
	p.late = now
	return true
}

func times(n int, d time.Duration) time.Duration { return time.Duration(n) * d }

// since keeps in t since when something is so.
func since(t *time.Time, is bool, now time.Time) {
	switch {
	case !is:
		*t = time.Time{}
	case t.IsZero():
		*t = now
	}
}

// gone reports whether a process that was there is not there any more.
func gone(before, now *dispatcher.Members) bool {
	for _, was := range before.All {
		there := false
		for _, is := range now.All {
			there = there || is.Process == was.Process
		}
		if !there {
			return true
		}
	}
	return false
}
