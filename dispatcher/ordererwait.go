package dispatcher

import (
	"context"
	"time"

	"github.com/rowhook/rowhook/internal/order"
	"github.com/rowhook/rowhook/internal/queue"
)

// poll looks at what waits for another key: nobody notifies of its end. It has lanes read whose
// events wait for transactions to end.
func (o *orderer) poll() job {
	var tell []queue.LaneMove
	var told, leave, arrive []*order.Entry
	lines := map[*order.Entry]*line{}
	for id, n := range o.lines {
		if n.lanes.Unsure() {
			n.lanes.Mark()
		}
		if !n.lanes.Moving() {
			continue
		}
		m := n.lanes.Moves()
		for _, e := range m.Tell {
			tell = append(tell, queue.LaneMove{Event: e.ID, Owned: queue.Lane{Trigger: id, Lane: e.Lane, Epoch: n.lanes.Epoch(e.Lane)}})
		}
		for _, all := range [][]*order.Entry{m.Tell, m.Leave, m.Arrive} {
			for _, e := range all {
				lines[e] = n
			}
		}
		told, leave, arrive = append(told, m.Tell...), append(leave, m.Leave...), append(arrive, m.Arrive...)
	}
	if len(lines) == 0 {
		return nil
	}
	return func(ctx context.Context) (func(), error) {
		var gone [][16]byte
		var ready map[[16]byte]bool
		var err error
		if len(tell) > 0 {
			err = queue.MarkMovesReady(ctx, o.db.writes, o.self.id, tell)
		}
		if err == nil && len(leave) > 0 {
			gone, err = queue.FinishMoves(ctx, o.db.writes, ids16(leave))
		}
		if err == nil && len(arrive) > 0 {
			ready, err = queue.ReadMoves(ctx, o.db.claims, ids16(arrive))
		}
		if err != nil {
			return nil, err
		}
		return func() {
			now := time.Now()
			for _, e := range told {
				e.Told = true
			}
			left := map[[16]byte]bool{}
			for _, id := range gone {
				left[id] = true
			}
			for _, e := range leave {
				if left[e.ID] {
					lines[e].lanes.Left(e, now)
				}
			}
			for _, e := range arrive {
				if is, waits := ready[e.ID]; is || !waits {
					lines[e].lanes.Arrived(e, now)
				}
			}
		}, nil
	}
}

func ids16(entries []*order.Entry) [][16]byte {
	all := make([][16]byte, len(entries))
	for i, e := range entries {
		all[i] = e.ID
	}
	return all
}

// mostRechecked is how many entries are looked at again in one statement.
const mostRechecked = 500

// recheck looks whether events that have been in memory for long are still in the queue. Somebody
// may have discarded them, or have them sent sooner.
func (o *orderer) recheck(now time.Time) job {
	var all []*order.Entry
	lines := map[*order.Entry]*line{}
	add := func(n *line, some []*order.Entry) {
		for _, e := range some {
			if lines[e] == nil {
				lines[e] = n
				all = append(all, e)
			}
		}
	}
	timed := now.Sub(o.checked) >= watchEvery
	for _, n := range o.lines {
		add(n, n.lanes.Stale(mostRechecked))
		if timed {
			add(n, n.lanes.Timed(mostRechecked))
		}
	}
	if timed {
		o.checked = now
	}
	if len(all) == 0 {
		return nil
	}
	return func(ctx context.Context) (func(), error) {
		found, err := queue.ReadRemembered(ctx, o.db.claims, ids16(all))
		if err != nil {
			return nil, err
		}
		there := make(map[[16]byte]queue.Remembered, len(found))
		for _, r := range found {
			there[r.ID] = r
		}
		return func() {
			seen := time.Now()
			for _, e := range all {
				h, is := there[e.ID]
				due := time.Time{}
				if h.In > 0 {
					due = seen.Add(h.In)
				}
				lines[e].lanes.Seen(e, is, h.Tries, due, now, seen)
			}
		}, nil
	}
}
