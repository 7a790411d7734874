package sqlschema

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// PartitionsAhead is for how long ahead there are partitions: so long may housekeeping fail.
const PartitionsAhead = 3 * 24 * time.Hour

// EnsurePartitions makes the daily partitions of both histories that are missing from today on, by the server's clock.
func EnsurePartitions(ctx context.Context, db Queryer) error {
	var made int
	if err := db.QueryRow(ctx, "select rowhook.ensure_partitions(now(), now() + $1)", PartitionsAhead).Scan(&made); err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	return nil
}

// EnsureDay makes the partitions of one day.
func EnsureDay(ctx context.Context, db Queryer, day time.Time) error {
	var made int
	if err := db.QueryRow(ctx, "select rowhook.ensure_partitions($1, $1)", day).Scan(&made); err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	return nil
}

// Tidy makes partitions ahead of time and drops those that hold nothing within the retention. It returns what it dropped. A
// partition that is in use is left for the next time, rather than waited for.
func Tidy(ctx context.Context, tx pgx.Tx, keep Retention) (dropped []string, err error) {
	if err := EnsurePartitions(ctx, tx); err != nil {
		return nil, err
	}
	for _, history := range []struct {
		parent string
		keep   Duration
	}{{"event_archive", keep.Delivered}, {"invocation_log", keep.Attempts}} {
		var names []string
		if err := tx.QueryRow(ctx, "select rowhook.drop_partitions($1, $2)", history.parent, history.keep.Std()).Scan(&names); err != nil {
			return dropped, fmt.Errorf("drop partitions of %s: %w", history.parent, err)
		}
		dropped = append(dropped, names...)
	}
	return dropped, nil
}
