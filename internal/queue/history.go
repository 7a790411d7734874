package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// PartitionsAhead is for how long ahead there are partitions: so long may housekeeping fail.
const PartitionsAhead = 3 * 24 * time.Hour

// EnsurePartitions makes the daily partitions of both histories that are missing from today on, by the server's clock.
func EnsurePartitions(ctx context.Context, db pg.Queryer) error {
	var made int
	if err := db.QueryRow(ctx, "select rowhook.ensure_partitions(now(), now() + $1)", PartitionsAhead).Scan(&made); err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	return nil
}

// EnsureDay makes the partitions of one day.
func EnsureDay(ctx context.Context, db pg.Queryer, day time.Time) error {
	var made int
	if err := db.QueryRow(ctx, "select rowhook.ensure_partitions($1, $1)", day).Scan(&made); err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	return nil
}

// LeastDaysAhead is the number of days after today for which there are partitions, below which something has kept them from being made
// for a day or more.
const LeastDaysAhead = 2

// DaysAhead counts the days after today, by the server's clock, for which both histories have partitions, up to PartitionsAhead; -1: today's is
// missing.
func DaysAhead(ctx context.Context, db pg.Queryer) (int, error) {
	var days int
	err := db.QueryRow(ctx, `
with parts as materialized (
  select c.relname from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
   where i.inhparent in (to_regclass('rowhook.event_archive'), to_regclass('rowhook.invocation_log')))
select coalesce(min(n), $1 + 1) - 1 from generate_series(0, $1::integer) as n
 cross join lateral (select to_char((now() at time zone 'UTC')::date + n, '_YYYYMMDD') as day) as d
 where not exists (select from parts where relname = 'event_archive' || day) or not exists (select from parts where relname = 'invocation_log' || day)`,
		int32(PartitionsAhead/(24*time.Hour))).Scan(&days)
	if err != nil {
		return 0, fmt.Errorf("look for partitions: %w", err)
	}
	return days, nil
}

// Dropped is a partition whose rows are gone.
type Dropped struct {
	Name    string
	Rows    int64 // estimated by the last analyze
	Bytes   int64 // with indexes
	Emptied bool  // it is today's, and stays
}

// Tidy makes partitions ahead of time and drops those that hold nothing within the retention, and the oldest ones while the
// history is larger than it may be. It returns what it dropped. A partition that is in use is left for the next time, rather than
// waited for.
func DropExpired(ctx context.Context, tx pgx.Tx, keep trigger.Retention) (dropped []Dropped, err error) {
	if err := EnsurePartitions(ctx, tx); err != nil {
		return nil, err
	}
	return DropHistory(ctx, tx, keep)
}

// DropHistory is Tidy without the partitions ahead of time: what can't be made need not keep what is over.
func DropHistory(ctx context.Context, tx pgx.Tx, keep trigger.Retention) (dropped []Dropped, err error) {
	all, err := Partitions(ctx, tx)
	if err != nil {
		return nil, err
	}
	gone := map[string]bool{}
	for _, history := range []struct {
		parent string
		keep   trigger.Duration
	}{{"event_archive", keep.Delivered}, {"invocation_log", keep.Attempts}} {
		var names []string
		if err := tx.QueryRow(ctx, "select rowhook.drop_partitions($1, $2)", history.parent, history.keep.Std()).Scan(&names); err != nil {
			return dropped, fmt.Errorf("drop partitions of %s: %w", history.parent, err)
		}
		for _, name := range names {
			gone[name] = true
		}
	}
	var kept []partition
	for _, p := range all {
		switch {
		case gone[p.Name]:
			dropped = append(dropped, p.dropped())
		case p.Today && p.Filled && (p.Parent == "event_archive" && keep.Delivered == 0 || p.Parent == "invocation_log" && keep.Attempts == 0):
			kept = append(kept, p)
			removed, err := p.Remove(ctx, tx)
			if err != nil {
				return dropped, err
			}
			if removed {
				kept, dropped = kept[:len(kept)-1], append(dropped, p.dropped())
			}
		default:
			kept = append(kept, p)
		}
	}
	if keep.MaxSize <= 0 {
		return dropped, nil
	}
	shed, err := shed(ctx, tx, kept, int64(keep.MaxSize))
	return append(dropped, shed...), err
}

// Shed drops the oldest day of history there is; of today's, what there is so far. It is for a disk that is full: history goes
// before anything that is still owed is at risk.
func DropOldest(ctx context.Context, tx pgx.Tx) (dropped []Dropped, err error) {
	all, err := Partitions(ctx, tx)
	if err != nil {
		return nil, err
	}
	day := ""
	for _, p := range all {
		if !p.Filled || day != "" && p.Day != day {
			continue
		}
		removed, err := p.Remove(ctx, tx)
		if err != nil {
			return dropped, err
		}
		if removed {
			day, dropped = p.Day, append(dropped, p.dropped())
		}
	}
	return dropped, nil
}

// shed drops the oldest partitions until the rest is no larger than most.
func shed(ctx context.Context, tx pgx.Tx, all []partition, most int64) (dropped []Dropped, err error) {
	var total int64
	for _, p := range all {
		total += p.Bytes
	}
	for _, p := range all {
		if total <= most {
			break
		}
		if !p.Filled {
			continue
		}
		removed, err := p.Remove(ctx, tx)
		if err != nil {
			return dropped, err
		}
		if removed {
			total -= p.Bytes
			dropped = append(dropped, p.dropped())
		}
	}
	return dropped, nil
}

// partition is a day of one of the histories.
type partition struct {
	Parent string
	Name   string
	Day    string // 20261123, UTC
	Ended  bool
	Today  bool
	Filled bool // it has rows, or had some since its last truncation
	Rows   int64
	Bytes  int64
}

func (p *partition) dropped() Dropped {
	return Dropped{Name: p.Name, Rows: p.Rows, Bytes: p.Bytes, Emptied: !p.Ended}
}

// partitions lists those of both histories, the oldest first, by the server's clock.
func Partitions(ctx context.Context, tx pgx.Tx) ([]partition, error) {
	found, err := pg.Collect[partition](ctx, tx, `
select p.relname as parent, c.relname as name, right(c.relname, 8) as day, d.day < t.day as ended, d.day = t.day as today,
       pg_relation_size(c.oid) > 0 as filled, greatest(c.reltuples, 0)::bigint as rows, pg_total_relation_size(c.oid) as bytes
  from pg_catalog.pg_inherits i
  join pg_catalog.pg_class c on c.oid = i.inhrelid
  join pg_catalog.pg_class p on p.oid = i.inhparent
 cross join lateral (select to_date(right(c.relname, 8), 'YYYYMMDD') as day) as d
 cross join (select (now() at time zone 'UTC')::date as day) as t
 where i.inhparent in (to_regclass('rowhook.event_archive'), to_regclass('rowhook.invocation_log'))
   and c.relname ~ ('^' || p.relname || '_[0-9]{8}$')
 order by d.day, c.relname`)
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	return found, nil
}

// remove drops the partition, or empties it if its day has not ended, unless it is in use.
func (p *partition) Remove(ctx context.Context, tx pgx.Tx) (removed bool, err error) {
	if err := tx.QueryRow(ctx, "select rowhook.remove_partition($1)", p.Name).Scan(&removed); err != nil {
		return false, fmt.Errorf("remove partition %s: %w", p.Name, err)
	}
	return removed, nil
}
