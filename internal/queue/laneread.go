package queue

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/sorting"
)

// LaneRead is a range of one lane that ReadLanes reads.
type LaneRead struct {
	Trigger  int32  // rowhook.trigger.id
	Lane     int16  // from 0 to 63
	Relation uint32 // oid of the trigger's table
	After    int64  // only higher sequence numbers
	UpTo     int64  // and none above; 0: no bound
	Limit    int32  // the largest number of events, and of moves
	Hold     bool   // payloads are not fetched, whatever their size
}

// LanePage is what ReadLanes found.
type LanePage struct {
	Events []LaneEvent // in the order of the reads, and of each by Seq
	Moves  []KeyMove   // likewise
	Ends   []LaneEnd   // one for each read
	Snapshot
	At time.Time // when it was read, by the server's clock
	// SeqBefore is the number that rowhook.event_seq had drawn last, read before Snapshot.Next.
	// No event of this page has a higher one. An event of a transaction from Snapshot.Next on has
	// a higher one.
	SeqBefore int64
}

// LaneEnd says how far a read has come.
type LaneEnd struct {
	// Last is the highest sequence number of the events and moves that were read, or After.
	Last int64
	// More says that Limit ended the read. There may be events behind Last.
	More bool
}

// LaneEvent is an event of a lane. Its Claimed was not claimed: Claim is 0, Tries counts the attempt
// to come, and DueAt is the time at which it is due. Interrupted says that NoteAttempts has noted an
// attempt of which no outcome was written.
type LaneEvent struct {
	Claimed
	Lane int16
	Key  string
	Move Move
}

// Move says whether an event also belongs to the key that its row had before.
type Move byte

// The values of a Move.
const (
	NoMove    Move = iota
	MoveWaits      // earlier events of the old key are not settled
	MoveReady      // they are
)

// KeyMove is an event of another lane that waits in this one, the lane of its row's old key.
type KeyMove struct {
	Event   [16]byte
	Trigger int32
	Lane    int16 // of the old key
	Seq     int64 // of the event
	Key     string
	Ready   bool
}

// Snapshot says which transactions a statement saw.
//
// Transactions from Xmax on may have been open already: Xmax is one above the last completed one.
// Only those from Next on had not begun to write.
type Snapshot struct {
	Xmin uint64   // the lowest transaction that was open
	Xmax uint64   // no transaction from this one on was seen
	Next uint64   // lowest transaction id that was not assigned when SeqBefore had been read
	Xip  []uint64 // transactions below Xmax that were open, in ascending order
}

// Sees reports whether what a transaction has committed was seen, or the transaction had aborted.
func (s *Snapshot) Sees(xid uint64) bool {
	_, open := slices.BinarySearch(s.Xip, xid)
	return xid < s.Xmax && !open
}

// One row tells the snapshot, and each other row an event or a key move. So all come from one
// statement, and from one snapshot.
//
// age() reads the next transaction id without drawing one. Its argument is from the CTE seq, so it
// is called after the sequence was read. A transaction draws its id before its triggers draw
// sequence numbers. So one with a higher id draws higher numbers.
var readLanesSQL = `
with due as materialized (
  select * from unnest($1::integer[], $2::smallint[], $3::oid[], $4::bigint[], $5::bigint[], $6::integer[], $7::boolean[]) with ordinality
                  as r(trigger_id, lane, relation, after, up_to, lim, hold, n)),
seq as materialized (
  select coalesce(pg_sequence_last_value('rowhook.event_seq'::regclass), 0) as drawn, pg_snapshot_xmax(pg_current_snapshot()) as xmax),
next as materialized (
  select drawn, xmax::text::bigint + age(xmax::xid) as xid from seq)
select 'S'::"char", 0::bigint, null::uuid, drawn, null::text, pg_current_snapshot()::text, null::"char", clock_timestamp(), null::timestamptz, 0,
       null::boolean, null::json, null::json, null::json, null::json, xid, 0, false, null::timestamptz from next
union all
select 'K', due.n, m.event_id, m.seq, m.key, null, null, null, null, 0, m.ready, null, null, null, null, 0, 0, false, null
  from due cross join lateral (
    select m.event_id, m.seq, m.key, m.ready from rowhook.key_move m
     where m.trigger_id = due.trigger_id and m.lane = due.lane and m.seq > due.after and m.seq <= due.up_to
     order by m.seq limit due.lim) m
union all
select 'E', due.n, q.id, q.seq, q.key, case when due.hold then due.relation::text else due.relation::regclass::text end, q.op, q.created_at,
       q.due_at - ` + ParkedSQL + `, q.tries + 1, (select m.ready from rowhook.key_move m where m.event_id = q.id),
       case when s.held = 0 then q.session end, case when s.held = 0 then q.trace end, case when s.held = 0 then q.old end, case when s.held = 0 then q.new end,
       s.held, coalesce(q.relation_id, 0), q.claim is not null, q.renewed
  from due cross join (values (null::timestamptz)) as absent (renewed_at) cross join lateral (
    select *, renewed_at as renewed, ` + sizes("due.hold") + ` from rowhook.event_log q
     where q.trigger_id = due.trigger_id and q.lane = due.lane and q.seq > due.after and q.seq <= due.up_to
     order by q.seq limit due.lim) q
   cross join lateral (select ` + heldBack("q", "due.hold") + ` as held offset 0) s`

// ReadLanes reads ranges of lanes, without locking or writing anything. It reads the payload of an
// event as a claim does: a large one is held back, and fetched when it is sent.
//
// Each call needs a transaction of its own. In a longer one age() returns what it returned before.
func ReadLanes(ctx context.Context, db pg.Queryer, reads []LaneRead) (LanePage, error) {
	n := len(reads)
	triggers, lanes, relations := make([]int32, n), make([]int16, n), make([]uint32, n)
	after, upTo, limits, holds := make([]int64, n), make([]int64, n), make([]int32, n), make([]bool, n)
	for i, r := range reads {
		triggers[i], lanes[i], relations[i], after[i], limits[i], holds[i] = r.Trigger, r.Lane, r.Relation, r.After, r.Limit, r.Hold
		if upTo[i] = r.UpTo; r.UpTo == 0 {
			upTo[i] = math.MaxInt64
		}
	}
	rows, err := db.Query(ctx, readLanesSQL, triggers, lanes, relations, after, upTo, limits, holds)
	if err != nil {
		return LanePage{}, fmt.Errorf("read lanes: %w", err)
	}
	p := pageReader{reads: reads, events: make([][]LaneEvent, n), moves: make([][]KeyMove, n)}
	if _, err = pgx.ForEachRow(rows, p.into(), p.row); err != nil {
		return LanePage{}, fmt.Errorf("read lanes: %w", err)
	}
	return p.finish(), nil
}

// pageReader collects the rows of ReadLanes.
type pageReader struct {
	reads  []LaneRead
	page   LanePage
	events [][]LaneEvent // of each read
	moves  [][]KeyMove   // likewise

	// The current row.
	kind    opByte
	n       int64
	id      *[16]byte
	seq     int64
	key     *string
	text    *string
	op      nullOp
	created *time.Time
	due     *time.Time
	renewed *time.Time
	ready   *bool
	Claimed // Tries, payload, Held, RelationID, Interrupted
}

func (p *pageReader) into() []any {
	return []any{&p.kind, &p.n, &p.id, &p.seq, &p.key, &p.text, &p.op, &p.created, &p.due, &p.Tries, &p.ready,
		&p.Session, &p.Trace, &p.Old, &p.New, &p.Held, &p.RelationID, &p.Interrupted, &p.renewed}
}

func (p *pageReader) row() error {
	switch p.kind {
	case 'S':
		p.page.SeqBefore, p.page.Next, p.page.At = p.seq, uint64(p.Held), *p.created
		return p.page.parse(*p.text)
	case 'K':
		r := &p.reads[p.n-1]
		p.moves[p.n-1] = append(p.moves[p.n-1], KeyMove{Event: *p.id, Trigger: r.Trigger, Lane: r.Lane, Seq: p.seq, Key: *p.key, Ready: *p.ready})
		return nil
	}
	r := &p.reads[p.n-1]
	e := LaneEvent{Claimed: p.Claimed, Lane: r.Lane}
	e.ID, e.Trigger, e.Seq, e.Table, e.Op, e.CreatedAt, e.DueAt = *p.id, r.Trigger, p.seq, *p.text, byte(p.op), *p.created, *p.due
	if p.key != nil {
		e.Key = *p.key
	}
	if p.renewed != nil {
		e.RenewedAt = *p.renewed
	}
	if e.Packed = e.Held < 0; e.Packed {
		e.Held = -e.Held
	}
	if p.ready != nil {
		if e.Move = MoveWaits; *p.ready {
			e.Move = MoveReady
		}
	}
	p.events[p.n-1] = append(p.events[p.n-1], e)
	p.Session, p.Trace, p.Old, p.New = nil, nil, nil, nil
	return nil
}

// finish puts the page together. Where the limit ended a read of events or of moves, what lies
// behind that of the other is left for the next read.
func (p *pageReader) finish() LanePage {
	p.page.Ends = make([]LaneEnd, len(p.reads))
	for i := range p.reads {
		r, events, moves, end := &p.reads[i], p.events[i], p.moves[i], &p.page.Ends[i]
		sorting.By(events, func(a, b LaneEvent) int { return cmp.Compare(a.Seq, b.Seq) })
		sorting.By(moves, func(a, b KeyMove) int { return cmp.Compare(a.Seq, b.Seq) })
		bound := int64(math.MaxInt64)
		if end.Last = r.After; len(events) > 0 {
			if end.Last = events[len(events)-1].Seq; len(events) >= int(r.Limit) {
				bound = end.Last
			}
		}
		if len(moves) > 0 {
			last := moves[len(moves)-1].Seq
			if end.Last = max(end.Last, last); len(moves) >= int(r.Limit) {
				bound = min(bound, last)
			}
		}
		end.Last, end.More = min(end.Last, bound), bound < math.MaxInt64
		for j := range events {
			if events[j].Seq <= bound {
				p.page.Events = append(p.page.Events, events[j])
			}
		}
		for j := range moves {
			if moves[j].Seq <= bound {
				p.page.Moves = append(p.page.Moves, moves[j])
			}
		}
	}
	return p.page
}

// parse reads the text of a pg_snapshot, such as 10:20:10,14.
func (s *Snapshot) parse(text string) error {
	var err error
	number := func(t string) (n uint64) {
		if err == nil {
			if n, err = strconv.ParseUint(t, 10, 64); err != nil {
				err = fmt.Errorf("read a snapshot %q: %w", text, err)
			}
		}
		return n
	}
	parts := strings.SplitN(text, ":", 3)
	if len(parts) < 3 {
		return fmt.Errorf("read a snapshot %q: it does not have three parts", text)
	}
	s.Xmin, s.Xmax = number(parts[0]), number(parts[1])
	if parts[2] != "" {
		for _, t := range strings.Split(parts[2], ",") {
			s.Xip = append(s.Xip, number(t))
		}
	}
	return err
}

// nullOp is an opByte that may be null.
type nullOp byte

// Scan reads a "char", or null as 0.
func (o *nullOp) Scan(src any) error {
	if src == nil {
		*o = 0
		return nil
	}
	return (*opByte)(o).Scan(src)
}

func compareLanes(a, b Lane) int {
	return cmp.Or(cmp.Compare(a.Trigger, b.Trigger), cmp.Compare(a.Lane, b.Lane))
}
