package dispatcher

import (
	"time"

	"github.com/rowhook/rowhook/internal/order"
	"github.com/rowhook/rowhook/internal/queue"
)

// mostMerged is how many events of a key one may be sent in the stead of.
const mostMerged = 1_000

// most is how many events of a key are taken out at once, if there is room for so many.
func (n *line) most(room int) int {
	if n.trigger.Spec.Order.Latest {
		return mostMerged
	}
	return min(max(n.trigger.Spec.Batch.Max, 1), room)
}

// merge makes one delivery of events of a key of which only the newest is sent. Those that can't be
// merged are put back. It returns nil if the events come to nothing: then that is written.
func (o *orderer) merge(n *line, run order.Run, now time.Time) *delivery {
	changes := make([]order.Change, 0, len(run))
	for i, e := range run {
		if i > 0 && (loadOf(e).Held > 0 || n.suspects(e)) {
			break // only one that is sent by itself is fetched, or counted before it is sent
		}
		changes = append(changes, order.Change{Op: e.Op, Sent: e.Sent || e.Tries > 0 || e.Seq <= n.before[e.Lane]})
		if loadOf(e).Held > 0 || n.suspects(e) {
			break
		}
	}
	m := order.Merge(changes)
	for i := len(run) - 1; i >= m.N; i-- {
		n.lanes.Done(run[i], order.Returned, now)
	}
	last := run[m.N-1]
	d := o.deliver(n, last)
	if m.N == 1 {
		return d
	}
	p := d.placed
	p.over, p.merge = run[:m.N-1], &queue.Merge{FirstOld: m.FirstOld}
	for _, e := range p.over {
		p.merge.Over = append(p.merge.Over, queue.Passed{ID: e.ID, Tries: e.Tries + 1})
	}
	if m.Op == 0 {
		o.scheduler.hold(d)
		o.settler.add(d, queue.Settlement{Fate: queue.Annulled})
		return nil
	}
	if m.Op != last.Op {
		p.merge.Op, d.event.Op = m.Op, m.Op
	}
	if m.FirstOld {
		d.event.Old = loadOf(run[0]).Old
	}
	return d
}
