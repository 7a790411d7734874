package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
)

func (a *app) drainCommand() *cobra.Command {
	timeout := time.Minute
	cmd := &cobra.Command{
		Use:   "drain [TRIGGER]...",
		Short: "Wait until no event is waiting, in flight or retrying",
		Long: `Wait until no event of the named triggers, or of all triggers, is waiting, in flight or retrying: for tests and
deployments. Exit 0 then. Exit 1 if the timeout ends first, with the events that are left. Events of an open transaction
are not visible before it commits.`,
		Example: `  rowhook drain --timeout 30s`,
	}
	o := a.operating(cmd)
	o.across = true
	cmd.Flags().Var((*durationFlag)(&timeout), "timeout", "how long to wait; 0: do not wait")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			limited, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			var bar *term.Progress
			var most int64
			warned := map[string]bool{}
			left, err := operate.Drain(limited, conn, args, func(left []operate.Left) {
				var n int64
				for i := range left {
					n += left[i].Events()
					if left[i].Paused && !warned[left[i].Trigger] {
						warned[left[i].Trigger] = true
						a.advise(a.stderr, "%s is paused: its events are not delivered until \"rowhook resume\"\n", left[i].Trigger)
					}
				}
				if bar == nil || n > most {
					most = n
					bar = term.NewProgress(a.stderr, "draining", most, false)
				}
				bar.At(most-n, term.Plural(n, "event")+" left")
			})
			if bar != nil {
				bar.End()
			}
			if err != nil {
				return err
			}
			return a.showLeft(o, left, timeout)
		})
	}
	return cmd
}

func (a *app) showLeft(o *operating, left []operate.Left, timeout time.Duration) error {
	if o.json {
		if left == nil {
			left = []operate.Left{}
		}
		if err := a.printJSON(map[string]any{"left": left}); err != nil {
			return err
		}
	}
	if len(left) == 0 {
		if !o.json {
			a.printf("No events are left.\n")
		}
		return nil
	}
	var lines []string
	now := time.Now()
	for _, l := range left {
		line := fmt.Sprintf("  %s: %s waiting, %s in flight, %s to be retried", l.Trigger, term.Digits(l.Waiting), term.Digits(l.InFlight), term.Digits(l.Retrying))
		if l.More { // counting stopped at a limit, so the single counts would be wrong
			line = fmt.Sprintf("  %s: more than %s events", l.Trigger, term.Digits(l.Events()))
		}
		if l.NextAt != nil {
			line += ", the next " + term.Ago(*l.NextAt, now)
		}
		if l.Paused {
			line += " (paused)"
		}
		lines = append(lines, line)
	}
	return fmt.Errorf("events are left after %s:\n%s", trigger.Duration(timeout), strings.Join(lines, "\n"))
}
