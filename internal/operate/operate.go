// Package operate looks into a database that Rowhook works on and steers it: what operators do, as Go functions. The command
// line and the HTTP interface are both made of it.
//
// Each function takes a [DB] and leaves no transaction open. What it returns has stable JSON names. An error for people is an
// [*Error]; compare it by errors.Is with [ErrNotFound], [ErrBusy], [ErrRefused] and [ErrInvalid]. The schema rowhook is migrated to this
// program's version.
package operate

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// DB is a *pgx.Conn or a *pgxpool.Pool.
type DB interface {
	pg.Queryer
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Begin(ctx context.Context) (pgx.Tx, error)
}

// The kinds of an Error.
var (
	ErrNotFound = errors.New("not found")
	ErrBusy     = errors.New("busy")    // it may work later
	ErrRefused  = errors.New("refused") // it will not work as things are configured
	ErrInvalid  = errors.New("invalid") // the request itself is wrong
)

// Error is a problem that a person can do something about.
type Error struct {
	Kind    error // one of ErrNotFound, ErrBusy, ErrRefused, ErrInvalid
	Problem string
	Remedy  string
}

func (e *Error) Error() string {
	if e.Remedy == "" {
		return e.Problem
	}
	return e.Problem + ": " + e.Remedy
}

func (e *Error) Unwrap() error { return e.Kind }

func problem(kind error, remedy, format string, args ...any) error {
	return &Error{Kind: kind, Problem: fmt.Sprintf(format, args...), Remedy: remedy}
}

// transact runs f in a transaction of this isolation, whatever the database's default is. Changes are made under [pgx.ReadCommitted], which goes on behind
// what others changed meanwhile rather than fail. Where row level security would keep rows from it, f fails instead of finding fewer.
func transact(ctx context.Context, db DB, level pgx.TxIsoLevel, f func(tx pgx.Tx) error) error {
	type beginner interface {
		BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
	}
	seeing := func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, queue.SeeAllRows); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		return queue.ExplainHidden(f(tx))
	}
	if b, ok := db.(beginner); ok {
		return pgx.BeginTxFunc(ctx, b, pgx.TxOptions{IsoLevel: level}, seeing)
	}
	return pgx.BeginFunc(ctx, db, seeing) // db is a transaction itself
}

// read runs f in a transaction that changes nothing, and sees the tables as they are at one moment, between which events move. It keeps the planner to the indexes, whatever it believes of the tables'
// sizes: what it learned of a queue when it was empty would cost seconds when a million events wait.
func read(ctx context.Context, db DB, f func(tx pgx.Tx) error) error {
	return transact(ctx, db, pgx.RepeatableRead, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set transaction read only; "+byIndex); err != nil {
			return fmt.Errorf("begin to read: %w", err)
		}
		return f(tx)
	})
}

const byIndex = "set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off; set local jit = off; " +
	"set local max_parallel_workers_per_gather = 0; set local search_path = pg_catalog"

func collect[T any](ctx context.Context, db pg.Queryer, sql string, args ...any) ([]T, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[T])
}

// isNoText reports that Postgres can't hold what was sent as text: it has a zero character, or is no UTF-8.
func isNoText(err error) bool {
	return pg.IsState(err, pgerrcode.CharacterNotInRepertoire, pgerrcode.UntranslatableCharacter)
}
