package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// filterFlags are the flags that choose events.
type filterFlags struct {
	triggers, states    []string
	table, since, until string
	payload, failure    string
	statuses, kinds     []string
	clock               func() time.Time
}

// addTimes adds the flags for a range of time alone.
func (f *filterFlags) addTimes(cmd *cobra.Command) {
	f.clock = time.Now
	cmd.Flags().StringVar(&f.since, "since", "", "only recorded since this `time`: 1h or 7d ago, 2026-11-23, \"2026-11-23 15:04\" (local where it names no zone), as Postgres prints it, or as in RFC 3339")
	cmd.Flags().StringVar(&f.until, "until", "", "only recorded before this `time`")
}

func (f *filterFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVarP(&f.triggers, "trigger", "t", nil, "only of this `trigger`; repeat it, or separate them by commas")
	flags.StringSliceVarP(&f.states, "state", "s", nil, "only in this `state`: waiting, in_flight, retrying, delivered or dead; repeat it, or separate them by commas")
	flags.StringVar(&f.table, "table", "", "only of this `table`, as table or schema.table")
	f.addTimes(cmd)
	flags.StringVar(&f.payload, "payload", "", "only with this in the payload: KEY=VALUE such as new.customer.id=42, or a JSON `path` such as '$.new.amount ? (@ > 100)'")
	flags.StringVar(&f.failure, "error", "", "only with this `text` in the error of the last attempt")
	flags.StringSliceVar(&f.statuses, "status", nil, "only where the last attempt was answered with this `status`, such as 503 or 5xx; repeat it, or separate them by commas")
	flags.StringSliceVar(&f.kinds, "kind", nil, "only where the last attempt failed by this `kind`, such as timeout or refused; repeat it, or separate them by commas")
	noError(cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{"waiting", "in_flight", "retrying", "delivered", "dead"}, cobra.ShellCompDirectiveNoFileComp)))
}

// noError ends the program: cobra refuses only what it was given twice.
func noError(err error) {
	if err != nil {
		panic(err)
	}
}

func (f *filterFlags) filter(ids []string) (operate.Filter, error) {
	out := operate.Filter{IDs: ids, Triggers: f.triggers, Table: f.table, Payload: f.payload, Error: f.failure, Statuses: f.statuses, Kinds: f.kinds}
	for _, s := range f.states {
		state, err := operate.ParseState(s)
		if err != nil {
			return out, err
		}
		out.States = append(out.States, state)
	}
	var err error
	out.Since, out.Until, err = f.times()
	return out, err
}

func (f *filterFlags) times() (since, until time.Time, err error) {
	if since, err = f.moment("since", f.since); err != nil {
		return since, until, err
	}
	until, err = f.moment("until", f.until)
	return since, until, err
}

// moment reads a point in time as people write it.
func (f *filterFlags) moment(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	now := f.clock()
	if d, err := trigger.ParseDuration(s); err == nil {
		return now.Add(-d.Std()), nil
	}
	if t, ok := operate.ParseTime(s, now.Location()); ok {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("--%s: %q is no time: write how long ago (1h, 7d), a day (2026-11-23), a local time (\"2026-11-23 15:04\"), "+
		"what Postgres prints (\"2026-11-23 15:04:05.123456+00\"), or RFC 3339", flag, s)
}

var errNothingChosen = errors.New("nothing says which events: name their ids, or choose them by flags such as --trigger or --state")
