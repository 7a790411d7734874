// Package sandbox is what an installation for trying out and for tests consists of, beyond the parts
// of a real one: SQL files that make the tables, and triggers that send to the built-in receiver.
package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/session"
)

// Script is SQL that makes tables.
type Script struct {
	File string // its name in messages
	Text string
}

// ScriptError is an error of Postgres at a place of a script. The remedy is to correct the script.
type ScriptError struct{ text string }

func (e *ScriptError) Error() string { return e.text }

// ReadScripts reads SQL files in the order of paths. A directory stands for its files whose names
// end in .sql, in the order of their names.
func ReadScripts(paths ...string) ([]Script, error) {
	var all []Script
	for _, path := range paths {
		files, err := scriptFiles(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read the SQL file: %w", err)
			}
			text = bytes.TrimPrefix(text, []byte("\uFEFF")) // some editors begin a file with this mark
			all = append(all, Script{File: file, Text: string(text)})
		}
	}
	return all, nil
}

func scriptFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the SQL file %s does not exist; check the path", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the SQL file: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("read the directory of SQL files: %w", err)
	}
	var files []string
	for _, entry := range entries {
		if !entry.IsDir() && strings.EqualFold(filepath.Ext(entry.Name()), ".sql") {
			files = append(files, filepath.Join(path, entry.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the directory %s has no file whose name ends in .sql; name the files, or their directory", path)
	}
	slices.Sort(files)
	return files, nil
}

// RunScripts runs the scripts one after another in the database. Each has a session of its own, so
// that what it sets for its session, such as search_path, stays there. A script is one transaction,
// unless it has transactions of its own.
func RunScripts(ctx context.Context, databaseURL string, scripts ...Script) error {
	for _, s := range scripts {
		if err := s.run(ctx, databaseURL); err != nil {
			return err
		}
	}
	return nil
}

func (s Script) run(ctx context.Context, databaseURL string) error {
	conn, err := session.Open(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.PgConn().Exec(ctx, s.Text).ReadAll()
	var pg *pgconn.PgError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &pg):
		return &ScriptError{s.explain(pg)}
	case err != nil:
		return fmt.Errorf("run %s: %w", s.File, err)
	case conn.PgConn().TxStatus() != 'I':
		return &ScriptError{s.File + ": the script begins a transaction and does not end it; add commit at its end"}
	}
	return nil
}

// explain adds the line of the script and a remedy to an error of Postgres.
func (s Script) explain(pg *pgconn.PgError) string {
	where := s.File
	if text := []rune(s.Text); pg.Position > 0 && int(pg.Position) <= len(text) {
		where = fmt.Sprintf("%s:%d", s.File, 1+strings.Count(string(text[:pg.Position-1]), "\n"))
	}
	hint := ""
	switch {
	case pg.Code == pgerrcode.SyntaxError && strings.Contains(s.Text, "\\"):
		hint = "; commands of psql, such as \\copy or \\connect, are not SQL and don't work here"
	case pg.Code == pgerrcode.ActiveSQLTransaction:
		hint = "; the statements of a file are one transaction, so give this statement a file of its own"
	case pg.Code == pgerrcode.QueryCanceled && strings.Contains(strings.ToLower(pg.Message), "copy from stdin"):
		hint = "; the data of COPY ... FROM STDIN can't be read from a file here: have pg_dump write --inserts"
	}
	return fmt.Sprintf("%s: %s (SQLSTATE %s)%s", where, pg.Message, pg.Code, hint)
}
