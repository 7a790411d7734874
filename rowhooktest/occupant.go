package rowhooktest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/clone"
)

// A harness holds an advisory lock with these keys in its database. Two would deliver each other's
// events, each to its own receiver.
const (
	occupantSpace = 0x68617273
	occupantLock  = 1
)

// occupantPatience is how long a harness that ended a moment ago, or was killed, may take to leave.
const occupantPatience = 2 * time.Second

// occupy takes a caller's database for a harness, until the end of the returned session. The lock is
// that of a transaction, since a pooler may give each transaction another session. It has no snapshot,
// which vacuum and CREATE INDEX CONCURRENTLY would wait for.
func occupy(ctx context.Context, url string) (*pgx.Conn, error) {
	conn, err := clone.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to the test's database: %w", err)
	}
	_, err = conn.Exec(ctx, "begin isolation level read committed; set local idle_in_transaction_session_timeout = 0")
	if err == nil {
		err = lockDatabase(ctx, conn, "pg_try_advisory_xact_lock")
	}
	if err != nil {
		_ = conn.Close(context.WithoutCancel(ctx)) // the first error is what matters
		return nil, err
	}
	return conn, nil
}

// lockDatabase takes the lock by one of Postgres' functions for it.
func lockDatabase(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, function string,
) error {
	return retry.Do(ctx, retry.WithMaxDuration(occupantPatience, retry.NewConstant(roomLook)), func(ctx context.Context) error {
		var taken bool
		err := db.QueryRow(ctx, "select pg_catalog."+function+"($1, $2)", occupantSpace, occupantLock).Scan(&taken)
		switch {
		case err != nil:
			return fmt.Errorf("lock the test's database: %w", err)
		case !taken:
			return retry.RetryableError(errOccupied)
		}
		return nil
	})
}

var errOccupied = errors.New("the database is in use by another harness, and each would get the other's events: " +
	"give each test a database of its own, or leave out rowhooktest.Database")
