package rowhooktest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rowhook/rowhook/internal/operate"
)

// DeadLetter is an event that ran out of attempts.
type DeadLetter struct {
	Event

	Attempts int    // how many there were
	Reason   string // why it is dead, such as the status of the last attempt
}

// DeadLetters returns the dead letters of a trigger that the matches choose, oldest first; trigger ""
// is all. It waits until no event of the trigger is waiting or in flight, so that what is being sent
// counts. Use [Harness.SkipTo] with [LastRetry] before it, if there are retries.
func (h *Harness) DeadLetters(t testing.TB, trigger string, matches ...Match) []DeadLetter {
	t.Helper()
	c := h.mustMeet(t, "DeadLetters", trigger, matches)
	ctx, cancel := h.within(t, h.options.timeout)
	defer cancel()
	if err := h.drain(ctx, trigger); err != nil {
		t.Fatalf("rowhooktest: DeadLetters: %v%s", err, h.report(trigger))
	}
	letters, err := h.deadLetters(ctx, &c)
	if err != nil {
		t.Fatalf("rowhooktest: DeadLetters: %v", err)
	}
	return letters
}

func (h *Harness) deadLetters(ctx context.Context, c *criteria) ([]DeadLetter, error) {
	f := operate.Filter{States: []operate.State{operate.Dead}}
	if c.Trigger != "" {
		f.Triggers = []string{c.Trigger}
	}
	var found []operate.Event
	for cursor := ""; ; {
		page, err := operate.List(ctx, h.pool, f, operate.ListOptions{Payload: true, Cursor: cursor})
		if err != nil {
			return nil, fmt.Errorf("list the dead letters: %w", err)
		}
		found = append(found, page.Events...)
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	slices.Reverse(found) // a page begins with the newest
	return chooseLetters(found, c)
}

func chooseLetters(found []operate.Event, c *criteria) ([]DeadLetter, error) {
	var bodies []string
	byID := map[string]operate.Event{}
	for i := range found {
		body, err := bodyOf(&found[i])
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
		byID[found[i].ID] = found[i]
	}
	all, err := collectEvents(bodies)
	if err != nil {
		return nil, err
	}
	letters := []DeadLetter{}
	for _, e := range all.choose(c) {
		letters = append(letters, DeadLetter{Event: e, Attempts: byID[e.ID].Attempts, Reason: byID[e.ID].Reason})
	}
	return letters, nil
}

// bodyOf returns the body of an event, as far as matches look at it.
func bodyOf(e *operate.Event) (string, error) {
	schema, table, _ := strings.Cut(e.Table, ".")
	payload := operate.Payload{}
	if e.Payload != nil {
		payload = *e.Payload
	}
	type object = map[string]any
	body, err := json.Marshal(object{
		"id": e.ID, "created_at": e.CreatedAt.UTC().Format(time.RFC3339Nano), "table": object{"schema": schema, "name": table},
		"trigger": object{"name": e.Trigger},
		"event": object{
			"op": e.Op, "data": object{"old": payload.Old, "new": payload.New},
			"session_variables": payload.SessionVariables, "trace_context": payload.TraceContext,
		},
	})
	if err != nil {
		return "", fmt.Errorf("read the dead letter %s: %w", e.ID, err)
	}
	return string(body), nil
}
