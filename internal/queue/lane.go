package queue

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/sorting"
)

// Lanes is the number of lanes of an ordered trigger.
const Lanes = 64

// Lane is a lane of an ordered trigger that an instance owns.
type Lane struct {
	Trigger int32 // rowhook.trigger.id
	Lane    int16 // from 0 to 63
	// Epoch counts the owners of the lane. With the instance it is the fence of settlements.
	Epoch int64
}

// Seats says how the lanes of an ordered trigger are shared.
type Seats struct {
	Trigger int32
	Serving int32  // registered instances that serve the trigger
	Mine    []Lane // lanes of the instance that asks
	Free    int32  // lanes whose owner is nobody, or is not registered
}

const serveSQL = `
with i as (update rowhook.instance set serves = $2 where id = $1 and serves is distinct from $2 returning 1)
select count(*) from i`

const seatsSQL = `
select t.trigger_id,
       (select count(*) from rowhook.instance i where t.trigger_id = any (i.serves))::integer,
       array(select l.lane from rowhook.lane l where l.trigger_id = t.trigger_id and l.owner = $1 order by l.lane),
       array(select l.epoch from rowhook.lane l where l.trigger_id = t.trigger_id and l.owner = $1 order by l.lane),
       (select count(*) from rowhook.lane l where l.trigger_id = t.trigger_id and ` + free + `)::integer
  from unnest($2::integer[]) as t(trigger_id)`

// free is true for a lane l that may be claimed.
const free = `(l.owner is null or not exists (select from rowhook.instance i where i.id = l.owner))`

// ReadSeats records that the instance can send for these ordered triggers, and for no others. It
// returns the seats of each of them, in their order, and then of those that it has left, since it may
// have lanes of them still. An instance that is not registered records nothing. The others are told
// of a change, so that they share the lanes at once and not at their next watch.
func ReadSeats(ctx context.Context, db pg.Queryer, instance int32, triggers, left []int32) ([]Seats, error) {
	serves := slices.Clone(triggers)
	slices.Sort(serves)
	var changed int
	if err := db.QueryRow(ctx, serveSQL, instance, serves).Scan(&changed); err != nil {
		return nil, fmt.Errorf("record which triggers this instance serves: %w", err)
	}
	if changed > 0 {
		if err := NotifyPeers(ctx, db, LanesPayload); err != nil {
			return nil, err
		}
	}
	asked := slices.Concat(triggers, left)
	if len(asked) == 0 {
		return nil, nil
	}
	rows, err := db.Query(ctx, seatsSQL, instance, asked)
	if err != nil {
		return nil, fmt.Errorf("read the owners of lanes: %w", err)
	}
	seats := make([]Seats, 0, len(asked))
	var s Seats
	var lanes []int16
	var epochs []int64
	_, err = pgx.ForEachRow(rows, []any{&s.Trigger, &s.Serving, &lanes, &epochs, &s.Free}, func() error {
		s.Mine = nil
		for i, lane := range lanes {
			s.Mine = append(s.Mine, Lane{s.Trigger, lane, epochs[i]})
		}
		seats = append(seats, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the owners of lanes: %w", err)
	}
	return seats, nil
}

// LaneWant is how many lanes of a trigger an instance wants to claim.
type LaneWant struct {
	Trigger int32
	Most    int32
	// Anew are lanes of its own that it claims again, under another epoch: it did not know of them,
	// because the answer of a claim was lost, or because it was buried and has registered again.
	Anew []int16
}

// A lane whose events are being settled is locked, so it is skipped until that is done. Its owner
// may be dead by now, while its statement still runs in the server.
const claimLanesSQL = `
with me as materialized (
  select id from rowhook.instance where id = $1 for key share),
got as materialized (
  select l.trigger_id, l.lane
    from me cross join unnest($2::integer[], $3::integer[]) as t(trigger_id, most)
   cross join lateral (
     select l.trigger_id, l.lane from rowhook.lane l
      where l.trigger_id = t.trigger_id
        and (` + free + ` or l.owner = $1 and exists (select from unnest($4::integer[], $5::smallint[]) as a(trigger_id, lane) where a.trigger_id = l.trigger_id and a.lane = l.lane))
      order by l.lane limit t.most for update skip locked) l)
update rowhook.lane l
   set owner = $1, epoch = l.epoch + 1,
       deaths = case when l.owner is null or l.owner = $1 then l.deaths when l.died_at > ` + withinADay + ` then l.deaths + 1 else 1 end,
       died_at = case when l.owner is null or l.owner = $1 then l.died_at else statement_timestamp() end
  from got
 where l.trigger_id = got.trigger_id and l.lane = got.lane
returning l.trigger_id, l.lane, l.epoch, case when l.died_at > ` + withinADay + ` then l.deaths else 0 end`

const withinADay = `statement_timestamp() - interval '1 day'`

// TakenLane is a lane that ClaimLanes has made the instance's.
type TakenLane struct {
	Lane

	// Deaths is how many owners have died with it, each within a day of the one before. It is 0 if
	// none has within the last day.
	Deaths int32
}

// ClaimLanes makes the instance the owner of free lanes, each under an epoch of its own. The lanes
// of an instance that is buried are free at once, since its row is gone: a burial writes nothing to
// them. An instance that is not registered gets nothing.
func ClaimLanes(ctx context.Context, db pg.Queryer, instance int32, wants []LaneWant) ([]TakenLane, error) {
	triggers, most := make([]int32, len(wants)), make([]int32, len(wants))
	var anew laneColumns
	for i, w := range wants {
		triggers[i], most[i] = w.Trigger, w.Most
		for _, lane := range w.Anew {
			anew.triggers, anew.lanes = append(anew.triggers, w.Trigger), append(anew.lanes, lane)
		}
	}
	rows, err := db.Query(ctx, claimLanesSQL, instance, triggers, most, anew.triggers, anew.lanes)
	if err != nil {
		return nil, fmt.Errorf("claim lanes: %w", err)
	}
	lanes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[TakenLane])
	if err != nil {
		return nil, fmt.Errorf("claim lanes: %w", err)
	}
	return lanes, nil
}

// The rows are locked in the order in which settlements lock them.
const releaseLanesSQL = `
with mine as materialized (
  select l.trigger_id, l.lane
    from unnest($2::integer[], $3::smallint[], $4::bigint[]) with ordinality as r(trigger_id, lane, epoch, n)
   cross join lateral (
     select l.trigger_id, l.lane from rowhook.lane l
      where l.trigger_id = r.trigger_id and l.lane = r.lane and l.epoch = r.epoch and l.owner = $1 for update) l),
back as (
  update rowhook.lane l set owner = null from mine where l.trigger_id = mine.trigger_id and l.lane = mine.lane returning 1)
select count(*) from back`

// ReleaseLanes gives lanes back, for another instance to claim. It returns how many were the
// instance's. Nothing of them may be in flight.
func ReleaseLanes(ctx context.Context, db pg.Queryer, instance int32, lanes []Lane) (int, error) {
	c := columnsOf(lanes)
	var n int
	if err := db.QueryRow(ctx, releaseLanesSQL, instance, c.triggers, c.lanes, c.epochs).Scan(&n); err != nil {
		return 0, fmt.Errorf("give lanes back: %w", err)
	}
	return n, nil
}

// laneColumns are lanes as Postgres arrays.
type laneColumns struct {
	triggers []int32
	lanes    []int16
	epochs   []int64
}

// columnsOf sorts the lanes, so that all statements lock them in one order.
func columnsOf(lanes []Lane) laneColumns {
	lanes = slices.Clone(lanes)
	sorting.By(lanes, compareLanes)
	n := len(lanes)
	c := laneColumns{make([]int32, n), make([]int16, n), make([]int64, n)}
	for i, l := range lanes {
		c.triggers[i], c.lanes[i], c.epochs[i] = l.Trigger, l.Lane, l.Epoch
	}
	return c
}
