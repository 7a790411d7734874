// Torture runs Rowhook while everything goes wrong that can, and then counts.
//
// It starts a PostgreSQL, several dispatchers as processes of their own, receivers, and between
// them proxies that misbehave. Writers change watched tables and record in a ledger what they
// committed. Faults strike at random, drawn from a seed. In the end every committed change must
// have arrived, no change that was rolled back, and none twice unless a fault explains it. See
// docs/torture.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rowhook/rowhook/lab/internal/natsserver"
	"github.com/rowhook/rowhook/lab/internal/process"
)

func main() { process.Main("torture", run) }

// options are the command line.
type options struct {
	length    time.Duration
	seed      uint64
	instances int
	sources   int
	nats      bool
	writers   int
	only      []string
	listen    bool
	poll      time.Duration
	drain     time.Duration
	broken    string
	binary    string
	pgBin     string
	json      string
	logs      string
	soak      bool
	memory    bool
	verbose   bool
	list      bool
	restless  bool // no cases of the calm, in a test
}

// brokenDrain is how long to wait for events that a broken program never delivers. It is longer
// than the short leases.
const brokenDrain = 40 * time.Second

func parse(args []string, stderr io.Writer) (options, error) {
	var opt options
	f := flag.NewFlagSet("torture", flag.ContinueOnError)
	f.SetOutput(stderr)
	minutes, only := 0.0, ""
	f.Float64Var(&minutes, "minutes", 1, "how many minutes faults strike")
	f.Uint64Var(&opt.seed, "seed", 0, "seed of the faults and of the writers' decisions (default: drawn, and printed)")
	f.IntVar(&opt.instances, "instances", 3, "dispatchers")
	f.IntVar(&opt.writers, "writers", 3, "writers of each source")
	f.IntVar(&opt.sources, "sources", 1, "databases, which the dispatchers share out among themselves")
	f.BoolVar(&opt.nats, "nats", false, "have a trigger of the first source publish to a stream of NATS; rowhook has to be built with the tag nats")
	f.StringVar(&only, "only", "", "kinds of faults to use, separated by commas; see --list")
	f.BoolVar(&opt.listen, "listen-faults", false, "lose the paths by which dispatchers listen most of the time; each dispatcher then has a path of its own")
	f.DurationVar(&opt.poll, "poll-interval", time.Hour, "the dispatchers' poll interval; with an hour, nothing may depend on it")
	f.DurationVar(&opt.drain, "drain", 2*time.Minute, "how long delivering everything may take after the last fault")
	f.StringVar(&opt.broken, "broken", "", "build rowhook without a rule, and expect the run to fail: "+strings.Join(brokenNames(), ", "))
	f.StringVar(&opt.binary, "binary", "", "rowhook program to torture (default: compiled from the tree)")
	f.StringVar(&opt.pgBin, "pg-bin", "", "directory of the PostgreSQL programs (default: the newest installed)")
	f.StringVar(&opt.json, "json", "", "write the results to this file")
	f.StringVar(&opt.logs, "logs", "", "keep the dispatchers' logs in this directory")
	f.BoolVar(&opt.verbose, "verbose", false, "print each fault")
	f.BoolVar(&opt.soak, "soak", false, "use only faults that processes survive, and check that their use of resources does not grow; takes ten minutes or more")
	f.BoolVar(&opt.memory, "memory", false, "only measure the memory of a dispatcher: with large events, many waiting events, and an endless response")
	f.BoolVar(&opt.list, "list", false, "print the schedule of faults for the seed, and exit")
	if err := f.Parse(args); err != nil {
		return opt, err
	}
	if f.NArg() > 0 {
		return opt, fmt.Errorf("unexpected argument %q: see --help", f.Arg(0))
	}
	if minutes <= 0 || opt.instances < 1 || opt.writers < 1 || opt.sources < 1 {
		return opt, errors.New("--minutes, --instances, --sources and --writers must be above 0")
	}
	if opt.memory && (opt.sources > 1 || opt.nats) {
		return opt, errors.New("--memory measures a dispatcher of one database, with webhooks alone")
	}
	opt.length = time.Duration(minutes * float64(time.Minute))
	if opt.seed == 0 {
		opt.seed = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	for kind := range strings.SplitSeq(only, ",") {
		if kind = strings.TrimSpace(kind); kind == "" {
			continue
		}
		if _, ok := natures()[kind]; !ok {
			return opt, fmt.Errorf("--only: there is no kind of fault %q: see --list", kind)
		}
		opt.only = append(opt.only, kind)
	}
	if opt.broken != "" {
		opt.drain = min(opt.drain, brokenDrain)
	}
	if opt.broken != "" && mutations()[opt.broken].edits == nil {
		return opt, fmt.Errorf("--broken %q: want one of %s", opt.broken, strings.Join(brokenNames(), ", "))
	}
	if m := mutations()[opt.broken]; opt.broken != "" {
		opt.sources, opt.nats = max(opt.sources, m.sources), opt.nats || m.nats
	}
	return opt, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == natsserver.Command {
		return natsserver.Serve(ctx, args[1:], stderr)
	}
	opt, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if opt.list {
		for _, f := range opt.plan().schedule() {
			fmt.Fprintf(stdout, "%7.1fs  %-32s slot %2d  for %4.1f s  %s\n", f.At.Seconds(), f.Kind, f.Slot, f.For.Seconds(), strings.TrimSpace(f.Way+" "+f.Table+f.Trigger))
		}
		return nil
	}
	if opt.memory {
		return memory(ctx, opt, stdout, stderr)
	}
	more := ""
	if opt.listen {
		more = " --listen-faults"
	}
	if opt.sources > 1 {
		more += fmt.Sprintf(" --sources %d", opt.sources)
	}
	if opt.nats {
		more += " --nats"
	}
	fmt.Fprintf(stdout, "seed %d: scripts/torture --minutes %g --seed %d --instances %d --writers %d%s repeats this run\n",
		opt.seed, opt.length.Minutes(), opt.seed, opt.instances, opt.writers, more)
	r, err := torture(ctx, opt, stderr)
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, r.text())
	if opt.json != "" {
		if err := r.write(opt.json); err != nil {
			return err
		}
	}
	return r.outcome(opt.broken)
}

// plan is the schedule that these options ask for.
func (opt *options) plan() plan {
	p := plan{seed: opt.seed, length: opt.length, slots: opt.instances, sources: opt.sources, nats: opt.nats, only: opt.only, listen: opt.listen || mutations()[opt.broken].listen}
	switch {
	case len(p.only) > 0:
	case opt.soak:
		p.only = survivable()
	default:
		p.only = mutations()[opt.broken].only
	}
	return p
}

// volume is the size of the server's file system in megabytes.
func (opt *options) volume() int {
	if opt.memory {
		return 4000
	}
	return 640 + int(100*opt.length.Minutes())
}
