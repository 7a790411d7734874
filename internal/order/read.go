package order

import (
	"math"
	"time"
)

// Read is a part of a lane that is to be read now.
type Read struct {
	Lane        int16
	After, UpTo int64 // above After, and not above UpTo
	Limit       int
	// Known says that most of what is there was read before, so that its payload is not needed.
	Known bool

	kind       readKind
	generation int // of the lane
}

type readKind byte

const (
	onward readKind = iota // behind the cursor
	again                  // where a transaction may have committed late
	refill                 // what was left in the database, of keys that starve
)

// The sizes of reads.
const (
	leastRead = 16    // events of a lane
	mostRead  = 1_000 // events of a lane
)

// Mark says that there may be new events.
func (l *Lanes) Mark() {
	for _, ln := range l.lanes {
		ln.look = true
	}
}

// Late says that a transaction has ended that may have written events above from, in any lane.
func (l *Lanes) Late(from int64) {
	for _, ln := range l.lanes {
		ln.owe(from)
	}
}

// Marked reports whether some lane may have events that were not read, and is to be read.
func (l *Lanes) Marked() bool {
	for _, ln := range l.lanes {
		if !ln.leaving && (ln.look || ln.late != none) {
			return true
		}
	}
	return false
}

// Owes reports whether something is to be read again, and was not yet.
func (l *Lanes) Owes() bool {
	for _, ln := range l.lanes {
		if ln.late != none && !ln.leaving {
			return true
		}
	}
	return false
}

// Reads returns what is to be read now, if need more events could be sent. After that Took is
// called for each, or Lost. There is one such round at a time.
func (l *Lanes) Reads(need int) (reads []Read) {
	looking := 0
	for _, ln := range l.lanes {
		if ln.onward() {
			looking++
		}
	}
	limit := leastRead
	if looking > 0 {
		limit = min(max(2*need/looking, leastRead), mostRead)
	}
	for n, ln := range l.lanes {
		if ln.leaving {
			continue
		}
		if ln.late != none {
			reads = append(reads, Read{n, ln.late, ln.cursor, mostRead, true, again, ln.generation})
			ln.late = none
			ln.review()
		} else if need > 0 {
			if from, starving := l.starving(ln); starving {
				reads = append(reads, Read{n, from, ln.cursor, mostRead, false, refill, ln.generation})
			}
		}
		if need > 0 && ln.onward() {
			// Where one key fills the lane, pages are passed over until others come.
			size := limit
			if ln.passing {
				size = mostRead
			}
			reads = append(reads, Read{n, ln.cursor, math.MaxInt64, size, ln.passing, onward, ln.generation})
			ln.look = false
		}
	}
	l.reading = l.reading || len(reads) > 0
	return reads
}

// onward reports whether the lane is to be read on.
func (ln *lane) onward() bool { return !ln.leaving && ln.look && ln.blocked < mostBlocked }

// starving returns from where to read what was left in the database.
func (l *Lanes) starving(ln *lane) (from int64, ok bool) {
	if !ln.starved {
		return 0, false
	}
	for k := range ln.full {
		if l.starves(k) && (!ok || k.tail < from) {
			from, ok = k.tail, true
		}
	}
	ln.starved = ok
	return from, ok
}

// End is how far a read has come.
type End struct {
	Last int64 // all up to it was read
	More bool  // the limit ended it: there may be events behind Last
}

// Took takes in what a read found, in ascending order.
func (l *Lanes) Took(r Read, end End, entries []*Entry, now time.Time) {
	l.now = now
	ln := l.lanes[r.Lane]
	if ln == nil || ln.generation != r.generation {
		return
	}
	touched := make(map[*key]bool, len(entries))
	left := 0
	for _, e := range entries {
		if k, taken := l.take(ln, r, e); taken {
			touched[k] = true
		} else if k != nil {
			left++
		}
	}
	covered := end.Last
	if !end.More && r.kind != onward {
		covered = r.UpTo
	}
	for k := range ln.full {
		if r.After <= k.tail && !k.dropped {
			k.tail = max(k.tail, covered)
			if touched[k] = true; k.tail >= ln.cursor {
				k.full = false
				delete(ln.full, k)
			}
		}
		k.dropped = false
	}
	switch r.kind {
	case onward:
		ln.cursor = max(ln.cursor, end.Last)
		ln.look = ln.look || end.More
		ln.passing = end.More && left > len(entries)/2
	case again:
		if end.More {
			ln.owe(end.Last)
		}
	case refill:
	}
	for k := range touched {
		l.place(k)
	}
	if r.kind == again && !end.More {
		l.letGo(ln)
	}
}

// take takes in an entry. It returns its key, or nil where the entry is known; taken is false if it
// was left in the database.
func (l *Lanes) take(ln *lane, r Read, e *Entry) (k *key, taken bool) {
	if _, known := ln.known[e.known()]; known || ln.settled[e.known()] {
		return nil, false
	}
	k = ln.keys[e.Key]
	if k == nil {
		k = &key{name: e.Key, lane: ln, timer: -1}
		ln.keys[e.Key] = k
	}
	if k.full && e.Seq > k.tail && r.After > k.tail {
		return k, false
	}
	behind := e.Seq > k.last || k.full && e.Seq > k.tail
	if behind && (k.dropped || len(k.waiting) >= l.most(k)) {
		if !k.full {
			k.full, k.tail = true, k.last
			ln.full[k] = true
		}
		k.dropped = true
		return k, false
	}
	e.key, e.Lane = k, ln.number
	if k.full {
		k.tail = max(k.tail, e.Seq)
	}
	k.put(e)
	ln.known[e.known()] = e
	l.entries++
	return k, true
}

// Lost says that a read failed.
func (l *Lanes) Lost(r Read) {
	ln := l.lanes[r.Lane]
	if ln == nil || ln.generation != r.generation {
		return
	}
	switch r.kind {
	case onward:
		ln.look = true
	case again:
		ln.owe(r.After)
	case refill:
	}
}

// Finish ends a round of reads.
func (l *Lanes) Finish() {
	l.reading = false
	for _, ln := range l.lanes {
		ln.settled = nil
	}
}
