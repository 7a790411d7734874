package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
)

func (c *console) eventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Look at events: list, show, tail",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.listCommand(), c.showCommand(), c.tailCommand())
	return cmd
}

func (c *console) listCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [ID]...",
		Short: "List events, newest first",
		Long: `List events, newest first, wherever they stand: waiting, in flight, to be retried, delivered or dead.

A filter that no index leads to, such as --payload, looks back only as far as it gets in a moment; then it says how far,
and --cursor goes on from there.`,
		Example: `  rowhook events list --state dead --since 1d
  rowhook events list -t order_placed --payload new.customer_id=42
  rowhook events list --state dead --group-by trigger,error
  rowhook events list --state dead --status 5xx --error "bad gateway"
  rowhook events list --json --limit 1000 | jq -r '.events[].id'`,
	}
	o := c.common(cmd)
	var f filterFlags
	f.add(cmd)
	var list operate.ListOptions
	cmd.Flags().IntVarP(&list.Limit, "limit", "n", operate.DefaultLimit, fmt.Sprintf("at most so many events, up to %d", operate.MaxLimit))
	cmd.Flags().StringVar(&list.Cursor, "cursor", "", "go on where an earlier list has ended")
	cmd.Flags().BoolVar(&list.Payload, "with-payload", false, "print the payloads too, with --json")
	var by []string
	cmd.Flags().StringSliceVar(&by, "group-by", nil, "count events by this `key` instead: "+strings.Join(operate.GroupKeys(), ", ")+"; repeat it, or separate them by commas")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		filter, err := f.filter(args)
		switch {
		case err != nil:
		case len(by) > 0:
			return c.work(cmd, o, func(ctx context.Context, conn *pgx.Conn) error { return c.group(ctx, conn, o, filter, by) })
		case list.Limit == 0:
			err = fmt.Errorf("--limit: 0 events are none: ask for 1 to %d, and go on with --cursor", operate.MaxLimit)
		case list.Payload && !o.json:
			err = errors.New("--with-payload belongs with --json; \"rowhook events show ID\" shows the payload of one event")
		}
		if err != nil {
			return c.Usage(err)
		}
		return c.work(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
			page, err := operate.List(ctx, conn, filter, list)
			if err != nil {
				return err
			}
			if o.json {
				return c.printJSON(page)
			}
			c.showPage(page)
			return nil
		})
	}
	return cmd
}

// group shows how many events have what in common.
func (c *console) group(ctx context.Context, conn *pgx.Conn, o *common, f operate.Filter, by []string) error {
	groups, err := operate.GroupBy(ctx, conn, f, by, 0)
	if err != nil {
		return err
	}
	if o.json {
		return c.printJSON(groups)
	}
	heads := []string{"EVENTS>"}
	for _, key := range by {
		heads = append(heads, strings.ToUpper(key))
	}
	t := c.table(heads...)
	for _, g := range groups.Groups {
		cells := []cell{number(g.Events)}
		for _, key := range by {
			cells = append(cells, text(map[string]string{"trigger": g.Trigger, "state": string(g.State), "error": g.Error, "status": g.Status, "kind": g.Kind}[key]))
		}
		t.add(cells...)
	}
	t.flush()
	if groups.More {
		fmt.Fprintln(c.Stderr, "Counting took too long: there are more.")
	}
	return nil
}

func (c *console) showPage(page *operate.Page) {
	now := time.Now()
	if len(page.Events) > 0 {
		t := c.table("RECORDED", "STATE", "TRIGGER", "OP", "ATTEMPTS>", "ID", "")
		for i := range page.Events {
			e := &page.Events[i]
			t.add(text(ago(e.CreatedAt, now)), stateCell(e.State), text(e.Trigger), text(e.Op), number(int64(e.Attempts)), text(e.ID), coloured(note(e, now), dim))
		}
		t.flush()
	}
	switch {
	case page.LookedBackTo != nil:
		fmt.Fprintf(c.Stderr, "Looked back to %s (%s). Further back: --cursor %s\n", page.LookedBackTo.Local().Format(time.DateTime), ago(*page.LookedBackTo, now), page.Next)
	case page.Next != "":
		fmt.Fprintf(c.Stderr, "There are more: --cursor %s\n", page.Next)
	case len(page.Events) == 0:
		fmt.Fprintln(c.Stderr, "No such events.")
	}
}

// note says what else there is of an event.
func note(e *operate.Event, now time.Time) string {
	switch e.State {
	case operate.Waiting:
		if e.DueAt.After(now) {
			return "due " + ago(*e.DueAt, now)
		}
	case operate.Retrying:
		return "next attempt " + ago(*e.DueAt, now)
	case operate.InFlight:
		return fmt.Sprintf("by dispatcher %d", *e.InstanceID)
	case operate.Delivered:
		return "after " + span(e.DeliveredAt.Sub(e.CreatedAt))
	case operate.Dead:
		return ago(*e.DiedAt, now) + ": " + e.Reason
	}
	return ""
}

func (c *console) showCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show one event: its payload, every attempt, and what happens next",
		Example: `  rowhook events show 0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90`,
		Args:    cobra.ExactArgs(1),
	}
	o := c.common(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.work(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
			d, err := operate.Show(ctx, conn, args[0])
			if err != nil {
				return err
			}
			if o.json {
				return c.printJSON(d)
			}
			c.showDetail(d)
			return nil
		})
	}
	return cmd
}

func (c *console) showDetail(d *operate.Detail) {
	now := time.Now()
	t := c.table()
	t.rows = t.rows[:0]
	line := func(name string, value cell) { t.add(cell{text: name, colour: bold}, value) }
	line("event", text(d.ID))
	line("trigger", text(d.Trigger))
	line("table", text(d.Table))
	line("operation", text(d.Op))
	state := stateCell(d.State)
	if n := note(&d.Event, now); n != "" {
		state.text += ", " + clean(n)
	}
	line("state", state)
	line("recorded", text(fmt.Sprintf("%s (%s)", d.CreatedAt.Local().Format("2006-01-02 15:04:05.000 MST"), ago(d.CreatedAt, now))))
	line("attempts", text(fmt.Sprintf("%d of %d", d.Attempts, max(d.MaxAttempts, d.Attempts))))
	line("next", text(d.Next))
	line("request", text(d.Request.Method+" "+d.Request.URL))
	for name, value := range d.Request.Headers {
		line("", text(name+": "+value))
	}
	t.width = 0 // nothing of it is cut
	t.flush()
	payload := operate.Payload{}
	if d.Payload != nil {
		payload = *d.Payload
	}
	if d.PayloadProblem != "" {
		c.printf("\n%s\n", clean(d.PayloadProblem))
	}
	for _, p := range []struct {
		name  string
		value json.RawMessage
	}{{"old", payload.Old}, {"new", payload.New}, {"session variables", payload.SessionVariables}, {"trace context", payload.TraceContext}} {
		if len(p.value) > 0 {
			c.printf("\n%s\n  %s\n", p.name, clean(string(p.value)))
		}
	}
	if len(d.Log) == 0 {
		c.printf("\nNo attempts are logged.\n")
		return
	}
	c.printf("\n")
	log := c.table("ATTEMPT>", "STARTED", "TOOK>", "DISPATCHER>", "RESULT", "RESPONSE")
	for _, a := range d.Log {
		result, response := coloured(a.ErrorKind, red), a.Error
		if a.Status != nil {
			result = coloured(fmt.Sprint(*a.Status), red)
			if *a.Status >= 200 && *a.Status < 300 {
				result.colour = green
			}
			response = a.ResponseBody
		}
		log.add(number(int64(a.Number)), text(a.StartedAt.Local().Format("2006-01-02 15:04:05.000")), cell{text: span(time.Duration(a.DurationMS * float64(time.Millisecond))), right: true},
			number(int64(a.InstanceID)), result, text(response))
	}
	log.flush()
}

func (c *console) tailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Follow events as they are recorded, tried and delivered, until Ctrl-C",
		Long: `Follow events as they come: a line for each, and another whenever it has been tried or has changed its state. Where more come
than can be followed, some are left out, and a line says so. With --json each line is a JSON document.`,
		Example: `  rowhook events tail -t order_placed`,
		Args:    cobra.NoArgs,
	}
	o := c.common(cmd)
	var f filterFlags
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		filter, err := f.filter(nil)
		if err != nil {
			return c.Usage(err)
		}
		return c.work(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
			return operate.Tail(ctx, conn, filter, func(e operate.Event) error {
				if o.json {
					return json.NewEncoder(c.Stdout).Encode(e)
				}
				t := c.table()
				t.rows = t.rows[:0]
				now := time.Now()
				state := stateCell(e.State)
				state.text = fmt.Sprintf("%-9s", state.text)
				t.add(text(now.Format("15:04:05.000")), state, text(fmt.Sprintf("%-6s", e.Op)), text(e.Trigger), text(e.ID), coloured(tailNote(&e, now), dim))
				t.flush()
				return nil
			}, func() { fmt.Fprintln(c.Stderr, "... more events than can be followed: some are left out") })
		})
	}
	return cmd
}

func tailNote(e *operate.Event, now time.Time) string {
	n := note(e, now)
	if e.State == operate.Dead { // it died just now
		n = e.Reason
	}
	if e.Attempts > 1 || e.State == operate.Retrying {
		return fmt.Sprintf("attempt %d, %s", e.Attempts, n)
	}
	return n
}
