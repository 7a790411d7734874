package sqlschema

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// What is captured at commit takes deferred constraint triggers. Postgres runs one for each change of
// a row, in the order of the changes, with the rows of that change. rowhook.commit_row says what the
// transaction has done to a row so far: with which row it began, under which key it is now, and which
// event was recorded. Each change brings that event up to date, and nobody else sees it before the
// transaction has committed. So it does not matter how many changes there are, nor whether some run
// early, because of "set constraints all immediate".

// atCommit reports whether the changes of a row are captured as one, when the transaction commits.
func atCommit(s *trigger.Spec) bool { return s.At == trigger.AtCommit && len(rowOperations(s)) > 0 }

// keyed reports whether captures write or look up a key.
func keyed(s *trigger.Spec) bool { return ordered(s) || atCommit(s) }

// commitVersion is a part of the digest of the functions of such a trigger. It changes with the texts
// below.
const commitVersion = "commit 4"

// checkCommit finds what keeps a table from being captured at commit, and reads its key.
func (p *planner) checkCommit(spec *trigger.Spec, rel *relation, problem func(message string, path ...string)) {
	switch {
	case rel.Hypertable:
		problem(fmt.Sprintf("%s is a hypertable, and TimescaleDB does not support constraint triggers there: capture each change", rel), "at")
		return
	case ordered(spec):
		return // its key is that of the row
	}
	byRow := *spec
	byRow.Order.By = []string{trigger.OrderByRow}
	if len(rel.primaryKey()) == 0 {
		problem(fmt.Sprintf("%s has no primary key, by which the changes of a row are known for those of one row: add one, or capture each change", rel), "at")
		return
	}
	rel.key = keyOf(rel, &byRow, func(_ int, message string) { problem(message, "at") })
}

// commitTriggers returns the operations whose SQL triggers such a trigger needs: all, since each of
// them may change what has become of a row.
func commitTriggers(s *trigger.Spec) []operation {
	ops := []operation{insertOp, updateOp, deleteOp}
	if s.On.Truncate {
		ops = append(ops, truncateOp)
	}
	return ops
}

// createCommitTrigger returns the statements that make one of these SQL triggers. Postgres can't
// replace a constraint trigger.
func createCommitTrigger(spec *trigger.Spec, rel *relation, of own, op operation, call string) []string {
	name := pg.QuoteName(sqlTriggerName(spec.Name, of.id, op))
	return []string{
		fmt.Sprintf("drop trigger if exists %s on %s", name, rel.sql()),
		fmt.Sprintf("create constraint trigger %s after %s on %s deferrable initially deferred for each row when (%s) %s",
			name, op.word(), rel.sql(), commitCondition(spec, rel, op), call),
	}
}

// commitCondition returns the WHEN clause. An update that changes nothing is left out. The other parts
// are true, and are not evaluated: they have a DROP COLUMN ... CASCADE drop the trigger together with
// the functions that read the column.
func commitCondition(spec *trigger.Spec, rel *relation, op operation) string {
	row := "NEW"
	if op == deleteOp {
		row = "OLD"
	}
	read, _ := capturedColumns(spec)
	parts := []string{"(" + rowOf(row, rel.stored(append(append(read, spec.On.Update.Columns...), rel.keyColumns()...))) + " is null or true)"}
	for _, captured := range rowOperations(spec) {
		if captured == op && spec.When != "" {
			parts = append(parts, "((\n"+spec.When+"\n) is null or true)")
		}
	}
	if op == updateOp {
		parts = append(parts, "pg_catalog.record_image_ne(OLD.*, NEW.*)")
	}
	return strings.Join(parts, " and ")
}

// commitFunction is one of the functions of such a trigger. They are overloads of the payload
// function, so that every program finds them, and drops them with it.
type commitFunction struct {
	Signature string
	Create    []string // statements
}

// commitFunctions returns the functions that a capture at commit calls, in the order in which they are
// made.
func commitFunctions(spec *trigger.Spec, rel *relation, of own, relationID int32) []commitFunction {
	row, name := rel.sql(), of.payload()
	parse, read, text := name+"(text)", name+"(text, pg_catalog.bool)", name+"("+row+", pg_catalog.bool)"
	functions := []commitFunction{
		// The row from its text. Its type is looked up once, so it follows renames.
		{parse, []string{"drop function if exists " + parse + " cascade", "create function " + parse + " returns " + row + " language sql stable return ($1)::" + row}},
		// Likewise, but null if the type refuses the text. A constraint that was added to a domain as NOT
		// VALID may refuse it, and a function in such a constraint may fail.
		{read, []string{"drop function if exists " + read + " cascade", "create function " + read + " returns " + row + " language plpgsql stable as $$\nbegin\n" +
			"  return " + name + "($1);\nexception when others then\n  return null;\nend\n$$"}},
		// The text of a row. A partition may have other columns than its table, or another order of
		// them, and its row becomes one of the table here.
		{text, []string{"create or replace function " + text + " returns pg_catalog.text language sql stable return ($1)::pg_catalog.text"}},
	}
	// The when. Its parameters are old and new, so it depends on the columns that it names and on no others.
	createWhen := "create or replace function " + name + `("old" ` + row + `, "new" ` + row + ") returns pg_catalog.bool language sql stable return "
	when := []string{createWhen + "true"}
	if spec.When != "" {
		when = pg.OnUsersPath(createWhen + "(\n" + spec.When + "\n)")
	}
	return append(functions,
		commitFunction{name + "(" + row + ", " + row + ")", when},
		commitFunction{name + "(" + row + ", " + row + `, pg_catalog."char")`, []string{createJudge(spec, rel, of)}},
		commitFunction{name + "(pg_catalog.text, pg_catalog.text)", []string{createJudgeTexts(of)}},
		commitFunction{name + "(text, text, text, text)", []string{createSeen(of, relationID)}},
		commitFunction{name + `(tid, uuid, text, text, text, "char", json, json, json, json)`, []string{createPut(spec, of, relationID)}},
		commitFunction{name + "(tid, text, text)", []string{createAnew(of)}})
}

// notReadable is the operation that a judge returns of rows whose text can't be read.
const notReadable = "!"

// createJudge makes the function that says what has become of a row: from the row before and now, and
// the operation that this is if the rows differ. It returns no row if that is not captured.
//
// The rows are parameters, and are named as a whole. So the function depends on no columns but those
// that a when, the payload or on.update.columns names, and others can be dropped.
//
// The function has no fixed search_path, so Postgres inlines it, and plans it once in a session. The
// capture function sets the one that a when needs.
//
// All parameters have names. If only the results had, a dump would write the others as "".
func createJudge(spec *trigger.Spec, rel *relation, of own) string {
	const old, new = "r.old", "r.new"
	differ := "pg_catalog.record_image_ne(" + old + ", " + new + ")"
	if columns := spec.On.Update.Columns; columns != nil {
		differ = "pg_catalog.record_image_ne(" + rowOf("("+old+")", columns) + ", " + rowOf("("+new+")", columns) + ")"
	}
	var ops []string
	before, after := "null::pg_catalog.json", "null::pg_catalog.json"
	for _, op := range rowOperations(spec) {
		when := fmt.Sprintf(" when v.op operator(pg_catalog.=) '%c' then ", op)
		ops = append(ops, fmt.Sprintf("'%c'", op))
		if op != insertOp && (op == deleteOp || storesOld(spec)) {
			before = "case" + when + callPayload(spec, of, op, old) + " else " + before + " end"
		}
		if op != deleteOp {
			after = "case" + when + callPayload(spec, of, op, new) + " else " + after + " end"
		}
	}
	condition := "v.op operator(pg_catalog.=) any (array[" + strings.Join(ops, ", ") + `]::pg_catalog."char"[])`
	if spec.When != "" {
		condition += " and " + of.payload() + "(" + old + ", " + new + ")"
	}
	row := rel.sql()
	return "create or replace function " + of.payload() + "(row_old " + row + ", row_new " + row + `, as_op pg_catalog."char") returns table (op pg_catalog."char", old pg_catalog.json, new pg_catalog.json) language sql stable
begin atomic
  select v.op, ` + before + ", " + after + `
    from (select $1 as old, $2 as new offset 0) as r -- each is made once, although it is named several times
   cross join lateral (
     select (case when $3 operator(pg_catalog.=) 'I' then 'I'
       when $3 operator(pg_catalog.=) 'D' then case when r.old is not distinct from null then '` + notReadable + `' else 'D' end
       when $3 operator(pg_catalog.=) 'U' then case when r.old is not distinct from null or r.new is not distinct from null then '` + notReadable + `' when ` + differ + ` then 'U' end end)::pg_catalog."char" as op offset 0) as v
   where case when v.op operator(pg_catalog.=) '` + notReadable + `' then true else ` + condition + ` end;
end`
}

// createJudgeTexts makes the function that does so from the texts of the row before and now. The row
// before is there, and now is null if the row is deleted.
func createJudgeTexts(of own) string {
	return "create or replace function " + of.payload() + `(text_old pg_catalog.text, text_new pg_catalog.text) returns table (op pg_catalog."char", old pg_catalog.json, new pg_catalog.json) language sql stable
begin atomic
  select j.op, j.old, j.new
    from ` + of.payload() + "(" + of.payload() + "($1, true), " + of.payload() + `($2, true), case when $2 is null then 'D' else 'U' end::pg_catalog."char") as j;
end`
}

// commitRow is the key of rowhook.commit_row.
const commitRow = "(txid, trigger_id, relation_id, key)"

// createSeen makes the function that says what the transaction knew of a row before a change, and
// notes the change. Its arguments are the key before and after, null for none, and the texts of the row.
// It returns where it has noted it, the event that was recorded, and the key and the text with which the
// row began. fresh says that the transaction had not noted the row.
//
// Nothing is looked up but by "on conflict". A serializable transaction that reads an index locks its
// pages, and each other one that writes there depends on it: of six writers of different rows, a fifth
// failed. "on conflict" looks for rows without a snapshot, and takes no such locks.
//
// A row is known by its key together with a hash of its text. While a deferrable primary key is not
// checked yet, or if it was dropped, several rows have the same key: see rowhook.commit_twin. A row whose
// text is another one than it was after its last change, such as by an ALTER TABLE, begins anew, with an
// event of its own.
func createSeen(of own, relationID int32) string {
	return "create or replace function " + of.payload() + `(was text, now text, row_was text, row_now text, out place tid, out event uuid, out origin text, out row_first text, out fresh boolean) language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
as $$
#variable_conflict use_variable
declare
  at_was   text := ` + shortKey("was") + `;
  at_now   text := ` + shortKey("now") + `;
  hash_was bigint := hashtextextended(row_was, 0);
  hash_now bigint := hashtextextended(row_now, 0);
begin
  insert into rowhook.commit_row as r (txid, trigger_id, relation_id, key, hash, origin, row_first)
  values (pg_current_xact_id(), ` + fmt.Sprintf("%d, %d", of.id, relationID) + `, coalesce(at_was, at_now), hash_now, was, row_was)
  on conflict ` + commitRow + ` do update set hash = hash_now, fresh = false
   where r.held and r.hash is not distinct from hash_was
  returning r.ctid, r.event_id, r.origin, r.row_first, r.fresh into place, event, origin, row_first, fresh;
  if place is null or at_was <> at_now then
    select * into place, event, origin, row_first, fresh
      from rowhook.commit_twin(` + fmt.Sprintf("%d, %d", of.id, relationID) + `, place, at_was, at_now, hash_was, hash_now, was, row_was);
  end if;
end
$$`
}

// shortKey returns SQL for what stands for a key in an index, whose rows have at most 2,704 bytes. Keys
// begin with a bracket, so none is taken for a hash.
func shortKey(key string) string {
	return "case when octet_length(" + key + ") > 1000 then encode(sha256(convert_to(" + key + ", getdatabaseencoding())), 'hex') else " + key + " end"
}

// createPut makes the function that brings the event of a row up to date. Its arguments are what the
// function of createSeen has returned, the key before the change and after it, and what has become of
// the row: op is null if there is no event. It returns whether an event was recorded.
//
// It finds events as createSeen finds rows, and for the same reason.
func createPut(spec *trigger.Spec, of own, relationID int32) string {
	columns, values := "id, trigger_id, relation_id, op, old, new, session, trace", fmt.Sprintf("event, %d, %d, op, old, new, session, trace", of.id, relationID)
	declared, placing, moved, returning, move, unmove := "", "", "", "", "", ""
	due := "clock_timestamp()"
	if spec.Delay > 0 {
		due += " + " + delayOf(spec.Delay)
	}
	switch {
	case ordered(spec):
		columns += ", due_at, key, lane, seq"
		values += ", " + strings.Replace(fmt.Sprintf(placed, "now", "nextval('rowhook.event_seq'::regclass)"), "clock_timestamp()", due, 1)
		declared = "  seq_of bigint;\n  move   tid;\n"
		placing = ", key = case when e.lane is not null then now end, lane = case when e.lane is not null then rowhook.lane_of(now) end"
		moved = " or e.key <> now"
		returning = "\n    returning e.seq into seq_of"
		// The key with which the row began waits for the event, too.
		unmove = `
    insert into rowhook.key_move as m (event_id, trigger_id, lane, seq, key) values (event, ` + strconv.Itoa(int(of.id)) + `, 0, 0, '')
    on conflict (event_id) do update set ready = m.ready returning m.ctid into move;
    delete from rowhook.key_move m where m.ctid = move;`
		move = `
  if origin <> now and seq_of is not null then
    insert into rowhook.key_move (event_id, trigger_id, lane, seq, key)
    values (event, ` + strconv.Itoa(int(of.id)) + `, rowhook.lane_of(origin), seq_of, origin) on conflict (event_id) do nothing;
  elsif origin = now and origin <> was then` + unmove + `
  end if;`
		unmove = "\n    if origin <> was then" + strings.ReplaceAll(unmove, "\n", "\n  ") + "\n    end if;"
	case spec.Delay > 0:
		columns += ", due_at"
		values += ", " + due
	}
	mine := fmt.Sprintf("r.ctid = place and r.txid = pg_current_xact_id() and r.trigger_id = %d", of.id)
	insert := "insert into rowhook.event_log as e (" + columns + ")\n    values (" + values + ")"
	return "create or replace function " + of.payload() + `(place tid, event uuid, origin text, was text, now text, op "char", old json, new json, session json, trace json) returns boolean language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
  set enable_seqscan to off
  set enable_tidscan to on
as $$
#variable_conflict use_variable
declare
  stands tid;
` + declared + `begin
  if event is not null then
    perform 1 from rowhook.commit_row r where ` + mine + ` and r.event_id = event;
    if not found then
      raise exception 'rowhook: this is not a change that the transaction has made';
    end if;
  elsif op is null then
    return false;
  end if;
  if op is null then
    insert into rowhook.event_log as e (id, trigger_id, op) values (event, ` + strconv.Itoa(int(of.id)) + `, 'U')
    on conflict (id) do update set op = e.op returning e.ctid into stands;
    delete from rowhook.event_log e where e.ctid = stands;` + unmove + `
    update rowhook.commit_row r set event_id = null where r.ctid = place;
    return false;
  end if;
  if event is null then
    event := rowhook.uuid7();
    update rowhook.commit_row r set event_id = event where ` + mine + ` and r.event_id is null;
    if not found then
      raise exception 'rowhook: this is not a change that the transaction has made';
    end if;
    ` + insert + returning + `;
  else
    ` + insert + `
    on conflict (id) do update set op = op, old = old, new = new` + placing + `
     where e.op <> op or e.old::text is distinct from old::text or e.new::text is distinct from new::text` + moved + returning + `;
  end if;` + move + `
  return true;
end
$$`
}

// createAnew makes the function that lets a row begin anew with a change: from where the function of
// createSeen has noted it, and the key and the text before the change. The event that was recorded of it
// stays.
func createAnew(of own) string {
	return "create or replace function " + of.payload() + `(inout place tid, was text, row_was text, out event uuid, out origin text, out row_first text, out fresh boolean) language plpgsql security definer
  set search_path to 'pg_catalog', 'pg_temp'
  set enable_seqscan to off
  set enable_tidscan to on
as $$
#variable_conflict use_variable
begin
  update rowhook.commit_row r set event_id = null, origin = was, row_first = row_was
   where r.ctid = place and r.txid = pg_current_xact_id() and r.trigger_id = ` + strconv.Itoa(int(of.id)) + `
  returning r.ctid, r.origin, r.row_first, true into place, origin, row_first, fresh;
end
$$`
}

// createCommitCapture makes the capture function of such a trigger. Its settings and how it reads the
// context and the doorbell are those of rowhook.capture. A when runs under the search_path path.
func createCommitCapture(spec *trigger.Spec, rel *relation, of own, definition, path string) (string, error) {
	const begin, end, declared = "  if tg_level = 'STATEMENT' then\n", "  if coalesce(tg_argv[1], '') <> 'never'", "  trace   json;\n"
	const settings = "AS $"
	before, rest, ok := strings.Cut(definition, begin)
	_, after, okToo := strings.Cut(rest, end)
	if !ok || !okToo || strings.Count(before, declared) != 1 || strings.Count(before, settings) != 1 || strings.Count(before, "FUNCTION rowhook.capture()") != 1 {
		return "", errChangedByHand
	}
	before = strings.Replace(before, "FUNCTION rowhook.capture()", "FUNCTION "+of.capture()+"()", 1)
	before = strings.Replace(before, declared, declared+"  was     text;\n  now     text;\n  row_was text;\n  row_now text;\n  seen    record;\n  done    record;\n", 1)
	// The text of xml may be a document or not.
	before = strings.Replace(before, settings, " SET xmloption TO 'content'\n"+settings, 1)
	truncate := ""
	if spec.On.Truncate {
		columns, values := truncated(spec, of)
		if spec.Delay > 0 && !ordered(spec) {
			columns, values = columns+", due_at", values+", clock_timestamp() + "+delayOf(spec.Delay)
		}
		into := "rowhook.event_log"
		if guarded(spec, rel) {
			into = of.intoView(spec)
		}
		truncate = "    insert into " + into + " (" + columns + ")\n    values (" + values + ");\n"
	}
	rights := ""
	if guarded(spec, rel) {
		rights = "    -- Whether its owner has the rights for this shows by those on rowhook.inbox_" + of.suffix() + ": see ownFunctions.\n"
	}
	pathFor, pathBack := "", ""
	if spec.When != "" {
		const set = "    perform pg_catalog.set_config('search_path', %s, true);\n"
		pathFor, pathBack = fmt.Sprintf(set, pg.StringLiteral(path)), fmt.Sprintf(set, "'pg_catalog, pg_temp'")
	}
	judge := func(arguments string) string {
		return "select * into done from " + of.payload() + "(" + arguments + ");\n"
	}
	body := "  if tg_op = 'TRUNCATE' then\n" + truncate + "    null;\n" +
		// A column that they read was dropped by "cascade", and with it a trigger. The others do not
		// let the write fail.
		"  elsif to_regprocedure('" + of.payload() + "(text, text)') is null then\n" +
		"    return null;\n" +
		"  else\n" +
		rights +
		"    if tg_op <> 'INSERT' then\n      was := " + of.key("old") + ";\n      row_was := " + of.payload() + "(old, true);\n    end if;\n" +
		"    if tg_op <> 'DELETE' then\n      now := " + of.key("new") + ";\n      row_now := " + of.payload() + "(new, true);\n    end if;\n" +
		"    select * into seen from " + of.payload() + "(was, now, row_was, row_now);\n" +
		// Between these the path is the user's, and operators are named with their schema.
		pathFor +
		"    if not seen.fresh and seen.row_first is not null then\n" +
		"      " + judge("seen.row_first, row_now") +
		"      if done.op operator(pg_catalog.=) '" + notReadable + "' then\n" +
		"        select * into seen from " + of.payload() + "(seen.place, was, row_was);\n" +
		"      end if;\n" +
		"    end if;\n" +
		"    if seen.row_first is null then\n" +
		"      if tg_op operator(pg_catalog.=) 'DELETE' then\n        select null::pg_catalog.\"char\" as op, null::pg_catalog.json as old, null::pg_catalog.json as new into done;\n" +
		"      else\n        " + judge("null, new, 'I'") + "      end if;\n" +
		"    elsif seen.fresh and tg_op operator(pg_catalog.=) 'DELETE' then\n      " + judge("old, null, 'D'") +
		"    elsif seen.fresh then\n      " + judge("old, new, 'U'") +
		"    end if;\n" +
		pathBack +
		"    if not " + of.payload() + "(seen.place, seen.event, seen.origin, coalesce(was, now), coalesce(now, was), done.op, done.old, done.new, session, trace) then\n" +
		"      return null;\n" +
		"    end if;\n" +
		"  end if;\n"
	return before + body + end + after, nil
}

// dropConstraint drops an SQL trigger that captures at commit, since "create or replace" can't make
// another one of it.
func (w *installation) dropConstraint(ctx context.Context, tx *pipeline, op operation) error {
	name := sqlTriggerName(w.spec.Name, w.id, op)
	var is bool
	err := tx.QueryRow(ctx, "select exists (select from pg_catalog.pg_trigger where tgrelid = $1 and tgname = $2 and tgconstraint <> 0)", w.rel.OID, name).Scan(&is)
	if err != nil || !is {
		return err
	}
	_, err = tx.Exec(ctx, fmt.Sprintf("drop trigger %s on %s", pg.QuoteName(name), w.rel.sql()))
	return err
}

// refuseCommit returns an error if triggers capture at commit, for a way down to a version whose
// programs can neither change nor drop their constraint triggers.
func refuseCommit(ctx context.Context, conn *pgx.Conn, version int32) error {
	var names []string
	err := conn.QueryRow(ctx, "select coalesce(array_agg(name order by name), '{}') from rowhook.trigger where removed_at is null and spec->>'at' = $1", trigger.AtCommit).Scan(&names)
	if err != nil {
		return fmt.Errorf("look for triggers that capture at commit: %w", err)
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("programs of version %d can't change what captures at commit, as %s do: apply them with at: change first", version, strings.Join(names, ", "))
}
