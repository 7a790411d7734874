package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// MinServerVersion is the oldest server_version_num that Rowhook works with. BEGIN ATOMIC functions
// and CREATE OR REPLACE TRIGGER came with PostgreSQL 14.
const MinServerVersion = 140000

// lockKey is the key of the advisory lock under which the schema and triggers are changed. The
// bytes spell "rowhook".
const lockKey = 0x726f77686f6f6b

// OldestSchema is the oldest schema version with which this program's dispatchers work.
const OldestSchema = 7

// NewerSchemaError says that a newer Rowhook migrated the database, and that this program can't
// work with its schema.
type NewerSchemaError struct {
	Database, Program int32 // schema versions
}

// Error names both versions and says what to do.
func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("the database's schema rowhook is at version %d, but this program knows versions up to %d: "+
		"a newer Rowhook migrated it; use that version or a later one, or go back with its \"rowhook migrate --to %d\"", e.Database, e.Program, e.Program)
}

// NotInstalledError says that the schema rowhook is missing, or too old for this program.
type NotInstalledError struct {
	Database int32 // version of the schema; 0: it is missing
	Program  int32 // version that the program needs
}

// Error says which command to run.
func (e *NotInstalledError) Error() string {
	if e.Database == 0 {
		return "the schema rowhook is not installed in this database: run \"rowhook apply\" first"
	}
	return fmt.Sprintf("the schema rowhook is at version %d, and this program needs %d: run \"rowhook migrate\" of this version first", e.Database, e.Program)
}

// Compatible reports whether this program's dispatchers can work with the schema of the database.
// They can from OldestSchema to the program's own version. They can work with a newer schema if its
// setting compatible names a version that the program has. Otherwise err is a *NotInstalledError or
// a *NewerSchemaError. database and program are the schema versions.
func Compatible(ctx context.Context, conn *pgx.Conn) (database, program int32, err error) {
	database, program, err = Version(ctx, conn)
	switch {
	case err != nil:
		return database, program, err
	case database < OldestSchema:
		return database, program, &NotInstalledError{Database: database, Program: OldestSchema}
	case database > program:
		return database, program, newerIsCompatible(ctx, conn, database, program)
	}
	return database, program, nil
}

// IsUnworkable reports whether an error of Compatible says that this program can't work on the schema
// of the database. Any other error says that this could not be found out.
func IsUnworkable(err error) bool {
	var missing *NotInstalledError
	var newer *NewerSchemaError
	var incomplete *IncompleteError
	return errors.As(err, &missing) || errors.As(err, &newer) || errors.As(err, &incomplete)
}

func newerIsCompatible(ctx context.Context, conn *pgx.Conn, database, program int32) error {
	var compatible bool
	err := conn.QueryRow(ctx, "select coalesce((select (value #>> '{}')::integer <= $1 from rowhook.setting where name = 'compatible'), false)", program).Scan(&compatible)
	if err != nil {
		return fmt.Errorf("read with what the newer schema rowhook is compatible: %w", err)
	}
	if !compatible {
		return &NewerSchemaError{Database: database, Program: program}
	}
	return nil
}

// Migrate brings the schema rowhook to this program's version. Several processes may call it at
// once, and it may be repeated at any time. It leaves a newer schema unchanged if it is compatible.
// Otherwise it returns a *NewerSchemaError. If the server is too old, in recovery or read-only, or
// the role lacks a right, the error says what to do. log may be nil.
func Migrate(ctx context.Context, conn *pgx.Conn, log *slog.Logger) error {
	return Migrator{}.Migrate(ctx, conn, log)
}

// Migrator brings the schema rowhook to this program's version. The zero value works like the
// function Migrate.
type Migrator struct {
	// AllowPublication also installs if a publication would publish Rowhook's tables. Without it
	// that is a *PublishedError, since a subscriber without these tables stops replicating.
	AllowPublication bool
}

// Migrate is the function Migrate with the options of the Migrator.
func (m Migrator) Migrate(ctx context.Context, conn *pgx.Conn, log *slog.Logger) error {
	if err := m.check(ctx, conn); err != nil {
		return err
	}
	return migrateSchema(ctx, conn, 0, log)
}

// check returns why this server can't be migrated.
func (m Migrator) check(ctx context.Context, conn *pgx.Conn) error {
	if _, err := CheckServer(ctx, conn); err != nil {
		return err
	}
	if m.AllowPublication {
		return nil
	}
	return refusePublications(ctx, conn)
}

// MigrateTo brings the schema rowhook to a version from 1 to this program's. On the way down it
// drops the tables that the newer versions added. Dispatchers may run meanwhile. If the schema is
// newer than the program, it returns a *NewerSchemaError, since only the newer program knows the
// way down. log may be nil.
func MigrateTo(ctx context.Context, conn *pgx.Conn, version int32, log *slog.Logger) error {
	_, program, err := Version(ctx, conn)
	var incomplete *IncompleteError
	if err != nil && !errors.As(err, &incomplete) {
		return err
	}
	if version < 1 || version > program {
		return fmt.Errorf("schema version %d does not exist: this program knows 1 to %d", version, program)
	}
	if err := refusePublications(ctx, conn); err != nil {
		return err
	}
	return migrateSchema(ctx, conn, version, log)
}

// migrateSchema migrates to a version. 0 is the newest.
func migrateSchema(ctx context.Context, conn *pgx.Conn, version int32, log *slog.Logger) error {
	log = orSilent(log)
	if _, err := CheckServer(ctx, conn); err != nil {
		return err
	}
	return pinnedAndLocked(ctx, conn, func() error { return migrateTo(ctx, conn, version, log) })
}

// orSilent returns the logger, or one that discards everything if it is nil.
func orSilent(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}

// pinnedAndLocked runs f in a pinned session that holds Rowhook's advisory lock.
func pinnedAndLocked(ctx context.Context, conn *pgx.Conn, f func() error) error {
	return pg.Pinned(ctx, conn, func() error { return locked(ctx, conn, lockKey, f) })
}

// locked runs f while this session holds an advisory lock.
func locked(ctx context.Context, conn *pgx.Conn, key int64, f func() error) (err error) {
	if _, err := conn.Exec(ctx, "select pg_catalog.pg_advisory_lock($1)", key); err != nil {
		return fmt.Errorf("lock the schema rowhook: %w", err)
	}
	defer func() {
		// If ctx was canceled, the session is closed, and the lock is released.
		if _, unlockErr := conn.Exec(context.WithoutCancel(ctx), "select pg_catalog.pg_advisory_unlock($1)", key); err == nil && unlockErr != nil {
			err = fmt.Errorf("unlock the schema rowhook: %w", unlockErr)
		}
	}()
	return f()
}

func migrateTo(ctx context.Context, conn *pgx.Conn, want int32, log *slog.Logger) error {
	var exists bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_catalog.pg_namespace where nspname = 'rowhook')").Scan(&exists); err != nil {
		return fmt.Errorf("look for the schema rowhook: %w", err)
	}
	if !exists {
		if _, err := conn.Exec(ctx, createSchema); err != nil {
			return explainPrivilege(ctx, conn, fmt.Errorf("create schema rowhook: %w", err))
		}
	}
	back, err := actAsOwner(ctx, conn)
	if err != nil {
		return err
	}
	defer back()
	before, err := objects(ctx, conn)
	if err != nil {
		return err
	}
	files, err := migrations()
	if err != nil {
		return err
	}
	known, err := readMigrations(files)
	if err != nil {
		return err
	}
	m := &migrator{conn: conn, migrations: known}
	if err := m.prepare(ctx); err != nil {
		return explainPrivilege(ctx, conn, fmt.Errorf("read the schema version: %w", err))
	}
	unknown, err := makeWhole(ctx, conn, log)
	if err != nil {
		return err
	}
	if err := m.goTo(ctx, want, log); err != nil {
		return err
	}
	if err := revokeNew(ctx, conn, before); err != nil || !unknown {
		return err
	}
	return buryUnknown(ctx, conn, log)
}

// goTo migrates to a version. 0 is the newest.
func (m *migrator) goTo(ctx context.Context, want int32, log *slog.Logger) error {
	conn := m.conn
	have, err := m.version(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	newest := int32(len(m.migrations))
	switch {
	case have > newest && want == 0:
		if err := newerIsCompatible(ctx, conn, have, newest); err != nil {
			return err
		}
		log.Info("the schema rowhook is newer than this program, but compatible, and stays unchanged", "schema", have, "program", newest)
		return nil
	case have > newest:
		return &NewerSchemaError{Database: have, Program: newest}
	case want == 0:
		want = newest
	}
	if have == want {
		return nil
	}
	said := int32(0)
	m.started = func(step migration, direction string) {
		if step.version != said { // not again as it is repeated
			said = step.version
			log.Info("migrating the schema rowhook", "version", step.version, "migration", step.file, "direction", direction)
		}
	}
	if have >= queue.CommitSchema && want < queue.CommitSchema {
		if err := refuseCommit(ctx, conn, want); err != nil {
			return err
		}
	}
	if have >= wholeSchema && want < wholeSchema {
		if err := refuseWhole(ctx, conn, want); err != nil {
			return err
		}
	}
	if have >= queue.OrderedSchema && want < queue.OrderedSchema {
		freed, err := queue.UnparkAll(ctx, conn)
		if err != nil {
			return explainPrivilege(ctx, conn, err)
		}
		if freed > 0 {
			log.Info("events that waited in order are sent as they come", "events", freed)
		}
	}
	if err := m.patiently(ctx, want, log); err != nil {
		return explainPrivilege(ctx, conn, fmt.Errorf("migrate the schema rowhook: %w", err))
	}
	_, err = queue.RecordAudit(ctx, conn, queue.AuditEntry{Action: "migrate", Detail: map[string]any{"from": have, "to": want}})
	return err
}

// actAsOwner makes the session act as the owner of the schema rowhook until back is called, so that
// all objects in the schema have one owner. The owner of a table decides which code its triggers
// run, with the rights of the role that writes to it.
//
// If Rowhook is not installed in the schema yet, the schema must belong to this role: the owner of
// a schema can replace any object in it.
func actAsOwner(ctx context.Context, conn *pgx.Conn) (back func(), err error) {
	var owner, user string
	var maySet, inherits, installed bool
	err = conn.QueryRow(ctx, `
select n.nspowner::pg_catalog.regrole::pg_catalog.text, current_user::pg_catalog.regrole::pg_catalog.text, pg_catalog.pg_has_role(n.nspowner, `+setRole+`), pg_catalog.pg_has_role(n.nspowner, 'USAGE'),
       exists (select from pg_catalog.pg_class where relnamespace = n.oid and relname = 'schema_version')
  from pg_catalog.pg_namespace n where n.nspname = 'rowhook'`).Scan(&owner, &user, &maySet, &inherits, &installed)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the owner of the schema rowhook: %w", err)
	case owner == user:
		return func() {}, nil
	case !installed:
		return nil, fmt.Errorf("there is a schema rowhook that belongs to %s, and Rowhook is not installed in it: the owner of the schema could replace whatever "+
			"is installed there: apply as %[1]s, or drop schema rowhook if it is not needed", owner)
	case !maySet && inherits:
		return nil, fmt.Errorf("the role %s has the rights of %s, who owns the schema rowhook, but may not set its role to it, so objects that it creates there would have another owner: "+
			"grant %[2]s to %[1]s with set true, inherit true", user, owner)
	case !maySet:
		return func() {}, nil // the server rejects what this role may not do
	}
	if _, err := conn.Exec(ctx, "set role "+owner); err != nil {
		return nil, fmt.Errorf("act as the owner of the schema rowhook: %w", err)
	}
	// If it fails, the session is broken, and its next statement fails, too.
	return func() { _, _ = conn.Exec(context.WithoutCancel(ctx), "set role "+user) }, nil
}

// patiently repeats a migration that waits too long for a lock. Later statements on the table would
// wait behind it, so it lets them pass in between.
func (m *migrator) patiently(ctx context.Context, want int32, log *slog.Logger) error {
	return retry.Do(ctx, retry.WithMaxDuration(DefaultPatience, pg.Backoff(DefaultLockTimeout)), func(ctx context.Context) error {
		err := m.to(ctx, want)
		if !isBusy(err) {
			return err
		}
		log.Warn("the schema rowhook is busy, trying again", "error", err)
		return retry.RetryableError(err)
	})
}

// Version returns the schema version of the database, or 0 if none is installed. program is the
// newest version that this program knows. If row level security hides rows of Rowhook's tables from
// the role, the error says so, since such a table looks empty. For a copy of the structure without
// its rows the error is an *IncompleteError.
func Version(ctx context.Context, conn *pgx.Conn) (database, program int32, err error) {
	if program, err = newest(); err != nil {
		return 0, 0, err
	}
	database, err = readVersion(ctx, conn)
	return database, program, err
}

// newest returns the newest version that this program knows.
func newest() (int32, error) {
	files, err := migrations()
	if err != nil {
		return 0, err
	}
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return 0, fmt.Errorf("list embedded migrations: %w", err)
	}
	return int32(len(entries)), nil
}

// Lag says for people who is behind if the schema rowhook, which is at a version, and this program
// differ: the schema, or the program. "": they don't, or the version is 0.
func Lag(database int32) string {
	program, err := newest()
	switch {
	case err != nil:
		return err.Error()
	case database == 0 || database == program:
		return ""
	case database < program:
		return fmt.Sprintf("the schema rowhook is at version %d, and this program expects %d", database, program)
	}
	return fmt.Sprintf("the schema rowhook is at version %d, and this program knows versions up to %d: it is older than the one that migrated it", database, program)
}

// CheckServer returns the server_version_num of the server. If Rowhook can't work there, the error
// says why: the server is too old, in recovery, or read-only for this role or database.
func CheckServer(ctx context.Context, conn *pgx.Conn) (int, error) {
	var number, version, readOnly string
	var recovery bool
	err := conn.QueryRow(ctx, "select pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('server_version'), "+
		"pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only')").Scan(&number, &version, &recovery, &readOnly)
	if err != nil {
		return 0, fmt.Errorf("read the version of the server: %w", err)
	}
	server, err := strconv.Atoi(number)
	switch {
	case err != nil:
		return 0, fmt.Errorf("read server_version_num %q: %w", number, err)
	case server < MinServerVersion:
		return 0, fmt.Errorf("the server is PostgreSQL %s, and Rowhook needs 14 or later: upgrade it", version)
	case recovery:
		return 0, errors.New("the server is in recovery (a standby), and nothing can be written to it: connect to the primary, " +
			"for instance with several hosts and target_session_attrs=read-write in DATABASE_URL")
	case readOnly == "on":
		return 0, errors.New("default_transaction_read_only is on for this database or role, and Rowhook must write: " +
			"turn it off (alter role ... set default_transaction_read_only = off) or use another role")
	}
	return server, nil
}

// explainPrivilege adds to a missing privilege what to do.
func explainPrivilege(ctx context.Context, conn *pgx.Conn, err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != pgerrcode.InsufficientPrivilege {
		return err
	}
	var user, database string
	if qerr := conn.QueryRow(ctx, "select current_user, current_database()").Scan(&user, &database); qerr != nil {
		return err
	}
	return fmt.Errorf("%w: the role %q needs the right to create in the database (grant create on database %s to %s) "+
		"or to own the schema rowhook; or apply as the role that installed Rowhook",
		err, user, pgx.Identifier{database}.Sanitize(), pgx.Identifier{user}.Sanitize())
}
