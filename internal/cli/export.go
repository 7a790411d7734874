package cli

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

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
file that was applied are not in the database, so they are lost. Triggers are in the order in which they were first applied.

With several sources it is one file for all of them: a trigger that not all have names in for those that have it. The sources
themselves are as in the file of --sources.`,
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
			if a.looksAtSeveral() {
				return a.exportSources(cmd, o, out, force)
			}
			return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
				applied, err := queue.Load(ctx, conn)
				if err != nil {
					return err
				}
				specs := []trigger.Spec{}
				for i := range applied.Triggers {
					specs = append(specs, applied.Triggers[i].Spec)
				}
				return a.writeExport(config.Export{Triggers: specs, Settings: applied.Settings}, o.json, out, force)
			})
		},
	}
	o = a.operating(cmd)
	o.look = true
	cmd.Flags().StringVar(&out, "out", "", "write to this `file`, instead of to standard output")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite the file of --out")
	return cmd
}

// exportSources writes what is applied in all sources as one file, in which for names the sources that
// have a trigger.
func (a *app) exportSources(cmd *cobra.Command, o *operating, out string, force bool) error {
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	all, unread, err := a.sourcesNow(ctx, nil)
	if err := errors.Join(err, unread); err != nil {
		return err
	}
	wide := a.patient(cmd, o)
	applied, failed := make([]queue.Configuration, len(all.Sources)), make([]error, len(all.Sources))
	var reading sync.WaitGroup
	for i, s := range all.Sources {
		reading.Go(func() {
			b, err := a.at(all, s)
			if err == nil {
				err = b.operateOn(ctx, wide, func(ctx context.Context, _ *app, conn *pgx.Conn) (err error) {
					applied[i], err = queue.Load(ctx, conn)
					return err
				})
			}
			if err != nil {
				failed[i] = fmt.Errorf("%s: %w", s.Name, err)
			}
		})
	}
	reading.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	e := config.Export{Sources: all.Sources, Settings: applied[0].Settings}
	for i := range applied {
		if !reflect.DeepEqual(applied[i].Settings, e.Settings) {
			return fmt.Errorf("alerts, network or retention of %s are not those of %s, and one file has one of each: export each by --source", all.Sources[i].Name, all.Sources[0].Name)
		}
		for n := range applied[i].Triggers {
			e.Add(applied[i].Triggers[n].Spec, all.Sources[i].Name)
		}
	}
	return a.writeExport(e, o.json, out, force)
}

// writeExport prints a configuration, or writes it to a file.
func (a *app) writeExport(e config.Export, asJSON bool, out string, force bool) error {
	if asJSON {
		document, err := e.JSON()
		if err != nil {
			return err
		}
		return a.printJSON(document)
	}
	text, err := e.YAML(config.Plain)
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
