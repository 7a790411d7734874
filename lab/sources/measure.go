package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// idle measures what sources without work cost.
func idle(ctx context.Context, l *lab) (r report, err error) {
	server, _, err := l.serve(ctx, "s", l.opt.sources)
	if err != nil {
		return nil, err
	}
	l.logf("starting")
	p, err := l.dispatch(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.served(ctx, p); err != nil {
		return nil, err
	}
	l.logf("all %d sources work; waiting for %s", len(l.sources), l.opt.settle)
	if err := wait(ctx, l.opt.settle); err != nil {
		return nil, err
	}
	admin, err := pgx.Connect(ctx, server.URL("postgres"))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	l.profile(p)
	own, theirs, began := process.CPU(p.PID()), process.TreeCPU(server.PID()), time.Now()
	before, err := transactions(ctx, admin)
	if err != nil {
		return nil, err
	}
	most, mean, looks := 0, 0.0, 0
	for time.Since(began) < l.opt.during {
		if err := wait(ctx, 5*time.Second); err != nil {
			return nil, err
		}
		var highest, all int
		err := admin.QueryRow(ctx, `
select coalesce(max(n), 0), coalesce(sum(n), 0)
  from (select count(*) as n from pg_stat_activity where application_name like 'rowhook %' group by datname) d`).Scan(&highest, &all)
		if err != nil {
			return nil, fmt.Errorf("count sessions: %w", err)
		}
		most, mean, looks = max(most, highest), mean+float64(all)/float64(len(l.sources)), looks+1
	}
	took := time.Since(began).Seconds()
	own, theirs = process.CPU(p.PID())-own, process.TreeCPU(server.PID())-theirs
	l.profile(p)
	after, err := transactions(ctx, admin)
	if err != nil {
		return nil, err
	}
	usage := process.UsageOf(p.PID())
	r.note("idle: %d sources in one process, over %.0f s", len(l.sources), took)
	r.line(usage.Resident < 100, "< 100 MB", "  memory: %.1f MB resident, %.1f MB at most", usage.Resident, usage.Peak)
	r.line(100*own/took < 1, "< 1 %", "  processor time of the process: %.2f %% of a core", 100*own/took)
	r.note("  processor time of Postgres: %.2f %% of a core", 100*theirs/took)
	r.line(most <= 2, "<= 2", "  connections of a source: %.2f on average, %d at most", mean/float64(looks), most)
	r.note("  transactions of a source: %.2f/s", (after-before)/took/float64(len(l.sources)))
	return r, nil
}

// profile begins or ends a profile, if one is asked for.
func (l *lab) profile(p *program) {
	if l.opt.profile != "" {
		_ = p.Signal(process.Profile) // it is there, or the measurement fails anyway
	}
}

func transactions(ctx context.Context, admin *pgx.Conn) (n float64, err error) {
	err = admin.QueryRow(ctx, "select sum(xact_commit + xact_rollback)::float8 from pg_stat_database where datname ~ '^s[0-9]+$'").Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count transactions: %w", err)
	}
	return n, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// rateOf is how many events a second each source has.
const rateOf = 5

// warmUp is how long they have them before they are measured. Then the sessions are closed that a
// dispatcher needed when it started.
const warmUp = 20 * time.Second

// rates compares many sources with a few events each with one that has all of them.
func rates(ctx context.Context, l *lab) (r report, err error) {
	_, many, err := l.serve(ctx, "s", l.opt.sources)
	if err != nil {
		return nil, err
	}
	same := make([]*source, len(many)) // as many writers, at the same moments
	for i := range same {
		same[i] = many[0]
	}
	measure := func(sources, to []*source) (all []float64, err error) {
		l.sources = sources
		p, err := l.dispatch(ctx)
		if err != nil {
			return nil, err
		}
		defer func() {
			if stopErr := p.Stop(30 * time.Second); err == nil {
				err = stopErr
			}
		}()
		if err := l.served(ctx, p); err != nil {
			return nil, err
		}
		writing, err := l.connect(ctx, to)
		defer writing.close(ctx)
		if err != nil {
			return nil, err
		}
		// A hundred dispatchers that start, and as many writers that connect, keep two cores busy for
		// seconds. What that costs is not what is to be measured.
		if _, err := writing.write(ctx, rateOf, warmUp); err != nil {
			return nil, err
		}
		l.profile(p)
		written, err := writing.write(ctx, rateOf, l.opt.during)
		if err != nil {
			return nil, err
		}
		l.profile(p)
		if err := l.arrived(ctx, written, 30*time.Second); err != nil {
			return nil, err
		}
		return l.latencies(written), nil
	}
	r.note("rates: %d/s in all, for %s", rateOf*len(many), l.opt.during)
	var p99 [2][]float64
	for range 2 { // in turn, since the machine's speed changes
		for i, c := range []struct{ sources, to []*source }{{many[:1], same}, {many, many}} {
			got, err := measure(c.sources, c.to)
			if err != nil {
				return r, err
			}
			what := fmt.Sprintf("%d sources", len(c.sources))
			if len(c.sources) == 1 {
				what = "1 source"
			}
			r.note("  %s: p50 %.2f ms, p99 %.2f ms, most %.1f ms", what, percentile(got, 0.5), percentile(got, 0.99), got[len(got)-1])
			p99[i] = append(p99[i], percentile(got, 0.99))
		}
	}
	ratio := (p99[1][0] + p99[1][1]) / (p99[0][0] + p99[0][1])
	r.line(ratio <= 1.5, "<= 1.5", "  p99 of many sources against that of one: %.2f", ratio)
	return r, nil
}

// hang stops the server of some sources by SIGSTOP, and measures the others.
func hang(ctx context.Context, l *lab) (r report, err error) {
	_, good, err := l.serve(ctx, "a", 10)
	if err != nil {
		return nil, err
	}
	hung, bad, err := l.serve(ctx, "b", 10)
	if err != nil {
		return nil, err
	}
	p, err := l.dispatch(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.served(ctx, p); err != nil {
		return nil, err
	}
	if _, err := l.write(ctx, l.sources, 10, 5*time.Second); err != nil {
		return nil, err
	}
	r.note("hang: 10 sources on one server with 10/s each, 10 on another whose processes are stopped, %s each", l.opt.during)
	before, err := l.write(ctx, good, 10, l.opt.during)
	if err != nil {
		return nil, err
	}
	inFlight, err := l.write(ctx, bad, 50, time.Second) // so that there is work when it hangs
	if err != nil {
		return nil, err
	}
	resume, err := stop(hung.PID())
	if err != nil {
		return nil, err
	}
	defer resume()
	meanwhile, err := l.write(ctx, good, 10, l.opt.during)
	if err != nil {
		return nil, err
	}
	if err := l.arrived(ctx, append(before, meanwhile...), 10*time.Second); err != nil {
		return nil, err
	}
	resume()
	back := time.Now()
	if err := l.arrived(ctx, inFlight, 2*time.Minute); err != nil {
		return nil, err
	}
	was, is := l.latencies(before), l.latencies(meanwhile)
	r.note("  before: p50 %.2f ms, p99 %.2f ms, most %.1f ms", percentile(was, 0.5), percentile(was, 0.99), was[len(was)-1])
	r.note("  meanwhile: p50 %.2f ms, p99 %.2f ms, most %.1f ms", percentile(is, 0.5), percentile(is, 0.99), is[len(is)-1])
	ratio := percentile(is, 0.99) / percentile(was, 0.99)
	r.line(ratio <= 1.2, "no change", "  p99 meanwhile against before: %.2f", ratio)
	after, err := l.write(ctx, bad, 10, 5*time.Second)
	if err != nil {
		return r, err
	}
	if err := l.arrived(ctx, after, time.Minute); err != nil {
		return r, err
	}
	r.note("  all that was on its way had arrived %.1f s after the server went on", time.Since(back).Seconds())
	return r, nil
}

// stop stops a process and its children, until resume.
func stop(pid int) (resume func(), err error) {
	if pid <= 0 {
		return nil, fmt.Errorf("the server has no process")
	}
	pids := []int{pid}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		text := string(b)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		child, _ := strconv.Atoi(strings.Split(strings.TrimPrefix(f, "/proc/"), "/")[0])
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) && child > 0 {
			pids = append(pids, child)
		}
	}
	send := func(s syscall.Signal) {
		for _, pid := range pids {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Signal(s) // it may have ended
			}
		}
	}
	send(process.StandStill)
	return func() { send(process.GoOn) }, nil
}

// kill kills one of three processes.
func kill(ctx context.Context, l *lab) (r report, err error) {
	if _, _, err = l.serve(ctx, "s", 30); err != nil {
		return nil, err
	}
	var three []*program
	for range 3 {
		p, err := l.dispatch(ctx)
		if err != nil {
			return nil, err
		}
		three = append(three, p)
		if err := l.served(ctx, three...); err != nil {
			return nil, err
		}
	}
	if err := wait(ctx, 10*time.Second); err != nil {
		return nil, err
	}
	r.note("kill: 3 processes over %d sources with %d/s each", len(l.sources), rateOf)
	r.note("  sources of each process: %s", l.shares(three))
	result := make(chan error, 1)
	var written [][]int64
	during := 25 * time.Second
	go func() {
		var err error
		written, err = l.write(ctx, l.sources, rateOf, during)
		result <- err
	}()
	if err := wait(ctx, 10*time.Second); err != nil {
		return nil, err
	}
	three[0].Kill()
	at := time.Now().UnixNano()
	l.processes = l.processes[1:]
	if err := <-result; err != nil {
		return r, err
	}
	if err := l.arrived(ctx, written, time.Minute); err != nil {
		return r, err
	}
	stamps := l.receiver.Stamps()
	slow, held, late, again := 0, 0.0, 0.0, 0.0
	for _, of := range written {
		late = 0
		first := int64(0) // receipt of an event that was committed after the kill
		for _, seq := range of {
			if l.commits[seq] > at && (first == 0 || stamps[seq] < first) {
				first = stamps[seq]
			}
			// What was committed before, and is late, was in the hands of the process.
			since := max(l.commits[seq], at)
			if took := float64(stamps[seq]-since) / 1e9; stamps[seq] > at {
				late = max(late, took)
			}
		}
		if late > 0.5 {
			slow++
		}
		held, again = max(held, late), max(again, float64(first-at)/1e9)
	}
	r.line(again < 3, "< 3 s", "  new events of every source arrive again %.2f s after one was killed; %d sources had any that was over 0.5 s late", again, slow)
	r.note("  the latest of all events, which was in the hands of the one that was killed: %.2f s", held)
	r.note("  sources of each process: %s", l.shares(three[1:]))
	p, err := l.dispatch(ctx)
	if err != nil {
		return r, err
	}
	came := time.Now().UnixNano()
	more, err := l.write(ctx, l.sources, rateOf, 15*time.Second)
	if err != nil {
		return r, err
	}
	if err := l.arrived(ctx, more, time.Minute); err != nil {
		return r, err
	}
	all := l.latencies(more)
	r.note("  sources of each process %.0f s after another one came: %s; meanwhile p99 %.1f ms, most %.1f ms",
		float64(time.Now().UnixNano()-came)/1e9, l.shares([]*program{three[1], three[2], p}), percentile(all, 0.99), all[len(all)-1])
	return r, nil
}

func (l *lab) shares(programs []*program) string {
	var all []string
	for _, p := range programs {
		all = append(all, strconv.Itoa(len(p.works.list())))
	}
	return strings.Join(all, ", ")
}
