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
	// Unsent says of Dead that the event is given up without an attempt, so the claim is not counted.
	Unsent  bool
	Attempt *Attempt // nil: nothing was sent; may be shared, see Attempt

	// Lane is the lane of the event. Epoch 0 says that the event was claimed. An event of a lane has
	// no claim. Released takes back what NoteAttempts has counted.
	Lane   Lane
	Blocks bool   // the dead letter holds its key
	Merge  *Merge // nil: the event was sent by itself
	// Lost is set by Settle: the lane is not the instance's under that epoch. Nothing was written
	// of the event but its attempt.
	Lost bool
}

// Keeps says which history of a trigger is kept.
type Keeps struct{ Delivered, Attempts bool }

// keeps returns which history of a trigger is kept.
func (o *SettleOptions) keeps(trigger int32) Keeps {
	if own, ok := o.Own[trigger]; ok {
		return own
	}
	return Keeps{o.KeepDelivered, o.KeepAttempts}
}

// archives reports whether events of any trigger may be archived. Of which they are not, their
// letters say.
func (o *SettleOptions) archives() bool { return o.KeepDelivered || len(o.Own) > 0 }

// letter is the fate as the statements know it. E is Dead without an attempt. A small letter says
// that the event is not archived.
func (s *Settlement) letter(o *SettleOptions) string {
	switch {
	case s.Fate == Dead && s.Unsent:
		return "E"
	case s.Fate == Delivered || s.Fate == Annulled:
		return o.unless(string(rune(s.Fate)), s.Trigger)
	}
	return string(rune(s.Fate))
}

func (o *SettleOptions) unless(letter string, trigger int32) string {
	if len(o.Own) > 0 && !o.keeps(trigger).Delivered {
		return strings.ToLower(letter)
	}
	return letter
}

// SettleOptions are the options of Settle.
type SettleOptions struct {
	Instance      int32 // that claimed the events
	KeepDelivered bool  // false: delivered events are deleted, not archived
	KeepAttempts  bool  // false: no invocation is logged
	// Own has the triggers of which other history is kept than KeepDelivered and KeepAttempts say.
	Own map[int32]Keeps
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

// settleSQL settles claimed events. A claim that was settled leaves no number. A released claim
// leaves its own, since the claim before it may have been interrupted.
var settleSQL = `
with r as materialized (
  select * from unnest($1::uuid[], $2::integer[], $3::"char"[], $4::interval[], $5::text[], $7::bigint[], $8::boolean[]) as r(id, tries, fate, delay, reason, claim, bare)),
gone as (
  delete from rowhook.event_log q using r
   where r.fate in ('A', 'a', 'D', 'E') and q.id = any (array[r.id]) and ` + fence + `
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
  insert into rowhook.event_archive (id, created_at, delivered_at, trigger_id, tries, op, old, new, session, trace, relation_id, seq)
  select id, created_at, statement_timestamp(), trigger_id, tries, op, ` + payloadUnlessBare + `, relation_id, seq from gone where fate = 'A' and $9),
buried as (
  insert into rowhook.dead_letter (id, created_at, died_at, trigger_id, tries, op, reason, old, new, session, trace, relation_id, seq)
  select id, created_at, statement_timestamp(), trigger_id, tries - case fate when 'E' then 1 else 0 end, op, reason, ` + payloadUnlessBare + `, relation_id, seq from gone where fate in ('D', 'E')
  on conflict (id) do update set died_at = excluded.died_at, tries = excluded.tries, reason = excluded.reason),
settled as materialized (
  select id from gone union all select id from kept),
logged as (` + attemptsSQL(10) + `)
select count(*) from settled`

const payloadUnlessBare = `case when not bare then old end, case when not bare then new end, case when not bare then session end, case when not bare then trace end`

// withoutHistory returns a text without the parts that write history, and so without the last
// arguments.
func withoutHistory(sql string) string {
	for _, part := range [][2]string{{"archived as (", "buried as ("}, {",\nlogged as (", "\nselect count(*)"}} {
		before, rest, _ := strings.Cut(sql, part[0])
		_, after, _ := strings.Cut(rest, part[1])
		sql = before + part[1] + after
	}
	return sql
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
		tries[i], fates[i], delays[i] = s.Tries, s.letter(&opt), s.Delay
		bare[i], claims[i] = s.Bare, s.Claim
		if s.Fate == Dead {
			reasons[i] = &s.Reason
		}
		if s.Attempt != nil && opt.keeps(s.Trigger).Attempts {
			a.add(s)
		}
	}
	sql := settleSQL
	args := []any{ids, tries, fates, delays, reasons, opt.Instance, claims, bare}
	if opt.NoHistory {
		sql = withoutHistory(sql)
	} else {
		args = append(append(args, opt.archives()), a.args(opt.MayHaveCommitted)...)
	}
	var settled int
	if err := db.QueryRow(ctx, sql, args...).Scan(&settled); err != nil {
		return 0, fmt.Errorf("settle events: %w", err)
	}
	return settled, nil
}
