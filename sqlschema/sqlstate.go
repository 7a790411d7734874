package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// IsOtherSchema reports that a statement names a table, column, function or sequence that is not there: as a rule the schema rowhook was
// migrated since its version was last read.
func IsOtherSchema(err error) bool {
	return IsState(err, "42P01", "42703", "42883", "42704")
}

// SchemaVersion reads the version of the schema rowhook.
func SchemaVersion(ctx context.Context, db Queryer) (version int32, err error) {
	if err := db.QueryRow(ctx, "select version from rowhook.schema_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("read the schema version: %w", err)
	}
	return version, nil
}
