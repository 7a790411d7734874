package console

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
)

func (c *console) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how everything stands",
		Long: `Show per trigger what waits, is in flight, is retried and is dead, what was delivered and what failed in the last hour,
how long deliveries take (95 of 100 no longer than P95, from the change or the redelivery), and whether it fails or hangs; and the dispatchers, the doorbell, what holds back vacuum, the history and
the schema version. It takes the same time however many events there are: ~ marks figures that are estimated.

What was done in the last hour is recorded by the dispatchers every few seconds.`,
		Example: `  rowhook status
  rowhook status --watch 5s
  rowhook status --json | jq '.triggers[] | select(.dead > 0) | .name'`,
	}
	o := c.common(cmd)
	o.look = true
	var every time.Duration
	cmd.Flags().Var((*durationFlag)(&every), "watch", "show it again and again, every two seconds or as `often` as this says, until Ctrl-C")
	cmd.Flags().Lookup("watch").NoOptDefVal = "2s"
	cmd.Flags().Lookup("watch").DefValue = ""
	cmd.Args = func(cmd *cobra.Command, args []string) error { // --watch 5s is as --watch=5s
		if len(args) == 1 && cmd.Flags().Changed("watch") {
			return (*durationFlag)(&every).Set(args[0])
		}
		return cobra.NoArgs(cmd, args)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		watch := cmd.Flags().Changed("watch")
		if watch && every < leastWatch {
			return c.Usage(fmt.Errorf("--watch: %s is too often: write %s or more", every, leastWatch))
		}
		return c.work(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
			if !watch {
				return c.showStatus(ctx, conn, o.json)
			}
			return c.watch(ctx, every, !o.json, func(c *console) error { return c.showStatus(ctx, conn, o.json) })
		})
	}
	return cmd
}

func (c *console) showStatus(ctx context.Context, conn *pgx.Conn, asJSON bool) error {
	s, err := operate.ReadStatus(ctx, conn)
	if err != nil {
		return err
	}
	if asJSON {
		return c.printJSON(s)
	}
	c.showWarnings(s)
	c.showTriggers(s)
	c.showRest(s)
	return nil
}

// showWarnings writes what a person has to see to before all else.
func (c *console) showWarnings(s *operate.Status) {
	if len(s.Warnings) == 0 {
		return
	}
	for _, w := range s.Warnings {
		line := w.Problem
		if w.Trigger != "" {
			line = w.Trigger + ": " + line
		}
		if w.Remedy != "" {
			line += ": " + w.Remedy
		}
		c.paragraph("! ", cell{}, coloured(line, red))
	}
	c.printf("\n")
}

func (c *console) showTriggers(s *operate.Status) {
	if len(s.Triggers) == 0 {
		c.printf("There are no triggers: make some with \"rowhook apply\".\n")
		return
	}
	t := c.table("TRIGGER", "WAITING>", "IN FLIGHT>", "RETRYING>", "DEAD>", "OLDEST>", "SENT/H>", "FAIL/H>", "P50>", "P95>")
	t.width = c.width()
	for i := range s.Triggers {
		t.add(triggerCells(s, &s.Triggers[i])...)
	}
	if !t.fits() {
		t.gap = 1
		for i, row := range t.rows { // without P50
			t.rows[i] = slices.Delete(row, 8, 9)
		}
	}
	t.stack = true
	t.flush()
	c.printf("\n")
	for i := range s.Triggers {
		c.triggerNotes(s, &s.Triggers[i])
	}
}

func triggerCells(s *operate.Status, st *operate.TriggerStatus) []cell {
	figure := func(n int64, name string, bad colour) cell {
		f := number(n)
		if slices.Contains(st.Estimated, name) {
			f.text = "~" + f.text
		}
		if n > 0 {
			f.colour = bad
		}
		return f
	}
	name := text(st.Name)
	switch {
	case st.Removed:
		name = coloured(st.Name+" (removed)", dim)
	case st.Paused:
		name = coloured(st.Name+" (paused)", yellow)
	}
	oldest := "-"
	if st.OldestAt != nil {
		oldest = span(s.Now.Sub(*st.OldestAt))
	}
	return []cell{
		name, figure(st.Waiting, "waiting", plain), figure(st.InFlight, "in_flight", plain), figure(st.Retrying, "retrying", yellow), figure(st.Dead, "dead", red),
		{text: oldest, right: true}, number(st.DeliveredLastHour), figure(st.FailedLastHour, "failed", yellow), milliseconds(st.P50MS), milliseconds(st.P95MS),
	}
}

// hangsAfter is for how long an attempt may be in flight before the status says so.
const hangsAfter = 5 * time.Second

// triggerNotes say what is wrong with a trigger's receiver, or was.
func (c *console) triggerNotes(s *operate.Status, st *operate.TriggerStatus) {
	if at := st.OldestInFlightAt; at != nil && s.Now.Sub(*at) > hangsAfter {
		c.paragraph(st.Name+"  ", cell{colour: bold}, coloured(fmt.Sprintf("the receiver does not answer: the oldest of %s was begun %s",
			plural(st.InFlight, "attempt")+" in flight", ago(*at, s.Now)), yellow))
	}
	switch {
	case st.LastErrorAt == nil:
	case st.Failing:
		c.paragraph(st.Name+"  ", cell{colour: bold}, coloured("fails, last "+ago(*st.LastErrorAt, s.Now)+": "+st.LastError, red))
	default:
		c.paragraph(st.Name+"  ", cell{colour: bold}, coloured("has recovered; the last error was "+ago(*st.LastErrorAt, s.Now)+": "+st.LastError, dim))
	}
}

func milliseconds(ms *float64) cell {
	if ms == nil {
		return cell{text: "-", right: true}
	}
	return cell{text: span(time.Duration(*ms * float64(time.Millisecond))), right: true}
}

func (c *console) showRest(s *operate.Status) {
	var names []string
	var values []cell
	widest := 0
	line := func(name string, value cell) {
		names, values = append(names, name), append(values, value)
		widest = max(widest, len(name))
	}
	if len(s.Instances) == 0 {
		line("dispatchers", coloured("none: nothing is delivered until one runs (rowhook run)", red))
	}
	for _, in := range s.Instances {
		state, how := cell{}, "listens"
		if !in.Listens {
			how = "polls"
		}
		state = text(fmt.Sprintf("%s  %s  started %s, %s", in.Name, in.Version, ago(in.StartedAt, s.Now), how))
		if !in.Alive {
			state.text, state.colour = state.text+", dead: its events are given back in a moment", red
		}
		line(fmt.Sprintf("dispatcher %d", in.ID), state)
	}
	c.pauseLines(s, line)
	bell := "ringing: writers notify"
	if s.Doorbell.State != "ringing" {
		bell = fmt.Sprintf("silent: dispatcher %d is awake and looks by itself", s.Doorbell.InstanceID)
		if len(s.Instances) == 0 || s.Doorbell.InstanceID == 0 {
			bell = "silent: no dispatcher runs that writers could notify"
		}
	}
	line("doorbell", text(bell))
	vacuumed := "never vacuumed"
	if s.Queue.LastVacuumedAt != nil {
		vacuumed = "vacuumed " + ago(*s.Queue.LastVacuumedAt, s.Now)
	}
	line("queue", text(fmt.Sprintf("%s, %s, %s", size(s.Queue.Bytes), plural(s.Queue.DeadTuples, "dead tuple"), vacuumed)))
	if s.Vacuum == nil {
		line("vacuum", text("held back by nobody"))
	} else {
		since := ""
		if s.Vacuum.Since != nil {
			since = ", since " + ago(*s.Vacuum.Since, s.Now)
		}
		line("vacuum", coloured(fmt.Sprintf("held back by %s%s, %s: %s", s.Vacuum, since, plural(s.Vacuum.Age, "transaction"), s.Vacuum.Remedy()), yellow))
	}
	for _, h := range s.History {
		days := "no partitions"
		if n := len(h.Partitions); n > 0 {
			days = fmt.Sprintf("%s to %s, %s", h.Partitions[0].Day, h.Partitions[n-1].Day, plural(int64(n), "partition"))
		}
		line(h.Table, text(size(h.Bytes)+", "+days))
	}
	line("retention", text(retention(s.Retention)))
	for _, b := range s.Backfills {
		line("backfill", text(fmt.Sprintf("of %s, interrupted or under way: %s of about %s read, last %s", b.Trigger, digits(b.Scanned), digits(b.Expected), ago(b.TouchedAt, s.Now))))
	}
	schema := text(fmt.Sprintf("version %d", s.Schema.Database))
	if s.Schema.Database != s.Schema.Program {
		schema = coloured(fmt.Sprintf("version %d, and this program knows %d", s.Schema.Database, s.Schema.Program), yellow)
	}
	line("schema", schema)
	for i, name := range names {
		c.paragraph(fmt.Sprintf("%-*s  ", widest, name), cell{colour: bold}, values[i])
	}
}

// pauseLines say who paused what, when and why.
func (c *console) pauseLines(s *operate.Status, line func(name string, value cell)) {
	why := func(what string, p *queue.Pause) {
		text := fmt.Sprintf("%s, %s, by %s", what, ago(p.At, s.Now), p.By)
		if p.Reason != "" {
			text += ": " + p.Reason
		}
		line("paused", coloured(text, yellow))
	}
	if s.AllPaused != nil {
		why("all triggers, and those to come", s.AllPaused)
	}
	for i := range s.Triggers {
		if st := &s.Triggers[i]; st.Pause != nil && (s.AllPaused == nil || *st.Pause != *s.AllPaused) {
			why(st.Name, st.Pause)
		}
	}
}

// retention writes what rowhook.yaml says of the history.
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
