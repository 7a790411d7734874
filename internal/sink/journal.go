package sink

import (
	"net/http"
	"slices"
	"sync"
	"unsafe"
)

// journal keeps the newest deliveries, within a number and a size, and the counts. It never changes
// a delivery that it holds, so readers share them.
type journal struct {
	mu       sync.Mutex
	counts   Counts
	sequence uint64 // of the newest delivery
	kept     []*Delivery
	bytes    int
	dropped  uint64 // deliveries that the limits have removed
	forgets  int    // removals on request
	seen     attempts
	changed  chan struct{} // closed by the next change; nil: nobody waits
}

// limits bound a journal.
type limits struct{ deliveries, bytes int }

// arrive counts an attempt, and returns how many the rule has responded to with this one. The caller
// holds the mutex.
func (j *journal) arrive(d *Delivery, rule *activeRule) (step int) {
	j.counts.Requests++
	id := int32(0)
	if rule != nil {
		id = int32(rule.ID)
	}
	key, c := j.seen.load(d.Path, d.key)
	if !c.repeats(d) || c.rule != id {
		c.tries++
		if c.rule != id {
			c.rule, c.under = id, 0
		}
		c.under++
		if c.tries == 1 {
			j.counts.Events++
		}
	}
	c.cut, c.retry = false, int32(d.CurrentRetry)
	j.seen.store(key, c)
	d.Attempt = int(c.tries)
	return int(c.under)
}

// settle counts the response, and keeps the delivery: whoever sees it in the counts of responses
// finds it, too. d does not change any more. The caller holds the mutex.
func (j *journal) settle(d *Delivery, status int, limit limits) {
	d.Status = status
	j.judge(d)
	j.add(d, limit)
}

// judge counts the response to d.
func (j *journal) judge(d *Delivery) {
	cut := d.Status == 0 && d.reused
	if d.Accepted() {
		j.counts.Accepted++
	} else {
		j.counts.Failed++
		if !cut {
			return
		}
	}
	key, c := j.seen.load(d.Path, d.key)
	if d.Accepted() && c.accepted {
		d.Duplicate = true
		j.counts.Duplicates++
	}
	c.accepted, c.cut = c.accepted || d.Accepted(), cut
	j.seen.store(key, c)
}

// reject counts and keeps a request that was refused. Of an event it counts as an attempt.
func (j *journal) reject(d *Delivery, isEvent bool, limit limits) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.add(d, limit)
	j.counts.Requests++
	j.counts.Rejected++
	if !isEvent {
		return
	}
	key, c := j.seen.load(d.Path, d.key)
	c.tries++
	j.seen.store(key, c)
	d.Attempt = int(c.tries)
	if c.tries == 1 {
		j.counts.Events++
	}
}

// add gives d its sequence number and keeps it. The caller holds the mutex.
func (j *journal) add(d *Delivery, limit limits) {
	j.sequence++
	d.Sequence = j.sequence
	j.kept = append(j.kept, d)
	j.bytes += d.size()
	for len(j.kept) > 0 && (len(j.kept) > limit.deliveries || j.bytes > limit.bytes) {
		j.bytes -= j.kept[0].size()
		j.kept[0] = nil
		j.kept = j.kept[1:]
		j.dropped++
	}
}

// announce wakes those who wait for a change.
func (j *journal) announce() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wake()
}

func (j *journal) wake() {
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
}

// view is what a journal holds at a moment.
type view struct {
	deliveries []*Delivery // oldest first
	counts     Counts
	sequence   uint64
	dropped    uint64
	forgets    int
	changed    <-chan struct{} // closed by the next change after the view
}

// since returns the deliveries with a greater sequence number, and the channel of the next change.
func (j *journal) since(sequence uint64) view {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.changed == nil {
		j.changed = make(chan struct{})
	}
	v := j.view(sequence)
	v.changed = j.changed
	return v
}

// all returns the deliveries of now.
func (j *journal) all() view {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.view(0)
}

func (j *journal) view(sequence uint64) view {
	from, _ := slices.BinarySearchFunc(j.kept, sequence+1, func(d *Delivery, n uint64) int {
		switch {
		case d.Sequence < n:
			return -1
		case d.Sequence > n:
			return 1
		}
		return 0
	})
	return view{deliveries: slices.Clone(j.kept[from:]), counts: j.counts, sequence: j.sequence, dropped: j.dropped, forgets: j.forgets}
}

// clear drops all deliveries and resets the counts. Sequence numbers go on. It returns how many
// deliveries were kept.
func (j *journal) clear() (dropped int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	dropped = len(j.kept)
	j.kept, j.bytes, j.dropped, j.counts = nil, 0, 0, Counts{}
	j.seen.clear()
	j.forgets++
	j.wake()
	return dropped
}

// remove drops deliveries, given by their sequence numbers. It returns how many of them were still
// kept.
func (j *journal) remove(sequences map[uint64]bool) (dropped int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := len(j.kept)
	j.kept = slices.DeleteFunc(j.kept, func(d *Delivery) bool {
		if sequences[d.Sequence] {
			j.bytes -= d.size()
			return true
		}
		return false
	})
	j.forgets++
	j.wake()
	return before - len(j.kept)
}

// size estimates the memory that a delivery takes, in bytes.
func (d *Delivery) size() int {
	return int(unsafe.Sizeof(*d)) + cap(d.Body) + len(d.Path) + len(d.Problem) + len(d.ID) + len(d.Trigger) + len(d.Schema) + len(d.Table) +
		len(d.SignatureProblem) + headerSize(d.Header)
}

func headerSize(h http.Header) int {
	const each = 100 // an entry of the map, and a slice of one value
	n := each
	for name, values := range h {
		n += each + len(name)
		for _, v := range values {
			n += 16 + len(v)
		}
	}
	return n
}
