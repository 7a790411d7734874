package sqlschema_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// wholeInserts counts the capture triggers of a table that run once for each statement.
const wholeInserts = "select count(*) from pg_trigger where tgrelid = 't'::regclass and tgname like 'rowhook%' and tgtype & 1 = 0"

// TestInsertsAreCapturedInEveryForm checks that capturing whole statements misses nothing and adds
// nothing.
func TestInsertsAreCapturedInEveryForm(t *testing.T) {
	t.Parallel()
	row := func(json string) string { return "w I null " + json }
	for name, c := range map[string]struct {
		least  int // version of the server
		setup  string
		writes []string
		want   []string
	}{
		"several rows, in order": {writes: []string{"insert into t select i, i::text from generate_series(1, 3) i"},
			want: []string{row(`{"id":1,"v":"1"}`), row(`{"id":2,"v":"2"}`), row(`{"id":3,"v":"3"}`)}},
		"no rows": {writes: []string{"insert into t select 1, 'x' where false"}},
		"a conflict": {setup: "insert into t values (1, 'old')", writes: []string{"insert into t values (1, 'x'), (2, 'x') on conflict do nothing"},
			want: []string{row(`{"id":2,"v":"x"}`)}},
		"an upsert": {setup: "insert into t values (1, 'old')", writes: []string{"insert into t values (1, 'x'), (2, 'x') on conflict (id) do update set v = excluded.v"},
			want: []string{`w U {"id":1,"v":"old"} {"id":1,"v":"x"}`, row(`{"id":2,"v":"x"}`)}},
		"a merge": {least: 15, setup: "insert into t values (1, 'old')",
			writes: []string{"merge into t using (values (1), (2)) as s(id) on t.id = s.id when matched then delete when not matched then insert values (s.id, 'x')"},
			want:   []string{`w D {"id":1,"v":"old"} null`, row(`{"id":2,"v":"x"}`)}},
		"two inserts in one statement": {writes: []string{"with a as (insert into t values (1, 'a') returning id) insert into t select id + 1, 'b' from a"},
			want: []string{row(`{"id":1,"v":"a"}`), row(`{"id":2,"v":"b"}`)}},
		"a foreign key": {setup: "create table parent (id int primary key); alter table t add foreign key (id) references parent; insert into parent values (1)",
			writes: []string{"insert into t values (1, 'x')"}, want: []string{row(`{"id":1,"v":"x"}`)}},
		"a trigger that inserts, too": {
			setup: `create function again() returns trigger language plpgsql as 'begin insert into t values (new.id + 1, null); return null; end';
				create trigger again after insert on t for each row when (new.id < 3) execute function again()`,
			writes: []string{"insert into t values (1, 'x')"}, want: []string{row(`{"id":3,"v":null}`), row(`{"id":2,"v":null}`), row(`{"id":1,"v":"x"}`)}},
		"a trigger that changes the row first": {
			setup: `create function change() returns trigger language plpgsql as 'begin new.v := upper(new.v); return new; end';
				create trigger change before insert on t for each row execute function change()`,
			writes: []string{"insert into t values (1, 'x')"}, want: []string{row(`{"id":1,"v":"X"}`)}},
		"rolled back in part": {writes: []string{"begin; insert into t values (1, 'x'); savepoint s; insert into t values (2, 'x'); rollback to s; insert into t values (3, 'x'); commit"},
			want: []string{row(`{"id":1,"v":"x"}`), row(`{"id":3,"v":"x"}`)}},
		"the writer's settings": {writes: []string{`begin; set local rowhook.session = '{"user": 7}'; insert into t values (1, 'x'), (2, 'x'); commit`},
			want: []string{row(`{"id":1,"v":"x"}`), row(`{"id":2,"v":"x"}`)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if pgtest.Version(t) < c.least {
				return
			}
			w := newWatched(t, "create table t (id int primary key, v text)")
			if c.setup != "" {
				w.do(t, c.setup)
			}
			w.apply(t, all("w", "t"))
			require.Equal(t, "1", w.scalar(t, wholeInserts))
			w.do(t, c.writes...)
			require.Equal(t, "0", w.scalar(t, `select count(*) from rowhook.event_log where session::text is distinct from
				case when $1 then '{"user": 7}' end`, name == "the writer's settings"))
			got := w.take(t)
			if len(got)+len(c.want) > 0 {
				require.Equal(t, c.want, got)
			}
		})
	}
}

// Columns may have the names of the function's own variables, or of what it reads from.
func TestWholeInsertsDoNotMindColumnNames(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (r int, inserted int, session int, trace int, old int, new int, tg_argv int, id int, found bool)", all("w", "t"))
	require.Equal(t, "1", w.scalar(t, wholeInserts))
	w.do(t, "insert into t values (1, 2, 3, 4, 5, 6, 7, 8, false)")
	require.Equal(t, []string{`w I null {"r":1,"inserted":2,"session":3,"trace":4,"old":5,"new":6,"tg_argv":7,"id":8,"found":false}`}, w.take(t))
}

// One session keeps its plan of the capture while its table changes under it.
func TestWholeInsertsFollowAlterTable(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int, b int)", all("w", "t"))
	for _, step := range [][2]string{
		{"select 1", `{"a":1,"b":null}`},
		{"alter table t add c text default 'c'", `{"a":1,"b":null,"c":"c"}`},
		{"alter table t drop b", `{"a":1,"c":"c"}`},
		{"alter table t alter a type text", `{"a":"1","c":"c"}`},
		{"alter table t rename a to z", `{"z":"1","c":"c"}`},
		{"alter table t rename to u; alter table u rename to t", `{"z":"1","c":"c"}`},
		{"alter table t add b jsonb default '[1]'", `{"z":"1","c":"c","b":[1]}`},
		{"alter table t drop c, drop b", `{"z":"1"}`},
	} {
		w.do(t, step[0], "insert into t values (1)")
		require.Equal(t, []string{"w I null " + step[1]}, w.take(t), step[0])
	}
}

func TestOnlyPlainInsertsAreCapturedByTheStatement(t *testing.T) {
	t.Parallel()
	plain := "create table t (id int, v text)"
	for name, c := range map[string]struct {
		setup string
		spec  trigger.Spec
		whole string
	}{
		"plain":                 {plain, all("w", "t"), "1"},
		"when":                  {plain, all("w", "t", when("true")), "0"},
		"chosen columns":        {plain, all("w", "t", payload("id", "v")), "0"},
		"on replication":        {plain, all("w", "t", onReplication), "0"},
		"a partitioned table":   {"create table t (id int, v text) partition by range (id); create table p partition of t for values from (1) to (9)", all("w", "t"), "0"},
		"a partition":           {"create table p (id int, v text) partition by range (id); create table t partition of p for values from (1) to (9)", all("w", "t"), "0"},
		"a table that inherits": {"create table p (id int, v text); create table t () inherits (p)", all("w", "t"), "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, c.setup, c.spec)
			require.Equal(t, c.whole, w.scalar(t, wholeInserts))
			w.do(t, "insert into t values (1, 'x')")
			require.Equal(t, []string{`w I null {"id":1,"v":"x"}`}, w.take(t))
			if w.scalar(t, "select to_regclass('p') is not null") == "true" && name == "a partition" {
				w.do(t, "insert into p values (2, 'x')")
				require.Equal(t, []string{`w I null {"id":2,"v":"x"}`}, w.take(t))
			}
		})
	}
}

// Rows that an insert into a parent routes to the table would be lost. So the table can't become a
// partition unnoticed.
func TestWatchedTableBecomesAPartitionOnlyOnceCapturedByRow(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int, v text); create table p (id int, v text) partition by range (id); create table q (id int, v text)", all("w", "t"))
	attach := "alter table p attach partition t for values from (1) to (9)"
	require.Contains(t, w.fails(t, attach), `"rowhook_w_guard"`)
	require.Contains(t, w.fails(t, "alter table t inherit q"), `"rowhook_w_guard"`)
	w.apply(t, all("w", "t", when("true")))
	w.do(t, attach)
	w.apply(t, all("w", "t"))
	w.do(t, "insert into p values (1, 'x')")
	require.Equal(t, []string{`w I null {"id":1,"v":"x"}`}, w.take(t))
	w.do(t, "alter table p detach partition t")
	w.apply(t, all("w", "t"))
	require.Equal(t, "1", w.scalar(t, wholeInserts))
	w.do(t, "insert into t values (2, 'x')")
	require.Equal(t, []string{`w I null {"id":2,"v":"x"}`}, w.take(t))
}

func TestStatementThatInsertsNothingDoesNotRing(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int)", all("w", "t"))
	listening := w.Conn(t)
	_, err := listening.Exec(t.Context(), "listen rowhook")
	require.NoError(t, err)
	w.do(t, "select setval('rowhook.doorbell', 1)", "insert into t select 1 where false", "select pg_notify('rowhook', 'mine')")
	n, err := listening.WaitForNotification(t.Context())
	require.NoError(t, err)
	require.Equal(t, "mine", n.Payload)
	w.do(t, "insert into t select generate_series(1, 5)")
	n, err = listening.WaitForNotification(t.Context())
	require.NoError(t, err)
	require.Equal(t, "1", n.Payload)
}

// lz4 takes a tenth of the writer's time that pglz takes. Measured for 1 MB of incompressible JSON:
// 12 ms an insert instead of 43.
func TestLargePayloadsArePackedWithLZ4WhereTheServerCan(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (v text)", all("w", "t"))
	w.do(t, "insert into t values (repeat('payload ', 10000))")
	want := "lz4"
	if w.scalar(t, "select not 'lz4' = any(enumvals) from pg_settings where name = 'default_toast_compression'") == "true" {
		want = "pglz"
	}
	require.Equal(t, want, w.scalar(t, "select pg_column_compression(new) from rowhook.event_log"))
	require.Equal(t, "0", w.scalar(t, `select count(*) from pg_attribute where attrelid::regclass::text ~ '^rowhook.(event_archive|dead_letter)'
		and attname = 'new' and not attisdropped and (attcompression <> 'l') and $1 = 'lz4'`, want))
}

func TestWholeInsertsOfAnUntrustedOwnerRunAsThatOwner(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int, v text)")
	role, _ := w.Role(t)
	w.do(t, "alter table t owner to "+role)
	w.apply(t, all("w", "t"))
	require.Equal(t, "1", w.scalar(t, wholeInserts))
	require.Equal(t, role, w.scalar(t, "select proowner::regrole from pg_proc where oid = 'rowhook.capture_1'::regproc"))
	w.do(t, "insert into t select i, 'x' from generate_series(1, 2) i")
	require.Equal(t, []string{`w I null {"id":1,"v":"x"}`, `w I null {"id":2,"v":"x"}`}, w.take(t))
}

// A function of Rowhook reads the writer's settings. The owner must be allowed to run it.
func TestTheWritersContextIsCapturedOnATableOfAnUntrustedOwner(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int, v text)")
	role, _ := w.Role(t)
	w.do(t, "alter table t owner to "+role)
	w.apply(t, all("w", "t"))
	w.do(t, `set rowhook.session = '{"user":7}'`, `set rowhook.trace_context = 'x'`, "insert into t values (1, 'a')", "update t set v = 'b'", "delete from t")
	require.Equal(t, "3", w.scalar(t, `select count(*) from rowhook.event_log where session::text = '{"user":7}' and trace::text = '"x"'`))
}

// REASSIGN OWNED gives the capture function to a role without rights in the schema rowhook. The
// rights can be lost in other ways, too.
func TestApplyRestoresWhatTheOwnerOfATableNeedsToCapture(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int, v text)")
	before, _ := w.Role(t)
	after, _ := w.Role(t)
	w.do(t, "alter table t owner to "+before)
	w.apply(t, all("w", "t"))
	for _, loss := range []string{
		"reassign owned by " + before + " to " + after,
		"revoke all on schema rowhook from " + after,
		"revoke all on rowhook.inbox_1 from " + after,
		"revoke all on rowhook.doorbell from " + after,
		"revoke all on function rowhook.payload_1(t) from " + after,
		"revoke all on function rowhook.context() from " + after,
		"drop view rowhook.inbox_1",
	} {
		w.do(t, loss)
		plan := w.apply(t, all("w", "t"))
		require.Len(t, plan.Changes(), 1, "%s: %s", loss, plan)
		w.do(t, "begin", `set local rowhook.session = '{}'`, "insert into t values (1, 'x')", "update t set v = 'y'", "delete from t", "commit")
		require.Len(t, w.take(t), 3, loss)
	}
}

func capturedBy(how string) func(*trigger.Spec) {
	return func(s *trigger.Spec) { s.Capture = how }
}

func TestCaptureSaysWhetherInsertsAreCapturedByTheStatement(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int, v text); create table p (id int, v text) partition by range (id)")
	for _, step := range []struct{ how, whole string }{{"", "1"}, {"rows", "0"}, {"statement", "3"}, {"auto", "1"}, {"rows", "0"}} {
		w.apply(t, all("w", "t", capturedBy(step.how)))
		require.Equal(t, step.whole, w.scalar(t, wholeInserts), step.how)
		w.do(t, "insert into t values (1, 'x')")
		require.Equal(t, []string{`w I null {"id":1,"v":"x"}`}, w.take(t), step.how)
	}
	w.do(t, "alter table p attach partition t for values from (1) to (9)", "insert into p values (2, 'y')")
	require.Equal(t, []string{`w I null {"id":2,"v":"y"}`}, w.take(t))
	statement := capturedBy("statement")
	for reason, spec := range map[string]trigger.Spec{
		"its when must be evaluated for each row": all("s", "t", statement, when("true")),
		"it has on_replication":                   all("s", "t", statement, onReplication),
		"its payload has chosen columns":          all("s", "t", statement, payload("id")),
		"it captures updates of certain columns":  all("s", "t", statement, updatesOf("id")),
		"public.p is partitioned":                 all("s", "p", statement),
		"public.t is a partition or inherits":     all("s", "t", statement),
	} {
		_, err := sqlschema.MakePlan(t.Context(), w.conn, []trigger.Spec{spec}, trigger.DefaultSettings())
		var problems trigger.SpecErrors
		require.ErrorAs(t, err, &problems, reason)
		require.Equal(t, []string{"capture"}, problems[0].Path)
		require.Contains(t, problems[0].Message, reason)
		require.Contains(t, problems[0].Message, "write capture: auto")
	}
}

// Stand-ins for TimescaleDB's catalog and for its trigger on hypertables. The chunks inherit, and
// have copies of triggers on rows.
func TestHypertablesAreCapturedRowByRow(t *testing.T) {
	t.Parallel()
	for name, setup := range map[string]string{
		"by the trigger": "create trigger ts_insert_blocker before insert on t for each row when (false) execute function suppress_redundant_updates_trigger()",
		"by the catalog": "create schema _timescaledb_catalog; create table _timescaledb_catalog.hypertable (schema_name name, table_name name); insert into _timescaledb_catalog.hypertable values ('public', 't')",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, "create table t (id int, v text); create table chunk () inherits (t); "+setup)
			spec := all("w", "t")
			require.Empty(t, w.apply(t, spec).Warnings)
			require.Equal(t, "0", w.scalar(t, wholeInserts))
			w.do(t, `do $$ declare d text; begin for d in select pg_get_triggerdef(oid) from pg_trigger where tgrelid = 't'::regclass and tgname like 'rowhook%' loop
				execute replace(d, 'public.t ', 'public.chunk '); end loop; end $$`)
			require.True(t, w.plan(t, spec).Empty(), "the copies belong to the hypertable's")
			w.do(t, "insert into chunk values (1, 'x')")
			require.Equal(t, []string{`w I null {"id":1,"v":"x"}`}, w.take(t))
			_, err := sqlschema.MakePlan(t.Context(), w.conn, []trigger.Spec{all("w", "t", capturedBy("statement"))}, trigger.DefaultSettings())
			require.ErrorContains(t, err, "public.t is a hypertable")
		})
	}
}

func TestATransitionTableCountsAgainstTempFileLimitAndRowsDoNot(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int, v text)", all("w", "t"))
	load := "insert into t select i, repeat('x', 500) from generate_series(1, 4000) i"
	w.do(t, "set work_mem = '64kB'", "set temp_file_limit = '1MB'")
	require.Contains(t, w.fails(t, load), "temp_file_limit")
	w.do(t, "alter table t disable trigger all")
	require.Contains(t, w.fails(t, load), "temp_file_limit", "also while the trigger is disabled")
	w.apply(t, all("w", "t", capturedBy("rows")))
	w.do(t, load, "reset temp_file_limit")
	require.Len(t, w.take(t), 4000)
}

// Databases may deny PUBLIC its default rights, before Rowhook is installed and after.
func TestHardenedDatabasesCaptureTablesOfOtherOwners(t *testing.T) {
	t.Parallel()
	const harden = "alter default privileges revoke execute on functions from public; alter default privileges revoke usage on types from public"
	db := pgtest.NewEmpty(t)
	w := watched{db, db.Conn(t)}
	w.do(t, harden)
	require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, nil))
	owner, url := w.Role(t)
	w.do(t, "create table t (id int, v text)", "alter table t owner to "+owner)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	as := watched{db, conn}
	as.do(t, `set rowhook.session = 'x'`)
	for _, spec := range []trigger.Spec{all("w", "t"), all("w", "t", payload("id"))} {
		w.apply(t, spec)
		as.do(t, "insert into t values (1, 'x')", "update t set id = 2", "delete from t")
		require.Len(t, w.take(t), 3)
		for _, loss := range []string{"rowhook.uuid7()", "rowhook.as_json(text)", "rowhook.context()"} {
			w.do(t, "revoke all on function "+loss+" from "+owner)
			require.Len(t, w.apply(t, spec).Changes(), 1, loss)
			as.do(t, "insert into t values (1, 'x')")
			require.Len(t, w.take(t), 1, loss)
		}
		as.do(t, "delete from t")
		w.take(t)
	}
	require.Empty(t, w.scalar(t, `select coalesce(string_agg(p.proname, ' '), '') from pg_proc p where p.pronamespace = 'rowhook'::regnamespace
		and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)`), "nothing is PUBLIC's")
	// Down and up again, with writes in between and no apply.
	for _, version := range []int32{2, 3} {
		require.NoError(t, sqlschema.MigrateTo(t.Context(), w.conn, version, nil))
		as.do(t, "insert into t values (3, 'x')")
		require.Len(t, w.take(t), 1)
	}
}
