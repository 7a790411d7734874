package dispatcher

import (
	"context"
	"slices"
	"time"

	"github.com/rowhook/rowhook/internal/order"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
)

// readAhead is how many events of a trigger are to be ready beyond its room, so that a page that is
// read next comes in time.
const readAhead = 200

// round is what is read of the lanes of one trigger.
type round struct {
	line  *line
	reads []order.Read
}

// prime takes in a snapshot before the lanes of a new line are claimed and read. Without an earlier one,
// a transaction that is open at the first read may have drawn any number: when it ends, all that was
// read would be read again, however short it is.
func (o *orderer) prime(now time.Time) job {
	o.primed = true
	return func(ctx context.Context) (func(), error) {
		page, err := queue.ReadLanes(ctx, o.db.claims, nil)
		return func() {
			if err != nil {
				o.primed = false
				return
			}
			o.took(nil, &page, now)
		}, err
	}
}

// read reads lanes, in one statement for all triggers.
func (o *orderer) read(now time.Time) job {
	if now.Before(o.rested) {
		return nil
	}
	var rounds []round
	var reads []queue.LaneRead
	var wants []queue.Want
	kept := 0
	for _, n := range o.lines {
		kept += n.lanes.Weight()
	}
	for _, n := range o.lines {
		if n.gone {
			continue
		}
		need := 2*o.scheduler.slots(n.trigger.lane) + readAhead - n.lanes.Ready()
		mine := n.lanes.Reads(need, o.horizon.Recent())
		if len(mine) == 0 {
			continue
		}
		rounds = append(rounds, round{n, mine})
		t := &n.trigger
		wants = append(wants, queue.Want{Trigger: t.ID, RelationID: t.RelationID, OriginID: t.OriginID})
		for _, r := range mine {
			reads = append(reads, queue.LaneRead{
				Trigger: t.ID, Lane: r.Lane, Relation: t.Relation, After: r.After, UpTo: r.UpTo, Limit: int32(r.Limit),
				Hold: r.Known || kept > keptPayloads,
			})
		}
	}
	if len(rounds) == 0 {
		return nil
	}
	return func(ctx context.Context) (func(), error) {
		page, err := o.readPage(ctx, reads)
		if err == nil {
			err = o.nameTables(ctx, wants, page.Events)
		}
		took := time.Since(now)
		return func() {
			// Reads take half of the time at most, as claims do.
			o.rested = time.Now().Add(min(took, 20*time.Millisecond))
			if err != nil {
				for _, r := range rounds {
					r.line.lanes.Lost(r.reads)
				}
				return
			}
			o.took(rounds, &page, now)
		}, err
	}
}

// readPage reads lanes. If what an event holds can't be read, it reads without payloads.
func (o *orderer) readPage(ctx context.Context, reads []queue.LaneRead) (queue.LanePage, error) {
	page, err := queue.ReadLanes(ctx, o.db.claims, reads)
	if pg.IsData(err) {
		o.log.Debug("lanes can't be read with what an event holds; reading them without payloads", "error", err)
		for i := range reads {
			reads[i].Hold = true
		}
		page, err = queue.ReadLanes(ctx, o.db.claims, reads)
	}
	return page, err
}

func (o *orderer) nameTables(ctx context.Context, wants []queue.Want, events []queue.LaneEvent) error {
	var of []queue.Claimed
	var at []int
	for i := range events {
		if events[i].RelationID != 0 {
			of, at = append(of, events[i].Claimed), append(at, i)
		}
	}
	if len(of) == 0 {
		return nil
	}
	if err := o.names.give(ctx, o.db.claims, wants, of); err != nil {
		return err
	}
	for i, n := range at {
		events[n].Own = of[i].Own
	}
	return nil
}

// took takes in a page that was asked for at a time.
func (o *orderer) took(rounds []round, page *queue.LanePage, asked time.Time) {
	now := time.Now()
	from, late := o.horizon.Observe(order.Snapshot{Xmin: page.Xmin, Xmax: page.Xmax, Next: page.Next, Xip: page.Xip, Seq: page.SeqBefore})
	events, moves, ends := page.Events, page.Moves, page.Ends
	for _, r := range rounds {
		pages := make([]order.Page, len(r.reads))
		for i, read := range r.reads {
			p := &pages[i]
			p.Last, p.More = ends[0].Last, ends[0].More
			ends = ends[1:]
			for len(events)+len(moves) > 0 {
				e, m := len(events) > 0 && within(read, r.line, events[0].Trigger, events[0].Lane, events[0].Seq, p.Last),
					len(moves) > 0 && within(read, r.line, moves[0].Trigger, moves[0].Lane, moves[0].Seq, p.Last)
				switch {
				case e && (!m || events[0].Seq <= moves[0].Seq):
					p.Entries = append(p.Entries, entryOf(&events[0], asked, now, page.At))
					events = events[1:]
					continue
				case m:
					p.Entries = append(p.Entries, &order.Entry{ID: moves[0].Event, Seq: moves[0].Seq, Key: moves[0].Key, Leave: true, Told: moves[0].Ready, Read: asked})
					moves = moves[1:]
					continue
				}
				break
			}
		}
		for _, read := range r.reads {
			r.line.before[read.Lane] = min(r.line.before[read.Lane], page.SeqBefore)
		}
		before := r.line.lanes.Entries()
		r.line.lanes.Took(r.reads, pages, from, late, now)
		if found := r.line.lanes.Entries() - before; found > 0 {
			o.scheduler.foundInOrder(r.line.trigger.lane, found, now)
		}
	}
	sure := true
	for _, n := range o.lines {
		if !slices.ContainsFunc(rounds, func(r round) bool { return r.line == n }) {
			n.lanes.Took(nil, nil, from, late, now)
		}
		if owes := n.lanes.Owes(); owes {
			sure = false
		}
	}
	if sure {
		for _, n := range o.lines {
			n.lanes.Raise(o.horizon.Bound())
		}
	}
}

func within(r order.Read, n *line, trigger int32, lane int16, seq, last int64) bool {
	return trigger == n.trigger.ID && lane == r.Lane && seq > r.After && seq <= last
}

// entryOf makes the entry of an event. at is now by the server's clock.
func entryOf(e *queue.LaneEvent, asked, now, at time.Time) *order.Entry {
	c := e.Claimed
	entry := &order.Entry{ID: c.ID, Lane: e.Lane, Seq: c.Seq, Key: e.Key, Op: c.Op, Tries: c.Tries - 1, Move: e.Move == queue.MoveWaits, Read: asked, Load: &c, Weight: weight(&c)}
	waits := entry.Tries > 0 || c.DueAt.Sub(c.CreatedAt) >= time.Millisecond // it was tried, or is delayed
	if in := c.DueAt.Sub(at); waits && in > 0 {
		entry.Due = now.Add(in)
	}
	return entry
}
