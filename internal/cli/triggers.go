package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/hint"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func (a *app) triggersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "triggers [NAME]",
		Short: "List the triggers that are applied, with URL, retry and state",
		Long: `List the triggers that are applied: the table, the operations, what happens after a failed attempt, the state and the
URL. References such as ${ORDERS_URL} are shown as they are, and passwords are not shown. Removed triggers are listed
while they have events. With a NAME everything about one trigger is shown, except what may be secret.

RETRY "5 x 10s" means up to 5 attempts after the first one, each 10 s after the one before; "12 x 10s..1h exponential"
means that the time doubles up to an hour. The state is the first of these that applies: removed, uncaptured (changes of
the table are not recorded), unable (a dispatcher can't send for it), paused, failing (its endpoint fails, and its events wait),
attempts fail (the last ones did, each is retried by itself), active.`,
		Example: `  rowhook triggers
  rowhook triggers order_placed
  rowhook triggers --json | jq -r '.triggers[] | select(.state != "active") | .name'`,
		Args: cobra.MaximumNArgs(1),
	}
	o := a.operating(cmd)
	o.across = true
	o.look = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			if len(args) == 1 {
				t, err := operate.ReadTrigger(ctx, conn, args[0])
				if err != nil {
					return err
				}
				if o.json {
					return a.printJSON(t)
				}
				a.showTrigger(&t)
				return nil
			}
			all, err := operate.ListTriggers(ctx, conn)
			if err != nil {
				return err
			}
			if o.json {
				return a.printJSON(map[string]any{"triggers": all})
			}
			a.showTriggers(all)
			return nil
		})
	}
	return cmd
}

func (a *app) showTriggers(all []operate.Trigger) {
	if len(all) == 0 {
		fmt.Fprintln(a.stderr, "There are no triggers: write a rowhook.yaml (rowhook init writes one to begin with), and run \"rowhook apply\".")
		return
	}
	page, now := a.page(), time.Now()
	t := page.Table("TRIGGER", "STATE", "TABLE", "ON", "RETRY", "URL")
	const on, retry = 3, 4 // their columns
	for i := range all {
		g := &all[i]
		t.Add(term.Text(g.Name), triggerState(g, now), term.Text(g.Table), term.Text(operations(g)), term.Text(retries(g.Retry)), term.Text(g.URL))
	}
	for _, column := range []int{retry, on} {
		if !t.Fits() {
			t.Drop(column)
		}
	}
	t.Stack = true
	t.Flush()
	for i := range all {
		a.showProblems(page, &all[i], all[i].Name+"  ")
	}
}

func (a *app) showTrigger(g *operate.Trigger) {
	page, now := a.page(), time.Now()
	line := func(name, value string) {
		if value != "" {
			page.Paragraph(term.Cell{Text: fmt.Sprintf("%-13s", name), Colour: term.Bold}, term.Text(value))
		}
	}
	line("trigger", g.Name)
	if len(g.Tables) > 0 {
		line("watches", g.Table)
	} else {
		line("table", g.Table)
	}
	line("state", triggerState(g, now).Text)
	if g.Pause != nil {
		by := fmt.Sprintf("%s by %s", term.Ago(g.Pause.At, now), g.Pause.By)
		if g.Pause.Reason != "" {
			by += ": " + g.Pause.Reason
		}
		line("paused", by)
	}
	line("on", operations(g))
	line("when", g.When)
	line("columns", strings.Join(g.Columns, ", "))
	line("payload", payloadOptions(g.Payload))
	line("masked", strings.Join(g.Mask, ", "))
	line("at", g.At)
	line("capture", g.Capture)
	if g.OnReplication {
		line("", "changes of replication, too")
	}
	line("url", g.URL)
	line("method", g.Method)
	line("format", g.Format)
	line("compress", g.Compress)
	line("headers", strings.Join(g.Headers, ", "))
	signed := "no"
	if g.Signed {
		signed = "yes"
	}
	line("signed", signed)
	if g.OAuth2 {
		line("oauth2", "yes")
	}
	if g.TLS != nil {
		line("ca file", g.TLS.CAFile)
		line("cert file", g.TLS.CertFile)
		line("key file", g.TLS.KeyFile)
	}
	line("timeout", trigger.Duration(time.Duration(g.TimeoutMS)*time.Millisecond).String())
	line("retry", retries(g.Retry))
	line("delay", g.Delay)
	line("retention", keeping(g.Retention))
	line("order", ordering(g.Order))
	line("batch", batching(g.Batch))
	line("rate", rating(g.Rate))
	line("concurrency", inFlight(g.Concurrency, g.ConcurrencyTotal))
	if g.Breaker == trigger.BreakerOff {
		line("breaker", g.Breaker)
	}
	line("notify", g.Notify)
	line("events", fmt.Sprintf("%s owed, %s dead", term.Digits(g.Owed), term.Digits(g.Dead)))
	if g.LastErrorAt != nil {
		line("last error", term.Ago(*g.LastErrorAt, now)+": "+g.LastError)
	}
	if g.Health != nil {
		line("endpoint", g.Health.Explain(now))
	}
	a.showProblems(page, g, "")
	if len(g.Tables) > 0 {
		page.Printf("\n")
		showTables(page, "", g.Tables)
	}
}

// showTables lists the tables of a trigger with several, headed by its name unless that is empty.
func showTables(page *term.Page, trigger string, tables []sqlschema.WatchedTable) {
	head := "TABLE"
	if trigger != "" {
		head += " OF " + trigger
	}
	t := page.Table(head, "STATE", "")
	for i := range tables {
		state := term.Coloured("watched", term.Green)
		switch w := &tables[i]; {
		case w.Problem != "":
			state = term.Coloured("uncaptured", term.Red)
		case !w.Watched:
			state = term.Coloured("not watched", term.Yellow)
		}
		note := tables[i].Problem
		if note == "" {
			note = tables[i].Note
		}
		t.Add(term.Text(tables[i].Table), state, term.Text(note))
	}
	t.Stack = true
	t.Flush()
}

// showProblems says what keeps changes of a trigger from being recorded or sent.
func (a *app) showProblems(page *term.Page, g *operate.Trigger, head string) {
	for _, w := range g.Problems {
		text := w.Problem
		if w.Remedy != "" {
			text += ": " + hint.Of(a.sourceName(), w.Remedy)
		}
		page.Paragraph(term.Cell{Text: head, Colour: term.Bold}, term.Coloured(text, term.Red))
	}
}

// triggerState is the state of a trigger in a few words.
func triggerState(g *operate.Trigger, now time.Time) term.Cell {
	switch g.State {
	case operate.TriggerRemoved:
		left := "no events"
		if n := g.Owed + g.Dead; n > 0 {
			left = term.Plural(n, "event")
		}
		return term.Coloured("removed, "+left, term.Dim)
	case operate.TriggerPaused:
		return term.Coloured("paused", term.Yellow)
	case operate.TriggerFailing:
		lasting := term.Span(now.Sub(*g.FailingSince))
		if g.Health == nil || g.Health.State != "failing" {
			return term.Coloured("attempts fail, "+lasting, term.Red) // single ones, and its events don't wait
		}
		return term.Coloured("failing for "+lasting, term.Red)
	case operate.TriggerUncaptured, operate.TriggerUnable:
		return term.Coloured(string(g.State), term.Red)
	}
	return term.Coloured(string(g.State), term.Green)
}

// payloadOptions says what a payload has besides columns of all operations.
func payloadOptions(p trigger.Payload) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	for _, of := range []struct {
		operation string
		trigger.PayloadOf
	}{{"insert", p.Insert}, {"update", p.Update}, {"delete", p.Delete}} {
		if !of.IsZero() {
			add(of.operation, "("+strings.Join(of.Columns, " ")+")")
		}
	}
	add("old", p.Old)
	if p.Changed {
		parts = append(parts, "names of changed columns")
	}
	add("numbers", p.Numbers)
	return strings.Join(parts, ", ")
}

// operations says what a trigger captures.
func operations(g *operate.Trigger) string {
	var parts []string
	if g.On.Insert {
		parts = append(parts, "insert")
	}
	if g.On.Update.Enabled {
		update := "update"
		if columns := g.On.Update.Columns; columns != nil {
			update += "(" + strings.Join(columns, " ") + ")"
		}
		parts = append(parts, update)
	}
	if g.On.Delete {
		parts = append(parts, "delete")
	}
	if g.On.Truncate {
		parts = append(parts, "truncate")
	}
	if g.On.Manual {
		parts = append(parts, "manual")
	}
	text := strings.Join(parts, ", ")
	if g.When != "" {
		text += " when ..."
	}
	return text
}

// retries says what happens after a failed attempt.
func retries(r trigger.Retry) string {
	text := "none"
	switch {
	case len(r.Schedule) > 0:
		waits := make([]string, len(r.Schedule))
		for i, w := range r.Schedule {
			waits[i] = w.String()
		}
		text = fmt.Sprintf("%d x %s", r.Limit, strings.Join(waits, ", "))
	case r.Limit > 0:
		text = fmt.Sprintf("%d x %s", r.Limit, r.Interval)
		if r.Backoff == trigger.BackoffExponential {
			if r.MaxInterval > r.Interval {
				text += ".." + r.MaxInterval.String()
			}
			text += " exponential"
		}
	}
	for _, s := range r.Statuses {
		text += "; " + s.Range() + " " + s.Then
	}
	if r.MaxAge > 0 {
		text += "; at most " + r.MaxAge.String()
	}
	return text
}

// keeping says how long history of a trigger is kept, where that is its own.
func keeping(r *trigger.OwnRetention) string {
	var parts []string
	if r != nil && r.Delivered != nil {
		parts = append(parts, "delivered "+r.Delivered.String())
	}
	if r != nil && r.Attempts != nil {
		parts = append(parts, "attempts "+r.Attempts.String())
	}
	return strings.Join(parts, ", ")
}

// ordering says in which order events are sent.
func ordering(o *operate.TriggerOrder) string {
	if o == nil {
		return ""
	}
	text := "by " + strings.Join(o.By, ", ")
	if slices.Equal(o.By, []string{trigger.OrderByRow}) {
		text = "by the primary key"
	}
	if o.Strict {
		text += ", strict"
	}
	if o.Latest {
		text += ", only the latest"
	}
	if o.OnDead == trigger.OnDeadBlock {
		text += ", a dead letter blocks its key"
	}
	return text
}

// batching says how many events a request takes.
func batching(b *trigger.Batch) string {
	if b == nil {
		return ""
	}
	text := fmt.Sprintf("up to %d events or %s", b.Max, b.Bytes)
	if b.Wait > 0 {
		text += fmt.Sprintf(", waits up to %s", b.Wait)
	}
	return text
}

// rating says how many requests are sent in a time.
func rating(r *trigger.Rate) string {
	if r == nil {
		return ""
	}
	text := r.Limit.String()
	if r.Burst > 1 {
		text += fmt.Sprintf(", bursts of %d", r.Burst)
	}
	if r.HeldBy != "" {
		text += ", over all sources, held by " + r.HeldBy
	}
	return text
}

// inFlight says how many attempts may be in flight.
func inFlight(each, total int) string {
	var parts []string
	if each > 0 {
		parts = append(parts, fmt.Sprintf("%d in each dispatcher", each))
	}
	if total > 0 {
		parts = append(parts, fmt.Sprintf("%d in all", total))
	}
	return strings.Join(parts, ", ")
}
