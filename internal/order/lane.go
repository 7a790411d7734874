package order

import "time"

// lane is a lane that the caller owns, or that it gives back.
type lane struct {
	number     int16
	epoch      int64
	leaving    bool // nothing more of it is handed out
	generation int  // counts how often it was begun anew
	keys       map[string]*key
	known      map[int64]*Entry // in memory or handed out
	full       map[*key]bool    // keys of which entries were left in the database
	starved    bool             // one of them may starve
	out        int              // entries that were handed out
	blocked    int              // keys whose state blocks

	cursor  int64 // all that was visible up to it was read once
	look    bool  // there may be more behind it
	passing bool  // the last page was mostly of keys that have enough in memory
	late    int64 // what is above it and not above the cursor is to be read again; none: nothing
	covered bool  // the round has read what it had to read again

	// settled holds what has left the queue while a read was under way, which may still see it.
	settled map[int64]bool
	holds   map[string]map[[16]byte]*hold
}

const none int64 = -1

// hold is a dead letter that holds its key.
type hold struct {
	seq   int64
	since time.Time // when this program learned of it by itself; zero: it was read
	// over says that it is gone: the key goes on when the place of the event was read again, for
	// it may have been put back there.
	over, reading bool
}

func newLane(number int16, epoch int64) *lane {
	ln := &lane{number: number, keys: map[string]*key{}}
	ln.begin(epoch)
	return ln
}

// begin has everything read from the beginning.
func (ln *lane) begin(epoch int64) {
	ln.epoch, ln.cursor, ln.look, ln.late, ln.leaving = epoch, 0, true, none, false
	ln.known, ln.full, ln.settled, ln.holds = map[int64]*Entry{}, map[*key]bool{}, nil, map[string]map[[16]byte]*hold{}
}

// owe has the lane read again from there.
func (ln *lane) owe(from int64) {
	if from < ln.cursor && (ln.late == none || from < ln.late) {
		ln.late = from
	}
}

// isHeld reports whether a dead letter holds an entry of a key.
func (ln *lane) isHeld(name string, seq int64) bool {
	for _, h := range ln.holds[name] {
		if seq > h.seq || h.over && seq >= h.seq {
			return true
		}
	}
	return false
}
