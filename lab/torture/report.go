package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// results are the results of a run.
type results struct {
	Seed               uint64        `json:"seed"`
	Length             time.Duration `json:"length"`
	Took               time.Duration `json:"took"`
	Instances          int           `json:"instances"`
	Sources            int           `json:"sources"`
	Writers            int           `json:"writers"`  // of each source
	Postgres           int           `json:"postgres"` // server_version_num
	Transactions       int64         `json:"transactions"`
	FailedTransactions int64         `json:"failed_transactions"`
	Starts             int           `json:"starts"`        // of dispatchers
	FailedStarts       int           `json:"failed_starts"` // dispatchers that ended by themselves
	Stuck              string        `json:"stuck,omitempty"`
	Exits              []string      `json:"exits,omitempty"` // of dispatchers that failed while stopping
	Soak               []*soaked     `json:"soak,omitempty"`
	Faults             []*fault      `json:"faults"`
	Verdicts           []*verdict    `json:"verdicts"` // one for each source
}

// text is the report for people.
func (r *results) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d transactions were committed and %d failed; dispatchers were started %d times, %d ended by themselves\n",
		r.Transactions, r.FailedTransactions, r.Starts, r.FailedStarts)
	fmt.Fprintf(&b, "%d faults of %d kinds\n", len(r.Faults), len(kindsOf(r.Faults)))
	for source, v := range r.Verdicts {
		b.WriteString("\n")
		v.write(&b, kindsOf(faultsOf(r.Faults, source)))
	}
	for _, s := range r.Soak {
		fmt.Fprintf(&b, "%s\n", s)
	}
	for _, p := range r.problems() {
		fmt.Fprintf(&b, "\nFAILED: %s\n", strings.TrimSpace(p))
	}
	return b.String()
}

// kindsOf counts faults by their kinds.
func kindsOf(faults []*fault) map[string]int {
	kinds := map[string]int{}
	for _, f := range faults {
		kinds[f.Kind]++
	}
	return kinds
}

// write says what happened in a source. kinds are the faults by their numbers.
func (v *verdict) write(b *strings.Builder, kinds map[string]int) {
	if v.Source != "" {
		fmt.Fprintf(b, "%s:\n", v.Source)
	}
	fmt.Fprintf(b, "%d changes are owed, and %d events arrived in %d attempts\n", v.Events, v.Arrived, v.Attempts)
	fmt.Fprintf(b, "%d delivered, %d dead letters; %d duplicates, %d attempts unlogged\n", v.Archived, v.Dead, v.Duplicates, v.Unlogged)
	if v.Stored > 0 {
		fmt.Fprintf(b, "%d messages are in the stream\n", v.Stored)
	}
	fmt.Fprintf(b, "%d of the dead letters expired; answers paused a trigger %d times; %d changes went into the event of an earlier one of their transaction\n", v.Expired, v.Pauses, v.Summed)
	fmt.Fprintf(b, "%d events were handed over by their writers, and %d of them were delivered so; the slowest arrived %.1f s after its commit\n", v.Handed, v.Taken, v.HandedLate.Seconds())
	if v.Unwritten > 0 {
		fmt.Fprintf(b, "%d events were settled without history while it could not be written\n", v.Unwritten)
	}
	fmt.Fprintf(b, "\n  %-32s %7s %11s %20s\n", "fault", "number", "duplicates", "slowest delivery (s)")
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(b, "  %-32s %7d %11d %20.1f\n", kind, kinds[kind], v.Excuses[kind], v.Recovery[kind].Slowest.Seconds())
	}
	fmt.Fprintf(b, "\nslowest recovery: %.1f s from a commit to its acceptance\n", v.Slowest.Seconds())
	if v.Free > 0 {
		fmt.Fprintf(b, "longest silence with events owed: %.1f s, in the %.0f s in which nothing hampered deliveries but lost listen paths, or a history that can't be written\n",
			v.Silence.Seconds(), v.Free.Seconds())
	}
}

// problems is everything that counts against the program.
func (r *results) problems() []string {
	var all []string
	if r.Stuck != "" {
		all = append(all, r.Stuck)
	}
	for _, e := range r.Exits {
		all = append(all, "a dispatcher failed while stopping: "+e)
	}
	for _, s := range r.Soak {
		all = append(all, s.growth()...)
	}
	for _, v := range r.Verdicts {
		for _, f := range v.failures() {
			all = append(all, strings.TrimPrefix(v.Source+": "+f, ": "))
		}
	}
	return all
}

// outcome is the error of a run that ended in another way than expected.
func (r *results) outcome(broken string) error {
	n := len(r.problems())
	switch {
	case broken == "" && n > 0:
		return fmt.Errorf("seed %d: %d promises were broken", r.Seed, n)
	case broken != "" && n == 0:
		return fmt.Errorf("seed %d: the program was built without the rule %q, and nothing was found", r.Seed, broken)
	}
	return nil
}

func (r *results) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err := errors.Join(err, os.WriteFile(path, append(text, '\n'), 0o644)); err != nil { //nolint:gosec // for everyone to read
		return fmt.Errorf("write the results: %w", err)
	}
	return nil
}
