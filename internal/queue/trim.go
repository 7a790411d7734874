package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// HistoryDay is a partition of a history.
type HistoryDay struct {
	Parent string
	Name   string
	Day    time.Time // its beginning, in UTC
	Pages  int64
}

// HistoryDays returns the days of both histories that have begun, the oldest first, and the time by
// the server's clock. It returns none to an instance that is not the first of those that are
// registered.
func HistoryDays(ctx context.Context, db pg.Queryer, instance int32) (days []HistoryDay, now time.Time, err error) {
	if err = db.QueryRow(ctx, "select statement_timestamp()").Scan(&now); err != nil {
		return nil, now, fmt.Errorf("ask for the time: %w", err)
	}
	days, err = pg.Collect[HistoryDay](ctx, db, `
select p.relname::text as parent, c.relname::text as name, d.day at time zone 'UTC' as day,
       pg_relation_size(c.oid) / current_setting('block_size')::bigint as pages
  from pg_catalog.pg_inherits i
  join pg_catalog.pg_class c on c.oid = i.inhrelid
  join pg_catalog.pg_class p on p.oid = i.inhparent
 cross join lateral (select to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp as day) as d
 where i.inhparent in (to_regclass('rowhook.event_archive'), to_regclass('rowhook.invocation_log'))
   and c.relname ~ ('^' || p.relname || '_[0-9]{8}$') and d.day <= statement_timestamp() at time zone 'UTC'
   and $1 = (select min(id) from rowhook.instance)
 order by d.day, c.relname`, instance)
	if err != nil {
		return nil, now, fmt.Errorf("list the days of history: %w", err)
	}
	return days, now.UTC(), nil
}

// TrimHistory deletes rows of some pages of a partition that are older than their trigger keeps them:
// for the time of own, or else of general. It returns how many it has deleted.
func TrimHistory(ctx context.Context, db pg.Queryer, name string, page, pages int64, general time.Duration, own map[int32]trigger.Duration) (n int64, err error) {
	ids, keeps := make([]int32, 0, len(own)), make([]time.Duration, 0, len(own))
	for id, keep := range own {
		ids, keeps = append(ids, id), append(keeps, keep.Std())
	}
	if err = db.QueryRow(ctx, "select rowhook.trim_history($1, $2, $3, $4, $5, $6)", name, page, pages, general, ids, keeps).Scan(&n); err != nil {
		return 0, fmt.Errorf("delete history of %s that is past its retention: %w", name, err)
	}
	return n, nil
}
