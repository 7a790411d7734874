package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/faultproxy"
	"github.com/rowhook/rowhook/internal/localpg"
	"github.com/rowhook/rowhook/lab/internal/process"
	"github.com/rowhook/rowhook/sqlschema"
)

// strike carries out the schedule and returns when the last fault is over.
func (s *site) strike(ctx context.Context, faults []*fault) {
	began := time.Now()
	var striking sync.WaitGroup
	for _, f := range faults {
		wait(ctx, f.At-time.Since(began))
		if ctx.Err() != nil {
			break
		}
		striking.Go(func() {
			f.Began = time.Now()
			err := s.labs[max(f.Source, 0)].commit(ctx, f)
			f.Ended = time.Now()
			if err != nil {
				f.Error = err.Error()
			}
			if s.opt.verbose || err != nil {
				s.logf("%s, slot %d, source %d, %.1f s %s", f.Kind, f.Slot, f.Source, f.Ended.Sub(f.Began).Seconds(), f.Error)
			}
		})
	}
	striking.Wait()
}

// heal ends what faults may have left behind.
func (l *lab) heal(ctx context.Context) error {
	for _, s := range l.slots {
		for _, p := range s.proxies() {
			p.Heal()
		}
		if c := s.running(); c != nil {
			_ = c.Signal(process.GoOn) // it may have ended
		}
		s.release()
	}
	for _, t := range append(l.triggers(), extra) {
		l.receiver.setMood(t, mood{})
	}
	if l.volume != nil {
		if err := l.volume.Free(); err != nil {
			return err
		}
	}
	if err := l.revive(ctx); err != nil {
		return err
	}
	if err := l.mendHistory(ctx); err != nil {
		return err
	}
	if err := l.migrate(ctx); err != nil {
		return err
	}
	_, err := l.admin.Exec(ctx, "alter role "+role+" connection limit -1")
	return err
}

// commit causes one fault and ends it.
func (l *lab) commit(ctx context.Context, f *fault) error {
	switch f.Kind {
	case faultKill, faultTerm, faultPause, faultOverdue, faultZombie:
		return l.hurt(ctx, l.slots[f.Slot], f)
	case faultCrash:
		l.serverMu.Lock()
		defer l.serverMu.Unlock()
		return l.server.Restart(ctx, localpg.Immediate)
	case faultTerminate:
		return l.terminate(ctx, l.slots[f.Slot], !f.Hard, false)
	case faultLong:
		return l.openLong(ctx, f)
	case faultForge:
		return l.forge(ctx, f)
	case faultOrphan:
		return l.orphan(ctx, f)
	case faultApply:
		return l.apply(ctx, f.Variant)
	case faultSchema:
		return l.downAndUp(ctx, f)
	case faultConnections:
		return l.limitConnections(ctx, f)
	case faultLock:
		return l.lock(ctx, f)
	case faultDisk:
		return l.fillDisk(ctx, f)
	case faultHistory:
		return l.spoilHistory(ctx, f)
	case listenLost, listenAllLost, listenStrand, listenStall:
		l.deafen(ctx, f)
		return nil
	case brokerKill:
		return l.broker.restart(ctx, f.For)
	case brokerFull:
		return l.broker.full(ctx, f.For)
	case streamCut, streamReset, streamStall, streamAbandon, streamSlow, streamRefuse:
		disturb(ctx, l.slots[f.Slot].messages, f)
		return nil
	case databaseCut, databaseReset, databaseStall, databaseAbandon, databaseSlow, databaseStrand:
		disturb(ctx, l.slots[f.Slot].database, f)
		return nil
	case webhookCut, webhookReset, webhookStall, webhookAbandon, webhookSlow, webhookRefuse:
		disturb(ctx, l.slots[f.Slot].webhooks, f)
		return nil
	}
	l.receiver.setMood(f.Trigger, mood{kind: f.Kind, share: f.Share, step: time.Duration(f.Step) * time.Second})
	wait(ctx, f.For)
	l.receiver.setMood(f.Trigger, mood{})
	return nil
}

func disturb(ctx context.Context, p *faultproxy.Proxy, f *fault) {
	switch f.Kind {
	case databaseCut, webhookCut, streamCut:
		p.Cut()
		return
	case databaseReset, webhookReset, streamReset:
		p.Reset()
		return
	case databaseStall, webhookStall, listenStall, streamStall:
		p.Set(faultproxy.Stall)
	case databaseStrand, listenStrand:
		p.Strand()
	case databaseAbandon, webhookAbandon, streamAbandon:
		p.Abandon()
	case databaseSlow, webhookSlow, streamSlow:
		p.Set(faultproxy.Slow)
	case webhookRefuse, streamRefuse:
		p.Set(faultproxy.Refuse)
		p.Cut() // open connections would still work
	}
	wait(ctx, f.For)
	p.Heal()
}

// hurt strikes the process of a dispatcher.
func (l *lab) hurt(ctx context.Context, s *slot, f *fault) error {
	switch f.Kind {
	case faultKill:
		defer s.release()
		if c := s.take(); c != nil {
			c.Kill()
		}
		wait(ctx, f.For)
		return nil
	case faultTerm:
		defer s.release()
		err := s.stop(f.Hard)
		wait(ctx, f.For)
		return err
	}
	c := s.running()
	if c == nil {
		return nil
	}
	if err := c.Signal(process.StandStill); err != nil {
		return err
	}
	defer func() { _ = c.Signal(process.GoOn) }() // it may have been killed
	var err error
	if f.Kind == faultZombie {
		err = l.terminate(ctx, s, false, true)
	}
	wait(ctx, f.For)
	return err
}

// terminate ends a dispatcher's sessions in this source, or in all. It may leave out the sessions that
// listen.
func (l *lab) terminate(ctx context.Context, s *slot, spare, all bool) error {
	_, err := l.admin.Exec(ctx, `
select pg_terminate_backend(pid) from pg_stat_activity
 where application_name = 'rowhook ' || $1 and (not $2 or query not ilike 'listen%') and ($3 or datname = current_database())`, s.name(), spare, all)
	if err != nil {
		return fmt.Errorf("terminate backends: %w", err)
	}
	return nil
}

// openLong keeps a transaction with an id and a snapshot open.
func (l *lab) openLong(ctx context.Context, f *fault) error {
	err := pgx.BeginTxFunc(ctx, l.admin, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		var xid string
		if err := tx.QueryRow(ctx, "select pg_current_xact_id()::text from ledger limit 1").Scan(&xid); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		wait(ctx, f.For)
		return nil
	})
	if err != nil {
		return fmt.Errorf("hold a transaction: %w", err)
	}
	return nil
}

// downAndUp brings the schema to the version before this program's, and back.
func (l *lab) downAndUp(ctx context.Context, f *fault) error {
	_, err := l.command(ctx, "migrate", "--to", strconv.Itoa(int(sqlschema.OldestSchema)), "--yes")
	if err == nil {
		wait(ctx, f.For)
	}
	return errors.Join(err, l.migrate(ctx))
}

// migrate brings the schema to this program's version.
func (l *lab) migrate(ctx context.Context) error {
	_, err := l.command(ctx, "migrate")
	return err
}

// limitConnections allows the role fewer sessions than it needs, and ends those that it has.
func (l *lab) limitConnections(ctx context.Context, f *fault) error {
	_, err := l.admin.Exec(ctx, fmt.Sprintf("alter role %s connection limit %d", role, 1+len(l.slots)*len(l.labs)))
	if err == nil {
		_, err = l.admin.Exec(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", role)
	}
	wait(ctx, f.For)
	_, back := l.admin.Exec(ctx, "alter role "+role+" connection limit -1")
	if err := errors.Join(err, back); err != nil {
		return fmt.Errorf("limit connections: %w", err)
	}
	return nil
}

// lock locks a table of the queue against everyone.
func (l *lab) lock(ctx context.Context, f *fault) error {
	err := pgx.BeginFunc(ctx, l.admin, func(tx pgx.Tx) error {
		for _, sql := range []string{"set local lock_timeout = '3s'", "lock table rowhook." + f.Table + " in access exclusive mode"} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		wait(ctx, f.For)
		return nil
	})
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Table, err)
	}
	return nil
}

// fillDisk fills the server's disk. The server may stop because of it.
func (l *lab) fillDisk(ctx context.Context, f *fault) error {
	l.serverMu.Lock()
	defer l.serverMu.Unlock()
	err := l.volume.Fill()
	wait(ctx, f.For)
	if err := errors.Join(err, l.volume.Free()); err != nil {
		return err
	}
	return l.revive(ctx)
}

// revive makes sure that the server answers.
func (l *lab) revive(ctx context.Context) error {
	for tries := 0; ; tries++ {
		err := l.server.Start(ctx)
		if err == nil {
			err = l.answers(ctx)
		}
		if err == nil || ctx.Err() != nil || tries == 10 {
			return err
		}
		wait(ctx, 300*time.Millisecond)
	}
}

func (l *lab) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := l.admin.Exec(ctx, "select"); err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	return nil
}
