package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
)

// operating are the flags of every command for operators.
type operating struct {
	json bool
	wait time.Duration
	// look says that the command only reads. It then works on an older schema, too, if dispatchers
	// of this version can.
	look bool
	// across says that the command only reads, and without --source looks at all sources.
	across bool
	// streams says that it prints a line for each of many things, until it is interrupted.
	streams bool
}

func (a *app) operating(cmd *cobra.Command) *operating {
	o := &operating{wait: defaultConnectTimeout}
	(&flagSet{cmd.Flags()}).connectTimeout(&o.wait)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON; its keys stay the same from version to version")
	return o
}

// operate connects, runs f until it is done or a signal comes, and explains what went wrong. f is given
// the program that works on the connection's database, which prints for it.
func (a *app) operate(cmd *cobra.Command, o *operating, f func(ctx context.Context, a *app, conn *pgx.Conn) error) error {
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	if a.source != nil {
		return a.operateOn(ctx, o, f)
	}
	all, unread, err := a.sourcesNow(ctx, nil)
	if err != nil {
		return err
	}
	if all != nil {
		chosen, err := a.chosen(all)
		switch {
		case err != nil: // perhaps it is a tenant that is refused
			return withUnread(err, unread)
		case o.across && (len(chosen) > 1 || all.Tenants != nil && a.global.only == ""):
			wide := a.patient(cmd, o)
			work := func(ctx context.Context, a *app) error { return a.operateOn(ctx, wide, f) }
			if o.streams {
				return a.follow(ctx, all, chosen, o.json, work)
			}
			return withUnread(a.over(ctx, all, chosen, o.json, work), unread)
		}
		if a, err = a.oneOf(all); err != nil {
			return err
		}
	}
	return advised(a.sourceName(), a.operateOn(ctx, o, f))
}

// patienceOfMany is how long a command that looks at several sources waits for each, unless
// --connect-timeout says it: one that is away should not hold up what the others say.
const patienceOfMany = 3 * time.Second

// patient returns the flags of a command that looks at several sources.
func (a *app) patient(cmd *cobra.Command, o *operating) *operating {
	wide := *o
	if !a.given(cmd, connectTimeoutFlag) {
		wide.wait = min(wide.wait, patienceOfMany)
	}
	return &wide
}

// operateOn is operate for the database of a.
func (a *app) operateOn(ctx context.Context, o *operating, f func(ctx context.Context, a *app, conn *pgx.Conn) error) error {
	check := checkCurrent
	if o.look {
		check = checkInstalled
	}
	conn, err := a.connectChecked(ctx, o.wait, check)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = f(ctx, a, conn)
	var known *operate.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !errors.As(err, &known) && !errors.Is(err, errUnchanged):
		return errors.New("interrupted")
	case errors.Is(err, operate.ErrInvalid):
		return &usageError{err}
	case conn.IsClosed() && !errors.As(err, &known) && !errors.As(err, new(*pgconn.PgError)):
		return fmt.Errorf("lost the connection to Postgres (%w): repeat the command when the server is back", err)
	}
	return explain(err)
}

// page is standard output, for what is written for people.
func (a *app) page() *term.Page {
	return term.NewPage(a.shownOn(), a.lookup).To(a.stdout)
}

// shownOn is where stdout is shown at last.
func (a *app) shownOn() io.Writer {
	if a.paper != nil {
		return a.paper
	}
	return a.stdout
}

func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.stdout, format, args...) }

// printJSON writes a value as one indented document.
func (a *app) printJSON(v any) error { return writeJSON(a.stdout, v) }

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
