package sqlschema_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// attack is a database in which a superuser has installed Rowhook, the worst case, and a hostile
// role.
type attack struct {
	watched
	mallory watched // the same database, as mallory
	name    string
}

// newAttack makes three watched tables: victim (a superuser's, without grants), shared (a
// superuser's, mallory may write to it) and mallory.t (her own). In mallory.trap her functions
// record as which role they ran.
func newAttack(t *testing.T, specs ...trigger.Spec) attack {
	t.Helper()
	w := newWatched(t, "create table victim (secret text); create table shared (a int, b text)")
	name, url := w.Role(t)
	w.do(t, fmt.Sprintf(`create schema mallory authorization %s;
		grant create on schema public to %[1]s;
		grant select, insert, update, delete on shared to %[1]s`, name))
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	a := attack{watched: w, mallory: watched{w.DB, conn}, name: name}
	a.mallory.do(t, "create table mallory.t (a int, b text)", "create table mallory.trap (name text, who text default current_user); grant all on mallory.trap to public; grant usage on schema mallory to public",
		`create function mallory.spring(name text) returns boolean language plpgsql as $$ begin insert into mallory.trap values (name); return true; end $$`)
	if len(specs) == 0 {
		specs = []trigger.Spec{all("victim", "victim"), all("shared", "shared"), all("t", "mallory.t")}
	}
	w.apply(t, specs...)
	w.do(t, "insert into victim values ('s3cret')")
	return a
}

// trapped returns the roles, except mallory, as which her functions ran.
func (a attack) trapped(t *testing.T) string {
	t.Helper()
	return a.scalar(t, "select coalesce(string_agg(distinct name || ' as ' || who, ', '), '') from mallory.trap where who <> $1", a.name)
}

// refused requires that a statement of mallory's fails for lack of a right, or with another given
// message.
func (a attack) refused(t *testing.T, sql string, orMessage ...string) {
	t.Helper()
	_, err := a.mallory.conn.Exec(t.Context(), sql)
	var pg *pgconn.PgError
	require.ErrorAs(t, err, &pg, "mallory may %s", sql)
	a.mallory.do(t, "rollback")
	for _, m := range orMessage {
		if strings.Contains(pg.Message, m) {
			return
		}
	}
	require.Equal(t, pgerrcode.InsufficientPrivilege, pg.Code, "%s: %s", sql, pg.Message)
}

func TestAWriterCanNeitherReadNorMakeNorChangeEvents(t *testing.T) {
	t.Parallel()
	a := newAttack(t)
	for _, table := range []string{"event_log", "event_archive", "dead_letter", "invocation_log", "trigger", "setting", "instance", "events", "schema_version", "inbox_3"} {
		a.refused(t, "select * from rowhook."+table)
		a.refused(t, "copy rowhook."+table+" to stdout", "cannot copy from view")
		a.refused(t, "delete from rowhook."+table, "cannot delete from view")
		a.refused(t, "begin; lock table rowhook."+table, "cannot lock")
		a.refused(t, "create table mallory.copy (like rowhook."+table+")")
	}
	for _, sql := range []string{
		"insert into rowhook.event_log (id, trigger_id, op, new) values (gen_random_uuid(), 1, 'I', '{}')",
		"update rowhook.event_log set new = '{}'",
		"insert into rowhook.trigger (name, relation, schema_name, table_name, spec) values ('x', 1, 'a', 'b', '{}')",
		"update rowhook.setting set value = '0'",
		"truncate rowhook.event_log",
		"select setval('rowhook.doorbell', 2)",
		"select nextval('rowhook.instance_id')",
		"select * from rowhook.doorbell where false; select nextval('rowhook.departures')",
		"select rowhook.emit('victim', '{}')",
		"select rowhook.recorded()",
		"select rowhook.with_values('{}', '{}') from rowhook.setting",
		"select rowhook.ensure_partitions(now(), now() + interval '1000 days')",
		"select rowhook.drop_partitions('event_archive', '-10 days')",
		"create trigger mine before insert on mallory.t for each row execute function rowhook.capture('1')",
		"create function rowhook.as_json(varchar) returns json language sql return null",
		"create table rowhook.mine (a int)",
		"alter function rowhook.capture() security invoker",
		"alter function rowhook.capture() reset all",
		"drop function rowhook.capture() cascade",
		"alter table rowhook.event_log disable trigger all",
		"create rule r as on insert to rowhook.event_log do instead nothing",
		"create trigger r after insert on rowhook.event_log for each row execute function suppress_redundant_updates_trigger()",
		"alter table shared disable trigger all",
		"drop trigger rowhook_shared_insert on shared",
		"alter trigger rowhook_shared_insert on shared rename to x",
		"set session_replication_role = replica",
		"alter schema rowhook owner to " + a.name,
		"grant all on all tables in schema rowhook to " + a.name,
		"create table mallory.part partition of rowhook.event_archive for values from ('2000-01-01') to ('2000-01-02')",
	} {
		a.refused(t, sql, "must be owner")
	}
	a.mallory.do(t, "insert into shared values (1, 'x')")
	require.Equal(t, []string{`victim I null {"secret":"s3cret"}`, `shared I null {"a":1,"b":"x"}`}, a.take(t))
}

// TestAWritersSessionChangesNothingButItsOwnContext shadows, overloads and sets what a session can,
// and writes.
func TestAWritersSessionChangesNothingButItsOwnContext(t *testing.T) {
	t.Parallel()
	for name, setUp := range map[string][]string{
		"temporary tables, types and functions": {
			`create temp table event_log (like shared); create temp table trigger (a int); create temp table setting (a int); create temp sequence doorbell`,
			`create domain pg_temp.json as text check (mallory.spring('domain json')); create type pg_temp.uuid as (a int)`,
			`create function pg_temp.row_to_json(record) returns pg_catalog.json language plpgsql as $$ begin perform mallory.spring('row_to_json'); return '{}'; end $$`,
			`create function pg_temp.uuid7() returns pg_catalog.uuid language plpgsql as $$ begin perform mallory.spring('uuid7'); return null; end $$`,
			`set search_path = pg_temp, mallory, public, pg_catalog`,
		},
		"functions and operators that fit better": {
			`create function mallory.pg_notify(text, text) returns void language plpgsql as $$ begin perform mallory.spring('pg_notify'); end $$`,
			`create function mallory.coalesce_eq(bigint, int) returns boolean language plpgsql as $$ begin perform mallory.spring('='); return false; end $$`,
			`create operator mallory.= (function = mallory.coalesce_eq, leftarg = bigint, rightarg = int)`,
			`create function mallory.current_setting(unknown text, missing boolean) returns text language plpgsql as $$ begin perform mallory.spring('current_setting'); return ''; end $$`,
			`create function mallory.record_image_ne(record, record) returns boolean language plpgsql as $$ begin perform mallory.spring('record_image_ne'); return false; end $$`,
			`create function public.as_json(text) returns json language plpgsql as $$ begin perform mallory.spring('as_json'); return null; end $$`,
			`set search_path = mallory, public, rowhook, pg_catalog`,
		},
		"settings": {
			`set plpgsql.extra_errors = 'all'; set plpgsql.extra_warnings = 'all'; set check_function_bodies = off`,
			`set row_security = off; set transform_null_equals = on; set standard_conforming_strings = off; set array_nulls = off; set backslash_quote = on`,
			`set default_toast_compression = 'pglz'; set default_table_access_method = 'heap'; set quote_all_identifiers = on; set xmloption = document; set bytea_output = 'escape'`,
			`set work_mem = '64kB'; set temp_buffers = 100; set force_parallel_mode = on; set parallel_setup_cost = 0; set jit_above_cost = 0; set plan_cache_mode = force_custom_plan`,
			`set enable_indexscan = off; set enable_seqscan = off; set constraint_exclusion = on; set synchronous_commit = off; set lo_compat_privileges = off`,
			`set rowhook.doorbell = '1'; set rowhook.search_path = '=mallory'`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAttack(t)
			for _, sql := range setUp {
				if _, err := a.mallory.conn.Exec(t.Context(), sql); err != nil {
					// The server does not have this setting, or she may not set it.
					require.ErrorContains(t, err, "parameter", sql)
				}
			}
			a.mallory.do(t, "insert into public.shared values (1, 'x')", "update public.shared set a = 2", "delete from public.shared", "insert into mallory.t values (1, 'x')")
			require.Equal(t, []string{`victim I null {"secret":"s3cret"}`, `shared I null {"a":1,"b":"x"}`, `shared U {"a":1,"b":"x"} {"a":2,"b":"x"}`,
				`shared D {"a":2,"b":"x"} null`, `t I null {"a":1,"b":"x"}`}, a.take(t))
			require.Empty(t, a.trapped(t))
		})
	}
}

// TestAWritersContextIsNeverMoreThanText sets the settings that become part of events to texts that
// are no JSON, too deep or too long.
func TestAWritersContextIsNeverMoreThanText(t *testing.T) {
	t.Parallel()
	a := newAttack(t)
	for i, value := range []string{`{"role":"admin"}`, `"}, "x": {"`, strings.Repeat("[", 100_000), "\\u0000", `{"a":"\u0000"}`, strings.Repeat("x", 1<<20), "'; drop table victim; --"} {
		_, err := a.mallory.conn.Exec(t.Context(), "select set_config('rowhook.session', $1, false), set_config('hasura.tracecontext', $1, false)", value)
		require.NoError(t, err)
		a.mallory.do(t, fmt.Sprintf("insert into shared values (%d, '')", i))
		require.Equal(t, "true", a.scalar(t, `select (session::text = $1 or session::jsonb = to_jsonb($1::text)) and session::text = trace::text
			from rowhook.event_log where new->>'a' = $2`, value, fmt.Sprint(i)))
	}
	require.Equal(t, "1", a.scalar(t, "select count(*) from victim"))
}

// hostileTypes are types of mallory's with a cast to json, in every form that a column can have.
const hostileTypes = `
create type mallory.e as enum ('x', 'y');
create function mallory.e_json(mallory.e) returns json language plpgsql as $$ begin perform mallory.spring('enum'); return '1'; end $$;
create cast (mallory.e as json) with function mallory.e_json(mallory.e);
create function mallory.e_text(mallory.e) returns text language plpgsql as $$ begin perform mallory.spring('text'); return 'z'; end $$;
create cast (mallory.e as text) with function mallory.e_text(mallory.e);
create type mallory.r as range (subtype = int);
create function mallory.r_json(mallory.r) returns json language plpgsql as $$ begin perform mallory.spring('range'); return '2'; end $$;
create cast (mallory.r as json) with function mallory.r_json(mallory.r);
create domain mallory.d as mallory.e check (mallory.spring('domain'));
create type mallory.c as (inner_e mallory.e, inner_d mallory.d);
alter table mallory.t add e mallory.e, add r mallory.r, add d mallory.d, add c mallory.c, add ea mallory.e[], add ca mallory.c[]`

const hostileRow = "insert into mallory.t values (1, 'x', 'x', '[1,2)', 'x', row('x','y'), '{x,y}', array[row('x','y')::mallory.c])"

// TestACastToJSONRunsAsTheTablesOwner adds columns of hostile types to a table, before and after it
// is watched.
func TestACastToJSONRunsAsTheTablesOwner(t *testing.T) {
	t.Parallel()
	want := `{"a":1,"b":"x","e":1,"r":2,"d":1,"c":{"inner_e":1,"inner_d":1},"ea":[1,1],"ca":[{"inner_e":1,"inner_d":1}]}`
	t.Run("columns added after the apply", func(t *testing.T) {
		t.Parallel()
		a := newAttack(t)
		a.mallory.do(t, hostileTypes, hostileRow)
		// Checks of the domain run as the superuser, as in any write. Captures do not.
		a.do(t, hostileRow)
		require.Equal(t, []string{`victim I null {"secret":"s3cret"}`, "t I null " + want, "t I null " + want}, a.take(t))
		require.Equal(t, "domain as postgres", a.trapped(t))
		require.NotEmpty(t, a.scalar(t, "select count(*) from mallory.trap where name = 'enum'"))
	})
	t.Run("chosen columns of such types", func(t *testing.T) {
		t.Parallel()
		a := newAttack(t)
		a.mallory.do(t, hostileTypes)
		a.apply(t, all("victim", "victim"), all("shared", "shared"), all("t", "mallory.t", payload("e", "c")))
		a.mallory.do(t, hostileRow)
		require.Equal(t, []string{`victim I null {"secret":"s3cret"}`, `t I null {"e":1,"c":{"inner_e":1,"inner_d":1}}`}, a.take(t))
		require.Empty(t, a.trapped(t))
	})
	t.Run("a table that changes hands is guarded by the next apply, and no longer where its owner is trusted", func(t *testing.T) {
		t.Parallel()
		specs := []trigger.Spec{all("victim", "victim"), all("shared", "shared"), all("t", "mallory.t")}
		a := newAttack(t, specs...)
		runsAs := func(function string) string {
			return a.scalar(t, "select proowner::regrole from pg_proc where proname = $1", function)
		}
		require.Equal(t, a.name, runsAs("capture_3"))
		a.do(t, "alter table mallory.t owner to current_user", "alter table shared owner to "+a.name)
		a.apply(t, specs...)
		require.Equal(t, a.name, runsAs("capture_2"))
		require.Equal(t, "0", a.scalar(t, "select count(*) from pg_class where relname = 'inbox_3'"))
		a.do(t, "insert into mallory.t values (1, 'x')", "insert into shared values (1, 'x')")
		require.Len(t, a.take(t), 3)
		a.do(t, "alter table shared owner to current_user")
		a.apply(t)
	})
}

// TestTheOwnerOfAWatchedTableActsOnItsOwnEventsAlone tries what the owner of the table and its
// capture function can do.
func TestTheOwnerOfAWatchedTableActsOnItsOwnEventsAlone(t *testing.T) {
	t.Parallel()
	a := newAttack(t)
	a.mallory.do(t, "create table mallory.u (a int)")
	for _, sql := range []string{
		"select * from rowhook.event_log", "select * from rowhook.inbox_3", "update rowhook.inbox_3 set new = '{}'", "delete from rowhook.inbox_3",
		"insert into rowhook.event_log (id, trigger_id, op) values (gen_random_uuid(), 3, 'I')",
		"insert into rowhook.inbox_3 (id, trigger_id, op, new) values (gen_random_uuid(), 1, 'I', '{}')",
		"insert into rowhook.inbox_3 (id, trigger_id, op, due_at) values (gen_random_uuid(), 3, 'I', 'infinity')",
		"create or replace view rowhook.inbox_3 as select 1", "create trigger x instead of insert on rowhook.inbox_3 for each row execute function rowhook.capture_3('1')",
		"create or replace function rowhook.capture_3() returns trigger language plpgsql as 'begin return null; end'",
		"alter function rowhook.capture_3() rename to capture", "create function rowhook.f() returns int language sql return 1",
		"select setval('rowhook.doorbell', 2)", "select nextval('rowhook.doorbell')", "select rowhook.payload_3(null) from rowhook.trigger",
	} {
		a.refused(t, sql, "new row violates check option", "does not exist")
	}
	// Her own function on another table of hers, or with the id of another trigger, gets her no
	// further.
	a.mallory.do(t, "create trigger mine after insert on mallory.u for each row execute function rowhook.capture_3('1')")
	a.refused(t, "insert into mallory.u values (1)", "check option", "does not exist")
	a.mallory.do(t, "drop trigger mine on mallory.u", "alter function rowhook.capture_3() security invoker", "insert into mallory.t values (1, 'x')")
	a.mallory.do(t, "alter function rowhook.capture_3() security definer set search_path = mallory",
		`create function mallory.row_to_json(mallory.t) returns json language plpgsql as $$ begin perform mallory.spring('row_to_json'); return '{}'; end $$`)
	_, err := a.mallory.conn.Exec(t.Context(), "insert into mallory.t values (2, 'y')")
	if err == nil {
		require.Empty(t, a.trapped(t))
	}
	// For her own table she can make any event, as she can by writing to it.
	a.mallory.do(t, "insert into rowhook.inbox_3 (id, trigger_id, op, new) values (gen_random_uuid(), 3, 'I', '{}')")
	require.Contains(t, a.take(t), "t I null {}")
	require.Empty(t, a.trapped(t))
	a.apply(t, all("victim", "victim"), all("shared", "shared"), all("t", "mallory.t"))
	a.mallory.do(t, "insert into mallory.t values (3, 'z')")
	require.Equal(t, []string{`t I null {"a":3,"b":"z"}`}, a.take(t), "the next apply puts it right")
}

// TestTheOwnerOfAWatchedTableChoosesNothingOfAHandOver calls the function by which captures of her table
// hand over, with all that she can make.
func TestTheOwnerOfAWatchedTableChoosesNothingOfAHandOver(t *testing.T) {
	t.Parallel()
	a := newAttack(t)
	eve, _ := a.Role(t)
	a.do(t, "create table eves (a int, b text); alter table eves owner to "+eve)
	a.apply(t, all("victim", "victim"), all("shared", "shared"), all("t", "mallory.t"), all("eves", "eves"))
	a.take(t)
	a.awake(t)
	for _, sql := range []string{
		"select rowhook.payload_1('I', null, '{}', null, null)", "select rowhook.payload_4('I', null, '{}', null, null)",
		"select * from rowhook.handover", "select last_value from rowhook.handover", "select setval('rowhook.handover', 8)", "select nextval('rowhook.handover')",
		"insert into rowhook.inbox_3 (id, trigger_id, op, claimed_by) values (gen_random_uuid(), 3, 'I', 8)",
		"insert into rowhook.inbox_3 (id, trigger_id, op, claim, tries) values (gen_random_uuid(), 3, 'I', 1, 1)",
		`create or replace function rowhook.payload_3(op "char", old json, new json, session json, trace json) returns boolean language sql return true`,
		`create function rowhook.payload_3(op text, old json, new json, session json, trace json) returns boolean language sql return true`,
		`alter function rowhook.payload_3("char", json, json, json, json) security invoker`, `alter function rowhook.payload_3("char", json, json, json, json) reset all`,
		`drop function rowhook.payload_3("char", json, json, json, json)`,
	} {
		a.refused(t, sql, "does not exist")
	}
	a.mallory.do(t, `grant execute on function rowhook.payload_3("char", json, json, json, json) to public`) // the server warns that she has nothing to grant
	require.Equal(t, "{postgres,"+a.name+"}", a.scalar(t, "select array_agg(x.grantee::regrole order by x.grantee) from pg_proc p, aclexplode(p.proacl) x where proname = 'payload_3' and pronargs = 5"))
	const hand = "select rowhook.payload_3(%s, null, %s, null, null)"
	for op, handed := range map[string]string{"'I'": "true", "'U'": "true", "'D'": "true", "'M'": "false", "'T'": "false", "'x'": "false", "''": "false", "null": "false"} {
		require.Equal(t, handed, a.mallory.scalar(t, fmt.Sprintf(hand, op, "'{}'")), op)
	}
	require.Equal(t, "3 handed", a.recordedAs(t))
	// Her session and her types bring no code along: casts to json run as her, before the call.
	a.mallory.do(t, hostileTypes, `create function mallory.t_json(mallory.t) returns json language plpgsql as $$ begin perform mallory.spring('row'); return '{}'; end $$`,
		`create cast (mallory.t as json) with function mallory.t_json(mallory.t) as implicit`,
		`create function mallory.eq("char", "char") returns boolean language plpgsql as $$ begin perform mallory.spring('='); return true; end $$`,
		`create operator mallory.= (function = mallory.eq, leftarg = "char", rightarg = "char")`,
		`create function mallory.eq(bigint, int) returns boolean language plpgsql as $$ begin perform mallory.spring('='); return true; end $$`,
		`create operator mallory.= (function = mallory.eq, leftarg = bigint, rightarg = int)`,
		`create operator mallory.> (function = mallory.eq, leftarg = bigint, rightarg = int)`,
		`create function mallory.pg_notify(text, text) returns void language plpgsql as $$ begin perform mallory.spring('pg_notify'); end $$`,
		`create temp table event_log (like mallory.t)`, `create temp sequence handover`, `create temp sequence doorbell`, `select setval('pg_temp.handover', 8)`,
		`create function pg_temp.uuid7() returns uuid language plpgsql as $$ begin perform mallory.spring('uuid7'); return null; end $$`,
		`set search_path = pg_temp, mallory, rowhook, public, pg_catalog`, `set plpgsql.extra_errors = 'all'`,
		`set rowhook.handed = ''`, fmt.Sprintf(hand, "'I'", "null::mallory.t"), fmt.Sprintf(hand, "'T'", "'{}'"), hostileRow)
	require.Equal(t, "2 handed", a.recordedAs(t))
	require.Empty(t, a.trapped(t))
	require.Equal(t, "8", a.mallory.scalar(t, "select count(*) from generate_series(1, 100) where rowhook.payload_3('I', null, '{}', null, null)"))
	a.take(t)
	// Nor does a refused trigger, or silence, change by what she says.
	for _, sql := range []string{"select setval('rowhook.doorbell', 9)", "select setval('rowhook.handover', 0)"} {
		a.awake(t)
		a.do(t, sql)
		require.Equal(t, "false", a.mallory.scalar(t, fmt.Sprintf(hand, "'I'", "'{}'")))
	}
	a.awake(t, 3)
	require.Equal(t, "false", a.mallory.scalar(t, fmt.Sprintf(hand, "'I'", "'{}'")))
	require.Empty(t, a.take(t))
}

// TestWhatRunsInAWriteRunsAsTheWriter puts mallory's code in every place of her table where
// Postgres runs code at a write.
func TestWhatRunsInAWriteRunsAsTheWriter(t *testing.T) {
	t.Parallel()
	a := newAttack(t)
	a.mallory.do(t, `create function mallory.nosy() returns trigger language plpgsql as $$ begin perform mallory.spring('trigger'); return new; end $$`,
		`create trigger a before insert or update on mallory.t for each row execute function mallory.nosy()`,
		`create trigger z after insert or update on mallory.t for each row when (mallory.spring('when')) execute function mallory.nosy()`,
		`create function mallory.one(int) returns int language plpgsql immutable as $$ begin return 1; end $$`,
		`alter table mallory.t add g int generated always as (mallory.one(a)) stored, add x int default (mallory.spring('default')::int), add check (mallory.spring('check'))`,
		`create domain mallory.dd as int check (mallory.spring('domain')); alter table mallory.t add dd mallory.dd`,
		`alter table mallory.t enable row level security, force row level security; create policy p on mallory.t using (mallory.spring('policy')) with check (mallory.spring('policy'))`,
		"insert into mallory.t (a, dd) values (1, 2)", "update mallory.t set dd = 3")
	require.Len(t, a.take(t), 3)
	require.Empty(t, a.trapped(t))
	// Code in the output function of a type, or in a virtual column, needs a superuser.
	a.refused(t, "create type mallory.base; create function mallory.base_out(mallory.base) returns cstring language plpgsql as 'begin return 1; end'", "cannot return type cstring")
	a.refused(t, "create type mallory.base (input = int4in, output = int4out)", "must be superuser", "does not exist")
	if pgtest.Version(t) >= 18 {
		a.refused(t, "alter table mallory.t add v int generated always as (mallory.one(a)) virtual", "user-defined function")
	}
}

// TestApplyRefusesATableWhoseOwnerCouldActAsTheInstaller applies as a role that may only create
// triggers on mallory's table.
func TestApplyRefusesATableWhoseOwnerCouldActAsTheInstaller(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	w := watched{db, db.Conn(t)}
	installer, url := db.Role(t)
	mallory, _ := db.Role(t)
	w.do(t, fmt.Sprintf("create schema rowhook authorization %s; create table t (a int, b text); create type e as enum ('x'); alter type e owner to %s; alter table t add c e, add d e[]; "+
		"alter table t owner to %[2]s; grant trigger on t to %[1]s", installer, mallory))
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	i := watched{db, conn}
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, quiet()))
	for _, spec := range []trigger.Spec{all("w", "t"), all("w", "t", payload("a", "d"))} {
		_, err = sqlschema.MakePlan(t.Context(), conn, []trigger.Spec{spec}, trigger.DefaultSettings())
		require.ErrorContains(t, err, "public.t belongs to "+mallory+", who could run code as the role that installed Rowhook")
		require.ErrorContains(t, err, "apply as a superuser or as a member of "+mallory+", or choose columns of built-in types")
	}
	i.apply(t, all("w", "t", payload("a", "b")))
	w.do(t, "insert into t values (1, 'x', 'x', '{x}')")
	require.Equal(t, []string{`w I null {"a":1,"b":"x"}`}, w.take(t))
	require.Contains(t, w.fails(t, "alter table t alter b type e using b::e"), "cannot alter type")
	w.do(t, "grant "+mallory+" to "+installer)
	i.apply(t, all("w", "t"))
	w.do(t, "insert into t values (2, 'x', 'x', '{x}')")
	require.Equal(t, []string{`w I null {"a":2,"b":"x","c":"x","d":["x"]}`}, w.take(t))
	require.Equal(t, mallory, w.scalar(t, "select proowner::regrole from pg_proc where proname = 'capture_1'"))
}

// TestApplyRunsNoOneElsesFunctions makes functions and operators in public that fit the arguments
// of catalog queries better than Postgres' own. It migrates, applies and uninstalls as a superuser
// who has public in the search_path.
func TestApplyRunsNoOneElsesFunctions(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	w := watched{db, db.Conn(t)}
	w.do(t, "create table t (a int, b text); create table trap (name text, who text)",
		`create function spring(name text) returns boolean language plpgsql as $$ begin insert into public.trap values (name, current_user); return true; end $$`)
	for _, f := range []string{
		"format(text, name, name) returns text", "concat_ws(text, smallint, name, text, text) returns text", "left(text, bigint) returns text",
		"split_part(text, unknown, integer) returns text", "unnest(integer[]) returns setof integer", "count(uuid) returns bigint",
		"encode(bytea, name) returns text", "set_bit(bytea, bigint, bigint) returns bytea", "json_build_object(text, text, text, json, text, json, text, json) returns json",
		"overlay(bytea, bytea, bigint, bigint) returns bytea", "to_char(date, text) returns text", "pg_has_role(oid, text, name) returns boolean",
	} {
		returns := f[strings.Index(f, "returns ")+len("returns "):]
		body := fmt.Sprintf("begin perform public.spring('%s'); return null; end", strings.SplitN(f, "(", 2)[0])
		if strings.HasPrefix(returns, "setof") {
			body = strings.Replace(body, "return null", "return", 1)
		}
		_, err := w.conn.Exec(t.Context(), fmt.Sprintf("create function public.%s language plpgsql as $$ %s $$", f, body))
		if err != nil {
			require.ErrorContains(t, err, "unknown", f) // there is no such type for arguments
		}
	}
	for _, op := range []string{"oid = integer", "name = text", "smallint > bigint", "jsonb #>> text", "text ~ name", `"char" = text`, "text || integer", "date <= timestamp"} {
		parts := strings.Fields(op)
		function := fmt.Sprintf("op_%d", len(op)*100+int(op[0])+int(op[len(op)-1]))
		w.do(t, fmt.Sprintf("create or replace function public.%s(%s, %s) returns boolean language plpgsql as $$ begin perform public.spring('%s'); return false; end $$", function, parts[0], parts[2], op),
			fmt.Sprintf("create operator public.%s (function = public.%s, leftarg = %s, rightarg = %s)", parts[1], function, parts[0], parts[2]))
	}
	require.Equal(t, "false", w.scalar(t, "select 1::oid = 1"), "the traps work where the search_path leads to them")
	w.do(t, "truncate trap")
	require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, quiet()))
	w.apply(t, all("w", "t"), all("v", "t", payload("a"), when("new.a > 0"), func(s *trigger.Spec) { s.On.Delete = false; s.On.Update.Enabled = false }))
	w.do(t, "insert into t values (1, 'x')")
	require.Equal(t, []string{`v I null {"a":1}`, `w I null {"a":1,"b":"x"}`}, w.take(t))
	_, err := sqlschema.UninstallSummary(t.Context(), w.conn)
	require.NoError(t, err)
	require.NoError(t, sqlschema.Uninstall(t.Context(), w.conn, quiet()))
	require.Equal(t, `"$user", public`, w.scalar(t, "select current_setting('search_path')"), "the session is as it was")
	require.Empty(t, w.scalar(t, "select coalesce(string_agg(distinct name, ', '), '') from trap"))
}

func TestASchemaOfSomeoneElsesIsNotInstalledInto(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	w := watched{db, db.Conn(t)}
	mallory, url := db.Role(t)
	w.do(t, "create schema rowhook authorization "+mallory)
	err := sqlschema.Migrate(t.Context(), w.conn, quiet())
	require.ErrorContains(t, err, "there is a schema rowhook that belongs to "+mallory+", and Rowhook is not installed in it")
	require.ErrorContains(t, err, "apply as "+mallory+", or drop schema rowhook if it is not needed")

	// The owner of the schema can install. If a superuser applies later, everything stays the
	// owner's.
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, quiet()))
	w.do(t, "create table t (a int)")
	require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, quiet()))
	w.apply(t, all("w", "t", payload("a")))
	w.do(t, "insert into t values (1)")
	require.Equal(t, []string{`w I null {"a":1}`}, w.take(t))
	require.Equal(t, mallory, w.scalar(t, `select string_agg(distinct o::regrole::text, ', ') from (
		select relowner as o from pg_class where relnamespace = 'rowhook'::regnamespace union select proowner from pg_proc where pronamespace = 'rowhook'::regnamespace) _`))
}

// TestADatabasesOwnDefaultsDoNotMatter uses a database whose settings change how dates, names and
// strings are written.
func TestADatabasesOwnDefaultsDoNotMatter(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	for _, setting := range []string{
		"datestyle to 'SQL, YMD'", "timezone to 'Pacific/Kiritimati'", "quote_all_identifiers to on", "standard_conforming_strings to off",
		"default_transaction_isolation to serializable", "row_security to off", "transform_null_equals to on",
	} {
		db.Exec(t, "do $do$ begin execute format($$alter database %I set "+setting+"$$, current_database()); exception when feature_not_supported or invalid_parameter_value then null; end $do$")
	}
	w := watched{db, db.Conn(t)}
	require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, quiet()))
	role, _ := w.Role(t)
	w.do(t, "create table t (id int, d date)", "create table u (id int, v text)", "alter table u owner to "+role)
	w.apply(t, all("t", "t", payload("id", "d")), all("u", "u"))
	w.do(t, "insert into t values (1, '2026-11-23')", "insert into u values (2, 'x')")
	require.Equal(t, []string{`t I null {"id":1,"d":"2026-11-23"}`, `u I null {"id":2,"v":"x"}`}, w.take(t))
	w.do(t, "set timezone to 'UTC'", "set datestyle to 'ISO'")
	require.Equal(t, "0", w.scalar(t, `select count(*) from pg_class where relname ~ '^event_archive_[0-9]{8}$' and relkind = 'r' and
		pg_get_expr(relpartbound, oid) not like '%' || to_char(to_date(right(relname, 8), 'YYYYMMDD'), 'YYYY-MM-DD') || ' 00:00:00+00%'`))
}
