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
	"github.com/rowhook/rowhook/internal/term"
)

func (a *app) showCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show one event: its payload, every attempt, and what happens next",
		Example: `  rowhook events show 0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90`,
		Args:    cobra.ExactArgs(1),
	}
	o := a.operating(cmd)
	o.across = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			d, err := operate.Show(ctx, conn, args[0])
			if err != nil {
				return err
			}
			d.Next = hint.Of(a.sourceName(), d.Next)
			if o.json {
				return a.printJSON(d)
			}
			a.showDetail(d)
			return nil
		})
	}
	return cmd
}

func (a *app) showDetail(d *operate.Detail) {
	now := time.Now()
	page := a.page()
	t := page.Table()
	t.Whole = true
	line := func(name string, value term.Cell) { t.Add(term.Cell{Text: name, Colour: term.Bold}, value) }
	line("event", term.Text(d.ID))
	line("trigger", term.Text(d.Trigger))
	line("table", term.Text(d.Table))
	line("operation", term.Text(d.Op))
	if d.Key != "" {
		line("key", term.Text(fmt.Sprintf("%s, sequence %d", d.Key, d.Sequence)))
	} else if d.Sequence != 0 {
		line("sequence", term.Text(fmt.Sprint(d.Sequence)))
	}
	state := stateCell(&d.Event)
	if n := note(&d.Event, now); n != "" {
		state.Text += ", " + term.Clean(n)
	}
	line("state", state)
	line("recorded", term.Text(fmt.Sprintf("%s (%s)", d.CreatedAt.Local().Format("2006-01-02 15:04:05.000 MST"), term.Ago(d.CreatedAt, now))))
	line("attempts", term.Text(fmt.Sprintf("%d of %d", d.Attempts, max(d.MaxAttempts, d.Attempts))))
	line("next", term.Text(d.Next))
	if len(d.Masked) > 0 {
		line("masked", term.Text(strings.Join(d.Masked, ", ")+", and what the receiver has answered, which may repeat it"))
	}
	line("request", term.Text(d.Request.Method+" "+d.Request.URL))
	for name, value := range d.Request.Headers {
		line("", term.Text(name+": "+value))
	}
	t.Flush()
	payload := operate.Payload{}
	if d.Payload != nil {
		payload = *d.Payload
	}
	if d.PayloadProblem != "" {
		a.printf("\n%s\n", term.Clean(d.PayloadProblem))
	}
	for _, p := range []struct {
		name  string
		value json.RawMessage
	}{{"old", payload.Old}, {"new", payload.New}, {"session variables", payload.SessionVariables}, {"trace context", payload.TraceContext}} {
		if len(p.value) > 0 {
			a.printf("\n%s\n  %s\n", p.name, term.Clean(string(p.value)))
		}
	}
	if len(d.Log) == 0 {
		a.printf("\nNo attempts are logged.\n")
		return
	}
	a.printf("\n")
	columns := []string{"ATTEMPT>", "STARTED", "TOOK>", "DISPATCHER>", "RESULT", "RESPONSE"}
	batches := slices.ContainsFunc(d.Log, func(at operate.Attempt) bool { return at.Batch != "" })
	if batches {
		columns = slices.Insert(columns, 4, "BATCH")
	}
	log := page.Table(columns...)
	for i := range d.Log {
		at := &d.Log[i]
		result, response := term.Coloured(at.ErrorKind, term.Red), at.Error
		if at.Status != nil && at.ErrorKind == "" { // with a kind, it is a 2xx status that did not deliver
			result = term.Coloured(fmt.Sprint(*at.Status), term.Red)
			if *at.Status >= 200 && *at.Status < 300 {
				result.Colour = term.Green
			}
			response = at.ResponseBody
		}
		row := []term.Cell{
			term.Number(int64(at.Number)), term.Text(at.StartedAt.Local().Format("2006-01-02 15:04:05.000")), latency(&at.DurationMS),
			term.Number(int64(at.InstanceID)), result, term.Text(response),
		}
		if batches {
			row = slices.Insert(row, 4, term.Text(at.Batch))
		}
		log.Add(row...)
	}
	log.Flush()
}
