package operate

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Hasten makes the retries of a trigger due at once that wait for a later time, and returns the ids
// of their events. ids are the events to choose from; none: all of the trigger. Unlike Redeliver it
// leaves the number of attempts as it is, so that the configured retries go on from there. It is for
// tests: to a receiver that is down, all retries go at the same time.
func Hasten(ctx context.Context, db DB, trigger string, ids ...string) ([]string, error) {
	var hastened []string
	err := transact(ctx, db, pgx.ReadCommitted, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, byIndex()); err != nil {
			return fmt.Errorf("begin to hasten: %w", err)
		}
		ts, err := readTriggers(ctx, tx)
		if err != nil {
			return err
		}
		t, err := ts.named(trigger)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, hasten, t.ID, ids)
		if err == nil {
			hastened, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			return fmt.Errorf("hasten retries: %w", err)
		}
		if len(hastened) == 0 {
			return nil
		}
		return ring(ctx, tx, []int32{t.ID})
	})
	return hastened, err
}

const hasten = `
update rowhook.event_log q set due_at = clock_timestamp()
  from (select id from rowhook.event_log
         where trigger_id = $1 and ($2::text[] is null or id = any($2::text[]::uuid[]))
           and tries > 0 and claimed_by is null and due_at > statement_timestamp()
         order by id for update skip locked) as mine
 where q.id = mine.id
returning q.id::text`
