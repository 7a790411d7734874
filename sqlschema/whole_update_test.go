package sqlschema_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// statements lists the operations of t that are captured by the statement.
const statements = `select coalesce(string_agg(substring(tgname from '[a-z]+$'), ' ' order by tgname), '') from pg_trigger
	where tgrelid = 't'::regclass and tgname like 'rowhook_s%' and tgtype & 1 = 0`

// byStatement and byRows are two triggers of the table t. What the second one captures is what the first
// one has to capture.
func byStatement(with ...func(*trigger.Spec)) []trigger.Spec {
	return []trigger.Spec{all("s", "t", append(with, capturedBy("statement"))...), all("r", "t", append(with, capturedBy("rows"))...)}
}

// same requires that both have recorded the same since the last call, and returns it.
func (w watched) same(t *testing.T, after ...string) []string {
	t.Helper()
	byTrigger := map[string][]string{}
	for _, event := range w.take(t) {
		name, rest, _ := strings.Cut(event, " ")
		byTrigger[name] = append(byTrigger[name], rest)
	}
	for _, events := range byTrigger {
		slices.Sort(events)
	}
	require.Equal(t, byTrigger["r"], byTrigger["s"], strings.Join(after, "\n"))
	return byTrigger["s"]
}

func TestUpdatesAndDeletesAreCapturedInEveryForm(t *testing.T) {
	t.Parallel()
	const three = "insert into t select i, i::text from generate_series(1, 3) i"
	for name, c := range map[string]struct {
		least  int // version of the server
		setup  string
		writes []string
		want   int // events
	}{
		"some rows":                  {writes: []string{"update t set v = 'x' where id > 1"}, want: 2},
		"nothing that changes":       {writes: []string{"update t set v = v"}},
		"no row":                     {writes: []string{"update t set v = 'x' where false", "delete from t where false"}},
		"one of three changes":       {writes: []string{"update t set v = '2'"}, want: 2},
		"keys that move":             {writes: []string{"update t set id = id + 1"}, want: 3},
		"keys that change places":    {writes: []string{"update t set id = 4 - id"}, want: 2},
		"in another order":           {writes: []string{"update t set v = s.v || 'x' from (select * from t order by id desc) s where s.id = t.id"}, want: 3},
		"deletes":                    {writes: []string{"delete from t where id <> 2"}, want: 2},
		"without a key":              {setup: "alter table t drop constraint t_pkey; insert into t values (1, '1'), (1, '1')", writes: []string{"update t set v = 'x' where id = 1"}, want: 3},
		"an upsert":                  {writes: []string{"insert into t values (5, 'x'), (3, 'y'), (1, 'x'), (2, '2') on conflict (id) do update set v = excluded.v"}, want: 3},
		"an upsert that updates all": {writes: []string{"insert into t select i, 'x' from generate_series(3, 1, -1) i on conflict (id) do update set v = excluded.v"}, want: 3},
		"a merge": {least: 15, writes: []string{`merge into t using (values (3), (9), (1), (2)) as s(id) on t.id = s.id
			when matched and s.id = 2 then delete when matched then update set v = 'm' || s.id when not matched then insert values (s.id, 'n')`}, want: 4},
		"two updates in one statement": {writes: []string{"with a as (update t set v = 'a' where id = 3 returning id) update t set v = 'b' where id < 3"}, want: 3},
		"all three in one statement": {
			writes: []string{"with a as (update t set v = 'a' where id = 3), b as (delete from t where id = 2) insert into t values (7, 'x')"}, want: 3,
		},
		"a trigger that changes the row first": {
			setup: `create function change() returns trigger language plpgsql as 'begin if new.id = 2 then return null; end if; new.v := upper(new.v) || old.v; new.id := new.id + 10; return new; end';
				create trigger change before update on t for each row execute function change()`,
			writes: []string{"update t set v = 'x'"}, want: 2,
		},
		"a trigger that updates, too": {
			setup: `create function again() returns trigger language plpgsql as 'begin update t set v = v || ''+'' where id = new.id % 3 + 1 and length(v) < 4; return null; end';
				create trigger again after update on t for each row execute function again()`,
			writes: []string{"update t set v = v || 'x'"}, want: 9,
		},
		"a rule that updates, too": {
			setup:  "create table u (id int); create rule too as on insert to u do also update t set v = v || new.id",
			writes: []string{"insert into u values (1), (2)"}, want: 3,
		},
		"a rule of the table": {
			setup:  "create rule instead as on update to t where old.id = 2 do instead delete from t where id = old.id",
			writes: []string{"update t set v = 'x'"}, want: 3,
		},
		"a view": {setup: "create view w as select id as a, v from t", writes: []string{"update w set v = 'x' where a > 1", "delete from w where a = 1"}, want: 3},
		"a foreign key that cascades": {
			setup: "create table parent (id int primary key); insert into parent select generate_series(1, 9); alter table t add p int default 1 references parent on update cascade on delete cascade; " +
				"update t set p = id where id < 3",
			writes: []string{"update parent set id = id + 20 where id < 4", "delete from parent where id = 22"}, want: 4,
		},
		"a foreign key that cascades into itself": {
			setup:  "alter table t add p int references t on update cascade; update t set p = id % 3 + 1",
			writes: []string{"update t set id = id + 10"}, want: 6,
		},
		"large values": {setup: "update t set v = (select string_agg(md5(i::text), '') from generate_series(1, 500) i)",
			writes: []string{"update t set id = id + 10", "update t set v = v || 'x' where id = 11"}, want: 4},
		"dropped and added columns": {setup: "alter table t add a int default 5, add b int; alter table t drop a; alter table t add c timestamptz default '2026-01-01Z'",
			writes: []string{"update t set b = id"}, want: 3},
		"rolled back in part": {writes: []string{"begin; update t set v = 'a' where id = 1; savepoint s; update t set v = 'b'; rollback to s; update t set v = 'c' where id = 2; commit"}, want: 2},
		"where current of":    {writes: []string{"begin; declare c cursor for select from t order by id desc for update; fetch 2 from c; update t set v = 'x' where current of c; commit"}, want: 1},
		"more than memory holds": {setup: "insert into t select i, repeat(i::text, 50) from generate_series(10, 3000) i; set work_mem = '64kB'",
			writes: []string{"update t set v = v || id"}, want: 2994},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if pgtest.Version(t) < c.least {
				return
			}
			w := newWatched(t, "create table t (id int primary key deferrable initially deferred, v text); "+three)
			if strings.Contains(name, "upsert") || strings.Contains(name, "foreign key") {
				w.do(t, "alter table t drop constraint t_pkey; alter table t add primary key (id)")
			}
			if c.setup != "" {
				w.do(t, c.setup)
			}
			w.apply(t, byStatement()...)
			require.Equal(t, "delete insert update", w.scalar(t, statements))
			w.do(t, c.writes...)
			require.Len(t, w.same(t), c.want)
		})
	}
}

// The random writes of many sessions' worth, on a table whose triggers change rows, with rows that refer
// to each other.
func TestRandomWritesAreCapturedByTheStatementAsByRows(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create table parent (id int primary key); insert into parent select generate_series(0, 200);
		create table t (id int primary key, k int, v text, p int references parent on update cascade on delete set null, big text);
		create function change() returns trigger language plpgsql as $$begin if new.k % 7 = 0 then return null; end if; if new.k % 5 = 0 then new.v := new.v || old.k; end if; return new; end$$;
		create trigger change before update on t for each row execute function change();
		insert into t select i, i % 10, i::text, i % 50, case when i % 3 = 0 then repeat(md5(i::text), 200) end from generate_series(1, 100) i`)
	w.apply(t, byStatement()...)
	require.Equal(t, "delete insert update", w.scalar(t, statements))
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	n := func() int { return r.IntN(120) }
	set := func() string {
		return []string{"v = v || 'x'", "v = left(t.v, 2)", "k = t.k + 1", "k = t.k", "big = t.v", "p = (t.k + 3) % 40", "v = t.v, k = -t.k"}[r.IntN(7)]
	}
	writes := []func() string{
		func() string { return fmt.Sprintf("update t set %s where id between %d and %d", set(), n(), n()+40) },
		func() string { return fmt.Sprintf("update t set %s where id = %d", set(), n()) },
		func() string { return "update t set id = id + 1000" },
		func() string { return "update t set id = id - 1000 where id > 1000" },
		func() string {
			return fmt.Sprintf("update t set %s from (select id from t order by random() limit %d) s where s.id = t.id", set(), n())
		},
		func() string {
			return fmt.Sprintf("insert into t select i, i %% 9, 'n', null, null from generate_series(%d, %d) i order by random() on conflict (id) do update set v = excluded.v || t.k", n(), n())
		},
		func() string {
			return fmt.Sprintf("with a as (update t set %s where id %% 2 = 0 returning id), b as (delete from t where id = %d) update t set %s where id %% 2 = 1", set(), n()|1, strings.ReplaceAll(set(), "p = (t.k + 3) % 40", "p = 1"))
		},
		func() string { return fmt.Sprintf("delete from t where id %% 37 = %d", n()%37) },
		func() string { return fmt.Sprintf("update parent set id = id + 500 where id = %d", n()) },
		func() string { return fmt.Sprintf("delete from parent where id = %d", n()) },
		func() string { return fmt.Sprintf("insert into parent values (%d) on conflict do nothing", n()) },
	}
	if pgtest.Version(t) >= 15 {
		writes = append(writes, func() string {
			return fmt.Sprintf(`merge into t using (select i from generate_series(%d, %d) i order by random()) s on t.id = s.i
				when matched and s.i %% 11 = 0 then delete when matched and s.i %% 3 = 0 then do nothing when matched then update set %s when not matched then insert values (s.i, s.i, 'm', null, null)`,
				n(), n(), strings.ReplaceAll(set(), "v = v", "v = t.v"))
		})
	}
	var done []string
	for range 150 {
		sql := writes[r.IntN(len(writes))]()
		done = append(done, sql)
		if _, err := w.conn.Exec(t.Context(), sql); err != nil {
			require.NotContains(t, err.Error(), "rowhook", "seed %d: %s", seed, sql)
			require.Regexp(t, "foreign key|duplicate key|with_check|already modified", err.Error(), "seed %d: %s", seed, sql)
		}
		w.same(t, fmt.Sprintf("seed %d", seed), sql)
	}
	require.NotEmpty(t, done)
}

// An update that waited for another one sees the row that the other one left, and captures that.
func TestAnUpdateByTheStatementThatWaitedCapturesWhatItFound(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, v text); insert into t select i, i::text from generate_series(1, 5) i", byStatement()...)
	other := watched{w.DB, w.Conn(t)}
	other.do(t, "begin", "update t set v = 'other' where id in (2, 4)", "delete from t where id = 3")
	pid := w.conn.PgConn().PID()
	done := make(chan error, 1)
	go func() {
		_, err := w.conn.Exec(t.Context(), "update t set v = v || '+' where v <> 'gone'")
		done <- err
	}()
	watch := w.Conn(t)
	require.Eventually(t, func() bool {
		var waits bool
		err := watch.QueryRow(t.Context(), "select exists (select from pg_locks where pid = $1 and not granted)", int32(pid)).Scan(&waits)
		return err == nil && waits
	}, time.Minute, 5*time.Millisecond, "the update waits")
	other.do(t, "commit")
	require.NoError(t, <-done)
	require.Contains(t, w.same(t), `U {"id":4,"v":"other"} {"id":4,"v":"other+"}`)
}

// A plan that was made for a statement with one row also serves one with many.
func TestPlansOfUpdatesByTheStatementDoNotDependOnTheFirst(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, v int); insert into t select i, 0 from generate_series(1, 30000) i", all("s", "t", capturedBy("statement")))
	for i := range 8 {
		w.do(t, fmt.Sprintf("update t set v = 1 where id = %d", i))
	}
	// A nested loop would compare 900 million pairs.
	w.do(t, "set statement_timeout = '100s'", "update t set v = v + 1", "reset statement_timeout")
	require.Equal(t, "30007", w.scalar(t, "select count(*) from rowhook.event_log where (old->>'v')::int + 1 = (new->>'v')::int and old->>'id' = new->>'id'"))
}

func TestUpdatesByTheStatementDoNotMindColumnNames(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create table t (r int, was int, became int, deleted int, place int, place_was int, whole int, old int, "new" int, session int, trace int, w int, b int, tg_argv int, id int, found bool)`, byStatement()...)
	w.do(t, "insert into t values (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, false)", "update t set place = 50, old = 80", "delete from t")
	require.Len(t, w.same(t), 3)
}

func TestUpdatesByTheStatementFollowAlterTable(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int, b int); insert into t values (0, 0), (1, 1)", byStatement()...)
	for _, step := range []string{
		"select 1", "alter table t add c text default 'c'", "alter table t drop b", "alter table t alter a type text using a::text", "alter table t rename a to z",
		"alter table t rename to u; alter table u rename to t", "alter table t add b timestamptz default now()", "alter table t drop c, drop b",
	} {
		column := "a"
		if w.do(t, step); w.scalar(t, "select exists (select from pg_attribute where attrelid = 't'::regclass and attname = 'z')") == "true" {
			column = "z"
		}
		w.do(t, "set timezone = 'Asia/Tokyo'", "update t set "+column+" = (length("+column+"::text) + 7)"+map[bool]string{true: "::text"}[w.scalar(t, "select pg_typeof("+column+")::text = 'text' from t limit 1") == "true"], "reset timezone")
		w.same(t, step)
	}
}

func TestUpdatesAreCapturedByTheStatementWhereTheTriggerSaysSo(t *testing.T) {
	t.Parallel()
	columns := func(s *trigger.Spec) { s.On.Update.Columns = []string{"v"} }
	onlyDeletes := func(s *trigger.Spec) { s.On = trigger.On{Delete: true} }
	byKey := func(s *trigger.Spec) { s.Order.By = []string{trigger.OrderByRow} }
	withoutOld := func(s *trigger.Spec) { s.Payload.Old = trigger.OldNone }
	statement := capturedBy("statement")
	for name, c := range map[string]struct {
		setup string
		with  []func(*trigger.Spec)
		whole string
		want  []string
	}{
		"auto":            {"", nil, "insert", nil},
		"rows":            {"", []func(*trigger.Spec){capturedBy("rows")}, "", nil},
		"statement":       {"", []func(*trigger.Spec){statement}, "delete insert update", nil},
		"certain columns": {"", []func(*trigger.Spec){statement, columns}, "delete insert", nil},
		"in order":        {"", []func(*trigger.Spec){statement, byKey}, "insert", nil},
		"updates":         {"", []func(*trigger.Spec){statement, updatesOf()}, "update", []string{`s U {"id":1,"v":"x"} {"id":1,"v":"y"}`}},
		"deletes":         {"", []func(*trigger.Spec){statement, onlyDeletes}, "delete", []string{`s D {"id":1,"v":"y"} null`}},
		"without the old row": {"", []func(*trigger.Spec){statement, withoutOld}, "delete insert update",
			[]string{`s I null {"id":1,"v":"x"}`, `s U null {"id":1,"v":"y"}`, `s D {"id":1,"v":"y"} null`}},
		"with a delay":  {"", []func(*trigger.Spec){statement, func(s *trigger.Spec) { s.Delay = trigger.Duration(3e9) }}, "delete insert update", nil},
		"with truncate": {"", []func(*trigger.Spec){statement, func(s *trigger.Spec) { s.On.Truncate = true }}, "delete insert truncate update", nil},
		"a parent":      {"create table c () inherits (t)", []func(*trigger.Spec){statement}, "insert", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, "create table t (id int primary key, v text)")
			if c.setup != "" {
				w.do(t, c.setup)
			}
			w.apply(t, all("s", "t", c.with...))
			require.Equal(t, c.whole, w.scalar(t, statements))
			w.do(t, "insert into t values (1, 'x')", "update t set v = v", "update t set v = 'y'", "delete from t")
			want := c.want
			if want == nil {
				want = []string{`s I null {"id":1,"v":"x"}`, `s U {"id":1,"v":"x"} {"id":1,"v":"y"}`, `s D {"id":1,"v":"y"} null`}
			}
			if name == "with a delay" {
				require.Equal(t, "3", w.scalar(t, "select count(*) from rowhook.event_log where due_at > created_at + interval '2 s'"))
			}
			require.Equal(t, want, w.take(t))
			if c.whole != "" && c.setup == "" {
				w.do(t, "create table p (id int not null, v text) partition by list (id)")
				require.Contains(t, w.fails(t, "alter table p attach partition t default"), `"rowhook_s_guard"`)
			}
			// To rows and back, under the same names.
			w.apply(t, all("s", "t", append(slices.Clone(c.with), capturedBy("auto"))...))
			w.do(t, "insert into t values (1, 'x')", "update t set v = 'y'", "delete from t")
			require.Len(t, w.take(t), len(want))
			w.apply(t, all("s", "t", c.with...))
			require.Equal(t, c.whole, w.scalar(t, statements))
			w.apply(t)
			require.Equal(t, "0", w.scalar(t, "select count(*) from pg_trigger where tgrelid = 't'::regclass and tgname like 'rowhook%'"))
		})
	}
}

func TestUpdatesByTheStatementOfAnUntrustedOwnerRunAsThatOwner(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, v text)")
	role, _ := w.Role(t)
	w.do(t, "alter table t owner to "+role)
	w.apply(t, byStatement()...)
	require.Equal(t, "delete insert update", w.scalar(t, statements))
	w.do(t, "insert into t select i, 'x' from generate_series(1, 3) i", "update t set id = id + 10, v = 'y'", "delete from t where id > 11")
	require.Len(t, w.same(t), 8)
}

// Captures of version 7 of the schema know nothing of such triggers, and every write would fail.
func TestAWayDownIsRefusedWhileUpdatesAreCapturedByTheStatement(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, v text)", all("s", "t", capturedBy("statement")))
	require.ErrorContains(t, sqlschema.MigrateTo(t.Context(), w.conn, 7, nil), "s captures updates or deletes by the statement")
	w.do(t, "insert into t values (1, 'x')", "update t set v = 'y'")
	require.Len(t, w.take(t), 2)
	w.apply(t, all("s", "t"))
	require.NoError(t, sqlschema.MigrateTo(t.Context(), w.conn, 7, nil))
	w.do(t, "update t set v = 'z'")
	require.Len(t, w.take(t), 1)
}

// Nor do they fail while somebody is awake: the part of rowhook.capture that hands over reads the
// transition table of inserts alone.
func TestUpdatesByTheStatementAreNotHandedOver(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, v text)", byStatement()...)
	w.do(t, "select setval('rowhook.doorbell', 1), setval('rowhook.handover', 7)",
		"begin", `set local rowhook.session = '{"user": 7}'`, "insert into t values (1, 'x')", "update t set v = 'y'", "delete from t", "commit")
	const handed = "select coalesce(string_agg(q.op, '' order by q.op), '') from rowhook.event_log q join rowhook.trigger t on t.id = q.trigger_id where q.claimed_by = 7 and t.name = "
	require.Equal(t, "I", w.scalar(t, handed+"'s'"))
	require.Equal(t, "DIU", w.scalar(t, handed+"'r'"))
	require.Len(t, w.same(t), 3)
}
