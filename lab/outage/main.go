// Outage stages outages of real programs and sees the alerts fire.
//
// It starts a PostgreSQL on a small file system, a receiver, two dispatchers, node_exporter, and a
// Prometheus. Prometheus scrapes them every second. It has the rules of docs/prometheus, with every
// duration divided by one factor. Then one thing after another fails and is repaired. The alerts
// for it have to fire and to resolve, and no other alert may fire. Every query of the dashboard has
// to return something at some time. See docs/metrics.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/rowhook/rowhook/lab/internal/process"
)

func main() { process.Main("outage", run) }

// options are the command line.
type options struct {
	factor     float64
	calm       time.Duration
	only       string
	rules      string
	dashboard  string
	binary     string
	prometheus string
	exporter   string
	pgBin      string
	logs       string
}

// mostFactor leaves four scrapes in the shortest range of the rules, which is five minutes.
const mostFactor = 75

func parse(args []string, stderr io.Writer) (options, error) {
	var opt options
	f := flag.NewFlagSet("outage", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Float64Var(&opt.factor, "factor", 60, "factor by which the rules' durations are divided")
	f.DurationVar(&opt.calm, "calm", 15*time.Second, "time without outages at the beginning and at the end")
	f.StringVar(&opt.only, "only", "", "stage only the outages whose names contain this; the dashboard is not checked then")
	f.StringVar(&opt.rules, "rules", "docs/prometheus/rules.yml", "the alert rules")
	f.StringVar(&opt.dashboard, "dashboard", "docs/grafana/rowhook.json", "the dashboard")
	f.StringVar(&opt.binary, "binary", "", "rowhook program")
	f.StringVar(&opt.prometheus, "prometheus", "", "prometheus program")
	f.StringVar(&opt.exporter, "node-exporter", "", "node_exporter program; without it, no outage fills the disk nearly")
	f.StringVar(&opt.pgBin, "pg-bin", "", "directory of the PostgreSQL programs (default: the newest installed)")
	f.StringVar(&opt.logs, "logs", "", "keep the programs' logs in this directory")
	if err := f.Parse(args); err != nil {
		return opt, err
	}
	switch {
	case f.NArg() > 0:
		return opt, fmt.Errorf("unexpected argument %q: see --help", f.Arg(0))
	case opt.factor < 1 || opt.factor > mostFactor:
		return opt, fmt.Errorf("--factor %g: want 1 to %d", opt.factor, mostFactor)
	case opt.binary == "" || opt.prometheus == "":
		return opt, errors.New("--binary and --prometheus are required: run scripts/outage, which sets them")
	}
	return opt, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	opt, err := parse(args, stderr)
	if err != nil {
		return err
	}
	l, err := openLab(ctx, opt, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	r, err := l.stageAll(ctx)
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, r.text())
	if n := len(r.problems); n > 0 {
		return fmt.Errorf("%d checks failed", n)
	}
	return nil
}
