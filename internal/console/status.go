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
	"github.com/rowhook/rowhook/sqlschema"
)

func (c *console) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how everything stands",
		Long: `Show per trigger what waits, is in flight, is retried and is dead, what was delivered and what failed in the last hour,
how long deliveries take and the last error; and the dispatchers, the doorbell, what holds back vacuum, the history and
the schema version. It takes the same time however many events there are: ~ marks figures that are estimated.

What was done in the last hour is recorded by the dispatchers every few seconds.`,
		Example: `  rowhook status
  rowhook status --json | jq '.triggers[] | select(.dead > 0) | .name'`,
		Args: cobra.NoArgs,
	}
	o := c.common(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.work(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
			s, err := operate.ReadStatus(ctx, conn)
			if err != nil {
				return err
			}
			if o.json {
				return c.printJSON(s)
			}
			c.showWarnings(s)
			c.showTriggers(s)
			c.showRest(s)
			return nil
		})
	}
	return cmd
}

// showWarnings writes what a person has to see to before all else.
func (c *console) showWarnings(s *operate.Status) {
	if len(s.Warnings) == 0 {
		return
	}
	t := c.table()
	t.rows, t.width = t.rows[:0], 0 // nothing of it is cut
	for _, w := range s.Warnings {
		line := w.Problem
		if w.Trigger != "" {
			line = w.Trigger + ": " + line
		}
		if w.Remedy != "" {
			line += ": " + w.Remedy
		}
		t.add(coloured("! "+line, red))
	}
	t.flush()
	c.printf("\n")
}

func (c *console) showTriggers(s *operate.Status) {
	if len(s.Triggers) == 0 {
		c.printf("There are no triggers: make some with \"rowhook apply\".\n")
		return
	}
	t := c.table("TRIGGER", "WAITING>", "IN FLIGHT>", "RETRYING>", "DEAD>", "OLDEST>", "DELIVERED 1H>", "FAILED 1H>", "P50>", "P95>", "LAST ERROR")
	for i := range s.Triggers {
		st := &s.Triggers[i]
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
		oldest, last := "-", cell{}
		if st.OldestAt != nil {
			oldest = span(s.Now.Sub(*st.OldestAt))
		}
		if st.LastErrorAt != nil {
			last = coloured(ago(*st.LastErrorAt, s.Now)+": "+st.LastError, dim)
		}
		t.add(name, figure(st.Waiting, "waiting", plain), figure(st.InFlight, "in_flight", plain), figure(st.Retrying, "retrying", yellow), figure(st.Dead, "dead", red),
			cell{text: oldest, right: true}, number(st.DeliveredLastHour), figure(st.FailedLastHour, "failed", yellow), milliseconds(st.P50MS), milliseconds(st.P95MS), last)
	}
	t.flush()
	c.printf("\n")
}

func milliseconds(ms *float64) cell {
	if ms == nil {
		return cell{text: "-", right: true}
	}
	return cell{text: span(time.Duration(*ms * float64(time.Millisecond))), right: true}
}

func (c *console) showRest(s *operate.Status) {
	t := c.table()
	t.rows = t.rows[:0]
	line := func(name string, value cell) { t.add(cell{text: name, colour: bold}, value) }
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
		if len(s.Instances) == 0 {
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
	t.width = 0 // what is told last is what to do about it: nothing of it is cut
	t.flush()
}

// pauseLines say who paused what, when and why.
func (c *console) pauseLines(s *operate.Status, line func(name string, value cell)) {
	why := func(what string, p *sqlschema.Pause) {
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
