package rowhooktest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/sink"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
)

const (
	reportTime   = 5 * time.Second // a report that takes longer is left out
	reportEvents = 3               // of each kind are described
	longestSQL   = 120             // bytes of SQL in a report
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
	lines = append(lines, h.describeUncommitted(ctx)...)
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
		lines := []string{"the queue has no event" + of + " that is waiting, in flight, retrying or dead"}
		if len(h.receiver.List(sink.Match{Trigger: trigger})) == 0 {
			lines = append(lines, h.settings.expects(trigger))
		}
		return lines, nil
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

// expects says what a trigger sends, for a test to which nothing was sent.
func (in *installation) expects(name string) string {
	for _, s := range in.triggers {
		if s.Name != name {
			continue
		}
		text := fmt.Sprintf("%s sends %s of %s", s.Name, operations(s.On), s.Watches())
		if s.When != "" {
			text += " when " + term.Shorten(s.When, longestSQL)
		}
		return text + ": was it made, and committed?"
	}
	return "was the change committed, and does a trigger send it: its operation, its columns, its when?"
}

// operations lists what a trigger captures, for people.
func operations(on trigger.On) string {
	var parts []string
	add := func(given bool, part string) {
		if given {
			parts = append(parts, part)
		}
	}
	add(on.Insert, "insert")
	if columns := on.Update.Columns; columns != nil {
		add(on.Update.Enabled, "update of "+pg.JoinOr(columns))
	} else {
		add(on.Update.Enabled, "update")
	}
	add(on.Delete, "delete")
	add(on.Truncate, "truncate")
	add(on.Manual, "rowhook.emit")
	return strings.Join(parts, ", ")
}

// describeUncommitted lists the transactions that have written and not ended. Nothing that they have
// changed is sent before.
func (h *Harness) describeUncommitted(ctx context.Context) []string {
	type transaction struct{ Name, Statement string }
	open, err := pg.Collect[transaction](ctx, h.pool, `
select 'transaction of session ' || pid as name, coalesce(query, '') as statement
  from pg_catalog.pg_stat_activity
 where datname = current_database() and backend_xid is not null and application_name not like 'rowhook %'
   and (state <> 'active' or wait_event_type = 'Lock')
union all
select 'prepared transaction ' || gid, '' from pg_catalog.pg_prepared_xacts where database = current_database()
order by 1 limit $1`, reportEvents)
	if err != nil {
		return []string{"the open transactions can't be read: " + err.Error()}
	}
	var lines []string
	for _, o := range open {
		line := "not committed: the " + o.Name
		if o.Statement != "" {
			line += ", whose last statement is " + term.Shorten(strings.Join(strings.Fields(o.Statement), " "), longestSQL)
		}
		lines = append(lines, line)
	}
	return lines
}

// describeEvent describes one event, and what happens next.
func (h *Harness) describeEvent(ctx context.Context, e operate.Event) string {
	text := fmt.Sprintf("%s %s %s: ", e.Trigger, e.Op, e.Table)
	d, err := operate.Show(ctx, h.pool, e.ID)
	if err != nil {
		return text + string(e.State)
	}
	text += string(d.State) // that of its log, which may be newer than e's
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
