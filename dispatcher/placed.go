package dispatcher

import (
	"sync/atomic"
	"time"

	"github.com/rowhook/rowhook/internal/order"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// placed is the place of a delivery in the order of its key. A delivery that was claimed has none.
type placed struct {
	line   *line
	entry  *order.Entry
	over   []*order.Entry // events that it is sent in the stead of
	lane   queue.Lane     // of the queue, with the epoch under which it is sent
	grant  *grant
	merge  *queue.Merge
	run    *order.Entry // the first of several events of its key that go in one request; nil: it is one
	tried  bool         // a request with it was begun
	blocks bool         // if it becomes a dead letter, it holds its key
	// suspect says that an attempt is counted before it is made, in case the event is what ends the
	// dispatchers that send it. noted says that this may have been done.
	suspect, noted bool
}

// grant is the right to send the events of a lane. It ends when another instance may have the lane.
type grant struct {
	over   atomic.Bool
	doubts int64     // pulse.doubts when the lane was claimed. An instance that is buried has no lanes
	deadly bool      // several owners have died with the lane
	leaves time.Time // when the lane was last to be given back
}

// conclusion is what became of a placed delivery.
type conclusion struct {
	dl    *delivery
	fate  queue.Fate // Released: it was not sent, or its outcome could not be written
	delay time.Duration
	doubt bool // not all that was written with it was found in the queue
	lost  bool // the lane was another instance's, and nothing was written
}

// line is an ordered trigger in the orderer. Its loop owns all but urgent.
type line struct {
	trigger orderedTrigger
	lanes   *order.Lanes
	grants  map[int16]*grant
	doubted map[int16]time.Time // lanes that others may have had since
	before  map[int16]int64     // numbers of lanes up to which another owner may have sent events
	expired time.Time           // when heads were last looked for that have expired
	gone    bool                // it is not an ordered trigger any more, or this instance can't send for it
	unsure  bool                // the answer of a claim was lost, so that this instance may have lanes that it does not know of
	// urgent says that slots are free while keys wait for nothing but a settlement.
	urgent atomic.Bool
}

// deadlyFrom is how many owners have to die with a lane, one after another, for its events to be
// suspected. One crash is no event's fault, and costs no write for each key.
const deadlyFrom = 2

// suspects reports whether an event may be what ends dispatchers. It was in flight when the last
// owner of the lane died, as far as this one can know: it was there already, and is the first of its
// key.
func (n *line) suspects(e *order.Entry) bool {
	g := n.grants[e.Lane]
	return loadOf(e).Interrupted || g != nil && g.deadly && e.First && e.Seq <= n.before[e.Lane]
}

// together returns the first events of a run that may be in one request, and puts the others back.
// An event that has failed before, or whose payload is fetched when it is sent, is one by itself: its
// request may not be that of the next one of its key.
func (n *line) together(run order.Run, now time.Time) order.Run {
	const around = 1 << 10 // what a body has beside the payload, and more
	size, limit := 0, n.trigger.Spec.Batch.Bytes
	if limit <= 0 {
		limit = trigger.DefaultBatchBytes
	}
	for i, e := range run {
		size += weight(loadOf(e)) + around
		alone := e.Tries > 0 || loadOf(e).Held > 0
		if i > 0 && (alone || run[0].Tries > 0 || loadOf(run[0]).Held > 0 || size > int(limit)) {
			for _, rest := range run[i:] {
				n.lanes.Done(rest, order.Returned, now)
			}
			return run[:i]
		}
	}
	return run
}

// granted reports whether the events of a lane may be sent, if pulse.doubts is as given.
func (n *line) granted(lane int16, doubts int64) bool { return n.grants[lane].holds(doubts) }

// holds reports whether the right has not ended. doubts is what pulse.doubts is now.
func (g *grant) holds(doubts int64) bool { return g != nil && !g.over.Load() && g.doubts == doubts }

// revoke ends the right to send the events of a lane.
func (n *line) revoke(lane int16) {
	if g := n.grants[lane]; g != nil {
		g.over.Store(true)
		delete(n.grants, lane)
	}
}
