// Sources measures what many databases cost one rowhook run, and what one of them costs the others.
//
// It starts PostgreSQL servers and a receiver of its own, on the loopback, and rowhook as its users
// run it, with a configuration that has sources. See docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/cli"
	"github.com/rowhook/rowhook/lab/internal/process"
)

// options are the command line.
type options struct {
	binary, pgBin, profile string
	only                   string
	sources                int
	settle, during         time.Duration
	timeout                time.Duration
	logs                   string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == profiledMode {
		os.Exit(profiled(os.Args[2], func() int {
			return cli.Run(context.Background(), os.Args[3:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
		}))
	}
	process.Main("sources", run)
}

func parse(args []string, stderr io.Writer) (options, error) {
	var opt options
	f := flag.NewFlagSet("sources", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&opt.binary, "binary", "", "rowhook program to measure")
	f.StringVar(&opt.only, "only", "idle,rates,hang,kill", "what to measure, separated by commas")
	f.IntVar(&opt.sources, "sources", 100, "databases of idle and rates")
	f.DurationVar(&opt.settle, "settle", 130*time.Second, "how long to wait before the idle process is measured")
	f.DurationVar(&opt.during, "during", time.Minute, "how long to measure")
	f.DurationVar(&opt.timeout, "timeout", 30*time.Minute, "give up after this time")
	f.StringVar(&opt.pgBin, "pg-bin", "", "directory of the PostgreSQL programs (default: the newest installed)")
	f.StringVar(&opt.profile, "profile", "", "write CPU profiles of the processes into this directory")
	f.StringVar(&opt.logs, "logs", "", "write the logs of the processes into this directory")
	if err := f.Parse(args); err != nil {
		return opt, err
	}
	if f.NArg() > 0 {
		return opt, fmt.Errorf("unexpected argument %q: see --help", f.Arg(0))
	}
	if opt.binary == "" {
		return opt, errors.New("--binary is missing; scripts/sources builds the program and names it")
	}
	for _, dir := range []string{opt.profile, opt.logs} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return opt, fmt.Errorf("make a directory: %w", err)
		}
	}
	var err error
	opt.binary, err = filepath.Abs(opt.binary)
	return opt, err
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opt, err := parse(args, stderr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, opt.timeout)
	defer cancel()
	measures := map[string]func(context.Context, *lab) (report, error){"idle": idle, "rates": rates, "hang": hang, "kill": kill}
	var errs []error
	for name := range strings.SplitSeq(opt.only, ",") {
		measure := measures[strings.TrimSpace(name)]
		if measure == nil {
			return fmt.Errorf("--only: there is no measurement %q", name)
		}
		lines, err := with(ctx, opt, stderr, measure)
		for _, l := range lines {
			fmt.Fprintln(stdout, l)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// with measures in a lab that is made for it.
func with(ctx context.Context, opt options, out io.Writer, measure func(context.Context, *lab) (report, error)) (lines report, err error) {
	l, err := open(ctx, opt, out)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	return measure(ctx, l)
}

// report are the lines of a measurement.
type report []string

// line adds a figure, and whether it reaches its goal.
func (r *report) line(reached bool, goal, format string, args ...any) {
	verdict := "reached"
	if !reached {
		verdict = "MISSED"
	}
	*r = append(*r, fmt.Sprintf("%-95s goal %s: %s", fmt.Sprintf(format, args...), goal, verdict))
}

// note adds a figure without a goal.
func (r *report) note(format string, args ...any) { *r = append(*r, fmt.Sprintf(format, args...)) }
