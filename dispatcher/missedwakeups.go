package dispatcher

import (
	"context"
	"time"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/listener"
)

// unannounced are new events that the interval poll found although writers should have notified.
// The poll may have run just before their notification arrived, so reportMissed waits for
// claimer.ringWithin.
type unannounced struct {
	polling bool          // nothing but the interval poll makes the next claim look
	polled  time.Time     // when the poll ran that found the first of events
	events  map[int32]int // how many, by trigger; nil: none
}

// ringWithin is claimer.ringWithin of a dispatcher.
const ringWithin = 200 * time.Millisecond

// expectAnnounced is called before a claim that the interval poll causes. If nothing else causes
// that claim, every new event that it finds should have been announced by a notification.
func (c *claimer) expectAnnounced(now time.Time) {
	if len(c.tell.onMissed) == 0 {
		return
	}
	c.unannounced.polling = c.listens && c.bell.State() == listener.Ringing && c.scheduler.quiet()
	if c.unannounced.events == nil {
		c.unannounced.polled = now
	}
}

// noteUnannounced counts the new events of a claim that only the interval poll has caused.
func (c *claimer) noteUnannounced(events []queue.Claimed) {
	if !c.unannounced.polling {
		return
	}
	c.unannounced.polling = false
	for i := range events {
		if events[i].Tries != 1 || !c.scheduler.rings(events[i].Trigger) {
			continue
		}
		if c.unannounced.events == nil {
			c.unannounced.events = map[int32]int{}
		}
		c.unannounced.events[events[i].Trigger]++
	}
}

// reportMissed counts events found by polling whose notification never arrived. It reports nothing
// while another dispatcher has silenced the doorbell, because then no notification is expected.
func (c *claimer) reportMissed(ctx context.Context, now time.Time) error {
	if c.unannounced.events == nil || now.Sub(c.unannounced.polled) < c.ringWithin {
		return nil
	}
	missed := 0
	for trigger, n := range c.unannounced.events {
		if !c.scheduler.rangSince(trigger, c.unannounced.polled) {
			missed += n
		}
	}
	c.unannounced.events = nil
	if missed == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	w, err := queue.ReadWatch(ctx, c.db.claims)
	if err != nil {
		return err
	}
	if w.Doorbell == queue.Ringing && c.bell.State() == listener.Ringing {
		c.tell.missed(missed)
	}
	return nil
}
