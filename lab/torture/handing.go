package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// noteHanded records which events their writers have handed over, and which of these left the queue by
// that claim: they were taken as they were handed over, and by nobody else.
func noteHanded() []string {
	return []string{
		"create table handed (event uuid primary key, due timestamptz not null, taken boolean not null default false)",
		`create function note_handed() returns trigger language plpgsql security definer set search_path to 'public', 'pg_temp' as $$
begin
  if tg_op = 'INSERT' then
    insert into handed (event, due) values (new.id, new.due_at);
  else
    update handed set taken = true where event = old.id;
  end if;
  return null;
end
$$`,
		"create trigger note_handed after insert on rowhook.event_log for each row when (new.claim = 1) execute function note_handed()",
		"create trigger note_taken after delete on rowhook.event_log for each row when (old.claim = 1 and old.claimed_by is not null) execute function note_handed()",
	}
}

// handing is an event that its writer has handed over.
type handing struct {
	Event uuid.UUID
	Due   time.Time // the end of its lease
	Taken bool      // it was settled under the claim that its writer made
}

// leaseLeft is how much of the lease has to be left at the commit: if its dispatcher can't send such an event, it
// comes back long before the lease ends.
const leaseLeft = time.Minute

// cameBack is how long a dispatcher has to be free of faults until it has buried another one and has given
// back what was handed to it. Faults count as lasting for hamperedFor longer.
const cameBack = 8 * time.Second

// handedOver counts what was handed over, and checks that none of it waited for the end of its lease where
// a dispatcher could have buried the one that had it.
func (j *judging) handedOver(committed map[key]*entry) {
	hampered := j.hampered()
	for _, h := range j.handings {
		j.Handed++
		if h.Taken {
			j.Taken++
		}
		s := j.seen[h.Event]
		if s == nil {
			continue // judged as any other event
		}
		first := s.attempts[0].arrived
		for _, a := range s.attempts {
			if a.arrived.Before(first) {
				first = a.arrived
			}
		}
		c := committed[s.key()]
		if c == nil {
			continue
		}
		j.HandedLate = max(j.HandedLate, first.Sub(c.Committed))
		if c.Committed.Add(leaseLeft).Before(h.Due) && !first.Before(h.Due) && longest(without([]span{{c.Committed, h.Due}}, hampered)) >= cameBack {
			j.blame(ruleLease, "event %s of %s, committed %s, lease until %s: %s", h.Event, s.trigger, c.Committed.Format("15:04:05.000"), h.Due.Format("15:04:05.000"), s)
		}
	}
}

// longest returns the length of the longest span.
func longest(all []span) (most time.Duration) {
	for _, s := range all {
		most = max(most, s.to.Sub(s.from))
	}
	return most
}

// forgeEvery is the time between two forgeries. It lets the doorbell ring again meanwhile.
const forgeEvery = 150 * time.Millisecond

// forge announces events to every dispatcher as handed over: those that wait or are in flight, those that
// were announced before, and some that do not exist. Any role may do that.
func (l *lab) forge(ctx context.Context, f *fault) error {
	var before []string
	for began := time.Now(); ctx.Err() == nil && time.Since(began) < f.For; wait(ctx, forgeEvery) {
		rows, err := l.admin.Query(ctx, "select trigger_id || ' ' || id from rowhook.event_log order by random() limit 30")
		if err != nil {
			return fmt.Errorf("look for events to announce: %w", err)
		}
		now, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("look for events to announce: %w", err)
		}
		payloads := append(append(before, now...), "", "x", "1", "1 x", "2147483647 "+uuid.NewString(), "1 "+uuid.NewString())
		if _, err := l.admin.Exec(ctx, "select pg_notify('rowhook_take_' || i.id, p) from rowhook.instance i cross join unnest($1::text[]) as p", payloads); err != nil {
			return fmt.Errorf("forge announcements: %w", err)
		}
		before = now
	}
	return nil
}

// orphanWriters is the number of the first writer of a fault of this kind; each has one of its own.
const orphanWriters = 1000

// orphan kills a dispatcher while a transaction has handed events over to it, and commits when the others
// have taken it for dead.
func (l *lab) orphan(ctx context.Context, f *fault) error {
	s := l.slots[f.Slot]
	w := newWriter(l, orphanWriters+int(l.orphans.Add(1)))
	defer w.close()
	tx, err := w.begin(ctx)
	if err == nil {
		// Those that had the slot before it may not be buried yet.
		_, err = l.admin.Exec(ctx, "select setval('rowhook.handover', id) from rowhook.instance where name = $1 order by id desc limit 1", s.name())
	}
	for range 4 {
		if err == nil {
			err = w.insert(ctx, tx, plain, 1)
		}
	}
	defer s.release()
	if c := s.take(); c != nil {
		c.Kill()
	}
	wait(ctx, f.For)
	if err == nil {
		err = tx.Commit(ctx)
	}
	if err != nil {
		return fmt.Errorf("hand over to a dispatcher that dies: %w", err)
	}
	return nil
}

// handed kills a dispatcher to which a transaction has handed an event over, and commits after the
// others have buried it. Nobody is told of the event, and its lease is long.
func (l *lab) handed(ctx context.Context, strike func(*fault)) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w := newWriter(l, 900)
	tx, id, err := l.handOver(ctx, w)
	defer func() { w.close() }()
	if err != nil {
		return err.Error()
	}
	s, err := l.slotOf(ctx, id)
	if err != nil {
		return err.Error()
	}
	f := &fault{Kind: faultKill, Slot: s.number, At: time.Since(l.start), Began: time.Now()}
	if c := s.take(); c != nil {
		c.Kill()
	}
	s.release()
	f.Ended = time.Now()
	strike(f)
	for left := true; left; wait(ctx, 50*time.Millisecond) {
		if err := l.admin.QueryRow(ctx, "select exists (select from rowhook.instance where id = $1)", id).Scan(&left); err != nil {
			return fmt.Sprintf("wait until the dispatcher is buried: %v", err)
		}
	}
	wait(ctx, time.Second)
	if err := tx.Commit(ctx); err != nil {
		return err.Error()
	}
	return l.drained(ctx, calmWithin)
}

// handOver opens a transaction that has handed an event over, and returns to which instance.
func (l *lab) handOver(ctx context.Context, w *writer) (tx pgx.Tx, instance int32, err error) {
	for began := time.Now(); time.Since(began) < calmWithin; {
		if err := l.untilAsleep(ctx); err != nil {
			return nil, 0, err
		}
		if tx, err = w.begin(ctx); err != nil {
			return nil, 0, err
		}
		if err := w.insert(ctx, tx, plain, 1); err != nil {
			return nil, 0, err
		}
		err := tx.QueryRow(ctx, "select claimed_by from rowhook.event_log where claim = 1 and claimed_by is not null and xmin::text::bigint = pg_current_xact_id()::text::bigint & 4294967295").Scan(&instance)
		if err == nil {
			return tx, instance, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return nil, 0, fmt.Errorf("look at what was handed over: %w", err)
		}
		w.close()
	}
	return nil, 0, errors.New("no event was handed over although every dispatcher was idle")
}

// slotOf returns the slot of an instance.
func (l *lab) slotOf(ctx context.Context, instance int32) (*slot, error) {
	var name string
	if err := l.admin.QueryRow(ctx, "select name from rowhook.instance where id = $1", instance).Scan(&name); err != nil {
		return nil, fmt.Errorf("look for instance %d: %w", instance, err)
	}
	for _, s := range l.slots {
		if s.name() == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("instance %d has the name %q", instance, name)
}
