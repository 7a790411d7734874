package order

import (
	"math"
	"slices"
)

// Snapshot says which transactions a read has seen, and what the sequence had drawn. See
// queue.Snapshot.
type Snapshot struct {
	Xmin uint64   // the lowest transaction that was open
	Xmax uint64   // no transaction from this one on was seen
	Next uint64   // no transaction from this one on had begun to write
	Xip  []uint64 // transactions below Xmax that were open, in ascending order
	// Seq was the latest number of the sequence. The read brought none above it, and transactions
	// from Next on draw higher ones.
	Seq int64
}

// open reports whether a transaction below Next was open.
func (s *Snapshot) open(xid uint64) bool {
	if xid >= s.Xmax {
		return true
	}
	_, in := slices.BinarySearch(s.Xip, xid)
	return in
}

// Horizon remembers the snapshots of reads. A transaction that was open at a read may commit events
// whose numbers are below what was read. When it has ended, they have to be looked for, but only
// from the lowest number that it can have drawn.
type Horizon struct {
	last  Snapshot
	began bool
	marks []mark // ascending
	bound int64
}

// mark says that transactions from next on draw numbers above seq.
type mark struct {
	next uint64
	seq  int64
}

// mostMarks bounds the history of a Horizon. A transaction may be open for hours.
const mostMarks = 512

// Observe takes in the snapshot of a read. late says that a transaction has ended that was open at
// an earlier read: its events have numbers above from.
func (h *Horizon) Observe(s Snapshot) (from int64, late bool) {
	switch {
	case h.began && s.Next < h.last.Next: // another server, to which not all was copied
		*h = Horizon{}
		late = true
	case h.began:
		if xid, ended := h.ended(&s); ended {
			from, late = h.above(xid), true
		}
	}
	h.last, h.began = s, true
	h.note(mark{s.Next, s.Seq})
	for _, m := range h.marks {
		if m.next <= s.Xmin {
			h.bound = max(h.bound, m.seq)
		}
	}
	// Only the newest mark below the oldest open transaction is still of use.
	keep := 0
	for keep+1 < len(h.marks) && h.marks[keep+1].next <= s.Xmin {
		keep++
	}
	h.marks = append(h.marks[:0], h.marks[keep:]...)
	return from, late
}

// Open reports whether transactions were open at the last read.
func (h *Horizon) Open() bool {
	_, open := h.firstOpen(0)
	return open
}

// Bound returns the number up to which all events were visible at the latest read: no open
// transaction can have drawn one of these numbers.
func (h *Horizon) Bound() int64 { return h.bound }

// recentSpan is how many of the latest numbers are read again whether or not a transaction has
// ended. Short transactions end at every read.
const recentSpan = 1_000

// Recent returns a number below all that the open transactions can have drawn of the latest
// numbers. To read from there on with every read saves reading twice. It is the highest number if
// there is none.
func (h *Horizon) Recent() int64 {
	for i := range h.marks {
		if m := h.marks[i]; m.seq >= h.last.Seq-recentSpan {
			if xid, ok := h.firstOpen(m.next); ok {
				return h.above(xid)
			}
			break
		}
	}
	return math.MaxInt64
}

// firstOpen returns the lowest transaction from xid on that was open at the last read.
func (h *Horizon) firstOpen(xid uint64) (uint64, bool) {
	i, _ := slices.BinarySearch(h.last.Xip, xid)
	switch from := max(xid, h.last.Xmax); {
	case i < len(h.last.Xip):
		return h.last.Xip[i], true
	case from < h.last.Next:
		return from, true
	}
	return 0, false
}

// ended returns the lowest transaction that was open at the last read and has ended.
func (h *Horizon) ended(s *Snapshot) (xid uint64, ok bool) {
	for _, xid := range h.last.Xip {
		if !s.open(xid) {
			return xid, true
		}
	}
	for xid := h.last.Xmax; xid < min(h.last.Next, s.Xmax); xid++ {
		if !s.open(xid) {
			return xid, true
		}
	}
	return 0, false
}

// above returns a number below all that a transaction can have drawn.
func (h *Horizon) above(xid uint64) (seq int64) {
	for _, m := range h.marks {
		if m.next <= xid {
			seq = max(seq, m.seq)
		}
	}
	return seq
}

func (h *Horizon) note(m mark) {
	if n := len(h.marks); n > 0 && h.marks[n-1].next >= m.next {
		h.marks[n-1].seq = max(h.marks[n-1].seq, m.seq)
		return
	}
	h.marks = append(h.marks, m)
	if len(h.marks) > mostMarks { // half of them are fine: their numbers are only lower
		thin := h.marks[:0]
		for i := range h.marks {
			if i%2 == 0 || i == len(h.marks)-1 {
				thin = append(thin, h.marks[i])
			}
		}
		h.marks = thin
	}
}
