package dispatcher

import (
	"sync/atomic"
	"time"

	"github.com/rowhook/rowhook/internal/order"
	"github.com/rowhook/rowhook/internal/queue"
)

// placed is the place of a delivery in the order of its key. A delivery that was claimed has none.
type placed struct {
	line   *line
	entry  *order.Entry
	over   []*order.Entry // events that it is sent in the stead of
	lane   queue.Lane     // of the queue, with the epoch under which it is sent
	grant  *grant
	merge  *queue.Merge
	blocks bool // if it becomes a dead letter, it holds its key
}

// grant is the right to send the events of a lane. It ends when another instance may have the lane.
type grant struct{ over atomic.Bool }

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
	gone    bool // it is not an ordered trigger any more, or this instance can't send for it
	// urgent says that slots are free while keys wait for nothing but a settlement.
	urgent atomic.Bool
}

// revoke ends the right to send the events of a lane.
func (n *line) revoke(lane int16) {
	if g := n.grants[lane]; g != nil {
		g.over.Store(true)
		delete(n.grants, lane)
	}
}
