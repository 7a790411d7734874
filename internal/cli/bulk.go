package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
)

// bulkCommand is a command that changes many events.
type bulkCommand struct {
	verb, doing, done string
	do                func(context.Context, operate.DB, operate.Filter, operate.BulkOptions) (*operate.Bulk, error)
	states            func(*operate.Filter) // sets the states of a filter that names none
	throttled         bool
}

func (a *app) bulk(cmd *cobra.Command, b bulkCommand) *cobra.Command {
	o := a.operating(cmd)
	var f filterFlags
	f.add(cmd)
	var yes, unthrottled bool
	var limit int64
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().Int64Var(&limit, "limit", 0, "largest number of events, the oldest first; 0: all")
	if b.throttled {
		cmd.Flags().BoolVar(&unthrottled, "no-throttle", false, "put all events back at once, without waiting for deliveries")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		filter, err := f.filter(args)
		if err == nil && filter.IsZero() {
			err = errNothingChosen
		}
		if err == nil && limit < 0 {
			err = fmt.Errorf("--limit must not be negative, got %d", limit)
		}
		if err != nil {
			return &usageError{err}
		}
		if len(filter.States) == 0 && len(filter.IDs) == 0 {
			b.states(&filter)
		}
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			total, err := a.ask(ctx, conn, b, filter, limit, yes)
			if err != nil || total.Events == 0 && len(filter.IDs) == 0 && !total.More {
				if err == nil && o.json {
					return a.printJSON(operate.Bulk{Skipped: map[string]int64{}, Skips: []operate.Skip{}})
				}
				return err
			}
			bar := term.NewProgress(a.stderr, b.doing, total.Events, total.More)
			out, err := b.do(ctx, conn, filter, operate.BulkOptions{Limit: limit, Unthrottled: unthrottled, Progress: func(n int64) { bar.At(n, "") }})
			bar.End()
			return a.showBulk(o, b, out, err, filter.IDs)
		})
	}
	return cmd
}

// ask prints how many events match, and asks. Events that are named by their ids need no question.
func (a *app) ask(ctx context.Context, conn *pgx.Conn, b bulkCommand, f operate.Filter, limit int64, yes bool) (operate.Tally, error) {
	if len(f.IDs) > 0 {
		return operate.Tally{Events: int64(len(f.IDs))}, nil
	}
	n, err := operate.Count(ctx, conn, f, 0)
	if err != nil {
		return n, err
	}
	if n.Events == 0 && !n.More {
		fmt.Fprintln(a.stderr, "No events match.")
		return n, nil
	}
	if limit > 0 && n.Events > limit {
		n = operate.Tally{Events: limit}
	}
	what := term.Plural(n.Events, "event")
	if n.More {
		what = "at least " + what
	}
	states := make([]string, len(f.States))
	for i, s := range f.States {
		states[i] = strings.ReplaceAll(string(s), "_", " ")
	}
	question := fmt.Sprintf("%s %s (%s)", b.verb, what, strings.Join(states, ", "))
	if len(f.Triggers) > 0 {
		question += " of " + strings.Join(f.Triggers, ", ")
	}
	return n, a.confirm(ctx, yes, question+"?")
}

func (a *app) showBulk(o *operating, b bulkCommand, out *operate.Bulk, err error, ids []string) error {
	if out == nil {
		return err
	}
	if o.json {
		if jerr := a.printJSON(out); jerr != nil {
			return jerr
		}
	} else if out.Changed > 0 || err == nil {
		a.printf("%s %s.\n", term.Plural(out.Changed, "event"), b.done)
	}
	if err != nil {
		return err
	}
	reasons := map[string]string{
		operate.SkipBusy: "in flight", operate.SkipWaiting: "waiting already", operate.SkipRemoved: "of a removed trigger",
		operate.SkipDelivered: "delivered", operate.SkipGone: "changed in the meantime", operate.SkipNotFound: "not found", operate.SkipDamaged: "damaged: can't be read or moved",
		operate.SkipErased: "erased: there is nothing to send",
	}
	var skipped []string
	for reason, n := range out.Skipped {
		skipped = append(skipped, term.Plural(n, "event")+" "+reasons[reason])
	}
	if len(skipped) == 0 {
		return nil
	}
	slices.Sort(skipped)
	message := "skipped: " + strings.Join(skipped, ", ")
	if len(ids) == 0 {
		fmt.Fprintln(a.stderr, message)
		return nil
	}
	for _, s := range out.Skips {
		message += fmt.Sprintf("\n  %s  %s", s.ID, reasons[s.Reason])
	}
	return errors.New(message)
}
