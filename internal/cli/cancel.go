package cli

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
)

func (a *app) cancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cancel TRIGGER",
		Short: "Break off the attempts of a trigger that are in flight; their events are sent again at once",
		Long: `Break off all attempts of a trigger that are in flight, on all dispatchers, within about a second. It is for a receiver that
does not answer: "rowhook status" says which attempts hang, since when and where. A broken-off attempt is in the log of
attempts with the kind canceled and your name. It does not count: the event keeps its number of attempts, and is sent again at
once. With an order it does count, without being the last one: then attempts and current_retry can exceed the trigger's retries.
The receiver may have the event already, and gets it twice then.

After a change of the URL, apply breaks off by itself the attempts that hang at the old one.`,
		Example: `  rowhook cancel order_placed`,
		Args:    cobra.ExactArgs(1),
	}
	o := a.operating(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			c, err := operate.Cancel(ctx, conn, args[0])
			switch {
			case err != nil:
				return err
			case o.json:
				return a.printJSON(c)
			case c.InFlight == 0 && c.Uncounted:
				a.printf("No attempt of %s is known to hang. Any that is in flight is broken off: those of an ordered trigger are known a second or two after they begin.\n", c.Trigger)
			case c.InFlight == 0:
				a.printf("Nothing to do: no attempt of %s is in flight.\n", c.Trigger)
			default:
				a.printf("The attempts of %s of %s are broken off.\n", term.Plural(c.InFlight, "event"), c.Trigger)
			}
			if c.InFlight > 0 && c.Paused {
				a.advise(a.stderr, "%s is paused: its events are not delivered until \"rowhook resume\"\n", c.Trigger)
			}
			return nil
		})
	}
	return cmd
}
