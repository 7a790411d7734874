package pg

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Pin sets the search_path of a session to pg_catalog and pg_temp, until the session ends, and turns
// JIT off.
// Functions, operators and tables without a schema then come from pg_catalog alone. Otherwise
// anybody who may create objects in a schema of the search_path could have this role run their
// function: one whose parameters fit the arguments better than those of pg_catalog.
func Pin(ctx context.Context, conn *pgx.Conn) error {
	_, err := pin(ctx, conn)
	return err
}

// PathSetting is the setting that keeps the search_path of the user while a session is pinned,
// behind an equals sign. SQL that the user wrote runs with that one.
const PathSetting = "rowhook.search_path"

// jitSetting keeps the setting jit meanwhile. Rowhook reads catalogs and the heads of its queues,
// where the planner's estimates are far too high: compiling a query of 3 ms took 0.4 to 3.7 s.
const jitSetting = "rowhook.jit"

// pin returns whether this call pinned the session. It does nothing if the session is pinned
// already.
func pin(ctx context.Context, conn *pgx.Conn) (pinned bool, err error) {
	err = conn.QueryRow(ctx, "select coalesce(pg_catalog.current_setting($1, true), '') operator(pg_catalog.=) ''", PathSetting).Scan(&pinned)
	if err == nil && pinned {
		_, err = conn.Exec(ctx, "select pg_catalog.set_config($1, pg_catalog.concat('=', pg_catalog.current_setting('search_path')), false), "+
			"pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false), "+
			"pg_catalog.set_config($2, pg_catalog.current_setting('jit'), false), pg_catalog.set_config('jit', 'off', false)", PathSetting, jitSetting)
	}
	if err != nil {
		return false, fmt.Errorf("set search_path: %w", err)
	}
	return pinned, nil
}

// Pinned runs f in a pinned session, and then restores the session.
func Pinned(ctx context.Context, conn *pgx.Conn, f func() error) (err error) {
	mine, err := pin(ctx, conn)
	if err != nil || !mine {
		if err == nil {
			err = f()
		}
		return err
	}
	defer func() {
		// If ctx was canceled, the session is closed, and the error of f matters.
		_, back := conn.Exec(context.WithoutCancel(ctx), "select pg_catalog.set_config('search_path', pg_catalog.substr(pg_catalog.current_setting($1), 2), false), "+
			"pg_catalog.set_config($1, '', false), pg_catalog.set_config('jit', pg_catalog.current_setting($2), false)", PathSetting, jitSetting)
		if err == nil && back != nil {
			err = fmt.Errorf("restore search_path: %w", back)
		}
	}()
	return f()
}

// usersPath restores the search_path of the user in a pinned session, for a statement with SQL that
// the user wrote. pinAgain undoes that. In a transaction its end undoes it, too.
const (
	usersPath = "select pg_catalog.set_config('search_path', pg_catalog.substr(pg_catalog.current_setting('" + PathSetting + "'), 2), false)"
	pinAgain  = "select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false)"
)

// OnUsersPath returns the statements that run this one under the search_path that the session had
// before it was pinned. They are for a transaction, whose end undoes it if the statement fails.
func OnUsersPath(statement string) []string { return []string{usersPath, statement, pinAgain} }

// WithUsersPath runs f while the session has the search_path that it had before it was pinned.
func WithUsersPath(ctx context.Context, conn *pgx.Conn, f func() error) error {
	if _, err := conn.Exec(ctx, usersPath); err != nil {
		return fmt.Errorf("set search_path: %w", err)
	}
	err := f()
	if conn.IsClosed() {
		return err
	}
	if _, back := conn.Exec(context.WithoutCancel(ctx), pinAgain); err == nil && back != nil {
		err = fmt.Errorf("restore search_path: %w", back)
	}
	return err
}
