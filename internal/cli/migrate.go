package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/sqlschema"
)

func (a *app) migrateCommand() *cobra.Command {
	to, yes, wait := int32(0), false, defaultConnectTimeout
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Migrate the schema rowhook to the version of this program, or to another",
		Long: `Migrate the schema rowhook to the version of this program, as apply does, but without a configuration. With --to it
migrates up or down to another version that this program knows. Dispatchers may run meanwhile: deliveries go on.

With several sources it migrates all of them, or that of --source.

A migration down asks first, and drops what the newer version added. Waiting events, dead letters and the history stay.`,
		Example: `  rowhook migrate
  rowhook migrate --to 1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given := cmd.Flags().Changed("to")
			all, unread, err := a.sourcesNow(cmd.Context(), nil)
			if err != nil {
				return err
			}
			if all == nil {
				return a.migrate(cmd.Context(), to, given, yes, wait)
			}
			sources, err := a.chosen(all)
			if err != nil {
				return withUnread(err, unread)
			}
			if given && !yes && len(sources) > 1 {
				return usagef("--to may lead down, and asks then: add --yes to migrate all of %s, or --source", config.Names(config.SourceNames(sources)))
			}
			return withUnread(a.over(cmd.Context(), all, sources, false, func(ctx context.Context, a *app) error { return a.migrate(ctx, to, given, yes, wait) }), unread)
		},
	}
	s := flagSet{cmd.Flags()}
	s.connectTimeout(&wait)
	s.allowPublication(&a.migrator.AllowPublication)
	cmd.Flags().Int32Var(&to, "to", 0, "schema `version` to migrate to (default: the newest that this program knows)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask before a migration down")
	return cmd
}

func (a *app) migrate(ctx context.Context, to int32, given, yes bool, wait time.Duration) error {
	conn, target, err := a.open(ctx, wait)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	have, newest, err := sqlschema.Version(ctx, conn)
	var incomplete *sqlschema.IncompleteError
	switch {
	case err != nil && !errors.As(err, &incomplete):
		return explain(err)
	case given && (to < 1 || to > newest):
		return usagef("--to %d: this program knows the schema versions 1 to %d; to remove the schema use \"rowhook uninstall\"", to, newest)
	case given && to < have:
		err := a.confirm(ctx, yes, fmt.Sprintf("Migrate down from schema version %d to %d, and drop what the newer version added?", have, to))
		if err != nil {
			return err
		}
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	if given {
		err = sqlschema.MigrateTo(ctx, conn, to, a.log)
	} else {
		err = a.migrator.Migrate(ctx, conn, a.log)
	}
	if err != nil {
		return explain(err)
	}
	now, _, err := sqlschema.Version(ctx, conn)
	if err != nil {
		return explain(err)
	}
	if now == have && incomplete == nil {
		_, err = fmt.Fprintf(a.stdout, "Nothing to do: the schema rowhook of the database %q is at version %d.\n", target.database(), now)
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "The schema rowhook of the database %q is at version %d.\n", target.database(), now)
	return err
}
