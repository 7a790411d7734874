package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
)

func (a *app) tailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Follow events as they are recorded, tried and delivered, until Ctrl-C",
		Long: `Follow new events. Each event has a line when it is recorded, and another after each attempt and change of its state. If
there are too many events to follow, some are left out, and a line says so. With --json each line is a JSON document.`,
		Example: `  rowhook events tail -t order_placed`,
		Args:    cobra.NoArgs,
	}
	o := a.operating(cmd)
	o.across, o.streams = true, true
	var f filterFlags
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		filter, err := f.filter(nil)
		if err != nil {
			return &usageError{err}
		}
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			return operate.Tail(ctx, conn, filter, func(e operate.Event) error {
				if o.json {
					return json.NewEncoder(a.stdout).Encode(e)
				}
				t := a.page().Table()
				now := time.Now()
				state := stateCell(&e)
				state.Text = fmt.Sprintf("%-9s", state.Text)
				t.Add(term.Text(now.Format("15:04:05.000")), state, term.Text(fmt.Sprintf("%-6s", e.Op)), term.Text(e.Trigger), term.Text(e.ID), term.Coloured(tailNote(&e, now), term.Dim))
				t.Flush()
				return nil
			}, func() { fmt.Fprintln(a.stderr, "... too many events to follow: some are left out") })
		})
	}
	return cmd
}

func tailNote(e *operate.Event, now time.Time) string {
	n := note(e, now)
	if e.State == operate.Dead { // it has just died
		n = e.Reason
	}
	if e.Attempts > 1 || e.State == operate.Retrying {
		return fmt.Sprintf("attempt %d, %s", e.Attempts, n)
	}
	return n
}
