package order

import (
	"sort"
	"time"
)

// key is the queue of one key.
type key struct {
	name    string
	lane    *lane
	waiting []*Entry // by Seq
	out     int      // entries that were handed out
	state   keyState
	failing bool      // the last entry that was out is sent again
	settled bool      // an entry was, since the lane was taken
	queued  bool      // in Lanes.ready, perhaps from an earlier time in state ready
	timer   int       // index in Lanes.timed, or -1
	due     time.Time // of its head when it was put there

	// With full set, entries above tail were left in the database. All that was visible up to tail
	// is in memory. last is the highest number that was taken in.
	full    bool
	dropped bool // by the page that is being taken in
	tail    int64
	last    int64
}

// keyState says why a key's head is not sent. place decides it.
type keyState byte

const (
	empty     keyState = iota // nothing waits
	sending                   // a run is out
	ready                     // its head may be sent
	checking                  // the caller is asked whether its head is still there
	unsure                    // an open transaction may have changed the key earlier
	timed                     // its head has failed, and waits for its next attempt
	held                      // a dead letter holds it
	leaving                   // its head left for another key, and is not settled there
	arriving                  // its head waits for the key that it left
	forgotten                 // its lane is gone
)

// blocks reports whether a state may last. Such keys are counted, and only the head of each is read.
func (s keyState) blocks() bool { return s >= timed && s <= arriving }

// The bounds of what is kept in memory.
const (
	mostOfKey   = 1_000  // entries of one key
	mostBlocked = 10_000 // keys of a lane that are blocked, before the lane stops reading
	mostEntries = 50_000 // entries of a trigger, beyond which fewOfKey is the bound of a key
	fewOfKey    = 16
)

// most is how many entries of a key may be in memory.
func (l *Lanes) most(k *key) int {
	switch {
	case l.options.Latest && (k.state == timed || !k.state.blocks()): // what comes meanwhile takes its place
	case k.state.blocks() || k.failing:
		return 1
	}
	switch {
	case l.entries > l.inAll:
		return min(fewOfKey, l.ofKey)
	}
	return l.ofKey
}

// starves reports that entries of a key that were left in the database are to be read soon.
func (l *Lanes) starves(k *key) bool {
	return k.full && !(k.failing && k.state == sending) && len(k.waiting) <= l.most(k)/4
}

// put places an entry by its number.
func (k *key) put(e *Entry) {
	k.last = max(k.last, e.Seq)
	n := len(k.waiting)
	if n == 0 || k.waiting[n-1].known() < e.known() {
		k.waiting = append(k.waiting, e)
		return
	}
	i := sort.Search(n, func(i int) bool { return k.waiting[i].known() > e.known() })
	k.waiting = append(k.waiting, nil)
	copy(k.waiting[i+1:], k.waiting[i:])
	k.waiting[i] = e
}

// drop takes the first n entries out.
func (k *key) drop(n int) {
	clear(k.waiting[:n])
	if k.waiting = k.waiting[n:]; len(k.waiting) == 0 {
		k.waiting = nil
	}
}

// timers is a heap of the keys that are timed, by the due time of their heads.
type timers []*key

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timer, t[j].timer = i, j
}

func (t *timers) Push(x any) {
	if k, ok := x.(*key); ok {
		k.timer = len(*t)
		*t = append(*t, k)
	}
}

func (t *timers) Pop() any {
	old := *t
	n := len(old) - 1
	k := old[n]
	k.timer = -1
	old[n] = nil
	*t = old[:n]
	return k
}
