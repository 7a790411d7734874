package dispatcher

import (
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/webhook"
	"github.com/rowhook/rowhook/sqlschema"
)

// board holds the lanes and hands out the slots. It decides which lanes to claim for and how much, and which claimed event
// is sent next. Its mutex is held for a few hundred nanoseconds at a time and never across I/O.
//
// The global limit counts attempts that make progress. An attempt that waits longer than stallAfter gives its place back,
// and every lane has a few places of its own, so endpoints that hang take nothing from the others. What bounds
// the attempts that wait is each trigger's own concurrency, and openFactor times the limit altogether.
type board struct {
	limit    int // attempts in flight that make progress
	batch    int // events that a claim asks for of one lane, at least
	prefetch int // events that a lane may hold beyond its slots, at most
	signal   chan struct{}

	mu          sync.Mutex
	lanes       map[int32]*lane
	dirty       []*lane // of which more may be due
	waiting     []*lane // with queued events, served in turn
	active      int     // attempts that count
	open        int     // attempts in flight
	queued      int
	outstanding delivery // list of what was claimed and is not settled: sentinel
	count       int      // of outstanding
	average     time.Duration
	closed      bool      // claims no more
	alone       *delivery // it is to be sent alone: nothing else may start
}

const (
	stallAfter = time.Second
	openFactor = 10
	// maxOutstanding bounds what is claimed but not settled, for when the database is slower than the receivers.
	maxOutstanding = 5_000
)

func newBoard(limit, batch int) *board {
	b := &board{limit: limit, batch: batch, prefetch: 4 * batch, signal: make(chan struct{}, 1), lanes: map[int32]*lane{}}
	b.outstanding.prev, b.outstanding.next = &b.outstanding, &b.outstanding
	return b
}

// reserve is how many attempts of a lane may be in flight whatever the others do.
func (b *board) reserve() int { return max(1, b.limit/10) }

func (b *board) wake() {
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

// mark notes that more of a trigger may be due. It returns false for a trigger that is unknown here.
func (b *board) mark(trigger int32) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok := b.lanes[trigger]
	if ok {
		l.rang = time.Now()
		b.markLane(l, true)
		b.wake()
	}
	return ok
}

// markAll has every lane looked at, from the beginning where search is set.
func (b *board) markAll(search bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lanes {
		b.markLane(l, search)
	}
	b.wake()
}

// unseen is how long ago the latest claim for each lane was sent: what has become due since then it may have missed.
func (b *board) unseen(triggers []int32, now time.Time) []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	ago := make([]time.Duration, len(triggers))
	for i, id := range triggers {
		if l, ok := b.lanes[id]; ok && !l.asked.IsZero() {
			ago[i] = now.Sub(l.asked)
		}
	}
	return ago
}

func (b *board) markLane(l *lane, search bool) {
	if search {
		l.search = true
	}
	l.pending = true
	if !l.dirty {
		l.dirty = true
		b.dirty = append(b.dirty, l)
	}
}

// markHot has the lanes looked at that had something within the last second.
func (b *board) markHot(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lanes {
		if now.Sub(l.busy) < time.Second {
			b.markLane(l, false)
		}
	}
}

// floorLag is how far below the highest claimed due_at a claim starts, so that ordinary commits, which become visible a
// little after their due_at, are found at once. What commits later is found from the beginning.
const floorLag = 20 * time.Millisecond

// wants returns what to claim now, and when a lane that has to wait for its sweep may be asked again.
func (b *board) wants(now time.Time) (wants []sqlschema.Want, lanes []*lane, again time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.dirty) == 0 {
		return nil, nil, time.Time{}
	}
	free := min(b.limit-b.active+prefetch(b.limit, b.average, b.prefetch)-b.queued, maxOutstanding-b.count)
	kept := b.dirty[:0:0]
	for _, l := range b.dirty {
		if l.gone || l.idle() {
			l.dirty = false
			continue
		}
		kept = append(kept, l)
		n := b.ask(l, free)
		if n <= 0 {
			continue
		}
		w := sqlschema.Want{Trigger: l.trigger.ID, Relation: l.trigger.Relation, RelationID: l.trigger.RelationID, OriginID: l.trigger.OriginID,
			Limit: int32(n), Lease: l.lease(), Hold: now.Sub(l.poison) < holdAfter}
		if ready := l.swept.Add(l.pause()); l.search && !now.Before(ready) {
			l.search, l.swept = false, now
		} else {
			if l.search && (again.IsZero() || ready.Before(again)) {
				again = ready
			}
			if !l.floor.IsZero() {
				w.Floor = l.floor.Add(-floorLag)
			}
			if !l.pending { // only its sweep is owed, and that has to wait
				continue
			}
		}
		l.pending = false
		free -= n
		wants, lanes = append(wants, w), append(lanes, l)
	}
	if n := len(kept); n > 1 { // serve them in turn
		kept = append(kept[1:n:n], kept[0])
	}
	b.dirty = kept
	return wants, lanes, again
}

// hush keeps all else from starting for the sake of a delivery that has begun. mine is false while another one is sent alone; quiet says that
// nothing else makes progress any more.
func (b *board) hush(d *delivery) (mine, quiet bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.alone == nil {
		b.alone = d
		d.started = time.Now() // it is not to be taken for one that hangs while it waits
	}
	return b.alone == d, b.active <= 1
}

// holdAfter is for how long the payloads of a trigger are fetched one by one after one that could not be read: a claim that carries such
// a one fails as a whole.
const holdAfter = time.Minute

// poisoned notes that the payload of an event can't be read.
func (b *board) poisoned(l *lane) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.poison = time.Now()
}

// ask says how many events to claim for a lane, 0 if it is better to wait until more slots are free.
func (b *board) ask(l *lane, free int) int {
	if b.count >= maxOutstanding {
		return 0
	}
	slots := l.concurrency(b.limit)
	ahead := prefetch(slots, l.average, b.prefetch)
	room := slots + ahead - l.inFlight - l.queued()
	if l.queued() > 0 && room < (slots+ahead)/4 {
		return 0
	}
	n := min(room, free, max(b.batch, slots))
	if own := min(b.reserve(), slots) - l.inFlight - l.queued(); n < own {
		n = own
	}
	return n
}

// claimed takes in what a claim brought for these lanes, asked at the given time, and starts what there are slots for. It
// returns the deliveries to start, what people should know, and whether some lane brought all that was asked for.
func (b *board) claimed(wants []sqlschema.Want, lanes []*lane, events []sqlschema.Claimed, asked, now time.Time) (start []*delivery, notices []notice, full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	got, highest := make(map[int32]int32, len(lanes)), make(map[int32]time.Time, len(lanes))
	for i := range events {
		e := &events[i]
		l := b.lanes[e.Trigger]
		got[e.Trigger]++
		l.named(e.Table)
		schema, table := l.schema, l.table
		if e.Own != nil {
			schema, table = e.Own.Schema, e.Own.Table
		}
		if e.DueAt.After(highest[e.Trigger]) {
			highest[e.Trigger] = e.DueAt
		}
		l.busy = now
		d := &delivery{lane: l, tries: e.Tries, claim: e.Claim, broken: e.Interrupted, held: e.Held, packed: e.Packed, due: e.DueAt, expires: asked.Add(l.lease())}
		d.event = webhook.Event{
			ID: e.ID, CreatedAt: e.CreatedAt, Schema: schema, Table: table, Trigger: l.trigger.Spec.Name, Op: e.Op,
			Old: e.Old, New: e.New, Session: e.Session, Trace: e.Trace,
			CurrentRetry: int(e.Tries) - 1, MaxRetries: l.trigger.Spec.Retry.Limit,
		}
		b.link(d)
		l.push(d)
		b.queued++
		if !l.waiting {
			l.waiting = true
			b.waiting = append(b.waiting, l)
		}
	}
	for i, l := range lanes {
		l.asked = asked
		if wants[i].Floor.IsZero() {
			l.priced(now.Sub(asked))
		}
		more := got[l.trigger.ID] >= wants[i].Limit
		// A full claim may have left older events behind than were ever claimed here, such as those of a bulk insert that
		// committed after smaller ones: the next claim goes on where this one ended.
		if top := highest[l.trigger.ID]; more || top.After(l.floor) {
			l.floor = top
		}
		if n := l.lag.claimed(now, more); n != nothing {
			notices = append(notices, notice{n, l.trigger.Spec.Name, b.bottleneck(l)})
		}
		switch {
		case more:
			full = true
			l.pending = true
		case !l.pending && !l.search:
			l.dirty = false
			b.undirty(l)
		}
	}
	return b.take(now), notices, full
}

// bottleneck names the setting that keeps a lane from being claimed faster.
func (b *board) bottleneck(l *lane) string {
	switch {
	case l.trigger.Spec.Concurrency > 0 && l.inFlight+l.queued() >= l.trigger.Spec.Concurrency:
		return "concurrency of the trigger in rowhook.yaml"
	case b.active+b.queued >= b.limit || l.inFlight+l.queued() >= b.limit:
		return "--concurrency"
	}
	return "--batch-size"
}

// saturated reports that no attempt more may start.
func (b *board) saturated() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.active >= b.limit
}

// again has lanes asked anew whose claim failed.
func (b *board) again(lanes []*lane) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range lanes {
		b.markLane(l, true)
	}
}

func (b *board) undirty(l *lane) {
	for i, other := range b.dirty {
		if other == l {
			b.dirty = append(b.dirty[:i], b.dirty[i+1:]...)
			return
		}
	}
}

// take pops what may be sent now.
func (b *board) take(now time.Time) (start []*delivery) {
	for refused := 0; len(b.waiting) > 0 && refused < len(b.waiting); {
		l := b.waiting[0]
		b.waiting = append(b.waiting[:0], b.waiting[1:]...)
		if l.queued() == 0 {
			l.waiting = false
			continue
		}
		b.waiting = append(b.waiting, l)
		if !b.admits(l) {
			refused++
			continue
		}
		refused = 0
		start = append(start, b.begin(l, now))
	}
	return start
}

func (b *board) admits(l *lane) bool {
	return b.alone == nil && l.inFlight < l.concurrency(b.limit) &&
		(b.active < b.limit && b.open < openFactor*b.limit || l.inFlight < b.reserve())
}

func (b *board) begin(l *lane, now time.Time) *delivery {
	d := l.pop()
	d.started = now
	b.queued--
	l.inFlight++
	b.active++
	b.open++
	return d
}

// done gives back a slot and returns the event that takes it, nil if none waits that may.
func (b *board) done(d *delivery, took time.Duration, sent bool) *delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := d.lane
	if b.alone == d {
		b.alone = nil // what waits is started with the next look for attempts that hang
	}
	l.inFlight--
	b.open--
	if !d.stalled {
		b.active--
	}
	if sent {
		l.observe(took)
		if b.average == 0 {
			b.average = took
		}
		b.average += (took - b.average) / 32
	}
	var next *delivery
	for range len(b.waiting) {
		w := b.waiting[0]
		if len(b.waiting) > 1 {
			copy(b.waiting, b.waiting[1:])
			b.waiting[len(b.waiting)-1] = w
		}
		if w.queued() == 0 {
			w.waiting = false
			b.waiting = b.waiting[:len(b.waiting)-1]
			continue
		}
		if b.admits(w) {
			next = b.begin(w, time.Now())
			break
		}
	}
	if len(b.dirty) > 0 && !b.closed { // some lane, not only this one, may have waited for the slot
		b.wake()
	}
	return next
}

// stall gives back the places of attempts that have waited for long. It returns what may start in their place.
func (b *board) stall(now time.Time) []*delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	freed := false
	for d := b.outstanding.next; d != &b.outstanding; d = d.next {
		if !d.started.IsZero() && !d.stalled && now.Sub(d.started) > stallAfter {
			d.stalled, freed = true, true
			if b.alone == d {
				b.alone = nil
			}
			b.active--
			d.lane.average = max(d.lane.average, now.Sub(d.started)) // no prefetch for an endpoint that hangs
		}
	}
	if freed {
		b.wake()
	}
	return b.take(now)
}

func (b *board) link(d *delivery) {
	last := b.outstanding.prev
	d.prev, d.next = last, &b.outstanding
	last.next, b.outstanding.prev = d, d
	b.count++
}

// settled forgets deliveries whose settlement is written.
func (b *board) settled(ds []*delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range ds {
		d.prev.next, d.next.prev = d.next, d.prev
		d.prev, d.next = nil, nil
	}
	before := b.count
	b.count -= len(ds)
	if before >= maxOutstanding && b.count < maxOutstanding {
		b.wake()
	}
}

// close stops claiming and sending, and returns what was claimed but not sent.
func (b *board) close() (unsent []*delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, l := range b.lanes {
		unsent = append(unsent, b.dropQueue(l)...)
	}
	return unsent
}

func (b *board) dropQueue(l *lane) []*delivery {
	unsent := l.drain()
	b.queued -= len(unsent)
	return unsent
}

// due notes that something of a trigger becomes due at a time.
func (b *board) due(trigger int32, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok := b.lanes[trigger]
	if ok && (l.nextDue.IsZero() || at.Before(l.nextDue)) {
		l.nextDue = at
		b.wake()
	}
}

// ripen marks the lanes of which something has become due, and returns when the next one will.
func (b *board) ripen(now time.Time) (next time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lanes {
		if l.nextDue.IsZero() {
			continue
		}
		if !now.Before(l.nextDue) {
			l.nextDue, l.fired = time.Time{}, true
			b.markLane(l, true) // what is retried at once is due below the floor
			continue
		}
		if next.IsZero() || l.nextDue.Before(next) {
			next = l.nextDue
		}
	}
	return next
}

// fired returns the lanes whose next due time is not known any more and that are drained.
func (b *board) fired() (triggers []int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, l := range b.lanes {
		if l.fired && !l.dirty && !l.idle() {
			l.fired = false
			triggers = append(triggers, id)
		}
	}
	return triggers
}

// refire takes back what fired returned.
func (b *board) refire(triggers []int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range triggers {
		if l, ok := b.lanes[id]; ok {
			l.fired = true
		}
	}
}

// ids lists the lanes that are claimed for.
func (b *board) ids() (triggers []int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, l := range b.lanes {
		if !l.idle() {
			triggers = append(triggers, id)
		}
	}
	return triggers
}

// configure takes over a configuration. endpoint returns as well why a trigger can't be sent for here; nil: it can. configure returns
// what was claimed, waits, and may not be sent any more.
func (b *board) configure(triggers []sqlschema.Trigger, endpoint func(sqlschema.Spec) (*webhook.Endpoint, error)) (unsent []*delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := make(map[int32]bool, len(triggers))
	for _, t := range triggers {
		seen[t.ID] = true
		l, ok := b.lanes[t.ID]
		if !ok {
			l = &lane{id: t.ID}
			b.lanes[t.ID] = l
		}
		wasIdle := l.idle()
		l.trigger, l.schema, l.table, l.qualified = t, t.Schema, t.Table, ""
		l.endpoint, l.unable = endpoint(t.Spec)
		switch {
		case l.idle():
			unsent = append(unsent, b.dropQueue(l)...)
		case !ok || wasIdle:
			b.markLane(l, true)
			l.fired = true
		}
	}
	for id, l := range b.lanes {
		if !seen[id] {
			l.gone = true
			delete(b.lanes, id)
			unsent = append(unsent, b.dropQueue(l)...)
		}
	}
	b.wake()
	return unsent
}

// disable claims no more for a lane until its endpoint can be built again. It returns what was claimed of it and waits.
func (b *board) disable(l *lane, why error) (unsent []*delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.unable = why
	return b.dropQueue(l)
}

// unable says why triggers can't be sent for, by name.
func (b *board) unable() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	why := map[string]string{}
	for _, l := range b.lanes {
		if l.unable != nil {
			why[l.trigger.Spec.Name] = l.unable.Error()
		}
	}
	return why
}

// inFlight is the number of attempts that have started and not ended.
func (b *board) inFlight() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// plan returns what an event is sent by: the spec and endpoint in force now, not those of its claim.
func (b *board) plan(d *delivery) (sqlschema.Spec, *webhook.Endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d.event.MaxRetries = d.lane.trigger.Spec.Retry.Limit
	return d.lane.trigger.Spec, d.lane.endpoint
}
