package dispatcher

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/rowhook/rowhook/internal/order"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/sorting"
)

// leaveAll hands nothing more out. doubtful says that other instances may have the lanes already.
func (n *line) leaveAll(doubtful bool) {
	for lane := range n.lanes.Owned() {
		n.lanes.Leave(lane)
	}
	if !doubtful {
		return
	}
	for lane := range n.lanes.Leaving() { // also those that were to be given back
		n.revoke(lane)
		if _, is := n.doubted[lane]; !is { // since then nothing of it was sent
			n.doubted[lane] = time.Now()
		}
	}
}

// take begins with a lane that this instance has claimed. doubts is what pulse.doubts was before.
func (n *line) take(l queue.TakenLane, doubts int64) {
	lane := l.Lane.Lane
	n.revoke(lane)
	delete(n.doubted, lane)
	n.grants[lane] = &grant{doubts: doubts, deadly: l.Deaths >= deadlyFrom}
	n.before[lane] = math.MaxInt64 // until the first read of the lane
	n.lanes.Take(lane, l.Epoch)
}

// seats looks who owns which lanes, says which triggers this instance serves, and reads which keys
// dead letters hold.
func (o *orderer) seats() job {
	serves := slices.Clone(o.serves)
	o.served = serves
	var left []int32
	blocks := map[int32]bool{}
	for id, n := range o.lines {
		if n.gone && n.unsure {
			left = append(left, id)
			continue
		}
		// A dead letter may have gone back into its place just before the trigger lost on_dead: block.
		blocks[id] = n.trigger.options().Blocks || n.lanes.Held() > 0
	}
	return func(ctx context.Context) (func(), error) {
		seats, err := queue.ReadSeats(ctx, o.db.claims, o.self.id, serves, left)
		if err != nil {
			return func() { o.rebalance = true }, err
		}
		at := time.Now()
		var held []queue.Lane
		for _, s := range seats {
			if blocks[s.Trigger] {
				held = append(held, s.Mine...)
			}
		}
		holds, err := o.holds(ctx, held)
		return func() {
			for i := range seats {
				o.seat(&seats[i])
			}
			if err == nil {
				o.holding(held, holds, at)
			}
		}, err
	}
}

func (o *orderer) holds(ctx context.Context, lanes []queue.Lane) ([]queue.Blocked, error) {
	if len(lanes) == 0 {
		return nil, nil
	}
	return queue.ReadBlocked(ctx, o.db.claims, lanes)
}

// holding takes in the dead letters that hold keys of lanes, as read at a time.
func (o *orderer) holding(lanes []queue.Lane, all []queue.Blocked, at time.Time) {
	of, holds := map[int32][]int16{}, map[int32][]order.Hold{}
	for _, l := range lanes {
		of[l.Trigger] = append(of[l.Trigger], l.Lane)
	}
	for _, b := range all {
		holds[b.Trigger] = append(holds[b.Trigger], order.Hold{ID: b.ID, Lane: b.Lane, Seq: b.Seq, Key: b.Key})
	}
	for id, lanes := range of {
		if n := o.lines[id]; n != nil {
			n.lanes.Holds(lanes, holds[id], at, time.Now())
		}
	}
}

// doubtedFor is how long attempts may take to end that were begun before this instance was taken for
// dead. Then their lanes are claimed anew, and their outcomes are void.
const doubtedFor = 5 * time.Second

// seat compares the lanes of a trigger that are this instance's with what it believes, and with its
// share.
func (o *orderer) seat(s *queue.Seats) {
	n := o.lines[s.Trigger]
	if n == nil {
		return
	}
	n.unsure = false
	if n.gone {
		for _, l := range s.Mine {
			if n.lanes.Epoch(l.Lane) == 0 {
				n.take(queue.TakenLane{Lane: l}, o.doubts)
				n.lanes.Leave(l.Lane)
			}
		}
		return
	}
	mine := map[int16]int64{}
	for _, l := range s.Mine {
		mine[l.Lane] = l.Epoch
	}
	owned := n.lanes.Owned()
	for lane, epoch := range owned {
		// Without a grant no event of the lane is sent. It is given back, and claimed anew.
		if mine[lane] != epoch || !n.granted(lane, o.doubts) {
			n.revoke(lane)
			n.lanes.Leave(lane)
			delete(owned, lane)
		}
	}
	// The answer of a claim was lost, or others may have had the lane while this instance was taken
	// for dead. What was begun under its old epoch must not be settled any more. If nobody had the lane,
	// it may still be, unless it hangs.
	var anew []int16
	leaving := 0
	for _, l := range s.Mine {
		_, is := owned[l.Lane]
		switch {
		case n.lanes.Epoch(l.Lane) != l.Epoch, !n.granted(l.Lane, o.doubts) && time.Since(n.doubted[l.Lane]) > doubtedFor:
			anew = append(anew, l.Lane)
		case !is:
			leaving++
		}
	}
	serving := max(int(s.Serving), 1)
	share := (queue.Lanes + serving - 1) / serving
	// Those with the fewest requests in flight are free the soonest.
	byWork := sorting.By(slices.Collect(maps.Keys(owned)), func(a, b int16) int {
		return cmp.Or(cmp.Compare(n.lanes.Busy(a), n.lanes.Busy(b)), cmp.Compare(b, a))
	})
	now := time.Now()
	for _, lane := range byWork[:max(0, len(byWork)-share)] {
		n.grants[lane].leaves = now
		n.lanes.Leave(lane)
	}
	n.stay(now, o.doubts)
	lack := min(share-len(owned)-leaving, int(s.Free)+len(anew))
	if lack = max(lack, len(anew)); lack > 0 {
		o.lacks = append(o.lacks, queue.LaneWant{Trigger: s.Trigger, Most: int32(lack), Anew: anew})
	}
}

// stay keeps lanes that were to be given back, and of which an attempt hangs. With them the other
// keys of such a lane would wait until the trigger's timeout. At the next look they may be chosen
// again.
func (n *line) stay(now time.Time, doubts int64) {
	for lane, idle := range n.lanes.Leaving() {
		if g := n.grants[lane]; !idle && g.holds(doubts) && now.Sub(g.leaves) > stallAfter {
			n.lanes.Stay(lane)
		}
	}
}

// claim takes free lanes.
func (o *orderer) claim() job {
	lacks := o.lacks
	o.lacks = nil
	if len(lacks) == 0 {
		return nil
	}
	blocks := map[int32]bool{}
	for id, n := range o.lines {
		blocks[id] = n.trigger.options().Blocks
	}
	doubts := o.doubts
	return func(ctx context.Context) (func(), error) {
		lanes, err := queue.ClaimLanes(ctx, o.db.writes, o.self.id, lacks)
		at := time.Now()
		var held []queue.Lane
		for _, l := range lanes {
			if blocks[l.Trigger] {
				held = append(held, l.Lane)
			}
		}
		var holds []queue.Blocked
		if err == nil {
			holds, err = o.holds(ctx, held)
		}
		return func() {
			if err != nil || o.pulse.doubts.Load() != doubts { // the next look at the seats finds them
				o.rebalance = true
				for _, w := range lacks {
					if n := o.lines[w.Trigger]; n != nil {
						n.unsure = true
					}
				}
				return
			}
			for _, l := range lanes {
				if n := o.lines[l.Trigger]; n != nil {
					n.take(l, doubts)
					if n.gone { // meanwhile; others can serve it
						n.lanes.Leave(l.Lane.Lane)
					}
				}
			}
			o.holding(held, holds, at)
			if len(lanes) > 0 {
				o.log.Debug("took lanes of ordered triggers", "lanes", len(lanes))
			}
		}, err
	}
}

// idle returns the lanes that can be given back: nothing of them is in flight.
func (o *orderer) idle() (all []queue.Lane) {
	for id, n := range o.lines {
		for lane, idle := range n.lanes.Leaving() {
			if idle {
				all = append(all, queue.Lane{Trigger: id, Lane: lane, Epoch: n.lanes.Epoch(lane)})
			}
		}
	}
	return all
}

// give gives lanes back that are not needed, or may be another instance's.
func (o *orderer) give() job {
	lanes := o.idle()
	if len(lanes) == 0 {
		for id, n := range o.lines {
			if n.gone && !n.unsure && len(n.lanes.Leaving()) == 0 {
				delete(o.lines, id)
			}
		}
		return nil
	}
	return func(ctx context.Context) (func(), error) {
		if err := o.releaseLanes(ctx, lanes); err != nil {
			return nil, err
		}
		return func() { o.gave(lanes) }, nil
	}
}

// releaseLanes gives lanes back and tells the others, who lack them. If they can't be told, they
// find the lanes at their next watch.
func (o *orderer) releaseLanes(ctx context.Context, lanes []queue.Lane) error {
	if _, err := queue.ReleaseLanes(ctx, o.db.writes, o.self.id, lanes); err != nil {
		return err
	}
	if err := queue.NotifyPeers(ctx, o.db.claims, queue.LanesPayload); err != nil {
		o.log.Debug("can't tell the other instances that lanes are free; they find them at their next watch", "error", err)
	}
	return nil
}

func (o *orderer) gave(lanes []queue.Lane) {
	for _, l := range lanes {
		if n := o.lines[l.Trigger]; n != nil && n.lanes.Epoch(l.Lane) == l.Epoch {
			n.revoke(l.Lane)
			delete(n.doubted, l.Lane)
			n.lanes.Drop(l.Lane)
		}
	}
	o.rebalance = o.rebalance || len(o.serves) > 0
}

// release gives back the lanes of which nothing is in flight, when the loop has ended. It is called
// again when all is settled.
func (o *orderer) release(ctx context.Context) {
	o.absorb(time.Now())
	if len(o.lines) == 0 {
		return
	}
	for _, n := range o.lines {
		n.leaveAll(false)
	}
	_, err := queue.ReadSeats(ctx, o.db.writes, o.self.id, nil, nil)
	lanes := o.idle()
	if err == nil && len(lanes) > 0 {
		err = o.releaseLanes(ctx, lanes)
	}
	if err != nil {
		o.log.Debug("can't give lanes back before stopping; others take them when this instance is gone", "error", err)
		return
	}
	for _, l := range lanes {
		o.lines[l.Trigger].lanes.Drop(l.Lane)
	}
}
