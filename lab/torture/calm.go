package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// calmWithin is how soon everything has to be delivered while no fault is active.
const calmWithin = 15 * time.Second

// calm tests the rules that are seldom seen broken while faults strike. A lost wake-up goes
// unnoticed while others follow. A dispatcher that comes back from a pause must still have
// something to settle. The claims of a dead instance also come back when their leases end. calm
// returns what did not arrive.
func (l *lab) calm(ctx context.Context, strike func(*fault)) string {
	for _, s := range l.slots {
		if err := s.ready(ctx); err != nil {
			return err.Error()
		}
	}
	for _, one := range l.labs {
		if stuck := one.allListen(ctx, calmWithin); stuck != "" {
			return stuck
		}
	}
	if stuck := l.down(ctx, strike); stuck != "" {
		return "endpoints that were down: " + stuck
	}
	if stuck := l.aging(ctx); stuck != "" {
		return "events that get too old while they are sent: " + stuck
	}
	if stuck := l.gone(ctx, strike); stuck != "" {
		return "a receiver whose answer pauses the trigger: " + stuck
	}
	for round := range 3 {
		if stuck := l.quietCommits(ctx, round); stuck != "" {
			return "commits that did not ring, then silence: " + stuck
		}
	}
	if stuck := l.crowd(ctx); stuck != "" {
		return "many events at once: " + stuck
	}
	if stuck := l.deaf(ctx, strike); stuck != "" {
		return "dispatchers whose listen paths are lost: " + stuck
	}
	if stuck := l.returns(ctx, strike); stuck != "" {
		return "a dispatcher that comes back after others took over: " + stuck
	}
	if stuck := l.takeover(ctx, strike); stuck != "" {
		return "a dispatcher killed with claims of ten minutes: " + stuck
	}
	if stuck := l.handed(ctx, strike); stuck != "" {
		return "an event that was handed over to a dispatcher that is gone: " + stuck
	}
	if stuck := l.unwritten(ctx, strike); stuck != "" {
		return "a history that can't be written: " + stuck
	}
	return ""
}

// bell reads the doorbell: it returns whether writers are asked to ring.
func (l *lab) bell(ctx context.Context) (ringing bool, err error) {
	var v int64
	if err := l.admin.QueryRow(ctx, "select coalesce(pg_sequence_last_value('rowhook.doorbell'::regclass), 1)").Scan(&v); err != nil {
		return false, fmt.Errorf("read the doorbell: %w", err)
	}
	return v == 1, nil
}

// quietCommits commits a transaction that read the doorbell as silent, after the doorbell was
// armed. So the commit rings for nobody.
func (l *lab) quietCommits(ctx context.Context, round int) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	quiet := newWriter(l, 100+round)
	defer quiet.close()
	tx, err := quiet.begin(ctx)
	if err == nil {
		err = l.whileSilent(ctx, round, func() error {
			for _, t := range l.triggers() {
				if err := quiet.insert(ctx, tx, t, 1); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err == nil {
		err = l.untilAsleep(ctx)
	}
	if err == nil {
		err = tx.Commit(ctx)
	}
	if err != nil {
		return err.Error()
	}
	return l.drained(ctx, calmWithin)
}

// whileSilent writes so much that the doorbell goes silent, and calls insert meanwhile.
func (l *lab) whileSilent(ctx context.Context, round int, insert func() error) error {
	const writers = 4 // one alone may be too slow on a busy machine
	crowding, stop := context.WithCancel(ctx)
	var crowd sync.WaitGroup
	defer func() { stop(); crowd.Wait() }()
	for i := range writers {
		crowd.Go(func() {
			w := newWriter(l, 600+writers*round+i)
			defer w.close()
			for n := 0; crowding.Err() == nil; n++ {
				rows := 1
				if n%8 == 0 {
					rows = 300
				}
				if w.do(ctx, nil, transaction{steps: []step{{op: 'I', trigger: plain, rows: rows}}}) != nil {
					return // ctx is done, or insert fails as well
				}
			}
		})
	}
	for {
		ringing, err := l.bell(ctx)
		if err != nil {
			return fmt.Errorf("wait for the doorbell to go silent: %w", err)
		}
		if ringing {
			wait(ctx, time.Millisecond)
			continue
		}
		return insert()
	}
}

// untilAsleep waits until all visible events are delivered and the doorbell rings again, and then a
// little longer.
func (l *lab) untilAsleep(ctx context.Context) error {
	for {
		if stuck := l.drained(ctx, calmWithin); stuck != "" {
			return errors.New(stuck)
		}
		ringing, err := l.bell(ctx)
		if err != nil {
			return err
		}
		if ringing {
			wait(ctx, 700*time.Millisecond)
			return nil
		}
		if ctx.Err() != nil {
			return errors.New("the doorbell was never armed again")
		}
		wait(ctx, 20*time.Millisecond)
	}
}

// begin opens a transaction.
func (w *writer) begin(ctx context.Context) (pgx.Tx, error) {
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	w.conn = conn
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	return tx, nil
}

// down has events wait while their endpoints are down. One gets probes only, and then all of them. The
// events of the other one are too old by then.
func (l *lab) down(ctx context.Context, strike func(*fault)) string {
	w := newWriter(l, 800)
	defer w.close()
	began := time.Now()
	var t transaction
	for _, trigger := range []string{patient, fleeting} {
		l.receiver.setMood(trigger, mood{kind: moodDown, share: 1})
		t.steps = append(t.steps, step{op: 'I', trigger: trigger, rows: 300})
	}
	err := w.do(ctx, nil, t)
	wait(ctx, downLength)
	for _, s := range t.steps {
		l.receiver.setMood(s.trigger, mood{})
		strike(&fault{Kind: moodDown, Trigger: s.trigger, Slot: everyone, At: began.Sub(l.start), For: downLength, Began: began, Ended: time.Now()})
	}
	if err != nil {
		return err.Error()
	}
	if stuck := l.drained(ctx, calmWithin); stuck != "" {
		return stuck
	}
	return l.probed(ctx, w)
}

// probed writes events of fleeting until their endpoint does not count as ill any more. Nothing is left
// for a probe of it if all that waited has expired.
func (l *lab) probed(ctx context.Context, w *writer) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if err := w.do(ctx, nil, transaction{steps: []step{{op: 'I', trigger: fleeting, rows: 1}}}); err != nil {
			return err.Error()
		}
		within, stop := context.WithTimeout(ctx, 2*time.Second)
		err := l.healed(within)
		stop()
		if err == nil {
			return l.drained(ctx, calmWithin)
		}
		if ctx.Err() != nil {
			return err.Error()
		}
	}
}

// downLength is long enough for the judge, which begins to count after downFound.
const downLength = 8 * time.Second

// How many events are written at once. Of the trigger with a rate it takes longer than inPace to send
// them, and less than calmWithin. Of the trigger with batches, the receiver rejects some for good.
const (
	crowdOfPaced = 400
	crowdOfBulk  = 300
)

// crowd has many events of the triggers with a rate and with batches wait at once, while nothing
// holds up requests. Other writers write too few to reach the rate or to fill batches.
func (l *lab) crowd(ctx context.Context) string {
	for _, c := range []struct {
		writer  int
		trigger string
		rows    int
	}{{700, paced, crowdOfPaced}, {poisonousBelow - 2, bulk, crowdOfBulk}} {
		w := newWriter(l, c.writer)
		err := w.do(ctx, nil, transaction{steps: []step{{op: 'I', trigger: c.trigger, rows: c.rows}}})
		w.close()
		if err != nil {
			return err.Error()
		}
	}
	return l.drained(ctx, calmWithin)
}

// unwritten has events delivered while history can't be written. They have to be settled without
// history. Otherwise they would be sent again when their leases end.
func (l *lab) unwritten(ctx context.Context, strike func(*fault)) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w := newWriter(l, 500)
	defer w.close()
	f := &fault{Kind: faultHistory, Way: noPartitions, Slot: everyone, At: time.Since(l.start), Began: time.Now()}
	if err := l.inOne(ctx, spoilings(f.Way, "")); err != nil {
		return err.Error()
	}
	for _, t := range l.triggers() {
		if err := w.do(ctx, nil, transaction{steps: []step{{op: 'I', trigger: t, rows: 20}}}); err != nil {
			return err.Error()
		}
	}
	stuck := l.drained(ctx, calmWithin)
	err := l.mendHistory(ctx)
	f.Ended = time.Now()
	strike(f)
	if err != nil {
		return err.Error()
	}
	return stuck
}

// deafFor is longer than the time after which a dispatcher considers another one dead that has lost
// its lock.
const deafFor = 7 * time.Second

// deaf loses the listen paths while attempts are in flight and further events follow. No dispatcher
// is dead, so no event may be sent twice, and the further events have to arrive meanwhile.
func (l *lab) deaf(ctx context.Context, strike func(*fault)) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w := newWriter(l, 400)
	defer w.close()
	until := make(chan struct{})
	l.receiver.setMood(patient, mood{kind: moodHold, share: 1, until: until})
	defer l.receiver.setMood(patient, mood{})
	if err := l.healed(ctx); err != nil {
		return err.Error()
	}
	const some = 30 // fewer than one dispatcher sends at once, since a single one may claim all
	for range some {
		if err := w.do(ctx, nil, transaction{steps: []step{{op: 'I', trigger: patient, rows: 1}}}); err != nil {
			return err.Error()
		}
	}
	for l.receiver.matching(patient, func(s *seen) bool { return s.attempts[0].answered.IsZero() }) < some {
		if ctx.Err() != nil {
			return "the events that were to be in flight did not arrive"
		}
		wait(ctx, 20*time.Millisecond)
	}
	f := &fault{Kind: listenAllLost, Slot: everyone, At: time.Since(l.start), For: deafFor, Began: time.Now()}
	paths := l.listenPaths(everyone)
	lose(paths, false)
	for time.Since(f.Began) < deafFor {
		if err := w.do(ctx, nil, transaction{steps: []step{{op: 'I', trigger: plain, rows: 1}}}); err != nil {
			return err.Error()
		}
		wait(ctx, 100*time.Millisecond)
	}
	for _, p := range paths {
		p.Heal()
	}
	f.Ended = time.Now()
	strike(f)
	if stuck := l.allListen(ctx, calmWithin); stuck != "" {
		return stuck
	}
	close(until)
	l.receiver.setMood(patient, mood{})
	return l.drained(ctx, calmWithin)
}

// returns pauses a dispatcher while its attempts are in flight, and lets others take over and fail.
// The dispatcher comes back with the responses that it got meanwhile. None of these may count any
// more: the new holders still have to deliver the events.
func (l *lab) returns(ctx context.Context, strike func(*fault)) string {
	if len(l.slots) < 2 {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w := newWriter(l, 300)
	defer w.close()
	until := make(chan struct{})
	both := func(m mood) {
		l.receiver.setMood(ordered, m)
		l.receiver.setMood(patient, m)
	}
	both(mood{kind: moodHold, share: 1, until: until})
	defer both(mood{})
	if err := l.healed(ctx); err != nil {
		return err.Error()
	}
	serving, err := l.serving(ctx)
	if err != nil {
		return err.Error()
	}
	const enough = 5
	away := serving[0]
	for _, t := range []string{ordered, patient} { // each dispatcher owns lanes, and has events of the first
		for l.receiver.matching(t, func(s *seen) bool { return waitsFor(s, away.number) }) < enough {
			if ctx.Err() != nil {
				return "the dispatcher never got enough events of " + t
			}
			if err := w.do(ctx, nil, transaction{steps: []step{{op: 'I', trigger: t, rows: 20}}}); err != nil {
				return err.Error()
			}
			wait(ctx, 20*time.Millisecond)
		}
	}
	f := &fault{Kind: faultZombie, Slot: away.number, At: time.Since(l.start), Began: time.Now()}
	c := away.running()
	if err := errors.Join(c.Signal(process.StandStill), l.terminate(ctx, away, false, true)); err != nil {
		return err.Error()
	}
	both(mood{kind: moodFailing, share: 1, refuses: true})
	close(until)
	for _, t := range []string{ordered, patient} {
		for l.receiver.matching(t, func(s *seen) bool { return takenFrom(s, away.number) }) < enough && ctx.Err() == nil {
			wait(ctx, 20*time.Millisecond)
		}
	}
	if err := c.Signal(process.GoOn); err != nil {
		return err.Error()
	}
	f.Ended = time.Now()
	strike(f)
	if ctx.Err() != nil {
		return "no other dispatcher took over"
	}
	wait(ctx, 2*time.Second) // until it has tried to settle
	both(mood{})
	return l.drained(ctx, calmWithin)
}

// healed waits until no endpoint counts as ill. A probe that is held would hold up all else.
func (l *lab) healed(ctx context.Context) error {
	for {
		var ill int
		if err := l.admin.QueryRow(ctx, "select count(*) from rowhook.health").Scan(&ill); err != nil {
			return fmt.Errorf("wait until no endpoint is ill: %w", err)
		}
		if ill == 0 {
			return nil
		}
		wait(ctx, 50*time.Millisecond)
	}
}

// waitsFor reports that an event's only attempt was made by this slot and has no response yet.
func waitsFor(s *seen, slot int) bool {
	return len(s.attempts) == 1 && s.attempts[0].slot == slot && s.attempts[0].answered.IsZero()
}

// takenFrom reports that an event's first attempt was made by this slot, and that a later attempt
// has failed.
func takenFrom(s *seen, slot int) bool {
	last := s.attempts[len(s.attempts)-1]
	return s.attempts[0].slot == slot && last.slot != slot && last.number > 1 && last.outcome == failed && !last.answered.IsZero()
}

// takeover kills a dispatcher that holds claims with a long lease. The others have to give these
// claims back.
func (l *lab) takeover(ctx context.Context, strike func(*fault)) string {
	w := newWriter(l, 200)
	defer w.close()
	for {
		if err := w.do(ctx, nil, transaction{steps: []step{{op: 'I', trigger: patient, rows: 500}}}); err != nil {
			return err.Error()
		}
		holder, err := l.holder(ctx)
		if err != nil {
			return err.Error()
		}
		if holder == nil {
			continue // all of its events were delivered already
		}
		f := &fault{Kind: faultKill, Slot: holder.number, At: time.Since(l.start)}
		f.Began = time.Now()
		if c := holder.take(); c != nil {
			c.Kill()
		}
		holder.release()
		f.Ended = time.Now()
		strike(f)
		return l.drained(ctx, calmWithin)
	}
}

// holder returns the slot whose dispatcher holds claims of the trigger patient.
func (l *lab) holder(ctx context.Context) (*slot, error) {
	var name string
	err := l.admin.QueryRow(ctx, `
select i.name from rowhook.event_log e join rowhook.instance i on i.id = e.claimed_by join rowhook.trigger t on t.id = e.trigger_id
 where t.name = $1 group by 1 order by count(*) desc limit 1`, patient).Scan(&name)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // nobody
	}
	if err != nil {
		return nil, fmt.Errorf("look for claims: %w", err)
	}
	for _, s := range l.slots {
		if s.name() == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("claims are held by an instance %q", name)
}
