package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
)

// A row whose data can't be read or moved affects only itself. The functions here show and change
// the other rows as usual.

// shown bounds the payloads of one response, in bytes of JSON text. A larger single payload is not
// fetched.
const shown = 32 << 20

// fetchAtOnce is the number of payloads that one statement measures or fetches.
const fetchAtOnce = 50

// held is the data of an event.
type held struct {
	source                   source // the table where it was found
	Old, New, Session, Trace []byte // JSON; nil: null, or not fetched
	problem                  string // why they were not fetched
}

// apart runs f within a savepoint. If the data of a row makes f fail, the transaction stays usable.
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

// escaping runs a query that wraps its text columns in write. If a text can't be converted to the
// session's encoding, the query runs again with all of them escaped to ASCII: other bytes become
// \346, and a backslash becomes two. If a text can't be read even so, a placeholder replaces all of
// them.
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

// fetchPayloads fetches the payloads of the first events, as many as fit into one response but at
// least one, and returns their number. An event whose payload can't be fetched gets a problem
// instead.
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
				part[i].problem = fmt.Sprintf("the payload has %d bytes, which is more than the limit of %d: read it in SQL with select payload from rowhook.events where id = '%s'", size, shown, part[i].ID)
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

// each calls do once per table for all its events. If the data of one event makes that fail, each
// calls do for every event by itself. do gets the from clause and the ids.
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

// measure returns the sizes of payloads in bytes, by event id. It reads only compressed values for
// that.
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

// erasedAt returns when the data were erased, if they were.
func (h *held) erasedAt() (at string, ok bool) {
	if h.Old != nil || h.New != nil || !bytes.HasPrefix(h.Session, []byte(`{"`+erasedKey+`"`)) {
		return "", false
	}
	var mark map[string]string
	if err := json.Unmarshal(h.Session, &mark); err != nil {
		return "", false
	}
	return mark[erasedKey], true
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
		if at, ok := h.erasedAt(); ok {
			h.problem = "its data were erased at " + at + ": rowhook audit --action erase says by whom"
			h.Session = nil
		}
		if h.problem == "" && !(utf8.Valid(h.Old) && utf8.Valid(h.New) && utf8.Valid(h.Session) && utf8.Valid(h.Trace)) {
			h.problem = "the payload has bytes that are not UTF-8: this database does not check the encoding of its texts"
		}
	}
	return err
}
