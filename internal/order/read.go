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
	refill     bool // nothing is to be read again but what was left in the database
	generation int  // of the lane
}

type readKind byte

const (
	onward readKind = iota // behind the cursor
	// again is up to the cursor: where a transaction may have committed late, and what was left in
	// the database of keys that starve.
	again
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

// Reads returns what is to be read now, if need more events could be sent. recent is what
// Horizon.Recent returned. After that Took is called, or Lost. There is one such round at a time.
func (l *Lanes) Reads(need int, recent int64) (reads []Read) {
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
		from, starving := int64(0), false
		if need > 0 {
			from, starving = l.starving(ln)
		}
		looks := need > 0 && ln.onward()
		switch below := (Read{n, min(ln.late, recent), ln.cursor, mostRead, true, again, false, ln.generation}); {
		case ln.late != none:
			reads = append(reads, below)
			ln.late = none
			ln.review()
		case starving:
			below.After, below.Known, below.refill = from, false, true
			reads = append(reads, below)
			looks = looks && recent >= ln.cursor
		case looks && recent < ln.cursor:
			below.After = recent
			reads = append(reads, below)
		}
		if looks {
			// Where one key fills the lane, pages are passed over until others come.
			size := limit
			if ln.passing {
				size = mostRead
			}
			reads = append(reads, Read{n, ln.cursor, math.MaxInt64, size, ln.passing, onward, false, ln.generation})
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

// Page is what a read found, in ascending order.
type Page struct {
	End

	Entries []*Entry
}

// Took takes in what the reads of a round found, all of them in one snapshot. late and from are what
// Horizon.Observe returned for it.
//
// A transaction that has ended may have written both below and above the cursor, and for the same
// key. So what a lane's reads found counts only if they read again all that such a transaction may
// have written below. If not, the lane is read once more, from there.
func (l *Lanes) Took(reads []Read, pages []Page, from int64, late bool, now time.Time) {
	l.now = now
	for i := 0; i < len(reads); {
		end := i + 1
		for end < len(reads) && reads[end].Lane == reads[i].Lane {
			end++
		}
		if ln := l.lanes[reads[i].Lane]; ln != nil && ln.generation == reads[i].generation {
			l.tookLane(ln, reads[i:end], pages[i:end], from, late)
		}
		i = end
	}
	if late {
		for _, ln := range l.lanes {
			if !ln.covered {
				ln.owe(from)
			}
		}
	}
	l.finish()
}

func (l *Lanes) tookLane(ln *lane, reads []Read, pages []Page, from int64, late bool) {
	lowest := ln.cursor
	if reads[0].kind == again {
		lowest = min(reads[0].After, lowest)
	}
	if late && from < lowest {
		for _, r := range reads {
			l.lose(ln, r)
		}
		return
	}
	ln.covered = !reads[0].refill || !pages[0].More
	for i, r := range reads {
		l.tookPage(ln, r, &pages[i])
		if r.kind == again && pages[i].More && !r.refill { // the others wait for the rest of it
			for _, r := range reads[i+1:] {
				l.lose(ln, r)
			}
			return
		}
	}
}

func (l *Lanes) tookPage(ln *lane, r Read, p *Page) {
	touched := make(map[*key]bool, len(p.Entries))
	left := 0
	for _, e := range p.Entries {
		if k, taken := l.take(ln, r, e); taken {
			touched[k] = true
		} else if k != nil {
			left++
		}
	}
	covered := p.Last
	if !p.More && r.kind != onward {
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
		ln.cursor = max(ln.cursor, p.Last)
		ln.look = ln.look || p.More
		ln.passing = p.More && left > len(p.Entries)/2
	case again:
		if p.More && !r.refill {
			ln.owe(p.Last)
		}
	}
	for k := range touched {
		l.place(k)
	}
	if r.kind == again && !p.More {
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
	l.weight += e.Weight
	return k, true
}

// Lost says that a round failed.
func (l *Lanes) Lost(reads []Read) {
	for _, r := range reads {
		if ln := l.lanes[r.Lane]; ln != nil && ln.generation == r.generation {
			l.lose(ln, r)
		}
	}
	l.finish()
}

func (l *Lanes) lose(ln *lane, r Read) {
	switch r.kind {
	case onward:
		ln.look = true
	case again:
		if !r.refill {
			ln.owe(r.After)
		}
	}
}

// finish ends a round of reads.
func (l *Lanes) finish() {
	l.reading = false
	for _, ln := range l.lanes {
		ln.settled, ln.covered = nil, false
	}
}
