package queue

import (
	"context"
	"fmt"

	"github.com/rowhook/rowhook/internal/pg"
)

// execute runs a statement that returns nothing of interest. what says what it does, for the error.
func execute(ctx context.Context, db pg.Queryer, what, sql string, args ...any) error {
	rows, err := db.Query(ctx, sql, args...)
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// unflushed is a condition that is always true. Its statement's transaction does not wait at its end
// until the disk has it. That is for what may be lost when the server crashes: a claim, whose events are
// then due again, a sign of life, and what dispatchers tell each other, who all connect anew.
const unflushed = "pg_catalog.set_config('synchronous_commit', 'off', true) = 'off'"
