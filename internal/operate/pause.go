package operate

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/sqlschema"
)

// Pause stops the delivery of triggers on all instances, within about a second; no names: of all. Events go on being
// recorded, attempts in flight end, and it lasts until Resume, across restarts and applies. It returns the names of those that were not
// paused already.
func Pause(ctx context.Context, db DB, names ...string) ([]string, error) {
	return setPaused(ctx, db, true, names)
}

// Resume has paused triggers deliver again; no names: all. It returns the names of those that were paused.
func Resume(ctx context.Context, db DB, names ...string) ([]string, error) {
	return setPaused(ctx, db, false, names)
}

func setPaused(ctx context.Context, db DB, paused bool, names []string) ([]string, error) {
	var changed []string
	err := transact(ctx, db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set local search_path = pg_catalog"); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		ts, err := readTriggers(ctx, tx)
		if err != nil {
			return err
		}
		ids := []int32{}
		for _, name := range names {
			t, err := ts.active(name)
			if err != nil {
				return err
			}
			ids = append(ids, t.ID)
		}
		rows, err := tx.Query(ctx, `
update rowhook.trigger set paused = $1
 where removed_at is null and paused <> $1 and (cardinality($2::integer[]) = 0 or id = any($2)) returning name`, paused, ids)
		if err == nil {
			changed, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			return fmt.Errorf("pause or resume: %w", err)
		}
		if len(changed) == 0 {
			return nil
		}
		return sqlschema.RaiseGeneration(ctx, tx)
	})
	if err != nil {
		return nil, err
	}
	if changed == nil {
		changed = []string{}
	}
	return changed, nil
}
