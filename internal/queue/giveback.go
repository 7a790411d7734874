package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// Reclaim gives back the events of dead instances, due at once, and deletes the rows of the
// instances. The interrupted attempts stay counted, since nobody knows whether they were sent.
// Reclaim returns the number of events, also beside an error. After an error the other events come
// back at the next call, or at the end of their leases.
func Reclaim(ctx context.Context, db pg.Queryer, dead []int32) (int, error) {
	all := make([]Instance, len(dead))
	for n, id := range dead {
		all[n] = Instance{ID: id, Seen: whenever}
	}
	_, back, err := Bury(ctx, db, all)
	return back, err
}

// whenever matches any Instance.Seen.
const whenever = -1

// Bury is Reclaim for instances that a Watch reported dead. It skips an instance that was seen
// alive since then, or has registered again. It also returns the ids of the instances whose rows it
// deleted.
func Bury(ctx context.Context, db pg.Queryer, dead []Instance) (buried []int32, events int, err error) {
	ids, seen := make([]int32, len(dead)), make([]int64, len(dead))
	for n := range dead {
		ids[n], seen[n] = dead[n].ID, dead[n].Seen
	}
	if _, err = instancesBy(ctx, db, awaitClaimsSQL, ids, seen); err == nil {
		events, err = reclaim(ctx, db, ids, seen)
	}
	if err == nil { // last, so that another instance finds the rows if this one dies meanwhile
		buried, err = instancesBy(ctx, db, forgetSQL, ids, seen)
	}
	if err == nil { // a live instance that was judged dead may have claimed meanwhile
		var late int
		late, err = reclaim(ctx, db, ids, seen)
		events += late
	}
	if err != nil {
		return buried, events, fmt.Errorf("reclaim events of dead instances: %w", err)
	}
	return buried, events, nil
}

const (
	// A claim holds a lock on the row of its instance until it ends. Claims of a dead instance may
	// still run in the server. Once this statement has its locks, they have ended, and the next
	// statement sees their events.
	awaitClaimsSQL = `
select i.id from rowhook.instance i join unnest($1::integer[], $2::bigint[]) as d(id, seen) on i.id = d.id
 where d.seen in (` + seenAtUs + `, -1) for update of i`

	forgetSQL = `
delete from rowhook.instance i using unnest($1::integer[], $2::bigint[]) as d(id, seen)
 where i.id = d.id and d.seen in (` + seenAtUs + `, -1) returning i.id`
)

// instancesBy runs a statement on instances as they were seen, and returns the ids that the
// statement returns.
func instancesBy(ctx context.Context, db pg.Queryer, sql string, ids []int32, seen []int64) ([]int32, error) {
	rows, err := db.Query(ctx, sql, ids, seen)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int32])
}

func reclaim(ctx context.Context, db pg.Queryer, dead []int32, seen []int64) (back int, err error) {
	triggers, err := triggersOfQueue(ctx, db)
	// Most leases end soon: these events come first, for all triggers. The second pass reads the
	// rest of the index, where there may be many retries.
	for _, length := range []time.Duration{4 * trigger.LeaseMargin, trigger.LongestLease + trigger.LeaseMargin} {
		for i := 0; err == nil && i < len(triggers); i++ {
			var n int
			n, err = giveBack(ctx, db, reclaimSQL, triggers[i], length, dead, seen)
			back += n
		}
	}
	return back, err
}

// ReleaseUnknown gives back the events of a claim whose result was lost. wants are those of the
// claim. The claim is not counted as an attempt, since nothing was sent. ReleaseUnknown returns the
// number of events.
func ReleaseUnknown(ctx context.Context, db pg.Queryer, by Claimant, wants []Want) (int, error) {
	back := 0
	for _, w := range wants {
		n, err := giveBack(ctx, db, disownSQL, w.Trigger, w.Lease, []int32{by.Instance}, by.Number)
		if back += n; err != nil {
			return back, fmt.Errorf("give back events of an interrupted claim: %w", err)
		}
	}
	return back, nil
}

// triggersOfQueue returns the triggers that have events.
func triggersOfQueue(ctx context.Context, db pg.Queryer) ([]int32, error) {
	rows, err := db.Query(ctx, "with recursive "+steps+" select trigger_id from step where trigger_id is not null")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int32])
}

// A claimed event becomes due at the end of its lease. So its index entry lies between now and
// then, among the retries of that time. Each statement reads a piece of that range, so that no
// statement takes long. An earlier version read the whole queue: with 4 GB of events that took
// longer than the timeout of a statement.
const (
	reclaimSQL = entriesRead + entriesDead + entriesBack + attemptsKept + entriesHeld + ` and q.claimed_by = any (array(select id from dead))` + entriesCount
	disownSQL  = entriesRead + entriesBack + `tries = q.tries - 1` + entriesHeld + ` and q.claim = $6` + entriesCount

	entriesRead = `
with entry as materialized (
  select q.id, q.due_at, q.claimed_by
    from rowhook.event_log q
   where q.trigger_id = $1 and q.due_at >= $4 and q.due_at > statement_timestamp() and q.due_at <= statement_timestamp() + $3::interval
   order by q.due_at limit $5),
`
	// dead holds the instances that are as they were judged, and those whose rows are deleted.
	entriesDead = `
dead as materialized (
  select d.id from unnest($2::integer[], $6::bigint[]) as d(id, seen)
   where not exists (select from rowhook.instance i where i.id = d.id and d.seen not in (` + seenAtUs + `, -1))),
`
	entriesBack = `
back as (
  update rowhook.event_log q set claimed_by = null, due_at = statement_timestamp(), `
	// What a writer handed over after the instance was last seen was not sent by it.
	attemptsKept = `tries = case when q.claim = 1 and exists (select from unnest($2::integer[], $6::bigint[]) as d(id, seen)
      where d.id = q.claimed_by and d.seen > 0 and q.created_at > to_timestamp(d.seen / 1000000.0) + interval '5 seconds') then 0 else q.tries end`
	entriesHeld = `
    from entry e
   where e.claimed_by = any ($2::integer[]) and q.id = any (array[e.id]) and q.claimed_by = any ($2::integer[])`
	entriesCount = `
  returning 1)
select count(*), coalesce(max(due_at), '-infinity') = $4, coalesce(max(due_at), $4), (select count(*) from back) from entry`
)

// pieceOfQueue is the number of index entries that one statement reads.
const pieceOfQueue = 2000

// giveBack gives back the events of a trigger that the instances hold, piece by piece. It returns
// their number.
func giveBack(ctx context.Context, db pg.Queryer, sql string, trigger int32, lease time.Duration, instances []int32, more ...any) (back int, err error) {
	var from time.Time
	for limit := pieceOfQueue; ; {
		rows, err := db.Query(ctx, sql, append([]any{trigger, instances, lease, from, limit}, more...)...)
		if err != nil {
			return back, err
		}
		piece, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[piece])
		if back += piece.Back; err != nil || piece.Read < limit {
			return back, err
		}
		if limit = pieceOfQueue; piece.Same { // one due_at, and perhaps more of it
			limit = 2 * piece.Read
		}
		from = piece.Last
	}
}

// piece is the result of one statement of giveBack.
type piece struct {
	Read int       // index entries
	Same bool      // its last entry has the due_at from which it began
	Last time.Time // due_at of its last entry
	Back int       // events given back
}
