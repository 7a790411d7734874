package order

import "time"

// Hold is a dead letter that holds its key.
type Hold struct {
	ID   [16]byte
	Lane int16
	Seq  int64
	Key  string
}

// Bury says that an entry became a dead letter that holds its key. It is called before Done.
func (l *Lanes) Bury(e *Entry, now time.Time) {
	if ln := l.lanes[e.Lane]; ln != nil {
		ln.hold(e.ID, e.Key, &hold{seq: e.Seq, since: now})
	}
}

// Holds takes in all dead letters that hold keys of these lanes, as read at a time.
func (l *Lanes) Holds(lanes []int16, all []Hold, at, now time.Time) {
	l.now = now
	there := make(map[[16]byte]bool, len(all))
	for i := range all {
		h := &all[i]
		there[h.ID] = true
		if ln := l.lanes[h.Lane]; ln != nil {
			if old := ln.holds[h.Key][h.ID]; old == nil || old.over {
				ln.hold(h.ID, h.Key, &hold{seq: h.Seq})
				if k := ln.keys[h.Key]; k != nil {
					l.place(k)
				}
			}
		}
	}
	for _, n := range lanes {
		ln := l.lanes[n]
		if ln == nil {
			continue
		}
		over := false
		for _, of := range ln.holds {
			for id, h := range of {
				if !there[id] && !h.over && h.since.Before(at) {
					h.over = true
					ln.owe(h.seq - 1)
					over = true
				}
			}
		}
		if over && ln.late == none { // nothing of their places was read yet
			ln.review()
			l.letGo(ln)
		}
	}
}

func (ln *lane) hold(id [16]byte, key string, h *hold) {
	of := ln.holds[key]
	if of == nil {
		of = map[[16]byte]*hold{}
		ln.holds[key] = of
	}
	of[id] = h
}

// review notes that a read will see the places of the dead letters that are gone by now.
func (ln *lane) review() {
	for _, of := range ln.holds {
		for _, h := range of {
			if h.over {
				h.reading = true
			}
		}
	}
}

// letGo lets keys go on whose dead letters are gone, once the places of these were read again.
func (l *Lanes) letGo(ln *lane) {
	for name, of := range ln.holds {
		for id, h := range of {
			if h.over && h.reading {
				delete(of, id)
			}
		}
		if len(of) == 0 {
			delete(ln.holds, name)
		}
		if k := ln.keys[name]; k != nil {
			l.place(k)
		}
	}
}

// Held returns how many keys dead letters hold.
func (l *Lanes) Held() (n int) {
	for _, ln := range l.lanes {
		n += len(ln.holds)
	}
	return n
}
