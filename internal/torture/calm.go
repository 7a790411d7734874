package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// calmWithin is how soon everything has to be delivered when nothing is wrong.
const calmWithin = 15 * time.Second

// calm puts the two rules to the test that nothing but a rest can show broken: a wake-up that is lost goes unnoticed while others follow, and
// what a dead dispatcher held comes back by the end of its lease as well. It says what did not arrive.
func (l *lab) calm(ctx context.Context, strike func(*fault)) string {
	for _, s := range l.slots {
		c := s.running()
		if c == nil {
			return s.name() + " is not running though no fault is left: " + s.last
		}
		if err := c.WaitReady(ctx, time.Minute); err != nil {
			return err.Error()
		}
	}
	for round := range 3 {
		if stuck := l.quietCommits(ctx, round); stuck != "" {
			return "commits that did not ring, then silence: " + stuck
		}
	}
	if stuck := l.takeover(ctx, strike); stuck != "" {
		return "a dispatcher killed with claims of ten minutes: " + stuck
	}
	return ""
}

// bell reads the doorbell: whether writers are to ring.
func (l *lab) bell(ctx context.Context) (ringing bool, err error) {
	var v int64
	if err := l.admin.QueryRow(ctx, "select coalesce(pg_sequence_last_value('rowhook.doorbell'::regclass), 1)").Scan(&v); err != nil {
		return false, fmt.Errorf("read the doorbell: %w", err)
	}
	return v == 1, nil
}

// quietCommits commits events after the doorbell has been armed by a transaction that read it when it was silent: it rings for nobody.
func (l *lab) quietCommits(ctx context.Context, round int) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	crowd, quiet := newWriter(l, 100+2*round), newWriter(l, 101+2*round)
	defer crowd.close()
	defer quiet.close()
	tx, err := quiet.begin(ctx)
	if err == nil {
		err = l.whileSilent(ctx, crowd, func() error {
			for _, t := range triggers() {
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

// whileSilent makes such a crowd that the doorbell goes silent, and calls insert while it is.
func (l *lab) whileSilent(ctx context.Context, crowd *writer, insert func() error) error {
	crowding, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	defer func() { stop(); <-done }()
	go func() {
		defer close(done)
		for n := 0; crowding.Err() == nil; n++ {
			rows := 1
			if n%8 == 0 {
				rows = 300
			}
			if crowd.do(ctx, nil, transaction{steps: []step{{op: 'I', trigger: plain, rows: rows}}}) != nil {
				return // ctx is done, or insert fails as well
			}
		}
	}()
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

// untilAsleep waits until what can be seen is delivered and the doorbell rings again, and then a little longer.
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

// takeover kills a dispatcher that holds claims with a long lease. The others have to give them back.
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
			continue // they were all delivered already
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

// holder is the slot whose dispatcher holds claims of patient.
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
