package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// writer is an application. It writes watched tables in transactions of every kind, and records
// each change in the ledger, in the same transaction. Its seed decides what it does, except after a
// statement that failed because of a fault.
type writer struct {
	url       string
	r         *rand.Rand
	base      int64 // of its ids and versions
	id        int64
	version   int64
	known     map[string][]int64 // ids by trigger that may exist
	conn      *pgx.Conn
	began     time.Time     // when the present change was begun
	committed *atomic.Int64 // transactions, of all writers
	failed    *atomic.Int64
	triggers  []string
}

// sourceSpan is the distance between the ids of two sources: none has a row or a version of another one.
const sourceSpan = 10_000 * writerSpan

// writerSpan is the distance between the ids of two writers.
const writerSpan = 10_000_000_000

func newWriter(l *lab, number int) *writer {
	return &writer{
		url:  l.server.URL(l.database) + "&lock_timeout=5s&statement_timeout=20s&application_name=writer",
		r:    rand.New(rand.NewPCG(l.opt.seed, uint64(l.source)<<32+uint64(number)+1)), //nolint:gosec // no secret
		base: int64(l.source)*sourceSpan + int64(number+1)*writerSpan, triggers: l.triggers(), known: map[string][]int64{}, committed: &l.committed, failed: &l.failed,
	}
}

// createLedger makes the table of committed changes. old and fresh are versions; 0: none.
const createLedger = `
create table ledger (
  trigger text not null,
  op      "char" not null,
  id      bigint not null,
  old     bigint not null,
  fresh   bigint not null,
  began   timestamptz not null, -- before the change
  noted   timestamptz not null default clock_timestamp(), -- and after it
  tx      bigint not null default pg_current_xact_id()::text::bigint,
  n       bigint generated always as identity
)`

// transaction is what a writer has decided to do.
type transaction struct {
	steps    []step
	rollBack bool
	hold     time.Duration // how long it stays open
}

type step struct {
	op        byte // I, U, D, M
	trigger   string
	rows      int // of an insert
	savepoint bool
	undo      bool // roll back to the savepoint
	pick      uint64
}

// decide draws the next transaction.
func (w *writer) decide() transaction {
	var t transaction
	one := func() step {
		s := step{trigger: w.triggers[w.r.IntN(len(w.triggers))], rows: 1, pick: w.r.Uint64()}
		switch n := w.r.IntN(100); {
		case n < 50:
			s.op = 'I'
		case n < 82:
			s.op = 'U'
		case n < 94:
			s.op = 'D'
		default:
			s.op = 'M'
		}
		return s
	}
	switch n := w.r.IntN(1000); {
	case n < 700:
		t.steps = []step{one()}
	case n < 715:
		s := one()
		s.op, s.rows = 'I', 20+w.r.IntN(250)
		t.steps = []step{s}
	default:
		for range 2 + w.r.IntN(6) {
			s := one()
			s.savepoint = w.r.IntN(3) == 0
			s.undo = s.savepoint && w.r.IntN(2) == 0
			t.steps = append(t.steps, s)
		}
	}
	t.rollBack = w.r.IntN(12) == 0
	if w.r.IntN(40) == 0 {
		t.hold = time.Duration(200+w.r.IntN(3500)) * time.Millisecond
	}
	return t
}

// run writes until ctx is done.
func (w *writer) run(ctx context.Context) {
	defer w.close()
	for ctx.Err() == nil {
		t := w.decide()
		pause := time.Duration(w.r.ExpFloat64() * float64(50*time.Millisecond))
		if err := w.do(context.WithoutCancel(ctx), ctx.Done(), t); err != nil {
			w.failed.Add(1)
			w.close() // its state is unknown
			pause += 100 * time.Millisecond
		} else if !t.rollBack {
			w.committed.Add(1)
		}
		wait(ctx, min(pause, time.Second))
	}
}

func (w *writer) close() {
	if w.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = w.conn.Close(ctx)
	w.conn = nil
}

var errRollBack = errors.New("roll back")

// do carries out a transaction. hurry ends the time for which it is held open.
func (w *writer) do(ctx context.Context, hurry <-chan struct{}, t transaction) error {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	if w.conn == nil {
		conn, err := pgx.Connect(ctx, w.url)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		w.conn = conn
	}
	err := pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error {
		for _, s := range t.steps {
			if err := w.step(ctx, tx, s); err != nil {
				return err
			}
		}
		if t.hold > 0 {
			timer := time.NewTimer(t.hold)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-hurry:
			}
		}
		if t.rollBack {
			return errRollBack
		}
		return nil
	})
	if errors.Is(err, errRollBack) {
		return nil
	}
	return err
}

func (w *writer) step(ctx context.Context, tx pgx.Tx, s step) error {
	if !s.savepoint {
		return w.write(ctx, tx, s)
	}
	err := pgx.BeginFunc(ctx, tx, func(sp pgx.Tx) error {
		if err := w.write(ctx, sp, s); err != nil {
			return err
		}
		if s.undo {
			return errRollBack
		}
		return nil
	})
	if errors.Is(err, errRollBack) {
		return nil
	}
	return err
}

// write makes one change and records it in the ledger.
func (w *writer) write(ctx context.Context, tx pgx.Tx, s step) error {
	table := tableOf(s.trigger)
	w.began = time.Now()
	if s.trigger == summed && s.op != 'M' && s.rows == 1 {
		return w.changeOften(ctx, tx, s)
	}
	switch s.op {
	case 'U', 'D':
		known := w.known[s.trigger]
		if len(known) == 0 {
			break
		}
		id := known[s.pick%uint64(len(known))]
		var old int64
		err := tx.QueryRow(ctx, "select version from "+table+" where id = $1 for update", id).Scan(&old)
		if errors.Is(err, pgx.ErrNoRows) {
			break // it is gone, by a rollback or a delete: insert another
		}
		if err != nil {
			return fmt.Errorf("look at a row: %w", err)
		}
		if s.op == 'D' {
			if _, err := tx.Exec(ctx, "delete from "+table+" where id = $1", id); err != nil {
				return fmt.Errorf("delete: %w", err)
			}
			return w.note(ctx, tx, s.trigger, 'D', []int64{id}, old, nil)
		}
		return w.update(ctx, tx, s.trigger, row{id, w.nextVersion()}, old)
	case 'M':
		fresh := row{w.nextID(), w.nextVersion()}
		payload, err := fresh.toJSON()
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "select rowhook.emit($1, $2::text::json)", s.trigger, payload); err != nil {
			return fmt.Errorf("emit: %w", err)
		}
		return w.note(ctx, tx, s.trigger, 'M', []int64{fresh.id}, 0, []int64{fresh.version})
	}
	return w.insert(ctx, tx, s.trigger, s.rows)
}

func (w *writer) insert(ctx context.Context, tx pgx.Tx, trigger string, rows int) error {
	all := make([]row, rows)
	for i := range all {
		all[i] = row{w.nextID(), w.nextVersion()}
		if i >= rows-20 {
			w.remember(trigger, all[i].id)
		}
	}
	return w.insertRows(ctx, tx, trigger, all)
}

// remember makes an id one of those that later changes choose from.
func (w *writer) remember(trigger string, id int64) {
	const most = 300
	w.known[trigger] = append(w.known[trigger], id)
	w.known[trigger] = w.known[trigger][max(0, len(w.known[trigger])-most):]
}

func (w *writer) insertRows(ctx context.Context, tx pgx.Tx, trigger string, rows []row) error {
	var c columns
	for _, r := range rows {
		c.add(r)
	}
	_, err := tx.Exec(ctx, "insert into "+tableOf(trigger)+
		" select id, version, amount::numeric, note, flag from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::boolean[]) as t(id, version, amount, note, flag)",
		c.ids, c.versions, c.amounts, c.notes, c.flags)
	if err != nil {
		return fmt.Errorf("insert: %w", err)
	}
	return w.note(ctx, tx, trigger, 'I', c.ids, 0, c.versions)
}

func (w *writer) update(ctx context.Context, tx pgx.Tx, trigger string, fresh row, old int64) error {
	_, err := tx.Exec(ctx, "update "+tableOf(trigger)+" set version = $2, amount = $3::text::numeric, note = $4, flag = $5 where id = $1",
		fresh.id, fresh.version, fresh.amount(), fresh.note(), fresh.flag())
	if err != nil {
		return fmt.Errorf("update: %w", err)
	}
	return w.note(ctx, tx, trigger, 'U', []int64{fresh.id}, old, []int64{fresh.version})
}

// note writes the ledger.
func (w *writer) note(ctx context.Context, tx pgx.Tx, trigger string, op byte, ids []int64, old int64, fresh []int64) error {
	if fresh == nil {
		fresh = []int64{0}
	}
	_, err := tx.Exec(ctx, `insert into ledger (trigger, op, id, old, fresh, began) select $1, $2::text::"char", id, $3, fresh, $6 from unnest($4::bigint[], $5::bigint[]) as t(id, fresh)`,
		trigger, string(op), old, ids, fresh, w.began)
	if err != nil {
		return fmt.Errorf("write the ledger: %w", err)
	}
	return nil
}

func (w *writer) nextID() int64 {
	w.id++
	return w.base + w.id
}

func (w *writer) nextVersion() int64 {
	w.version++
	return w.base + w.version
}
