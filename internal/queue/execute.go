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
