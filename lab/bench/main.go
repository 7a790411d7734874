// Bench measures how fast Rowhook is: from a commit to a webhook, in a drain, and for the writers
// of watched tables.
//
// It starts a PostgreSQL and a receiver of its own, on the loopback. It compiles rowhook from the
// tree (or takes --binary) and runs it as its users do. Every figure stands beside a floor that the
// same run measured. See docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/rowhook/rowhook/lab/internal/natsserver"
	"github.com/rowhook/rowhook/lab/internal/process"
)

func main() {
	process.Main("bench", func(ctx context.Context, args []string, stdout, stderr io.Writer) error {
		return run(ctx, args, os.Stdin, stdout, stderr)
	})
}

// options are the command line.
type options struct {
	quick, fsync    bool
	delivery        bool
	outage, flush   time.Duration
	sizes           sizes
	only            []string
	binary, against string
	peers           peers
	pgBin, profile  string
	data            string
	json, markdown  string
	plots, check    string
	from            string
	timeout         time.Duration
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case receiverMode:
			return runReceiver(context.WithoutCancel(ctx), stdin, stdout)
		case natsserver.Command:
			return natsserver.Serve(ctx, args[1:], stderr)
		case dispatchMode:
			return runDispatch(context.WithoutCancel(ctx), args[1:])
		}
	}
	opt, err := parse(args, stderr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, opt.timeout)
	defer cancel()
	var r *results
	var failed error
	if opt.from != "" {
		r, err = readResults(opt.from)
	} else {
		r, failed, err = measureAll(ctx, opt, stderr)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, render(r, false))
	if err := errors.Join(failed, opt.deliver(r)); err != nil || opt.check == "" {
		return err
	}
	return opt.compare(ctx, r, stdout, stderr)
}

// secondLooks is how often a ratio that has fallen is measured again. A slower program stays
// slower. A machine that others use does not.
const secondLooks = 3

// compare compares a run with committed results. Ratios that have fallen are measured again, in
// turn with the program of the committed results if that can be built. A machine that is slower
// than that of the committed results is slower for both programs.
func (opt *options) compare(ctx context.Context, r *results, stdout, stderr io.Writer) error {
	committed, err := readResults(opt.check)
	if err != nil {
		return err
	}
	problems := check(r, committed)
	again := *opt
	if len(suspects(problems)) > 0 && opt.from == "" && opt.against == "" && committed.Commit != "" {
		dir, err := os.MkdirTemp("", "rowhook-reference-")
		if err != nil {
			return fmt.Errorf("make a directory for the reference: %w", err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		fmt.Fprintf(stderr, "compiling the reference, %s\n", committed.Commit)
		if again.against, err = buildReference(ctx, dir, committed.Commit); err != nil {
			again.against = ""
			fmt.Fprintf(stderr, "bench: can't build the reference, so only the committed figures count: %v\n", err)
		}
	}
	if again.against != "" {
		again.sizes.Repeat = max(again.sizes.Repeat, referenceRounds)
	}
	for range secondLooks {
		if again.only = suspects(problems); opt.from != "" || len(again.only) == 0 {
			break
		}
		for _, p := range problems {
			fmt.Fprintln(stderr, p.text+": measuring again")
		}
		next, failed, err := measureAll(ctx, again, stderr)
		if err = errors.Join(failed, err); err != nil {
			return err
		}
		problems = slowerThan(next, check(next, committed))
	}
	if len(problems) > 0 {
		lines := make([]string, len(problems))
		for i, p := range problems {
			lines[i] = p.text
		}
		return fmt.Errorf("compared with %s:\n  %s", opt.check, strings.Join(lines, "\n  "))
	}
	fmt.Fprintf(stdout, "No event was lost or sent twice, and no ratio is below four fifths of %s, or of its program measured beside this one.\n", opt.check)
	return nil
}

// parse reads the command line.
func parse(args []string, stderr io.Writer) (options, error) {
	var opt options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	only, repeat := "", 0
	f.BoolVar(&opt.quick, "quick", false, "small sizes, one repetition; takes two minutes")
	f.StringVar(&only, "only", "", "scenarios to run, separated by commas: A, curve, B, C, C', D ... K; and, only if named, L, M, distance, peers and those of --delivery")
	f.BoolVar(&opt.delivery, "delivery", false, "run the scenarios about order, batches, rates and outages: batch, batch-wait, rate, outage, order, hot-key, order-4")
	f.DurationVar(&opt.outage, "outage", 0, "how long the endpoint of the scenario outage is down (default 1m; 8s with --quick; the goals are for 10m)")
	f.IntVar(&repeat, "repeat", 0, "number of repetitions; the medians are shown (default 3; 1 with --quick)")
	f.StringVar(&opt.binary, "binary", "", "rowhook program to measure (default: compiled from the tree)")
	f.StringVar(&opt.against, "against", "", "another rowhook program to measure in turn with the first")
	f.Var(&opt.peers, "peer", "NAME=PROGRAM: another program to measure in the scenario peers, after each repetition of rowhook; may be repeated. scripts/bench --peers builds those of lab/peers")
	f.BoolVar(&opt.fsync, "fsync", true, "let Postgres wait for the disk")
	f.DurationVar(&opt.flush, "flush", 0, "how much longer Postgres takes for each flush to the disk (at most 100ms), to compare machines")
	f.StringVar(&opt.data, "data", "", "directory for Postgres' temporary data (default: that of temporary files)")
	f.StringVar(&opt.pgBin, "pg-bin", "", "directory of the PostgreSQL programs (default: the newest installed)")
	f.StringVar(&opt.profile, "profile", "", "write CPU and allocation profiles of each dispatcher into this directory; figures are a little worse")
	f.StringVar(&opt.json, "json", "", "write the results to this file")
	f.StringVar(&opt.markdown, "markdown", "", "write the tables to this file")
	f.StringVar(&opt.plots, "plots", "", "write the plots into this directory")
	f.StringVar(&opt.check, "check", "", "compare with the results in this file; fail on losses, on duplicates, and on ratios that fell below four fifths and stay there when measured again in turn with the program of those results")
	f.StringVar(&opt.from, "from", "", "measure nothing, and use the results in this file, for --markdown, --plots and --check")
	f.DurationVar(&opt.timeout, "timeout", 90*time.Minute, "give up after this time")
	if err := f.Parse(args); err != nil {
		return opt, err
	}
	if opt.flush < 0 || opt.flush > 100*time.Millisecond {
		return opt, fmt.Errorf("--flush is %s; it must be from 0 to 100ms", opt.flush)
	}
	if f.NArg() > 0 {
		return opt, fmt.Errorf("unexpected argument %q: see --help", f.Arg(0))
	}
	opt.sizes = fullSizes()
	if opt.quick {
		opt.sizes = quickSizes()
	}
	if repeat > 0 {
		opt.sizes.Repeat = repeat
	}
	if opt.outage > 0 {
		opt.sizes.Outage = opt.outage
	}
	for key := range strings.SplitSeq(only, ",") {
		if key = strings.TrimSpace(key); key != "" {
			opt.only = append(opt.only, key)
		}
	}
	return opt, nil
}

// measureAll runs the scenarios: each one for each build, and all of that for each repetition.
// failed has the errors of those that failed.
func measureAll(ctx context.Context, opt options, stderr io.Writer) (r *results, failed, err error) {
	l, err := openLab(ctx, opt, stderr)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if opt.delivery && len(opt.only) == 0 {
		for _, s := range l.scenarios() {
			if s.delivery {
				opt.only = append(opt.only, s.key)
			}
		}
	}
	chosen, err := l.choose(opt.only)
	if err != nil {
		return nil, nil, err
	}
	var version string
	if err := l.admin.QueryRow(ctx, "show server_version").Scan(&version); err != nil {
		return nil, nil, fmt.Errorf("ask for the server's version: %w", err)
	}
	r = &results{
		Started: time.Now(), Quick: opt.quick, Repeat: opt.sizes.Repeat,
		Environment: environment{
			CPUs: runtime.NumCPU(), CPU: cpuModel(), Kernel: kernel(), Go: runtime.Version(), Postgres: version, Fsync: opt.fsync, Flush: opt.flush,
		},
	}
	for _, b := range l.builds {
		r.Builds = append(r.Builds, b.name+": "+b.text)
	}
	r.Commit = commitOf(l.builds[0].path)
	var failures []error
	for i := range opt.sizes.Repeat {
		for _, s := range chosen {
			for _, b := range l.builds {
				if b.peer && !s.peers {
					continue
				}
				if err := l.once(ctx, r, s, b, i); err != nil {
					failures = append(failures, err)
				}
				if ctx.Err() != nil {
					return r, errors.Join(failures...), context.Cause(ctx)
				}
			}
		}
	}
	return r, errors.Join(failures...), nil
}

// choose returns the scenarios with these keys; no keys: all scenarios.
func (l *lab) choose(keys []string) ([]scenario, error) {
	all := l.scenarios()
	if len(keys) == 0 {
		return slices.DeleteFunc(all, func(s scenario) bool { return s.named || s.key == "curve" && l.sizes.CurvePoint == 0 }), nil
	}
	var chosen []scenario
	for _, key := range keys {
		i := slices.IndexFunc(all, func(s scenario) bool { return strings.EqualFold(s.key, key) })
		if i < 0 {
			return nil, fmt.Errorf("--only: there is no scenario %q", key)
		}
		if l.sizes.CurvePoint == 0 {
			l.sizes.CurvePoint, l.sizes.CurveRates = time.Second, curveRates()
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// once runs a scenario for one build.
func (l *lab) once(ctx context.Context, r *results, s scenario, b build, repetition int) error {
	l.scenario = s.key
	start := time.Now()
	n := l.listenForNoise()
	got, err := s.run(ctx, b)
	if err != nil {
		err = fmt.Errorf("%s (%s): %w", s.key, b.name, err)
		l.logf("%v", err)
		return err
	}
	got.Foreign = l.foreign(n)
	r.add(s.key, b.name, got)
	l.logf("%s, %s, %s, repetition %d: %.1f s, load %.1f, others took %.2f cores", s.key, s.title, b.name, repetition+1,
		time.Since(start).Seconds(), got.Load, got.Foreign)
	return nil
}

// deliver writes the files that the options ask for.
func (opt *options) deliver(r *results) error {
	if opt.json != "" {
		if err := r.write(opt.json); err != nil {
			return err
		}
	}
	if opt.markdown != "" {
		if err := os.WriteFile(opt.markdown, []byte(render(r, true)), 0o644); err != nil { //nolint:gosec // for everyone to read
			return fmt.Errorf("write the tables: %w", err)
		}
	}
	if opt.plots != "" {
		if err := writePlots(r, opt.plots); err != nil {
			return err
		}
	}
	return nil
}
