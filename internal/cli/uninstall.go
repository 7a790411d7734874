package cli

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
)

func (a *app) uninstallCommand() *cobra.Command {
	yes, cascade, wait := false, false, defaultConnectTimeout
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove everything that Rowhook created in the database",
		Long: `Remove every trigger, function and table that Rowhook created in the database. The command first prints what is lost,
and asks.

The watched tables and their rows stay as they are. Stop the dispatchers first. Waiting events, dead letters, and the
history of deliveries and attempts can't be restored.

If objects of your own depend on Rowhook's, such as a view on rowhook.events or a default of rowhook.uuid7(), the command
names them and removes nothing. --cascade drops them, too.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.uninstall(cmd.Context(), yes, cascade, wait)
		},
	}
	s := flagSet{cmd.Flags()}
	s.connectTimeout(&wait)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&cascade, "cascade", false, "also drop your own objects that depend on Rowhook's: views, functions, defaults, foreign keys")
	return cmd
}

func (a *app) uninstall(ctx context.Context, yes, cascade bool, wait time.Duration) error {
	conn, target, err := a.open(ctx, wait)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := pg.Pin(ctx, conn); err != nil {
		return explain(err)
	}
	var exists bool
	if err := conn.QueryRow(ctx, "select to_regnamespace('rowhook') is not null").Scan(&exists); err != nil {
		return explain(fmt.Errorf("look for the schema rowhook: %w", err))
	}
	if !exists {
		_, err := fmt.Fprintf(a.stdout, "Nothing to do: the database %q has no schema rowhook.\n", target.database())
		return err
	}
	loss, err := sqlschema.UninstallSummary(ctx, conn)
	if err != nil {
		return explain(err)
	}
	fmt.Fprintf(a.stdout, "This removes from the database %q at %s:\n  %s\n", target.database(), target.address(),
		strings.ReplaceAll(loss.String(), "\n", "\n  "))
	if watch, err := queue.ReadWatch(ctx, conn); err == nil && len(watch.Alive) > 0 {
		fmt.Fprintf(a.stdout, "Dispatchers that still run: %d. Stop them first; without the queue they only log errors.\n", len(watch.Alive))
	}
	if len(loss.Dependants) > 0 && !cascade {
		return explain(&sqlschema.DependantsError{Dependants: loss.Dependants})
	}
	if err := a.confirm(ctx, yes, "Remove all this?"); err != nil {
		return err
	}
	ctx, stop := interruptible(ctx) // after the question, at which Ctrl-C ends the program
	defer stop()
	a.log = a.logger(max(a.global.level, slog.LevelWarn))
	if err := (sqlschema.Applier{Cascade: cascade}).Uninstall(ctx, conn, a.log); err != nil {
		return explain(err)
	}
	_, err = fmt.Fprintln(a.stdout, "Removed. The watched tables are unchanged.")
	return err
}
