package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/starter"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// starting are the flags of init.
type starting struct {
	file   string
	tables []string
	force  bool
	wait   time.Duration
}

func (a *app) initCommand() *cobra.Command {
	o := starting{file: defaultFile, wait: defaultConnectTimeout}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a commented rowhook.yaml to start from",
		Long: `Write a commented rowhook.yaml to start from.

With --table it reads the table from the database, and writes a trigger with the names of its columns. The file is valid
then: "rowhook apply" accepts it as it is. Without --table no database is needed, and the trigger is an example.

An existing file is not overwritten unless --force is given. Nothing is changed in the database.`,
		Example: `  rowhook init
  rowhook init --table public.orders --table 'billing."Order Items"'
  rowhook init --table orders -f - | less`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.initialize(ctx, o)
		},
	}
	s := flagSet{cmd.Flags()}
	s.file(&o.file, "`file` to write, or - for standard output")
	s.connectTimeout(&o.wait)
	cmd.Flags().StringArrayVar(&o.tables, "table", nil, "write a trigger for this `table` of the database, named as in SQL; repeat it for several")
	cmd.Flags().BoolVar(&o.force, "force", false, "overwrite an existing file")
	return cmd
}

func (a *app) initialize(ctx context.Context, o starting) error {
	if err := o.mayWrite(); err != nil {
		return err
	}
	tables, notes := []sqlschema.Table{starter.Sample()}, []string(nil)
	if len(o.tables) > 0 {
		var err error
		if tables, notes, err = a.readTables(ctx, o); err != nil {
			return err
		}
	}
	text := starter.Write(tables)
	if o.file == standardInput {
		_, err := a.stdout.Write(text)
		a.showNotes(notes)
		return err
	}
	if err := o.write(text); err != nil {
		return err
	}
	a.printf("%s\n\n%s", o.wrote(tables), o.nextSteps())
	a.showNotes(notes)
	return nil
}

func (a *app) showNotes(notes []string) {
	for _, note := range notes {
		a.log.Warn(note)
	}
}

// mayWrite returns an error if the file can't be written, before the database is asked.
func (o starting) mayWrite() error {
	if o.file == standardInput {
		return nil
	}
	if o.file == "" {
		return usagef("-f names no file: give it the file to write, or - for standard output")
	}
	info, err := os.Lstat(o.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return cantWrite(err)
	case isDirectory(o.file):
		return usagef("%s is a directory: give -f the file to write, such as %s", o.file, filepath.Join(o.file, defaultFile))
	case !o.force && info != nil:
		return o.exists()
	}
	return nil
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (o starting) exists() error {
	return usagef("%s exists already: give -f another file, - to print it, or --force to overwrite it", o.file)
}

func (o starting) write(text []byte) error {
	how := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if o.force {
		how = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(o.file, how, 0o644) //nolint:gosec // it has no secret, and a dispatcher may run as another user
	switch {
	case errors.Is(err, fs.ErrExist):
		return o.exists()
	case errors.Is(err, fs.ErrNotExist) && !isDirectory(filepath.Dir(o.file)):
		return fmt.Errorf("can't write %s: there is no directory %s; make it first, or correct the path", o.file, filepath.Dir(o.file))
	case err != nil:
		return cantWrite(err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return cantWrite(err)
	}
	return nil
}

func cantWrite(err error) error {
	return fmt.Errorf("can't write the file: %w; check the path, its rights and the space on its disk", err)
}

// readTables reads the tables of --table. notes are what the user should know before an apply.
func (a *app) readTables(ctx context.Context, o starting) (tables []sqlschema.Table, notes []string, err error) {
	conn, target, err := a.open(ctx, o.wait)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	names := o.tables
	found, err := sqlschema.FindTables(ctx, conn, names)
	if err == nil {
		names = nil
		for i := range found {
			if !slices.ContainsFunc(tables, func(t sqlschema.Table) bool { return t.Name == found[i].Name }) {
				tables, names = append(tables, found[i]), append(names, found[i].Name)
			}
		}
		notes, err = foresee(ctx, conn, tables, target.database())
	}
	var faults trigger.SpecErrors
	switch {
	case ctx.Err() != nil:
		return nil, nil, errors.New("interrupted: nothing was written")
	case errors.As(err, &faults):
		return nil, nil, tableFaults(faults, names)
	case err != nil:
		return nil, nil, explain(err)
	}
	return tables, notes, nil
}

// tableFaults says what is wrong with the tables of --table.
func tableFaults(faults trigger.SpecErrors, names []string) error {
	lines := make([]string, len(faults))
	for i, f := range faults {
		name := names[f.Index]
		if name == "" {
			name = `""`
		}
		lines[i] = "--table " + name + ": " + f.Message
	}
	return usagef("%s", strings.Join(lines, "\n"))
}

// foresee plans an apply of the file. It returns what would not go as the user of a new file
// expects: that it removes or changes triggers, or that this role may not apply it. A fault of a
// table is an error.
func foresee(ctx context.Context, conn *pgx.Conn, tables []sqlschema.Table, database string) (notes []string, err error) {
	cfg, err := config.Parse(defaultFile, starter.Write(tables))
	if err != nil {
		return nil, fmt.Errorf("the file for these tables would not be valid, which is a fault of rowhook: %w", err)
	}
	plan, err := sqlschema.MakePlan(ctx, conn, cfg.Triggers, cfg.Settings)
	var faults trigger.SpecErrors
	switch {
	case errors.As(err, &faults), ctx.Err() != nil:
		return nil, err
	case err != nil:
		return []string{"\"rowhook apply\" as this role fails: " + explain(err).Error()}, nil
	}
	var removed, changed []string
	for _, c := range plan.Changes() {
		switch {
		case c.Object == "trigger" && c.Action == sqlschema.Remove:
			removed = append(removed, c.Name)
		case c.Object == "trigger" && c.Action == sqlschema.Replace:
			changed = append(changed, c.Name)
		}
	}
	if len(removed) > 0 {
		notes = append(notes, fmt.Sprintf("the database %q has triggers that this file does not have, and \"rowhook apply\" removes them: %s; copy their entries into the file",
			database, config.Names(removed)))
	}
	if len(changed) > 0 {
		notes = append(notes, fmt.Sprintf("the database %q has triggers with names of this file, and \"rowhook apply\" changes them: %s; choose other names, or keep their entries",
			database, config.Names(changed)))
	}
	return append(notes, plan.Warnings...), nil
}

func (o starting) wrote(tables []sqlschema.Table) string {
	if len(o.tables) == 0 {
		return fmt.Sprintf("Wrote %s, with an example of a trigger. Write the names of your table and its columns into it.", o.file)
	}
	names := make([]string, len(tables))
	for i := range tables {
		names[i] = tables[i].Name
	}
	many := map[bool]string{true: "s"}[len(tables) > 1]
	return fmt.Sprintf("Wrote %s, with a trigger on the table%s %s.", o.file, many, config.Names(names))
}

// nextSteps lists the commands that come next, ready to be copied.
func (o starting) nextSteps() string {
	file := ""
	if o.file != defaultFile {
		file = " -f " + shellWord(o.file)
	}
	devFile := " -f " + shellWord(o.file)
	return strings.Join([]string{
		"Next:",
		"  rowhook check" + file,
		"  rowhook dev" + devFile + " --init schema.sql --sink    # try it on a private Postgres; schema.sql creates your tables",
		"  rowhook apply" + file + " --dry-run",
		"  rowhook apply" + file,
		"  " + starter.URLVariable + "=https://example.com/hooks rowhook run",
		"",
	}, "\n")
}

var shellSafe = regexp.MustCompile(`^[A-Za-z0-9_./@%+=:,-]+$`)

// shellWord quotes a word for a POSIX shell.
func shellWord(s string) string {
	if shellSafe.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
