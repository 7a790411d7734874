package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/sandbox"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/trigger"
)

func (a *app) replayCommand() *cobra.Command {
	var r operate.ReplayOptions
	var from, to string
	var ops []string
	var yes bool
	away := operate.ReplayTo{}
	cmd := &cobra.Command{
		Use:   "replay TRIGGER",
		Short: "Send the delivered events of a range of time again",
		Long: `Send the delivered events of a trigger again that were recorded in a range of time, oldest first, from the history. The
range holds its beginning and not its end. What was delivered after the replay began, and what was merged into a later
event, is not sent.

The events are sent under their old ids, so a receiver that drops what it has seen drops them. --as-new sends copies under
new ids. created_at, sequence and the payload stay those of the change. Events of an ordered trigger hold up no key; those
of the same key are sent one after another, in the order of their sequence.

The command prints how many events there are, and asks. It puts them back in small batches, only as fast as they are
delivered, so that they do not delay other events. A trigger has one replay at a time. If a replay was interrupted,
--continue goes on where it ended: each event is put back once. If its process was killed, that takes 15 seconds.

With --url the events go to another place, such as a receiver under test. This process sends each of them once, nothing is
put into the queue, and what failed is listed. Only if the URL has scheme, host and port of the trigger's own URL do the
requests have its headers, its signature, its OAuth token and its client certificate; then the command needs the
environment and the files of the dispatcher. If it was interrupted, it prints the id to go on from by --after.`,
		Example: `  rowhook replay order_placed --from 2h
  rowhook replay order_placed --from "2026-11-23 14:00" --to "2026-11-23 15:30" --as-new
  rowhook replay order_placed --continue
  rowhook replay order_placed --from 2h --url http://localhost:8080/hook`,
		Args: cobra.ExactArgs(1),
	}
	o := a.operating(cmd)
	times := filterFlags{clock: time.Now}
	flags := cmd.Flags()
	flags.StringVar(&from, "from", "", "events that were recorded since this `time`: 1h or 7d ago, 2026-11-23, \"2026-11-23 15:04\" (local time if it has no zone), a time as Postgres prints it, or RFC 3339 (required)")
	flags.StringVar(&to, "to", "", "events that were recorded before this `time` (default: now)")
	flags.BoolVar(&r.AsNew, "as-new", false, "send them under new ids")
	flags.StringSliceVar(&ops, "op", nil, "only events of this `operation`: insert, update, delete, truncate or manual; repeat it, or separate several by commas")
	flags.StringVar(&r.Payload, "payload", "", "only events whose payload matches: KEY=VALUE such as new.customer.id=42, or a JSON `path` such as '$.new.amount ? (@ > 100)'")
	flags.BoolVar(&r.Continue, "continue", false, "go on with an interrupted replay")
	flags.BoolVar(&r.Restart, "restart", false, "abandon an interrupted replay, and begin this one")
	flags.BoolVar(&r.Unthrottled, "no-throttle", false, "do not wait for deliveries")
	flags.StringVar(&away.URL, "url", "", "send the events to this `URL` from here, instead of putting them back")
	flags.StringVar(&away.After, "after", "", "with --url: only events after this `id`")
	guardFlags(&flagSet{flags}, &away.Guard)
	var g giving
	g.flags(&flagSet{flags})
	flags.BoolVarP(&yes, "yes", "y", false, "do not ask")
	noError(cmd.RegisterFlagCompletionFunc("op", cobra.FixedCompletions([]string{"insert", "update", "delete", "truncate", "manual"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if r.Continue {
			for _, name := range []string{"from", "to", "as-new", "op", "payload", "restart"} {
				if cmd.Flags().Changed(name) {
					return usagef("--%s and --continue exclude each other: a replay goes on as it began", name)
				}
			}
		} else if from == "" {
			return usagef("missing --from: write how long ago (1h, 7d) or a time from which on events are sent again")
		}
		var err error
		if r.From, err = times.moment("from", from); err == nil {
			r.To, err = times.moment("to", to)
		}
		if err != nil {
			return &usageError{err}
		}
		for _, op := range ops {
			r.Ops = append(r.Ops, strings.ToUpper(op))
		}
		if away.URL == "" {
			for _, name := range []string{"after"} {
				if cmd.Flags().Changed(name) {
					return usagef("--%s is for --url", name)
				}
			}
			return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
				return a.replay(ctx, conn, o, args[0], r, yes)
			})
		}
		for _, name := range []string{"continue", "restart", "no-throttle"} {
			if cmd.Flags().Changed(name) {
				return usagef("--%s and --url exclude each other: with --url nothing is put into the queue; --after goes on after an event", name)
			}
		}
		away.Trigger, away.From, away.AsNew, away.Ops, away.Payload, away.Version = args[0], r.From, r.AsNew, r.Ops, r.Payload, build()
		a, err := a.one()
		if err != nil {
			return err
		}
		store, err := a.store(g, sandboxNames...)
		if err != nil {
			return err
		}
		away.Source = func(w trigger.Webhook) trigger.Source { return sandbox.VisitorVariables(w, store.Get) }
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error { return a.replayTo(ctx, conn, o, away, r, yes) })
	}
	return cmd
}

func (a *app) replay(ctx context.Context, conn *pgx.Conn, o *operating, name string, r operate.ReplayOptions, yes bool) error {
	ahead, err := operate.PlanReplay(ctx, conn, name, r)
	if err != nil {
		return err
	}
	if r.To.IsZero() {
		r.To = ahead.To
	}
	a.replayNotes(ahead, r)
	if ahead.Events == 0 && !ahead.More && ahead.Unfinished == nil {
		fmt.Fprintln(a.stderr, "No events match.")
		if o.json {
			return a.printJSON(ahead)
		}
		return nil
	}
	if err := a.confirm(ctx, yes, replayQuestion(ahead, r)); err != nil {
		return err
	}
	var bar *term.Progress
	r.Progress = func(s operate.ReplayStatus) {
		if bar == nil {
			bar = term.NewProgress(a.stderr, "replaying", s.Expected, s.More)
		}
		bar.At(s.Replayed, "")
	}
	s, err := operate.Replay(ctx, conn, name, r)
	if bar != nil {
		bar.End()
	}
	if err != nil && s != nil && ctx.Err() != nil {
		return &operate.Error{Kind: operate.ErrBusy, Problem: fmt.Sprintf("interrupted after %s", term.Plural(s.Replayed, "event")), Remedy: fmt.Sprintf("rowhook replay %s --continue goes on", name)}
	}
	if err != nil {
		return err
	}
	if o.json {
		return a.printJSON(s)
	}
	a.printf("%s of %s back in the queue (replay %d).\n", term.Plural(s.Replayed, "event"), s.Trigger, s.ID)
	if s.Damaged > 0 {
		a.printf("%s could not be put back: the data can't be read.\n", term.Plural(s.Damaged, "event"))
	}
	return nil
}

// replayNotes prints what is to be known before the question.
func (a *app) replayNotes(p *operate.ReplayPlan, r operate.ReplayOptions) {
	note := func(format string, args ...any) { fmt.Fprintf(a.stderr, format+"\n", args...) }
	switch {
	case r.Continue:
		return
	case p.ReachesBackTo == nil:
		note("The archive has no event of %s: delivered events are kept as long as the retention in rowhook.yaml says.", p.Trigger)
	case p.ReachesBackTo.After(p.From.Add(time.Second)):
		note("The archive reaches back to %s: what %s delivered before that is gone, or was never there.", p.ReachesBackTo.Local().Format(time.RFC3339), p.Trigger)
	}
	if p.Copies > 0 {
		note("Up to %s of them are copies that an earlier replay has sent as new.", term.Digits(p.Copies))
	}
	if p.Paused {
		note("%s is paused: the events wait until it is resumed.", p.Trigger)
	}
}

func replayQuestion(p *operate.ReplayPlan, r operate.ReplayOptions) string {
	many := term.Plural(p.Events, "event")
	if p.More {
		many = "at least " + many
	}
	if r.Continue {
		ids := "their old ids"
		if p.Unfinished.AsNew {
			ids = "new ids"
		}
		return fmt.Sprintf("Go on with the replay of %s, of which %s sent under %s and %s left?", p.Trigger, were(p.Unfinished.Replayed), ids, remain(p.Events))
	}
	span := fmt.Sprintf("%s, recorded from %s to %s", p.Trigger, p.From.Local().Format(time.RFC3339), p.To.Local().Format(time.RFC3339))
	if r.AsNew {
		return fmt.Sprintf("Send %s of %s, again under new ids?", many, span)
	}
	return fmt.Sprintf("Send %s of %s, again under the old ids, so that a receiver may drop what it has seen?", many, span)
}

func were(n int64) string {
	if n == 1 {
		return "1 event was"
	}
	return term.Digits(n) + " events were"
}

func remain(n int64) string {
	if n == 1 {
		return "1 is"
	}
	return "about " + term.Digits(n) + " are"
}

func (a *app) replayTo(ctx context.Context, conn *pgx.Conn, o *operating, to operate.ReplayTo, r operate.ReplayOptions, yes bool) error {
	if err := to.Check(ctx, conn); err != nil {
		return err
	}
	ahead, err := operate.PlanReplay(ctx, conn, to.Trigger, r)
	if err != nil {
		return err
	}
	to.To, ahead.Paused = ahead.To, false
	a.replayNotes(ahead, r)
	if ahead.Events == 0 && !ahead.More {
		fmt.Fprintln(a.stderr, "No events match.")
	} else if err := a.confirm(ctx, yes, strings.TrimSuffix(replayQuestion(ahead, r), "?")+fmt.Sprintf(", to %s from here?", to.URL)); err != nil {
		return err
	}
	bar := term.NewProgress(a.stderr, "sending", ahead.Events, ahead.More)
	to.Progress = func(r operate.ReplayToResult) { bar.At(r.Sent, term.Digits(r.Failed)+" failed") }
	out, err := to.Send(ctx, conn)
	bar.End()
	if out == nil {
		return err
	}
	if o.json {
		if jerr := a.printJSON(out); jerr != nil {
			return jerr
		}
	} else {
		with := "without the trigger's headers and signature, since it has another origin"
		if out.SameOrigin {
			with = "with the trigger's headers and signature"
		}
		a.printf("%s sent to %s, %s: %s delivered, %s failed.\n", term.Plural(out.Sent, "event"), out.URL, with, term.Digits(out.Delivered), term.Digits(out.Failed))
		for _, f := range out.Failures {
			a.printf("  %s  %s\n", f.ID, term.Clean(f.Error))
		}
		if more := out.Failed - int64(len(out.Failures)); more > 0 {
			a.printf("  and %s more\n", term.Digits(more))
		}
	}
	switch {
	case err != nil && ctx.Err() != nil && out.Last != "":
		return &operate.Error{Kind: operate.ErrBusy, Problem: fmt.Sprintf("interrupted after %s", term.Plural(out.Sent, "event")), Remedy: fmt.Sprintf("repeat the command with --after %s", out.Last)}
	case err != nil:
		return err
	}
	return out.Err()
}
