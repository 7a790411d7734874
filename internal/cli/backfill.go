package cli

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
)

func (a *app) backfillCommand() *cobra.Command {
	var b operate.BackfillOptions
	var yes bool
	cmd := &cobra.Command{
		Use:   "backfill TRIGGER",
		Short: "Record the present rows of a table as events",
		Long: `Record the present rows of the trigger's table as INSERT events, if the trigger's "when" is true for them. Their
session_variables hold rowhook_backfill, the number of the backfill. Rows that are inserted later, with higher keys, have
events of their own.

The command reads the table by its primary key, in small batches, only as fast as the events are delivered, so that they
do not delay other events. --no-throttle does not wait for deliveries. If a backfill was interrupted, the same command
continues it. Of a trigger with several tables, --table says which one to read.

At the end the command counts the table's rows without the index of the key. It counts rows that were there at the
beginning and have not changed since. If it read fewer of these, rows were missed, and the command fails.`,
		Example: `  rowhook backfill order_placed
  rowhook backfill order_placed --where "created_at > now() - interval '30 days'"`,
		Args: cobra.ExactArgs(1),
	}
	o := a.operating(cmd)
	cmd.Flags().StringVar(&b.Table, "table", "", "which `TABLE` to read, of a trigger that watches several")
	cmd.Flags().StringVar(&b.Where, "where", "", "only rows for which this `SQL` over the table's columns is true")
	cmd.Flags().BoolVar(&b.Restart, "restart", false, "abandon an interrupted backfill, and start from the beginning")
	cmd.Flags().BoolVar(&b.Unthrottled, "no-throttle", false, "do not wait for deliveries")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			ahead, err := operate.PlanBackfill(ctx, conn, args[0], b)
			if err != nil {
				return err
			}
			if err := a.confirm(ctx, yes, backfillQuestion(ahead)); err != nil {
				return err
			}
			var bar *term.Progress
			b.Progress = func(s operate.BackfillStatus) {
				if bar == nil {
					bar = term.NewProgress(a.stderr, "backfilling", s.Expected, false)
				}
				bar.At(s.Scanned, term.Plural(s.Recorded, "event"))
			}
			s, err := operate.Backfill(ctx, conn, args[0], b)
			if bar != nil {
				bar.End()
			}
			if err != nil && s != nil && ctx.Err() != nil {
				return &operate.Error{Kind: operate.ErrBusy, Problem: fmt.Sprintf("interrupted after %s", term.Plural(s.Scanned, "row")), Remedy: "repeat the command to continue"}
			}
			if err != nil {
				return err
			}
			if o.json {
				return a.printJSON(s)
			}
			a.printf("%s of %s read, %s recorded (backfill %d).\n", term.Plural(s.Scanned, "row"), s.Trigger, term.Plural(s.Recorded, "event"), s.ID)
			if s.Buried > 0 {
				a.advise(a.stdout, "%s could not become events, and are dead letters: rowhook events list --state dead --trigger %s --error \"can't be turned into an event\"\n", term.Plural(s.Buried, "row"), s.Trigger)
			}
			return nil
		})
	}
	return cmd
}

func backfillQuestion(ahead *operate.BackfillStatus) string {
	rows := "Record the rows"
	if ahead.Where != "" {
		rows += " where " + ahead.Where
	}
	read := "about " + term.Digits(ahead.Expected) + " to read"
	if ahead.ID != 0 {
		read += ", " + term.Digits(ahead.Scanned) + " of them read before"
	}
	of := "the table of " + ahead.Trigger
	if ahead.Table != "" {
		of = ahead.Table + " for " + ahead.Trigger
	}
	return fmt.Sprintf("%s of %s as events (%s)?", rows, of, read)
}
