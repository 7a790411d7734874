package cli

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/pflag"

	"github.com/rowhook/rowhook/internal/console"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// console is what the operators' commands get of the program.
func (a *app) console() console.Env {
	return console.Env{
		Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr, Lookup: a.lookup,
		Connect: func(ctx context.Context, wait time.Duration) (*pgx.Conn, error) {
			return a.connectTo(ctx, wait, checkCurrent)
		},
		Look: func(ctx context.Context, wait time.Duration) (*pgx.Conn, error) {
			return a.connectTo(ctx, wait, checkInstalled)
		},
		Wait: func(flags *pflag.FlagSet) *time.Duration {
			wait := defaultConnectTimeout
			(&settings{flags}).connectTimeout(&wait)
			return &wait
		},
		Interruptible: interruptible,
		Usage:         func(err error) error { return &usageError{err} },
		Explain:       explain,
	}
}

// connectTo opens the database whose schema check finds right.
func (a *app) connectTo(ctx context.Context, wait time.Duration, check func(context.Context, *pgx.Conn, *target) error) (*pgx.Conn, error) {
	target, err := a.target()
	if err != nil {
		return nil, err
	}
	conn, err := a.connect(ctx, target, wait)
	if err != nil {
		return nil, err
	}
	if err = check(ctx, conn, target); err == nil {
		err = pg.Pin(ctx, conn)
	}
	if err == nil {
		a.quiet(ctx, conn)
	}
	if err != nil {
		_ = conn.Close(context.WithoutCancel(ctx)) // the error says enough
		return nil, explain(err)
	}
	return conn, nil
}

// quiet has writers ring no more where no dispatcher is left that hears it.
func (a *app) quiet(ctx context.Context, conn *pgx.Conn) {
	if err := queue.SilenceForNobody(ctx, conn); err != nil {
		a.log.Debug("can't silence the doorbell", "error", err) // the command can do without
	}
}
