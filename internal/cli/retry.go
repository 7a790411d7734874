package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
)

func (a *app) retryCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "retry TRIGGER [ID]...",
		Short: "Retry failed events now instead of after their interval; their attempts still count",
		Long: `Make the retries of a trigger due at once, or those of some of its events, by their ids. They no longer wait for the interval
of the configuration or the receiver's Retry-After. Unlike redeliver, the attempts go on counting: after the last one the
event is a dead letter. Dead letters are not touched.

With --wait the command first waits until an attempt has failed and its retry waits. It ends with exit code 1 if that does
not happen in time. A test suite reaches a dead letter so in no time, whatever the interval is.`,
		Example: `  rowhook retry order_placed
  rowhook retry order_placed 0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90
  rowhook retry order_placed --wait 5s --json`,
		Args: cobra.MinimumNArgs(1),
	}
	o := a.operating(cmd)
	cmd.Flags().Var((*durationFlag)(&wait), "wait", "how long to wait until an attempt has failed; 0: do not wait")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			r, err := operate.RetryNow(ctx, conn, operate.RetryOptions{Trigger: args[0], IDs: args[1:], Wait: wait})
			if err != nil {
				return err
			}
			return a.showRetried(o, r, wait)
		})
	}
	return cmd
}

func (a *app) showRetried(o *operating, r *operate.Retried, wait time.Duration) error {
	if o.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	}
	switch {
	case r.Events == 0 && wait > 0:
		return fmt.Errorf("after %s no event of %s waits for a retry", trigger.Duration(wait), r.Trigger)
	case o.json:
	case r.Events == 0:
		a.printf("Nothing to do: no event of %s waits for a retry.\n", r.Trigger)
	default:
		a.printf("%s of %s, due now.\n", plural(r.Events), r.Trigger)
	}
	if r.Events > 0 && r.Paused {
		a.advise(a.stderr, "%s is paused: its events are not delivered until \"rowhook resume\"\n", r.Trigger)
	}
	return nil
}

func plural(retries int64) string {
	if retries == 1 {
		return "1 retry"
	}
	return term.Digits(retries) + " retries"
}
