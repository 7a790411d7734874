package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// PartitionsAhead is how far ahead partitions are made. Maintenance may fail for this time without
// harm.
const PartitionsAhead = 3 * 24 * time.Hour

// EnsurePartitions makes the missing daily partitions of both histories, from today to
// PartitionsAhead. Days are those of the server's clock, in UTC.
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

// LeastDaysAhead is the least normal result of DaysAhead. A lower one says that partitions could
// not be made for a day or more.
const LeastDaysAhead = 2

// DaysAhead returns the number of days after today for which both histories have partitions, up to
// PartitionsAhead. -1 says that a partition of today is missing. Days are those of the server's
// clock, in UTC.
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

// Dropped is a partition whose rows were removed.
type Dropped struct {
	Name    string
	Rows    int64 // an estimate of the last analyze
	Bytes   int64 // including indexes
	Emptied bool  // the partition of today was truncated, and stays
}

// DropExpired makes partitions ahead of time, and drops partitions whose retention is over. While
// the history is larger than keep.MaxSize, it also drops the oldest partitions. It returns the
// dropped ones. It does not wait for a partition that is in use: the next call drops it.
func DropExpired(ctx context.Context, tx pgx.Tx, keep trigger.Retention) (dropped []Dropped, err error) {
	if err := EnsurePartitions(ctx, tx); err != nil {
		return nil, err
	}
	return DropHistory(ctx, tx, keep)
}

// DropHistory is DropExpired without making partitions. If making them fails, expired ones can
// still be dropped.
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
	var kept []Partition
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

// DropOldest drops the oldest day of both histories. If only today is left, it truncates today's
// partitions. It is for a full disk: history is dropped before events that are still owed are at
// risk.
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

// shed drops the oldest partitions until the others have no more than most bytes.
func shed(ctx context.Context, tx pgx.Tx, all []Partition, most int64) (dropped []Dropped, err error) {
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

// Partition is one day of one history.
type Partition struct {
	Parent string
	Name   string
	Day    string // such as 20261123, in UTC
	Ended  bool
	Today  bool
	Filled bool // it has had rows since its last truncation
	Rows   int64
	Bytes  int64
}

func (p *Partition) dropped() Dropped {
	return Dropped{Name: p.Name, Rows: p.Rows, Bytes: p.Bytes, Emptied: !p.Ended}
}

// Partitions returns the partitions of both histories, the oldest first. Days are those of the
// server's clock, in UTC.
func Partitions(ctx context.Context, tx pgx.Tx) ([]Partition, error) {
	found, err := pg.Collect[Partition](ctx, tx, `
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

// Remove drops the partition. It truncates the partition instead if its day has not ended. It does
// nothing if the partition is in use.
func (p *Partition) Remove(ctx context.Context, tx pgx.Tx) (removed bool, err error) {
	if err := tx.QueryRow(ctx, "select rowhook.remove_partition($1)", p.Name).Scan(&removed); err != nil {
		return false, fmt.Errorf("remove partition %s: %w", p.Name, err)
	}
	return removed, nil
}
