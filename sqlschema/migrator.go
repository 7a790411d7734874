package sqlschema

import (
	"archive/zip"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// packed has the files of the directory migrations, compressed: the program has a limit.
// TestTheProgramHasTheMigrations makes it.
//
//go:embed migrations.zip
var packed string

// migrations returns the files of migrations, by their names.
var migrations = sync.OnceValues(func() (fs.FS, error) {
	files, err := zip.NewReader(strings.NewReader(packed), int64(len(packed)))
	if err != nil {
		return nil, fmt.Errorf("open the embedded migrations: %w", err)
	}
	return files, nil
})

// migration is a file of migrations. Its way up leads from the version before to its own, and its
// way down back.
type migration struct {
	version  int32
	file     string
	up, down script
}

// script is one half of a file.
type script struct {
	sql  string
	line int // the line of the file on which it begins
}

// dropBelow is the line between the ways up and down.
const dropBelow = "---- create above / drop below ----\n"

// readMigrations reads files that are numbered from 001.
func readMigrations(from fs.FS) ([]migration, error) {
	files, err := fs.Glob(from, "*.sql") // in the order of their names
	if err != nil {
		return nil, fmt.Errorf("list the migrations: %w", err)
	}
	var all []migration
	for i, file := range files {
		if !strings.HasPrefix(file, fmt.Sprintf("%03d_", i+1)) {
			return nil, fmt.Errorf("the name of migration %d must begin with %03[1]d_, and it is %s", i+1, file)
		}
		text, err := fs.ReadFile(from, file)
		if err != nil {
			return nil, fmt.Errorf("read a migration: %w", err)
		}
		up, down, _ := strings.Cut(string(text), dropBelow)
		all = append(all, migration{version: int32(i + 1), file: file, up: script{up, 1}, down: script{down, 2 + strings.Count(up, "\n")}})
	}
	return all, nil
}

// ternLock is the key of the advisory lock under which the version is changed. It is that of tern,
// which earlier programs migrate with.
const ternLock = 9628173550095224

// migrator changes the version of the schema, in a pinned session.
type migrator struct {
	conn       *pgx.Conn
	migrations []migration
	started    func(m migration, direction string) // is called as a migration begins
}

// prepare makes the table that holds the version, as tern makes it. A dump without constraints
// lacks its key.
func (m *migrator) prepare(ctx context.Context) error {
	return locked(ctx, m.conn, ternLock, func() error {
		var exists, hasKey bool
		err := m.conn.QueryRow(ctx, `
select count(*) > 0, coalesce(bool_or(exists (select from pg_constraint p where p.conrelid = c.oid and p.contype = 'p')), false)
  from pg_class c where c.relnamespace = 'rowhook'::regnamespace and c.relname = 'schema_version'`).Scan(&exists, &hasKey)
		switch {
		case err != nil || hasKey:
			return err
		case exists:
			_, err = m.conn.Exec(ctx, "alter table rowhook.schema_version add primary key (version)")
		default:
			_, err = m.conn.Exec(ctx, "create table rowhook.schema_version (version integer not null primary key); insert into rowhook.schema_version (version) values (0)")
		}
		return err
	})
}

// version returns the version of the schema. 0 is an empty one.
func (m *migrator) version(ctx context.Context) (v int32, err error) {
	err = m.conn.QueryRow(ctx, "select version from rowhook.schema_version").Scan(&v)
	return v, err
}

// to brings the schema to a version, each step in a transaction of its own. If one fails, the
// schema stays at the version that the steps before it have reached.
func (m *migrator) to(ctx context.Context, want int32) error {
	return locked(ctx, m.conn, ternLock, func() error {
		have, err := m.version(ctx)
		if err != nil {
			return err
		}
		if newest := int32(len(m.migrations)); min(have, want) < 0 || max(have, want) > newest {
			return fmt.Errorf("no way leads from version %d to %d: the migrations are for versions up to %d", have, want, newest)
		}
		for ; have < want; have++ {
			step := m.migrations[have]
			if err := m.run(ctx, step, "up", step.up, have+1); err != nil {
				return err
			}
		}
		for ; have > want; have-- {
			step := m.migrations[have-1]
			if err := m.run(ctx, step, "down", step.down, have-1); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *migrator) run(ctx context.Context, step migration, direction string, way script, version int32) error {
	return pgx.BeginFunc(ctx, m.conn, func(tx pgx.Tx) error {
		m.started(step, direction)
		// Later statements on a table wait behind one that waits for its lock.
		if _, err := tx.Exec(ctx, fmt.Sprintf("set local lock_timeout = '%dms'", DefaultLockTimeout.Milliseconds())); err != nil {
			return fmt.Errorf("set lock_timeout: %w", err)
		}
		if _, err := tx.Exec(ctx, way.sql); err != nil {
			return way.locate(step.file, err)
		}
		_, err := tx.Exec(ctx, "update rowhook.schema_version set version = $1", version)
		return err
	})
}

// locate adds to an error where in the file it is, as far as the server says.
func (s script) locate(file string, err error) error {
	var failed *pgconn.PgError
	if errors.As(err, &failed) && failed.Position > 0 {
		before := s.sql
		for n := 1; n < int(failed.Position) && before != ""; n++ {
			_, size := utf8.DecodeRuneInString(before)
			before = before[size:]
		}
		file = fmt.Sprintf("%s:%d", file, s.line+strings.Count(s.sql[:len(s.sql)-len(before)], "\n"))
	}
	return fmt.Errorf("%s: %w", file, err)
}
