package sqlschema_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// orderBy gives a trigger an order. No columns: that of the primary key.
func orderBy(columns ...string) func(*trigger.Spec) {
	if len(columns) == 0 {
		columns = []string{trigger.OrderByRow}
	}
	return func(s *trigger.Spec) { s.Order.By = columns }
}

// places returns the events in the order of their seq as "op key", with a mark for what is wrong
// with an event: that it is not parked, or not in the lane of its key. Changes of a key are
// "op old -> new".
func (w watched) places(t *testing.T) string {
	t.Helper()
	return w.scalar(t, `
select coalesce(string_agg(concat(e.op, ' ', m.key || ' -> ', coalesce(e.key, 'none'),
         case when e.key is not null and e.due_at - interval '1752000 hours' not between clock_timestamp() - interval '1 minute' and clock_timestamp() then ' not parked' end,
         case when e.key is null and (e.due_at > clock_timestamp() or e.lane is not null) then ' parked' end,
         case when e.lane <> rowhook.lane_of(e.key) or e.lane not between 0 and 63 or (e.lane is null) <> (e.key is null) then ' in a wrong lane' end,
         case when m.lane <> rowhook.lane_of(m.key) or m.seq <> e.seq or m.trigger_id <> e.trigger_id then ' moved wrongly' end), ', ' order by e.seq, e.created_at), '')
  from rowhook.event_log e left join rowhook.key_move m on m.event_id = e.id`)
}

func TestOrderedCapturesWriteTheKeyOfTheRow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		setup, writes, want string
		spec                trigger.Spec
	}{
		"by the primary key": {
			"create table t (id int primary key, a int)", "insert into t values (1, 1), (2, 2); update t set a = 3 where id = 2; delete from t where id = 1",
			"I [1], I [2], U [2], D [1]", all("w", "t", orderBy()),
		},
		"row by row": {
			"create table t (id int primary key, a int)", "insert into t values (1, 1), (2, 2); update t set a = 3 where id = 2; delete from t where id = 1",
			"I [1], I [2], U [2], D [1]", all("w", "t", orderBy(), capturedBy(trigger.CaptureRows)),
		},
		"by columns of several types": {
			"create table t (id int primary key, a text, b numeric, c bool)", `insert into t values (1, 'a"b', 1.10, true), (2, null, 'NaN', null); update t set id = 3 where id = 2`,
			`I ["a\"b",1.1,true], I [null,"NaN",null], U [null,"NaN",null]`, all("w", "t", orderBy("a", "b", "c")),
		},
		"a key that changes": {
			"create table t (id int primary key, a int)", "insert into t values (1, 1); update t set id = 5; update t set a = 9",
			"I [1], U [1] -> [5], U [5]", all("w", "t", orderBy()),
		},
		"with chosen columns": {
			"create table t (id int primary key, a int)", "insert into t values (1, 1); update t set id = 5", "I [1], U [1] -> [5]", all("w", "t", orderBy(), payload("a")),
		},
		"with when": {
			"create table t (id int primary key, a int)", "insert into t values (1, 1), (2, 2)", "I [2]",
			all("w", "t", orderBy(), when("new.a > 1"), func(s *trigger.Spec) { s.On = trigger.On{Insert: true} }),
		},
		"of a partitioned table": {
			"create table t (id int, a int, primary key (id)) partition by range (id); create table t1 (a int, junk int, id int not null); alter table t1 drop column junk; alter table t attach partition t1 for values from (0) to (10); " +
				"create table t2 partition of t for values from (10) to (20)",
			"insert into t values (1, 1), (11, 1); insert into t1 (id, a) values (2, 2); update t set a = 2 where id = 11; update t set id = 12 where id = 1",
			"I [1], I [11], I [2], U [11], D [1], I [12]", all("w", "t", orderBy()),
		},
		"of one partition": {
			"create table t (id int, a int, primary key (id)) partition by range (id); create table t1 partition of t for values from (0) to (10)",
			"insert into t values (1, 1); insert into t1 values (2, 1)", "I [1], I [2]", all("w", "t1", orderBy()),
		},
		"with dropped columns and a generated one": {
			`create table "T" (x int, "i,D" int primary key, y int, g text generated always as ('g' || "i,D") stored); alter table "T" drop column x, drop column y`,
			`insert into "T" values (1), (2); update "T" set "i,D" = 3 where "i,D" = 2`, `I ["g1"], I ["g2"], U ["g2"] -> ["g3"]`, all("w", `"T"`, orderBy("g")),
		},
		"of a table that is called as variables are": {
			`create table "key" ("key" int primary key, was int, event int, place int, r int, x int, k int, session int)`, `insert into "key" values (1, 2, 3, 4, 5, 6, 7, 8); update "key" set "key" = 2`,
			"I [1], U [1] -> [2]", all("w", `"key"`, orderBy()),
		},
		"without changes there are no events": {
			"create table t (id int primary key, a int)", "insert into t select 1, 1 where false; update t set a = a", "", all("w", "t", orderBy()),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, c.setup, c.spec)
			for _, sql := range strings.Split(c.writes, "; ") {
				w.do(t, sql)
			}
			require.Equal(t, c.want, w.places(t))
			require.Equal(t, "64", w.scalar(t, "select count(*) from rowhook.lane where owner is null"))
		})
	}
}

func TestOrderedCapturesHoldWhatOthersDo(t *testing.T) {
	t.Parallel()
	setup := "create table t (id int primary key, a jsonb, b numeric); create table u (id int primary key, a jsonb, b numeric)"
	w := newWatched(t, setup, all("t", "t"), all("u", "u", orderBy()))
	for _, table := range []string{"t", "u"} {
		w.do(t, "set rowhook.session = '{\"user\": 1}'", "insert into "+table+` values (1, '{"x": 1}', 1.10)`, "update "+table+" set b = 2", "delete from "+table)
	}
	require.Equal(t, "3", w.scalar(t, `
select count(*) from rowhook.event_log a join rowhook.event_log b on b.trigger_id <> a.trigger_id and (b.op, b.old::text, b.new::text, b.session::text, b.trace::text) is not distinct from (a.op, a.old::text, a.new::text, a.session::text, a.trace::text)
 where a.trigger_id = (select id from rowhook.trigger where name = 't')`))
}

func TestEqualKeysHaveEqualTextAndOthersHaveNot(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 300)
	for typ, c := range map[string]struct{ equal, different []string }{
		"numeric":        {[]string{"1.1", "1.10", "1.100"}, []string{"1.11", "'NaN'", "0"}},
		"float8":         {[]string{"0", "'-0'"}, []string{"'NaN'", "'Infinity'", "0.1", "0.30000000000000004", "0.3"}},
		"float4":         {[]string{"0", "'-0'"}, []string{"'NaN'", "0.1", "0.2"}},
		"char(5)":        {[]string{"'a'", "'a  '"}, []string{"'b'", "''"}},
		"varchar(400)":   {[]string{"'a'"}, []string{"'a '", "'A'", "'" + long + "'", "'" + long + "b'", "'[1]'", "'null'"}},
		"timestamptz":    {[]string{"'2026-01-01 12:00+02'", "'2026-01-01 10:00+00'"}, []string{"'2026-01-01 10:00:00.000001+00'", "'infinity'"}},
		"timestamp":      {[]string{"'2026-01-01'", "'2026-01-01 00:00:00.000'"}, []string{"'-infinity'"}},
		"date":           {[]string{"'2026-01-01'", "'20260101'"}, []string{"'2026-01-02'", "'0044-03-15 BC'"}},
		"bytea":          {[]string{`'\x6162'`, "'ab'"}, []string{"''", "decode(repeat('00', 300), 'hex')", "decode(repeat('01', 300), 'hex')"}},
		"inet":           {[]string{"'10.0.0.1'", "'10.0.0.1/32'"}, []string{"'10.0.0.1/8'", "'::1'"}},
		"uuid":           {[]string{"'0199A8E2-7C5D-7A3E-9F10-2B7F4C1D8E90'", "'0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90'"}, []string{"'0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e91'"}},
		"mood":           {[]string{"'ok'"}, []string{`'the "best"'`}},
		"positive":       {[]string{"1", "1.0"}, []string{"2"}},
		"name":           {[]string{"'a'"}, []string{"'b'"}},
		"boolean":        {[]string{"true", "'yes'"}, []string{"false"}},
		"oid":            {[]string{"1"}, []string{"4000000000"}},
		"time":           {[]string{"'10:00'"}, []string{"'24:00'", "'00:00'"}},
		"macaddr":        {[]string{"'08:00:2b:01:02:03'", "'08002b010203'"}, []string{"'08:00:2b:01:02:04'"}},
		"cidr":           {[]string{"'10.0.0.0/8'", "'10'"}, []string{"'10.0.0.0/9'"}},
		"bigint":         {[]string{"1"}, []string{"9223372036854775807", "-9223372036854775808"}},
		"smallint":       {[]string{"1"}, []string{"-1"}},
		"text":           {[]string{"'1'"}, []string{"'01'"}},
		"text collate c": {[]string{"'ä'"}, []string{"'a'"}},
	} {
		t.Run(typ, func(t *testing.T) {
			t.Parallel()
			column := strings.Replace(typ, "collate c", `collate "C"`, 1)
			w := newWatched(t, "create type mood as enum ('ok', 'the \"best\"'); create domain number as numeric; create domain positive as number check (value > 0); create table t (a "+column+")", all("w", "t", orderBy("a")))
			w.do(t, "set timezone to 'Asia/Kathmandu'", "set datestyle to 'German'", "set extra_float_digits to -10", "set bytea_output to 'escape'")
			for _, v := range append(c.equal, append(c.different, "null")...) {
				w.do(t, "insert into t values ("+v+")")
			}
			keys := w.scalar(t, "select string_agg(key, ' ' order by seq) from rowhook.event_log")
			require.Equal(t, fmt.Sprint(2+len(c.different)), w.scalar(t, "select count(distinct key) from rowhook.event_log"), keys)
			require.Equal(t, "1", w.scalar(t, "select count(distinct key) from (select key from rowhook.event_log order by seq limit $1::integer) e", len(c.equal)), keys)
			require.Equal(t, "[null]", w.scalar(t, "select key from rowhook.event_log order by seq desc limit 1"))
			require.Equal(t, "true", w.scalar(t, "select max(length(key)) < 250 and bool_and(key::jsonb is not null) from rowhook.event_log"))
		})
	}
}

func TestApplyNamesWhatIsWrongWithAKey(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create type pair as (a int, b int); create domain doc as jsonb;
		create table t (id int, j json, jb jsonb, d doc, x xml, arr int[], r int4range, iv interval, tz timetz, p pair, m money, pt point, v tsvector); create table u ("my id" int primary key)`)
	if w.scalar(t, "select count(*) from pg_collation where collprovider = 'i'") != "0" {
		w.do(t, "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); alter table t add column nd text collate ci")
		require.Contains(t, w.rejects(t, all("w", "t", orderBy("nd"))), "the column nd of public.t has a nondeterministic collation")
	}
	for _, c := range []struct{ column, typ string }{
		{"j", "json"}, {"jb", "jsonb"}, {"d", "doc"}, {"x", "xml"}, {"arr", "integer[]"}, {"r", "int4range"}, {"iv", "interval"}, {"tz", "time with time zone"},
		{"p", "pair"}, {"m", "money"}, {"pt", "point"}, {"v", "tsvector"},
	} {
		message := w.rejects(t, all("w", "t", orderBy("id", c.column)))
		require.Contains(t, message, `trigger "w": order.by.1: `)
		require.Contains(t, message, "the column "+c.column+" of public.t is of type ")
		require.Contains(t, message, c.typ)
		require.Contains(t, message, "add a generated column")
	}
	require.Contains(t, w.rejects(t, all("w", "t", orderBy())), "public.t has no primary key, by which \"row\" orders the events of a row: add one, or name the columns of the key, such as order: {by: [id]}")
	require.Contains(t, w.rejects(t, all("w", "u", orderBy("my_id"))), `the table public.u has no column "my_id"; did you mean my id?`)
	many := make([]string, 33)
	for i := range many {
		many[i] = fmt.Sprintf("c%d", i)
	}
	w.do(t, "create table wide ("+strings.Join(many, " int, ")+" int)")
	require.Contains(t, w.rejects(t, all("w", "wide", orderBy(many...))), "a key has at most 32 columns, and these are 33")
	w.apply(t, all("w", "wide", orderBy(many[:32]...)))
	w.do(t, "insert into wide (c0, c31) values (1, 2)")
	require.Equal(t, "I [1"+strings.Repeat(",null", 30)+",2]", w.places(t))
}

func TestLatestIsForKeysOfOneRow(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int, b int, c int, primary key (a, b)); create table none (a int)")
	latest := func(s *trigger.Spec) { s.Order.Latest = true }
	message := w.rejects(t, all("w", "t", orderBy("a", "c"), latest))
	require.Contains(t, message, `trigger "w": order.latest: `)
	require.Contains(t, message, "may have changes of several rows: order by row")
	require.Contains(t, w.rejects(t, all("w", "none", orderBy("a"), latest)), "order.latest: ")
	w.apply(t, all("w", "t", orderBy("c", "b", "a"), latest))
	w.apply(t, all("w", "t", orderBy(), latest))
}

func TestAPlanWarnsOfAnOrderThatDoesLessThanItSeems(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create table t (id int primary key, a int, "B" int)`)
	strict := func(s *trigger.Spec) { s.Order.Strict = true }
	columns := func(names ...string) func(*trigger.Spec) {
		return func(s *trigger.Spec) { s.On.Update.Columns = names }
	}
	for _, c := range []struct {
		want string
		spec trigger.Spec
	}{
		{"w: order.strict is of no use", all("w", "t", orderBy(), strict)},
		{"w: order.strict is of no use", all("w", "t", orderBy("a", "id"), strict)},
		{"", all("w", "t", orderBy("a"), strict)},
		{`if it is captured: add a, "B" to on.update.columns`, all("w", "t", orderBy("a", "B"), columns("id"))},
		{`add "B" to on.update.columns`, all("w", "t", orderBy("a", "B"), columns("id", "a"))},
		{"", all("w", "t", orderBy("a"), columns("id", "a"))},
		{"", all("w", "t", orderBy("a"))},
		{"", all("w", "t", orderBy(), columns("a"))},
	} {
		warnings := w.plan(t, c.spec).Warnings
		if c.want == "" {
			require.Empty(t, warnings)
			continue
		}
		require.Len(t, warnings, 1)
		require.Contains(t, warnings[0], c.want)
	}
}

// rejects plans a spec that has a fault, and returns the message.
func (w watched) rejects(t *testing.T, spec trigger.Spec) string {
	t.Helper()
	_, err := sqlschema.MakePlan(t.Context(), w.conn, []trigger.Spec{spec}, trigger.DefaultSettings())
	var faults trigger.SpecErrors
	require.ErrorAs(t, err, &faults)
	return err.Error()
}

func TestVirtualColumnsAreNoKey(t *testing.T) {
	t.Parallel()
	if pgtest.Version(t) < 18 {
		return
	}
	w := newWatched(t, "create table t (id int primary key, v int generated always as (id * 2) virtual)")
	require.Contains(t, w.rejects(t, all("w", "t", orderBy("v"))), "is a virtual generated column")
	w.apply(t, all("w", "t", orderBy()))
	w.do(t, "insert into t values (1)")
	require.Equal(t, "I [1]", w.places(t))
	require.Equal(t, `{"id":1,"v":2}`, w.scalar(t, "select new from rowhook.event_log"))
}

func TestCitextIsAKeyInAnyCase(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := watched{db, db.Conn(t)}
	if w.scalar(t, "select count(*) from pg_available_extensions where name = 'citext'") == "0" {
		return
	}
	w.do(t, "create schema ext; create extension citext schema ext", "create table t (a ext.citext primary key)")
	w.apply(t, all("w", "t", orderBy()))
	w.do(t, "insert into t values ('Ab')", "update t set a = 'aB'", "update t set a = 'ac'")
	require.Equal(t, `I ["ab"], U ["ab"], U ["ab"] -> ["ac"]`, w.places(t))
}

func TestAKeyFollowsRenamesAndItsColumnsStay(t *testing.T) {
	t.Parallel()
	for _, how := range []string{trigger.CaptureRows, ""} {
		t.Run("captured by "+how, func(t *testing.T) {
			t.Parallel()
			spec := all("w", "t", orderBy("id"), capturedBy(how))
			w := newWatched(t, "create table t (x int, id int primary key, a int)", spec)
			w.do(t, "alter table t rename id to number", "alter table t rename to u", "create schema s", "alter table u set schema s", "create table t (number text)", "alter table s.u drop column x",
				"insert into s.u values (1, 1), (2, 2)", "update s.u set number = 3 where number = 1", "insert into s.u select 5, 5 where false")
			require.Equal(t, "I [1], I [2], U [1] -> [3]", w.places(t))
			for _, sql := range []string{"alter table s.u drop column number", "alter table s.u alter column number type bigint"} {
				require.Contains(t, w.fails(t, sql), "SQLSTATE")
			}
			none, err := sqlschema.FindUncaptured(t.Context(), w.conn)
			require.NoError(t, err)
			require.Len(t, none, 1, "another table has the name now")
			w.do(t, "drop table t")
			spec.Table, spec.Order.By = "s.u", []string{"number"}
			none, err = sqlschema.FindUncaptured(t.Context(), w.conn)
			require.NoError(t, err)
			require.Empty(t, none)

			// No write fails if the column is dropped all the same.
			w.do(t, "truncate rowhook.event_log", "alter table s.u drop column number cascade", "insert into s.u values (9)")
			if how == "" {
				require.Equal(t, "I none", w.places(t))
			}
			none, err = sqlschema.FindUncaptured(t.Context(), w.conn)
			require.NoError(t, err)
			require.Len(t, none, 1)
			require.Contains(t, none[0].Problem, "was dropped")
			spec.Order.By = []string{"a"}
			w.apply(t, spec)
			w.do(t, "truncate rowhook.event_log", "insert into s.u values (9)")
			require.Equal(t, "I [9]", w.places(t))
		})
	}
}

func TestAPlanSaysHowTheOrderChanges(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a int)", all("w", "t"))
	lines := func(specs ...trigger.Spec) string {
		plan, err := sqlschema.MakePlan(t.Context(), w.conn, specs, trigger.DefaultSettings())
		require.NoError(t, err)
		w.apply(t, specs...)
		return plan.String()
	}
	w.do(t, "insert into t values (1, 1)")
	plan := lines(all("w", "t", orderBy()))
	require.Contains(t, plan, "~ trigger w: what waits by now is sent without order (1 waiting event follows)\n    order: row")
	require.Contains(t, plan, "+ function rowhook.payload_1")
	require.NotContains(t, plan, "lanes")
	require.Contains(t, lines(all("w", "t", orderBy("a"))), "w: what waits keeps the key that it has, and is in order with later events only by chance (")
	w.do(t, "delete from rowhook.lane where lane > 60")
	require.Equal(t, "~ lanes of w: 61 become 64", lines(all("w", "t", orderBy("a"))))
	require.Equal(t, "64", w.scalar(t, "select count(*) from rowhook.lane"))
	w.do(t, "alter table t drop constraint t_pkey; alter table t add primary key (a)")
	require.Contains(t, lines(all("w", "t", orderBy())), "order")
	plan = lines(all("w", "t"))
	require.Contains(t, plan, "~ trigger w: what waits is sent without order, now (")
	require.Contains(t, plan, "    order removed")
	require.Equal(t, "0", w.scalar(t, "select count(*) from rowhook.lane"))
	require.Equal(t, "0", w.scalar(t, "select count(*) from pg_proc where pronamespace = 'rowhook'::regnamespace and proname ~ '_1$'"))
	lines(all("w", "t", orderBy()))
	lines()
	require.Equal(t, "0", w.scalar(t, "select count(*) from rowhook.lane"), "its trigger was removed")
	require.NoError(t, sqlschema.Uninstall(t.Context(), w.conn, quiet()))
}

func TestWhatWaitsInOrderIsFreedWhenTheOrderEnds(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a int); create table u (id int primary key)", all("w", "t", orderBy()), all("x", "u", orderBy()))
	w.do(t, "insert into t select n, n from generate_series(1, 5000) n", "insert into u values (1)",
		"update rowhook.event_log set due_at = due_at + interval '1 hour', tries = 1 where key = '[7]'")
	open, err := w.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = open.Exec(t.Context(), "insert into rowhook.event_log (id, trigger_id, op, key, lane, seq, due_at) values (rowhook.uuid7(), 1, 'I', '[1]', 1, 1, now() + interval '1752000 hours')")
	require.NoError(t, err)
	w.apply(t, all("w", "t"), all("x", "u", orderBy()))
	const free = "select count(*) from rowhook.event_log where trigger_id = 1 and key is null and lane is null and seq is not null and due_at <= clock_timestamp()"
	require.Equal(t, "4999", w.scalar(t, free))
	require.Equal(t, "1", w.scalar(t, "select count(*) from rowhook.event_log where trigger_id = 1 and tries = 1 and due_at between now() + interval '50 minutes' and now() + interval '1 hour'"))
	require.Equal(t, "1", w.scalar(t, "select count(*) from rowhook.event_log where trigger_id = 2 and due_at > '2150-01-01' and key is not null"))
	require.NoError(t, open.Commit(t.Context()))
	n, err := queue.Unpark(t.Context(), w.conn)
	require.NoError(t, err)
	require.Equal(t, int64(1), n)
	require.Equal(t, "5000", w.scalar(t, free))
}

// The functions of captures are still called after a way down, until an older program applies.
func TestAfterAWayDownOrderedCapturesRecordAsOthersDo(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a int)", all("w", "t", orderBy()), all("r", "t", orderBy(), capturedBy(trigger.CaptureRows)))
	w.do(t, "insert into t values (1, 1)", "update t set id = 2")
	// A write that waits for the migration.
	writer := w.Conn(t)
	tx, err := writer.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "insert into t values (8, 1)") // its plans are cached
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, sqlschema.MigrateTo(t.Context(), w.conn, queue.OrderedSchema-1, quiet()))
	for _, conn := range []watched{w, {w.DB, writer}} {
		conn.do(t, "insert into t values (3, 3)", "update t set id = 4 where id = 3", "delete from t where id = 4")
	}
	require.Equal(t, "true 16", w.scalar(t, "select concat_ws(' ', bool_and(due_at <= clock_timestamp() and key is null and lane is null)::text, count(*)) from rowhook.event_log"))
	require.Equal(t, "0", w.scalar(t, "select count(*) from rowhook.key_move"))
	require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, quiet()))
	w.do(t, "truncate rowhook.event_log")
	w.apply(t, all("w", "t", orderBy()), all("r", "t", orderBy(), capturedBy(trigger.CaptureRows)))
	w.do(t, "insert into t values (5, 5)", "update t set id = 6 where id = 5")
	require.Equal(t, "I [5], I [5], U [5] -> [6], U [5] -> [6]", w.places(t))
	require.Equal(t, "128", w.scalar(t, "select count(*) from rowhook.lane"))
}

func TestTheOwnerOfATableWritesKeysOfItsOwnTriggersAlone(t *testing.T) {
	t.Parallel()
	a := newAttack(t, all("victim", "shared", orderBy("a")), all("t", "mallory.t", orderBy("a")))
	require.Equal(t, "2", a.scalar(t, "select id from rowhook.trigger where name = 't'"))
	a.mallory.do(t, "insert into mallory.t values (1, 'x'), (2, 'y')", "update mallory.t set a = 3 where a = 1", "delete from mallory.t")
	require.Equal(t, "I [1], I [2], U [1] -> [3], D [2], D [3]", a.places(t))
	require.Equal(t, a.name, a.scalar(t, "select pg_get_userbyid(proowner) from pg_proc where proname = 'capture_2'"))
	a.do(t, "truncate rowhook.event_log, rowhook.key_move", "insert into shared values (1, 'x')")
	for _, sql := range []string{
		"insert into rowhook.ordered_2 (id, trigger_id, op, key, lane, seq) values (gen_random_uuid(), 1, 'I', '[1]', 1, 1)",
		"insert into rowhook.moves_2 (event_id, trigger_id, lane, seq, key) values (gen_random_uuid(), 1, 1, 1, '[1]')",
		"insert into rowhook.ordered_1 (id, trigger_id, op) values (gen_random_uuid(), 1, 'I')",
		"insert into rowhook.key_move (event_id, trigger_id, lane, seq, key) values (gen_random_uuid(), 2, 1, 1, '[1]')",
		"select * from rowhook.ordered_2", "select * from rowhook.moves_2", "update rowhook.ordered_2 set seq = 1", "delete from rowhook.moves_2",
		"select setval('rowhook.event_seq', 1)", "update rowhook.lane set owner = 1", "select * from rowhook.lane",
	} {
		_, err := a.mallory.conn.Exec(t.Context(), sql)
		require.Error(t, err, sql)
	}
	require.Equal(t, "I [1]", a.places(t))
	foreign, err := sqlschema.ForeignGrants(t.Context(), a.conn)
	require.NoError(t, err)
	for i := range foreign {
		require.NotContains(t, foreign[i].Problem(), "ordered_")
		require.NotContains(t, foreign[i].Problem(), "event_seq")
	}

	// Without the right to write keys every write would fail. An apply restores it.
	a.do(t, "revoke all on rowhook.moves_2 from "+a.name)
	plan := a.apply(t, all("victim", "shared", orderBy("a")), all("t", "mallory.t", orderBy("a")))
	require.Contains(t, plan.String(), "gets back the rights")
	a.mallory.do(t, "insert into mallory.t values (7, 'x')", "update mallory.t set a = 8")
	a.apply(t, all("victim", "shared", orderBy("a")), all("t", "mallory.t"))
	foreign, err = sqlschema.ForeignGrants(t.Context(), a.conn)
	require.NoError(t, err)
	for i := range foreign {
		require.NotContains(t, foreign[i].Problem(), "event_seq")
	}
	require.Equal(t, "0", a.scalar(t, "select count(*) from pg_class where relname in ('ordered_2', 'moves_2')"))
	a.apply(t, all("victim", "shared", orderBy("a")))
	require.Equal(t, "false", a.scalar(t, "select has_sequence_privilege($1, 'rowhook.event_seq', 'USAGE')", a.name))
}

// A key of a megabyte costs a hash.
func TestAKeyOfAnySizeCanBeWritten(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a text, b bytea, n int)", all("w", "t", orderBy("a", "b")))
	w.do(t, "insert into t values (repeat('ä', 1000000), convert_to(repeat('ab', 1000000), 'UTF8'), 1)", "update t set n = 2", "update t set a = a || 'b'")
	require.Equal(t, "3 2 true", w.scalar(t, "select concat_ws(' ', count(*), count(distinct key), (max(length(key)) < 300)::text) from rowhook.event_log"))
	require.Equal(t, "1", w.scalar(t, "select count(*) from rowhook.key_move"))
}

// The migration locks the queue, so that writers wait for it. What waits in order is freed before.
func TestAWayDownFreesWhatWaitsBeforeItLocksTheQueue(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key)", all("w", "t", orderBy()))
	w.do(t, "insert into t select generate_series(1, 5000)")
	holder := w.Conn(t)
	_, err := holder.Exec(t.Context(), "begin; select from rowhook.event_archive limit 1")
	require.NoError(t, err)
	done := make(chan error, 1)
	conn := w.Conn(t)
	go func() { done <- sqlschema.MigrateTo(t.Context(), conn, queue.OrderedSchema-1, quiet()) }()
	require.Eventually(t, func() bool {
		return w.scalar(t, "select count(*) from rowhook.event_log where due_at > '2150-01-01'") == "0"
	}, time.Minute, 5*time.Millisecond)
	require.NotEqual(t, fmt.Sprint(queue.OrderedSchema-1), w.scalar(t, "select version from rowhook.schema_version"), "that step waits for the holder")
	_, err = holder.Exec(t.Context(), "rollback")
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.Equal(t, "5000", w.scalar(t, "select count(*) from rowhook.event_log where due_at <= clock_timestamp() and lane is null"))
}
