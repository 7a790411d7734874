package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/sethvargo/go-retry"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// Applier changes the triggers of tables that are in use. The zero value works.
//
// A statement that waits for the lock of a table makes all later statements on that table wait. So
// an attempt gives up after LockTimeout, lets the others pass, and is repeated.
type Applier struct {
	LockTimeout time.Duration // how long one attempt may wait for a lock; 0: DefaultLockTimeout
	Patience    time.Duration // how long attempts are repeated, for each table; 0: DefaultPatience
	Cascade     bool          // Uninstall also drops others' objects that depend on it

	// Migrator first brings the schema to this program's version. nil: the caller has migrated it.
	Migrator *Migrator
	// GrantTo names roles that get the rights of a dispatcher.
	GrantTo []string
	// Planned is called with the plan before it is carried out, under the lock that keeps other
	// applies from changing it. If it returns an error, nothing is done, and Apply returns that
	// error. Without it each change is logged. Optional.
	Planned func(*Plan) error
	// Returning names triggers that were moved back to Hasura, and that are to record changes again. An
	// apply leaves others alone while Hasura has their changes.
	Returning []string
	// Newcomers is called with the ids of triggers that did not exist before, in the transaction that
	// makes them. If it returns an error, they are not made. Optional.
	Newcomers func(ctx context.Context, tx pgx.Tx, ids []int32) error
}

// The defaults of an Applier.
const (
	DefaultLockTimeout = 500 * time.Millisecond
	DefaultPatience    = time.Minute
)

// Apply makes the database match the specs and settings, and returns what it did. The schema must
// be migrated: otherwise Apply returns a *NotInstalledError. log may be nil.
//
// Each table has its own transaction. If a table stays busy longer than the patience of the
// Applier, Apply leaves it unchanged, goes on with the others, and returns a *BusyError at the end.
// If specs have faults, Apply returns [trigger.SpecErrors] and changes nothing. If row level
// security hides Rowhook's own rows from this role, the error says so.
func Apply(ctx context.Context, conn *pgx.Conn, specs []trigger.Spec, settings trigger.Settings, log *slog.Logger) (*Plan, error) {
	return Applier{}.Apply(ctx, conn, specs, settings, log)
}

// Apply is the function Apply with the options of the Applier.
func (a Applier) Apply(ctx context.Context, conn *pgx.Conn, specs []trigger.Spec, settings trigger.Settings, log *slog.Logger) (plan *Plan, err error) {
	log = orSilent(log)
	if a.Migrator != nil {
		if err := a.Migrator.check(ctx, conn); err != nil {
			return nil, err
		}
	}
	err = pinnedAndLocked(ctx, conn, func() error {
		if plan, err = a.makePlan(ctx, conn, specs, settings); err != nil {
			return err
		}
		for _, w := range plan.Warnings {
			log.Warn(w)
		}
		if a.Planned != nil {
			if err := a.Planned(plan); err != nil {
				return err
			}
		}
		if len(plan.setup) > 0 || plan.newer {
			if err := a.setUp(ctx, conn, plan, specs, settings, log); err != nil {
				return err
			}
		}
		return a.carryOut(ctx, conn, plan, log)
	})
	if err != nil {
		return nil, err
	}
	return plan, nil
}

// setUp migrates the schema and completes a copy without rows. Only then it is known what is to be
// done, so the steps are planned again. A change that was not in the first plan is logged.
func (a Applier) setUp(ctx context.Context, conn *pgx.Conn, plan *Plan, specs []trigger.Spec, settings trigger.Settings, log *slog.Logger) error {
	switch database, program, err := Version(ctx, conn); {
	case a.Migrator != nil:
		if err := a.Migrator.Migrate(ctx, conn, log); err != nil {
			return err
		}
	case err == nil && database < program:
		return &NotInstalledError{Database: database, Program: program}
	default:
		if err := wholeToApply(ctx, conn, log); err != nil {
			return err
		}
	}
	now, err := a.makePlan(ctx, conn, specs, settings)
	if err != nil {
		return err
	}
	foreseen := map[string]bool{}
	for _, c := range plan.Changes() {
		foreseen[c.String()] = true
	}
	for _, c := range now.Changes() {
		if a.Planned != nil && !foreseen[c.String()] {
			log.Info("the migration has made another change necessary", "change", c.String())
		}
	}
	plan.steps = now.steps
	return nil
}

// carryOut runs the steps.
func (a Applier) carryOut(ctx context.Context, conn *pgx.Conn, plan *Plan, log *slog.Logger) error {
	before, err := captureRoles(ctx, conn)
	if err != nil {
		return err
	}
	failed := a.runAll(ctx, conn, plan.units(), log)
	if ctx.Err() != nil {
		return failed
	}
	if err := revokeFormer(ctx, conn, before); err != nil {
		log.Warn("could not revoke the rights of a former owner of a watched table in the schema rowhook", "error", err)
	}
	recordApply(ctx, conn, plan, failed, log)
	if failed != nil {
		return failed
	}
	if a.Planned == nil {
		for _, c := range plan.Changes() {
			log.Info("applied", "change", c.String())
		}
	}
	if err := rememberNames(ctx, conn); err != nil {
		return err
	}
	buried, err := queue.BuryOrphans(ctx, conn)
	if buried > 0 {
		log.Info("moved the events of removed triggers to the dead letters", "events", buried)
	}
	if err != nil {
		return err
	}
	freed, err := queue.Unpark(ctx, conn)
	if freed > 0 {
		log.Info("the events that waited in order of triggers without order are sent as they come", "events", freed)
	}
	return err
}

// runAll runs the units one after the other. If one fails, it goes on with the others.
func (a Applier) runAll(ctx context.Context, conn *pgx.Conn, units []*unit, log *slog.Logger) error {
	var failed []error
	for _, u := range units {
		if err := a.run(ctx, conn, u, log); err != nil {
			failed = append(failed, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

// recordApply records the changes in rowhook.audit. A role that may change the triggers of some
// tables need not have the right to write there, so a failure is only logged.
func recordApply(ctx context.Context, conn *pgx.Conn, plan *Plan, failed error, log *slog.Logger) {
	all := plan.Changes()
	if len(all) == 0 {
		return
	}
	const most = 200
	var changes []string
	targets := map[string]bool{}
	for i, c := range all {
		if c.Object == "trigger" {
			targets[c.Name] = true
		}
		switch {
		case i < most:
			changes = append(changes, c.String())
		case i == most:
			changes = append(changes, fmt.Sprintf("and %d more", len(all)-most))
		}
	}
	detail := map[string]any{"changes": changes}
	if failed != nil {
		detail["error"] = failed.Error()
	}
	if _, err := queue.RecordAudit(ctx, conn, queue.AuditEntry{Action: "apply", Targets: slices.Sorted(maps.Keys(targets)), Detail: detail}); err != nil {
		log.Warn("could not record this apply in rowhook.audit", "error", err)
	}
}

// run runs the unit in a transaction and notifies the dispatchers.
func (a Applier) run(ctx context.Context, conn *pgx.Conn, u *unit, log *slog.Logger) error {
	return a.transact(ctx, conn, u, log, func(tx *pipeline) error {
		var newcomers []int32
		for _, s := range u.steps {
			if err := s.run(ctx, tx); err != nil {
				return err
			}
			if s.phase == writeRow && s.installs != nil && s.installs.newcomer {
				newcomers = append(newcomers, s.installs.id)
			}
		}
		if u.stage == granting {
			return nil // grants do not change the configuration
		}
		tx.laterWith(raising, raiseGeneration, queue.MuteFrom)
		silence, args := queue.Silencing()
		tx.laterWith(raising, silence, args...)
		if err := queue.PauseNewcomers(ctx, tx, newcomers); err != nil || a.Newcomers == nil || len(newcomers) == 0 {
			return err
		}
		return a.Newcomers(ctx, tx, newcomers)
	})
}

// RaiseGeneration tells the dispatchers, when the transaction commits, that their configuration has
// changed. If the server's queue of notifications fills up, notifying could make the commit fail.
// Then dispatchers see the change at their next watch.
func RaiseGeneration(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, raiseGeneration, queue.MuteFrom); err != nil {
		return raising(err)
	}
	return queue.SilenceForNobody(ctx, tx)
}

const raiseGeneration = `
with raised as (
  update rowhook.setting set value = pg_catalog.to_jsonb((value #>> '{}')::bigint + 1) where name = 'generation'
)
select pg_catalog.pg_notify('rowhook', 'config') where pg_catalog.pg_notification_queue_usage() < $1`

func raising(err error) error { return fmt.Errorf("raise the generation: %w", err) }

// transact runs f in a transaction, and repeats it while the table of the unit is busy.
func (a Applier) transact(ctx context.Context, conn *pgx.Conn, u *unit, log *slog.Logger, f func(*pipeline) error) error {
	timeout, patience := a.LockTimeout, a.Patience
	if timeout <= 0 {
		timeout = DefaultLockTimeout
	}
	if patience <= 0 {
		patience = DefaultPatience
	}
	started := time.Now()
	backoff := pg.Backoff(timeout)
	var busy *BusyError
	err := retry.Do(ctx, retry.WithMaxDuration(patience, backoff), func(ctx context.Context) error {
		// A statement_timeout of the role or the database may be shorter.
		begin := fmt.Sprintf("begin; set local lock_timeout = '%dms'; set local statement_timeout = 0", max(1, timeout.Milliseconds()))
		err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{BeginQuery: begin}, func(tx pgx.Tx) error {
			all := &pipeline{Tx: tx}
			if err := f(all); err != nil {
				return err
			}
			return all.send(ctx)
		})
		if !isBusy(err) {
			return err
		}
		blockers, lookErr := findBlockers(ctx, conn, u)
		if lookErr != nil {
			return lookErr
		}
		busy = &BusyError{Table: u.table, Waited: time.Since(started), Blockers: blockers, Err: err}
		log.Warn("a table is busy, trying again", "table", u.table, "lock", u.lock, "blockers", busy.blockers())
		return retry.RetryableError(busy)
	})
	if busy != nil && errors.Is(err, busy) {
		busy.Waited = time.Since(started)
		return busy
	}
	if pg.IsState(err, pgerrcode.InsufficientPrivilege) {
		if u.table == "" {
			return explainPrivilege(ctx, conn, err)
		}
		return fmt.Errorf("change the triggers of %s: %w: apply as the table's owner, or as the role that installed Rowhook", u.table, err)
	}
	if err != nil && u.table != "" {
		return fmt.Errorf("change the triggers of %s: %w", u.table, err)
	}
	return err
}

// rememberNames records the current names of tables, for the time after they are dropped. A rename
// alone does not change the configuration.
func rememberNames(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `
update rowhook.trigger t
   set schema_name = n.nspname, table_name = c.relname
  from (select t.id, w.relation from rowhook.trigger t`+queue.WatchedNow+`) as k
  join pg_catalog.pg_class c on c.oid = k.relation
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where k.id = t.id and t.removed_at is null and (t.schema_name, t.table_name) is distinct from (n.nspname::text, c.relname::text)`)
	if err != nil {
		return fmt.Errorf("record the tables' names: %w", err)
	}
	return rememberRelations(ctx, conn)
}
