package queue

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/rowhook/rowhook/internal/pg"
)

// LaneAttempt is an attempt of an event of a lane that is about to be made.
type LaneAttempt struct {
	ID    [16]byte
	Tries int32 // the number of the attempt, as in Settlement
	Lane  Lane
}

// The lanes are locked before the events, as by a settlement.
const noteAttemptsSQL = `
with w as materialized (
  select * from unnest($2::uuid[], $3::integer[], $4::integer[], $5::smallint[], $6::bigint[]) as w(id, tries, trigger_id, lane, epoch)),
mine as materialized (
  select d.trigger_id, d.lane
    from (select distinct trigger_id, lane, epoch from w order by 1, 2, 3) d
   cross join lateral (
     select from rowhook.lane l
      where l.trigger_id = d.trigger_id and l.lane = d.lane and l.epoch = d.epoch and l.owner = $1 for share) l),
r as materialized (
  select w.* from w join mine using (trigger_id, lane))
update rowhook.event_log q set tries = r.tries, claim = r.epoch
  from r
 where q.id = any (array[r.id]) and ` + laneFence + `
returning q.id`

// NoteAttempts counts attempts of events of lanes before they are made, as a claim does. It returns
// the events of which that was done: those that are in the queue, and in a lane that is the
// instance's. If the instance dies in the attempt, ReadLanes says Interrupted of the event. Otherwise
// its settlement ends that.
func NoteAttempts(ctx context.Context, db pg.Queryer, instance int32, attempts []LaneAttempt) ([][16]byte, error) {
	n := len(attempts)
	ids, tries, triggers, lanes, epochs := make([]pgtype.UUID, n), make([]int32, n), make([]int32, n), make([]int16, n), make([]int64, n)
	for i, a := range attempts {
		ids[i], tries[i] = pgtype.UUID{Bytes: a.ID, Valid: true}, a.Tries
		triggers[i], lanes[i], epochs[i] = a.Lane.Trigger, a.Lane.Lane, a.Lane.Epoch
	}
	rows, err := db.Query(ctx, noteAttemptsSQL, instance, ids, tries, triggers, lanes, epochs)
	if err != nil {
		return nil, fmt.Errorf("note attempts of events of lanes: %w", err)
	}
	noted, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		return nil, fmt.Errorf("note attempts of events of lanes: %w", err)
	}
	return noted, nil
}
