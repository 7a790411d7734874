package rowhooktest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/sink"
)

// Respond sets the statuses of the responses to the events of a trigger; "": of all. The first
// attempt of each event gets the first one, the second attempt the next one, and the last one
// repeats: Respond("order_placed", 503, 503, 200). Attempts count from this call on. Without Respond each event gets a 200.
func (h *Harness) Respond(trigger string, statuses ...int) {
	h.t.Helper()
	h.mustMeet(h.t, "Respond", trigger, nil)
	if len(statuses) == 0 {
		h.t.Fatalf("rowhooktest: Respond(%q): name at least one status", trigger)
	}
	for _, status := range statuses {
		if status < 200 || status > 599 {
			h.t.Fatalf("rowhooktest: Respond(%q): %d is no status of a response; use 200 to 599", trigger, status)
		}
	}
	if _, err := h.receiver.Behave(sink.Rule{Trigger: trigger, Behaviour: sink.Behaviour{Statuses: statuses}}); err != nil {
		h.t.Fatalf("rowhooktest: Respond(%q): %v", trigger, err)
	}
}

// Moment is a point in time for [Harness.SkipTo].
type Moment struct {
	trigger string
	matches []Match
	every   bool
}

// NextRetry is the moment of the next retry of each event of a trigger that waits for one, or of
// those that the matches choose by an attempt that has failed.
func NextRetry(trigger string, matches ...Match) Moment {
	return Moment{trigger: trigger, matches: matches}
}

// LastRetry is the moment when no event of the trigger waits for a retry any more: each one was
// delivered, or is a dead letter.
func LastRetry(trigger string, matches ...Match) Moment {
	return Moment{trigger: trigger, matches: matches, every: true}
}

// SkipTo lets a moment come now: retries that wait until then are due at once, whatever the
// configured interval and the receiver's Retry-After say. So an hour's backoff takes a test no time.
//
// To [NextRetry] it first waits until an attempt has failed and its retry waits. To [LastRetry] it
// returns when the last attempt has ended. It fails the test if nothing waits for a retry, or will.
func (h *Harness) SkipTo(t testing.TB, m Moment) {
	t.Helper()
	c := h.mustMeet(t, "SkipTo", m.trigger, m.matches)
	if m.trigger == "" {
		t.Fatalf("rowhooktest: SkipTo: name the trigger")
	}
	c.AllAttempts = true
	ctx, cancel := h.within(t, h.options.timeout)
	defer cancel()
	if err := h.skip(ctx, m, &c); err != nil {
		t.Fatalf("rowhooktest: SkipTo: %v%s", err, h.report(m.trigger))
	}
}

var errNoRetry = errors.New("no event waits for a retry, and none is being sent; let an attempt fail first, by Respond")

func (h *Harness) skip(ctx context.Context, m Moment, c *criteria) error {
	began, skipped := time.Now(), false
	_, err := h.look(ctx, m.trigger, func(left operate.Left) (bool, error) {
		ids, some := h.failed(m, c)
		if some {
			retried, err := operate.RetryNow(context.WithoutCancel(ctx), h.pool, operate.RetryOptions{Trigger: m.trigger, IDs: ids})
			if err != nil {
				return false, err
			}
			skipped = skipped || retried.Events > 0
		}
		switch {
		case skipped && !m.every:
			return true, nil
		case left.Events() > 0:
			return false, nil
		case skipped:
			return true, nil
		}
		return false, errNoRetry
	})
	switch {
	case !errors.Is(err, errTimeUp):
		return err
	case skipped:
		return fmt.Errorf("after %s the last retry has not ended", since(began))
	}
	return fmt.Errorf("after %s no event that is meant waits for a retry", since(began))
}

// failed returns the ids of the events that the matches choose. Without matches it returns none,
// which stands for all. some is false if the matches choose no event.
func (h *Harness) failed(m Moment, c *criteria) (ids []string, some bool) {
	if len(m.matches) == 0 {
		return nil, true
	}
	for _, e := range c.choose(h.receiver.List(c.Match)) {
		ids = append(ids, e.ID)
	}
	return ids, len(ids) > 0
}
