package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/hint"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/internal/term"
)

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how everything stands",
		Long: `Show for each trigger how many events wait, are in flight, are retried and are dead, how many were delivered and how
many attempts failed in the last hour, how long deliveries take, and whether the receiver fails or does not answer. 95 of
100 deliveries took no longer than P95, from the change or the redelivery. Below that it shows the dispatchers, the
doorbell, what holds back vacuum, the history and the version of the schema. It takes the same time however many events
there are: ~ marks figures that are estimated. With --tables it lists the tables of triggers that watch several.

The dispatchers record every few seconds what was done in the last hour and in the last minute.`,
		Example: `  rowhook status
  rowhook status --watch 5s
  rowhook status --json | jq '.triggers[] | select(.dead > 0) | .name'`,
	}
	o := a.operating(cmd)
	o.across = true
	o.look = true
	var every time.Duration
	var tables bool
	cmd.Flags().BoolVar(&tables, "tables", false, "list the tables of triggers that watch several")
	cmd.Flags().Var((*durationFlag)(&every), "watch", "show it again and again, every two seconds or as `often` as this says, until Ctrl-C")
	cmd.Flags().Lookup("watch").NoOptDefVal = "2s"
	cmd.Flags().Lookup("watch").DefValue = ""
	cmd.Args = func(cmd *cobra.Command, args []string) error { // --watch 5s means --watch=5s
		if len(args) == 1 && cmd.Flags().Changed("watch") {
			return (*durationFlag)(&every).Set(args[0])
		}
		return cobra.NoArgs(cmd, args)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		watch := cmd.Flags().Changed("watch")
		if watch && every < leastWatch {
			return usagef("--watch: %s is too often: write %s or more", every, leastWatch)
		}
		once := func(ctx context.Context, a *app, conn *pgx.Conn) error {
			return a.showStatus(ctx, conn, a.page(), o.json, tables)
		}
		if watch && a.looksAtSeveral() {
			return a.watchSeveral(cmd, o, every, once)
		}
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			if !watch {
				return once(ctx, a, conn)
			}
			return a.watch(ctx, every, !o.json, func(page *term.Page) error { return a.showStatus(ctx, conn, page, o.json, tables) })
		})
	}
	return cmd
}

func (a *app) showStatus(ctx context.Context, conn *pgx.Conn, page *term.Page, asJSON, tables bool) error {
	s, err := operate.ReadStatus(ctx, conn)
	if err == nil && tables {
		err = s.ReadTables(ctx, conn)
	}
	if err != nil {
		return err
	}
	s.NameSource(a.sourceName())
	if asJSON {
		return writeJSON(page, s)
	}
	statusPage{page, s, a.sourceName()}.show()
	return nil
}

// statusPage shows a status to people.
type statusPage struct {
	*term.Page
	*operate.Status
	source string // that commands name; "": there is one database
}

func (p statusPage) hint(format string, args ...any) string {
	return hint.Of(p.source, fmt.Sprintf(format, args...))
}

func (p statusPage) show() {
	p.warnings()
	p.triggers()
	p.rest()
}

// warnings come first: a person has to see to them.
func (p statusPage) warnings() {
	if len(p.Warnings) == 0 {
		return
	}
	for _, w := range p.Warnings {
		line := w.Problem
		if w.Trigger != "" {
			line = w.Trigger + ": " + line
		}
		if w.Remedy != "" {
			line += ": " + w.Remedy
		}
		p.Paragraph(term.Text("! "), term.Coloured(line, term.Red))
	}
	p.Printf("\n")
}

func (p statusPage) triggers() {
	if len(p.Triggers) == 0 {
		p.Printf("%s", p.hint("There are no triggers: make some with \"rowhook apply\".\n"))
		return
	}
	t := p.Table("TRIGGER", "WAITING>", "IN FLIGHT>", "RETRYING>", "DEAD>", "OLDEST>", "SENT/H>", "FAIL/H>", "P50>", "P95>")
	const p50 = 8 // its column
	t.Fit()
	for i := range p.Triggers {
		t.Add(p.cells(&p.Triggers[i])...)
	}
	if !t.Fits() {
		t.Gap = 1
		t.Drop(p50)
	}
	t.Stack = true
	t.Flush()
	p.Printf("\n")
	for i := range p.Triggers {
		p.notes(&p.Triggers[i])
	}
	for i := range p.Triggers {
		if st := &p.Triggers[i]; len(st.Tables) > 0 {
			showTables(p.Page, st.Name, st.Tables)
			p.Printf("\n")
		}
	}
}

// cells are the row of a trigger.
func (p statusPage) cells(st *operate.TriggerStatus) []term.Cell {
	figure := func(n int64, name string, bad term.Colour) term.Cell {
		f := term.Number(n)
		if slices.Contains(st.Estimated, name) {
			f.Text = "~" + f.Text
		}
		if n > 0 {
			f.Colour = bad
		}
		return f
	}
	name := term.Text(st.Name)
	switch {
	case st.Removed:
		name = term.Coloured(st.Name+" (removed)", term.Dim)
	case st.Paused:
		name = term.Coloured(st.Name+" (paused)", term.Yellow)
	}
	oldest := "-"
	if st.OldestAt != nil {
		oldest = term.Span(p.Now.Sub(*st.OldestAt))
	}
	return []term.Cell{
		name, figure(st.Waiting, "waiting", term.Plain), figure(st.InFlight, "in_flight", term.Plain),
		figure(st.Retrying, "retrying", term.Yellow), figure(st.Dead, "dead", term.Red), term.Figure(oldest),
		term.Number(st.DeliveredLastHour), figure(st.FailedLastHour, "failed", term.Yellow), latency(st.P50MS), latency(st.P95MS),
	}
}

func latency(ms *float64) term.Cell {
	if ms == nil {
		return term.Figure("-")
	}
	return term.Figure(term.Span(time.Duration(*ms * float64(time.Millisecond))))
}

// hangsAfter is how long an attempt may be in flight before the status says so.
const hangsAfter = 5 * time.Second

// notes say what is wrong with a trigger's receiver, or was.
func (p statusPage) notes(st *operate.TriggerStatus) {
	name := term.Cell{Text: st.Name + "  ", Colour: term.Bold}
	if h := st.Health; h != nil && !st.Removed {
		p.Paragraph(name, term.Coloured(h.Explain(p.Now), term.Red))
	}
	for _, h := range st.Hanging {
		p.Paragraph(name, term.Coloured(p.hint("the receiver does not answer: %s in flight from dispatcher %d to %s, the oldest was begun %s; to break off and send again: rowhook cancel %s",
			term.Plural(int64(h.Attempts), "attempt"), h.InstanceID, h.Endpoint, term.Ago(h.Since, p.Now), st.Name), term.Yellow))
	}
	if at := st.OldestInFlightAt; at != nil && len(st.Hanging) == 0 && p.Now.Sub(*at) > hangsAfter {
		p.Paragraph(name, term.Coloured(fmt.Sprintf("the receiver does not answer: the oldest of %s in flight was begun %s",
			term.Plural(st.InFlight, "attempt"), term.Ago(*at, p.Now)), term.Yellow))
	}
	if st.BlockedKeys > 0 {
		p.blocked(name, st)
	}
	if st.LastErrorAt == nil {
		return
	}
	failure := term.Ago(*st.LastErrorAt, p.Now) + ": " + st.LastError
	if st.Failing && st.Health != nil && !st.Removed {
		return // it says so, and why
	}
	if st.Failing {
		p.Paragraph(name, term.Coloured("fails, last "+failure, term.Red))
		return
	}
	p.Paragraph(name, term.Coloured("has recovered; the last error was "+failure, term.Dim))
}

// blocked says which keys dead letters hold, and what to do.
func (p statusPage) blocked(name term.Cell, st *operate.TriggerStatus) {
	const most = 3
	said := int64(0)
	for i := range p.Blocked {
		b := &p.Blocked[i]
		if b.Trigger != st.Name || said == most {
			continue
		}
		said++
		behind := term.Plural(b.Waiting, "event") + " behind it"
		if b.More {
			behind = "at least " + behind
		}
		p.Paragraph(name, term.Coloured(fmt.Sprintf("the key %s has been held by a dead letter for %s, with %s: %s", b.Key, term.Span(p.Now.Sub(b.Since)), behind, b.Remedy), term.Red))
	}
	if more := st.BlockedKeys - said; more > 0 {
		p.Paragraph(name, term.Coloured(p.hint("dead letters hold %s more: rowhook events list --trigger %s --state dead", term.Plural(more, "key"), st.Name), term.Red))
	}
}

// statusLines are names and what is said of each.
type statusLines struct{ heads, bodies []term.Cell }

func (l *statusLines) add(name string, body term.Cell) {
	l.heads, l.bodies = append(l.heads, term.Cell{Text: name, Colour: term.Bold}), append(l.bodies, body)
}

// rest shows what is no trigger's.
func (p statusPage) rest() {
	var l statusLines
	p.dispatchers(&l)
	p.pauses(&l)
	p.rates(&l)
	p.backlog(&l)
	for _, h := range p.History {
		days := "no partitions"
		if n := len(h.Partitions); n > 0 {
			days = fmt.Sprintf("%s to %s, %s", h.Partitions[0].Day, h.Partitions[n-1].Day, term.Plural(int64(n), "partition"))
		}
		l.add(h.Table, term.Text(term.Bytes(h.Bytes)+", "+days))
	}
	l.add("retention", term.Text(retention(p.Retention)))
	for _, b := range p.Backfills {
		l.add("backfill", term.Text(fmt.Sprintf("of %s, interrupted or under way: %s of about %s read, last %s",
			b.Trigger, term.Digits(b.Scanned), term.Digits(b.Expected), term.Ago(b.TouchedAt, p.Now))))
	}
	for _, r := range p.Replays {
		state := "interrupted"
		if r.Running {
			state = "running"
		}
		l.add("replay", term.Text(fmt.Sprintf("of %s, %s: %s of %s sent again, last %s",
			r.Trigger, state, term.Digits(r.Replayed), term.Digits(r.Expected), term.Ago(r.TouchedAt, p.Now))))
	}
	schema := term.Text(fmt.Sprintf("version %d", p.Schema.Database))
	if p.Schema.Database != p.Schema.Program {
		schema = term.Coloured(fmt.Sprintf("version %d, and this program knows %d", p.Schema.Database, p.Schema.Program), term.Yellow)
	}
	l.add("schema", schema)
	widest := 0
	for _, h := range l.heads {
		widest = max(widest, term.Columns(h.Text))
	}
	for i, h := range l.heads {
		h.Text += strings.Repeat(" ", widest-term.Columns(h.Text)) + "  "
		p.Paragraph(h, l.bodies[i])
	}
}

func (p statusPage) dispatchers(l *statusLines) {
	if len(p.Instances) == 0 {
		l.add("dispatchers", term.Coloured("none: nothing is delivered until one runs (rowhook run)", term.Red))
	}
	for _, in := range p.Instances {
		how := "listens"
		if !in.Listens {
			how = "polls"
		}
		state := term.Text(fmt.Sprintf("%s  %s  started %s, %s", in.Name, in.Version, term.Ago(in.StartedAt, p.Now), how))
		if !in.Alive {
			state.Text, state.Colour = state.Text+", dead: its events are given back in a moment", term.Red
		}
		l.add(fmt.Sprintf("dispatcher %d", in.ID), state)
	}
	if len(p.Standby) > 0 {
		names := make([]string, len(p.Standby))
		for i, by := range p.Standby {
			names[i] = by.Name
		}
		l.add("standing by", term.Text(strings.Join(names, ", ")))
	}
}

// pauses say who paused what, when and why.
func (p statusPage) pauses(l *statusLines) {
	why := func(what string, pause *queue.Pause) {
		text := fmt.Sprintf("%s, %s, by %s", what, term.Ago(pause.At, p.Now), pause.By)
		if pause.Reason != "" {
			text += ": " + pause.Reason
		}
		l.add("paused", term.Coloured(text, term.Yellow))
	}
	if p.AllPaused != nil {
		why("all triggers, and those to come", p.AllPaused)
	}
	for i := range p.Triggers {
		if st := &p.Triggers[i]; st.Pause != nil && (p.AllPaused == nil || *st.Pause != *p.AllPaused) {
			why(st.Name, st.Pause)
		}
	}
}

// rates say what was done within the last minute.
func (p statusPage) rates(l *statusLines) {
	r := p.Rates
	text := fmt.Sprintf("%.1f delivered and %.1f failed a second", r.DeliveredPerS, r.FailedPerS)
	if r.P50MS != nil && r.P95MS != nil {
		text += fmt.Sprintf(", P50 %s, P95 %s", latency(r.P50MS).Text, latency(r.P95MS).Text)
	}
	l.add("last minute", term.Text(text))
}

// backlog says whether writers notify, how large the queue is, and who keeps vacuum from it.
func (p statusPage) backlog(l *statusLines) {
	bell := "ringing: writers notify"
	switch {
	case p.Doorbell.State == "ringing":
	case len(p.Instances) == 0 || p.Doorbell.InstanceID == 0:
		bell = "silent: no dispatcher runs that writers could notify"
	default:
		bell = fmt.Sprintf("silent: dispatcher %d is awake and looks by itself", p.Doorbell.InstanceID)
	}
	l.add("doorbell", term.Text(bell))
	vacuumed := "never vacuumed"
	if p.Queue.LastVacuumedAt != nil {
		vacuumed = "vacuumed " + term.Ago(*p.Queue.LastVacuumedAt, p.Now)
	}
	l.add("queue", term.Text(fmt.Sprintf("%s, %s, %s", term.Bytes(p.Queue.Bytes), term.Plural(p.Queue.DeadTuples, "dead tuple"), vacuumed)))
	if p.Vacuum == nil {
		l.add("vacuum", term.Text("held back by nobody"))
		return
	}
	since := ""
	if p.Vacuum.Since != nil {
		since = " for " + term.Span(p.Now.Sub(*p.Vacuum.Since))
	}
	l.add("vacuum", term.Coloured(fmt.Sprintf("held back by %s%s, %s: %s",
		p.Vacuum, since, term.Plural(p.Vacuum.Age, "transaction"), p.Vacuum.Remedy()), term.Yellow))
}

// retention writes the retention that rowhook.yaml sets.
func retention(setting json.RawMessage) string {
	var all map[string]any
	if json.Unmarshal(setting, &all) != nil {
		return string(setting)
	}
	var parts []string
	for name, value := range all {
		parts = append(parts, fmt.Sprintf("%s %v", strings.ReplaceAll(name, "_", " "), value))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
