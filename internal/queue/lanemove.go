package queue

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/rowhook/rowhook/internal/pg"
)

const readMovesSQL = `
select r.id, m.ready
  from unnest($1::uuid[]) as r(id)
 cross join lateral (select m.ready from rowhook.key_move m where m.event_id = r.id) m`

// ReadMoves looks at the key moves of events. An event without one is absent: nothing of its old
// key is in its way.
func ReadMoves(ctx context.Context, db pg.Queryer, events [][16]byte) (ready map[[16]byte]bool, err error) {
	rows, err := db.Query(ctx, readMovesSQL, uuids(events))
	if err != nil {
		return nil, fmt.Errorf("read key moves: %w", err)
	}
	ready = map[[16]byte]bool{}
	var id [16]byte
	var is bool
	if _, err = pgx.ForEachRow(rows, []any{&id, &is}, func() error {
		ready[id] = is
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read key moves: %w", err)
	}
	return ready, nil
}

const movesReadySQL = `
with r as materialized (
  select r.id
    from unnest($2::uuid[], $3::integer[], $4::smallint[], $5::bigint[]) as r(id, trigger_id, lane, epoch)
   cross join lateral (
     select from rowhook.lane l
      where l.trigger_id = r.trigger_id and l.lane = r.lane and l.epoch = r.epoch and l.owner = $1 for share) l),
made as (
  update rowhook.key_move m set ready = true from r where m.event_id = any (array[r.id]) and not m.ready returning 1)
select count(*) from made`

// LaneMove is a key move that has become the head of its old key, and the lane of that key.
type LaneMove struct {
	Event [16]byte
	Owned Lane
}

// MarkMovesReady lets the events of key moves be sent: all earlier events of their old keys are
// settled. It leaves out those whose lanes the instance does not own.
func MarkMovesReady(ctx context.Context, db pg.Queryer, instance int32, moves []LaneMove) error {
	events, lanes := make([][16]byte, len(moves)), laneColumns{}
	for i, m := range moves {
		events[i] = m.Event
		lanes.triggers, lanes.lanes, lanes.epochs = append(lanes.triggers, m.Owned.Trigger), append(lanes.lanes, m.Owned.Lane), append(lanes.epochs, m.Owned.Epoch)
	}
	var n int
	if err := db.QueryRow(ctx, movesReadySQL, instance, uuids(events), lanes.triggers, lanes.lanes, lanes.epochs).Scan(&n); err != nil {
		return fmt.Errorf("mark key moves as ready: %w", err)
	}
	return nil
}

const finishMovesSQL = `
with gone as (
  delete from rowhook.key_move m using unnest($1::uuid[]) as r(id)
   where m.event_id = any (array[r.id]) and not exists (select from rowhook.event_log q where q.id = r.id)
  returning m.event_id)
select event_id from gone
union all
select r.id from unnest($1::uuid[]) as r(id) where not exists (select from rowhook.key_move m where m.event_id = r.id)`

// FinishMoves deletes the key moves whose events have left the queue. It returns the events that
// have no key move any more: their old keys may go on.
func FinishMoves(ctx context.Context, db pg.Queryer, events [][16]byte) ([][16]byte, error) {
	rows, err := db.Query(ctx, finishMovesSQL, uuids(events))
	if err != nil {
		return nil, fmt.Errorf("delete key moves: %w", err)
	}
	gone, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		return nil, fmt.Errorf("delete key moves: %w", err)
	}
	return gone, nil
}

func uuids(ids [][16]byte) []pgtype.UUID {
	out := make([]pgtype.UUID, len(ids))
	for i, id := range ids {
		out[i] = pgtype.UUID{Bytes: id, Valid: true}
	}
	return out
}
