package sqlschema_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// watched is a database with tables that triggers watch.
type watched struct {
	*pgtest.DB
	conn *pgx.Conn
}

func newWatched(t *testing.T, setup string, specs ...trigger.Spec) watched {
	t.Helper()
	db := pgtest.New(t)
	w := watched{db, db.Conn(t)}
	w.do(t, setup)
	if len(specs) > 0 {
		w.apply(t, specs...)
	}
	return w
}

// do runs each statement in its own transaction.
func (w watched) do(t *testing.T, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		_, err := w.conn.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
}

func (w watched) apply(t *testing.T, specs ...trigger.Spec) *sqlschema.Plan {
	t.Helper()
	plan, err := sqlschema.Apply(t.Context(), w.conn, specs, trigger.DefaultSettings(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	again, err := sqlschema.MakePlan(t.Context(), w.conn, specs, trigger.DefaultSettings())
	require.NoError(t, err)
	require.True(t, again.Empty(), "a second apply would change: %s", again)
	return plan
}

// take returns the events since the last call, oldest first, as "trigger op old new".
func (w watched) take(t *testing.T) []string {
	t.Helper()
	rows, err := w.conn.Query(t.Context(), `
with gone as (delete from rowhook.event_log returning *)
select concat_ws(' ', t.name, e.op, coalesce(e.old::text, 'null'), coalesce(e.new::text, 'null'))
  from gone e left join rowhook.trigger t on t.id = e.trigger_id
 order by e.created_at, e.id`)
	require.NoError(t, err)
	events, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return events
}

// scalar reads one value as text.
func (w watched) scalar(t *testing.T, sql string, args ...any) (s string) {
	t.Helper()
	require.NoError(t, w.conn.QueryRow(t.Context(), "select ("+sql+")::text", args...).Scan(&s), sql)
	return s
}

// fails runs a statement that must fail, and returns its error.
func (w watched) fails(t *testing.T, sql string) string {
	t.Helper()
	_, err := w.conn.Exec(t.Context(), sql)
	require.Error(t, err, sql)
	return err.Error()
}

// all watches every operation of a table.
func all(name, table string, with ...func(*trigger.Spec)) trigger.Spec {
	spec := trigger.DefaultSpec()
	spec.Name, spec.Table, spec.Webhook.URL = name, table, "${URL}"
	spec.On = trigger.On{Insert: true, Update: trigger.UpdateOn{Enabled: true}, Delete: true}
	for _, f := range with {
		f(&spec)
	}
	return spec
}

func updatesOf(columns ...string) func(*trigger.Spec) {
	return func(s *trigger.Spec) {
		s.On = trigger.On{Update: trigger.UpdateOn{Enabled: true, Columns: columns}}
	}
}

func payload(columns ...string) func(*trigger.Spec) {
	return func(s *trigger.Spec) { s.Payload.Columns = columns }
}

func when(expression string) func(*trigger.Spec) {
	return func(s *trigger.Spec) { s.When = expression }
}

func onReplication(s *trigger.Spec) { s.OnReplication = true }

func neverNotify(s *trigger.Spec) { s.Notify = trigger.NotifyNever }

// TestCaptureRecordsWhatWasWritten checks, byte for byte, the events of each kind of write.
func TestCaptureRecordsWhatWasWritten(t *testing.T) {
	t.Parallel()
	table := "create table t (id int primary key, a text, b numeric)"
	whole := []trigger.Spec{all("w", "t")}
	for name, c := range map[string]struct {
		least  int // version of the server
		setup  string
		specs  []trigger.Spec
		writes []string
		want   []string
	}{
		"insert, update, delete": {
			setup: table, specs: whole,
			writes: []string{"insert into t values (1, 'x', 1.10)", "update t set b = 1.1", "delete from t"},
			want: []string{`w I null {"id":1,"a":"x","b":1.10}`, `w U {"id":1,"a":"x","b":1.10} {"id":1,"a":"x","b":1.1}`,
				`w D {"id":1,"a":"x","b":1.1} null`},
		},
		"an update that changes nothing": {
			setup: table + "; insert into t values (1, 'x', 1.10), (2, null, null)", specs: whole,
			writes: []string{"update t set a = a, b = b, id = id", "update t set a = 'x', b = 1.10 where id = 1", "update t set a = null where id = 2"},
		},
		"an update of nothing watched": {
			setup: table + "; insert into t values (1, 'x', 1)", specs: []trigger.Spec{all("w", "t", updatesOf("a"))},
			writes: []string{"update t set b = 2", "update t set a = 'x', b = 3", "insert into t values (2)", "update t set a = 'y' where id = 1", "update t set a = null where id = 1", "delete from t"},
			want:   []string{`w U {"id":1,"a":"x","b":3} {"id":1,"a":"y","b":3}`, `w U {"id":1,"a":"y","b":3} {"id":1,"a":null,"b":3}`},
		},
		"columns of types without equality": {
			setup: "create table t (j json, p point, x xml, n int); insert into t values ('{\"a\": 1.10}', '(1,2)', '<a/>', 1)",
			specs: []trigger.Spec{all("w", "t", updatesOf("j", "p", "x"))},
			writes: []string{"update t set j = j, p = p, x = x, n = 2", "update t set j = '{\"a\": 1.10}', p = '(1,2)', x = '<a/>'",
				"update t set j = '{\"a\":1.10}'", "update t set p = '(1,3)'", "update t set x = '<b/>'"},
			want: []string{`w U {"j":{"a": 1.10},"p":"(1,2)","x":"<a/>","n":2} {"j":{"a":1.10},"p":"(1,2)","x":"<a/>","n":2}`,
				`w U {"j":{"a":1.10},"p":"(1,2)","x":"<a/>","n":2} {"j":{"a":1.10},"p":"(1,3)","x":"<a/>","n":2}`,
				`w U {"j":{"a":1.10},"p":"(1,3)","x":"<a/>","n":2} {"j":{"a":1.10},"p":"(1,3)","x":"<b/>","n":2}`},
		},
		"an update by a BEFORE trigger of a watched column": {
			setup: table + `; insert into t values (1, 'x', 1);
				create function f() returns trigger language plpgsql as 'begin new.a := new.a || ''!''; return new; end';
				create trigger f before update on t for each row execute function f()`,
			specs: []trigger.Spec{all("w", "t", updatesOf("a"))}, writes: []string{"update t set b = 2"},
			want: []string{`w U {"id":1,"a":"x","b":1} {"id":1,"a":"x!","b":2}`},
		},
		"when": {
			setup: table, specs: []trigger.Spec{all("w", "t", func(s *trigger.Spec) { s.On.Delete, s.On.Update = false, trigger.UpdateOn{} }, when("new.b > 100 -- big\n or new.a = ')'  -- or odd"))},
			writes: []string{"insert into t values (1, 'x', 100), (2, 'y', 100.01), (3, ')', 1), (4, null, null)"},
			want:   []string{`w I null {"id":2,"a":"y","b":100.01}`, `w I null {"id":3,"a":")","b":1}`},
		},
		"when together with columns": {
			setup: table + "; insert into t values (1, 'x', 1)", specs: []trigger.Spec{all("w", "t", updatesOf("a", "b"), when("old.b > 1 or new.b > 1"))},
			writes: []string{"update t set a = 'y'", "update t set b = 2", "update t set b = 2", "update t set b = 0"},
			want:   []string{`w U {"id":1,"a":"y","b":1} {"id":1,"a":"y","b":2}`, `w U {"id":1,"a":"y","b":2} {"id":1,"a":"y","b":0}`},
		},
		"chosen payload columns": {
			setup: table, specs: []trigger.Spec{all("w", "t", payload("b", "id"))},
			writes: []string{"insert into t values (1, 'x', 1.10)", "update t set a = 'y'", "delete from t", "insert into t (id) values (2)"},
			want:   []string{`w I null {"b":1.10,"id":1}`, `w U {"b":1.10,"id":1} {"b":1.10,"id":1}`, `w D {"b":1.10,"id":1} null`, `w I null {"b":null,"id":2}`},
		},
		"two triggers on a table": {
			setup: table, specs: []trigger.Spec{all("w", "t"), all("v", "t", payload("a"), updatesOf("a"))},
			writes: []string{"insert into t values (1, 'x', 1)", "update t set a = 'y'"},
			want: []string{`w I null {"id":1,"a":"x","b":1}`, `v U {"a":"x"} {"a":"y"}`,
				`w U {"id":1,"a":"x","b":1} {"id":1,"a":"y","b":1}`},
		},
		"no primary key": {
			setup: "create table t (a int)", specs: whole,
			writes: []string{"insert into t values (1), (1)", "update t set a = 2", "delete from t"},
			want: []string{`w I null {"a":1}`, `w I null {"a":1}`, `w U {"a":1} {"a":2}`, `w U {"a":1} {"a":2}`,
				`w D {"a":2} null`, `w D {"a":2} null`},
		},
		"unlogged table": {
			setup: "create unlogged table t (a int)", specs: whole, writes: []string{"insert into t values (1)"}, want: []string{`w I null {"a":1}`},
		},
		"table without columns": {
			setup: "create table t ()", specs: whole, writes: []string{"insert into t default values", "delete from t"}, want: []string{`w I null {}`, `w D {} null`},
		},
		"quoted, mixed-case and non-ASCII names": {
			setup: `create schema "Łódź.x"; create table "Łódź.x"."Ta ""ble" (id int, "Größe" numeric, "a""b" text, "sp ace" int)`,
			specs: []trigger.Spec{all("w", `"Łódź.x"."Ta ""ble"`), all("v", `"Łódź.x"."Ta ""ble"`, payload("Größe", `a"b`, "sp ace"), updatesOf("Größe", `a"b`))},
			writes: []string{`insert into "Łódź.x"."Ta ""ble" values (1, 1.50, E'q"\n\u00e9', 3)`, `update "Łódź.x"."Ta ""ble" set "a""b" = 'x'`,
				`update "Łódź.x"."Ta ""ble" set "sp ace" = 4`},
			want: []string{`w I null {"id":1,"Größe":1.50,"a\"b":"q\"\né","sp ace":3}`,
				`v U {"Größe":1.50,"a\"b":"q\"\né","sp ace":3} {"Größe":1.50,"a\"b":"x","sp ace":3}`,
				`w U {"id":1,"Größe":1.50,"a\"b":"q\"\né","sp ace":3} {"id":1,"Größe":1.50,"a\"b":"x","sp ace":3}`,
				`w U {"id":1,"Größe":1.50,"a\"b":"x","sp ace":3} {"id":1,"Größe":1.50,"a\"b":"x","sp ace":4}`},
		},
		"column names that JSON and SQL strings escape": {
			setup:  "create table t (\"a'\\\" int, \"b\"\"\t\x01\" int, \"c\u2028\\u2028</d>\" int)",
			specs:  []trigger.Spec{all("w", "t"), all("v", "t", payload("a'\\", "b\"\t\x01", "c\u2028\\u2028</d>"), updatesOf("a'\\"))},
			writes: []string{"insert into t values (1, 2, 3)", "update t set \"a'\\\" = 2"},
			want: []string{"w I null {\"a'\\\\\":1,\"b\\\"\\t\\u0001\":2,\"c\u2028\\\\u2028</d>\":3}",
				"v U {\"a'\\\\\":1,\"b\\\"\\t\\u0001\":2,\"c\u2028\\\\u2028</d>\":3} {\"a'\\\\\":2,\"b\\\"\\t\\u0001\":2,\"c\u2028\\\\u2028</d>\":3}",
				"w U {\"a'\\\\\":1,\"b\\\"\\t\\u0001\":2,\"c\u2028\\\\u2028</d>\":3} {\"a'\\\\\":2,\"b\\\"\\t\\u0001\":2,\"c\u2028\\\\u2028</d>\":3}"},
		},
		"unqualified name in mixed case": {
			setup: `create table "Orders" (a int)`, specs: []trigger.Spec{all("w", `"Orders"`)}, writes: []string{`insert into "Orders" values (1)`}, want: []string{`w I null {"a":1}`},
		},
		"columns called new, old, payload, op, n, s, t, r, v": {
			setup:  `create table t ("new" int, "old" int, payload int, op int, n int, s int, t int, r int, v int, tg_op int)`,
			specs:  []trigger.Spec{all("w", "t"), all("v", "t", payload("new", "old", "op", "r", "v"), updatesOf("new", "old"), when(`new."new" > old."old"`))},
			writes: []string{"insert into t values (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)", `update t set "new" = 11`, `update t set n = 0`},
			want: []string{`w I null {"new":1,"old":2,"payload":3,"op":4,"n":5,"s":6,"t":7,"r":8,"v":9,"tg_op":10}`,
				`v U {"new":1,"old":2,"op":4,"r":8,"v":9} {"new":11,"old":2,"op":4,"r":8,"v":9}`,
				`w U {"new":1,"old":2,"payload":3,"op":4,"n":5,"s":6,"t":7,"r":8,"v":9,"tg_op":10} {"new":11,"old":2,"payload":3,"op":4,"n":5,"s":6,"t":7,"r":8,"v":9,"tg_op":10}`,
				`w U {"new":11,"old":2,"payload":3,"op":4,"n":5,"s":6,"t":7,"r":8,"v":9,"tg_op":10} {"new":11,"old":2,"payload":3,"op":4,"n":0,"s":6,"t":7,"r":8,"v":9,"tg_op":10}`},
		},
		"stored generated columns": {
			setup:  "create table t (a int, g int generated always as (a * 2) stored, i int generated always as identity)",
			specs:  []trigger.Spec{all("w", "t"), all("v", "t", updatesOf("g"), payload("g"))},
			writes: []string{"insert into t (a) values (1)", "update t set a = a", "update t set a = 2"},
			want:   []string{`w I null {"a":1,"g":2,"i":1}`, `v U {"g":2} {"g":4}`, `w U {"a":1,"g":2,"i":1} {"a":2,"g":4,"i":1}`},
		},
		"virtual generated columns": {
			least:  18,
			setup:  `create table t (a int, "V" int generated always as (a * 2) virtual, b numeric, c text generated always as (b || 'x') virtual, x int)`,
			specs:  []trigger.Spec{all("w", "t"), all("v", "t", updatesOf("V"), payload("V", "b"), when(`new."V" > 2`))},
			writes: []string{"insert into t (a, b) values (1, 1.10)", "update t set a = a", "update t set b = 1.1", "update t set a = 2", "delete from t"},
			want: []string{`w I null {"a":1,"V":2,"b":1.10,"c":"1.10x","x":null}`,
				`w U {"a":1,"V":2,"b":1.10,"c":"1.10x","x":null} {"a":1,"V":2,"b":1.1,"c":"1.1x","x":null}`,
				`v U {"V":2,"b":1.1} {"V":4,"b":1.1}`,
				`w U {"a":1,"V":2,"b":1.1,"c":"1.1x","x":null} {"a":2,"V":4,"b":1.1,"c":"1.1x","x":null}`,
				`w D {"a":2,"V":4,"b":1.1,"c":"1.1x","x":null} null`},
		},
		"upserts": {
			setup: table + "; insert into t values (1, 'x', 1)", specs: whole,
			writes: []string{"insert into t values (1, 'y', 1) on conflict do nothing", "insert into t values (2, 'y', 1) on conflict do nothing",
				"insert into t values (1, 'z', 1), (3, 'n', 1) on conflict (id) do update set a = excluded.a",
				"insert into t values (1, 'z', 1) on conflict (id) do update set a = excluded.a"},
			want: []string{`w I null {"id":2,"a":"y","b":1}`, `w U {"id":1,"a":"x","b":1} {"id":1,"a":"z","b":1}`, `w I null {"id":3,"a":"n","b":1}`},
		},
		"merge": {
			least: 15, setup: table + "; insert into t values (1, 'x', 1), (2, 'y', 1)", specs: whole,
			writes: []string{`merge into t using (values (1, 'z'), (2, 'd'), (3, 'n')) as s (id, a) on s.id = t.id
				when matched and s.a = 'd' then delete when matched then update set a = s.a when not matched then insert values (s.id, s.a, 0)`},
			want: []string{`w U {"id":1,"a":"x","b":1} {"id":1,"a":"z","b":1}`, `w D {"id":2,"a":"y","b":1} null`, `w I null {"id":3,"a":"n","b":0}`},
		},
		"foreign-key cascades": {
			setup: `create table p (id int primary key);
				create table t (id int, p int references p on delete cascade on update cascade);
				create table s (id int, p int references p on delete set null);
				insert into p values (1); insert into t values (1, 1); insert into s values (1, 1)`,
			specs:  []trigger.Spec{all("w", "t"), all("s", "s")},
			writes: []string{"delete from s", "insert into s values (2, null)", "update p set id = 2", "update s set p = 2", "delete from p"},
			want: []string{`s D {"id":1,"p":1} null`, `s I null {"id":2,"p":null}`, `w U {"id":1,"p":1} {"id":1,"p":2}`, `s U {"id":2,"p":null} {"id":2,"p":2}`,
				`w D {"id":1,"p":2} null`, `s U {"id":2,"p":2} {"id":2,"p":null}`},
		},
		"writable CTEs": {
			setup: table + "; create table u (id int); insert into t values (1, 'x', 1)", specs: []trigger.Spec{all("w", "t"), all("u", "u")},
			writes: []string{"with gone as (delete from t returning id) insert into u select id from gone"},
			want:   []string{`w D {"id":1,"a":"x","b":1} null`, `u I null {"id":1}`},
		},
		"triggers that write to other watched tables": {
			setup: table + `; create table u (id int, op text);
				create function f() returns trigger language plpgsql as 'begin insert into u values (new.id, tg_op); return null; end';
				create trigger a after insert on t for each row execute function f()`,
			specs: []trigger.Spec{all("w", "t"), all("u", "u")}, writes: []string{"insert into t (id) values (1)"},
			want: []string{`u I null {"id":1,"op":"INSERT"}`, `w I null {"id":1,"a":null,"b":null}`},
		},
		"savepoints that are rolled back": {
			setup: table, specs: whole,
			writes: []string{`do $$ begin
				insert into t values (1);
				begin insert into t values (2); raise division_by_zero; exception when division_by_zero then null; end;
				insert into t values (3); end $$`, "begin; insert into t values (4); rollback"},
			want: []string{`w I null {"id":1,"a":null,"b":null}`, `w I null {"id":3,"a":null,"b":null}`},
		},
		"truncate is not captured": {setup: table + "; insert into t values (1)", specs: whole, writes: []string{"truncate t"}},
		"a trigger for manual events only": {
			setup: table, specs: []trigger.Spec{all("w", "t", func(s *trigger.Spec) { s.On = trigger.On{Manual: true} })},
			writes: []string{"insert into t values (1)", `select rowhook.emit('w', '{"a": 1.10}')`}, want: []string{`w M null {"a": 1.10}`},
		},
		"numbers keep their digits and json its text": {
			setup: "create table t (a numeric, b bigint, c float8, d json, e jsonb, f numeric(10,2), g float4)", specs: whole,
			writes: []string{`insert into t values (123456789012345678901234567890.10, 50755254975729665, 0.1, '{"b" : 1.10,  "a\u0000": "\u0000"}', '{"n": 1.10}', 1.1, 1.1)`,
				`insert into t values ('NaN', -9223372036854775808, '-Infinity', 'null', 'null', 0, 1e-30)`},
			want: []string{`w I null {"a":123456789012345678901234567890.10,"b":50755254975729665,"c":0.1,"d":{"b" : 1.10,  "a\u0000": "\u0000"},"e":{"n": 1.10},"f":1.10,"g":1.1}`,
				`w I null {"a":"NaN","b":-9223372036854775808,"c":"-Infinity","d":null,"e":null,"f":0.00,"g":1e-30}`},
		},
		"partitions": {
			setup: `create table t (id int, region text, n numeric) partition by list (region);
				create table ta partition of t for values in ('a');
				create table td (x int, n numeric, region text, id int); alter table td drop x;
				alter table t attach partition td for values in ('d')`,
			specs: []trigger.Spec{all("w", "t", payload("id", "region")), all("v", "t", updatesOf("n"), payload("n"))},
			writes: []string{"insert into t values (1, 'a', 1)", "insert into ta values (2, 'a', 1)", "insert into td values (1.10, 'd', 3)",
				"create table tb partition of t for values in ('b')", "insert into tb values (4, 'b', 1)",
				"create table tc (like t)", "alter table t attach partition tc for values in ('c')", "insert into t values (5, 'c', 1)",
				"update t set n = 2 where id = 3", "delete from ta", "alter table t detach partition tb", "insert into tb values (6, 'b', 1)"},
			want: []string{`w I null {"id":1,"region":"a"}`, `w I null {"id":2,"region":"a"}`, `w I null {"id":3,"region":"d"}`, `w I null {"id":4,"region":"b"}`, `w I null {"id":5,"region":"c"}`,
				`v U {"n":1.10} {"n":2}`, `w U {"id":3,"region":"d"} {"id":3,"region":"d"}`, `w D {"id":1,"region":"a"} null`, `w D {"id":2,"region":"a"} null`},
		},
		"partitions of partitions, whole rows": {
			setup: `create table t (id int, a int) partition by range (a);
				create table t1 partition of t for values from (0) to (10) partition by range (id);
				create table t11 partition of t1 for values from (0) to (10)`,
			specs:  whole,
			writes: []string{"insert into t values (1, 1)", "insert into t11 values (2, 2)", "create table t12 partition of t1 for values from (10) to (20)", "insert into t1 values (11, 1)"},
			want:   []string{`w I null {"id":1,"a":1}`, `w I null {"id":2,"a":2}`, `w I null {"id":11,"a":1}`},
		},
		"session context": {
			setup: table, specs: []trigger.Spec{all("w", "t", payload("id"))},
			writes: []string{`begin; set local rowhook.session = '{"x-user": 1.10}'; set local rowhook.trace_context = 'not json'; insert into t values (1);
				do $$ begin assert (select session::text = '{"x-user": 1.10}' and trace::text = '"not json"' from rowhook.event_log); end $$; commit`,
				`begin; select set_config('hasura.user', '{"h": true}', true), set_config('hasura.tracecontext', '', true); insert into t values (2); commit;
				do $$ begin assert (select count(*) = 1 from rowhook.event_log where session::text = '{"h": true}' and trace is null); end $$`},
			want: []string{`w I null {"id":1}`, `w I null {"id":2}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if pgtest.Version(t) < c.least {
				return
			}
			w := newWatched(t, c.setup, c.specs...)
			w.do(t, c.writes...)
			if got := w.take(t); len(c.want)+len(got) > 0 {
				require.Equal(t, c.want, got)
			}
		})
	}
}

func TestRowMovedBetweenPartitionsIsADeleteAndAnInsert(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create table t (id int, region text) partition by list (region);
		create table ta partition of t for values in ('a'); create table tb partition of t for values in ('b');
		insert into t values (1, 'a')`, all("w", "t"))
	w.do(t, "update t set region = 'b'")
	require.ElementsMatch(t, []string{`w D {"id":1,"region":"a"} null`, `w I null {"id":1,"region":"b"}`}, w.take(t))
}

func TestCopyIsCaptured(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int, b text)", all("w", "t"))
	_, err := w.conn.PgConn().CopyFrom(t.Context(), strings.NewReader("1\tx\n2\t\\N\n"), "copy t from stdin")
	require.NoError(t, err)
	require.Equal(t, []string{`w I null {"a":1,"b":"x"}`, `w I null {"a":2,"b":null}`}, w.take(t))
}

// TestCaptureFollowsAlterTable changes a table under its triggers. Writes never fail, and the next
// apply has nothing to do.
func TestCaptureFollowsAlterTable(t *testing.T) {
	t.Parallel()
	table := "create table t (id int primary key, a text, b numeric, c int); insert into t values (1, 'x', 1, 2)"
	whole := all("w", "t")
	for name, c := range map[string]struct {
		spec   trigger.Spec
		alter  string
		after  trigger.Spec // as configured then
		writes []string
		want   []string
	}{
		"add": {whole, "alter table t add d int default 5, add e text", whole,
			[]string{"update t set a = a", "update t set a = 'y'"},
			[]string{`w U {"id":1,"a":"x","b":1,"c":2,"d":5,"e":null} {"id":1,"a":"y","b":1,"c":2,"d":5,"e":null}`}},
		"drop": {whole, "alter table t drop b", whole,
			[]string{"update t set a = a", "update t set c = 3"}, []string{`w U {"id":1,"a":"x","c":2} {"id":1,"a":"x","c":3}`}},
		"retype": {whole, "alter table t alter c type text using 'n' || c, alter id type bigint", whole,
			[]string{"update t set a = a", "update t set c = 'm'"}, []string{`w U {"id":1,"a":"x","b":1,"c":"n2"} {"id":1,"a":"x","b":1,"c":"m"}`}},
		"rename a column": {whole, `alter table t rename a to "A a"`, whole,
			[]string{"delete from t"}, []string{`w D {"id":1,"A a":"x","b":1,"c":2} null`}},
		"rename the table": {whole, `alter table t rename to "T t"`, all("w", `"T t"`),
			[]string{`delete from "T t"`}, []string{`w D {"id":1,"a":"x","b":1,"c":2} null`}},
		"move to another schema": {whole, "create schema o; alter table t set schema o", all("w", "o.t"),
			[]string{"delete from o.t"}, []string{`w D {"id":1,"a":"x","b":1,"c":2} null`}},
		"rename a watched and chosen column": {all("w", "t", updatesOf("a"), payload("a", "id")), "alter table t rename a to z", all("w", "t", updatesOf("z"), payload("z", "id")),
			[]string{"update t set c = 9", "update t set z = 'y'"}, []string{`w U {"a":"x","id":1} {"a":"y","id":1}`}},
		"add and drop beside chosen columns": {all("w", "t", payload("a")), "alter table t add d int default 5, drop c, alter b type text", all("w", "t", payload("a")),
			[]string{"update t set d = 6"}, []string{`w U {"a":"x"} {"a":"x"}`}},
		"rename a table with chosen columns": {all("w", "t", payload("a")), "create schema o; alter table t rename to u; alter table u set schema o", all("w", "o.u", payload("a")),
			[]string{"delete from o.u"}, []string{`w D {"a":"x"} null`}},
		"vacuum full and cluster": {whole, "cluster t using t_pkey", whole, []string{"delete from t"}, []string{`w D {"id":1,"a":"x","b":1,"c":2} null`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, table, c.spec)
			w.do(t, c.alter)
			w.do(t, c.writes...)
			require.Equal(t, c.want, w.take(t))
			plan := w.apply(t, c.after)
			for _, change := range plan.Changes() {
				require.Empty(t, change.Lock, "%s", plan)
			}
		})
	}
}

func TestPostgresRefusesToDropOrRetypeWatchedColumns(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int, a int, b int)", all("w", "t", updatesOf("a")), all("v", "t", payload("b")))
	require.Contains(t, w.fails(t, "alter table t drop a"), "other objects depend on it")
	require.Contains(t, w.fails(t, "alter table t alter a type text"), "used in a trigger definition")
	require.Contains(t, w.fails(t, "alter table t drop b"), "other objects depend on it")
	w.do(t, "insert into t values (1, 2, 3)", "update t set a = 3")
	require.Len(t, w.take(t), 3)
	w.apply(t, all("v", "t"))
	w.do(t, "alter table t drop a, drop b", "insert into t values (1)")
	require.Equal(t, []string{`v I null {"id":1}`}, w.take(t))
}

// TestPayloadDoesNotDependOnTheSession writes the same row from sessions that show values
// differently.
func TestPayloadDoesNotDependOnTheSession(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create table "From" (a int);
		create table t (ts timestamptz, r tstzrange, d date, i interval, b bytea, f8 float8, f4 float4, fa float8[], m money, c regclass, dr daterange, fn regprocedure)`,
		all("w", "t"), all("v", "t", payload("ts", "r", "i", "b", "f8", "fa", "m", "c")))
	write := `insert into t values ('2026-07-01 12:00:00.5+00', '[2026-01-01 00:00+00, infinity)', '2026-07-01', '1 year 2 days 03:04:05', '\x00ff', 0.1::float8 + 0.2::float8, 1.1, '{0.3,1e300}', '1234.5', '"From"', '[2026-01-01,2026-02-01)', 'pg_catalog.now()')`
	w.do(t, write)
	want := w.take(t)
	require.Equal(t, []string{
		`v I null {"ts":"2026-07-01T12:00:00.5+00:00","r":"[\"2026-01-01 00:00:00+00\",infinity)","i":"1 year 2 days 03:04:05","b":"\\x00ff","f8":0.30000000000000004,"fa":[0.3,1e+300],"m":"$1,234.50","c":"public.\"From\""}`,
		`w I null {"ts":"2026-07-01T12:00:00.5+00:00","r":"[\"2026-01-01 00:00:00+00\",infinity)","d":"2026-07-01","i":"1 year 2 days 03:04:05","b":"\\x00ff","f8":0.30000000000000004,"f4":1.1,"fa":[0.3,1e+300],"m":"$1,234.50","c":"public.\"From\"","dr":"[2026-01-01,2026-02-01)","fn":"now()"}`,
	}, want)
	// 1234.5 as money reads the same in every locale that the server may have. The other locales
	// need not exist.
	for _, setting := range []string{
		"timezone = 'Asia/Kathmandu'", "timezone = '<+03>-03'", "datestyle = 'SQL, DMY'", "datestyle = 'German'", "datestyle = 'Postgres, MDY'",
		"intervalstyle = 'iso_8601'", "intervalstyle = 'sql_standard'", "bytea_output = 'escape'", "extra_float_digits = -15", "extra_float_digits = 3",
		"lc_monetary = 'C'", "quote_all_identifiers = on", "search_path = ''", "search_path = public, rowhook", "client_encoding = 'LATIN1'", "xmloption = document",
		"standard_conforming_strings = off", "array_nulls = off", "transform_null_equals = on", "lc_numeric = 'C'", "row_security = off",
	} {
		fresh := watched{w.DB, w.Conn(t)}
		fresh.do(t, "set "+setting)
		insert := strings.ReplaceAll(strings.Replace(write, "into t", "into public.t", 1), `'"From"'`, `'public."From"'`)
		if strings.HasPrefix(setting, "standard_conforming") {
			insert = strings.Replace(insert, `'\x00ff'`, `E'\\x00ff'`, 1)
		}
		if strings.HasPrefix(setting, "datestyle") || strings.HasPrefix(setting, "intervalstyle") {
			insert = strings.Replace(insert, "'1 year 2 days 03:04:05'", "make_interval(1, 0, 0, 2, 3, 4, 5)", 1)
		}
		fresh.do(t, insert)
		require.ElementsMatch(t, want, w.take(t), setting)
	}
}

// TestWriterNeedsNoRightOnRowhook writes as a role that may do nothing but write to the table.
func TestWriterNeedsNoRightOnRowhook(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int, b int); grant insert, update, delete, select on t to public", all("w", "t"), all("v", "t", payload("b")))
	role := w.role(t)
	w.do(t, "set role "+role, "insert into t values (1, 2)", "update t set a = 2", "delete from t")
	require.Contains(t, w.fails(t, "select * from rowhook.event_log"), "permission denied for schema rowhook")
	w.do(t, "reset role")
	require.Len(t, w.take(t), 6)
}

// role creates a role that is dropped when the test ends.
func (w watched) role(t *testing.T, suffix ...string) string {
	t.Helper()
	name := "r_" + w.scalar(t, "select current_database()") + strings.Join(suffix, "")
	w.do(t, "create role "+name)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), w.URL())
		require.NoError(t, err)
		_, err = conn.Exec(context.Background(), fmt.Sprintf("reassign owned by %s to current_user; drop owned by %[1]s; drop role %[1]s", name))
		require.NoError(t, err)
		require.NoError(t, conn.Close(context.Background()))
	})
	return name
}

// TestWriterCannotHijackCapture puts functions and operators into the writer's search_path, in
// front of pg_catalog's.
func TestWriterCannotHijackCapture(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create schema evil;
		create function evil.record_image_ne(record, record) returns boolean language plpgsql as 'begin return false; end';
		create function evil.row_to_json(record) returns json language plpgsql as 'begin return ''{}''::json; end';
		create table t (a int); insert into t values (1)`, all("w", "t"), all("v", "t", payload("a")))
	w.do(t, "set search_path = evil, pg_catalog, public", "update t set a = 2", "reset search_path")
	require.Equal(t, []string{`v U {"a":1} {"a":2}`, `w U {"a":1} {"a":2}`}, w.take(t))
}

func TestNotifyNeverCanBePrepared(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int); create table u (a int)", all("w", "t", neverNotify), all("u", "u"))
	gid := "g_" + w.scalar(t, "select current_database()")
	w.do(t, "begin", "insert into t values (1)", "prepare transaction '"+gid+"'")
	require.Empty(t, w.take(t))
	w.do(t, "commit prepared '"+gid+"'")
	require.Equal(t, []string{`w I null {"a":1}`}, w.take(t))
	w.do(t, "select setval('rowhook.doorbell', 1)", "begin", "insert into u values (1)")
	require.Contains(t, w.fails(t, "prepare transaction '"+gid+"'"), "NOTIFY")
}

// TestDoorbellRingsWithTheTriggersID listens while the bit is set and while it is not.
func TestDoorbellRingsWithTheTriggersID(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int)", all("w", "t"), all("v", "t", payload("a")), all("n", "t", neverNotify))
	listener := w.Conn(t)
	_, err := listener.Exec(t.Context(), "listen rowhook")
	require.NoError(t, err)
	w.do(t, "select setval('rowhook.doorbell', 7)", "insert into t values (1)", "select setval('rowhook.doorbell', 1)", "insert into t values (2)", "select pg_notify('rowhook', 'end')")
	var rung []string
	for len(rung) == 0 || rung[len(rung)-1] != "end" {
		n, err := listener.WaitForNotification(t.Context())
		require.NoError(t, err)
		rung = append(rung, n.Payload)
	}
	ids := map[string]string{"w": "", "v": ""}
	for name := range ids {
		ids[name] = w.scalar(t, "select id from rowhook.trigger where name = $1", name)
	}
	require.ElementsMatch(t, []string{ids["w"], ids["v"], "end"}, rung)
}

// TestReplicaRoleFiresOnlyWithOnReplication writes as a logical replication worker does.
func TestReplicaRoleFiresOnlyWithOnReplication(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create table t (a int); create table p (a int) partition by list (a); create table p1 partition of p for values in (1)`,
		all("t", "t"), all("ta", "t", onReplication), all("p", "p"), all("pa", "p", onReplication))
	w.do(t, "create table p2 partition of p for values in (2)", "create table p3 (a int)", "alter table p attach partition p3 for values in (3)",
		"set session_replication_role = replica", "insert into t values (1)", "insert into p values (1), (2), (3)", "insert into p3 values (3)", "reset session_replication_role")
	require.Equal(t, []string{`ta I null {"a":1}`, `pa I null {"a":1}`, `pa I null {"a":2}`, `pa I null {"a":3}`, `pa I null {"a":3}`}, w.take(t))
	w.apply(t, all("t", "t", onReplication), all("ta", "t"), all("p", "p", onReplication), all("pa", "p"))
	w.do(t, "set session_replication_role = replica", "insert into t values (1)", "insert into p3 values (3)", "reset session_replication_role")
	require.Equal(t, []string{`t I null {"a":1}`, `p I null {"a":3}`}, w.take(t))
}

// TestLogicalReplicationFiresOnlyWithOnReplication subscribes one database to another.
func TestLogicalReplicationFiresOnlyWithOnReplication(t *testing.T) {
	t.Parallel()
	publisher := newWatched(t, "create table t (a int primary key, b text); create publication p for table t")
	w := newWatched(t, "create table t (a int primary key, b text)", all("w", "t"), all("r", "t", onReplication, payload("b", "a")))
	slot := w.scalar(t, "select current_database()")
	publisher.do(t, "select pg_create_logical_replication_slot('"+slot+"', 'pgoutput')")
	connection := fmt.Sprintf("host=%s port=%d user=%s dbname=%s", publisher.conn.Config().Host, publisher.conn.Config().Port,
		publisher.conn.Config().User, publisher.conn.Config().Database)
	if password := publisher.conn.Config().Password; password != "" {
		connection += " password=" + password
	}
	listener := w.Conn(t)
	_, err := listener.Exec(t.Context(), "listen rowhook")
	require.NoError(t, err)
	w.do(t, "select setval('rowhook.doorbell', 1)", fmt.Sprintf("create subscription s connection '%s' publication p with (create_slot = false, slot_name = '%s', copy_data = false)", connection, slot))
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), w.URL())
		require.NoError(t, err)
		for _, sql := range []string{"alter subscription s disable", "alter subscription s set (slot_name = none)", "drop subscription s"} {
			_, err := conn.Exec(context.Background(), sql)
			require.NoError(t, err)
		}
		require.NoError(t, conn.Close(context.Background()))
	})
	publisher.do(t, "begin; insert into t values (1, 'x'); update t set b = 'y'; delete from t; commit")
	_, err = listener.WaitForNotification(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{`r I null {"b":"x","a":1}`, `r U {"b":"x","a":1} {"b":"y","a":1}`, `r D {"b":"y","a":1} null`}, w.take(t))
}
