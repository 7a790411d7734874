package dispatcher

import (
	"context"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/listener"
)

// offer is what the claimer knows of rowhook.handover: to whom writers hand events over while they
// ring. Whoever has armed the bell last has them handed over to itself. Another instance takes over when
// it sees at a watch that nobody has them, or somebody who does not show that he lives.
type offer struct {
	handover queue.Handover // as last written or read
	vacant   bool           // nobody has it, by the latest watch
	again    time.Time      // when to look whether what is refused can be handed over; zero: nothing is
	// The holder, when it was last seen alive, and since when that has not changed.
	holder int32
	seen   int64
	since  time.Time
}

// watched reads what the peers' loop has read.
func (o *offer) watched(w *queue.Watch, self int32, now time.Time) {
	o.handover = w.Handover
	holder := w.Handover.Instance
	if holder == self {
		o.vacant, o.holder = false, 0
		return
	}
	var seen int64
	for _, i := range w.Instances {
		if i.ID == holder {
			seen = i.Seen
		}
	}
	if holder != o.holder || seen != o.seen {
		o.holder, o.seen, o.since = holder, seen, now
	}
	// It beats each second.
	o.vacant = holder == 0 || !w.IsAlive(holder) || now.Sub(o.since) >= watchEvery
}

// takeOver is what the bell says when this instance arms it.
func (c *claimer) takeOver() queue.Handover {
	if c.muted || c.db.schema.version.Load() < queue.HandoverSchema {
		return queue.Handover{}
	}
	c.offer = offer{}
	c.offer.handover.Instance = c.self.id
	c.offer.handover.Refused, c.offer.again = c.scheduler.refuses()
	return c.offer.handover
}

// renewOffer has writers hand over to this instance while its bell rings, if nobody else has it. It
// keeps what is refused up to date.
func (c *claimer) renewOffer(ctx context.Context) error {
	if c.db.schema.version.Load() < queue.HandoverSchema {
		c.endOffer(ctx) // it may have been made as the schema went down
		return nil
	}
	c.offer.again = time.Time{}
	if state := c.bell.State(); c.muted || state != listener.Ringing && state != listener.Arming {
		return nil // what it says means nothing while the bell is silent
	}
	mine := c.offer.handover.Instance == c.self.id
	if !mine && !c.offer.vacant {
		return nil
	}
	want := queue.Handover{Instance: c.self.id}
	want.Refused, c.offer.again = c.scheduler.refuses()
	if mine && want == c.offer.handover {
		return nil
	}
	if err := queue.SetHandover(ctx, c.db.claims, want); err != nil {
		return err
	}
	c.offer.handover, c.offer.vacant = want, false
	return nil
}

// endOffer has writers hand over to this instance no more.
func (c *claimer) endOffer(ctx context.Context) {
	was := c.offer
	c.offer = offer{}
	if was.handover.Instance != c.self.id {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if err := queue.EndHandover(ctx, c.db.claims, c.self.id); err != nil {
		c.log.Debug("can't end the hand-over to this instance; what is handed over is looked for when a session listens again", "error", err)
	}
}
