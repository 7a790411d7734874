package sqlschema

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
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
}

// The defaults of an Applier.
const (
	DefaultLockTimeout = 500 * time.Millisecond
	DefaultPatience    = time.Minute
)

// Apply makes the database what the specs and settings say, and returns what it did. The schema is migrated already.
//
// Each table has a transaction of its own: one that stays busy for longer than an Applier's patience is left as it is and
// reported as a *BusyError, after all others were done. What is wrong with the specs is a SpecErrors, and then nothing is done. No
// logger is needed.
func Apply(ctx context.Context, conn *pgx.Conn, specs []Spec, settings Settings, log *slog.Logger) (*Plan, error) {
	return Applier{}.Apply(ctx, conn, specs, settings, log)
}

// Apply is the function Apply with the Applier's patience.
func (a Applier) Apply(ctx context.Context, conn *pgx.Conn, specs []Spec, settings Settings, log *slog.Logger) (plan *Plan, err error) {
	log = orSilent(log)
	err = pinnedAndLocked(ctx, conn, func() error {
		if err := wholeToApply(ctx, conn, log); err != nil {
			return err
		}
		plan, err = MakePlan(ctx, conn, specs, settings)
		if err != nil {
			return err
		}
		for _, w := range plan.Warnings {
			log.Warn(w)
		}
		before, err := captureRoles(ctx, conn)
		if err != nil {
			return err
		}
		failed := a.runAll(ctx, conn, plan.units, log)
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
		for _, c := range plan.Changes {
			log.Info("applied", "change", c.String())
		}
		if err := rememberNames(ctx, conn); err != nil {
			return err
		}
		buried, err := BuryOrphans(ctx, conn)
		if buried > 0 {
			log.Info("moved the events of removed triggers to the dead letters", "events", buried)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return plan, nil
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
	if plan.Empty() {
		return
	}
	const most = 200
	var changes []string
	targets := map[string]bool{}
	for i, c := range plan.Changes {
		if c.Object == "trigger" {
			targets[c.Name] = true
		}
		switch {
		case i < most:
			changes = append(changes, c.String())
		case i == most:
			changes = append(changes, fmt.Sprintf("and %d more", len(plan.Changes)-most))
		}
	}
	detail := map[string]any{"changes": changes}
	if failed != nil {
		detail["error"] = failed.Error()
	}
	if _, err := RecordAudit(ctx, conn, AuditEntry{Action: "apply", Targets: slices.Sorted(maps.Keys(targets)), Detail: detail}); err != nil {
		log.Warn("who applied this is not recorded", "error", err)
	}
}

// unit is what is done in one transaction: the changes of one table.
type unit struct {
	relation uint32
	removal  bool
	table    string
	lock     string
	works    []work
}

// work is one trigger's or setting's share of a unit.
type work interface {
	run(ctx context.Context, tx pgx.Tx) error
}

// run does the unit and tells the dispatchers.
func (a Applier) run(ctx context.Context, conn *pgx.Conn, u *unit, log *slog.Logger) error {
	return a.transact(ctx, conn, u, log, func(tx pgx.Tx) error {
		var newcomers []int32
		for _, w := range u.works {
			if err := w.run(ctx, tx); err != nil {
				return err
			}
			if made, ok := w.(*installation); ok && made.newcomer {
				newcomers = append(newcomers, made.id)
			}
		}
		if err := RaiseGeneration(ctx, tx); err != nil {
			return err
		}
		return pauseNewcomers(ctx, tx, newcomers)
	})
}

// RaiseGeneration tells the dispatchers, when the transaction commits, that their configuration has changed. Where the server's
// queue of notifications fills up, so that notifying might make the commit fail, they see it when they look next.
func RaiseGeneration(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `
with raised as (
  update rowhook.setting set value = pg_catalog.to_jsonb((value #>> '{}')::bigint + 1) where name = 'generation'
)
select pg_catalog.pg_notify('rowhook', 'config') where pg_catalog.pg_notification_queue_usage() < $1`, MuteFrom)
	if err != nil {
		return fmt.Errorf("raise the generation: %w", err)
	}
	return silenceForNobody(ctx, tx)
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
	if IsState(err, pgerrcode.InsufficientPrivilege) {
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
  from (select t.id, w.relation from rowhook.trigger t`+WatchedNow+`) as k
  join pg_catalog.pg_class c on c.oid = k.relation
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where k.id = t.id and t.removed_at is null and (t.schema_name, t.table_name) is distinct from (n.nspname::text, c.relname::text)`)
	if err != nil {
		return fmt.Errorf("record the tables' names: %w", err)
	}
	return rememberRelations(ctx, conn)
}

// settingWork writes a row of rowhook.setting.
type settingWork struct {
	name  string
	value []byte
}

func (w *settingWork) run(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `
insert into rowhook.setting (name, value) values ($1, $2::text::jsonb)
on conflict (name) do update set value = excluded.value`, w.name, string(w.value))
	if err != nil {
		return fmt.Errorf("write the setting %s: %w", w.name, err)
	}
	return nil
}

// removal takes a trigger off a table.
type removal struct {
	id        int32
	captures  []captureFound
	functions []functionFound
	whole     bool // the trigger itself goes, too
}

func (w *removal) run(ctx context.Context, tx pgx.Tx) error {
	for _, c := range w.captures {
		if _, err := tx.Exec(ctx, fmt.Sprintf("drop trigger if exists %s on %s", quoteName(c.Name), c.Table)); err != nil {
			return fmt.Errorf("drop %s: %w", c.Name, err)
		}
	}
	if err := dropFunctions(ctx, tx, w.functions); err != nil {
		return err
	}
	if !w.whole {
		return nil
	}
	_, err := tx.Exec(ctx, "update rowhook.trigger set removed_at = now(), captured = '{}' where id = $1 and removed_at is null", w.id)
	if err != nil {
		return fmt.Errorf("mark trigger %d as removed: %w", w.id, err)
	}
	return nil
}

func dropFunctions(ctx context.Context, tx pgx.Tx, functions []functionFound) error {
	for _, f := range functions {
		if _, err := tx.Exec(ctx, "drop function if exists "+f.Signature); err != nil {
			return fmt.Errorf("drop %s: %w", f.Signature, err)
		}
		if f.Argument != 0 {
			continue
		}
		if _, err := tx.Exec(ctx, "drop view if exists "+inboxName(f.ID)); err != nil {
			return fmt.Errorf("drop %s: %w", inboxName(f.ID), err)
		}
	}
	return nil
}

// installation makes a trigger what its spec says.
type installation struct {
	spec          *Spec
	rel           *relation
	id            int32 // 0: it has no row yet
	relationID    int32 // rowhook.relation.id of rel; 0: not known yet
	row           bool  // the row is to be written
	moved         bool  // it was on another table
	newcomer      bool  // it is new, or comes back
	functions     bool  // its own functions are to be made
	create        []operation
	enable        []operation
	drop          []captureFound
	dropFunctions []functionFound
	definition    string // of rowhook.capture
	owner         string // installed.owner
}

func (w *installation) locks() bool { return len(w.create)+len(w.enable)+len(w.drop) > 0 }

func (w *installation) run(ctx context.Context, tx pgx.Tx) error {
	if err := w.writeRow(ctx, tx); err != nil {
		return fmt.Errorf("write the row of trigger %s: %w", w.spec.Name, err)
	}
	for _, c := range w.drop {
		if _, err := tx.Exec(ctx, fmt.Sprintf("drop trigger if exists %s on %s", quoteName(c.Name), c.Table)); err != nil {
			return fmt.Errorf("drop %s: %w", c.Name, err)
		}
	}
	if w.functions {
		if err := w.createFunctions(ctx, tx); err != nil {
			return err
		}
	}
	for _, op := range w.create {
		if err := w.createTrigger(ctx, tx, op); err != nil {
			return fmt.Errorf("create the %s trigger of %s: %w", op.word(), w.spec.Name, err)
		}
		// A trigger that is replaced is enabled as if it were new.
		if !w.spec.OnReplication {
			continue
		}
		if err := w.enableAll(ctx, tx, op); err != nil {
			return err
		}
	}
	for _, op := range w.enable {
		if err := w.enableAll(ctx, tx, op); err != nil {
			return err
		}
	}
	if err := dropFunctions(ctx, tx, w.dropFunctions); err != nil {
		return err
	}
	return w.writeCaptured(ctx, tx)
}

// createTrigger has the functions and operators of a when found as in the user's own SQL.
func (w *installation) createTrigger(ctx context.Context, tx pgx.Tx, op operation) error {
	create := createTrigger(w.spec, w.rel, w.id, w.relationID, op)
	if w.spec.When == "" {
		_, err := tx.Exec(ctx, create)
		return err
	}
	return withUsersPath(ctx, tx.Conn(), func() error {
		_, err := tx.Exec(ctx, create)
		return err
	})
}

func (w *installation) writeRow(ctx context.Context, tx pgx.Tx) error {
	if !w.row {
		return nil
	}
	if w.moved {
		// Its old table may have been too busy to let it go.
		var elsewhere []string
		found, err := collect[captureFound](ctx, tx, captureTriggers)
		if err != nil {
			return err
		}
		for _, c := range found {
			if c.ID == w.id && c.Relation != w.rel.OID {
				elsewhere = append(elsewhere, c.Table)
			}
		}
		if len(elsewhere) > 0 {
			return fmt.Errorf("its capture trigger is still on %s: apply again", strings.Join(elsewhere, ", "))
		}
	}
	spec, err := json.Marshal(w.spec)
	if err != nil {
		return err
	}
	return tx.QueryRow(ctx, `
insert into rowhook.trigger as t (name, relation, watched, schema_name, table_name, spec) values ($1, $2, $2::oid::regclass, $3, $4, $5::text::jsonb)
on conflict (name) do update
   set relation = excluded.relation, watched = excluded.watched, schema_name = excluded.schema_name, table_name = excluded.table_name,
       spec = excluded.spec, removed_at = null, applied_at = now()
returning t.id, t.relation_id`, w.spec.Name, w.rel.OID, w.rel.Schema, w.rel.Name, string(spec)).Scan(&w.id, &w.relationID)
}

func (w *installation) createFunctions(ctx context.Context, tx pgx.Tx) error {
	guarded := guarded(w.spec, w.rel)
	capture, err := createCapture(w.id, w.definition, guarded)
	if err != nil {
		return err
	}
	payload, function := fmt.Sprintf("%s(%s)", payloadName(w.id), w.rel.sql()), fmt.Sprintf("rowhook.capture_%d()", w.id)
	statements := []string{createPayload(w.spec, w.rel, w.id), capture, revokeFunction(payload), revokeFunction(function)}
	if w.owner != "" {
		statements = append(statements, fmt.Sprintf("alter function %s owner to %s", payload, w.owner))
	}
	switch {
	case guarded:
		statements = append(statements, w.handOver(payload, function)...)
	case w.owner != "":
		statements = append(statements, fmt.Sprintf("alter function %s owner to %s", function, w.owner), "drop view if exists "+inboxName(w.id))
	}
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("create the functions of %s: %w", w.spec.Name, err)
		}
	}
	return w.checkRunner(ctx, tx)
}

// checkRunner makes sure that what captures has all the rights that it uses. The server only warns whoever may not grant one.
func (w *installation) checkRunner(ctx context.Context, tx pgx.Tx) error {
	found, err := collect[functionFound](ctx, tx, ownFunctions)
	if err != nil {
		return fmt.Errorf("list capture functions: %w", err)
	}
	for _, f := range found {
		if f.ID == w.id && !f.Able {
			return fmt.Errorf("every write to %s would fail, as it is captured as %s, who lacks rights in the schema rowhook that this role may not grant: "+
				"apply as the role that installed Rowhook", w.rel, plainName(w.rel.Owner))
		}
	}
	return nil
}

// revokeFunction takes what default privileges have given of a function, to PUBLIC and to others. The owner keeps their right.
func revokeFunction(signature string) string {
	return revokeAll("function", signature, "pg_catalog.pg_proc", "p.proacl", "p.proowner", "regprocedure")
}

func revokeAll(kind, name, catalog, acl, owner, reg string) string {
	return fmt.Sprintf(`do $rowhook$
declare
  grantee pg_catalog.text;
begin
  revoke all on %[1]s %[2]s from public;
  for grantee in
    select distinct a.grantee::pg_catalog.regrole::pg_catalog.text
      from %[3]s p cross join pg_catalog.aclexplode(%[4]s) a where p.oid = %[5]s::pg_catalog.%[6]s and a.grantee not in (0, %[7]s)
  loop
    execute pg_catalog.format('revoke all on %[1]s %%s from %%s cascade', %[5]s, grantee);
  end loop;
end
$rowhook$`, kind, name, catalog, acl, stringLiteral(name), reg, owner)
}

// handOver makes the table's owner the one as whom its rows are captured, with the rights that this takes.
func (w *installation) handOver(payload, function string) []string {
	inbox, owner := inboxName(w.id), quoteName(w.rel.Owner)
	statements := []string{createInbox(w.id), revokeAll("table", inbox, "pg_catalog.pg_class", "p.relacl", "p.relowner", "regclass")}
	if w.owner != "" {
		statements = append(statements, "alter view "+inbox+" owner to "+w.owner)
	}
	return append(statements,
		"grant usage on schema rowhook to "+owner,
		"grant insert on "+inbox+" to "+owner,
		"grant select on sequence rowhook.doorbell to "+owner,
		"grant execute on function "+payload+", rowhook.with_values(pg_catalog.json, pg_catalog.json), rowhook.context(), rowhook.uuid7(), rowhook.as_json(pg_catalog.text) to "+owner,
		// Only who may create in a schema may own a function in it. Nobody sees the right that is granted for the moment.
		"grant create on schema rowhook to "+owner,
		"alter function "+function+" owner to "+owner,
		"revoke create on schema rowhook from "+owner,
	)
}

// enableAll sets how a trigger fires, and its copies on partitions, whatever was done to them by hand.
func (w *installation) enableAll(ctx context.Context, tx pgx.Tx, op operation) error {
	rows, err := collect[struct{ Name, Table string }](ctx, tx, `
with recursive family as (
  select t.oid, t.tgrelid, t.tgname, 0 as depth from pg_catalog.pg_trigger t where t.tgrelid = $1 and t.tgname = $2
  union all
  select c.oid, c.tgrelid, c.tgname, f.depth + 1 from family f join pg_catalog.pg_trigger c on c.tgparentid = f.oid
)
select f.tgname as name, format('%I.%I', n.nspname, c.relname) as "table"
  from family f
  join pg_catalog.pg_class c on c.oid = f.tgrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 order by f.depth`, w.rel.OID, sqlTriggerName(w.spec.Name, w.id, op))
	if err != nil {
		return fmt.Errorf("look for partitions: %w", err)
	}
	for _, r := range rows {
		if _, err := tx.Exec(ctx, enableTrigger(r.Table, r.Name, w.spec.OnReplication)); err != nil {
			return fmt.Errorf("enable %s on %s: %w", r.Name, r.Table, err)
		}
	}
	return nil
}

// writeCaptured keeps what the SQL objects were made from and what the catalog now holds. What was not made anew keeps
// its entry.
func (w *installation) writeCaptured(ctx context.Context, tx pgx.Tx) error {
	var text []byte
	if err := tx.QueryRow(ctx, "select captured from rowhook.trigger where id = $1", w.id).Scan(&text); err != nil {
		return fmt.Errorf("read rowhook.trigger.captured: %w", err)
	}
	var was captured
	if err := json.Unmarshal(text, &was); err != nil {
		return fmt.Errorf("read rowhook.trigger.captured: %w", err)
	}
	is := captured{SQL: map[string]fingerprint{}}
	byName := map[string]operation{}
	for _, op := range sqlTriggers(w.spec, w.rel) {
		byName[sqlTriggerName(w.spec.Name, w.id, op)] = op
	}
	found, err := collect[captureFound](ctx, tx, namedTriggers, w.rel.OID, slices.Collect(maps.Keys(byName)))
	if err != nil {
		return fmt.Errorf("list capture triggers: %w", err)
	}
	for _, c := range found {
		if c.ID == w.id {
			is.SQL[c.Name] = fingerprint{triggerDigest(w.spec, w.rel, w.id, w.relationID, byName[c.Name]), c.Made}
		}
	}
	if ownFunction(w.spec, w.rel) {
		is.Function = was.Function
		if w.functions {
			all, err := collect[functionFound](ctx, tx, ownFunctions)
			if err != nil {
				return fmt.Errorf("list capture functions: %w", err)
			}
			var own []functionFound
			for _, f := range all {
				if f.ID == w.id {
					own = append(own, f)
				}
			}
			is.Function = fingerprint{functionDigest(w.spec, w.rel, w.definition), madeOf(own, w.rel.OID)}
		}
	}
	text, err = json.Marshal(is)
	if err != nil {
		return fmt.Errorf("write rowhook.trigger.captured: %w", err)
	}
	if _, err := tx.Exec(ctx, "update rowhook.trigger set captured = $2::text::jsonb where id = $1", w.id, string(text)); err != nil {
		return fmt.Errorf("write rowhook.trigger.captured: %w", err)
	}
	return nil
}
