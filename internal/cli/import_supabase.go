package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/importer/supabase"
)

func (a *app) importSupabaseCommand() *cobra.Command {
	var o importing
	wait := defaultConnectTimeout
	cmd := &cobra.Command{
		Use:   "supabase [FILE|DIR|-]...",
		Short: "Write a rowhook.yaml from Supabase's database webhooks",
		Long: `Write a rowhook.yaml from the database webhooks of Supabase: triggers that execute supabase_functions.http_request. Without an
argument they are read from the database, in a read-only transaction. FILE is SQL: a dump (supabase db dump, pg_dump), or a
migration. DIR is a directory of migrations, whose *.sql are read in the order of their names; it may be the project with
supabase/migrations in it. - is standard input. What a later statement replaces, renames, disables or drops is followed.

The body that Supabase sends is rebuilt by a template, and its single attempt and its time-out are kept. Triggers whose
functions call pg_net by themselves are code, and are named. The configuration goes to standard output, with a comment where
something differs, and the report to standard error. Secrets become variables; their values are in neither. Nothing is
changed: docs/supabase.md has each setting, and how to move.`,
		Example: `  rowhook import supabase --out rowhook.yaml
  rowhook import supabase supabase/migrations --out rowhook.yaml --report import.txt
  supabase db dump | rowhook import supabase -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runImport(o, func() (*importer.Import, error) {
				if len(args) == 0 {
					return a.supabaseOfDatabase(cmd.Context(), wait)
				}
				files, err := a.sqlFiles(args)
				if err != nil {
					return nil, &usageError{err}
				}
				return supabase.Import("Supabase's database webhooks ("+importedFrom(args)+")", files), nil
			}, func(err error) bool { return errors.As(err, new(*usageError)) })
		},
	}
	(&flagSet{cmd.Flags()}).connectTimeout(&wait)
	o.flags(cmd)
	return cmd
}

// importedFrom names what is imported, for people.
func importedFrom(args []string) string {
	name := args[0]
	if name == standardInput {
		name = "standard input"
	}
	if len(args) > 1 {
		name += fmt.Sprintf(" and %d more", len(args)-1)
	}
	return name
}

// supabaseOfDatabase reads the webhooks in the database.
func (a *app) supabaseOfDatabase(ctx context.Context, wait time.Duration) (*importer.Import, error) {
	ctx, stop := interruptible(ctx)
	defer stop()
	t, err := a.databaseTarget()
	if err != nil {
		return nil, err
	}
	conn, err := a.connect(ctx, t.throughPooler(), wait)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var files []supabase.File
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		files, err = supabase.Read(ctx, tx)
		return err
	})
	if err != nil {
		return nil, explain(err)
	}
	return supabase.Import(fmt.Sprintf("Supabase's database webhooks (database %q)", t.database()), files), nil
}

// mostSQL is the most that is read of SQL. A dump of a schema has some MB.
const mostSQL = 256 << 20

// sqlFiles reads files of SQL, and those of directories in the order of their names.
func (a *app) sqlFiles(args []string) (files []supabase.File, err error) {
	for _, arg := range args {
		paths := []string{arg}
		if arg != standardInput && isDirectory(arg) {
			if paths, err = sqlIn(arg); err != nil {
				return nil, err
			}
		}
		for _, path := range paths {
			text, name, err := a.readSQL(path)
			if err != nil {
				return nil, err
			}
			files = append(files, supabase.File{Name: name, Text: text})
		}
	}
	return files, nil
}

// sqlIn lists the SQL files of a directory, or of the migrations in it.
func sqlIn(dir string) ([]string, error) {
	for _, within := range []string{".", "migrations", filepath.Join("supabase", "migrations")} {
		paths, err := filepath.Glob(filepath.Join(globEscaped(filepath.Join(dir, within)), "*.sql"))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
		if len(paths) > 0 {
			return paths, nil // sorted
		}
	}
	return nil, fmt.Errorf("%s has no *.sql, nor has a directory migrations or supabase/migrations in it: name the directory of the migrations, or a dump", dir)
}

// globEscaped returns a path that a pattern takes for itself.
func globEscaped(path string) string {
	var out []rune
	for _, r := range path {
		if (r == '*' || r == '?' || r == '[' || r == '\\') && filepath.Separator != '\\' {
			out = append(out, '\\')
		}
		out = append(out, r)
	}
	return string(out)
}

func (a *app) readSQL(path string) (text, name string, err error) {
	from, name := a.stdin, "<stdin>"
	if path != standardInput {
		f, err := openImported(path)
		if err != nil {
			return "", "", err
		}
		defer f.Close()
		from, name = f, path
	}
	raw, err := io.ReadAll(io.LimitReader(from, mostSQL+1))
	switch {
	case err != nil:
		return "", "", fmt.Errorf("read %s: %w", name, err)
	case len(bytes.TrimSpace(raw)) == 0:
		return "", "", fmt.Errorf("%s is empty: name a dump or a migration, or leave it out to read the database", name)
	case len(raw) > mostSQL:
		return "", "", fmt.Errorf("%s is larger than 256 MiB: dump the schema alone (pg_dump --schema-only)", name)
	case len(raw) > 4 && string(raw[:5]) == "PGDMP":
		return "", "", fmt.Errorf("%s is a dump in PostgreSQL's custom format: make SQL of it by pg_restore --schema-only -f -", name)
	case bytes.IndexByte(raw, 0) >= 0:
		return "", "", fmt.Errorf("%s has zero bytes, so it is no SQL in UTF-8: if it is SQL, save it as UTF-8 (> of PowerShell 5 writes UTF-16)", name)
	}
	return string(raw), name, nil
}
