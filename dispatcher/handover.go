package dispatcher

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// taker is the loop that takes what writers hand over. Such an event is this instance's already: it is
// read by its key, and nothing is written. What may not be sent now is given back.
//
// Its announcement may be lost, as those of all notifications. So it also looks for events that were
// handed over by their index, whenever the claimer looks for all that may be due.
type taker struct {
	db        *database
	self      *identity
	pulse     *pulse
	scheduler *scheduler
	sender    *sender
	inbox     *inbox
	tell      *observers
	log       *slog.Logger

	health health // of its statements; read by Stats
	signal chan struct{}

	mu        sync.Mutex
	announced []handed
	looks     bool // for what was not announced

	// Owned by the loop.
	names    tableNames
	failures retry.Backoff // nil: the latest statement has succeeded
}

// handed is an event that was announced as handed over.
type handed struct {
	trigger int32
	id      [16]byte
}

// mostAnnounced bounds the events that are announced and not yet read. Any role may notify. Beyond it
// they are looked for.
const mostAnnounced = 10_000

// takeAtOnce bounds the events of one statement.
const takeAtOnce = 1000

// parseHanded reads the payload of a notification.
func parseHanded(payload string) (h handed, ok bool) {
	trigger, id, _ := strings.Cut(payload, " ")
	n, err := strconv.ParseInt(trigger, 10, 32)
	var u pgtype.UUID
	if err != nil || u.Scan(id) != nil {
		return handed{}, false
	}
	return handed{int32(n), u.Bytes}, true
}

// notified takes in a notification. It is called on the listener's goroutine.
func (t *taker) notified(payload string) {
	h, ok := parseHanded(payload)
	t.mu.Lock()
	if ok = ok && len(t.announced) < mostAnnounced; ok {
		t.announced = append(t.announced, h)
	} else {
		t.looks = true
	}
	first := len(t.announced) == 1 || !ok
	t.mu.Unlock()
	if first {
		t.wake()
	}
}

// look has it look for what was not announced.
func (t *taker) look() {
	if t.db.schema.version.Load() < queue.HandoverSchema {
		return
	}
	t.mu.Lock()
	t.looks = true
	t.mu.Unlock()
	t.wake()
}

func (t *taker) wake() {
	select {
	case t.signal <- struct{}{}:
	default:
	}
}

// run takes until ctx is done.
func (t *taker) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.signal:
		case <-timer.C:
		}
		if wait := t.step(ctx); wait > 0 {
			timer.Reset(wait)
		}
	}
}

// step takes what was announced, and looks if it has to. It returns after which time to repeat that; 0:
// there is no need.
func (t *taker) step(ctx context.Context) time.Duration {
	t.mu.Lock()
	announced, looks := t.announced, t.looks
	if len(announced) > takeAtOnce {
		announced, t.announced = announced[:takeAtOnce:takeAtOnce], announced[takeAtOnce:]
		t.wake()
	} else {
		t.announced = nil
	}
	t.looks = false
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
	defer cancel()
	t.health.begin(time.Now())
	err := t.db.onSchema(ctx, func(schema int32) error {
		if len(announced) > 0 {
			if err := t.take(ctx, announced); err != nil {
				return err
			}
			announced = nil
		}
		if !looks || schema < queue.HandoverSchema {
			return nil
		}
		again, err := t.lookForOthers(ctx)
		if err == nil && again {
			t.look()
		}
		return err
	})
	err = queue.ExplainHidden(err)
	t.health.ended(err)
	if err == nil {
		t.failures = nil
		return 0
	}
	t.tell.failed("take", err)
	t.mu.Lock()
	t.looks = true // it finds what was announced, too
	t.mu.Unlock()
	if t.failures == nil {
		t.failures = pg.Backoff(firstRetry)
		if !t.db.schema.standsStill() { // the log says why
			t.log.Error("can't read events that were handed over; retrying until it succeeds", "error", err)
		}
	}
	wait, _ := t.failures.Next() // without a limit it never stops
	return wait
}

// take reads events that were announced, and sends them. What is not this instance's, or no more, is
// looked for by a claim: its lease may have ended before its transaction did.
func (t *taker) take(ctx context.Context, announced []handed) error {
	ids := make([][16]byte, len(announced))
	for i, h := range announced {
		ids[i] = h.id
	}
	events, err := t.read(ctx, func(hold bool) ([]queue.Claimed, error) {
		return queue.Take(ctx, t.db.claims, t.self.id, ids, hold)
	})
	if err != nil || len(events) == len(announced) {
		return err
	}
	found := make(map[[16]byte]bool, len(events))
	for i := range events {
		found[events[i].ID] = true
	}
	for _, h := range announced {
		if !found[h.id] && !t.scheduler.holds(h.id) && !t.scheduler.mark(h.trigger) {
			t.inbox.askReload()
		}
	}
	t.missed()
	return nil
}

// missed has this instance beat if that may be why it was not given what was handed over to it. It looks again
// when it has.
func (t *taker) missed() {
	if !t.pulse.isFresh(time.Now()) {
		t.pulse.poke()
	}
}

// lookForOthers takes what was handed over to this instance without an announcement that it has read,
// and gives back what was handed over to instances that are gone. again says that there may be more.
func (t *taker) lookForOthers(ctx context.Context) (again bool, err error) {
	known := t.scheduler.handedOver()
	there, err := queue.LookForHanded(ctx, t.db.claims, t.self.id, known)
	if err == nil && there.Own {
		var events []queue.Claimed
		events, err = t.read(ctx, func(hold bool) ([]queue.Claimed, error) {
			return queue.TakeOthers(ctx, t.db.claims, t.self.id, known, hold, takeAtOnce)
		})
		again = len(events) == takeAtOnce
	}
	if err != nil || !there.Stray {
		return again, err
	}
	triggers, more, err := queue.ReturnStrays(ctx, t.db.claims)
	if len(triggers) > 0 {
		t.log.Debug("gave back events that were handed over to an instance that is gone", "triggers", triggers)
	}
	for _, id := range triggers {
		if !t.scheduler.mark(id) {
			t.inbox.askReload()
		}
	}
	ringFor(t.db, t.log, triggers)
	return again || more, err
}

// ringFor rings for triggers of which events were given back that had been handed over. This instance may
// be unable to send them, and their writers have told no other one.
func ringFor(db *database, log *slog.Logger, triggers []int32) {
	if len(triggers) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	for _, id := range triggers {
		if err := queue.NotifyPeers(ctx, db.claims, strconv.Itoa(int(id))); err != nil {
			log.Debug("can't tell the other instances what was given back; they find it at their next poll", "error", err)
			return
		}
	}
}

// read runs a statement that reads events, and sends them. If the payload of one of them can't be read,
// it reads them without payloads.
func (t *taker) read(ctx context.Context, events func(hold bool) ([]queue.Claimed, error)) ([]queue.Claimed, error) {
	asked := time.Now()
	t.scheduler.beginTaking()
	defer t.scheduler.endTaking()
	got, err := events(false)
	if pg.IsData(err) {
		got, err = events(true)
	}
	if err == nil && len(got) > 0 {
		err = t.names.give(ctx, t.db.claims, t.scheduler.watchedBy(got), got)
	}
	if err != nil {
		return nil, err
	}
	now := time.Now()
	took, start, unsent, unknown := t.scheduler.taken(got, asked, now)
	t.tell.claimed(took, now.Sub(asked))
	t.sender.begin(start, unsent)
	if unknown { // of a trigger that was applied since the last load, which looks again
		t.inbox.askReload()
	}
	return got, nil
}

// handedMarks is what the scheduler knows of events that were handed over.
type handedMarks struct {
	deliveries map[[16]byte]*delivery // taken, and their outcome is not yet written
	// settled are those whose outcome was written while a read was under way, which may have seen them
	// as they were before; nil: none is under way.
	settled map[[16]byte]bool
	refused map[*lane]time.Time // when an event could last not be sent as it was handed over
}

// beginTaking says that a read of events that were handed over begins.
func (s *scheduler) beginTaking() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handed.settled = map[[16]byte]bool{}
}

func (s *scheduler) endTaking() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handed.settled = nil
}

// holds reports whether an event that was handed over is here.
func (s *scheduler) holds(id [16]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handed.deliveries[id] != nil
}

// handedOver returns the events that were handed over and are here.
func (s *scheduler) handedOver() [][16]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([][16]byte, 0, len(s.handed.deliveries))
	for id := range s.handed.deliveries {
		ids = append(ids, id)
	}
	return ids
}

// watchedBy says which tables the triggers of events watch.
func (s *scheduler) watchedBy(events []queue.Claimed) []queue.Want {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wants []queue.Want
	seen := map[int32]bool{}
	for i := range events {
		if l, ok := s.lanes[events[i].Trigger]; ok && !seen[l.id] {
			seen[l.id] = true
			wants = append(wants, queue.Want{Trigger: l.id, Relation: l.trigger.Relation, RelationID: l.trigger.RelationID, OriginID: l.trigger.OriginID})
		}
	}
	return wants
}

// taken takes in events that were handed over, as a statement has read them that was sent at the given
// time. It returns those that were not here already, the shipments for which there is a slot, and the
// deliveries that may not be sent now. unknown says that there is no lane for the trigger of some event.
func (s *scheduler) taken(events []queue.Claimed, asked, now time.Time) (took []queue.Claimed, start []*shipment, unsent []*delivery, unknown bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range events {
		e := &events[i]
		l, ok := s.lanes[e.Trigger]
		if !ok {
			unknown = true
			continue
		}
		if s.handed.deliveries[e.ID] != nil || s.handed.settled[e.ID] {
			continue
		}
		d := &delivery{lane: l, tries: e.Tries, claim: e.Claim, held: e.Held, packed: e.Packed, due: e.DueAt, expires: asked.Add(e.Lease), taken: now, handed: true, event: l.event(e)}
		s.link(d)
		took = append(took, *e)
		l.found, l.rang = now, now
		switch {
		case !s.accepts(l, d, now):
			s.handed.refused[l] = now
			unsent = append(unsent, d)
			continue
		case expired(&l.trigger.Spec, d, now):
			s.overdue = append(s.overdue, d)
			continue
		}
		s.enqueue(d)
	}
	return took, s.take(now), unsent, unknown
}

// accepts reports whether an event that is handed over can be sent, perhaps when a slot is free. What
// waits for anything else is claimed when it can be sent.
func (s *scheduler) accepts(l *lane, d *delivery, now time.Time) bool {
	return s.takes(l) && d.expires.Sub(now) >= min(l.endpoint.Timeout(), longestLease)+settleMargin
}

// takes reports whether an event of a lane can be sent when it is handed over. As many may wait for a slot
// as a claim would ask for: what waits here can't be sent by another instance.
func (s *scheduler) takes(l *lane) bool {
	if s.closed || l.gone || l.idle() || !l.gate.open() || !l.pace.off() || l.share.on || !l.batches().IsZero() || s.count >= maxOutstanding || l.lease() > handoverLease {
		return false
	}
	slots, taken := l.concurrency(s.limit), l.inFlight+l.queued()
	return taken < slots+prefetch(slots, l.average, s.prefetch) && (s.free() > 0 || taken < min(s.reserve(), slots))
}

// handoverLease is the lease of what is handed over, as captures write it. A trigger whose attempts
// may take longer is claimed for.
const handoverLease = 90 * time.Second

// refusedFor is how long events of a trigger are not handed over at least, after one had to be given back.
const refusedFor = 100 * time.Millisecond

// refuses returns the buckets of the triggers whose events are not to be handed over, and when to ask
// again; zero: there are none.
func (s *scheduler) refuses() (buckets uint32, again time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for l, at := range s.handed.refused {
		takes, next := s.takes(l), now.Add(watchEvery)
		if takes {
			next = at.Add(refusedFor)
		}
		if l.gone || takes && !now.Before(next) {
			delete(s.handed.refused, l)
			continue
		}
		buckets |= queue.Bucket(l.id)
		if again.IsZero() || next.Before(again) {
			again = next
		}
	}
	return buckets, again
}
