package console

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
)

// bulkCommand is a command that changes many events.
type bulkCommand struct {
	verb, doing, done string
	do                func(context.Context, operate.DB, operate.Filter, operate.BulkOptions) (*operate.Bulk, error)
	states            func(*operate.Filter) // what is meant where no state is named
	throttled         bool
}

func (c *console) redeliverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "redeliver [ID]...",
		Short: "Send dead or delivered events again",
		Long: `Send events again, by their ids or by a filter. A filter means dead letters unless it names another --state: delivered ones are sent
again from the history, and those that wait for a retry are tried at once.

The id stays the same, the attempts start again at 0, and the log of earlier attempts is kept. An event that is in flight is
busy and left alone. With a filter it says how many events it is about, and asks. They are put back in small batches, only
as fast as they are delivered, so that other events are not held up; --no-throttle puts them back all at once.`,
		Example: `  rowhook redeliver 0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90
  rowhook redeliver -t order_placed --since 1d
  rowhook redeliver --state delivered -t order_placed --payload new.customer_id=42 --yes`,
	}
	return c.bulk(cmd, bulkCommand{
		verb: "Redeliver", doing: "redelivering", done: "back in the queue", do: operate.Redeliver, throttled: true,
		states: func(f *operate.Filter) { f.States = []operate.State{operate.Dead} },
	})
}

func (c *console) discardCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "discard [ID]...",
		Short: "Delete dead or waiting events for good",
		Long: `Delete events for good, by their ids or by a filter. A filter means dead letters unless it names another --state: waiting or retrying.
Events in flight are left alone, and delivered ones go by the retention. With a filter it says how many events it is about,
and asks; events named by their ids are deleted without a question.`,
		Example: `  rowhook discard --state dead --until 30d
  rowhook discard --state waiting,retrying -t order_placed`,
	}
	return c.bulk(cmd, bulkCommand{
		verb: "Discard", doing: "discarding", done: "deleted", do: operate.Discard,
		states: func(f *operate.Filter) { f.States = []operate.State{operate.Dead} },
	})
}

func (c *console) bulk(cmd *cobra.Command, b bulkCommand) *cobra.Command {
	o := c.common(cmd)
	var f filterFlags
	f.add(cmd)
	var yes, unthrottled bool
	var limit int64
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().Int64Var(&limit, "limit", 0, "at most so many events, the oldest; 0: all")
	if b.throttled {
		cmd.Flags().BoolVar(&unthrottled, "no-throttle", false, "do not wait for deliveries: put all events back at once")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		filter, err := f.filter(args)
		if err == nil && filter.IsZero() {
			err = errNothingChosen
		}
		if err == nil && limit < 0 {
			err = fmt.Errorf("--limit: %d is negative", limit)
		}
		if err != nil {
			return c.Usage(err)
		}
		if len(filter.States) == 0 && len(filter.IDs) == 0 {
			b.states(&filter)
		}
		return c.work(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
			total, err := c.ask(ctx, conn, b, filter, limit, yes)
			if err != nil || total.Events == 0 && len(filter.IDs) == 0 && !total.More {
				if err == nil && o.json {
					return c.printJSON(operate.Bulk{Skipped: map[string]int64{}, Skips: []operate.Skip{}})
				}
				return err
			}
			bar := c.progress(b.doing, total.Events, total.More)
			out, err := b.do(ctx, conn, filter, operate.BulkOptions{Limit: limit, Unthrottled: unthrottled, Progress: func(n int64) { bar.at(n, "") }})
			bar.end()
			return c.showBulk(o, b, out, err, filter.IDs)
		})
	}
	return cmd
}

// ask says how many events it is about, and asks. Events named one by one need no question.
func (c *console) ask(ctx context.Context, conn *pgx.Conn, b bulkCommand, f operate.Filter, limit int64, yes bool) (operate.Tally, error) {
	if len(f.IDs) > 0 {
		return operate.Tally{Events: int64(len(f.IDs))}, nil
	}
	n, err := operate.Count(ctx, conn, f, 0)
	if err != nil {
		return n, err
	}
	if n.Events == 0 && !n.More {
		fmt.Fprintln(c.Stderr, "No such events.")
		return n, nil
	}
	if limit > 0 && n.Events > limit {
		n = operate.Tally{Events: limit}
	}
	what := plural(n.Events, "event")
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
	return n, c.confirm(ctx, yes, question+"?")
}

func (c *console) showBulk(o *common, b bulkCommand, out *operate.Bulk, err error, ids []string) error {
	if out == nil {
		return err
	}
	if o.json {
		if jerr := c.printJSON(out); jerr != nil {
			return jerr
		}
	} else if out.Changed > 0 || err == nil {
		c.printf("%s %s.\n", plural(out.Changed, "event"), b.done)
	}
	if err != nil {
		return err
	}
	reasons := map[string]string{
		operate.SkipBusy: "in flight (busy)", operate.SkipWaiting: "waiting already", operate.SkipRemoved: "of a removed trigger",
		operate.SkipDelivered: "delivered", operate.SkipGone: "changed in the meantime", operate.SkipNotFound: "not found", operate.SkipDamaged: "not to be read or moved",
	}
	var skipped []string
	for reason, n := range out.Skipped {
		skipped = append(skipped, plural(n, "event")+" "+reasons[reason])
	}
	if len(skipped) == 0 {
		return nil
	}
	slices.Sort(skipped)
	message := "left alone: " + strings.Join(skipped, ", ")
	if len(ids) == 0 {
		fmt.Fprintln(c.Stderr, message)
		return nil
	}
	for _, s := range out.Skips {
		message += fmt.Sprintf("\n  %s  %s", s.ID, reasons[s.Reason])
	}
	return errors.New(message)
}
