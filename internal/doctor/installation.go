package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/term"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// checkNotificationQueue tells whether the server has room for notifications.
func (e *examination) checkNotificationQueue(ctx context.Context) error {
	if e.other || e.standby {
		return nil // it was said
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		usage, w, err := operate.ReadNotificationQueue(ctx, tx)
		switch {
		case err != nil:
			return err
		case w != nil:
			e.warn(w.Remedy, "%s", w.Problem)
		default:
			e.ok("the server's queue of notifications is %.0f %% full", 100*usage)
		}
		return nil
	})
}

// checkSchema compares the schema's version with the program's, and takes over the warnings of the
// status.
func (e *examination) checkSchema(ctx context.Context) error {
	if e.other || e.server < sqlschema.MinServerVersion {
		return nil // it was said
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		database, program, err := sqlschema.Compatible(ctx, tx.Conn())
		missing, isMissing := errors.AsType[*sqlschema.NotInstalledError](err)
		_, isNewer := errors.AsType[*sqlschema.NewerSchemaError](err)
		switch {
		case isMissing && missing.Database == 0:
			e.ok("the schema rowhook is not installed yet: \"rowhook apply\" installs version %d", program)
			return nil
		case isMissing, isNewer:
			e.installed = true
			e.failOf(err)
			return nil
		case err != nil:
			e.installed = true
			e.failOf(err)
			return nil
		case database < program:
			e.warn(`run "rowhook migrate"`, "the schema rowhook is at version %d, and this program expects %d: it works with both", database, program)
		default:
			e.ok("the schema rowhook is at version %d, and this program works with it", database)
		}
		e.installed, e.compatible = true, true
		if err := sqlschema.CheckRights(ctx, tx); err != nil {
			return nil //nolint:nilerr // the check of the rights says so, and without them there is no status
		}
		status, err := operate.ReadStatus(ctx, tx)
		if err != nil {
			return err
		}
		e.takeStatus(status)
		return nil
	})
}

// takeStatus adds what the status says of the installation. Other checks have their own words for
// some of its warnings.
func (e *examination) takeStatus(s *operate.Status) {
	for _, w := range s.Warnings {
		detail := w.Problem
		if w.Trigger != "" {
			detail = w.Trigger + ": " + detail
		}
		switch w.Code {
		case operate.NotificationQueueFills, "schema_is_older":
		case operate.Uncaptured:
			e.fail(w.Remedy, "%s", detail)
		default:
			e.warn(w.Remedy, "%s", detail)
		}
	}
	alive, listening := int64(0), 0
	for i := range s.Instances {
		if s.Instances[i].Alive {
			alive++
		}
		if s.Instances[i].Alive && s.Instances[i].Listens {
			listening++
		}
	}
	if alive == 0 {
		e.ok("%s applied, and no dispatcher runs: nothing is delivered until one does", have(int64(len(s.Triggers)), "trigger"))
		return
	}
	e.ok("%s applied, and %s, of which %d listen", have(int64(len(s.Triggers)), "trigger"), term.Plural(alive, "dispatcher")+" "+isAre(alive)+" alive", listening)
}

func have(n int64, noun string) string { return term.Plural(n, noun) + " " + isAre(n) }

func isAre(n int64) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// checkRights tells what the role may do. Neither a superuser nor a role with REPLICATION is needed.
func (e *examination) checkRights(ctx context.Context) error {
	if e.other || e.server < sqlschema.MinServerVersion {
		return nil // it was said
	}
	return e.look(ctx, func(tx pgx.Tx) error {
		var role string
		var superuser bool
		if err := tx.QueryRow(ctx, "select rolname::text, rolsuper from pg_roles where rolname = current_user").Scan(&role, &superuser); err != nil {
			return fmt.Errorf("ask for the role: %w", err)
		}
		role = pg.PlainName(role)
		refusal := sqlschema.CheckApply(ctx, tx)
		lacking := error(nil)
		if e.installed {
			lacking = sqlschema.CheckRights(ctx, tx)
		}
		switch {
		case !isRefusal(refusal) && refusal != nil:
			return refusal
		case superuser:
			e.ok("the role %s is a superuser, which is not needed: a role that owns the watched tables and may create in the database is enough, and another one can dispatch", role)
		case refusal == nil && lacking == nil:
			e.ok("the role %s may apply and dispatch; it is neither superuser nor needs to be, and REPLICATION is not needed", role)
		case e.installed && lacking == nil:
			e.ok("the role %s may dispatch, and not apply (%s)", role, refusal)
		case e.installed && refusal == nil:
			e.failOf(lacking)
		case e.installed:
			e.failOf(lacking)
			e.failOf(refusal)
		default:
			e.failOf(refusal)
		}
		return nil
	})
}

// isRefusal reports whether an error says that a right is missing, and not that it could not be
// asked for one.
func isRefusal(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "the role ") }

// planner opens a session for the plan of an apply. Such a session is Rowhook's own: it is nil if
// every way leads through a pooler that shares sessions.
func (e *examination) planner(ctx context.Context) (*pgx.Conn, error) {
	if e.direct != nil && !e.direct.IsClosed() {
		return e.direct, nil
	}
	at := e.Database
	if e.Listen != nil {
		at = *e.Listen
	} else if e.pooled {
		return nil, nil
	}
	conn, err := open(ctx, at, false)
	if err != nil {
		problem, remedy := e.Diagnose(err, at.Source)
		return nil, errors.New("can't connect to " + at.Where + " (" + problem + "): " + remedy)
	}
	e.direct = conn
	return conn, nil
}

// checkTriggers plans an apply of the configuration, and finds its tables. The plan is that of
// apply --dry-run.
func (e *examination) checkTriggers(ctx context.Context) error {
	if !e.HasFile || e.other || e.standby || e.server < sqlschema.MinServerVersion {
		return nil
	}
	conn, err := e.planner(ctx)
	if err != nil {
		return err
	}
	if conn == nil {
		e.warn("set ROWHOOK_LISTEN_URL to a direct connection: apply needs one, too", "the triggers of the configuration were not looked at, since a plan needs a session of its own")
		return nil
	}
	plan, err := sqlschema.MakePlan(ctx, conn, e.Triggers, e.Settings)
	faults, wrong := errors.AsType[trigger.SpecErrors](err)
	switch {
	case wrong:
		for _, line := range e.Explain(faults) {
			e.fail("correct the configuration, or give the role the right that it names", "%s", line)
		}
	case isRefusal(err):
		if len(e.report.Findings) == 0 || !slices.ContainsFunc(e.report.Findings, func(f Finding) bool { return strings.HasPrefix(err.Error(), f.Detail) }) {
			e.failOf(err)
		}
	case err != nil:
		return err
	default:
		for _, w := range plan.Warnings {
			if strings.Contains(w, "publication") {
				continue // a check of its own
			}
			detail, remedy, _ := strings.Cut(w, ": ")
			if after, more, ok := strings.Cut(remedy, ": "); ok { // the name of a trigger stood first
				detail, remedy = detail+": "+after, more
			}
			said := func(f Finding) bool { return f.Remedy == remedy && strings.HasPrefix(detail, f.Detail) }
			if !slices.ContainsFunc(e.report.Findings, said) {
				e.warn(remedy, "%s", detail)
			}
		}
		if plan.Empty() {
			e.ok("the database matches the configuration (%s)", term.Plural(int64(len(e.Triggers)), "trigger"))
		} else {
			e.ok("the configuration can be applied (%s, %s to make)", term.Plural(int64(len(e.Triggers)), "trigger"), term.Plural(int64(len(plan.Changes())), "change"))
		}
	}
	e.tables, err = sqlschema.TablesOf(ctx, conn, e.Triggers)
	return err
}
