package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
)

func (a *app) pauseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pause TRIGGER...|--all",
		Short: "Stop delivering events of a trigger; they are still recorded",
		Long: `Stop the delivery of triggers on all dispatchers, within about a second. Events are still recorded, and attempts in flight
end. A pause lasts until resume, across restarts and applies. While all triggers are paused (--all), new triggers start
paused, too. "rowhook status" shows who paused what, since when and why.`,
		Example: `  rowhook pause order_placed --reason "the CRM is being moved"
  rowhook pause --all`,
	}
	var reason string
	cmd.Flags().StringVar(&reason, "reason", "", "reason of the pause, which the status and the audit show")
	return a.pausing(cmd, func(ctx context.Context, db operate.DB, names ...string) ([]string, error) {
		return operate.PauseFor(ctx, db, reason, names...)
	}, pausingWords{"Paused", "paused already", "New triggers start paused, too, until \"rowhook resume --all\"."})
}

// pausingWords is what pause and resume print: what was done, why there was nothing to do, and what
// --all means beyond that.
type pausingWords struct{ done, already, all string }

func (a *app) pausing(cmd *cobra.Command, do func(context.Context, operate.DB, ...string) ([]string, error), words pausingWords) *cobra.Command {
	o := a.operating(cmd)
	var all bool
	cmd.Flags().BoolVar(&all, "all", false, "all triggers")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (len(args) > 0) {
			return &usageError{errors.New("name one or more triggers, or set --all")}
		}
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			changed, err := do(ctx, conn, args...)
			if err != nil {
				return err
			}
			if o.json {
				return a.printJSON(map[string][]string{"changed": changed})
			}
			if len(changed) == 0 {
				a.printf("Nothing to do: %s.\n", words.already)
			} else {
				a.printf("%s %s.\n", words.done, strings.Join(changed, ", "))
			}
			if all && words.all != "" {
				a.printf("%s\n", words.all)
			}
			return nil
		})
	}
	return cmd
}
