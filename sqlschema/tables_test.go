package sqlschema_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// many watches every operation of several tables.
func many(name string, tables []string, with ...func(*trigger.Spec)) trigger.Spec {
	return all(name, "", append([]func(*trigger.Spec){func(s *trigger.Spec) { s.Tables = tables }}, with...)...)
}

func except(names ...string) func(*trigger.Spec) {
	return func(s *trigger.Spec) { s.Except = names }
}

func follow(s *trigger.Spec) { s.Follow = true }

// of returns the events since the last call, oldest first, as "trigger table op new".
func (w watched) of(t *testing.T) []string {
	t.Helper()
	events := w.scalar(t, `
with gone as (select e.*, t.name, r.schema_name || '.' || r.table_name as of from rowhook.event_log e join rowhook.trigger t on t.id = e.trigger_id left join rowhook.relation r on r.id = e.relation_id)
select coalesce(string_agg(concat_ws(' ', name, coalesce(of, '?'), op, coalesce(new, old)), e'\n' order by created_at, id), '') from gone`)
	w.do(t, "delete from rowhook.event_log")
	if events == "" {
		return nil
	}
	return strings.Split(events, "\n")
}

const threeTables = `
create table a (id int primary key, v text); create table b (id int primary key, v text, w int);
create schema billing; create table billing.invoices (id int primary key, v text); create table billing."Lines" (id int primary key, v text); create table billing.tmp_1 (id int primary key, v text)`

func TestOneTriggerWatchesManyTables(t *testing.T) {
	t.Parallel()
	for name, with := range map[string][]func(*trigger.Spec){
		"as they are":        nil,
		"row by row":         {func(s *trigger.Spec) { s.Capture = trigger.CaptureRows }},
		"chosen columns":     {payload("id", "v")},
		"in order":           {orderBy()},
		"in order, by v":     {orderBy("v")},
		"both":               {payload("v", "id"), orderBy()},
		"with a when":        {when("true")},
		"of replication":     {onReplication},
		"a long name":        {func(s *trigger.Spec) { s.Name = strings.Repeat("n", 42) }},
		"with a delay":       {func(s *trigger.Spec) { s.Delay = trigger.Duration(time.Hour) }},
		"in order, delayed":  {orderBy(), func(s *trigger.Spec) { s.Delay = trigger.Duration(time.Hour) }},
		"numbers as texts":   {func(s *trigger.Spec) { s.Payload.Numbers = trigger.NumbersText }},
		"columns of deletes": {func(s *trigger.Spec) { s.Payload.Delete.Columns = []string{"id"} }},
		"with TRUNCATE":      {func(s *trigger.Spec) { s.On.Truncate = true }},
		"TRUNCATE, in order": {orderBy(), func(s *trigger.Spec) { s.On.Truncate = true }},
		"without NOTIFY":     {neverNotify},
		"only one column":    {func(s *trigger.Spec) { s.On.Update.Columns = []string{"v"} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, threeTables)
			spec := many("w", []string{"b", "billing.*", "public.a"}, append([]func(*trigger.Spec){except("billing.tmp_*")}, with...)...)
			w.apply(t, spec)
			w.do(t, "insert into a values (1, 'x')", "insert into b values (1, 'x', 3)", `insert into billing."Lines" values (1, 'x')`, "insert into billing.tmp_1 values (1, 'x')",
				"update billing.invoices set v = 'y'", "insert into billing.invoices values (1, 'x')", "update billing.invoices set v = 'y'", "delete from a")
			var got []string
			for _, e := range w.of(t) {
				got = append(got, strings.Join(strings.Fields(e)[1:3], " "))
			}
			require.Equal(t, []string{"public.a I", "public.b I", "billing.Lines I", "billing.invoices I", "billing.invoices U", "public.a D"}, got)
			w.apply(t)
			w.do(t, "insert into a values (1, 'x'); insert into b values (2, 'x', 3)")
			require.Empty(t, w.of(t))
			require.Equal(t, "0", w.scalar(t, "select count(*) from rowhook.trigger_table"))
			require.Equal(t, "0", w.scalar(t, "select count(*) from pg_proc where pronamespace = 'rowhook'::regnamespace and proname ~ '[0-9]$' and proname <> 'uuid7'"))
		})
	}
}

// TestRecordedNamesTheTableOfEachRow asks in the transaction of the writer, after a rename.
func TestRecordedNamesTheTableOfEachRow(t *testing.T) {
	t.Parallel()
	w := newWatched(t, threeTables, many("w", []string{"public.*", "billing.invoices"}))
	w.do(t, "alter table b rename to c", "begin", "insert into a (id) values (1)", "insert into c (id) values (1)", "insert into billing.invoices (id) values (1)")
	require.Equal(t, "public.a public.c billing.invoices", w.scalar(t, `select string_agg(schema || '.' || "table", ' ') from rowhook.recorded('w')`))
	require.Equal(t, "billing.invoices", w.scalar(t, `select string_agg(concat(body->'table'->>'schema', '.', body->'table'->>'name'), ' ') from rowhook.recorded() where schema = 'billing'`))
	w.do(t, "rollback")
}

// TestTruncatesOfTablesAreEventsOfTheirTable has two tables of an ordered trigger.
func TestTruncatesOfTablesAreEventsOfTheirTable(t *testing.T) {
	t.Parallel()
	w := newWatched(t, threeTables, many("w", []string{"public.*"}, orderBy(), func(s *trigger.Spec) { s.On.Truncate, s.Order.Latest = true, true }))
	w.do(t, "truncate a", "truncate b")
	require.Equal(t, "2", w.scalar(t, "select count(distinct key) from rowhook.event_log"), "the one is not the latest of the other")
	require.Equal(t, []string{"w public.a T", "w public.b T"}, w.of(t))
}

// TestKeysOfTablesDoNotMeet has rows of two tables with the same primary key.
func TestKeysOfTablesDoNotMeet(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table a (id int primary key, c int); create table b (id int primary key, c int)")
	keys := func(by ...func(*trigger.Spec)) (a, b string) {
		w.apply(t, many("w", []string{"a", "b"}, by...))
		w.do(t, "insert into a values (1, 7)", "insert into b values (1, 7)")
		a, b = w.scalar(t, "select key from rowhook.event_log order by seq limit 1"), w.scalar(t, "select key from rowhook.event_log order by seq desc limit 1")
		w.do(t, "delete from rowhook.event_log; delete from a; delete from b; delete from rowhook.event_log")
		return a, b
	}
	a, b := keys(orderBy())
	require.Regexp(t, `^\["#\d+",1\]$`, a)
	require.NotEqual(t, a, b)
	a, b = keys(orderBy("c"))
	require.Equal(t, "[7]", a)
	require.Equal(t, "[7]", b, "the changes of a customer are in order, whatever table they are of")
	a, b = keys(orderBy("id"), func(s *trigger.Spec) { s.Order.Latest = true })
	require.NotEqual(t, a, b, "of two rows none is the latest")
}

func TestTablesComeAndGo(t *testing.T) {
	t.Parallel()
	for _, with := range [][]func(*trigger.Spec){nil, {payload("id")}, {orderBy()}} {
		t.Run(fmt.Sprint(len(with)), func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, threeTables)
			spec := func(tables ...string) trigger.Spec { return many("w", tables, append(with, follow)...) }
			lines := func(s ...trigger.Spec) string {
				out := []string{}
				for _, c := range w.plan(t, s...).Changes() {
					if c.Object != "function" && c.Object != "guard trigger" && !strings.Contains(c.Name, "_update") && !strings.Contains(c.Name, "_delete") {
						out = append(out, fmt.Sprintf("%c %s %s %s", c.Action, c.Object, c.Name, c.Table))
					}
				}
				w.apply(t, s...)
				return strings.Join(out, "\n")
			}
			require.Equal(t, "+ trigger w ", lines(spec("later.*")))
			w.do(t, "create schema later; create table later.y (id int primary key); create table later.x (id int primary key)")
			require.Equal(t, "+ capture trigger rowhook_w_insert later.x\n+ capture trigger rowhook_w_insert later.y", lines(spec("later.*")))
			require.Equal(t, "later.x", w.scalar(t, "select schema_name || '.' || table_name from rowhook.trigger"))
			w.do(t, "insert into later.x values (1)", "alter table later.x rename to x2", "insert into later.x2 values (2)", "insert into later.y values (3)")
			require.Equal(t, []string{`w later.x I {"id":1}`, `w later.x I {"id":2}`, `w later.y I {"id":3}`}, w.of(t))
			require.Empty(t, lines(spec("later.*")), "a rename changes nothing")

			w.do(t, "alter table later.x2 set schema billing", "insert into billing.x2 values (4)")
			require.Len(t, w.of(t), 1, "it is captured until the next apply")
			require.Equal(t, "- capture trigger rowhook_w_insert billing.x2", lines(spec("later.*")))
			w.do(t, "insert into billing.x2 values (5)", "insert into later.y values (5)")
			require.Equal(t, []string{`w later.y I {"id":5}`}, w.of(t))
			require.Equal(t, "later.y", w.scalar(t, "select schema_name || '.' || table_name from rowhook.trigger"), "the first of those that are left")

			w.do(t, "drop table later.y cascade")
			require.Equal(t, "- table later.y ", lines(spec("later.*")))
			require.Equal(t, "~ trigger w \n+ capture trigger rowhook_w_insert public.a\n+ capture trigger rowhook_w_insert public.b", lines(spec("later.*", "public.*")))
			w.do(t, "insert into a values (1)", "insert into b values (1)")
			require.Len(t, w.of(t), 2)
		})
	}
}

// TestATriggerGetsSeveralTablesAndLosesThem goes from one table to several and back.
func TestATriggerGetsSeveralTablesAndLosesThem(t *testing.T) {
	t.Parallel()
	for _, with := range [][]func(*trigger.Spec){nil, {payload("id")}, {orderBy()}} {
		t.Run(fmt.Sprint(len(with)), func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, threeTables)
			steps := []struct {
				spec trigger.Spec
				want []string
			}{
				{all("w", "b", with...), []string{"public.b"}},
				{many("w", []string{"public.a", "public.b"}, with...), []string{"public.a", "public.b"}},
				{all("w", "a", with...), []string{"public.a"}},
				{many("w", []string{"public.*"}, with...), []string{"public.a", "public.b"}},
				{many("w", []string{"public.*"}, append(with, except("public.a"))...), []string{"public.b"}},
				{many("w", []string{"public.a"}, with...), []string{"public.a"}},
				{all("w", "a", with...), []string{"public.a"}},
			}
			for i, s := range steps {
				w.apply(t, s.spec)
				w.do(t, fmt.Sprintf("insert into a (id) values (%d)", i), fmt.Sprintf("insert into b (id) values (%d)", i))
				var got []string
				for _, e := range w.of(t) {
					got = append(got, strings.Fields(e)[1])
				}
				require.Equal(t, s.want, got, "step %d", i)
			}
			functions := map[bool]string{false: "0", true: w.scalar(t, "select count(*) from pg_proc where pronamespace = 'rowhook'::regnamespace and proname ~ '^(capture|payload)_1$'")}[len(with) > 0]
			require.Equal(t, functions, w.scalar(t, "select count(*) from pg_proc where pronamespace = 'rowhook'::regnamespace and proname ~ '^(capture|payload)_[0-9]+$'"), "none is left over")
		})
	}
}

// TestCapturesOfSeveralTablesRunAsTheirOwners has tables of two roles that Rowhook does not trust.
func TestCapturesOfSeveralTablesRunAsTheirOwners(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table a (id int primary key); create table b (id int primary key); create table c (id int primary key)")
	one := w.role(t)
	other := w.role(t, "_2")
	w.do(t, "alter table a owner to "+one, "alter table b owner to "+other)
	for _, with := range [][]func(*trigger.Spec){nil, {orderBy()}} {
		w.apply(t, many("w", []string{"public.*"}, with...))
		w.do(t, "insert into a values (1)", "insert into b values (1)", "insert into c values (1)", "set role "+one, "insert into a values (2)", "reset role")
		require.Equal(t, []string{`w public.a I {"id":1}`, `w public.b I {"id":1}`, `w public.c I {"id":1}`, `w public.a I {"id":2}`}, w.of(t))
		w.do(t, "delete from a; delete from b; delete from c; delete from rowhook.event_log")
		view := w.scalar(t, "select oid::regclass from pg_class where relnamespace = 'rowhook'::regnamespace and relname ~ '^(inbox|ordered)_' and has_table_privilege('"+one+"', oid, 'INSERT') order by relname limit 1")
		w.do(t, "set role "+one)
		require.Contains(t, w.fails(t, "insert into "+view+" (id, trigger_id, op, new, relation_id) values (gen_random_uuid(), 1, 'I', '{}', 999)"), "check option",
			"the owner of one table makes no event of another one")
		w.do(t, "reset role")
	}
}

func TestTablesOfOneTriggerAreChecked(t *testing.T) {
	t.Parallel()
	w := newWatched(t, threeTables+`; create view v as select 1 as id; create table parts (id int primary key) partition by range (id); create table parts_1 partition of parts for values from (0) to (9);
create schema other; create table other.x (id int); create table other.y (id int)`)
	for name, c := range map[string]struct {
		spec trigger.Spec
		want string
	}{
		"a table that is not there":    {many("w", []string{"public.a", "public.c"}), `tables.1: there is no table public.c in this database`},
		"a view":                       {many("w", []string{"public.v"}), "tables.0: public.v is a view"},
		"a pattern without tables":     {many("w", []string{"public.a", "nothing.*"}), "tables.1: nothing.* matches no table that can be watched"},
		"Rowhook's own":                {many("w", []string{"rowhook.*"}), "matches no table"},
		"the system's":                 {many("w", []string{"pg_catalog.*"}), "matches no table"},
		"an exception that is not one": {many("w", []string{"billing.*"}, except("billing.drafts")), "except.0: there is no table billing.drafts"},
		"a column":                     {many("w", []string{"public.a", "public.b"}, payload("id", "w")), `payload.columns.1: the table public.a has no column "w"`},
		"a column of many":             {many("w", []string{"billing.*"}, updatesOf("n")), `the table billing."Lines" has no column "n"; did you mean v? (and likewise for billing.invoices, billing.tmp_1)`},
		"when":                         {many("w", []string{"public.a", "public.b"}, when("new.w = 1"), updatesOf()), `when: for public.a: column new.w does not exist`},
		"no primary key":               {many("w", []string{"other.*"}, orderBy()), "order: other.x has no primary key"},
		"a partition beside the whole": {many("w", []string{"public.parts", "public.parts_1"}), "tables.1: public.parts_1 is a partition of public.parts"},
		"a partition left out":         {many("w", []string{"public.parts*"}, except("public.parts_1")), "except.0: public.parts_1 is a partition"},
		"both":                         {many("w", []string{"public.a"}, func(s *trigger.Spec) { s.Table = "public.b" }), "either a table or tables"},
		"no pattern":                   {many("w", []string{"a.b.c"}), "tables: a.b.c has more than a schema and a table"},
	} {
		require.Contains(t, w.rejects(t, c.spec), c.want, name)
	}
	w.apply(t, many("w", []string{"public.parts*"}))
	w.do(t, "insert into parts values (1)")
	require.Equal(t, []string{`w public.parts I {"id":1}`}, w.of(t), "once")
}

func TestTablesThatCantBeWatchedAreLeftOutOfPatterns(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create schema s; create table s.a (id int); create table s.b (id int); create extension if not exists postgres_fdw; "+
		"create server f foreign data wrapper postgres_fdw; create foreign table s.c (id int) server f; create view s.d as select 1 as id")
	plan := w.plan(t, many("w", []string{"s.*"}))
	require.Contains(t, plan.String(), "! w: 1 of the tables that its patterns match are not watched: s.c (it is a foreign table): name them in except")
	require.NotContains(t, plan.String(), "s.d", "a view is no table")
	require.NotContains(t, w.plan(t, many("w", []string{"s.*"}, except("s.c"))).String(), "!")
}

// TestUncapturedTablesOfATriggerAreFound changes tables of a trigger with several.
func TestUncapturedTablesOfATriggerAreFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		meddle, problem, remedy string
		with                    []func(*trigger.Spec)
		note                    string // of one of the tables
	}{
		"all is well":          {},
		"one is renamed":       {meddle: "alter table billing.tmp_1 rename to tmp_2"},
		"one leaves":           {meddle: "alter table billing.tmp_1 set schema public", note: "public.tmp_1: its name matches no longer, and the next apply ends its captures"},
		"one is dropped":       {meddle: "drop table billing.tmp_1", note: "billing.tmp_1: it was dropped, and the next apply forgets it"},
		"a named one dropped":  {meddle: "drop table a", problem: "the table public.a was dropped", remedy: `create it again and run "rowhook apply", or remove it from tables in rowhook.yaml`},
		"one comes":            {meddle: "create table billing.more (id int, v text)", note: "billing.more: it is watched from the next apply on"},
		"one comes, to follow": {"create table billing.more (id int, v text)", "billing.more matches its tables, but is not watched yet", `run "rowhook apply"`, []func(*trigger.Spec){follow}, ""},
		"swapped": {meddle: "alter table billing.tmp_1 rename to old; create table billing.tmp_1 (id int, v text)",
			problem: "billing.tmp_1 is another table now, and is not captured: the watched table is now called billing.old", remedy: `run "rowhook apply" to watch the table that has the name now`, note: "billing.tmp_1: it is watched from the next apply on"},
		"two swapped":       {meddle: "alter table billing.tmp_1 rename to old; alter table billing.invoices rename to tmp_1; alter table billing.old rename to invoices"},
		"disabled":          {meddle: "alter table billing.tmp_1 disable trigger all; alter table a disable trigger all", problem: `the capture trigger rowhook_w_delete, rowhook_w_insert, rowhook_w_update on billing.tmp_1 is disabled; the capture trigger rowhook_w_delete, rowhook_w_insert, rowhook_w_update on public.a is disabled`, remedy: `run "rowhook apply"`},
		"a function gone":   {"drop function " + "rowhook.payload_10000000001", "the functions of the capture trigger were dropped, so writes to", `run "rowhook apply"`, []func(*trigger.Spec){payload("id")}, ""},
		"a trigger dropped": {meddle: "drop trigger rowhook_w_insert on billing.tmp_1", problem: "the capture trigger rowhook_w_insert on billing.tmp_1 was dropped", remedy: `run "rowhook apply"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, threeTables)
			spec := many("w", []string{"public.a", "billing.*"}, c.with...)
			w.apply(t, spec)
			w.do(t, c.meddle)
			found, err := sqlschema.FindUncaptured(t.Context(), w.conn)
			require.NoError(t, err)
			if c.problem == "" {
				require.Empty(t, found)
			} else {
				require.Len(t, found, 1)
				require.Contains(t, found[0].Problem, c.problem)
				require.Equal(t, c.remedy, found[0].Remedy)
			}
			tables, err := sqlschema.FindWatchedTables(t.Context(), w.conn, "w")
			require.NoError(t, err)
			var notes []string
			for _, table := range tables {
				if table.Note != "" {
					notes = append(notes, table.Table+": "+table.Note)
				}
			}
			if c.note != "" || len(c.with) == 0 {
				require.Equal(t, c.note, strings.Join(notes, "\n"))
			}
			if name == "a named one dropped" {
				return
			}
			w.apply(t, spec)
			found, err = sqlschema.FindUncaptured(t.Context(), w.conn)
			require.NoError(t, err)
			require.Empty(t, found)
		})
	}
}

func TestFollowWatchesNewTablesAndChangesNothingElse(t *testing.T) {
	t.Parallel()
	w := newWatched(t, threeTables)
	followed, other := many("f", []string{"later.*"}, follow, payload("id")), many("o", []string{"billing.*"})
	w.apply(t, followed, other)
	joined, may, err := sqlschema.Applier{}.Follow(t.Context(), w.conn, quiet())
	require.NoError(t, err)
	require.True(t, may)
	require.Empty(t, joined)
	w.do(t, "create schema later; create table later.x (id int); create table later.y (id int, v text); create table later.z (v text); create table billing.more (id int); drop trigger rowhook_o_insert on billing.tmp_1")
	joined, _, err = sqlschema.Applier{}.Follow(t.Context(), w.conn, quiet())
	require.NoError(t, err)
	require.Equal(t, []sqlschema.Joined{{"f", "later.x"}, {"f", "later.y"}}, joined, "later.z has no column id")
	w.do(t, "insert into later.x values (1)", "insert into later.y values (2, 'y')", "insert into later.z values ('z')", "insert into billing.more values (3)", "insert into billing.tmp_1 values (4)")
	require.Equal(t, []string{`f later.x I {"id":1}`, `f later.y I {"id":2}`}, w.of(t))
	joined, _, err = sqlschema.Applier{}.Follow(t.Context(), w.conn, quiet())
	require.NoError(t, err)
	require.Empty(t, joined)
	require.Contains(t, w.scalar(t, "select string_agg(detail::text, ' ') from rowhook.audit"), "+ table later.x of f")
	w.do(t, "drop table later.z")
	changes := []string{}
	for _, c := range w.plan(t, followed, other).Changes() {
		if c.Trigger == "f" {
			changes = append(changes, c.String())
		}
	}
	require.Empty(t, changes, "an apply finds them as it would make them")

	dispatcher := w.role(t)
	_, err = sqlschema.Grant(t.Context(), w.conn, []string{dispatcher})
	require.NoError(t, err)
	w.do(t, "create table later.w (id int)", "set role "+dispatcher)
	joined, may, err = sqlschema.Applier{}.Follow(t.Context(), w.conn, quiet())
	require.NoError(t, err)
	require.False(t, may)
	require.Empty(t, joined)
	found, err := sqlschema.FindUncaptured(t.Context(), w.conn)
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(found, func(u sqlschema.Uncaptured) bool { return u.Trigger == "f" && u.Unwatched }))
	w.do(t, "reset role")
}

// uncaptured returns what FindUncaptured says.
func (w watched) uncaptured(t *testing.T) []sqlschema.Uncaptured {
	t.Helper()
	found, err := sqlschema.FindUncaptured(t.Context(), w.conn)
	require.NoError(t, err)
	return found
}

// TestAWayDownKeepsWhatSeveralTablesCapture goes to version 6 of the schema and back.
func TestAWayDownKeepsWhatSeveralTablesCapture(t *testing.T) {
	t.Parallel()
	for _, with := range [][]func(*trigger.Spec){nil, {payload("id")}, {orderBy()}} {
		w := newWatched(t, threeTables)
		specs := []trigger.Spec{many("w", []string{"public.*"}, with...), many("v", []string{"billing.*"}), many("alone", []string{"a", "b"})}
		w.apply(t, specs...)
		require.NoError(t, sqlschema.MigrateTo(t.Context(), w.conn, 6, quiet()))
		w.do(t, "insert into a (id) values (1)", "insert into b (id) values (2)")
		require.Len(t, w.of(t), 4)
		require.Empty(t, w.uncaptured(t), "a program of version 7 that stands still on version 6")
		// A program of version 6 removes a trigger, and gives another one a single table.
		w.do(t, "update rowhook.trigger set removed_at = now() where name = 'v'", "update rowhook.trigger set spec = spec - 'tables' || '{\"table\": \"public.a\"}' where name = 'alone'")
		require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, quiet()))
		w.do(t, "insert into a (id) values (3)", "insert into b (id) values (4)")
		require.Len(t, w.of(t), 4)
		require.Equal(t, "w a, w b", w.scalar(t, "select string_agg(t.name || ' ' || m.watched, ', ' order by m.watched) from rowhook.trigger_table m join rowhook.trigger t on t.id = m.trigger_id"))
		w.do(t, "delete from rowhook.trigger where name = 'alone'")
		require.Empty(t, w.uncaptured(t))
		w.do(t, "drop table b cascade")
		require.Empty(t, w.uncaptured(t))
	}
}

// TestACopyOfSeveralTablesIsPutRight loads a dump into a database in which oids are others.
func TestACopyOfSeveralTablesIsPutRight(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	w := newWatched(t, threeTables)
	spec := many("w", []string{"public.*", "billing.*"}, payload("id"))
	w.apply(t, spec)
	w.do(t, "alter table b rename to c", "drop table billing.tmp_1 cascade")
	dump := w.Dump(t)
	copied := watched{DB: pgtest.NewEmpty(t)}
	copied.Exec(t, "create table moves_the_oids (id int)")
	copied.Load(t, dump)
	copied.conn = copied.Conn(t)
	copied.do(t, "drop table moves_the_oids")
	copied.do(t, "update rowhook.relation set oid = (oid::bigint + 1000000)::oid, home = 1") // as in another cluster
	found, err := sqlschema.FindUncaptured(t.Context(), copied.conn)
	require.NoError(t, err)
	for _, u := range found { // their rows' types have other oids, so the conditions have other texts
		require.NotContains(t, u.Problem, "was dropped", "tables are found by what the dump calls them")
	}
	copied.do(t, "insert into a (id) values (1)", "insert into c (id) values (1)")
	copied.apply(t, spec)
	copied.do(t, "insert into a (id) values (2)", "insert into c (id) values (2)", "insert into billing.invoices (id) values (2)")
	require.Equal(t, []string{`w public.a I {"id":1}`, `w public.c I {"id":1}`, `w public.a I {"id":2}`, `w public.c I {"id":2}`, `w billing.invoices I {"id":2}`}, copied.of(t))
}

func TestUninstallLeavesNothingOnSeveralTables(t *testing.T) {
	t.Parallel()
	w := newWatched(t, threeTables)
	w.do(t, "alter table a owner to "+w.role(t))
	w.apply(t, many("w", []string{"public.*", "billing.*"}, orderBy(), payload("id")))
	require.NoError(t, sqlschema.Uninstall(t.Context(), w.conn, quiet()))
	require.Equal(t, "0", w.scalar(t, "select count(*) from pg_trigger where not tgisinternal"))
	w.do(t, "insert into a (id) values (1)", "insert into b (id) values (1)")
}

func TestATriggerWithSeveralTablesMayComeAfterOneOfThemAlone(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table a (id int primary key); create table b (id int primary key)")
	w.apply(t, all("alone", "a"), many("both", []string{"public.a", "public.b"}), all("later", "b"))
	w.do(t, "insert into a values (1)", "insert into b values (2)")
	require.ElementsMatch(t, []string{
		`alone I null {"id":1}`, `both I null {"id":1}`, `both I null {"id":2}`, `later I null {"id":2}`,
	}, w.take(t))
}
