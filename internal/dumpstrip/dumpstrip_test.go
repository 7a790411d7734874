package dumpstrip_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/dumpstrip"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// shop is a user's schema that mentions Rowhook in many places that are not Rowhook's.
const shop = `
create schema app; create schema zoo;
create type app.state as enum ('new', 'rowhook');
create function app.touch() returns trigger language plpgsql as $rowhook$ begin /* rowhook ; */ new.note := 'the schema rowhook; $$ it''s'; return new; end $rowhook$;
create function zoo.total(a int, b int) returns int language sql begin atomic select case when a > 0 then a + b else 0 end; select 1; end;
create procedure zoo.act() language sql begin atomic select 'x;y'; end;
`

const shopTables = `
create table app.log (line text);
create table app.orders (id bigint generated always as identity primary key, amount numeric default 1.5, state app.state, note text, unique (note, id));
create table zoo.animals (id serial primary key, name text check (name <> 'rowhook;'), parent int references zoo.animals);
create table zoo.empty (id int);
create unlogged table zoo.fast (id int primary key);
create table app.days (day date not null, n int) partition by range (day);
create table app.days_1 partition of app.days for values from ('2026-01-01') to ('2026-02-01');
create index on zoo.animals (name) where name like 'row%';
create view app.open as select o.*, 'rowhook.events' as from_text from app.orders o where state = 'new';
create materialized view zoo.counts as select count(*) from zoo.animals;
create trigger touch before update on app.orders for each row execute function app.touch();
create trigger rowhook_mine before update on zoo.animals for each row when (old.name is distinct from new.name) execute function app.touch();
alter table zoo.animals disable trigger rowhook_mine;
create rule two as on insert to zoo.fast do also (insert into zoo.empty values (1); insert into zoo.empty values (2));
alter table app.orders enable row level security;
create policy mine on app.orders using (note <> 'rowhook');
comment on table app.orders is 'watched by rowhook; not in rowhook.trigger';
comment on trigger rowhook_mine on zoo.animals is 'ours -- "rowhook"';
grant select (id, note), update (note) on app.orders to public;
alter default privileges in schema zoo grant select on tables to public;
create publication certain for table app.orders, zoo.animals;
insert into app.orders (note) values (E'rowhook.trigger\n\\.\n;'), ('it''s $$ -- /*'), (E'\t\\'), ('COPY rowhook.event_log FROM stdin;');
insert into zoo.animals (name) values ('a;b'), (null);
insert into app.days values ('2026-01-05', 1);
`

// options are the ways in which pg_dump writes text.
var options = [][]string{
	{}, {"--no-owner"}, {"--no-privileges"}, {"--schema-only"}, {"--schema-only", "--no-owner", "--no-privileges"}, {"--data-only"}, {"--data-only", "--disable-triggers"},
	{"--clean"}, {"--clean", "--if-exists"}, {"--create", "--clean", "--if-exists"}, {"--create"}, {"--inserts"}, {"--column-inserts"}, {"--inserts", "--rows-per-insert=3"},
	{"--no-comments"}, {"--quote-all-identifiers"}, {"--use-set-session-authorization"}, {"--load-via-partition-root"}, {"--section=pre-data"}, {"--section=data"}, {"--section=post-data"},
	{"--no-publications"}, {"--no-tablespaces"}, {"--no-table-access-method", "--enable-row-security"}, {"--disable-dollar-quoting"}, {"--serializable-deferrable"},
}

// restricted is the random key of newer pg_dumps.
var restricted = regexp.MustCompile(`(?m)^\\(un)?restrict .*$`)

func dump(t *testing.T, db *pgtest.DB, arguments ...string) string {
	t.Helper()
	return restricted.ReplaceAllString(db.Dump(t, arguments...), `\${1}restrict key`)
}

func strip(t *testing.T, text string) (string, dumpstrip.Report) {
	t.Helper()
	var out bytes.Buffer
	report, err := dumpstrip.Strip(&out, iotest.HalfReader(strings.NewReader(text)))
	require.NoError(t, err)
	return out.String(), report
}

func install(t *testing.T, db *pgtest.DB, tables ...string) {
	t.Helper()
	conn := db.Conn(t)
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, nil))
	var specs []trigger.Spec
	for i, table := range tables {
		spec := trigger.DefaultSpec()
		spec.Name, spec.Table, spec.Webhook.URL, spec.OnReplication = fmt.Sprintf("watch_%d", i), table, "http://localhost", i == 1
		spec.On = trigger.On{Insert: true, Update: trigger.UpdateOn{Enabled: true}, Delete: true}
		if i == 0 {
			spec.When = "coalesce(new.note, '') <> 'rowhook;'"
			spec.On.Delete = false
		}
		specs = append(specs, spec)
	}
	_, err := sqlschema.Apply(t.Context(), conn, specs, trigger.DefaultSettings(), nil)
	require.NoError(t, err)
}

// around is what an owner may add to Rowhook's objects. It becomes part of the dump.
const around = `
comment on trigger rowhook_watch_0_insert on app.orders is 'captures; inserts';
alter table zoo.animals disable trigger rowhook_watch_1_update;
create index mine on rowhook.dead_letter (died_at);
alter publication certain add table rowhook.dead_letter;
alter default privileges in schema rowhook grant select on tables to public;
insert into rowhook.event_log (id, trigger_id, op, new) values (rowhook.uuid7(), 1, 'I', '{"a": "it''s; \n"}');
insert into app.orders (note) values ('captured'); delete from app.orders where note = 'captured';
alter sequence app.orders_id_seq restart with 5;
`

func TestAStrippedDumpIsTheDumpOfADatabaseWithoutRowhook(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	db := pgtest.NewEmpty(t)
	role, _ := db.Role(t)
	db.Exec(t, shop+shopTables+"alter table zoo.fast owner to "+role+"; alter sequence app.orders_id_seq restart with 5")
	without := map[int]string{}
	for i, arguments := range options {
		without[i] = dump(t, db, arguments...)
		same, report := strip(t, without[i])
		require.Equal(t, without[i], same, "%v: without Rowhook nothing changes", arguments)
		require.Zero(t, report)
	}
	install(t, db, "app.orders", "zoo.animals", "app.days", "zoo.empty")
	db.Exec(t, around+"grant usage on schema rowhook to "+role+"; grant select (id), update (due_at) on rowhook.event_log to "+role)
	if pgtest.Version(t) >= 15 {
		db.Exec(t, "create publication more for tables in schema rowhook; drop publication more; alter publication certain add tables in schema rowhook")
	}
	for i, arguments := range options {
		with := dump(t, db, arguments...)
		got, report := strip(t, with)
		require.Equal(t, without[i], got, "%v", arguments)
		require.Empty(t, report.Depending, "%v", arguments)
		require.Positive(t, report.Removed, "%v", arguments)
	}
}

// withoutComments removes comments, like tools that prepare a dump for version control.
func withoutComments(text string) string {
	return regexp.MustCompile(`(?m)^--.*\n`).ReplaceAllString(text, "")
}

func TestADumpWithoutCommentsIsStripped(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	db := pgtest.NewEmpty(t)
	db.Exec(t, shop+shopTables)
	before := withoutComments(dump(t, db, "--schema-only"))
	install(t, db, "app.orders", "zoo.animals", "app.days", "zoo.empty")
	after, _ := strip(t, withoutComments(dump(t, db, "--schema-only")))
	lines := func(text string) string { return regexp.MustCompile(`\n{2,}`).ReplaceAllString(text, "\n") }
	require.Equal(t, lines(before), lines(after))
}

func TestAStrippedDumpLoadsAndIsWholeOnceItWasApplied(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	db := pgtest.NewEmpty(t)
	db.Exec(t, shop+shopTables)
	install(t, db, "app.orders", "zoo.animals")
	for _, arguments := range [][]string{{}, {"--schema-only"}, {"--inserts"}} {
		text, _ := strip(t, dump(t, db, arguments...))
		dup := pgtest.NewEmpty(t)
		dup.Load(t, text)
		dup.Exec(t, "insert into app.orders (note) values ('not captured')")
		install(t, dup, "app.orders", "zoo.animals")
		dup.Exec(t, "insert into app.orders (note) values ('captured')")
		var events int
		require.NoError(t, dup.Conn(t).QueryRow(t.Context(), "select count(*) from rowhook.event_log").Scan(&events))
		require.Equal(t, 1, events)
	}
}

// A trigger with its own functions is dumped in another order, because these take rows of the
// table.
func TestFunctionsOfTriggersGo(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	db := pgtest.NewEmpty(t)
	db.Exec(t, "create table t (id int, a int)")
	conn := db.Conn(t)
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, nil))
	spec := trigger.DefaultSpec()
	spec.Name, spec.Table, spec.Webhook.URL, spec.On, spec.Payload = "w", "t", "http://localhost", trigger.On{Insert: true}, trigger.Payload{Columns: []string{"a"}}
	_, err := sqlschema.Apply(t.Context(), conn, []trigger.Spec{spec}, trigger.DefaultSettings(), nil)
	require.NoError(t, err)
	text, _ := strip(t, dump(t, db))
	require.NotContains(t, text, "rowhook")
	pgtest.NewEmpty(t).Load(t, text)
}

// TestADumpWithOrderIsStrippedAndLoads dumps lanes that have owners, keys that wait for others, and
// parked events.
func TestADumpWithOrderIsStrippedAndLoads(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	db := pgtest.NewEmpty(t)
	db.Exec(t, shop+shopTables)
	conn := db.Conn(t)
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, nil))
	var specs []trigger.Spec
	for table, by := range map[string]string{"app.orders": trigger.OrderByRow, "zoo.animals": "name", "app.days": "day", "zoo.fast": trigger.OrderByRow} {
		spec := trigger.DefaultSpec()
		spec.Name, spec.Table, spec.Webhook.URL = strings.ReplaceAll(table, ".", "_"), table, "http://localhost"
		spec.On = trigger.On{Insert: true, Update: trigger.UpdateOn{Enabled: true}, Delete: true}
		spec.Order, spec.Batch.Max, spec.ConcurrencyTotal = trigger.Order{By: []string{by}, OnDead: trigger.OnDeadBlock}, 10, 3
		specs = append(specs, spec)
	}
	late := specs[0]
	late.Name, late.Table, late.At, late.Order.By, late.When, late.On.Delete = "late", "app.orders", trigger.AtCommit, []string{trigger.OrderByRow}, "new.id > 0", false
	specs = append(specs, late)
	_, err := sqlschema.Apply(t.Context(), conn, specs, trigger.DefaultSettings(), nil)
	require.NoError(t, err)
	db.Exec(t, `
update zoo.animals set name = 'moved'; update app.orders set note = 'first'; update app.orders set note = 'second';
insert into app.days values ('2026-01-06', 2); update app.days set day = day + 1;
update rowhook.lane set owner = 7, epoch = 3, deaths = 2, died_at = now();
insert into rowhook.share select id, 7, now(), 1, true from rowhook.trigger`)
	for _, table := range []string{"rowhook.key_move", "rowhook.event_log where due_at > '2070-01-01' and seq > 0", "rowhook.lane where owner = 7", "rowhook.share"} {
		var n int
		require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from "+table).Scan(&n))
		require.Positive(t, n, table)
	}
	few := [][]string{{}, {"--schema-only"}, {"--data-only", "--inserts"}, {"--clean", "--if-exists"}}
	stripped := map[int]string{}
	for i, arguments := range few {
		text, report := strip(t, dump(t, db, arguments...))
		require.Empty(t, report.Depending, "%v", arguments)
		stripped[i] = text
	}
	require.NoError(t, sqlschema.Uninstall(t.Context(), conn, slog.New(slog.DiscardHandler)))
	// The functions of an ordered trigger take rows of the table, so objects are dumped in another order.
	lines := func(text string) []string { return slices.Sorted(strings.SplitSeq(text, "\n")) }
	for i, arguments := range few {
		require.Equal(t, lines(dump(t, db, arguments...)), lines(stripped[i]), "%v", arguments)
	}
	dup := pgtest.NewEmpty(t)
	dup.Load(t, stripped[0])
	dup.Exec(t, `
insert into zoo.animals (name) values ('new'); update zoo.animals set name = 'moved on'; delete from zoo.animals where name is null;
insert into app.orders (note) values ('new'); update app.orders set note = 'third'; delete from app.orders;
update app.days set day = day + 1; insert into zoo.fast values (1)`)
	var left bool
	require.NoError(t, dup.Conn(t).QueryRow(t.Context(), "select to_regnamespace('rowhook') is not null").Scan(&left))
	require.False(t, left)
}

func TestWhatDependsOnRowhookStaysAndIsNamed(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	db := pgtest.New(t)
	db.Exec(t, `
create view mine as select * from rowhook.events;
create function ring() returns uuid language sql as $$ select rowhook.emit('a', '{}') $$;
create function atomic() returns uuid language sql begin atomic select rowhook.uuid7(); end;
create table t (id uuid default rowhook.uuid7(), note text default 'rowhook');
create trigger audit after insert on t for each row execute function rowhook.capture('x');
drop trigger audit on t`)
	text, report := strip(t, dump(t, db, "--schema-only"))
	require.Equal(t, []string{"CREATE FUNCTION public.atomic", "CREATE FUNCTION public.ring", "CREATE VIEW public.mine", "CREATE TABLE public.t"}, report.Depending)
	for _, name := range []string{"mine", "ring", "atomic"} {
		require.Contains(t, text, "public."+name)
	}
	require.NotContains(t, text, "CREATE SCHEMA rowhook")
}

func TestWhatIsNoWholeTextIsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"PGDMP\x01\x0e":                        "custom format",
		"\x1f\x8b\x08\x00":                     "compressed",
		strings.Repeat("x", 257) + "ustar\x00": "tar format",
		"COPY public.t (a) FROM stdin;\n1\n":   "ends within the rows of the COPY at line 1",
		"\n\nSELECT 'a;":                       "ends within the string that begins at line 3",
		"SELECT $a$ $b$;":                      "ends within the string that begins with $a$ at line 1",
		"/* /* */":                             "ends within the comment that begins at line 1",
		"SELECT \"a":                           "ends within the quoted name that begins at line 1",
	} {
		var out bytes.Buffer
		_, err := dumpstrip.Strip(&out, strings.NewReader(text))
		require.ErrorContains(t, err, want)
	}
}

func TestStatements(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a;DROP TABLE IF EXISTS rowhook.event_log;b;":                                                           "a;b;",
		"DROP TRIGGER IF EXISTS rowhook_w_insert ON public.t;\nDROP TRIGGER x ON public.t;":                     "DROP TRIGGER x ON public.t;",
		"SET standard_conforming_strings = off;\nSELECT 'a\\';';\nDROP SCHEMA rowhook;":                         "SET standard_conforming_strings = off;\nSELECT 'a\\';';\n",
		"SELECT E'\\'';DROP SCHEMA rowhook;":                                                                    "SELECT E'\\'';",
		"COPY rowhook.setting FROM stdin;\n'\n\"\n\\.\n\n\\connect x\nb;":                                       "\\connect x\nb;",
		"-- ours\nCREATE SCHEMA rowhook;\nb;":                                                                   "-- ours\nb;",
		"CREATE SCHEMA rowhooks;CREATE TABLE rowhooks.a ();CREATE TABLE x.rowhook ();":                          "CREATE SCHEMA rowhooks;CREATE TABLE rowhooks.a ();CREATE TABLE x.rowhook ();",
		`ALTER TABLE ONLY "rowhook"."a" ADD x int;b;`:                                                           "b;",
		"SELECT pg_catalog.setval('rowhook.a', 1);SELECT pg_catalog.setval('public.rowhook', 1);":               "SELECT pg_catalog.setval('public.rowhook', 1);",
		"create table \"RowHook\".a ();":                                                                        "create table \"RowHook\".a ();",
		"SET SESSION AUTHORIZATION a;\nGRANT SELECT ON TABLE rowhook.a TO b;\nRESET SESSION AUTHORIZATION;\nb;": "b;",
		"GRANT rowhook TO a;": "GRANT rowhook TO a;",
		"CREATE FUNCTION x.f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END;DROP SCHEMA rowhook;b;":        "CREATE FUNCTION x.f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END;b;",
		"SELECT * FROM pg_catalog.pg_restore_relation_stats('version', '180000'::integer, 'schemaname', 'rowhook', 'relname', 'a');b;": "b;",
	} {
		got, _ := strip(t, text)
		require.Equal(t, want, got)
	}
}

func TestASettingBeforeACommentThatIsCutOffStays(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"/*", "/* a", "-- a", "'", "$$"} {
		text := "SET default_tablespace = '';\n\n" + end
		var out bytes.Buffer
		_, _ = dumpstrip.Strip(&out, strings.NewReader(text)) // that it is cut off is an error
		require.Equal(t, text, out.String())
	}
}

// The test combines parts of dumps in random order.
func TestADumpWithoutRowhookIsNeverChanged(t *testing.T) {
	t.Parallel()
	parts := []string{"CREATE ", "TABLE ", "FUNCTION ", "TRIGGER ", "x.y", " ON ", "(", ")", ";", "\n", "'", "''", "\\", "\\.", "\n\\.\n", "$$", "$a$", "$1", "--", "/*", "*/", "\"", "E'", "é", "COPY t FROM stdin;\n",
		"SET default_tablespace = '';\n\n", "SET default_table_access_method = heap;\n", "SET SESSION AUTHORIZATION a;\n", "RESET SESSION AUTHORIZATION;\n", "BEGIN ", "END", "CASE ", "-- Name: a; Type: TABLE; Schema: b; Owner: c\n", "1.5", "GRANT ", "\x00", "\xff", "\r\n", " ", "INSERT INTO t VALUES "}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom(parts)).Draw(t, "parts"), "")
		var out bytes.Buffer
		report, _ := dumpstrip.Strip(&out, iotest.OneByteReader(strings.NewReader(text)))
		if report.Removed != 0 || out.String() != text {
			t.Fatalf("%q became %q", text, out.String())
		}
	})
}
