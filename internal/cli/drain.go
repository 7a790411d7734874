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
		Short: "Wait until no event is waiting, in flight or to be retried",
		Long: `Wait until nothing is owed any more, of the named triggers or of all: for tests and deployments. Exit 0 when it is so,
and 1 when the timeout comes first, saying what is left. What an open transaction has written is not seen before it commits.`,
		Example: `  rowhook drain --timeout 30s`,
	}
	o := a.operating(cmd)
	cmd.Flags().Var((*durationFlag)(&timeout), "timeout", "how long to wait at most; 0: do not wait")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.operate(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
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
						fmt.Fprintf(a.stderr, "%s is paused: nothing of it is delivered until it is resumed\n", left[i].Trigger)
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
			a.printf("Nothing is left.\n")
		}
		return nil
	}
	var lines []string
	now := time.Now()
	for _, l := range left {
		line := fmt.Sprintf("  %s: %s waiting, %s in flight, %s to be retried", l.Trigger, term.Digits(l.Waiting), term.Digits(l.InFlight), term.Digits(l.Retrying))
		if l.More { // only as many were looked at, those that are due first: it would be wrong to say that none of the others is in flight
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
	return fmt.Errorf("after %s something is left:\n%s", trigger.Duration(timeout), strings.Join(lines, "\n"))
}
