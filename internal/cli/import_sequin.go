package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/importer/sequin"
)

func (a *app) importSequinCommand() *cobra.Command {
	var o importing
	var from sequin.Options
	cmd := &cobra.Command{
		Use:   "sequin FILE|-",
		Short: "Write a rowhook.yaml from the webhook sinks of Sequin",
		Long: `Write a rowhook.yaml from the webhook sinks of Sequin. FILE is its YAML, as sequin config export writes it or sequin config
apply reads it. - is standard input. No database is needed, and nothing is changed.

A sink becomes a trigger for each of its actions, as its messages name the action and the row in other places. The body that
Sequin sends is rebuilt by a template as far as it goes. Functions that are one expression become a condition, a body or a
request; others are named, as are sinks that do not go to a webhook. The configuration goes to standard output, with a comment where something differs, and the report to standard error.
Secrets become variables; their values are in neither. docs/sequin.md has each setting.`,
		Example: `  rowhook import sequin sequin.yaml --out rowhook.yaml
  sequin config export | rowhook import sequin - --report import.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.runImport(o, func() (*importer.Import, error) {
				if args[0] == standardInput {
					return sequin.Read("<stdin>", a.stdin, from)
				}
				f, err := openImported(args[0])
				if err != nil {
					return nil, &usageError{err}
				}
				defer f.Close()
				return sequin.Read(args[0], f, from)
			}, func(err error) bool {
				return errors.As(err, new(*usageError)) || errors.As(err, new(*sequin.FaultError))
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&from.Database, "source", "", "import the sinks of the database with this `name`; without it, those of all")
	return cmd
}
