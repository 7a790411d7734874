package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/moving"
	"github.com/rowhook/rowhook/internal/pg"
)

// Loss is what an uninstall removes for good.
type Loss struct {
	Triggers []string // names of the configured triggers
	Waiting  int64    // number of events that are still owed
	Dead     int64    // number of dead letters
	Archived int64    // number of delivered events
	Attempts int64    // number of logged attempts
	// Dependants are objects that are not Rowhook's and depend on its schema, such as view
	// public.mine. Only an Applier with Cascade removes them.
	Dependants []string
	// Moving says of triggers that are being moved between Hasura and Rowhook how far they are. Who
	// records their changes afterwards is to be looked at.
	Moving []string
}

// String returns a line for each kind of thing.
func (l Loss) String() string {
	names := ""
	if len(l.Triggers) > 0 {
		names = " (" + strings.Join(l.Triggers, ", ") + ")"
	}
	some := func(n int64, one, many string) string {
		if n == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %s", n, many)
	}
	lines := []string{
		some(int64(len(l.Triggers)), "trigger", "triggers") + names,
		some(l.Waiting, "event that waits to be delivered", "events that wait to be delivered"),
		some(l.Dead, "dead letter", "dead letters"), some(l.Archived, "delivered event", "delivered events"), some(l.Attempts, "logged attempt", "logged attempts"),
	}
	for _, d := range l.Dependants {
		lines = append(lines, d+", which is not Rowhook's and depends on it")
	}
	for _, m := range l.Moving {
		lines = append(lines, "the cut-over of "+m)
	}
	return strings.Join(lines, "\n")
}

// UninstallSummary returns what an uninstall removes. If there is no schema rowhook, it returns the
// zero Loss.
func UninstallSummary(ctx context.Context, conn *pgx.Conn) (loss Loss, err error) {
	err = pg.Pinned(ctx, conn, func() (err error) {
		loss, err = summarize(ctx, conn)
		return err
	})
	return loss, err
}

func summarize(ctx context.Context, conn *pgx.Conn) (Loss, error) {
	var loss Loss
	database, _, err := Version(ctx, conn)
	var incomplete *IncompleteError
	if err != nil && !errors.As(err, &incomplete) || database == 0 {
		return loss, err
	}
	err = conn.QueryRow(ctx, `
select array(select name from rowhook.trigger where removed_at is null order by name),
       (select count(*) from rowhook.event_log), (select count(*) from rowhook.dead_letter),
       (select count(*) from rowhook.event_archive), (select count(*) from rowhook.invocation_log)`).
		Scan(&loss.Triggers, &loss.Waiting, &loss.Dead, &loss.Archived, &loss.Attempts)
	if err != nil {
		return Loss{}, fmt.Errorf("count what would be lost: %w", err)
	}
	moves, err := moving.Read(ctx, conn)
	if err != nil {
		return Loss{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(moves)) {
		if m := moves[name]; m.UnderWay() {
			loss.Moving = append(loss.Moving, name+": "+m.Problem()+"; to end it first, "+m.Remedy())
		}
	}
	loss.Dependants, err = findDependants(ctx, conn)
	return loss, err
}

// Uninstall removes every capture trigger, function and table of Rowhook. If an earlier uninstall
// was interrupted or met a busy table, it removes the rest. If objects that are not Rowhook's
// depend on the schema, it removes nothing and returns a *DependantsError. log may be nil.
func Uninstall(ctx context.Context, conn *pgx.Conn, log *slog.Logger) error {
	return Applier{}.Uninstall(ctx, conn, log)
}

// Uninstall is the function Uninstall with the options of the Applier: its patience, and Cascade.
func (a Applier) Uninstall(ctx context.Context, conn *pgx.Conn, log *slog.Logger) error {
	log = orSilent(log)
	return pinnedAndLocked(ctx, conn, func() error {
		if err := a.refuseDependants(ctx, conn); err != nil {
			return err
		}
		captures, err := pg.Collect[captureFound](ctx, conn, captureTriggers)
		if err != nil {
			return fmt.Errorf("list capture triggers: %w", err)
		}
		plan := &Plan{}
		for _, c := range captures {
			plan.steps = append(plan.steps, &step{
				Change: Change{Action: Remove, Object: c.object(), Name: c.Name, Table: c.Table, Lock: everyoneWaits},
				unit:   unitKey{removing, c.Relation}, phase: dropCaptures, run: dropCapture(c),
			})
		}
		units := plan.units()
		if err := mayUninstall(ctx, conn, units); err != nil {
			return err
		}
		var failed []error
		for _, u := range units {
			err := a.transact(ctx, conn, u, log, func(tx *pipeline) error {
				for _, s := range u.steps {
					if err := s.run(ctx, tx); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				failed = append(failed, err)
				continue
			}
			log.Info("removed the capture triggers", "table", u.table)
		}
		if len(failed) > 0 {
			return errors.Join(failed...)
		}
		schema := &unit{table: "the schema rowhook", lock: everyoneWaits}
		err = a.transact(ctx, conn, schema, log, func(tx *pipeline) error {
			if err := a.refuseDependants(ctx, tx); err != nil { // for new ones
				return err
			}
			_, err := tx.Exec(ctx, "drop schema if exists rowhook cascade")
			return err
		})
		if err != nil {
			return err
		}
		log.Info("removed the schema rowhook")
		return nil
	})
}

func (a Applier) refuseDependants(ctx context.Context, db pg.Queryer) error {
	var exists bool
	if err := db.QueryRow(ctx, "select exists (select from pg_catalog.pg_namespace where nspname = 'rowhook')").Scan(&exists); err != nil {
		return fmt.Errorf("look for the schema rowhook: %w", err)
	}
	if a.Cascade || !exists {
		return nil
	}
	dependants, err := findDependants(ctx, db)
	if err != nil {
		return err
	}
	if len(dependants) > 0 {
		return &DependantsError{Dependants: dependants}
	}
	return nil
}
