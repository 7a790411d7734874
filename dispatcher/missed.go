package dispatcher

import (
	"context"
	"time"

	"github.com/rowhook/rowhook/listener"
	"github.com/rowhook/rowhook/sqlschema"
)

// suspects are new events that the interval poll found while writers should have rung for them, by trigger. It may have come just
// before their notification, so they count as missed only once that had time to arrive.
type suspects struct {
	polling bool // the next claim is the poll's
	polled  time.Time
	events  map[int32]int
}

// ringWithin is how long a notification may take behind its commit.
const ringWithin = 200 * time.Millisecond

// expectNothing says that nothing but the poll makes the next claim look.
func (c *claimer) expectNothing(now time.Time) {
	if len(c.tell.onMissed) == 0 {
		return
	}
	c.suspects.polling = c.listens && c.bell.State() == listener.Ringing && c.board.quiet()
	if c.suspects.events == nil {
		c.suspects.polled = now
	}
}

// suspect takes in what a claim brought.
func (c *claimer) suspect(events []sqlschema.Claimed) {
	if !c.suspects.polling {
		return
	}
	c.suspects.polling = false
	for i := range events {
		if events[i].Tries != 1 || !c.board.rings(events[i].Trigger) {
			continue
		}
		if c.suspects.events == nil {
			c.suspects.events = map[int32]int{}
		}
		c.suspects.events[events[i].Trigger]++
	}
}

// judge tells of the suspects for whose triggers nobody rang since. Where another dispatcher had asked for silence nobody was to.
func (c *claimer) judge(ctx context.Context, now time.Time) error {
	if c.suspects.events == nil || now.Sub(c.suspects.polled) < ringWithin {
		return nil
	}
	missed := 0
	for trigger, n := range c.suspects.events {
		if !c.board.rangSince(trigger, c.suspects.polled) {
			missed += n
		}
	}
	c.suspects.events = nil
	if missed == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	w, err := sqlschema.Look(ctx, c.claims)
	if err != nil {
		return err
	}
	if w.Doorbell == sqlschema.Ringing && c.bell.State() == listener.Ringing {
		c.tell.missed(missed)
	}
	return nil
}

// quiet reports that no lane is to be looked at.
func (b *board) quiet() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.dirty) == 0
}

// rings reports that writers of a trigger's events notify.
func (b *board) rings(id int32) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok := b.lanes[id]
	return ok && l.trigger.Spec.Notify != sqlschema.NotifyNever
}

func (b *board) rangSince(trigger int32, at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok := b.lanes[trigger]
	return !ok || l.rang.After(at)
}
