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
}

func (a *app) operating(cmd *cobra.Command) *operating {
	o := &operating{wait: defaultConnectTimeout}
	(&flagSet{cmd.Flags()}).connectTimeout(&o.wait)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON; its keys stay the same from version to version")
	return o
}

// operate connects, runs f until it is done or a signal comes, and explains what went wrong.
func (a *app) operate(cmd *cobra.Command, o *operating, f func(ctx context.Context, conn *pgx.Conn) error) error {
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	check := checkCurrent
	if o.look {
		check = checkInstalled
	}
	conn, err := a.connectChecked(ctx, o.wait, check)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = f(ctx, conn)
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
func (a *app) page() *term.Page { return term.NewPage(a.stdout, a.lookup) }

func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.stdout, format, args...) }

// printJSON writes a value as one indented document.
func (a *app) printJSON(v any) error { return writeJSON(a.stdout, v) }

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
