package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// InlinePayload is the size in bytes of old, new, session and trace together up to which a claim carries them. Larger ones are fetched
// by FetchPayload when they are sent, so that a batch of claims can't fill the memory.
const InlinePayload = 64 << 10

// Want is one trigger's share of a claim.
type Want struct {
	Trigger  int32
	Relation uint32 // oid of its table
	Limit    int32  // at most so many events
	Lease    time.Duration
	Hold     bool // payloads are left behind, whatever their size
	// RelationID and OriginID are those of its Trigger.
	RelationID, OriginID int32
	// Floor is the due_at to start from; the zero time starts from the beginning. A floor spares the walk over index
	// entries of settled events that a long transaction keeps from being cleaned.
	Floor time.Time
}

// ClaimsNumbered is the version of the schema from which on claims have numbers.
const ClaimsNumbered = 3

// Claimant is who claims. The number tells this claim from every other one of the instance, so the instance must never use one twice: what
// settles, fetches or gives back an event is fenced by it, while tries may be counted down or begin anew.
type Claimant struct {
	Instance int32
	Number   int64 // 0: none, as on version 2 of the schema, where tries alone is the fence
}

// Claimed is an event that now belongs to the instance that claimed it, until its lease ends.
type Claimed struct {
	ID        [16]byte
	Trigger   int32
	Table     string     // schema-qualified and quoted, as it is called now; the bare oid where the table is gone, or its Want said Hold
	Own       *TableName // its own table, where its trigger watches another by now: see NameRelations
	Op        byte       // I, U, D or M
	CreatedAt time.Time
	DueAt     time.Time // as it was before the claim: the next floor
	Tries     int32     // this claim included
	Claim     int64     // number of the claim; 0: none
	// Interrupted says that the claim before this one was not settled: its instance died, say. Unknown, and so false, where claims have no number.
	Interrupted bool
	Old, New    []byte // JSON text; nil: null, or held back
	Session     []byte // likewise
	Trace       []byte // likewise
	Held        int64  // bytes, as stored, of these four that the claim did not carry; 0: it carried them
	Packed      bool   // they are stored compressed: PayloadSize tells how large they are
	RelationID  int32  // rowhook.relation.id of its table; 0: its trigger's origin
}

// The inner query asks the index (trigger_id, due_at) for exactly what is due, per trigger. The stored size is known without
// decompressing anything; only where it is small and compressed is the text itself measured.
// "= any (array[...])" can only be looked up: by "=" alone, planned when the empty queue was last analyzed, the whole index was read and
// compared with what is due (300 events/s with 20,000 waiting, instead of 6,700). Settle does the same.
// regclass output reads Postgres's own cache, so that a renamed table is known at the next claim (0.3 us an event).
const (
	claimSQL            = "with " + claimDue + "false" + claimFrom + claimUpdate + claimReturning + ", 0"
	numberedSQL         = "with " + claimDue + "q.claim is not null" + claimFrom + claimUpdate + claimNumber + claimReturning + claimRelation
	nonEmptySQL         = nonEmptyDue + "false" + claimFrom + claimNonEmpty + claimUpdate + claimReturning + ", 0"
	numberedNonEmptySQL = nonEmptyDue + "q.claim is not null" + claimFrom + claimNonEmpty + claimUpdate + claimNumber + claimReturning + claimRelation

	// nonEmptyDue first leaves out the triggers that have no row at all. It jumps in the index from one trigger's entries to the next one's, so
	// that it takes as many steps as triggers have rows, claimed or not. "is true" keeps the planner from making a join of it: dispatchers'
	// sessions have no other than nested loops.
	nonEmptyDue   = "with recursive " + steps + "," + claimDue
	claimNonEmpty = " where (t.trigger_id in (select trigger_id from step)) is true"

	steps = `step (trigger_id) as (
  (select trigger_id from rowhook.event_log order by trigger_id limit 1)
  union all
  select (select q.trigger_id from rowhook.event_log q where q.trigger_id > step.trigger_id order by q.trigger_id limit 1)
    from step where step.trigger_id is not null)`

	claimDue = `
me as materialized (
  select id from rowhook.instance where id = $6 for key share),
due as materialized (
  select e.id, e.due_at, e.interrupted, t.relation, t.lease, t.hold
    from me cross join unnest($1::integer[], $2::oid[], $3::integer[], $4::interval[], $5::timestamptz[], $7::boolean[]) as t(trigger_id, relation, lim, lease, floor, hold)
   cross join lateral (
     select q.id, q.due_at, `
	claimFrom = ` as interrupted from rowhook.event_log q
      where q.trigger_id = t.trigger_id and q.due_at <= statement_timestamp() and q.due_at >= t.floor
      order by q.due_at limit t.lim for update skip locked) e`

	claimUpdate = `)
update rowhook.event_log q
   set due_at = statement_timestamp() + due.lease, claimed_by = $6, tries = q.tries + 1`

	claimNumber = `, claim = $8`

	claimRelation = `, coalesce(q.relation_id, 0)`

	claimReturning = `
  from due
 where q.id = any (array[due.id])
returning q.id, q.trigger_id, case when due.hold then due.relation::text else due.relation::regclass::text end, q.op, q.created_at, due.due_at, q.tries, due.interrupted, case when ` + inline + ` then q.session end, case when ` + inline + ` then q.trace end,
  case when ` + inline + ` then q.old end, case when ` + inline + ` then q.new end,
  case when ` + inline + ` then 0::bigint when ` + plain + ` then ` + stored + ` else -` + stored + ` end`
)

// What is stored compressed has to be unpacked to be measured, five times in one claim: 100 events of 20 MB took more than half a minute. So
// a compressed payload above 8 KiB, which mostly is above 64 KiB when unpacked, is held back without a look.
const (
	inline = `(case when due.hold then false when ` + plain + ` then ` + stored + ` <= 65536 when ` + stored + ` > 8192 then false else ` + length + ` <= 65536 end)`
	stored = `(coalesce(pg_column_size(q.old), 0)::bigint + coalesce(pg_column_size(q.new), 0) + coalesce(pg_column_size(q.session), 0) + coalesce(pg_column_size(q.trace), 0))`
	plain  = `(pg_column_compression(q.old) is null and pg_column_compression(q.new) is null and pg_column_compression(q.session) is null and pg_column_compression(q.trace) is null)`
	length = `(coalesce(octet_length(q.old::text), 0)::bigint + coalesce(octet_length(q.new::text), 0) + coalesce(octet_length(q.session::text), 0) + coalesce(octet_length(q.trace::text), 0))`
)

// Claim takes what is due of each wanted trigger for the instance, at most Limit events each, oldest first, leaving out
// what another session has locked. An event that comes back is the instance's until its lease ends. An instance that is not
// registered gets nothing: the lock on its row makes Reclaim wait for a claim that is under way, and a claim that comes after
// a Reclaim find nobody to claim for.
func Claim(ctx context.Context, db pg.Queryer, by Claimant, wants []Want) ([]Claimed, error) {
	return claim(ctx, db, claimSQL, numberedSQL, by, wants)
}

// ClaimNonEmpty is Claim for many triggers of which few have events: of 1,000 with 5 it took 0.4 ms instead of 4. Where a long transaction
// keeps settled events in the index it walks over them, as a claim without a floor does.
func ClaimNonEmpty(ctx context.Context, db pg.Queryer, by Claimant, wants []Want) ([]Claimed, error) {
	return claim(ctx, db, nonEmptySQL, numberedNonEmptySQL, by, wants)
}

func claim(ctx context.Context, db pg.Queryer, sql, numbered string, by Claimant, wants []Want) ([]Claimed, error) {
	triggers, relations, limits := make([]int32, len(wants)), make([]uint32, len(wants)), make([]int32, len(wants))
	leases, floors, holds := make([]time.Duration, len(wants)), make([]time.Time, len(wants)), make([]bool, len(wants))
	for i, w := range wants {
		triggers[i], relations[i], limits[i], leases[i], floors[i], holds[i] = w.Trigger, w.Relation, w.Limit, w.Lease, w.Floor, w.Hold
	}
	args := []any{triggers, relations, limits, leases, floors, by.Instance, holds}
	if by.Number != 0 {
		sql, args = numbered, append(args, by.Number)
	}
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("claim events: %w", err)
	}
	var out []Claimed
	var c Claimed
	_, err = pgx.ForEachRow(rows, []any{&c.ID, &c.Trigger, &c.Table, (*opByte)(&c.Op), &c.CreatedAt, &c.DueAt, &c.Tries, &c.Interrupted,
		&c.Session, &c.Trace, &c.Old, &c.New, &c.Held, &c.RelationID}, func() error {
		if c.Packed = c.Held < 0; c.Packed {
			c.Held = -c.Held
		}
		c.Claim = by.Number
		out = append(out, c)
		c.Session, c.Trace, c.Old, c.New = nil, nil, nil, nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claim events: %w", err)
	}
	return out, nil
}

// opByte scans a "char".
type opByte byte

// ScanText is how pgx hands over a "char" in either format.
func (o *opByte) Scan(src any) error {
	switch v := src.(type) {
	case string:
		if len(v) == 1 {
			*o = opByte(v[0])
			return nil
		}
	case rune:
		*o = opByte(v)
		return nil
	}
	return fmt.Errorf("read op: unexpected %T", src)
}

// Held is what a claim may hold back: JSON text, nil where null.
type Held struct{ Old, New, Session, Trace []byte }

// Holding is one event under one claim of an instance.
type Holding struct {
	ID    [16]byte
	Tries int32
	Claim int64 // 0: the claim has no number
}

// fenced is the condition on $1 to $4 that the event is still under that claim.
func (h Holding) fenced(instance int32) (condition string, args []any) {
	condition, args = " from rowhook.event_log q where q.id = $1 and q.claimed_by = $2 and q.tries = $3", []any{h.ID, instance, h.Tries}
	if h.Claim != 0 {
		condition, args = condition+" and q.claim = $4", append(args, h.Claim)
	}
	return condition, args
}

// PayloadSize measures what the claim of an event held back, in bytes of JSON text. ok is false where the event is no longer this claim's.
func PayloadSize(ctx context.Context, db pg.Queryer, instance int32, h Holding) (size int64, ok bool, err error) {
	from, args := h.fenced(instance)
	err = db.QueryRow(ctx, "select "+length+from, args...).Scan(&size)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("measure payload: %w", err)
	}
	return size, true, nil
}

// FetchPayload fetches what the claim of an event held back. ok is false where the event is no longer this claim's.
func FetchPayload(ctx context.Context, db pg.Queryer, instance int32, h Holding) (p Held, ok bool, err error) {
	from, args := h.fenced(instance)
	err = db.QueryRow(ctx, "select q.old, q.new, q.session, q.trace"+from, args...).Scan(&p.Old, &p.New, &p.Session, &p.Trace)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Held{}, false, nil
	case err != nil:
		return Held{}, false, fmt.Errorf("fetch payload: %w", err)
	}
	return p, true, nil
}

// NextDue returns, for each of these triggers that has one, how long it is until the first of its events becomes due that was not due
// yet so long ago: a retry, or the end of a lease. 0: it is due by now.
func NextDue(ctx context.Context, db pg.Queryer, triggers []int32, ago []time.Duration) (map[int32]time.Duration, error) {
	rows, err := db.Query(ctx, `
select t.trigger_id, greatest(d.due_at - statement_timestamp(), interval '0')
  from unnest($1::integer[], $2::interval[]) as t(trigger_id, ago)
 cross join lateral (
   select q.due_at from rowhook.event_log q
    where q.trigger_id = t.trigger_id and q.due_at > statement_timestamp() - t.ago
    order by q.due_at limit 1) d`, triggers, ago)
	if err != nil {
		return nil, fmt.Errorf("look for the next due events: %w", err)
	}
	next := map[int32]time.Duration{}
	var trigger int32
	var in time.Duration
	if _, err = pgx.ForEachRow(rows, []any{&trigger, &in}, func() error {
		next[trigger] = in
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look for the next due events: %w", err)
	}
	return next, nil
}
