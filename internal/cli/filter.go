package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/trigger"
)

// filterFlags are the flags that select events.
type filterFlags struct {
	triggers, states    []string
	ops                 []string
	table, since, until string
	payload, failure    string
	statuses, kinds     []string
	clock               func() time.Time
}

// addTimes adds only the flags for a range of time.
func (f *filterFlags) addTimes(cmd *cobra.Command) {
	f.clock = time.Now
	cmd.Flags().StringVar(&f.since, "since", "", "only events since this `time`: 1h or 7d ago, 2026-11-23, \"2026-11-23 15:04\" (local time if it has no zone), a time as Postgres prints it, or RFC 3339")
	cmd.Flags().StringVar(&f.until, "until", "", "only events before this `time`")
}

func (f *filterFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVarP(&f.triggers, "trigger", "t", nil, "only events of this `trigger`; repeat it, or separate several by commas")
	flags.StringSliceVarP(&f.states, "state", "s", nil, "only events in this `state`: waiting, in_flight, retrying, delivered, merged (delivered, with a later one sent in their stead) or dead; repeat it, or separate several by commas")
	flags.StringSliceVar(&f.ops, "op", nil, "only events of this `operation`: insert, update, delete, truncate or manual; repeat it, or separate several by commas")
	flags.StringVar(&f.table, "table", "", "only events of this `table`: table or schema.table")
	f.addTimes(cmd)
	flags.StringVar(&f.payload, "payload", "", "only events whose payload matches: KEY=VALUE such as new.customer.id=42, or a JSON `path` such as '$.new.amount ? (@ > 100)'")
	flags.StringVar(&f.failure, "error", "", "only events with this `text` in the error of the last attempt")
	flags.StringSliceVar(&f.statuses, "status", nil, "only events whose last attempt got this `status`, such as 503 or 5xx; repeat it, or separate several by commas")
	flags.StringSliceVar(&f.kinds, "kind", nil, "only events whose last attempt failed with this `kind` of error, such as timeout or refused; repeat it, or separate several by commas")
	noError(cmd.RegisterFlagCompletionFunc("op", cobra.FixedCompletions([]string{"insert", "update", "delete", "truncate", "manual"}, cobra.ShellCompDirectiveNoFileComp)))
	noError(cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{"waiting", "in_flight", "retrying", "delivered", "merged", "dead"}, cobra.ShellCompDirectiveNoFileComp)))
}

// noError panics: cobra returns an error only if a completion is registered twice.
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
	for _, op := range f.ops {
		out.Ops = append(out.Ops, strings.ToUpper(op))
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

// moment parses a point in time in the forms that people write.
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
	return time.Time{}, fmt.Errorf("--%s: invalid time %q: write how long ago (1h, 7d), a day (2026-11-23), a local time (\"2026-11-23 15:04\"), "+
		"a time as Postgres prints it (\"2026-11-23 15:04:05.123456+00\"), or RFC 3339", flag, s)
}

var errNothingChosen = errors.New("no events selected: name their ids, or select them with flags such as --trigger or --state")
