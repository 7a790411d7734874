package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// changeOften changes a row of the trigger summed up to five times: it is inserted, updated, deleted,
// and inserted again under the same id. Some changes are rolled back. Some captures run at once, by
// "set constraints all immediate".
func (w *writer) changeOften(ctx context.Context, tx pgx.Tx, s step) error {
	r := rand.New(rand.NewPCG(s.pick, 0)) //nolint:gosec // no secret
	id, version := int64(0), int64(0)     // version 0: there is no such row
	if known := w.known[summed]; s.op != 'I' && len(known) > 0 {
		id = known[r.IntN(len(known))]
		err := tx.QueryRow(ctx, "select version from "+tableOf(summed)+" where id = $1 for update", id).Scan(&version)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("look at a row: %w", err)
		}
	}
	if version == 0 {
		id = w.nextID()
		w.remember(summed, id)
	}
	for n := range 1 + r.IntN(5) {
		if n > 0 && r.IntN(10) == 0 {
			if _, err := tx.Exec(ctx, "set constraints all "+[]string{"immediate", "deferred"}[r.IntN(2)]); err != nil {
				return fmt.Errorf("set constraints: %w", err)
			}
		}
		undo, remove := r.IntN(6) == 0, s.op == 'D' && n == 0 || r.IntN(4) == 0
		after := int64(0)
		err := pgx.BeginFunc(ctx, tx, func(sp pgx.Tx) (err error) {
			if after, err = w.changeOnce(ctx, sp, id, version, remove); err == nil && undo {
				return errRollBack
			}
			return err
		})
		switch {
		case errors.Is(err, errRollBack):
		case err != nil:
			return err
		default:
			version = after
		}
	}
	return nil
}

// changeOnce inserts, updates or deletes a row. It returns the version that is there afterwards.
func (w *writer) changeOnce(ctx context.Context, tx pgx.Tx, id, version int64, remove bool) (after int64, err error) {
	switch {
	case version == 0:
		fresh := row{id, w.nextVersion()}
		return fresh.version, w.insertRows(ctx, tx, summed, []row{fresh})
	case remove:
		if _, err := tx.Exec(ctx, "delete from "+tableOf(summed)+" where id = $1", id); err != nil {
			return 0, fmt.Errorf("delete: %w", err)
		}
		return 0, w.note(ctx, tx, summed, 'D', []int64{id}, version, nil)
	}
	fresh := row{id, w.nextVersion()}
	return fresh.version, w.update(ctx, tx, summed, fresh, version)
}

// sum makes one entry of the changes of a row of summed in a transaction, as a trigger at commit has
// to. What was inserted and deleted is none. The ledger is in the order of the changes of each
// transaction.
func sum(ledger []entry) []entry {
	type place struct{ tx, id int64 }
	at := map[place]int{}
	var all []entry
	for _, c := range ledger {
		if c.Trigger != summed || c.Op == "M" {
			all = append(all, c)
			continue
		}
		k := place{c.Tx, c.ID}
		n, again := at[k]
		if !again {
			at[k] = len(all)
			all = append(all, c)
			continue
		}
		// Old is that of the first change: 0 if there was no row.
		all[n].Fresh, all[n].Noted = c.Fresh, c.Noted
	}
	some := all[:0]
	for _, c := range all {
		if c.Trigger == summed && c.Op != "M" {
			switch {
			case c.Old == 0 && c.Fresh == 0:
				continue
			case c.Old == 0:
				c.Op = "I"
			case c.Fresh == 0:
				c.Op = "D"
			default:
				c.Op = "U"
			}
		}
		some = append(some, c)
	}
	return some
}

// sums checks that an event of a trigger at commit has the row as it was before the transaction, and as
// it was after it.
func (j *judging) sums(id uuid.UUID, k key, row, old int64, committed map[key]*entry) {
	if k.trigger != summed || k.op == "M" {
		return
	}
	switch c := committed[k]; {
	case c == nil:
		j.blame(ruleSummed, "event %s: no transaction has left row %d by %s at version %d", id, row, k.op, k.version)
	case c.Old != old || c.ID != row:
		j.blame(ruleSummed, "event %s of row %d has the old version %d instead of %d", id, row, old, c.Old)
	}
}
