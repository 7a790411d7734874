package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
)

func (a *app) listCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [ID]...",
		Short: "List events, newest first",
		Long: `List events of every state, newest first: waiting, in flight, retrying, delivered or dead.

A filter without an index, such as --payload, searches for a limited time. The command then prints how far back it
searched, and --cursor continues from there.`,
		Example: `  rowhook events list --state dead --since 1d
  rowhook events list -t order_placed --payload new.customer_id=42
  rowhook events list --state dead --group-by trigger,error
  rowhook events list --state dead --status 5xx --error "bad gateway"
  rowhook events list --json --limit 1000 | jq -r '.events[].id'`,
	}
	o := a.operating(cmd)
	o.across = true
	var f filterFlags
	f.add(cmd)
	var list operate.ListOptions
	cmd.Flags().IntVarP(&list.Limit, "limit", "n", operate.DefaultLimit, fmt.Sprintf("largest number of events, up to %d", operate.MaxLimit))
	cmd.Flags().StringVar(&list.Cursor, "cursor", "", "continue where an earlier list ended")
	cmd.Flags().BoolVar(&list.Payload, "with-payload", false, "print the payloads too, with --json")
	var by []string
	cmd.Flags().StringSliceVar(&by, "group-by", nil, "count events by this `key` instead: "+strings.Join(operate.GroupKeys(), ", ")+"; repeat it, or separate several by commas")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		filter, err := f.filter(args)
		switch {
		case err != nil:
		case len(by) > 0:
			return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error { return a.group(ctx, conn, o, filter, by) })
		case list.Limit == 0:
			err = fmt.Errorf("--limit must be 1 to %d, got 0; use --cursor for more", operate.MaxLimit)
		case list.Payload && !o.json:
			err = errors.New("--with-payload needs --json; \"rowhook events show ID\" shows the payload of one event")
		}
		if err != nil {
			return &usageError{err}
		}
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			page, err := operate.List(ctx, conn, filter, list)
			if err != nil {
				return err
			}
			if o.json {
				return a.printJSON(page)
			}
			a.showPage(page)
			return nil
		})
	}
	return cmd
}

// group prints how many events have the same values of these keys.
func (a *app) group(ctx context.Context, conn *pgx.Conn, o *operating, f operate.Filter, by []string) error {
	groups, err := operate.GroupBy(ctx, conn, f, by, 0)
	if err != nil {
		return err
	}
	if o.json {
		return a.printJSON(groups)
	}
	heads := []string{"EVENTS>"}
	for _, key := range by {
		heads = append(heads, strings.ToUpper(key))
	}
	t := a.page().Table(heads...)
	for _, g := range groups.Groups {
		cells := []term.Cell{term.Number(g.Events)}
		for _, key := range by {
			cells = append(cells, term.Text(map[string]string{"trigger": g.Trigger, "state": string(g.State), "error": g.Error, "status": g.Status, "kind": g.Kind}[key]))
		}
		t.Add(cells...)
	}
	t.Flush()
	if groups.More {
		fmt.Fprintln(a.stderr, "Counting took too long, so some events are missing here.")
	}
	return nil
}

func (a *app) showPage(page *operate.Page) {
	now := time.Now()
	if len(page.Events) > 0 {
		t := a.page().Table("RECORDED", "STATE", "TRIGGER", "OP", "ATTEMPTS>", "ID", "")
		for i := range page.Events {
			e := &page.Events[i]
			t.Add(term.Text(term.Ago(e.CreatedAt, now)), stateCell(e), term.Text(e.Trigger), term.Text(e.Op), term.Number(int64(e.Attempts)), term.Text(e.ID), term.Coloured(note(e, now), term.Dim))
		}
		t.Flush()
	}
	switch {
	case page.LookedBackTo != nil:
		fmt.Fprintf(a.stderr, "Searched back to %s (%s). To search further back: --cursor %s\n", page.LookedBackTo.Local().Format(time.DateTime), term.Ago(*page.LookedBackTo, now), page.Next)
	case page.Next != "":
		fmt.Fprintf(a.stderr, "There are more: --cursor %s\n", page.Next)
	case len(page.Events) == 0:
		fmt.Fprintln(a.stderr, "No events match.")
	}
}
