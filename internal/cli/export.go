package cli

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

func (a *app) exportCommand() *cobra.Command {
	var out string
	var force bool
	var o *operating
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print what is applied as a rowhook.yaml",
		Long: `Print what is applied in the database as a rowhook.yaml. It applies without a change: "rowhook apply --dry-run" with it has
nothing to do.

Keys that have their default are left out, and what came from defaults stands in each trigger. References such as
${ORDERS_SECRET} are printed as they are stored, so no secret is in it unless it was applied as plain text. Comments of the
file that was applied are not in the database, so they are lost. Triggers are in the order in which they were first applied.`,
		Example: `  rowhook export
  rowhook export --out rowhook.yaml
  rowhook export --json | jq .triggers
  rowhook export | diff rowhook.yaml -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.json && out != "" {
				return usagef("--json prints the document, and --out writes a rowhook.yaml: leave one of them out")
			}
			if err := mayWriteFile(out, force); err != nil {
				return err
			}
			return a.operate(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
				return a.export(ctx, conn, o.json, out, force)
			})
		},
	}
	o = a.operating(cmd)
	o.look = true
	cmd.Flags().StringVar(&out, "out", "", "write to this `file`, instead of to standard output")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite the file of --out")
	return cmd
}

func (a *app) export(ctx context.Context, conn *pgx.Conn, asJSON bool, out string, force bool) error {
	applied, err := queue.Load(ctx, conn)
	if err != nil {
		return err
	}
	specs := []trigger.Spec{}
	for i := range applied.Triggers {
		specs = append(specs, applied.Triggers[i].Spec)
	}
	if asJSON {
		document, err := config.WriteJSON(specs, applied.Settings)
		if err != nil {
			return err
		}
		return a.printJSON(document)
	}
	text, err := config.WriteAll(specs, applied.Settings, config.Plain)
	if err != nil {
		return err
	}
	if out != "" {
		if err := writeNewFile(out, text, force); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.stdout, "Wrote %s, with what is applied.\n", out)
		return err
	}
	_, err = a.stdout.Write(text)
	return err
}
