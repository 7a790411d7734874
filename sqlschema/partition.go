package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	if _, err := tx.Exec(ctx, "set local lock_timeout = '200ms'"); err != nil {
		return nil, fmt.Errorf("set lock_timeout: %w", err)
	}
	if err := EnsurePartitions(ctx, tx); err != nil {
		return nil, err
	}
	for parent, retention := range map[string]Duration{"event_archive": keep.Delivered, "invocation_log": keep.Attempts} {
		names, err := expired(ctx, tx, parent, retention.Std())
		if err != nil {
			return dropped, err
		}
		for _, name := range names {
			if err := pgx.BeginFunc(ctx, tx, func(sp pgx.Tx) error {
				_, err := sp.Exec(ctx, "drop table "+pgx.Identifier{"rowhook", name}.Sanitize())
				return err
			}); err != nil {
				if isLockTimeout(err) {
					continue
				}
				return dropped, fmt.Errorf("drop partition %s: %w", name, err)
			}
			dropped = append(dropped, name)
		}
	}
	return dropped, nil
}

// expired lists the partitions of a parent whose last day ended longer ago than the retention, by the server's clock.
func expired(ctx context.Context, tx pgx.Tx, parent string, retention time.Duration) ([]string, error) {
	rows, err := tx.Query(ctx, `
select c.relname
  from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
 where i.inhparent = to_regclass('rowhook.' || $1::text)
   and c.relname ~ ('^' || $1::text || '_[0-9]{8}$')
   and to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= ((now() - $2::interval) at time zone 'UTC')::date
 order by 1`, parent, retention)
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	return names, nil
}

func isLockTimeout(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "55P03"
}
