package pg

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Pin has a session look for functions, operators and tables without a schema in pg_catalog alone, for as long as it lasts.
// Whoever may create in a schema of the search_path could otherwise have this role run a function of theirs, by one that fits the
// arguments better than pg_catalog's own.
func Pin(ctx context.Context, conn *pgx.Conn) error {
	_, err := pin(ctx, conn)
	return err
}

// pathSetting keeps the search_path of a pinned session behind an equals sign, for what is the user's own SQL.
const PathSetting = "rowhook.search_path"

// pin returns whether it was this call that pinned the session.
func pin(ctx context.Context, conn *pgx.Conn) (pinned bool, err error) {
	err = conn.QueryRow(ctx, "select coalesce(pg_catalog.current_setting($1, true), '') operator(pg_catalog.=) ''", PathSetting).Scan(&pinned)
	if err == nil && pinned {
		_, err = conn.Exec(ctx, "select pg_catalog.set_config($1, pg_catalog.concat('=', pg_catalog.current_setting('search_path')), false), "+
			"pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false)", PathSetting)
	}
	if err != nil {
		return false, fmt.Errorf("set search_path: %w", err)
	}
	return pinned, nil
}

// pinned runs f in a pinned session, which afterwards is as it was.
func Pinned(ctx context.Context, conn *pgx.Conn, f func() error) (err error) {
	mine, err := pin(ctx, conn)
	if err != nil || !mine {
		if err == nil {
			err = f()
		}
		return err
	}
	defer func() {
		// After a cancelled ctx the session is closed.
		_, back := conn.Exec(context.WithoutCancel(ctx), "select pg_catalog.set_config('search_path', pg_catalog.substr(pg_catalog.current_setting($1), 2), false), "+
			"pg_catalog.set_config($1, '', false)", PathSetting)
		if err == nil && back != nil {
			err = fmt.Errorf("set search_path back: %w", back)
		}
	}()
	return f()
}

// repin returns what pins the session, which is pinned now, as it is once its settings were reset.
func Repin(ctx context.Context, conn *pgx.Conn) (again func() error, err error) {
	var path string
	if err := conn.QueryRow(ctx, "select pg_catalog.current_setting($1)", PathSetting).Scan(&path); err != nil {
		return nil, fmt.Errorf("read search_path: %w", err)
	}
	return func() error {
		if _, err := conn.Exec(ctx, pinAgain+", pg_catalog.set_config($1, $2, false)", PathSetting, path); err != nil {
			return fmt.Errorf("set search_path: %w", err)
		}
		return nil
	}, nil
}

// usersPath puts the search_path of a pinned session back for a statement that holds the user's own SQL, and pinAgain takes it
// away. In a transaction its end does, too.
const (
	usersPath = "select pg_catalog.set_config('search_path', pg_catalog.substr(pg_catalog.current_setting('" + PathSetting + "'), 2), false)"
	pinAgain  = "select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false)"
)

// withUsersPath runs f while the session has the search_path that it had before it was pinned.
func WithUsersPath(ctx context.Context, conn *pgx.Conn, f func() error) error {
	if _, err := conn.Exec(ctx, usersPath); err != nil {
		return fmt.Errorf("set search_path: %w", err)
	}
	err := f()
	if conn.IsClosed() {
		return err
	}
	if _, back := conn.Exec(context.WithoutCancel(ctx), pinAgain); err == nil && back != nil {
		err = fmt.Errorf("set search_path back: %w", back)
	}
	return err
}
