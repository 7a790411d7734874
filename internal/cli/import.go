package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/importer/hasura"
)

func (a *app) importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Write a rowhook.yaml from the configuration of another program",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.importHasuraCommand(), a.importSupabaseCommand(), a.importSequinCommand())
	return cmd
}

// importing are the flags of every import.
type importing struct {
	out, report         string
	force, json, strict bool
}

func (o *importing) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.out, "out", "", "write the configuration to this `file`, instead of to standard output")
	cmd.Flags().BoolVar(&o.force, "force", false, "overwrite the files of --out and --report")
	cmd.Flags().StringVar(&o.report, "report", "", "write the report to this `file`, instead of to standard error")
	cmd.Flags().BoolVar(&o.json, "json", false, "write the report as JSON; its keys stay the same from version to version. Without --report it goes to standard output, with the configuration in it unless --out is given")
	cmd.Flags().BoolVar(&o.strict, "strict", false, "exit with 1 if a trigger or a setting is not carried over; the files are written all the same")
}

func (a *app) importHasuraCommand() *cobra.Command {
	var o importing
	var from hasura.Options
	cmd := &cobra.Command{
		Use:   "hasura DIR|FILE|-",
		Short: "Write a rowhook.yaml from Hasura's metadata",
		Long: `Write a rowhook.yaml from the event triggers of Hasura's metadata. DIR is a directory that "hasura metadata export" writes, of
version 2 or 3. FILE is exported metadata (JSON or YAML), one of the files of a directory, or calls of the metadata API.
- is standard input. Includes are followed, and nothing outside of the directory is read. No database is needed, and
nothing is changed.

The configuration goes to standard output, with a comment where something differs, and the report to standard error. It
names each setting that is not carried over, with its trigger, file and line and with what to do, and the variables to set.
Secrets that stand in the metadata become variables; their values are in neither. Other programs' triggers are not
touched: docs/hasura.md has each setting, and how to move.

A rowhook.yaml is for one database. Of metadata with several sources, the first one of Postgres with event triggers is
imported, and the report names the triggers of the others.`,
		Example: `  rowhook import hasura metadata/ --out rowhook.yaml
  rowhook import hasura metadata/ --source analytics --out analytics.yaml
  hasura metadata export -o json | rowhook import hasura - --out rowhook.yaml --report import.txt
  rowhook import hasura metadata.json --json | jq .report.findings`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.runImport(o, func() (*importer.Import, error) {
				if args[0] == standardInput {
					return hasura.Read("<stdin>", a.stdin, from)
				}
				return hasura.Path(args[0], from)
			}, hasura.IsFault)
		},
	}
	cmd.Flags().StringVar(&from.Source, "source", "", "import the triggers of the source (database) with this `name`")
	o.flags(cmd)
	return cmd
}

// runImport imports, and writes the configuration and the report. isFault tells a mistake in what is
// imported from a failure.
func (a *app) runImport(o importing, read func() (*importer.Import, error), isFault func(error) bool) error {
	for _, file := range []string{o.out, o.report} {
		if err := mayWriteFile(file, o.force); err != nil {
			return err
		}
	}
	if o.out != "" && o.out == o.report {
		return usagef("--out and --report name the same file: give them different ones")
	}
	imp, err := read()
	if err != nil {
		if isFault(err) {
			return &usageError{err}
		}
		return err
	}
	result, err := imp.Finish()
	if err != nil {
		return err
	}
	if err := a.writeImport(o, result); err != nil {
		return err
	}
	if o.strict && result.Report.Lost() > 0 {
		return codeError(exitFailed)
	}
	return nil
}

// openImported opens a file that is to be imported.
func openImported(path string) (*os.File, error) {
	if isDirectory(path) {
		return nil, fmt.Errorf("%s is a directory: name the file in it", path)
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist: correct the path", path)
	case err != nil:
		return nil, fmt.Errorf("%w: check the file and its rights", err)
	}
	return f, nil
}

// imported is the JSON of an import. Its keys are a promise; docs/hasura.md describes them.
type imported struct {
	Configuration string          `json:"configuration,omitempty"`
	Report        importer.Report `json:"report"`
}

func (a *app) writeImport(o importing, result *importer.Result) error {
	var report bytes.Buffer
	toStdout := o.json && o.report == ""
	switch document := (imported{Report: result.Report}); {
	case o.json:
		if toStdout && o.out == "" {
			document.Configuration = string(result.File)
		}
		if err := writeJSON(&report, document); err != nil {
			return err
		}
	default:
		result.Report.Print(&report)
	}
	to := a.stderr
	if toStdout {
		to = a.stdout
	}
	switch {
	case o.out != "":
		if err := writeNewFile(o.out, result.File, o.force); err != nil {
			return err
		}
	case !toStdout:
		if _, err := a.stdout.Write(result.File); err != nil {
			return err
		}
	}
	if o.report != "" {
		return writeNewFile(o.report, report.Bytes(), o.force)
	}
	if _, err := to.Write(report.Bytes()); err != nil {
		return err
	}
	if o.out != "" && !o.json {
		fmt.Fprintf(a.stderr, "\nWrote %s. Next: set the variables, and run rowhook check --env %s, then rowhook apply -f %[2]s --dry-run.\n", o.out, shellWord(o.out))
	}
	return nil
}

// mayWriteFile returns an error if a file of a flag can't be written, before there is work. "" is none.
func mayWriteFile(file string, force bool) error {
	if file == "" {
		return nil
	}
	_, err := os.Lstat(file)
	switch {
	case err != nil && isDirectory(filepath.Dir(file)):
		return nil
	case err != nil:
		return usagef("can't write %s: there is no directory %s; make it first, or correct the path", file, filepath.Dir(file))
	case isDirectory(file):
		return usagef("%s is a directory: give the file to write, such as %s", file, filepath.Join(file, defaultFile))
	case !force:
		return usagef("%s exists already: give another file, or --force to overwrite it", file)
	}
	return nil
}

func writeNewFile(file string, text []byte, force bool) error {
	return starting{file: file, force: force}.write(text)
}
