package pg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// IsState reports whether an error comes from Postgres and has one of these SQLSTATE codes.
func IsState(err error, states ...string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && slices.Contains(states, pg.Code)
}

// WasRefused reports whether the server answered a statement with an error. Then the statement had
// no effect. After any other error, of the network or of a session that was ended, the statement
// may have been executed.
func WasRefused(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.SeverityUnlocalized == "ERROR"
}

// IsLost reports whether the session of a statement has ended: by the server, which says so with FATAL
// or PANIC, or because the connection broke.
func IsLost(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.SeverityUnlocalized == "FATAL" || pg.SeverityUnlocalized == "PANIC"
	}
	for _, broken := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, broken) {
			return true
		}
	}
	return false
}

// MayPass reports whether the server rejected a statement for a reason that may pass by itself: another
// transaction (a serialization failure, a deadlock, a lock), a lack of resources such as a full disk, an
// operator who canceled it, an input or output error, or a server that takes no writes now. The same
// statement may succeed later.
func MayPass(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	return pgerrcode.IsTransactionRollback(pg.Code) || pgerrcode.IsInsufficientResources(pg.Code) || pgerrcode.IsObjectNotInPrerequisiteState(pg.Code) ||
		pgerrcode.IsOperatorIntervention(pg.Code) || pgerrcode.IsSystemError(pg.Code) || pg.Code == pgerrcode.ReadOnlySQLTransaction
}

// IsData reports whether a statement failed, or may have failed, because of the content of a row.
// Examples are a text that can't be converted into the encoding of the session or the database, a
// value that can't be stored or read, and too large a size or depth of nesting.
//
// What ends a session or keeps one from being opened is not the row's fault, whatever its code is:
// with a full disk a login may fail with an internal error.
func IsData(err error) bool {
	return IsBadData(err) || WasRefused(err) && IsState(err, pgerrcode.OutOfMemory, pgerrcode.InternalError)
}

// IsBadData reports whether IsData holds and trying again does not help.
func IsBadData(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) != 5 || !WasRefused(err) {
		return false
	}
	switch pg.Code[:2] {
	case "22", "54":
		return true
	}
	return pg.Code == pgerrcode.DataCorrupted || pg.Code == pgerrcode.IndexCorrupted
}

// IsUnstorable reports whether a text has characters that the encoding of the database or the
// session does not have.
func IsUnstorable(err error) bool {
	return IsState(err, pgerrcode.UntranslatableCharacter, pgerrcode.CharacterNotInRepertoire)
}

// IsOtherSchema reports whether a statement names a schema, table, column, function or sequence that
// does not exist. Usually the cause is that the schema rowhook was migrated after its version was last
// read.
func IsOtherSchema(err error) bool {
	return IsState(err, pgerrcode.InvalidSchemaName, pgerrcode.UndefinedTable, pgerrcode.UndefinedColumn, pgerrcode.UndefinedFunction, pgerrcode.UndefinedObject)
}

// SchemaVersion returns the version of the schema rowhook.
func SchemaVersion(ctx context.Context, db Queryer) (version int32, err error) {
	if err := db.QueryRow(ctx, "select version from rowhook.schema_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("read the schema version: %w", err)
	}
	return version, nil
}
