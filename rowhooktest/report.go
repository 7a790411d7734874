package rowhooktest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/sink"
)

const (
	reportTime   = 5 * time.Second // a report that takes longer is left out
	reportEvents = 3               // of each kind are described
)

// report says what the queue holds of a trigger, and what is wrong with it, for a test that fails. It
// begins with a line break.
func (h *Harness) report(trigger string) string {
	ctx, cancel := context.WithTimeout(context.Background(), reportTime)
	defer cancel()
	var lines []string
	if err := h.delivery.gone(); err != nil {
		lines = append(lines, err.Error())
	}
	events, err := h.describeEvents(ctx, trigger)
	if err != nil {
		lines = append(lines, "the queue can't be read: "+err.Error())
	}
	lines = append(lines, events...)
	lines = append(lines, h.describeTrouble(ctx, trigger)...)
	lines = append(lines, h.unsigned(trigger)...)
	if len(lines) == 0 {
		return ""
	}
	return "\n" + strings.Join(lines, "\n")
}

// describeEvents describes the unsettled and the dead events of a trigger.
func (h *Harness) describeEvents(ctx context.Context, trigger string) ([]string, error) {
	f := operate.Filter{States: []operate.State{operate.Waiting, operate.InFlight, operate.Retrying, operate.Dead}}
	if trigger != "" {
		f.Triggers = []string{trigger}
	}
	page, err := operate.List(ctx, h.pool, f, operate.ListOptions{Limit: reportEvents + 1})
	if err != nil {
		return nil, err
	}
	of := ""
	if trigger != "" {
		of = " of " + trigger
	}
	if len(page.Events) == 0 {
		return []string{"the queue has no event" + of + " that is waiting, in flight, retrying or dead"}, nil
	}
	lines := []string{"the queue has" + of + ":"}
	for i, e := range page.Events {
		if i == reportEvents {
			lines = append(lines, "  and more")
			break
		}
		lines = append(lines, "  "+h.describeEvent(ctx, e))
	}
	return lines, nil
}

// describeEvent describes one event, and what happens next.
func (h *Harness) describeEvent(ctx context.Context, e operate.Event) string {
	text := fmt.Sprintf("%s %s %s: %s", e.Trigger, e.Op, e.Table, e.State)
	d, err := operate.Show(ctx, h.pool, e.ID)
	if err != nil {
		return text
	}
	if n := len(d.Log); n > 0 {
		text += fmt.Sprintf(", attempt %d: %s", d.Log[n-1].Number, outcome(&d.Log[n-1]))
	}
	if d.Next != "" {
		text += "; " + d.Next
	}
	return text
}

// describeTrouble lists what the status warns of.
func (h *Harness) describeTrouble(ctx context.Context, trigger string) []string {
	status, err := operate.ReadStatus(ctx, h.pool)
	if err != nil {
		return []string{"the status can't be read: " + err.Error()}
	}
	var lines []string
	for _, t := range status.Triggers {
		if t.Paused && (trigger == "" || t.Name == trigger) {
			lines = append(lines, fmt.Sprintf("the trigger %s is paused", t.Name))
		}
	}
	for _, w := range status.Warnings {
		if w.Trigger != "" && trigger != "" && w.Trigger != trigger {
			continue
		}
		line := "warning: " + w.Problem
		if w.Remedy != "" {
			line += "; " + w.Remedy
		}
		lines = append(lines, line)
	}
	return lines
}

// unsigned says whether requests had a wrong signature.
func (h *Harness) unsigned(trigger string) []string {
	for _, d := range h.receiver.List(sink.Match{Trigger: trigger}) {
		if d.Signature == sink.Invalid {
			return []string{"a request of " + d.Trigger + " had an invalid signature: " + d.SignatureProblem}
		}
	}
	return nil
}

// outcome says how an attempt went.
func outcome(a *operate.Attempt) string {
	switch {
	case a.Error != "":
		return a.Error
	case a.Status != nil:
		return fmt.Sprintf("answered %d", *a.Status)
	}
	return "not answered"
}
