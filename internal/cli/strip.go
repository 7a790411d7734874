package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/dumpstrip"
	"github.com/rowhook/rowhook/internal/term"
)

func (a *app) stripCommand() *cobra.Command {
	inPlace := false
	cmd := &cobra.Command{
		Use:   "strip [FILE]",
		Short: "Remove Rowhook's objects from a dump",
		Long: `Remove Rowhook's objects from a plain-text dump of pg_dump: the schema rowhook, the capture triggers, and their rights
and publications. The rest stays byte for byte. The command reads FILE or standard input, and writes to standard output.
It connects to no database.

A schema under version control then does not change each day and with each version of Rowhook, and loads into databases
without Rowhook. "rowhook apply" creates the objects there again. Objects of your own that refer to Rowhook, such as a view
on rowhook.events, stay, and are listed on standard error.`,
		Example: `  pg_dump --schema-only shop | rowhook strip > db/schema.sql
  rowhook strip --in-place db/structure.sql
  pg_restore -f - shop.dump | rowhook strip | psql copy`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file := ""
			if len(args) > 0 && args[0] != "-" {
				file = args[0]
			}
			return a.strip(file, inPlace)
		},
	}
	cmd.Flags().BoolVarP(&inPlace, "in-place", "i", false, "write the result to FILE")
	return cmd
}

func (a *app) strip(file string, inPlace bool) (err error) {
	if inPlace && file == "" {
		return usagef("--in-place needs FILE: name the dump to change")
	}
	in := a.stdin
	if file == "" && term.IsTerminal(a.stdin) {
		return usagef("no dump: name a FILE, or pipe one in, such as with \"pg_dump shop | rowhook strip\"")
	}
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("read the dump: %w", err)
		}
		defer f.Close()
		in = f
	}
	var report dumpstrip.Report
	if inPlace {
		report, err = stripInto(file, in)
	} else {
		report, err = dumpstrip.Strip(a.stdout, in)
	}
	if err != nil {
		return err
	}
	for _, d := range report.Depending {
		a.log.Warn("kept a statement of your own that refers to Rowhook: it loads only where Rowhook is installed", "statement", d)
	}
	if report.Removed == 0 {
		a.log.Info("the dump has no objects of Rowhook")
	}
	return nil
}

// stripInto writes to a new file, and renames it to the old name when it is complete.
func stripInto(name string, in io.Reader) (report dumpstrip.Report, err error) {
	if name, err = filepath.EvalSymlinks(name); err != nil {
		return report, fmt.Errorf("find the dump: %w", err)
	}
	info, err := os.Stat(name)
	if err != nil {
		return report, fmt.Errorf("find the dump: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return report, fmt.Errorf("write the dump: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	report, err = dumpstrip.Strip(f, in)
	if err == nil {
		err = f.Chmod(info.Mode().Perm())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return report, err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return report, fmt.Errorf("write the dump: %w", err)
	}
	return report, nil
}
