// Package operate implements what operators do: it inspects and changes the state of Rowhook in a
// database. The command line and the HTTP interface call it.
//
// Each function takes a [DB] and leaves no transaction open. Its results have stable JSON names. An
// error that a person can act on is an [*Error]. Compare its kind by errors.Is with [ErrNotFound],
// [ErrBusy], [ErrRefused] and [ErrInvalid]. The functions expect the schema rowhook in this
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
	ErrBusy     = errors.New("busy")    // the same call may succeed later
	ErrRefused  = errors.New("refused") // the configuration or the state of the database forbids it
	ErrInvalid  = errors.New("invalid") // an argument is wrong
)

// Error is a problem that a person can act on.
type Error struct {
	Kind    error // one of ErrNotFound, ErrBusy, ErrRefused, ErrInvalid
	Problem string
	Remedy  string // what to do; may be empty
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

// transact runs f in a transaction of this isolation level, whatever the database's default is.
// Changes use [pgx.ReadCommitted]: it waits for concurrent changes and continues, where higher
// levels fail. If row level security would hide rows, f fails.
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

// read runs f in a read-only transaction with one snapshot, because events move between tables. The
// planner must use indexes: statistics from when the queue was empty would cost seconds with a
// million events.
func read(ctx context.Context, db DB, f func(tx pgx.Tx) error) error {
	return transact(ctx, db, pgx.RepeatableRead, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set transaction read only; "+byIndex()); err != nil {
			return fmt.Errorf("begin to read: %w", err)
		}
		return f(tx)
	})
}

// byIndex is SQL that settles a transaction of ours, see [pg.ByIndex].
func byIndex() string {
	return pg.ByIndex().With(pg.Settings{"max_parallel_workers_per_gather": "0", "search_path": "pg_catalog"}).Local()
}

// isNoText reports whether Postgres rejected a text parameter: it has a zero character, or is not
// UTF-8.
func isNoText(err error) bool {
	return pg.IsState(err, pgerrcode.CharacterNotInRepertoire, pgerrcode.UntranslatableCharacter)
}
