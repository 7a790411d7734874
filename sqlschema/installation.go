package sqlschema

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// installation installs a trigger as its spec says.
type installation struct {
	spec       *trigger.Spec
	rel        *relation
	head       *installation // of a table of a trigger with several: what writes the row; else nil
	id         int32         // rowhook.trigger.id; 0: it has no row yet
	relationID int32         // rowhook.relation.id of rel; 0: not known yet
	moved      bool          // it was on another table before
	newcomer   bool          // it is new, or was removed before
	functions  bool          // its own functions were created or replaced
	definition string        // of rowhook.capture
	owner      string        // installed.owner
	first      bool          // of a table of a trigger with several: rowhook.trigger names it, too
}

// own returns the names of the trigger's own objects, once it has an id.
func (w *installation) own() own { return ownOf(w.spec, w.id, w.relationID) }

// fresh reports whether nothing of it can be installed, since it has no number yet.
func (w *installation) fresh() bool { return w.id == 0 || w.spec.Many() && w.relationID == 0 }

// createTrigger creates a capture trigger, or replaces the one that exists. Functions and operators
// in a when are looked up by the search_path of the user.
func (w *installation) createTrigger(ctx context.Context, tx *pipeline, op operation, exists bool) error {
	if exists {
		if err := w.dropConstraint(ctx, tx, op); err != nil {
			return fmt.Errorf("replace the %s trigger of %s: %w", op.word(), w.spec.Name, err)
		}
	}
	statements := createTrigger(w.spec, w.rel, w.own(), w.relationID, op)
	if last := len(statements) - 1; w.spec.When != "" {
		statements = append(statements[:last:last], pg.OnUsersPath(statements[last])...)
	}
	tx.later(func(err error) error {
		return fmt.Errorf("create the %s trigger of %s: %w", op.word(), w.spec.Name, err)
	}, statements...)
	if !w.spec.OnReplication {
		return nil
	}
	return w.enableAll(ctx, tx, op) // replacing a trigger resets how it is enabled
}

func (w *installation) writeRow(ctx context.Context, tx *pipeline) error {
	if err := w.insertRow(ctx, tx); err != nil {
		return fmt.Errorf("write the row of trigger %s: %w", w.spec.Name, err)
	}
	return nil
}

func (w *installation) insertRow(ctx context.Context, tx *pipeline) error {
	if w.moved {
		// Its old table may have been too busy to drop its trigger.
		var elsewhere []string
		found, err := pg.Collect[captureFound](ctx, tx, captureTriggers)
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
	if err := w.freeKeys(ctx, tx); err != nil {
		return err
	}
	return tx.QueryRow(ctx, `
insert into rowhook.trigger as t (name, relation, watched, schema_name, table_name, spec) values ($1, $2, $2::oid::regclass, $3, $4, $5::text::jsonb)
on conflict (name) do update
   set relation = excluded.relation, watched = excluded.watched, schema_name = excluded.schema_name, table_name = excluded.table_name,
       spec = excluded.spec, removed_at = null, applied_at = now()
returning t.id, t.relation_id`, w.spec.Name, w.rel.OID, w.rel.Schema, w.rel.Name, string(spec)).Scan(&w.id, &w.relationID)
}

// freeKeys lets go the keys that dead letters hold, unless they held them before and go on to do
// so. Later events of these keys are sent, so such a dead letter has no place to return to.
func (w *installation) freeKeys(ctx context.Context, tx *pipeline) error {
	_, err := tx.Exec(ctx, `
update rowhook.dead_letter d set blocks = null
  from rowhook.trigger t
 where t.name = $1 and d.trigger_id = t.id and d.blocks
   and not ($2 and t.removed_at is null and coalesce(t.spec->'order'->>'on_dead', '') = $3)`, w.spec.Name, w.spec.Order.Blocks(), trigger.OnDeadBlock)
	return err
}

func (w *installation) createFunctions(ctx context.Context, tx *pipeline) error {
	guarded, of := guarded(w.spec, w.rel), w.own()
	path, err := w.usersPath(ctx, tx)
	if err != nil {
		return err
	}
	capture, err := createCapture(w.spec, w.rel, of, w.definition, path)
	if err != nil {
		return err
	}
	function := of.capture() + "()"
	var statements, payloads []string
	failed := func(err error) error { return fmt.Errorf("create the functions of %s: %w", w.spec.Name, err) }
	for _, f := range payloadFunctions(w.spec, w.rel, of) {
		statements = append(statements, f.create())
		payloads = append(payloads, f.Signature)
	}
	key := fmt.Sprintf("%s(%s, text)", of.payload(), w.rel.sql())
	if keyed(w.spec) {
		statements = append(statements, createKey(w.spec, w.rel, of))
	}
	if atCommit(w.spec) {
		for _, f := range commitFunctions(w.spec, w.rel, of, w.relationID) {
			statements, payloads = append(statements, f.Create...), append(payloads, f.Signature)
		}
	}
	if atCommit(w.spec) {
		payloads = append(payloads, key)
	}
	if asksToHandOver(w.spec, w.rel, w.definition) {
		statements, payloads = append(statements, createHanding(of, w.relationID)), append(payloads, of.handing())
	}
	own := slices.Clone(payloads)
	if ordered(w.spec) && !atCommit(w.spec) {
		own = append(own, key)
	}
	statements = append(statements, capture, revokeFunctions(append(own, function)...))
	for _, signature := range own {
		if w.owner != "" {
			statements = append(statements, fmt.Sprintf("alter function %s owner to %s", signature, w.owner))
		}
	}
	switch {
	case guarded:
		statements = append(statements, w.handOver(payloads, function)...)
		if ordered(w.spec) {
			statements = append(statements, w.handOverOrder(key)...)
		} else {
			statements = append(statements, "drop view if exists "+of.ordered(), "drop view if exists "+of.moves())
		}
		if w.spec.Delay > 0 && !ordered(w.spec) {
			statements = append(statements, w.handOverView(w.own().delayed(), createDelayed(w.own()))...)
		} else {
			statements = append(statements, "drop view if exists "+w.own().delayed())
		}
	case w.owner != "":
		statements = append(statements, fmt.Sprintf("alter function %s owner to %s", function, w.owner))
		for _, view := range of.views() {
			statements = append(statements, "drop view if exists "+view)
		}
	}
	tx.later(failed, statements...)
	w.functions = true
	if !guarded {
		return nil
	}
	return w.checkRunner(ctx, tx)
}

// usersPath returns the search_path of the user, or "" if no function needs it.
func (w *installation) usersPath(ctx context.Context, tx *pipeline) (path string, err error) {
	if !atCommit(w.spec) || w.spec.When == "" {
		return "", nil
	}
	err = tx.QueryRow(ctx, "select pg_catalog.substr(pg_catalog.current_setting($1), 2)", pg.PathSetting).Scan(&path)
	if err != nil {
		return "", fmt.Errorf("read the search_path for the when of %s: %w", w.spec.Name, err)
	}
	return path, nil
}

// checkRunner checks that the owner of the capture function has all the rights that it uses. If
// this role may not grant a right, the server only warns.
func (w *installation) checkRunner(ctx context.Context, tx *pipeline) error {
	found, err := w.findFunctions(ctx, tx)
	if err != nil {
		return err
	}
	for _, f := range found {
		if !f.Able {
			return fmt.Errorf("every write to %s would fail, since its capture runs as %s, who lacks rights in the schema rowhook that this role may not grant: "+
				"apply as the role that installed Rowhook", w.rel, pg.PlainName(w.rel.Owner))
		}
	}
	return nil
}

// findFunctions returns the functions of its own.
func (w *installation) findFunctions(ctx context.Context, tx *pipeline) ([]functionFound, error) {
	var names []string
	for _, name := range []string{w.own().capture(), w.own().payload()} {
		names = append(names, strings.TrimPrefix(name, "rowhook."))
	}
	found, err := pg.Collect[functionFound](ctx, tx, namedFunctions, names)
	if err != nil {
		return nil, fmt.Errorf("list capture functions: %w", err)
	}
	return found, nil
}

// revokeFunctions revokes what default privileges granted on functions, to PUBLIC and to others.
// The owner keeps its right.
func revokeFunctions(signatures ...string) string {
	return revokeAll("function", signatures, "pg_catalog.pg_proc", "p.proacl", "p.proowner", "regprocedure")
}

func revokeView(name string) string {
	return revokeAll("table", []string{name}, "pg_catalog.pg_class", "p.relacl", "p.relowner", "regclass")
}

// revokeAll is one block for all of them, since compiling a block takes longer than what it does.
func revokeAll(kind string, names []string, catalog, acl, owner, reg string) string {
	literals := make([]string, len(names))
	for i, name := range names {
		literals[i] = pg.StringLiteral(name)
	}
	return fmt.Sprintf(`do $rowhook$
declare
  given record;
begin
  revoke all on %[1]s %[2]s from public;
  for given in
    select distinct p.oid::pg_catalog.%[6]s::pg_catalog.text as name, a.grantee::pg_catalog.regrole::pg_catalog.text as grantee
      from %[3]s p cross join pg_catalog.aclexplode(%[4]s) a
     where p.oid = any (array[%[5]s]::pg_catalog.%[6]s[]::pg_catalog.oid[]) and a.grantee not in (0, %[7]s)
  loop
    execute pg_catalog.format('revoke all on %[1]s %%s from %%s cascade', given.name, given.grantee);
  end loop;
end
$rowhook$`, kind, strings.Join(names, ", "), catalog, acl, strings.Join(literals, ", "), reg, owner)
}

// handOver makes captures run as the owner of the table, with the rights that they need.
func (w *installation) handOver(payloads []string, function string) []string {
	inbox, owner := w.own().inbox(), pg.QuoteName(w.rel.Owner)
	statements := []string{createInbox(w.own()), revokeView(inbox)}
	if w.owner != "" {
		statements = append(statements, "alter view "+inbox+" owner to "+w.owner)
	}
	numbers := ""
	if w.spec.Payload.Numbers == trigger.NumbersText {
		numbers = ", rowhook.numbers_as_text(pg_catalog.json, pg_catalog.oid)"
	}
	return append(statements,
		"grant usage on schema rowhook to "+owner,
		"grant insert on "+inbox+" to "+owner,
		"grant select on sequence rowhook.doorbell to "+owner,
		"grant execute on function "+strings.Join(payloads, ", ")+", rowhook.with_values(pg_catalog.json, pg_catalog.json), rowhook.context(), rowhook.uuid7(), rowhook.as_json(pg_catalog.text)"+numbers+" to "+owner,
		// The owner of a function must have the right to create in its schema. The right is revoked
		// in the same transaction, so nobody can use it.
		"grant create on schema rowhook to "+owner,
		"alter function "+function+" owner to "+owner,
		"revoke create on schema rowhook from "+owner,
	)
}

// handOverOrder lets captures that run as the owner of the table write keys. The views accept only
// events of this trigger.
func (w *installation) handOverOrder(key string) (statements []string) {
	owner, of := pg.QuoteName(w.rel.Owner), w.own()
	for view, create := range map[string]string{of.ordered(): createOrdered(of), of.moves(): createMoves(of)} {
		statements = append(statements, w.handOverView(view, create)...)
	}
	return append(statements,
		"grant usage on sequence rowhook.event_seq to "+owner,
		"grant execute on function "+key+", rowhook.parked(), rowhook.lane_of(pg_catalog.text) to "+owner)
}

// handOverView makes a view through which captures write that run as the owner of the table.
func (w *installation) handOverView(view, create string) []string {
	statements := []string{create, revokeView(view)}
	if w.owner != "" {
		statements = append(statements, "alter view "+view+" owner to "+w.owner)
	}
	return append(statements, "grant insert on "+view+" to "+pg.QuoteName(w.rel.Owner))
}

// enableAll sets how a trigger and its copies on partitions fire, in case they were changed by
// hand.
func (w *installation) enableAll(ctx context.Context, tx *pipeline, op operation) error {
	name := sqlTriggerName(w.spec.Name, w.id, op)
	if w.rel.Kind != "p" && !w.rel.Hypertable {
		tx.later(func(err error) error { return fmt.Errorf("enable %s on %s: %w", name, w.rel, err) }, enableTrigger(w.rel.sql(), name, w.spec.OnReplication))
		return nil
	}
	rows, err := pg.Collect[struct{ Name, Table string }](ctx, tx, `
with recursive family as (
  select t.oid, t.tgrelid, t.tgname, 0 as depth from pg_catalog.pg_trigger t where t.tgrelid = $1 and t.tgname = $2
  union all
  select c.oid, c.tgrelid, c.tgname, f.depth + 1 from family f join pg_catalog.pg_trigger c on c.tgparentid = f.oid
)
select f.tgname as name, format('%I.%I', n.nspname, c.relname) as "table"
  from family f
  join pg_catalog.pg_class c on c.oid = f.tgrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 order by f.depth`, w.rel.OID, name)
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

// writeCaptured records what the SQL objects were made from and how the catalog describes them. An
// object that was not made again keeps its entry.
func (w *installation) writeCaptured(ctx context.Context, tx *pipeline) error {
	is := captured{SQL: map[string]fingerprint{}}
	byName := map[string]operation{}
	for _, op := range sqlTriggers(w.spec, w.rel) {
		byName[sqlTriggerName(w.spec.Name, w.id, op)] = op
	}
	found, err := pg.Collect[captureFound](ctx, tx, namedTriggers, w.rel.OID, slices.Collect(maps.Keys(byName)))
	if err != nil {
		return fmt.Errorf("list capture triggers: %w", err)
	}
	for _, c := range found {
		if c.ID == w.id {
			is.SQL[c.Name] = fingerprint{triggerDigest(w.spec, w.rel, w.own(), w.relationID, byName[c.Name]), c.Made}
		}
	}
	switch {
	case !ownFunction(w.spec, w.rel):
	case w.functions:
		own, err := w.findFunctions(ctx, tx)
		if err != nil {
			return err
		}
		is.Function = fingerprint{functionDigest(w.spec, w.rel, w.own(), w.relationID, w.definition), madeOf(own, w.rel.OID)}
	default:
		was, err := w.readCaptured(ctx, tx)
		if err != nil {
			return err
		}
		is.Function = was.Function
	}
	text, err := json.Marshal(is)
	if err != nil {
		return fmt.Errorf("write rowhook.trigger.captured: %w", err)
	}
	if w.head != nil {
		tx.laterWith(func(err error) error { return fmt.Errorf("write rowhook.trigger_table.captured: %w", err) },
			"update rowhook.trigger_table set captured = $3::text::jsonb where trigger_id = $1 and relation_id = $2", w.id, w.relationID, string(text))
		if !w.first {
			return nil
		}
		// Programs of version 6 look at the first table. They do not know its functions.
		is.Function = fingerprint{}
		if text, err = json.Marshal(is); err != nil {
			return fmt.Errorf("write rowhook.trigger.captured: %w", err)
		}
	}
	tx.laterWith(func(err error) error { return fmt.Errorf("write rowhook.trigger.captured: %w", err) },
		"update rowhook.trigger set captured = $2::text::jsonb where id = $1", w.id, string(text))
	return nil
}

// readCaptured reads what writeCaptured has written.
func (w *installation) readCaptured(ctx context.Context, tx *pipeline) (was captured, err error) {
	sql, args := "select captured from rowhook.trigger where id = $1", []any{w.id}
	if w.head != nil {
		sql, args = "select captured from rowhook.trigger_table where trigger_id = $1 and relation_id = $2", []any{w.id, w.relationID}
	}
	var text []byte
	if err = tx.QueryRow(ctx, sql, args...).Scan(&text); err == nil {
		err = json.Unmarshal(text, &was)
	}
	if err != nil {
		return was, fmt.Errorf("read what was captured of %s: %w", w.rel, err)
	}
	return was, nil
}
