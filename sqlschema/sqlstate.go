package sqlschema

import (
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// IsState reports that an error comes from Postgres, with one of these SQLSTATE codes.
func IsState(err error, states ...string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && slices.Contains(states, pg.Code)
}
