package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// InlinePayload is the largest size in bytes of old, new, session and trace together that a claim
// carries. FetchPayload fetches a larger payload when its event is sent, so that a batch of claims
// can't fill the memory.
const InlinePayload = 64 << 10

// Want is one trigger's share of a claim.
type Want struct {
	Trigger  int32         // rowhook.trigger.id
	Relation uint32        // oid of its table
	Limit    int32         // the largest number of events to claim
	Lease    time.Duration // how long the claim lasts
	Hold     bool          // the claim carries no payload, whatever its size
	// RelationID and OriginID are those of its Trigger.
	RelationID, OriginID int32
	// Floor is the due_at to start from. The zero time starts from the beginning. A long
	// transaction keeps index entries of settled events from being removed. A floor saves the scan
	// over them.
	Floor time.Time
}

// Claimant identifies a claim. The number distinguishes it from every other claim of the instance,
// so the instance must never use a number twice. The number is the fence of settling, fetching and
// giving back. The count of tries is no fence, since a release counts it down and a redelivery
// resets it.
type Claimant struct {
	Instance int32
	Number   int64 // above 0
}

// Claimed is an event that belongs to the instance that claimed it until its lease ends.
type Claimed struct {
	ID      [16]byte
	Trigger int32 // rowhook.trigger.id
	// Table is the current name of the trigger's table, schema-qualified and quoted. It is the bare
	// oid if the table was dropped, or if Want.Hold was set.
	Table string
	// Own is the table of the event if its trigger now watches another one: see NameRelations.
	Own       *TableName
	Op        byte // I, U, D or M
	CreatedAt time.Time
	DueAt     time.Time // before the claim; the next floor
	Tries     int32     // including this claim
	Claim     int64     // number of the claim
	// Interrupted says that the claim before this one was not settled, for instance because its
	// instance died.
	Interrupted bool
	Old, New    []byte // JSON text; nil: null, or held back
	Session     []byte // likewise
	Trace       []byte // likewise
	Held        int64  // stored size in bytes of these four, if the claim held them back; else 0
	Packed      bool   // they are stored compressed; PayloadSize returns their real size
	RelationID  int32  // rowhook.relation.id of its table; 0: the origin of its trigger
	Seq         int64  // its sequence number, if its trigger is ordered; else 0
	// RenewedAt is when it was last sent again by hand; zero: never.
	RenewedAt time.Time
	// Lease is what was left of its lease as it was read, if it was handed over by its writer; 0: it
	// was claimed, for Want.Lease.
	Lease time.Duration
}

// The inner query reads only due entries of the index (trigger_id, due_at), for each trigger. The
// stored size is known without decompression. Only a small compressed payload is decompressed to
// measure its text.
//
// "id = any (array[...])" makes Postgres look up each id. With plain "=", after the queue was last
// analyzed while empty, Postgres read the whole index and joined it with the due events: 300
// events/s with 20,000 waiting, instead of 6,700. Settle does the same.
//
// The output of regclass comes from Postgres' own cache. So the next claim knows the new name of a
// renamed table, for 0.3 us an event.
var (
	claimSQL    = "with " + claimDue + claimUpdate
	nonEmptySQL = nonEmptyDue + claimNonEmpty + claimUpdate

	// nonEmptyDue first finds the triggers that have rows. It jumps in the index from the entries
	// of one trigger to those of the next. So the number of steps is the number of triggers with
	// rows, claimed or not. "is true" keeps the planner from making a join of the condition: in the
	// sessions of dispatchers only nested loops are enabled.
	nonEmptyDue   = "with recursive " + steps + "," + claimDue
	claimNonEmpty = " where (t.trigger_id in (select trigger_id from step)) is true"

	steps = `step (trigger_id) as (
  (select trigger_id from rowhook.event_log order by trigger_id limit 1)
  union all
  select (select q.trigger_id from rowhook.event_log q where q.trigger_id > step.trigger_id order by q.trigger_id limit 1)
    from step where step.trigger_id is not null)`

	claimDue = `
me as materialized (
  select id from rowhook.instance where id = $6 and ` + unflushed + ` for key share),
due as materialized (
  select e.id, e.due_at, e.interrupted, t.relation, t.lease, t.hold, e.seq, e.renewed_at, ` + heldBack("e", "t.hold") + ` as held
    from me cross join unnest($1::integer[], $2::oid[], $3::integer[], $4::interval[], $5::timestamptz[], $7::boolean[]) as t(trigger_id, relation, lim, lease, floor, hold)
   cross join lateral (
     select q.id, q.due_at, q.claim is not null as interrupted, q.seq, q.renewed_at, ` + sizes("t.hold") + ` from rowhook.event_log q
      where q.trigger_id = t.trigger_id and q.due_at <= statement_timestamp() and q.due_at >= t.floor
      order by q.due_at limit t.lim for update skip locked) e`

	claimUpdate = `)
update rowhook.event_log q
   set due_at = statement_timestamp() + due.lease, claimed_by = $6, tries = q.tries + 1, claim = $8
  from due
 where q.id = any (array[due.id])
returning q.id, q.trigger_id, case when due.hold then due.relation::text else due.relation::regclass::text end, q.op, q.created_at, due.due_at, q.tries, due.interrupted,
  case when due.held = 0 then q.session end, case when due.held = 0 then q.trace end, case when due.held = 0 then q.old end, case when due.held = 0 then q.new end,
  due.held, coalesce(q.relation_id, 0), coalesce(due.seq, 0), due.renewed_at`
)

// sizes are columns that tell the size of the payload of q: what is stored of it, and, if that is
// compressed, its text. hold is an expression that leaves the text unread.
//
// A claim would have to decompress a compressed payload to measure it. 100 events of 20 MB took more
// than half a minute. So a compressed payload above 8 KiB is held back without measuring it. Most of
// these are above InlinePayload when decompressed.
//
// The server prepares every function of an expression for each execution, even where it is not
// called. So each size is computed in one place, and concat takes the place of four functions.
func sizes(hold string) string {
	return stored + ` as stored, case when ` + plain + ` then null when ` + hold + ` or ` + stored + ` > 8192 then 2147483647 else octet_length(concat(q.old, q.new, q.session, q.trace)) end as expanded`
}

// heldBack is what a claim says of a payload by its sizes, which are columns of from: 0 if the claim
// carries it, else its stored size, below 0 if it is compressed.
func heldBack(from, hold string) string {
	return strings.NewReplacer("@", from+".", "#", hold).Replace(
		`case when @expanded is null then case when # or @stored > 65536 then @stored else 0 end when # or @expanded > 65536 then -@stored else 0 end`)
}

const (
	stored = `(coalesce(pg_column_size(q.old), 0)::bigint + coalesce(pg_column_size(q.new), 0) + coalesce(pg_column_size(q.session), 0) + coalesce(pg_column_size(q.trace), 0))`
	plain  = `(pg_column_compression(q.old) is null and pg_column_compression(q.new) is null and pg_column_compression(q.session) is null and pg_column_compression(q.trace) is null)`
	length = `(coalesce(octet_length(q.old::text), 0)::bigint + coalesce(octet_length(q.new::text), 0) + coalesce(octet_length(q.session::text), 0) + coalesce(octet_length(q.trace::text), 0))`
)

// Claim claims the due events of each wanted trigger for the instance: at most Limit events each,
// oldest first. It skips events that another session has locked. A claimed event belongs to the
// instance until its lease ends.
//
// An instance that is not registered gets nothing. Claim locks the row of the instance. So Reclaim
// waits for a claim in progress, and a claim after Reclaim finds no row.
func Claim(ctx context.Context, db pg.Queryer, by Claimant, wants []Want) ([]Claimed, error) {
	return claim(ctx, db, claimSQL, by, wants)
}

// ClaimNonEmpty is Claim for many triggers of which few have events. For 1,000 triggers, 5 of them
// with events, it took 0.4 ms instead of 4. It is slower while a long transaction keeps settled
// events in the index: it scans their entries, like a claim without a floor.
func ClaimNonEmpty(ctx context.Context, db pg.Queryer, by Claimant, wants []Want) ([]Claimed, error) {
	return claim(ctx, db, nonEmptySQL, by, wants)
}

func claim(ctx context.Context, db pg.Queryer, sql string, by Claimant, wants []Want) ([]Claimed, error) {
	triggers, relations, limits := make([]int32, len(wants)), make([]uint32, len(wants)), make([]int32, len(wants))
	leases, floors, holds := make([]time.Duration, len(wants)), make([]time.Time, len(wants)), make([]bool, len(wants))
	for i, w := range wants {
		triggers[i], relations[i], limits[i], leases[i], floors[i], holds[i] = w.Trigger, w.Relation, w.Limit, w.Lease, w.Floor, w.Hold
	}
	rows, err := db.Query(ctx, sql, triggers, relations, limits, leases, floors, by.Instance, holds, by.Number)
	if err != nil {
		return nil, fmt.Errorf("claim events: %w", err)
	}
	out, err := collectClaimed(rows, by.Number, false)
	if err != nil {
		return nil, fmt.Errorf("claim events: %w", err)
	}
	return out, nil
}

// collectClaimed reads the rows of a claim with this number. leased says that they have one column
// more, for Claimed.Lease.
func collectClaimed(rows pgx.Rows, number int64, leased bool) ([]Claimed, error) {
	var out []Claimed
	var c Claimed
	var renewed *time.Time
	into := []any{&c.ID, &c.Trigger, &c.Table, (*opByte)(&c.Op), &c.CreatedAt, &c.DueAt, &c.Tries, &c.Interrupted,
		&c.Session, &c.Trace, &c.Old, &c.New, &c.Held, &c.RelationID, &c.Seq, &renewed}
	if leased {
		into = append(into, &c.Lease)
	}
	_, err := pgx.ForEachRow(rows, into, func() error {
		if c.RenewedAt = (time.Time{}); renewed != nil {
			c.RenewedAt = *renewed
		}
		if c.Packed = c.Held < 0; c.Packed {
			c.Held = -c.Held
		}
		c.Claim = number
		out = append(out, c)
		c.Session, c.Trace, c.Old, c.New = nil, nil, nil, nil
		return nil
	})
	return out, err
}

// opByte reads a value of the type "char".
type opByte byte

// Scan reads either format in which pgx returns a "char".
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

// Held is the payload that a claim may hold back. Each part is JSON text, or nil for null.
type Held struct{ Old, New, Session, Trace []byte }

// Holding is one event under one claim of an instance.
type Holding struct {
	ID    [16]byte
	Tries int32
	Claim int64
	// Ordered says that the event is in a lane, so that there is no claim. It is found as long as
	// it is in the queue.
	Ordered bool
}

// fenced returns a FROM clause that finds the event only while it is under that claim, and its
// arguments.
func (h Holding) fenced(instance int32) (condition string, args []any) {
	if h.Ordered {
		return " from rowhook.event_log q where q.id = $1 and q.lane is not null", []any{h.ID}
	}
	return " from rowhook.event_log q where q.id = $1 and q.claimed_by = $2 and q.tries = $3 and q.claim = $4", []any{h.ID, instance, h.Tries, h.Claim}
}

// PayloadSize returns the size in bytes of the JSON text that the claim of an event held back. ok
// is false if the event is no longer under this claim.
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

// FetchPayload returns the payload that the claim of an event held back. ok is false if the event
// is no longer under this claim.
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

// NextDue returns, for each trigger, the time until its next event becomes due: a retry, or the end
// of a lease. It ignores events that were already due ago[i] before now. A trigger without other
// events is absent. The time is 0 for an event that became due within ago[i].
func NextDue(ctx context.Context, db pg.Queryer, triggers []int32, ago []time.Duration) (map[int32]time.Duration, error) {
	rows, err := db.Query(ctx, `
select t.trigger_id, greatest(d.due_at - statement_timestamp(), interval '0')
  from unnest($1::integer[], $2::interval[]) as t(trigger_id, ago)
 cross join lateral (
   select q.due_at from rowhook.event_log q
    where q.trigger_id = t.trigger_id and q.due_at > statement_timestamp() - t.ago and q.due_at < `+ParkedFrom+`
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
