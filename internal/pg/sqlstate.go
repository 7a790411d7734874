package pg

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// IsState reports that an error comes from Postgres, with one of these SQLSTATE codes.
func IsState(err error, states ...string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && slices.Contains(states, pg.Code)
}

// WasRefused reports that the server answered a statement with an error, and so did nothing of it. After any other error, of the network or of
// a session that was ended, it may have.
func WasRefused(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.SeverityUnlocalized == "ERROR"
}

// IsData reports that a statement failed, or may have, for what is in a row that it read or wrote: a text that can't be converted into the
// encoding of the session or the database, a value that can't be stored or read, a size, a nesting.
func IsData(err error) bool {
	return IsBadData(err) || IsState(err, pgerrcode.OutOfMemory, pgerrcode.InternalError)
}

// IsBadData is IsData, and trying again does not help.
func IsBadData(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) != 5 {
		return false
	}
	switch pg.Code[:2] {
	case "22", "54":
		return true
	}
	return pg.Code == pgerrcode.DataCorrupted || pg.Code == pgerrcode.IndexCorrupted
}

// IsUnstorable reports that a text has characters that the encoding of the database, or of the session, has not.
func IsUnstorable(err error) bool {
	return IsState(err, pgerrcode.UntranslatableCharacter, pgerrcode.CharacterNotInRepertoire)
}

// IsOtherSchema reports that a statement names a table, column, function or sequence that is not there: as a rule the schema rowhook was
// migrated since its version was last read.
func IsOtherSchema(err error) bool {
	return IsState(err, pgerrcode.UndefinedTable, pgerrcode.UndefinedColumn, pgerrcode.UndefinedFunction, pgerrcode.UndefinedObject)
}

// SchemaVersion reads the version of the schema rowhook.
func SchemaVersion(ctx context.Context, db Queryer) (version int32, err error) {
	if err := db.QueryRow(ctx, "select version from rowhook.schema_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("read the schema version: %w", err)
	}
	return version, nil
}
