package dispatcher

import (
	"slices"
	"sync"
)

// quota bounds the attempts in flight of several parties together: of the dispatchers that share, or of
// one trigger in all of them. A party that has fewer goes before one that has more, so that none takes
// all. What a party can't begin, it is woken for when there is room.
//
// Its mutex may be taken under that of a scheduler, never the other way round.
type quota struct {
	// least is how many attempts each party may always have, and spare how many are left to those that
	// have less than their part.
	least, spare int

	mu      sync.Mutex
	parties []*party
	active  int      // attempts that make progress
	open    int      // attempts
	busy    int      // parties with attempts that make progress
	waiting []*party // that have been refused, the first one first
}

// party is one of those who share a quota.
type party struct {
	of   *quota
	wake func() // must not block, and not take the mutex of a scheduler

	// The mutex of the quota guards the rest.
	limit        int // of the quota, as this party knows it
	active, open int
	waits        bool // it is in quota.waiting
	waitsAll     bool // what waits may use all
}

// join adds a party.
func (q *quota) join(limit int, wake func()) *party {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := &party{of: q, limit: limit, wake: wake}
	q.parties = append(q.parties, p)
	return p
}

// leave ends the part of a party. It reports whether it was the last. Its attempts in flight still count.
func (p *party) leave() (last bool) {
	q := p.of
	q.mu.Lock()
	defer q.mu.Unlock()
	p.forget()
	q.parties = slices.DeleteFunc(q.parties, func(other *party) bool { return other == p })
	q.next()
	return len(q.parties) == 0
}

// bound says what the limit of the quota is for this party.
func (p *party) bound(limit int) {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	p.limit = limit
}

// room returns how many attempts the party may begin. all has it use what is left to those that have less
// than their part, too. If there is no room for any, it is woken when there is.
func (p *party) room(all bool) int {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	return p.ask(all)
}

// enter begins an attempt if there is room for it, as room says. Whoever asked first and began later could
// begin what another party has begun meanwhile.
func (p *party) enter(all bool) bool {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	if p.ask(all) == 0 {
		return false
	}
	p.open++
	p.of.open++
	p.count(1)
	return true
}

// ask is room. The mutex of the quota is held.
func (p *party) ask(all bool) int {
	q := p.of
	n := q.room(p, all)
	if n == 0 {
		if !p.waits {
			p.waits, p.waitsAll = true, false
			q.waiting = append(q.waiting, p)
		}
		p.waitsAll = p.waitsAll || all
	}
	return n
}

func (q *quota) room(p *party, all bool) int {
	free := p.limit - q.active
	if q.open >= openFactor*p.limit {
		free = 0
	}
	if !all && p.active >= q.part(p) {
		free -= q.spare
	}
	for _, w := range q.waiting {
		if w != p && w.active < p.active {
			free--
		}
	}
	return max(free, q.least-p.active, 0)
}

// part is the part of a party, if one more came that has none yet.
func (q *quota) part(p *party) int {
	busy := q.busy + 1
	if p.active == 0 {
		busy++
	}
	return max(p.limit/max(min(busy, len(q.parties)), 1), 1)
}

// fair is how many attempts a party may expect to have in flight.
func (p *party) fair() int {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	busy := p.of.busy
	if p.active == 0 {
		busy++
	}
	return max(p.limit/busy, 1)
}

// full reports that the party may begin nothing.
func (p *party) full() bool {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	return p.of.room(p, false) == 0
}

// stall says that an attempt hangs, and does not count as active any more.
func (p *party) stall() {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	p.count(-1)
	p.of.next()
}

// end counts an attempt that ends.
func (p *party) end(stalled bool) {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	p.open--
	p.of.open--
	if !stalled {
		p.count(-1)
	}
	p.of.next()
}

func (p *party) count(n int) {
	was := p.active
	p.active += n
	p.of.active += n
	switch {
	case was == 0 && p.active > 0:
		p.of.busy++
	case was > 0 && p.active == 0:
		p.of.busy--
	}
}

// pass says that a party that was woken has begun what it could. The others go on.
func (p *party) pass() {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	p.of.next()
}

// next wakes the party whose turn it is, if there is room for it.
func (q *quota) next() {
	if len(q.waiting) == 0 {
		return
	}
	p := q.waiting[0]
	for _, w := range q.waiting[1:] {
		if w.active < p.active {
			p = w
		}
	}
	if q.room(p, p.waitsAll) > 0 {
		p.forget()
		p.wake()
	}
}

// forget ends a wait.
func (p *party) forget() {
	if p.waits {
		p.waits = false
		p.of.waiting = slices.DeleteFunc(p.of.waiting, func(other *party) bool { return other == p })
	}
}
