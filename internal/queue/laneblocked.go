package queue

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// Blocked is a dead letter that holds its key: later events of the key wait.
type Blocked struct {
	ID      [16]byte
	Trigger int32
	Lane    int16
	Seq     int64
	Key     string
}

const readBlockedSQL = `
select d.id, d.trigger_id, d.lane, coalesce(d.seq, 0), coalesce(d.key, '')
  from unnest($1::integer[], $2::smallint[]) as r(trigger_id, lane)
 cross join lateral (
   select d.id, d.trigger_id, d.lane, d.seq, d.key from rowhook.dead_letter d where d.trigger_id = r.trigger_id and d.lane = r.lane and d.blocks) d`

// ReadBlocked returns the dead letters of these lanes that hold their keys. Its cost grows with
// their number only.
func ReadBlocked(ctx context.Context, db pg.Queryer, lanes []Lane) ([]Blocked, error) {
	c := columnsOf(lanes)
	rows, err := db.Query(ctx, readBlockedSQL, c.triggers, c.lanes)
	if err != nil {
		return nil, fmt.Errorf("read dead letters that block keys: %w", err)
	}
	blocked, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Blocked])
	if err != nil {
		return nil, fmt.Errorf("read dead letters that block keys: %w", err)
	}
	return blocked, nil
}
