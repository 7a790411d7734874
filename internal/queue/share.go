package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// Share is what an instance has of the total concurrency of a trigger.
type Share struct {
	Instance int32
	N        int  // requests that it may have in flight
	Busy     bool // it has some, or knows of events that wait
}

// Shares are those of the instances that are registered. They never exceed the total in sum.
type Shares struct {
	All []Share
	// Turn counts up every six seconds by the server's clock. By it, instances take turns if there
	// are more of them than the total.
	Turn int64
	Left time.Duration // of the turn
}

const readSharesSQL = `
with turn as (
  select turn, (turn + 0.5) * 6 - epoch as rest
    from (select extract(epoch from statement_timestamp()) as epoch) e cross join lateral (select (epoch / 6)::bigint as turn) t)
select t.id, turn, rest * interval '1 second', s.ids, s.counts, s.busy
  from turn cross join unnest($1::integer[]) as t(id)
 cross join lateral (
   select coalesce(array_agg(s.instance_id), '{}') as ids, coalesce(array_agg(s.n), '{}') as counts, coalesce(array_agg(s.busy), '{}') as busy
     from rowhook.share s join rowhook.instance i on i.id = s.instance_id and i.started_at = s.registered
    where s.trigger_id = t.id) s`

// ReadShares returns the shares of the totals of triggers.
func ReadShares(ctx context.Context, db pg.Queryer, triggers []int32) (map[int32]Shares, error) {
	rows, err := db.Query(ctx, readSharesSQL, triggers)
	if err != nil {
		return nil, fmt.Errorf("read the shares of totals: %w", err)
	}
	all := make(map[int32]Shares, len(triggers))
	var trigger int32
	var s Shares
	var ids, counts []int32
	var busy []bool
	_, err = pgx.ForEachRow(rows, []any{&trigger, &s.Turn, &s.Left, &ids, &counts, &busy}, func() error {
		s.All = nil
		for i, id := range ids {
			s.All = append(s.All, Share{Instance: id, N: int(counts[i]), Busy: busy[i]})
		}
		all[trigger] = s
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the shares of totals: %w", err)
	}
	return all, nil
}

// SharesPayload tells dispatchers that one of them has given up some of its share of a total, or
// wants more of it.
const SharesPayload = "shares"

// shareLock is the first key of the advisory locks under which shares change. The second key is the
// id of the trigger. The bytes spell "rows".
const shareLock = 0x726f7773

// TakeShare changes the share of an instance. decide gets the present shares, and nobody else
// changes them before TakeShare has returned. registered is false if the instance has no row; then
// it has no share.
func TakeShare(ctx context.Context, db interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}, trigger, instance int32, decide func(Shares) Share) (registered bool, err error) {
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1, $2) where "+unflushed, shareLock, trigger); err != nil {
			return fmt.Errorf("lock the shares of a total: %w", err)
		}
		seen, err := ReadShares(ctx, tx, []int32{trigger})
		if err != nil {
			return err
		}
		mine := decide(seen[trigger])
		// The rows of instances that are gone do not count, and go.
		tag, err := tx.Exec(ctx, `
with gone as (
  delete from rowhook.share s where s.trigger_id = $1 and s.instance_id <> $2
     and not exists (select from rowhook.instance i where i.id = s.instance_id and i.started_at = s.registered))
insert into rowhook.share (trigger_id, instance_id, registered, n, busy)
select $1, id, started_at, $3, $4 from rowhook.instance where id = $2 for key share
on conflict (trigger_id, instance_id) do update set registered = excluded.registered, n = excluded.n, busy = excluded.busy`,
			trigger, instance, mine.N, mine.Busy)
		if err != nil {
			return fmt.Errorf("change a share of a total: %w", err)
		}
		registered = tag.RowsAffected() > 0
		return nil
	})
	return registered, err
}

// LeaveShares gives up the shares of an instance in all triggers but these.
func LeaveShares(ctx context.Context, db pg.Queryer, instance int32, except []int32) error {
	return execute(ctx, db, "give up shares of a total", "delete from rowhook.share where instance_id = $1 and trigger_id <> all ($2::integer[])", instance, except)
}
