package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

func (c *console) invokeCommand() *cobra.Command {
	var payload, session, trace string
	cmd := &cobra.Command{
		Use:   "invoke TRIGGER",
		Short: "Record a MANUAL event with a payload of your own",
		Long: `Record a MANUAL event for a trigger that says manual: true, and print its id. The payload is any JSON, and arrives as "new".
Applications do the same in their own transaction: select rowhook.emit('order_placed', '{"id": 7}').`,
		Example: `  rowhook invoke order_placed --payload '{"id": 7}'
  rowhook invoke order_placed --payload @order.json --session '{"x-hasura-user-id": "7"}'
  jq -c .order dump.json | rowhook invoke order_placed --payload -`,
		Args: cobra.ExactArgs(1),
	}
	o := c.common(cmd)
	cmd.Flags().StringVarP(&payload, "payload", "p", "", "the payload: JSON, @ and the name of a file, or - for standard input (required)")
	cmd.Flags().StringVar(&session, "session", "", "session_variables of the event: a JSON object, or @ and the name of a file")
	cmd.Flags().StringVar(&trace, "trace", "", "trace_context of the event: JSON, such as {\"traceparent\": \"00-...\"}, or @ and the name of a file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("payload") {
			return c.Usage(errors.New(`--payload is missing: write JSON, as in --payload '{"id": 7}', @ and the name of a file, or - for standard input`))
		}
		event := operate.Manual{Trigger: args[0]}
		for _, part := range []struct {
			flag string
			text string
			to   *json.RawMessage
		}{{"payload", payload, &event.Payload}, {"session", session, &event.SessionVariables}, {"trace", trace, &event.TraceContext}} {
			if !cmd.Flags().Changed(part.flag) {
				continue
			}
			if part.flag != "payload" && part.text == "-" {
				return c.Usage(fmt.Errorf("--%s: standard input is for the payload; write JSON, or @ and the name of a file", part.flag))
			}
			var err error
			if *part.to, err = c.readJSON(part.flag, part.text); err != nil {
				return c.Usage(err)
			}
		}
		return c.work(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
			id, err := operate.Record(ctx, conn, event)
			if err != nil {
				return err
			}
			if o.json {
				return c.printJSON(map[string]string{"id": id})
			}
			c.printf("%s\n", id)
			return nil
		})
	}
	return cmd
}

// maxPayload is what Postgres could store of a text.
const maxPayload = 1 << 30

// readJSON reads what a flag names: JSON, @ and the name of a file, or - for standard input.
func (c *console) readJSON(flag, arg string) (json.RawMessage, error) {
	switch {
	case arg == "-":
		data, err := io.ReadAll(io.LimitReader(c.Stdin, maxPayload))
		if err != nil {
			return nil, fmt.Errorf("read the %s from standard input: %w", flag, err)
		}
		return data, nil
	case strings.HasPrefix(arg, "@"):
		data, err := os.ReadFile(arg[1:])
		if err != nil {
			return nil, fmt.Errorf("read the %s: %w", flag, err)
		}
		return data, nil
	}
	return json.RawMessage(arg), nil
}

func (c *console) pauseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pause TRIGGER...|--all",
		Short: "Stop delivering events of a trigger, and go on recording them",
		Long: `Stop the delivery of triggers on all dispatchers, within about a second. Events go on being recorded, attempts in flight
end, and it lasts until resume, across restarts and applies. While all are paused (--all), triggers that are applied under a
new name start paused, too. "rowhook status" shows who paused what, since when and why.`,
		Example: `  rowhook pause order_placed --reason "the CRM is being moved"
  rowhook pause --all`,
	}
	var reason string
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look at the status or the audit")
	return c.pausing(cmd, func(ctx context.Context, db operate.DB, names ...string) ([]string, error) {
		return operate.PauseFor(ctx, db, reason, names...)
	}, pausingWords{"Paused", "paused already", "Triggers that are applied under a new name start paused, too: \"rowhook resume --all\" ends that."})
}

func (c *console) resumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "resume TRIGGER...|--all",
		Short:   "Deliver events of a paused trigger again",
		Example: `  rowhook resume order_placed`,
	}
	return c.pausing(cmd, operate.Resume, pausingWords{"Resumed", "not paused", ""})
}

// pausingWords are what pause and resume say: what was done, why there was nothing to do, and what goes for all.
type pausingWords struct{ done, already, all string }

func (c *console) pausing(cmd *cobra.Command, do func(context.Context, operate.DB, ...string) ([]string, error), words pausingWords) *cobra.Command {
	o := c.common(cmd)
	var all bool
	cmd.Flags().BoolVar(&all, "all", false, "all triggers")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (len(args) > 0) {
			return c.Usage(errors.New("name one or more triggers, or say --all"))
		}
		return c.work(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
			changed, err := do(ctx, conn, args...)
			if err != nil {
				return err
			}
			if o.json {
				return c.printJSON(map[string][]string{"changed": changed})
			}
			if len(changed) == 0 {
				c.printf("Nothing to do: %s.\n", words.already)
			} else {
				c.printf("%s %s.\n", words.done, strings.Join(changed, ", "))
			}
			if all && words.all != "" {
				c.printf("%s\n", words.all)
			}
			return nil
		})
	}
	return cmd
}

func (c *console) backfillCommand() *cobra.Command {
	var b operate.BackfillOptions
	var yes bool
	cmd := &cobra.Command{
		Use:   "backfill TRIGGER",
		Short: "Record the rows that the table holds now as events",
		Long: `Record the rows that the trigger's table holds now as INSERT events, those for which its "when" is true. In their session_variables
is rowhook_backfill, the number of the backfill, to tell them by. Rows that come later, with higher keys, have their own events.

The table is read by its primary key, in small batches, only as fast as the events are delivered, so that other events are
not held up; --no-throttle does not wait. What was interrupted goes on where it was when the same command is given again.

In the end the table's rows are counted without the key's index. Where it has more rows that were there at the beginning and
have not changed since than were read of such, rows were passed over, and the command fails.`,
		Example: `  rowhook backfill order_placed
  rowhook backfill order_placed --where "created_at > now() - interval '30 days'"`,
		Args: cobra.ExactArgs(1),
	}
	o := c.common(cmd)
	cmd.Flags().StringVar(&b.Where, "where", "", "only rows for which this `SQL` over the table's columns is true")
	cmd.Flags().BoolVar(&b.Restart, "restart", false, "give up an interrupted backfill and start from the beginning")
	cmd.Flags().BoolVar(&b.Unthrottled, "no-throttle", false, "do not wait for deliveries")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.work(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
			ahead, err := operate.PlanBackfill(ctx, conn, args[0], b)
			if err != nil {
				return err
			}
			if err := c.confirm(ctx, yes, backfillQuestion(ahead)); err != nil {
				return err
			}
			var bar *progress
			b.Progress = func(s operate.BackfillStatus) {
				if bar == nil {
					bar = c.progress("backfilling", s.Expected, false)
				}
				bar.at(s.Scanned, plural(s.Recorded, "event"))
			}
			s, err := operate.Backfill(ctx, conn, args[0], b)
			if bar != nil {
				bar.end()
			}
			if err != nil && s != nil && ctx.Err() != nil {
				return &operate.Error{Kind: operate.ErrBusy, Problem: fmt.Sprintf("interrupted after %s", plural(s.Scanned, "row")), Remedy: "give the same command again to go on"}
			}
			if err != nil {
				return err
			}
			if o.json {
				return c.printJSON(s)
			}
			c.printf("%s of %s read, %s recorded (backfill %d).\n", plural(s.Scanned, "row"), s.Trigger, plural(s.Recorded, "event"), s.ID)
			if s.Buried > 0 {
				c.printf("%s could not be turned into events, and are dead letters instead: rowhook events list --state dead --trigger %s --error \"can't be turned into an event\"\n", plural(s.Buried, "row"), s.Trigger)
			}
			return nil
		})
	}
	return cmd
}

func backfillQuestion(ahead *operate.BackfillStatus) string {
	rows := "Record the rows"
	if ahead.Where != "" {
		rows += " where " + ahead.Where
	}
	read := "about " + digits(ahead.Expected) + " to read"
	if ahead.ID != 0 {
		read += ", " + digits(ahead.Scanned) + " of them read before"
	}
	return fmt.Sprintf("%s of the table of %s as events (%s)?", rows, ahead.Trigger, read)
}

func (c *console) drainCommand() *cobra.Command {
	timeout := time.Minute
	cmd := &cobra.Command{
		Use:   "drain [TRIGGER]...",
		Short: "Wait until no event is waiting, in flight or to be retried",
		Long: `Wait until nothing is owed any more, of the named triggers or of all: for tests and deployments. Exit 0 when it is so,
and 1 when the timeout comes first, saying what is left. What an open transaction has written is not seen before it commits.`,
		Example: `  rowhook drain --timeout 30s`,
	}
	o := c.common(cmd)
	cmd.Flags().Var((*durationFlag)(&timeout), "timeout", "how long to wait at most; 0: do not wait")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.work(cmd, o, func(ctx context.Context, conn *pgx.Conn) error {
			limited, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			var bar *progress
			var most int64
			warned := map[string]bool{}
			left, err := operate.Drain(limited, conn, args, func(left []operate.Left) {
				var n int64
				for i := range left {
					n += left[i].Events()
					if left[i].Paused && !warned[left[i].Trigger] {
						warned[left[i].Trigger] = true
						fmt.Fprintf(c.Stderr, "%s is paused: nothing of it is delivered until it is resumed\n", left[i].Trigger)
					}
				}
				if bar == nil || n > most {
					most = n
					bar = c.progress("draining", most, false)
				}
				bar.at(most-n, plural(n, "event")+" left")
			})
			if bar != nil {
				bar.end()
			}
			if err != nil {
				return err
			}
			return c.showLeft(o, left, timeout)
		})
	}
	return cmd
}

func (c *console) showLeft(o *common, left []operate.Left, timeout time.Duration) error {
	if o.json {
		if left == nil {
			left = []operate.Left{}
		}
		if err := c.printJSON(map[string]any{"left": left}); err != nil {
			return err
		}
	}
	if len(left) == 0 {
		if !o.json {
			c.printf("Nothing is left.\n")
		}
		return nil
	}
	var lines []string
	now := time.Now()
	for _, l := range left {
		line := fmt.Sprintf("  %s: %s waiting, %s in flight, %s to be retried", l.Trigger, digits(l.Waiting), digits(l.InFlight), digits(l.Retrying))
		if l.More { // only as many were looked at, those that are due first: it would be wrong to say that none of the others is in flight
			line = fmt.Sprintf("  %s: more than %s events", l.Trigger, digits(l.Events()))
		}
		if l.NextAt != nil {
			line += ", the next " + ago(*l.NextAt, now)
		}
		if l.Paused {
			line += " (paused)"
		}
		lines = append(lines, line)
	}
	return fmt.Errorf("after %s something is left:\n%s", trigger.Duration(timeout), strings.Join(lines, "\n"))
}

// durationFlag is a duration as people write it.
type durationFlag time.Duration

func (d *durationFlag) Set(s string) error {
	v, err := trigger.ParseDuration(s)
	*d = durationFlag(v)
	return err
}
func (d *durationFlag) String() string { return trigger.Duration(*d).String() }
func (d *durationFlag) Type() string   { return "duration" }
