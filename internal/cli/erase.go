package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/term"
)

func (a *app) eraseCommand() *cobra.Command {
	var erase operate.EraseOptions
	var yes bool
	cmd := &cobra.Command{
		Use:   "erase [ID]...",
		Short: "Take the data of a person out of queue, archive, dead letters and attempts",
		Long: `Take the data of a person out of the database, by what events hold of them, or by the ids of events. A condition on new
or old is looked for in both, since an update has the earlier value in old. Of several conditions an event has to meet
one.

The command counts first, by place, and asks. Then waiting events and dead letters are deleted, and not sent. Delivered
events stay without their data, so that the history tells what was delivered when; they can't be sent again. Of their
attempts the status and the times stay; what the receiver has answered is removed. An event that is being sent is waited
for.

It works in small batches, with rests between them. If it was interrupted, the same command goes on. The audit records
that it was done, when and by whom, and for which keys, without the values. It does not reach the watched tables, the
receivers, logs, backups and replicas that lag behind; docs/privacy.md lists what is where.

Exit 1 if anything may be left: events that were still being sent, and events whose data Postgres can't search, such as
\u0000. These are listed, to be looked at and erased by their ids.`,
		Example: `  rowhook erase --payload new.email=ann@example.com
  rowhook erase --payload 'new."e-mail address"=ann@example.com'
  rowhook erase --payload new.customer.id=42 --payload new.customer_id=42 --since 30d
  rowhook erase 0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90`,
	}
	o := a.operating(cmd)
	times := filterFlags{}
	cmd.Flags().StringArrayVar(&erase.Payload, "payload", nil, "events whose payload has this `KEY=VALUE`, such as new.customer.email=ann@example.com; repeat it for events that have another one")
	cmd.Flags().StringSliceVarP(&erase.Triggers, "trigger", "t", nil, "only events of this `trigger`; repeat it, or separate several by commas")
	cmd.Flags().StringVar(&erase.Table, "table", "", "only events of this `table`: table or schema.table")
	times.addTimes(cmd)
	cmd.Flags().BoolVar(&erase.KeepWaiting, "keep-waiting", false, "leave events alone that are still to be sent, and dead letters")
	cmd.Flags().BoolVar(&erase.Unthrottled, "no-throttle", false, "do not rest between batches")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		erase.IDs = args
		var err error
		if erase.Since, erase.Until, err = times.times(); err != nil {
			return &usageError{err}
		}
		return a.operate(cmd, o, func(ctx context.Context, a *app, conn *pgx.Conn) error {
			plan, err := a.planErase(ctx, conn, erase)
			if err != nil {
				return err
			}
			a.showErasePlan(plan)
			if plan.Events() == 0 && plan.Unsearchable == 0 {
				if o.json {
					return a.printJSON(plan)
				}
				return nil
			}
			if plan.Events() > 0 {
				if err := a.confirm(ctx, yes, fmt.Sprintf("Erase the data of %s?", term.Plural(plan.Events(), "event"))); err != nil {
					return err
				}
			}
			bar := term.NewProgress(a.stderr, "erasing", plan.Events(), false)
			erase.Progress = func(done int64) { bar.At(done, "") }
			done, err := operate.Erase(ctx, conn, erase)
			bar.End()
			if done != nil {
				done.Unsearchable, done.UnsearchableIDs = plan.Unsearchable, plan.UnsearchableIDs
			}
			return a.showErasure(ctx, o, done, err)
		})
	}
	return cmd
}

func (a *app) planErase(ctx context.Context, conn *pgx.Conn, erase operate.EraseOptions) (*operate.Erasure, error) {
	bar := term.NewProgress(a.stderr, "looking for events: found", 0, false)
	defer bar.End()
	erase.Progress = func(done int64) { bar.At(done, "") }
	return operate.PlanErase(ctx, conn, erase)
}

// showErasePlan says what would be erased, by place.
func (a *app) showErasePlan(e *operate.Erasure) {
	if e.Events() == 0 {
		fmt.Fprintln(a.stderr, "No events match.")
	}
	for _, place := range []struct {
		n    int64
		what string
	}{
		{e.Waiting, "waiting in the queue: deleted, and not sent"},
		{e.InFlight, "being sent: waited for, and then as the others"},
		{e.Dead, "among the dead letters: deleted"},
		{e.Delivered, "in the archive: they stay without their data"},
		{e.Attempts, "attempts in the log: they stay without what was answered"},
		{e.Kept, "waiting or dead: left alone, with their data"},
	} {
		if place.n > 0 {
			fmt.Fprintf(a.stderr, "%8s  %s\n", term.Digits(place.n), place.what)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Triggers)) {
		fmt.Fprintf(a.stderr, "%8s  of the trigger %s\n", term.Digits(e.Triggers[name]), term.Clean(name))
	}
}

func (a *app) showErasure(ctx context.Context, o *operating, e *operate.Erasure, err error) error {
	if e == nil {
		return err
	}
	if err == nil || e.Events() > 0 {
		if o.json {
			if jerr := a.printJSON(e); jerr != nil {
				return jerr
			}
		} else {
			a.printf("%s deleted, %s erased in the archive, %s in the log.\n",
				term.Plural(e.Waiting+e.Dead, "event"), term.Plural(e.Delivered, "event"), term.Plural(e.Attempts, "attempt"))
		}
	}
	if err != nil && ctx.Err() != nil {
		return &operate.Error{Kind: operate.ErrBusy, Problem: "interrupted: what was erased stays erased", Remedy: "repeat the command to go on"}
	}
	return errors.Join(err, e.Err())
}
