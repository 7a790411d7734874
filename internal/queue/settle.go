package queue

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/rowhook/rowhook/internal/pg"
)

// Fate is what becomes of a claimed event.
type Fate byte

// The fates, as the statement knows them.
const (
	Delivered Fate = 'A' // moved to the archive
	Retried   Fate = 'R' // due again after Settlement.Delay
	Dead      Fate = 'D' // moved to the dead letters
	Released  Fate = 'G' // given back unsent: due at once, and the claim is not counted
	// Annulled is for an event of a lane: it and those of its Merge come to nothing. They are moved
	// to the archive, and nothing was sent.
	Annulled Fate = 'N'
)

// Settlement is the outcome of one claim of an event, or of one attempt of an event in a lane.
type Settlement struct {
	ID      [16]byte
	Trigger int32 // rowhook.trigger.id
	Tries   int32 // Claimed.Tries
	Claim   int64 // Claimed.Claim; with the instance it is the fence
	Fate    Fate
	Delay   time.Duration // until a retry
	Reason  string        // of a dead letter
	Bare    bool          // the event is moved without its payload, which can't be read
	Attempt *Attempt      // nil: nothing was sent

	// Lane is the lane of the event. Epoch 0 says that the event was claimed. An event of a lane has
	// no claim, and is not Released.
	Lane   Lane
	Blocks bool   // the dead letter holds its key
	Merge  *Merge // nil: the event was sent by itself
	// Lost is set by Settle: the lane is not the instance's under that epoch. Nothing was written
	// of the event but its attempt.
	Lost bool
}

// Attempt is a row of rowhook.invocation_log.
type Attempt struct {
	StartedAt time.Time
	Duration  time.Duration
	Status    int    // 0: no response
	Kind      string // webhook.Kind; "": there was a response
	Error     string
	Header    []byte // of the response, as JSON; nil: null
	Body      string // of the response
	Batch     string // webhook-id of the request, for a trigger with batches; else ""
}

// SettleOptions are the options of Settle.
type SettleOptions struct {
	Schema        int32 // version of the schema rowhook; below 5 there are no sequence numbers
	Instance      int32 // that claimed the events
	KeepDelivered bool  // false: delivered events are deleted, not archived
	KeepAttempts  bool  // false: no invocation is logged
	// NoHistory settles without the history tables, which may be missing or impossible to write.
	// Delivered events are deleted, and no invocation is logged. Dead letters are kept.
	NoHistory bool
	// MayHaveCommitted says that an earlier call with these settlements may have committed. Then
	// only the invocations of events that this call settles are written, so that none is written
	// twice.
	MayHaveCommitted bool
}

// fence: an event is settled only while it is under the very claim of the settlement.
const fence = `q.claimed_by = $6 and q.tries = r.tries and q.claim = r.claim`

// A claim that was settled leaves no number. A released claim leaves its own, since the claim
// before it may have been interrupted.
const settleSQL = `
with r as materialized (
  select * from unnest($1::uuid[], $2::integer[], $3::"char"[], $4::interval[], $5::text[], $19::bigint[], $20::boolean[]) as r(id, tries, fate, delay, reason, claim, bare)),
gone as (
  delete from rowhook.event_log q using r
   where r.fate in ('A', 'D') and q.id = any (array[r.id]) and ` + fence + `
  returning q.*, r.fate, r.reason, r.bare),
kept as (
  update rowhook.event_log q
     set claimed_by = null,
         due_at = statement_timestamp() + r.delay,
         tries = q.tries - case r.fate when 'G' then 1 else 0 end,
         claim = case r.fate when 'G' then q.claim end
    from r
   where r.fate in ('R', 'G') and q.id = any (array[r.id]) and ` + fence + `
  returning q.id),
archived as (
  insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, old, new, session, trace, relation_id)
  select id, created_at, statement_timestamp(), trigger_id, tries, op, ` + payloadUnlessBare + `, relation_id from gone where fate = 'A' and $7),
buried as (
  insert into rowhook.dead_letter (id, created_at, died_at, trigger_id, tries, op, reason, old, new, session, trace, relation_id)
  select id, created_at, statement_timestamp(), trigger_id, tries, op, reason, ` + payloadUnlessBare + `, relation_id from gone where fate = 'D'
  on conflict (id) do update set died_at = excluded.died_at, tries = excluded.tries, reason = excluded.reason),
settled as materialized (
  select id from gone union all select id from kept),
logged as (
  insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt, status, error_kind, error, response_headers, response_body)
  select a.event_id, a.started_at, a.trigger_id, $6, a.duration_us, a.attempt, nullif(a.status, 0), nullif(a.kind, ''), nullif(a.error, ''), a.headers, a.body
    from unnest($8::uuid[], $9::timestamptz[], $10::integer[], $11::bigint[], $12::integer[], $13::smallint[], $14::text[], $15::text[], $16::json[], $17::text[])
      as a(event_id, started_at, trigger_id, duration_us, attempt, status, kind, error, headers, body)
   where not $18 or a.event_id in (select id from settled))
select count(*) from settled`

const payloadUnlessBare = `case when not bare then old end, case when not bare then new end, case when not bare then session end, case when not bare then trace end`

// withSeq returns settleSQL for version 5 of the schema: history and dead letters keep the number
// that an event had in the order of its key, and attempts the id of their batch.
func withSeq() string {
	return strings.NewReplacer("relation_id)", "relation_id, seq)", "relation_id from gone", "relation_id, seq from gone",
		"response_body)", "response_body, batch)", "a.headers, a.body\n", "a.headers, a.body, nullif(a.batch, '')\n",
		"$17::text[])", "$17::text[], $21::text[])", "headers, body)", "headers, body, batch)").Replace(settleSQL)
}

// withoutHistory returns a text without the parts that write history. Of settleSQL it uses the
// first six arguments and the last two.
func withoutHistory(sql string) string {
	for _, part := range [][2]string{{"archived as (", "buried as ("}, {",\nlogged as (", "\nselect count(*)"}} {
		before, rest, _ := strings.Cut(sql, part[0])
		_, after, _ := strings.Cut(rest, part[1])
		sql = before + part[1] + after
	}
	return strings.NewReplacer("$19", "$7", "$20", "$8").Replace(sql)
}

// Settle writes what became of claimed events: the delivered move to the archive, the exhausted to
// the dead letters, the others become due again, and every attempt is logged. Only events that are
// still under the same claim of this instance, or in a lane that is still its own, are touched; it
// returns how many those were. It takes one statement for claimed events, and one for those of
// lanes.
func Settle(ctx context.Context, db pg.Queryer, opt SettleOptions, batch []Settlement) (int, error) {
	var claimed, ordered []*Settlement
	for i := range batch {
		if s := &batch[i]; s.Lane.Epoch == 0 {
			claimed = append(claimed, s)
		} else {
			ordered = append(ordered, s)
		}
	}
	settled := 0
	if len(claimed) > 0 || len(batch) == 0 {
		n, err := settleClaimed(ctx, db, opt, claimed)
		if err != nil {
			return 0, err
		}
		settled += n
	}
	if len(ordered) > 0 {
		n, err := settleLanes(ctx, db, opt, ordered)
		if err != nil {
			return 0, err
		}
		settled += n
	}
	return settled, nil
}

func settleClaimed(ctx context.Context, db pg.Queryer, opt SettleOptions, batch []*Settlement) (int, error) {
	n := len(batch)
	ids, tries, fates := make([]pgtype.UUID, n), make([]int32, n), make([]string, n)
	delays, reasons, claims, bare := make([]time.Duration, n), make([]*string, n), make([]int64, n), make([]bool, n)
	var a attemptColumns
	for i, s := range batch {
		ids[i] = pgtype.UUID{Bytes: s.ID, Valid: true}
		tries[i], fates[i], delays[i] = s.Tries, string(rune(s.Fate)), s.Delay
		bare[i], claims[i] = s.Bare, s.Claim
		if s.Fate == Dead {
			reasons[i] = &s.Reason
		}
		if s.Attempt != nil && opt.KeepAttempts {
			a.add(s)
		}
	}
	sql := settleSQL
	if opt.Schema >= OrderedSchema {
		sql = withSeq()
	}
	var settled int
	if opt.NoHistory {
		if err := db.QueryRow(ctx, withoutHistory(sql), ids, tries, fates, delays, reasons, opt.Instance, claims, bare).Scan(&settled); err != nil {
			return 0, fmt.Errorf("settle events without history: %w", err)
		}
		return settled, nil
	}
	args := []any{
		ids, tries, fates, delays, reasons, opt.Instance, opt.KeepDelivered,
		a.events, a.started, a.triggers, a.durations, a.numbers, a.statuses, a.kinds, a.errors, a.headers, a.bodies, opt.MayHaveCommitted, claims, bare,
	}
	if opt.Schema >= OrderedSchema {
		args = append(args, a.batches)
	}
	err := db.QueryRow(ctx, sql, args...).Scan(&settled)
	if err != nil {
		return 0, fmt.Errorf("settle events: %w", err)
	}
	return settled, nil
}

// attemptColumns are attempts as Postgres arrays, with one element for each attempt.
type attemptColumns struct {
	events    []pgtype.UUID
	started   []time.Time
	triggers  []int32
	durations []int64
	numbers   []int32
	statuses  []int16
	kinds     []string
	errors    []string
	headers   []pgtype.Text
	bodies    []string
	batches   []string
}

func (c *attemptColumns) add(s *Settlement) {
	c.events = append(c.events, pgtype.UUID{Bytes: s.ID, Valid: true})
	c.started = append(c.started, s.Attempt.StartedAt)
	c.triggers = append(c.triggers, s.Trigger)
	c.durations = append(c.durations, s.Attempt.Duration.Microseconds())
	c.numbers = append(c.numbers, s.Tries)
	c.statuses = append(c.statuses, int16(s.Attempt.Status))
	c.kinds = append(c.kinds, s.Attempt.Kind)
	c.errors = append(c.errors, s.Attempt.Error)
	c.headers = append(c.headers, pgtype.Text{String: string(s.Attempt.Header), Valid: s.Attempt.Header != nil})
	c.bodies = append(c.bodies, s.Attempt.Body)
	c.batches = append(c.batches, s.Attempt.Batch)
}
