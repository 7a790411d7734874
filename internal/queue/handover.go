package queue

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
)

// HandoverSchema is the first version of the schema rowhook in which captures hand events over.
const HandoverSchema = 8

// handedClaim is the number of the claim of an event that its writer has handed over. Instances begin
// to number their claims far above.
const handedClaim = 1

// TakeChannel is the channel on which an instance is told what is handed over to it. A payload is the
// id of a trigger, a space and the id of an event.
func TakeChannel(instance int32) string { return fmt.Sprintf("rowhook_take_%d", instance) }

// Handover says to whom captures hand over events while the doorbell says ring.
type Handover struct {
	Instance int32  // 0: nobody
	Refused  uint32 // buckets of triggers whose events are not handed over; see Bucket
}

// handoverBits are the bits of rowhook.handover that hold the instance.
const handoverBits = 31

func handoverOf(value int64) Handover {
	return Handover{Instance: int32(value & (1<<handoverBits - 1)), Refused: uint32(value >> handoverBits)}
}

// Bucket is the bit of a trigger in Handover.Refused. Triggers share 32 of them.
func Bucket(trigger int32) uint32 { return 1 << (uint32(trigger) & 31) }

// SetHandover has captures hand over to an instance from now on, if it is registered.
func SetHandover(ctx context.Context, db pg.Queryer, h Handover) error {
	return execute(ctx, db, "say to whom events are handed over", offered, h.value(), h.Instance)
}

func (h Handover) value() int64 { return int64(h.Instance) | int64(h.Refused)<<handoverBits }

// offered has captures hand over to an instance while it is registered. It locks its row: otherwise an
// instance that was buried by mistake could have what nobody would bury it for.
const offered = "select setval('rowhook.handover', $1) from (select id from rowhook.instance where id = $2 and " + unflushed + " for key share) as me"

// EndHandover has captures hand over to nobody, if they hand over to this instance.
func EndHandover(ctx context.Context, db pg.Queryer, instance int32) error {
	return execute(ctx, db, "end the hand-over to this instance", `
select setval('rowhook.handover', 0) where pg_sequence_last_value('rowhook.handover'::regclass) & 2147483647 = $1`, instance)
}

// What was handed over to an instance and is still its own. A lease that has ended is no one's. An
// instance that others may take for dead takes nothing: until they bury it, what is handed over to it
// later counts as not sent (see attemptsKept), and so does what is left when it is buried (see strays).
// The clock is that of the statement's snapshot or later, never earlier.
var (
	handedSQL = `
select q.id, q.trigger_id, case when $2 then t.relation::text else t.relation::regclass::text end, q.op, q.created_at, q.created_at, q.tries, false,
       case when s.held = 0 then q.session end, case when s.held = 0 then q.trace end, case when s.held = 0 then q.old end, case when s.held = 0 then q.new end,
       s.held, coalesce(q.relation_id, 0), 0::bigint, null::timestamptz, q.due_at - statement_timestamp()
  from rowhook.event_log q join rowhook.trigger t on t.id = q.trigger_id
 cross join lateral (select ` + sizes("$2::boolean") + ` offset 0) as z
 cross join lateral (select ` + heldBack("z", "$2::boolean") + ` as held offset 0) as s
 where q.claimed_by = $1 and q.claim = 1 and q.tries = 1 and q.due_at > statement_timestamp()
   and exists (select from rowhook.instance i where i.id = $1 and i.seen_at >= clock_timestamp() - interval '` + LockLostAfter.String() + `')`

	handedByID  = handedSQL + ` and q.id = any ($3::uuid[])`
	handedOther = handedSQL + ` and q.id <> all (coalesce($3::uuid[], '{}')) limit $4`
)

// Take reads events that were handed over to an instance. It leaves out those that are not its own,
// or no more, and all of them if it is not registered, or has not beaten for LockLostAfter. It writes nothing: an event is the instance's until its lease ends. Claimed.Lease says
// how much of that is left. hold leaves out the payloads, as Want.Hold does.
func Take(ctx context.Context, db pg.Queryer, instance int32, ids [][16]byte, hold bool) ([]Claimed, error) {
	return takeHanded(ctx, db, handedByID, instance, hold, ids)
}

// TakeOthers is Take for at most limit events that are not among these. It finds what was not
// announced, or whose announcement was lost.
func TakeOthers(ctx context.Context, db pg.Queryer, instance int32, known [][16]byte, hold bool, limit int) ([]Claimed, error) {
	return takeHanded(ctx, db, handedOther, instance, hold, known, limit)
}

func takeHanded(ctx context.Context, db pg.Queryer, sql string, instance int32, hold bool, args ...any) ([]Claimed, error) {
	rows, err := db.Query(ctx, sql, append([]any{instance, hold}, args...)...)
	if err == nil {
		var out []Claimed
		if out, err = collectClaimed(rows, handedClaim, true); err == nil {
			return out, nil
		}
	}
	return nil, fmt.Errorf("take events that were handed over: %w", err)
}

// Handed says what the index of events that were handed over has.
type Handed struct {
	Own   bool // events of this instance that are not among those it knows
	Stray bool // events of instances that are not registered
}

// LookForHanded looks for events that were handed over and that nobody has taken.
func LookForHanded(ctx context.Context, db pg.Queryer, instance int32, known [][16]byte) (h Handed, err error) {
	err = db.QueryRow(ctx, `
select exists (select from rowhook.event_log q where q.claim = 1 and q.claimed_by = $1 and q.tries = 1 and q.due_at > statement_timestamp() and q.id <> all (coalesce($2::uuid[], '{}'))),
       exists (select from rowhook.event_log q where `+strays+`)`, instance, known).Scan(&h.Own, &h.Stray)
	if err != nil {
		return h, fmt.Errorf("look for events that were handed over: %w", err)
	}
	return h, nil
}

// strays are events that were handed over to an instance that is not registered, by a writer that has
// committed after its end.
const strays = `q.claim = 1 and q.claimed_by is not null and not exists (select from rowhook.instance i where i.id = q.claimed_by)`

// ReturnStrays gives back events of instances that are not registered, due at once. No attempt was
// made. It returns their triggers. more says that there may be more of them.
func ReturnStrays(ctx context.Context, db pg.Queryer) (triggers []int32, more bool, err error) {
	rows, err := db.Query(ctx, `
with stray as materialized (
  select q.id from rowhook.event_log q where `+strays+` limit $1 for update skip locked),
back as (
  update rowhook.event_log q set claimed_by = null, due_at = statement_timestamp(), tries = 0, claim = null
    from stray where q.id = any (array[stray.id]) returning q.trigger_id)
select trigger_id, count(*) from back group by trigger_id`, pieceOfQueue)
	if err == nil {
		var trigger int32
		var n, all int
		_, err = pgx.ForEachRow(rows, []any{&trigger, &n}, func() error {
			triggers, all = append(triggers, trigger), all+n
			return nil
		})
		more = all >= pieceOfQueue
	}
	if err != nil {
		return nil, false, fmt.Errorf("give back events that were handed over to an instance that is gone: %w", err)
	}
	return triggers, more, nil
}
