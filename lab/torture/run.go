package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
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
	l.logf("PostgreSQL %d.%d, %d sources, %d dispatchers, %d writers of each source, %d faults within %s", l.server.Version()/10000, l.server.Version()%10000,
		opt.sources, opt.instances, opt.writers, len(faults), opt.length)
	r = &results{Seed: opt.seed, Length: opt.length, Instances: opt.instances, Sources: opt.sources, Writers: opt.writers, Postgres: l.server.Version(), Faults: faults}

	running, stop := context.WithCancel(ctx)
	defer stop()
	l.dispatch(running)
	counting := make([]*census, len(l.labs))
	for i, one := range l.labs {
		resumed := one.resumePauses(running)
		defer func() { stop(); resumed.Wait() }()
		counting[i] = one.startCensus(running)
		defer counting[i].finish()
	}
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
	attempts := 0
	for _, one := range l.labs {
		if err := one.heal(ctx); err != nil {
			return nil, err
		}
		if err := one.apply(ctx, usual()); err != nil {
			return nil, fmt.Errorf("apply after the faults: %w", err)
		}
		attempts += one.receiver.attempts()
	}
	l.logf("the faults are over: %d transactions, %d failed ones, %d attempts", l.committed.Load(), l.failed.Load(), attempts)
	l.afterwards(ctx, r)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	listings := make([][]listing, len(l.labs))
	for i := range l.labs {
		listings[i] = counting[i].finish()
	}
	r.Exits = l.stopAll()
	stop()
	for i, one := range l.labs {
		e, err := one.gather(ctx, r.Faults)
		if err != nil {
			return nil, err
		}
		e.listings, e.spread = listings[i], len(l.labs) > 1
		v := judge(e)
		v.Source = one.name
		r.Verdicts = append(r.Verdicts, v)
	}
	r.Transactions, r.FailedTransactions, r.Took = l.committed.Load(), l.failed.Load(), time.Since(l.start)
	for _, one := range l.runners {
		r.Starts += one.starts
		r.FailedStarts += one.failed
	}
	return r, nil
}

// afterwards waits until all is delivered, and has the cases of the calm in one of the sources, which the
// seed decides.
func (s *site) afterwards(ctx context.Context, r *results) {
	began := time.Now()
	for _, one := range s.labs {
		if stuck := one.drained(ctx, s.opt.drain); stuck != "" {
			r.Stuck = strings.TrimSpace(one.name + " " + stuck)
			return
		}
	}
	s.logf("drained after %.1f s", time.Since(began).Seconds())
	if s.opt.restless {
		return
	}
	one := s.labs[s.opt.seed%uint64(len(s.labs))]
	r.Stuck = one.calm(ctx, func(f *fault) {
		if f.Source = one.source; natures()[f.Kind].wide && len(s.labs) > 1 {
			f.Source = everywhere
		}
		r.Faults = append(r.Faults, f)
	})
	s.logf("the calm took %.1f s with the drain %s", time.Since(began).Seconds(), one.name)
}

// underFire lets writers write while faults strike.
func (s *site) underFire(ctx context.Context, faults []*fault) error {
	writing, stop := context.WithTimeout(ctx, s.opt.length)
	defer stop()
	var writers sync.WaitGroup
	for _, one := range s.labs {
		for n := range s.opt.writers {
			writers.Go(func() { newWriter(one, n).run(writing) })
		}
	}
	s.strike(ctx, faults)
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
func (s *site) stopAll() []string {
	var (
		mu      sync.Mutex
		problem []string
		all     sync.WaitGroup
	)
	for _, one := range s.runners {
		all.Go(func() {
			c := one.running()
			err := one.stop(false)
			if c != nil && err == nil {
				err = c.Err()
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				problem = append(problem, fmt.Sprintf("%s: %v%s", one.name(), process.OrExited(err), c.Log()))
			}
		})
	}
	all.Wait()
	return problem
}
