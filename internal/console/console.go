// Package console is what operators type: the commands that look into a running Rowhook and steer it, for people at a
// terminal and, with --json, for scripts.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rowhook/rowhook/internal/logs"
	"github.com/rowhook/rowhook/internal/operate"
)

// Env is what the commands need of the program that they are in. Every field but Terminal is required.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Terminal       io.Writer                   // where what is written to Stdout will be shown; nil: Stdout itself
	Lookup         func(string) (string, bool) // os.LookupEnv, or the like
	// Connect opens the database, and checks that its schema is current.
	Connect func(ctx context.Context, wait time.Duration) (*pgx.Conn, error)
	// Look is Connect for what only looks, and can do so on an older schema that the dispatchers can work on.
	Look func(ctx context.Context, wait time.Duration) (*pgx.Conn, error)
	// Wait adds the flag that says how long to wait for a database.
	Wait func(*pflag.FlagSet) *time.Duration
	// Interruptible ends the context at the first SIGINT or SIGTERM.
	Interruptible func(context.Context) (context.Context, context.CancelFunc)
	// Usage marks an error as wrong usage.
	Usage func(error) error
	// Explain adds to an error of the database what can be done about it.
	Explain func(error) error
}

// Commands makes the commands. They are called with their flags read.
func Commands(env Env) []*cobra.Command {
	c := &console{env}
	return []*cobra.Command{
		c.statusCommand(), c.eventsCommand(), c.redeliverCommand(), c.discardCommand(), c.invokeCommand(),
		c.pauseCommand(), c.resumeCommand(), c.backfillCommand(), c.drainCommand(), c.auditCommand(),
	}
}

type console struct{ Env }

// common are the flags that every command has.
type common struct {
	json bool
	look bool // it only looks
	wait *time.Duration
}

func (c *console) common(cmd *cobra.Command) *common {
	o := &common{wait: c.Wait(cmd.Flags())}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON, whose keys stay the same from version to version")
	return o
}

// work connects, runs f until it is done or a signal comes, and explains what went wrong.
func (c *console) work(cmd *cobra.Command, o *common, f func(ctx context.Context, conn *pgx.Conn) error) error {
	ctx, stop := c.Interruptible(cmd.Context())
	defer stop()
	connect := c.Connect
	if o.look {
		connect = c.Look
	}
	conn, err := connect(ctx, *o.wait)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = f(ctx, conn)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !isProblem(err) && !errors.Is(err, errUnchanged):
		return errors.New("interrupted")
	case errors.Is(err, operate.ErrInvalid):
		return c.Usage(err)
	case conn.IsClosed() && !isProblem(err) && !errors.As(err, new(*pgconn.PgError)):
		return fmt.Errorf("the connection to Postgres was lost (%w): give the command again when the server is back", err)
	}
	return c.Explain(err)
}

func isProblem(err error) bool {
	var p *operate.Error
	return errors.As(err, &p)
}

// terminal is where what is written to Stdout is shown.
func (c *console) terminal() io.Writer {
	if c.Terminal != nil {
		return c.Terminal
	}
	return c.Stdout
}

// printJSON writes a value as one indented document.
func (c *console) printJSON(v any) error {
	e := json.NewEncoder(c.Stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (c *console) printf(format string, args ...any) { fmt.Fprintf(c.Stdout, format, args...) }

// confirm asks a question on the terminal, unless yes was said already.
func (c *console) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !logs.IsTerminal(c.Stdin) {
		return c.Usage(fmt.Errorf("nothing was changed: there is no terminal to ask on (%s); repeat it with --yes to go ahead", question))
	}
	fmt.Fprint(c.Stderr, question+" Type yes to go ahead: ")
	answer := make(chan string, 1)
	go func() { // a terminal can't be told to end a read: where ctx ends first, this goes with the program
		line, err := readLine(c.Stdin)
		if err != nil {
			line = ""
		}
		answer <- line
	}()
	select {
	case line := <-answer:
		if strings.EqualFold(strings.TrimSpace(line), "yes") {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(c.Stderr)
	}
	return errUnchanged
}

var errUnchanged = errors.New("nothing was changed")

// readLine reads to the end of a line and no further.
func readLine(r io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for {
		n, err := r.Read(b[:])
		if n == 1 {
			if b[0] == '\n' {
				return string(line), nil
			}
			line = append(line, b[0])
		}
		if err != nil {
			return string(line), err
		}
	}
}
