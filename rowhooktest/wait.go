package rowhooktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/sink"
)

// Wait returns the first event of a trigger that the matches choose, once it has arrived and was
// answered with a 2xx status: at once if that was so before. trigger may be "" for all. If it does
// not arrive in time, Wait fails the test, and says what did arrive, how the nearest differs, and
// what the queue holds.
func (h *Harness) Wait(t testing.TB, trigger string, matches ...Match) Event {
	t.Helper()
	return h.waitFor(t, "Wait", trigger, 1, matches)[0]
}

// WaitN is Wait for n events. It returns them in the order in which they arrived. More may arrive.
func (h *Harness) WaitN(t testing.TB, trigger string, n int, matches ...Match) []Event {
	t.Helper()
	if n < 1 {
		t.Fatalf("rowhooktest: WaitN: n is %d, and must be 1 or more; use Never for none", n)
	}
	return h.waitFor(t, "WaitN", trigger, n, matches)
}

// waitFor waits for n events, and fails the test if they do not arrive.
func (h *Harness) waitFor(t testing.TB, method, trigger string, n int, matches []Match) []Event {
	t.Helper()
	c := h.mustMeet(t, method, trigger, matches)
	ctx, cancel := h.within(t, h.options.timeout)
	defer cancel()
	events, failure := h.await(ctx, &c, n)
	if failure != "" {
		t.Fatalf("rowhooktest: %s: %s%s", method, failure, h.report(trigger))
	}
	return events[:n]
}

// await waits for n events, or returns why they have not arrived.
func (h *Harness) await(ctx context.Context, c *criteria, n int) (events []Event, failure string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(h.delivery.running, cancel)
	defer stop()
	for wanted := n; ; {
		deliveries, miss := h.receiver.Await(ctx, c.Match, wanted)
		events = c.choose(deliveries)
		switch {
		case len(events) >= n:
			return events, ""
		case miss != nil:
			return nil, c.explain(miss, events, deliveries, n)
		}
		wanted = len(deliveries) + 1
	}
}

// explain describes a miss, and what the functions have left out.
func (c *criteria) explain(miss *sink.Miss, events []Event, deliveries []sink.Delivery, n int) string {
	if len(c.functions) == 0 || len(deliveries) == 0 {
		return miss.String()
	}
	var places []string
	for _, f := range c.functions {
		places = append(places, f.place)
	}
	miss.Wanted = n
	miss.Got = len(events)
	miss.Nearest = nil
	return fmt.Sprintf("%s\n%d fit otherwise, but not by %s", miss, len(deliveries)-len(events), strings.Join(places, " and "))
}

// Never fails the test if an event of the trigger that the matches choose was sent, whatever was
// answered. It does not wait for a time, but until no event of the trigger is waiting or in flight:
// then every event that was committed before has been sent at least once. So commit first.
func (h *Harness) Never(t testing.TB, trigger string, matches ...Match) {
	t.Helper()
	c := h.mustMeet(t, "Never", trigger, matches)
	ctx, cancel := h.within(t, h.options.timeout)
	defer cancel()
	if err := h.drain(ctx, trigger); err != nil {
		t.Fatalf("rowhooktest: Never: %v%s", err, h.report(trigger))
	}
	c.AllAttempts = true
	ended, end := context.WithCancel(ctx)
	end() // what was sent has arrived
	deliveries, miss := h.receiver.Await(ended, c.Match, 1)
	if miss != nil {
		return
	}
	if unwanted := c.choose(deliveries); len(unwanted) > 0 {
		miss = h.receiver.Never(ended, c.Match)
		t.Fatalf("rowhooktest: Never: %s", describeUnwanted(miss, unwanted))
	}
}

func describeUnwanted(miss *sink.Miss, unwanted []Event) string {
	if miss != nil {
		return miss.String()
	}
	return fmt.Sprintf("%d events arrived, wanted none, such as %s", len(unwanted), unwanted[0])
}

// Order waits for one event for each match, and fails the test if their first deliveries that were
// answered with a 2xx status did not arrive in this order. Rowhook promises no order by itself. Use
// [All] for several matches of one event.
func (h *Harness) Order(t testing.TB, trigger string, each ...Match) []Event {
	t.Helper()
	var events []Event
	for i, match := range each {
		e := h.waitFor(t, fmt.Sprintf("Order: event %d", i+1), trigger, 1, []Match{match})[0]
		if i > 0 && e.sequence <= events[i-1].sequence {
			t.Fatalf("rowhooktest: Order: event %d arrived before event %d:\n  %s\n  %s", i+1, i, e, events[i-1])
		}
		events = append(events, e)
	}
	return events
}

// Drain waits until no event of the triggers is waiting or in flight; no names: of all triggers. It
// fails the test if that takes too long. Retries that wait for a later time do not count.
func (h *Harness) Drain(t testing.TB, triggers ...string) {
	t.Helper()
	ctx, cancel := h.within(t, h.options.timeout)
	defer cancel()
	if len(triggers) == 0 {
		triggers = []string{""}
	}
	for _, trigger := range triggers {
		h.mustMeet(t, "Drain", trigger, nil)
		if err := h.drain(ctx, trigger); err != nil {
			t.Fatalf("rowhooktest: Drain: %v%s", err, h.report(trigger))
		}
	}
}

// lookEvery is the longest pause between two looks at the queue. An outcome that is written ends the
// pause.
const lookEvery = 50 * time.Millisecond

// drain returns when no event of a trigger is waiting or in flight.
func (h *Harness) drain(ctx context.Context, trigger string) error {
	began := time.Now()
	left, err := h.look(ctx, trigger, func(left operate.Left) (bool, error) {
		return left.Waiting+left.InFlight == 0, nil
	})
	if errors.Is(err, errTimeUp) {
		return fmt.Errorf("after %s there are still %d events waiting and %d in flight", since(began), left.Waiting, left.InFlight)
	}
	return err
}

var errTimeUp = errors.New("the time is up")

// look looks at the queue until enough returns true: at first, after each outcome, and each
// lookEvery. It returns errTimeUp when ctx has ended.
func (h *Harness) look(ctx context.Context, trigger string, enough func(operate.Left) (bool, error)) (operate.Left, error) {
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		settled := h.delivery.settled.rings()
		left, err := h.left(ctx, trigger)
		if err != nil {
			return left, fmt.Errorf("look at the queue: %w", err)
		}
		if done, err := enough(left); done || err != nil {
			return left, err
		}
		timer.Reset(lookEvery)
		select {
		case <-ctx.Done():
			return left, errTimeUp
		case <-h.delivery.done:
			return left, h.delivery.gone()
		case <-settled:
		case <-timer.C:
		}
	}
}

// since returns how long ago a time is, for messages.
func since(began time.Time) time.Duration { return time.Since(began).Round(100 * time.Millisecond) }

// left counts the unsettled events of a trigger, or of all.
func (h *Harness) left(ctx context.Context, trigger string) (operate.Left, error) {
	var names []string
	if trigger != "" {
		names = []string{trigger}
	}
	once, end := context.WithCancel(context.WithoutCancel(ctx))
	end() // it then looks once
	all, err := operate.Drain(once, h.pool, names, nil)
	var sum operate.Left
	for _, l := range all {
		sum.Waiting += l.Waiting
		sum.InFlight += l.InFlight
		sum.Retrying += l.Retrying
	}
	return sum, err
}

// mustMeet adds up matches. It fails the test if one is malformed or the trigger is unknown.
func (h *Harness) mustMeet(t testing.TB, method, trigger string, matches []Match) criteria {
	t.Helper()
	c, err := meet(trigger, matches)
	if trigger != "" {
		err = errors.Join(h.settings.known(trigger), err)
	}
	if err != nil {
		t.Fatalf("rowhooktest: %s: %v", method, err)
	}
	return c
}
