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
		Short: "Take what is Rowhook's out of a dump",
		Long: `Take what is Rowhook's out of a dump in plain text, as pg_dump writes it: the schema rowhook, the capture triggers, and
rights and publications of these. The rest stays as it is, byte by byte. It reads FILE, or standard input, and writes to standard
output; no database is asked.

A schema that is kept in version control then does not change with every day and version of Rowhook, and loads where Rowhook is not
installed. There, "rowhook apply" puts everything back. What refers to Rowhook and is your own, such as a view on rowhook.events,
stays, and is named on standard error.`,
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
	cmd.Flags().BoolVarP(&inPlace, "in-place", "i", false, "write the result back to FILE")
	return cmd
}

func (a *app) strip(file string, inPlace bool) (err error) {
	if inPlace && file == "" {
		return usagef("--in-place needs the FILE that is to be changed")
	}
	in := a.stdin
	if file == "" && term.IsTerminal(a.stdin) {
		return usagef("there is no dump: name a FILE, or pipe one in, as by \"pg_dump shop | rowhook strip\"")
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
		a.log.Warn("this refers to Rowhook and is not Rowhook's own, so it stays: it can be loaded only where Rowhook is installed", "statement", d)
	}
	if report.Removed == 0 {
		a.log.Info("nothing in the dump is Rowhook's")
	}
	return nil
}

// stripInto writes to a new file, which takes the place of the old one only when it is whole.
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
