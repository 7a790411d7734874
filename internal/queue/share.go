package queue

import (
	"context"
	"fmt"

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
}

// ReadShares returns the shares of a trigger's total.
func ReadShares(ctx context.Context, db pg.Queryer, trigger int32) (Shares, error) {
	var s Shares
	var ids, counts []int32
	var busy []bool
	err := db.QueryRow(ctx, `
select (extract(epoch from statement_timestamp()) / 6)::bigint, coalesce(array_agg(s.instance_id order by s.instance_id), '{}'),
       coalesce(array_agg(s.n order by s.instance_id), '{}'), coalesce(array_agg(s.busy order by s.instance_id), '{}')
  from rowhook.share s join rowhook.instance i on i.id = s.instance_id and i.started_at = s.registered
 where s.trigger_id = $1`, trigger).Scan(&s.Turn, &ids, &counts, &busy)
	if err != nil {
		return s, fmt.Errorf("read the shares of a total: %w", err)
	}
	for i, id := range ids {
		s.All = append(s.All, Share{Instance: id, N: int(counts[i]), Busy: busy[i]})
	}
	return s, nil
}

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
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1, $2)", shareLock, trigger); err != nil {
			return fmt.Errorf("lock the shares of a total: %w", err)
		}
		s, err := ReadShares(ctx, tx, trigger)
		if err != nil {
			return err
		}
		mine := decide(s)
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
