package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/localpg"
)

// outage is something that fails and is repaired.
type outage struct {
	name  string
	begin func(ctx context.Context) error
	end   func(ctx context.Context) error
	fires []string // have to fire before it is repaired
	after []string // have to fire, before or after it is repaired
	may   []string // may fire, for the reason in the comment beside it
}

const (
	absent      = "RowhookAbsent"
	instance    = "RowhookInstanceDown"
	dead        = "RowhookInstanceDead"
	fails       = "RowhookDatabaseFails"
	deaf        = "RowhookNotListening"
	restarted   = "RowhookPostgresRestarted"
	endpoint    = "RowhookEndpointDown"
	backlog     = "RowhookBacklogOld"
	letters     = "RowhookDeadLetters"
	heldBack    = "RowhookVacuumHeldBack"
	full        = "RowhookDiskFull"
	nearlyFull  = "RowhookDiskNearlyFull"
	pausedAlert = "RowhookTriggerPaused"
)

func (l *lab) outages() []outage {
	first, second := l.dispatchers[0], l.dispatchers[1]
	var holder pgx.Tx
	all := []outage{
		{
			name:  "endpoint down",
			begin: func(context.Context) error { l.sink.kill(); return nil },
			end:   l.sink.start,
			fires: []string{endpoint, letters, backlog},
		},
		{
			name:  "one dispatcher of two killed",
			begin: func(context.Context) error { first.kill(); return nil },
			end:   first.start,
			fires: []string{instance},
			may:   []string{dead}, // the other one reclaims within seconds, but reads of the database stay 10 s apart while a minute is a second here
		},
		{
			name:  "all dispatchers killed",
			begin: func(context.Context) error { first.kill(); second.kill(); return nil },
			end:   func(ctx context.Context) error { return errors.Join(first.start(ctx), second.start(ctx)) },
			fires: []string{absent, instance},
			may:   []string{dead, backlog}, // as above; an event counts as old here after ten seconds, and the start may take as long on a busy machine
		},
		{
			name:  "Postgres restarted",
			begin: func(ctx context.Context) error { return l.server.Restart(ctx, localpg.Fast) },
			end:   func(context.Context) error { return nil },
			fires: []string{restarted},
			may:   []string{fails, deaf, dead}, // a restart takes a second or more, which counts as a minute here
		},
		{
			name:  "Postgres down",
			begin: func(ctx context.Context) error { return l.server.Halt(ctx, localpg.Fast) },
			end:   l.server.Start,
			fires: []string{fails, deaf},
			after: []string{restarted},
			may:   []string{dead, backlog}, // as above, until the sessions are back
		},
		{
			name: "long transaction",
			begin: func(ctx context.Context) (err error) {
				holder, err = l.hold(ctx)
				return errors.Join(err, l.rowhook(ctx, "pause", quiet))
			},
			end: func(ctx context.Context) error {
				return errors.Join(holder.Rollback(ctx), l.rowhook(ctx, "resume", quiet))
			},
			fires: []string{heldBack},
		},
	}
	if l.exporter == nil {
		return all
	}
	return append(all, outage{
		name:  "disk nearly full",
		begin: func(context.Context) error { return l.volume.FillAllBut(0.08) },
		end:   func(context.Context) error { return l.volume.Free() },
		fires: []string{nearlyFull},
	}, outage{
		name:  "disk full",
		begin: func(context.Context) error { return l.volume.Fill() },
		end:   l.freeDisk,
		fires: []string{nearlyFull, full},
		may:   []string{fails, deaf, dead, restarted, backlog}, // Postgres stops when it can't write its log
	})
}

// hold opens a transaction that keeps vacuum from removing what is deleted from now on.
func (l *lab) hold(ctx context.Context) (pgx.Tx, error) {
	tx, err := l.admin.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return nil, fmt.Errorf("hold a transaction: %w", err)
	}
	if _, err := tx.Exec(ctx, "select count(*) from "+quiet); err != nil {
		return nil, fmt.Errorf("hold a transaction: %w", err)
	}
	return tx, nil
}

// freeDisk makes room, and starts the server if it has stopped for lack of it.
func (l *lab) freeDisk(ctx context.Context) error {
	if err := l.volume.Free(); err != nil {
		return err
	}
	return retry.Do(ctx, retry.WithMaxRetries(20, retry.NewConstant(300*time.Millisecond)), func(ctx context.Context) error {
		if err := l.server.Start(ctx); err != nil {
			return retry.RetryableError(err)
		}
		if _, err := l.admin.Exec(ctx, "select"); err != nil {
			return retry.RetryableError(fmt.Errorf("ask the server: %w", err))
		}
		return nil
	})
}

// patience is how long an alert may take to fire or to resolve: the longest time that its rule
// needs, and then some for a slow machine.
const patience = 90 * time.Second

// stageAll makes the whole run.
func (l *lab) stageAll(ctx context.Context) (r *report, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var following sync.WaitGroup
	defer func() {
		cancel(nil)
		following.Wait()
	}()
	following.Go(func() {
		if err := l.history.follow(ctx, l.prometheus); err != nil {
			cancel(err)
		}
	})
	following.Go(func() { l.dashboard.follow(ctx, l.prometheus) })
	following.Go(func() { l.write(ctx) })

	r = &report{factor: l.opt.factor, severities: l.rules.severities(), dashboard: l.dashboard}
	for _, o := range l.outages() {
		if strings.Contains(o.name, l.opt.only) {
			r.outages = append(r.outages, o)
		}
	}
	if err := l.settle(ctx); err != nil {
		return r, err
	}
	if err := l.calm(ctx, r, "the calm before"); err != nil {
		return r, err
	}
	for _, o := range r.outages {
		if err := l.stage(ctx, r, &o); err != nil {
			return r, fmt.Errorf("%s: %w", o.name, err)
		}
	}
	if err := l.calm(ctx, r, "the calm after"); err != nil {
		return r, err
	}
	choices := l.dashboard.choices(ctx, l.prometheus)
	cancel(nil)
	following.Wait()
	r.took, r.committed, r.failed = time.Since(l.start), l.traffic.committed.Load(), l.traffic.failed.Load()
	r.problems = append(r.problems, l.history.texts()...)
	if l.opt.only == "" {
		r.problems = append(r.problems, l.dashboard.problems()...)
	}
	if choices != nil {
		r.problems = append(r.problems, choices.Error())
	}
	return r, nil
}

// settle waits until Prometheus has scraped every program. Before that it takes the dispatchers for
// missing.
func (l *lab) settle(ctx context.Context) error {
	targets := len(l.dispatchers)
	if l.exporter != nil {
		targets++
	}
	var failed error
	err := l.await(ctx, func() bool {
		var up []float64
		up, failed = l.prometheus.query(ctx, "up == 1")
		return failed == nil && len(up) == targets && l.history.quiet()
	})
	if err != nil {
		return fmt.Errorf("wait until everything is scraped: %w", errors.Join(err, failed))
	}
	return nil
}

// calm is a time without outages, during which no alert may fire.
func (l *lab) calm(ctx context.Context, r *report, name string) error {
	l.logf("%s: %s", name, l.opt.calm)
	since := time.Now()
	if err := l.history.until(ctx, l.opt.calm, func() bool { return false }); !errors.Is(err, errPatience) {
		return err
	}
	for _, s := range l.history.spells(since) {
		if !s.firing.IsZero() {
			r.problemf("%s fired in %s", s.alert, name)
		}
	}
	return nil
}

// stage causes an outage and waits for the alerts.
func (l *lab) stage(ctx context.Context, r *report, o *outage) error {
	l.logf("%s", o.name)
	began, committed, failed := time.Now(), l.traffic.committed.Load(), l.traffic.failed.Load()
	if err := o.begin(ctx); err != nil {
		return err
	}
	late := l.await(ctx, func() bool {
		return !slices.ContainsFunc(o.fires, func(a string) bool { return !l.history.fired(a, began) })
	})
	repaired := time.Now()
	l.logf("%s: repaired; meanwhile %d writes were committed and %d failed", o.name, l.traffic.committed.Load()-committed, l.traffic.failed.Load()-failed)
	if err := o.end(ctx); err != nil {
		return err
	}
	stuck := l.await(ctx, func() bool {
		return l.history.quiet(pausedAlert) && !slices.ContainsFunc(o.after, func(a string) bool { return !l.history.fired(a, began) })
	})
	if err := context.Cause(ctx); err != nil {
		return err
	}
	spells := l.history.spells(began)
	r.add(o, began, repaired, spells)
	switch {
	case late != nil:
		r.problemf("%s: not all of %s fired: %v", o.name, strings.Join(o.fires, ", "), late)
	case stuck != nil:
		r.problemf("%s: after it, not all alerts of %s fired and resolved: %v", o.name, strings.Join(slices.Concat(o.fires, o.after), ", "), stuck)
	}
	return nil
}

func (l *lab) await(ctx context.Context, condition func() bool) error {
	return l.history.until(ctx, patience, condition)
}
