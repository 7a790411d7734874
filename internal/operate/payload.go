package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
)

// What one row holds that can't be read, or moved, costs that row alone: what is shown of the others does not depend on it.

// shown bounds the payloads of an answer, in bytes of JSON text: of a larger one no part is fetched.
const shown = 32 << 20

// fetchAtOnce is of how many events the payloads are measured and fetched by one statement.
const fetchAtOnce = 50

// held is what an event says.
type held struct {
	source                   source // where it was found
	Old, New, Session, Trace []byte // JSON; nil: null, or not fetched
	problem                  string // why they were not
}

// apart runs f within a savepoint: where it fails for what is in a row, the transaction goes on without it.
func apart(ctx context.Context, tx pgx.Tx, f func() error) error {
	if _, err := tx.Exec(ctx, "savepoint apart"); err != nil {
		return fmt.Errorf("set a savepoint: %w", err)
	}
	err := f()
	end := "release savepoint apart"
	if err != nil {
		if !pg.IsData(err) {
			return err
		}
		end = "rollback to savepoint apart; " + end
	}
	if _, back := tx.Exec(ctx, end); back != nil {
		return errors.Join(err, fmt.Errorf("end a savepoint: %w", back))
	}
	return err
}

// escaping runs a query that writes texts by write. Where one can't be converted into the encoding of this session it runs again, and all of them
// come in ASCII: other bytes as \346, and a backslash as two. Where one can't be read at all, none comes.
func escaping(ctx context.Context, tx pgx.Tx, query func(write func(expression string) string) error) (err error) {
	for _, write := range []func(string) string{plainly, escaped, unread} {
		if err = apart(ctx, tx, func() error { return query(write) }); !pg.IsData(err) {
			return err
		}
	}
	return err
}

func plainly(expression string) string { return expression }

func escaped(expression string) string {
	return "pg_catalog.encode(pg_catalog.convert_to(" + expression + ", 'SQL_ASCII'), 'escape')"
}

func unread(string) string { return "'(it can''t be read from the database)'::text" }

// fetchPayloads fetches the payloads of the first events, of as many as fit into an answer, and at least of one. It returns how many these are.
// An event whose payload can't be had gets a problem instead.
func fetchPayloads(ctx context.Context, tx pgx.Tx, events []raw) (n int, err error) {
	var total int64
	for part := range slices.Chunk(events, fetchAtOnce) {
		sizes, err := measure(ctx, tx, part)
		if err != nil {
			return 0, err
		}
		fits := 0
		for i := range part {
			size := sizes[part[i].ID]
			if size > shown {
				part[i].problem = fmt.Sprintf("the payload has %d bytes, and none above %d is shown: ask for it in SQL, by select payload from rowhook.events where id = '%s'", size, shown, part[i].ID)
				size = 0
			}
			if total+size > shown && n+fits > 0 {
				break
			}
			total += size
			fits++
		}
		if err := fetch(ctx, tx, part[:fits]); err != nil {
			return 0, err
		}
		n += fits
		if fits < len(part) {
			break
		}
	}
	return n, nil
}

// each has do read from the rows of events: of all that are in one table at once, and of each by itself where that fails for what is in one of them.
func each(ctx context.Context, tx pgx.Tx, events []raw, do func(from string, ids []string) error) error {
	one := func(s source, ids ...string) error {
		return apart(ctx, tx, func() error { return do("rowhook."+s.table+" e where e.id = any($1::text[]::uuid[])", ids) })
	}
	for _, s := range sources() {
		var ids []string
		for i := range events {
			if events[i].source.table == s.table && events[i].problem == "" {
				ids = append(ids, events[i].ID)
			}
		}
		if len(ids) == 0 {
			continue
		}
		err := one(s, ids...)
		if err == nil {
			continue
		}
		for i := range events {
			if pg.IsData(err) && slices.Contains(ids, events[i].ID) {
				if alone := one(s, events[i].ID); pg.IsData(alone) {
					events[i].problem = "the payload can't be read from the database: " + alone.Error()
				} else if alone != nil {
					err = alone
				}
			}
		}
		if !pg.IsData(err) {
			return fmt.Errorf("read the payloads of events: %w", err)
		}
	}
	return nil
}

// measure asks for the sizes of payloads, by event. What is stored as it is need not be read for that.
func measure(ctx context.Context, tx pgx.Tx, events []raw) (map[string]int64, error) {
	size := "0"
	for _, column := range []string{"e.old", "e.new", "e.session", "e.trace"} {
		size += " + coalesce(case when pg_catalog.pg_column_compression(" + column + ") is null then pg_catalog.pg_column_size(" + column + ") else pg_catalog.octet_length(" + column + "::text) end, 0)"
	}
	sizes := map[string]int64{}
	err := each(ctx, tx, events, func(from string, ids []string) error {
		rows, err := tx.Query(ctx, "select e.id::text, ("+size+")::bigint from "+from, ids)
		if err != nil {
			return err
		}
		var id string
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error {
			sizes[id] = n
			return nil
		})
		return err
	})
	return sizes, err
}

func fetch(ctx context.Context, tx pgx.Tx, events []raw) error {
	byID := map[string]*raw{}
	for i := range events {
		byID[events[i].ID] = &events[i]
	}
	err := each(ctx, tx, events, func(from string, ids []string) error {
		rows, err := tx.Query(ctx, "select e.id::text, e.old, e.new, e.session, e.trace from "+from, ids)
		if err != nil {
			return err
		}
		var id string
		var h held
		_, err = pgx.ForEachRow(rows, []any{&id, &h.Old, &h.New, &h.Session, &h.Trace}, func() error {
			r := byID[id]
			r.Old, r.New, r.Session, r.Trace = slices.Clone(h.Old), slices.Clone(h.New), slices.Clone(h.Session), slices.Clone(h.Trace)
			return nil
		})
		return err
	})
	for i := range events {
		h := &events[i].held
		if h.problem == "" && !(utf8.Valid(h.Old) && utf8.Valid(h.New) && utf8.Valid(h.Session) && utf8.Valid(h.Trace)) {
			h.problem = "the payload has bytes that are no UTF-8: the database does not check the encoding of what it stores"
		}
	}
	return err
}
