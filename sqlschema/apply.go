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
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
	"github.com/sethvargo/go-retry"
)

// Applier changes the triggers of tables that are in use. The zero value works.
//
// A statement that waits for a table's lock makes everyone wait who comes after it. So an attempt gives up after a short
// LockTimeout, lets the others pass, and tries again.
type Applier struct {
	LockTimeout time.Duration // how long one attempt may keep a table waiting; default 500ms
	Patience    time.Duration // how long to keep trying, for each table; default 1m
	Cascade     bool          // Uninstall also drops what depends on the schema rowhook and is not Rowhook's own

	// Migrator brings the schema to this program's version first. nil: it is there already.
	Migrator *Migrator
	// GrantTo names roles that get the rights of a dispatcher.
	GrantTo []string
	// Planned receives the plan that is about to be carried out, under the lock that keeps others from
	// changing it. Nothing is done if it returns an error. Without it each change is logged. Optional.
	Planned func(*Plan) error
}

// The defaults of an Applier.
const (
	DefaultLockTimeout = 500 * time.Millisecond
	DefaultPatience    = time.Minute
)

// Apply makes the triggers and settings of the database those of specs and settings, and returns
// what it did. The schema must be migrated already: see Migrate and Applier.Migrator. log may be
// nil.
//
// Each table is changed in a transaction of its own. A table that stays busy for longer than
// DefaultPatience is left as it is, and reported as a *BusyError after all others were changed. If
// specs have faults, the error is a [trigger.SpecErrors], and nothing is changed.
func Apply(ctx context.Context, conn *pgx.Conn, specs []trigger.Spec, settings trigger.Settings, log *slog.Logger) (*Plan, error) {
	return Applier{}.Apply(ctx, conn, specs, settings, log)
}

// Apply does what the function Apply does, with the fields of the Applier.
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

// setUp migrates the schema and makes a copy whole. What is to be done then is known only
// afterwards, so the steps are planned once more. What was not foreseen is logged.
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
			log.Info("after the migration this is to be done, too", "change", c.String())
		}
	}
	plan.steps = now.steps
	return nil
}

// carryOut does the steps.
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
		log.Warn("a former owner of a watched table keeps rights in the schema rowhook", "error", err)
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
	return err
}

// runAll does the units one after the other, the rest of them also where one fails.
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

// recordApply says in rowhook.audit what was changed. Who may change the triggers of some tables need not have the right to write there.
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
		log.Warn("who applied this is not recorded", "error", err)
	}
}

// run does the unit and tells the dispatchers.
func (a Applier) run(ctx context.Context, conn *pgx.Conn, u *unit, log *slog.Logger) error {
	return a.transact(ctx, conn, u, log, func(tx pgx.Tx) error {
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
			return nil // the configuration is what it was
		}
		if err := RaiseGeneration(ctx, tx); err != nil {
			return err
		}
		return queue.PauseNewcomers(ctx, tx, newcomers)
	})
}

// RaiseGeneration tells the dispatchers, when tx commits, that their configuration has changed. It
// does not notify them if the server's queue of notifications fills up, since the commit might fail
// by that. They then see the change when they look for it the next time.
func RaiseGeneration(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `
with raised as (
  update rowhook.setting set value = pg_catalog.to_jsonb((value #>> '{}')::bigint + 1) where name = 'generation'
)
select pg_catalog.pg_notify('rowhook', 'config') where pg_catalog.pg_notification_queue_usage() < $1`, queue.MuteFrom)
	if err != nil {
		return fmt.Errorf("raise the generation: %w", err)
	}
	return queue.SilenceForNobody(ctx, tx)
}

// transact runs f in a transaction, again and again while the unit's table is busy.
func (a Applier) transact(ctx context.Context, conn *pgx.Conn, u *unit, log *slog.Logger, f func(pgx.Tx) error) error {
	timeout, patience := a.LockTimeout, a.Patience
	if timeout <= 0 {
		timeout = DefaultLockTimeout
	}
	if patience <= 0 {
		patience = DefaultPatience
	}
	started := time.Now()
	backoff := retry.WithJitterPercent(20, retry.WithCappedDuration(5*time.Second, retry.NewExponential(timeout)))
	var busy *BusyError
	err := retry.Do(ctx, retry.WithMaxDuration(patience, backoff), func(ctx context.Context) error {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			// A role or database may have a statement_timeout that is shorter.
			set := fmt.Sprintf("set local lock_timeout = '%dms'; set local statement_timeout = 0", max(1, timeout.Milliseconds()))
			if _, err := tx.Exec(ctx, set); err != nil {
				return fmt.Errorf("set lock_timeout: %w", err)
			}
			return f(tx)
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

// rememberNames keeps what tables are called now, for when they are gone. Renames alone are no change of configuration.
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
