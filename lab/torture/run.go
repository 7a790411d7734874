package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/rowhook/rowhook/lab/internal/process"
)

// torture makes a run: faults, drain, calm, verdict.
func torture(ctx context.Context, opt options, out io.Writer) (r *results, err error) {
	l, err := openLab(ctx, opt, out)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	p := opt.plan()
	if l.volume == nil {
		p.without = append(p.without, faultDisk)
	}
	faults := p.schedule()
	l.logf("PostgreSQL %d.%d, %d dispatchers, %d writers, %d faults within %s", l.server.Version()/10000, l.server.Version()%10000,
		opt.instances, opt.writers, len(faults), opt.length)
	r = &results{Seed: opt.seed, Length: opt.length, Instances: opt.instances, Writers: opt.writers, Postgres: l.server.Version(), Faults: faults}

	running, stop := context.WithCancel(ctx)
	defer stop()
	l.dispatch(running)
	resumed := l.resumePauses(running)
	defer func() { stop(); resumed.Wait() }()
	c := l.startCensus(running)
	defer c.finish()
	var w *watch
	if opt.soak {
		w = l.startWatch(running)
	}
	if err := l.underFire(ctx, faults); err != nil {
		return nil, err
	}
	if w != nil {
		r.Soak = w.finish()
	}
	if err := l.heal(ctx); err != nil {
		return nil, err
	}
	l.logf("the faults are over: %d transactions, %d failed ones, %d attempts", l.committed.Load(), l.failed.Load(), l.receiver.attempts())
	if err := l.apply(ctx, usual()); err != nil {
		return nil, fmt.Errorf("apply after the faults: %w", err)
	}
	began := time.Now()
	r.Stuck = l.drained(ctx, opt.drain)
	if r.Stuck == "" {
		l.logf("drained after %.1f s", time.Since(began).Seconds())
		r.Stuck = l.calm(ctx, func(f *fault) { r.Faults = append(r.Faults, f) })
		l.logf("the calm took %.1f s with the drain", time.Since(began).Seconds())
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	listings := c.finish()
	r.Exits = l.stopAll()
	stop()
	e, err := l.gather(ctx, r.Faults)
	if err != nil {
		return nil, err
	}
	e.listings = listings
	r.Verdict = judge(e)
	r.Transactions, r.FailedTransactions, r.Took = l.committed.Load(), l.failed.Load(), time.Since(l.start)
	for _, s := range l.slots {
		r.Starts += s.starts
		r.FailedStarts += s.failed
	}
	return r, nil
}

// underFire lets writers write while faults strike.
func (l *lab) underFire(ctx context.Context, faults []*fault) error {
	writing, stop := context.WithTimeout(ctx, l.opt.length)
	defer stop()
	var writers sync.WaitGroup
	for n := range l.opt.writers {
		writers.Go(func() { newWriter(l, n).run(writing) })
	}
	l.strike(ctx, faults)
	writers.Wait()
	return ctx.Err()
}

// drained waits until no event is owed any more. Otherwise it returns what is wrong.
func (l *lab) drained(ctx context.Context, within time.Duration) string {
	deadline := time.Now().Add(within)
	for {
		var owed int
		err := l.admin.QueryRow(ctx, "select count(*) from rowhook.event_log").Scan(&owed)
		switch {
		case err != nil:
			return fmt.Sprintf("count what is owed: %v", err)
		case owed == 0:
			return ""
		case time.Now().After(deadline):
			return fmt.Sprintf("%d events are still owed after %s:\n%s", owed, within, l.diagnosis(ctx))
		}
		wait(ctx, 20*time.Millisecond)
	}
}

// stopAll stops the dispatchers in order, and returns those that failed while stopping.
func (l *lab) stopAll() []string {
	var (
		mu      sync.Mutex
		problem []string
		all     sync.WaitGroup
	)
	for _, s := range l.slots {
		all.Go(func() {
			c := s.running()
			err := s.stop(false)
			if c != nil && err == nil {
				err = c.Err()
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				problem = append(problem, fmt.Sprintf("%s: %v%s", s.name(), process.OrExited(err), c.Log()))
			}
		})
	}
	all.Wait()
	return problem
}
