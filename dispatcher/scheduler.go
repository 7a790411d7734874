package dispatcher

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/trigger"
)

// scheduler holds the lanes and hands out the slots. It decides which lanes to claim for and how
// much, and which claimed event is sent next. Its mutex is held for a few hundred nanoseconds at a
// time, and never across I/O.
//
// The global limit counts attempts that make progress. An attempt that waits longer than stallAfter
// gives its place back. Every lane has a few places of its own. So endpoints that hang take nothing
// from the others. Attempts that wait are bounded by each trigger's own concurrency, and by
// openFactor times the limit altogether.
type scheduler struct {
	limit    int    // attempts in flight that make progress
	batch    int    // least number of events that a claim may ask for of one lane
	prefetch int    // most events that a lane may hold beyond its slots
	maxBody  int64  // of a request; 0: no limit
	source   string // Config.SourceName
	signal   chan struct{}
	later    timetable
	stalls   occasion // attempts are in flight, or wait to begin

	paceSignal chan struct{}
	// shareSignal says that shares of totals are to be looked at.
	shareSignal chan struct{}

	pulse *pulse // nil: shares of totals are held for ever

	hostNews []hostNews // guarded by the mutex of hosts

	mu            sync.Mutex
	shared        joined
	lanes         map[int32]*lane
	undrained     []*lane        // whose state is not drained
	waiting       []*lane        // with queued events, served in turn
	active        int            // attempts that count against the limit
	open          int            // attempts in flight
	queued        int            // shipments that the lanes' queues make
	bulk          int            // of the outstanding deliveries, those of triggers with batches
	bulkWaits     bool           // a lane with batches waits until more can be claimed for it
	cancellations []cancellation // not logged yet
	outstanding   delivery       // sentinel of the list of deliveries that are claimed and not settled
	count         int            // of outstanding
	linked        int64          // deliveries so far
	average       time.Duration
	instances     int // alive, as last seen
	order         orderSignals
	closed        bool        // claims no more
	halted        bool        // claims and sends nothing until resume
	alone         *shipment   // one that is to be sent alone: nothing else may start; nil: none
	overdue       []*delivery // expired when they were claimed, and not given up yet
	handed        handedMarks

	targets       map[string]*target // of the breakers, by name
	healthChanged bool               // rowhook.health is to be read
	breakerSignal chan struct{}
}

const (
	stallAfter = time.Second
	openFactor = 10
	// maxOutstanding bounds the deliveries that are claimed and not settled, for a database that is
	// slower than the receivers.
	maxOutstanding = 5_000
)

func newScheduler(limit, batch int) *scheduler {
	s := &scheduler{limit: limit, batch: batch, prefetch: 4 * batch, signal: make(chan struct{}, 1), later: newTimetable(), stalls: newOccasion(), lanes: map[int32]*lane{},
		handed:        handedMarks{deliveries: map[[16]byte]*delivery{}, refused: map[*lane]time.Time{}},
		order:         orderSignals{wake: make(chan struct{}, 1), changed: true},
		breakerSignal: make(chan struct{}, 1), paceSignal: make(chan struct{}, 1), shareSignal: make(chan struct{}, 1)}
	s.outstanding.prev, s.outstanding.next = &s.outstanding, &s.outstanding
	return s
}

// reserve is how many attempts of a lane may be in flight, whatever the others do.
func (s *scheduler) reserve() int { return max(1, s.limit/10) }

func (s *scheduler) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// mark says that writers have notified for a trigger. It returns false if the trigger is unknown
// here.
func (s *scheduler) mark(trigger int32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lanes[trigger]
	if ok {
		l.rang = time.Now()
		s.markLane(l, true)
		s.markOrder(l)
		if l.trigger.Spec.Delay > 0 {
			l.next.forget() // what has rung is not due yet
		}
		s.wake()
	}
	return ok
}

// markAll says that more may be due of every lane, below its floor too if below is set.
func (s *scheduler) markAll(below bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		s.markLane(l, below)
	}
	for _, l := range s.order.lanes {
		s.markOrder(l)
	}
	s.wake()
}

// forgetDelayed has the next due times asked for of triggers with a delay: their events are recorded
// long before they are due, and so a claim does not find them.
func (s *scheduler) forgetDelayed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		if l.trigger.Spec.Delay > 0 {
			l.next.forget()
		}
	}
}

// unseen is how long ago the latest claim for each trigger was sent. That claim may have missed
// what has become due since.
func (s *scheduler) unseen(triggers []int32, now time.Time) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	ago := make([]time.Duration, len(triggers))
	for i, id := range triggers {
		if l, ok := s.lanes[id]; ok && !l.sent.IsZero() {
			ago[i] = now.Sub(l.sent)
		}
	}
	return ago
}

func (s *scheduler) markLane(l *lane, below bool) {
	s.enter(l, l.state.mark(below))
}

// enter changes the state of a lane, and keeps undrained true.
func (s *scheduler) enter(l *lane, state laneState) {
	switch was := l.state; {
	case was == drained && state != drained:
		s.undrained = append(s.undrained, l)
	case was != drained && state == drained:
		s.undrained = slices.DeleteFunc(s.undrained, func(other *lane) bool { return other == l })
	}
	l.state = state
}

// markHot marks the lanes of which a claim has found an event within the last second.
func (s *scheduler) markHot(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		if now.Sub(l.found) < time.Second {
			s.markLane(l, false)
		}
	}
	for _, l := range s.order.lanes {
		if now.Sub(l.order.found) < time.Second {
			s.markOrder(l)
		}
	}
}

// floorLag is how far below the highest due_at that was claimed a claim starts. An ordinary commit
// becomes visible a little after its due_at, and is found at once by that. A later one is found by
// a sweep.
const floorLag = 20 * time.Millisecond

// wants returns what to claim now. again is when the first of the lanes that owe a sweep may begin
// it, or the first claim that was put off is due; zero: none waits.
func (s *scheduler) wants(now time.Time) (wants []queue.Want, lanes []*lane, again time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.undrained) == 0 {
		return nil, nil, time.Time{}
	}
	free := s.free()
	kept := s.undrained[:0:0]
	for _, l := range s.undrained {
		if l.gone || l.idle() || l.gate.shut(l) {
			l.state = drained
			continue
		}
		kept = append(kept, l)
		n := s.ask(l, now, free)
		if n <= 0 {
			s.weighShare(l)
			if at := l.offered.Add(bulkPatience); !l.offered.IsZero() && (again.IsZero() || at.Before(again)) {
				again = at
			}
			continue
		}
		w := queue.Want{Trigger: l.trigger.ID, Relation: l.trigger.Relation, RelationID: l.trigger.RelationID, OriginID: l.trigger.OriginID,
			Limit: int32(n), Lease: l.lease(), Hold: now.Sub(l.unreadable) < holdAfter}
		mayBegin := l.sweeping.next()
		var start claimStart
		start, l.state = l.state.ask(!now.Before(mayBegin))
		if l.state == sweepOwed && (again.IsZero() || mayBegin.Before(again)) {
			again = mayBegin
		}
		switch start {
		case noClaim:
			continue
		case sweep:
			l.sweeping.began = now
		case fromFloor:
			if !l.floor.IsZero() {
				w.Floor = l.floor.Add(-floorLag)
			}
		}
		l.gate.asked(l)
		free -= (n + max(l.batches().Max, 1) - 1) / max(l.batches().Max, 1)
		wants, lanes = append(wants, w), append(lanes, l)
	}
	if n := len(kept); n > 1 { // serve them in turn
		kept = append(kept[1:n:n], kept[0])
	}
	s.undrained = kept
	return wants, lanes, again
}

// quiesce keeps all else from starting, for a shipment that has begun and is to be sent alone. mine
// is false while another shipment is sent alone: then this one does not count as active. quiet says that no other attempt makes progress any more.
func (s *scheduler) quiesce(sh *shipment) (mine, quiet bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alone == nil {
		s.alone = sh
	}
	if s.alone != sh {
		if !sh.stalled {
			sh.stalled = true
			s.yield()
		}
		return false, false
	}
	sh.started = time.Now() // while it waits, it must not count as one that hangs
	others := s.active
	if !sh.stalled {
		others--
	}
	return true, others <= 0
}

// holdAfter is how long the payloads of a trigger are fetched one by one, after one of them could
// not be read. A claim that fetches such a payload fails as a whole.
const holdAfter = time.Minute

// unreadable records that the payload of an event can't be read.
func (s *scheduler) unreadable(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.unreadable = time.Now()
}

// ask returns how many events to claim for a lane; 0: wait until more slots are free.
func (s *scheduler) ask(l *lane, now time.Time, free int) int {
	if s.count >= maxOutstanding {
		return 0
	}
	most := l.gate.room(l)
	if most == 0 {
		return 0
	}
	paced := unbounded
	if !l.pace.off() {
		if paced = l.pace.room(now, s.instances, l.loads()); paced == 0 {
			s.askForSlots()
			return 0
		}
	}
	slots := s.slotsOf(l)
	ahead := prefetch(slots, l.average, s.prefetch)
	if !l.batches().IsZero() {
		return s.askBatch(l, now, free, slots, ahead, min(most, paced))
	}
	room := slots + ahead - l.inFlight - l.queued()
	if l.queued() > 0 && room < (slots+ahead)/4 {
		return 0
	}
	// A lane that is quick gets half of what it may hold by one claim. With s.batch alone, the next
	// claim was not there in time.
	n := min(room, free, max(s.batch, slots, (slots+ahead)/2))
	if own := min(s.reserve(), slots) - l.inFlight - l.queued(); n < own {
		n = own
	}
	return min(n, most, paced)
}

// claimed takes in the events of a claim, which was sent at the given time. It returns the
// shipments for which there is a slot, the deliveries that may not be sent any more, what people should
// know, and whether some lane got all that it had asked for.
func (s *scheduler) claimed(wants []queue.Want, lanes []*lane, events []queue.Claimed, sent, now time.Time) (start []*shipment, unsent []*delivery, notices []notice, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	got, highest := make(map[int32]int32, len(lanes)), make(map[int32]time.Time, len(lanes))
	var late map[int32]int32 // of got, those that are not sent
	without := func(id int32) {
		if late == nil {
			late = map[int32]int32{}
		}
		late[id]++
	}
	for i := range events {
		e := &events[i]
		l := s.lanes[e.Trigger]
		got[e.Trigger]++
		if e.DueAt.After(highest[e.Trigger]) {
			highest[e.Trigger] = e.DueAt
		}
		l.found = now
		d := &delivery{lane: l, tries: e.Tries, claim: e.Claim, broken: e.Interrupted, held: e.Held, packed: e.Packed, due: e.DueAt, renewed: e.RenewedAt, expires: sent.Add(l.lease()), taken: now, bulk: !l.batches().IsZero(), event: l.event(e)}
		s.link(d)
		switch {
		case l.idle(): // since the claim was sent
			without(e.Trigger)
			unsent = append(unsent, d)
			continue
		case expired(&l.trigger.Spec, d, now):
			without(e.Trigger)
			s.overdue = append(s.overdue, d)
			continue
		}
		s.enqueue(d)
	}
	for i, l := range lanes {
		l.sent = sent
		if wants[i].Floor.IsZero() {
			l.sweeping.ended(now.Sub(sent))
		}
		more := got[l.trigger.ID] >= wants[i].Limit
		// A full claim may leave events behind that are older than all that were claimed before,
		// for instance those of a bulk insert that committed late. The next claim goes on where
		// this one ended.
		if top := highest[l.trigger.ID]; more || top.After(l.floor) {
			l.floor = top
		}
		if n := l.lag.claimed(now, more && l.gate.open()); n != nothing {
			notices = append(notices, notice{n, l.trigger.Spec.Name, s.bottleneck(l), l.bound()})
		}
		full = full || more
		s.enter(l, l.state.answer(more))
		s.answered(l, got[l.trigger.ID]-late[l.trigger.ID], now)
	}
	start = s.take(now)
	for _, l := range lanes {
		s.weighShare(l)
	}
	return start, unsent, notices, full
}

// enqueue has a delivery wait for a slot of its lane.
func (s *scheduler) enqueue(d *delivery) {
	l := d.lane
	s.queued -= l.loads()
	l.push(d)
	s.queued += l.loads()
	if !l.waiting {
		l.waiting = true
		s.waiting = append(s.waiting, l)
	}
}

// bottleneck names the setting that keeps a lane from being claimed faster.
func (s *scheduler) bottleneck(l *lane) string {
	switch {
	case l.trigger.Spec.Concurrency > 0 && l.inFlight+l.loads() >= l.trigger.Spec.Concurrency:
		return "concurrency of the trigger in rowhook.yaml"
	case s.active+s.queued >= s.limit || l.inFlight+l.loads() >= s.limit:
		return "--concurrency"
	}
	return "--batch-size"
}

// saturated reports that no slot is free.
func (s *scheduler) saturated() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active >= s.limit || s.shared.Shared != nil && s.shared.place.full()
}

// requeue has the lanes of a claim that failed asked again.
func (s *scheduler) requeue(lanes []*lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range lanes {
		l.gate.unanswered(l)
		s.markLane(l, true)
	}
}

// take starts the shipments for which there is a slot.
func (s *scheduler) take(now time.Time) (start []*shipment) {
	for refused := 0; len(s.waiting) > 0 && refused < len(s.waiting); {
		l := s.waiting[0]
		s.waiting = append(s.waiting[:0], s.waiting[1:]...)
		if l.queued() == 0 {
			l.waiting = false
			continue
		}
		s.waiting = append(s.waiting, l)
		if !s.admits(l, now) {
			refused++
			s.stalls.arises()
			continue
		}
		refused = 0
		start = append(start, s.begin(l, now))
	}
	return start
}

// admits reports whether the first shipment of a lane may start. If so, others that share count it already:
// the caller begins it.
func (s *scheduler) admits(l *lane, now time.Time) bool {
	if s.halted || s.alone != nil || l.inFlight >= l.concurrency(s.limit) || !l.gate.admits(l) ||
		(s.active >= s.limit || s.open >= openFactor*s.limit) && l.inFlight >= s.reserve() {
		return false
	}
	if at := l.ripe(s.maxBody); now.Before(at) {
		s.later.note(at)
		return false
	}
	return (!l.share.on || s.holdsShare(l)) && (l.pace.off() || s.onPace(l, now)) && s.enterShared(l)
}

func (s *scheduler) begin(l *lane, now time.Time) *shipment {
	s.queued -= l.loads()
	var sh *shipment
	if l.batches().IsZero() {
		sh = l.pop().ship()
	} else {
		sh = l.pack(s.maxBody)
	}
	s.queued += l.loads()
	sh.started = now
	sh.aimed = l.gate.aim(l)
	if t := sh.aimed.probe; t != nil && t.trigger == 0 && s.shared.Shared != nil {
		t.sends = true
		s.shared.hosts.probed(t.name, t.failing, now)
	}
	if !l.pace.off() {
		l.pace.take()
		s.askForSlots()
	}
	l.inFlight++
	l.carried += len(sh.deliveries)
	s.occupy(sh)
	return sh
}

// done gives back a slot. It returns the shipment that takes it; nil: none is waiting that may.
func (s *scheduler) done(sh *shipment, took time.Duration, sent bool) *shipment {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := sh.lane
	if s.alone == sh {
		s.alone = nil // watchStalls starts what has waited
	}
	sh.ended = true
	l.inFlight--
	sh.aimed.landed()
	l.carried -= len(sh.deliveries)
	s.vacate(sh)
	if sent {
		l.observe(took)
		if s.average == 0 {
			s.average = took
		}
		s.average += (took - s.average) / 32
	}
	var next *shipment
	now := time.Now()
	for range len(s.waiting) {
		w := s.waiting[0]
		if len(s.waiting) > 1 {
			copy(s.waiting, s.waiting[1:])
			s.waiting[len(s.waiting)-1] = w
		}
		if w.queued() == 0 {
			w.waiting = false
			s.waiting = s.waiting[:len(s.waiting)-1]
			continue
		}
		if s.admits(w, now) {
			next = s.begin(w, now)
			break
		}
	}
	// Any lane may have waited for the slot, not only this one.
	if len(s.undrained) > 0 && !s.closed {
		s.wake()
	}
	if s.order.starved {
		s.wakeOrderer()
	}
	s.weighShare(l)
	return next
}

// stall gives back the places of attempts that hang. It returns the shipments that start in their
// place. more says that attempts are in flight, or wait to begin.
func (s *scheduler) stall(now time.Time) (start []*shipment, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	freed := false
	for d := s.outstanding.next; d != &s.outstanding; d = d.next {
		sh := d.shipment
		if sh == nil || sh.ended || now.Sub(sh.started) <= stallAfter {
			continue
		}
		if s.alone == sh { // it may hang for the second time: before, it waited for another one
			s.alone, freed = nil, true
		}
		if !sh.stalled {
			sh.hangs()
			freed = true
			s.yield()
			// An endpoint that hangs gets no prefetch.
			sh.lane.average = max(sh.lane.average, now.Sub(sh.started))
		}
	}
	if freed {
		s.wake()
		s.wakeOrderer()
	}
	start = s.take(now)
	return start, s.open > 0 || len(s.waiting) > 0
}

func (s *scheduler) link(d *delivery) {
	last := s.outstanding.prev
	d.prev, d.next = last, &s.outstanding
	last.next, s.outstanding.prev = d, d
	s.count++
	s.linked++
	d.lane.claimed++
	if d.bulk {
		s.bulk++
	}
	if d.handed {
		s.handed.deliveries[d.event.ID] = d
	}
}

// takenSoFar is how many deliveries there were, of events that were claimed, handed over or read in order.
func (s *scheduler) takenSoFar() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.linked
}

// settled forgets deliveries whose outcome is written.
func (s *scheduler) settled(ds []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		d.prev.next, d.next.prev = d.next, d.prev
		d.prev, d.next = nil, nil
		d.lane.claimed--
		if d.bulk {
			s.bulk--
		}
		if d.handed {
			delete(s.handed.deliveries, d.event.ID)
			if s.handed.settled != nil {
				s.handed.settled[d.event.ID] = true
			}
		}
	}
	before := s.count
	s.count -= len(ds)
	if before >= maxOutstanding && s.count < maxOutstanding {
		s.wake()
		s.wakeOrderer()
	}
	if s.bulkWaits {
		s.bulkWaits = false
		s.wake()
	}
}

// close ends claiming and sending. It returns what was claimed and not sent.
func (s *scheduler) close() (unsent []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, l := range s.lanes {
		unsent = append(unsent, s.dropQueue(l)...)
	}
	s.reshare()
	return unsent
}

// halt has nothing claimed and sent until resume, as if all triggers were paused. It returns what was
// claimed and has not begun.
func (s *scheduler) halt() (unsent []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.halted = true
	for _, l := range s.lanes {
		l.halted = true
		unsent = append(unsent, s.dropQueue(l)...)
	}
	s.reorder()
	s.reshare()
	return unsent
}

// resume ends a halt. What became due meanwhile is looked for by whoever calls it.
func (s *scheduler) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.halted = false
	for _, l := range s.lanes {
		l.halted = false
	}
	s.reorder()
	s.reshare()
}

func (s *scheduler) dropQueue(l *lane) []*delivery {
	s.queued -= l.loads()
	return l.drain()
}

// noteDue notes that a retry or a lease of a trigger becomes due.
func (s *scheduler) noteDue(trigger int32, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lanes[trigger]
	if ok && l.next.note(at) {
		s.wake()
	}
}

// ripen marks the lanes of which an event has become due. It returns when the next one will; zero:
// none is known.
func (s *scheduler) ripen(now time.Time) (next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		if l.next.ripen(now) {
			s.markLane(l, true) // a retry without delay is due below the floor
			continue
		}
		if !l.next.at.IsZero() && (next.IsZero() || l.next.at.Before(next)) {
			next = l.next.at
		}
	}
	return next
}

// unaskedDue returns the drained lanes whose next due time has to be asked for. The caller asks, or
// calls forgetDue.
func (s *scheduler) unaskedDue() (triggers []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.lanes {
		if l.state == drained && !l.idle() && !l.gate.shut(l) && l.next.ask() {
			triggers = append(triggers, id)
		}
	}
	return triggers
}

// forgetDue has the next due times of triggers asked for.
func (s *scheduler) forgetDue(triggers []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range triggers {
		if l, ok := s.lanes[id]; ok {
			l.next.forget()
		}
	}
}

// ids lists the triggers that are claimed for.
func (s *scheduler) ids() (triggers []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range s.lanes {
		if !l.idle() {
			triggers = append(triggers, id)
		}
	}
	return triggers
}

// configure takes over a configuration. endpoint makes the endpoint of a trigger, and returns why
// this instance can't send for it; nil: it can. configure returns the deliveries that wait and may
// not be sent any more.
func (s *scheduler) configure(triggers []queue.Trigger, endpoint func(trigger.Spec) (Endpoint, error)) (unsent []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := make(map[int32]bool, len(triggers))
	for _, t := range triggers {
		seen[t.ID] = true
		l, ok := s.lanes[t.ID]
		if !ok {
			l = &lane{id: t.ID, source: s.source, halted: s.halted}
			s.lanes[t.ID] = l
		}
		if l.suspended != t.Version {
			l.suspended = ""
		}
		t.Paused = t.Paused || l.suspended != ""
		wasIdle, had := l.idle(), l.trigger.Spec.ConcurrencyTotal
		s.breakOff(l, &t)
		if !t.Spec.Order.IsZero() && l.batches() != t.Spec.Batch {
			unsent = append(unsent, s.dropQueue(l)...) // runs of a key fit into the requests of before
		}
		s.queued -= l.loads()
		l.trigger, l.spec, l.schema, l.table, l.qualified = t, &t.Spec, t.Schema, t.Table, ""
		l.measure()
		l.pace.configure(t.Spec.Rate)
		if l.share.on = t.Spec.ConcurrencyTotal > 0; !l.share.on {
			l.share = share{}
		}
		s.queued += l.loads()
		l.endpoint, l.unable = endpoint(t.Spec)
		s.shareEndpoint(l)
		switch {
		case l.idle():
			unsent = append(unsent, s.dropQueue(l)...)
		case !ok || wasIdle:
			s.markLane(l, true)
			s.markOrder(l)
			l.next.forget()
		}
		if had != t.Spec.ConcurrencyTotal || l.share.on && wasIdle != l.idle() {
			s.reshare()
		}
	}
	for id, l := range s.lanes {
		if !seen[id] {
			l.gone = true
			s.leaveEndpoint(l)
			delete(s.lanes, id)
			unsent = append(unsent, s.dropQueue(l)...)
		}
	}
	s.aim()
	s.wake()
	s.reorder()
	return unsent
}

// disable ends claiming for a lane until its endpoint can be built again. It returns its deliveries
// that wait.
func (s *scheduler) disable(l *lane, why error) (unsent []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.unable = why
	s.reorder()
	return s.dropQueue(l)
}

// suspend ends claiming for a lane whose trigger is being paused, because of a request that was made
// for the given version of it. It ends when another version is loaded, or by unsuspend. A load that
// has read the trigger before it was paused changes nothing. suspend returns the lane's deliveries that
// wait.
func (s *scheduler) suspend(l *lane, version string) (unsent []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.trigger.Paused, l.suspended = true, version
	s.reorder()
	return s.dropQueue(l)
}

// unsuspend ends what suspend has begun, at the next load.
func (s *scheduler) unsuspend(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.suspended = ""
}

// takeOverdue returns the deliveries that have expired before they were claimed, and forgets them.
func (s *scheduler) takeOverdue() []*delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.overdue
	s.overdue = nil
	return all
}

// unable returns why triggers can't be sent for, by name.
func (s *scheduler) unable() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	why := map[string]string{}
	for _, l := range s.lanes {
		if l.unable != nil {
			why[l.trigger.Spec.Name] = l.unable.Error()
		}
	}
	return why
}

// inFlight is the number of attempts that have started and not ended.
func (s *scheduler) inFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// plan returns the spec and the endpoint by which events are sent: those in force now, not those at
// their claim. breakOff can cancel the context. The caller calls ended at the end of the shipment.
func (s *scheduler) plan(parent context.Context, sh *shipment) (ctx context.Context, ended func(), spec *trigger.Spec, endpoint Endpoint) {
	ctx, cancel := context.WithCancelCause(parent)
	s.mu.Lock()
	defer s.mu.Unlock()
	sh.url, sh.version, sh.cancel = sh.lane.trigger.Spec.Address(), sh.lane.trigger.Version, cancel
	for _, d := range sh.deliveries {
		d.event.MaxRetries = sh.lane.trigger.Spec.Retry.Limit
	}
	return ctx, func() { cancel(nil) }, sh.lane.spec, sh.lane.endpoint
}

// stats returns how each trigger stands, by name.
func (s *scheduler) stats() []TriggerStats {
	s.mu.Lock()
	out := make([]TriggerStats, 0, len(s.lanes))
	for _, l := range s.lanes {
		t := TriggerStats{Name: l.trigger.Spec.Name, Paused: l.trigger.Paused, InFlight: l.inFlight, Queued: l.queued()}
		t.Failing = l.gate.closed() != nil
		if l.unable != nil {
			t.Unable = l.unable.Error()
		}
		out = append(out, t)
	}
	s.mu.Unlock()
	sorting.By(out, func(a, b TriggerStats) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// quiet reports that all lanes are drained, and all that was marked in the lanes of ordered triggers
// is read.
func (s *scheduler) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.undrained) == 0 && !s.order.busy
}

// rings reports that writers notify for a trigger, and of events that are due then.
func (s *scheduler) rings(id int32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lanes[id]
	return ok && l.trigger.Spec.Notify != trigger.NotifyNever && l.trigger.Spec.Delay == 0
}

func (s *scheduler) rangSince(trigger int32, at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lanes[trigger]
	return !ok || l.rang.After(at)
}
