package sqlschema_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// atCommit has a trigger capture at commit, with other options.
func atCommit(with ...func(*trigger.Spec)) func(*trigger.Spec) {
	return func(s *trigger.Spec) {
		s.At = trigger.AtCommit
		for _, f := range with {
			f(s)
		}
	}
}

// inOne runs statements in one transaction.
func (w watched) inOne(t *testing.T, statements ...string) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), w.conn, func(tx pgx.Tx) error {
		for _, sql := range statements {
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	}))
}

// TestWhatATransactionDoesToARowIsOneEvent begins each case with the rows 1 a and 2 b.
func TestWhatATransactionDoesToARowIsOneEvent(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ do, want []string }{
		"an insert and updates": {
			[]string{"insert into t values (3, 'x')", "update t set a = 'y' where id = 3", "update t set a = 'z' where id = 3"},
			[]string{`I null {"id":3,"a":"z"}`},
		},
		"an insert and a delete":   {[]string{"insert into t values (3, 'x')", "update t set a = 'y' where id = 3", "delete from t where id = 3"}, nil},
		"updates":                  {[]string{"update t set a = 'x' where id = 1", "update t set a = 'y' where id = 1"}, []string{`U {"id":1,"a":"a"} {"id":1,"a":"y"}`}},
		"there and back":           {[]string{"update t set a = 'x' where id = 1", "update t set a = 'a' where id = 1"}, nil},
		"an update and a delete":   {[]string{"update t set a = 'x' where id = 1", "delete from t where id = 1"}, []string{`D {"id":1,"a":"a"} null`}},
		"a delete and an insert":   {[]string{"delete from t where id = 1", "insert into t values (1, 'x')"}, []string{`U {"id":1,"a":"a"} {"id":1,"a":"x"}`}},
		"a delete and the same":    {[]string{"delete from t where id = 1", "insert into t values (1, 'a')"}, nil},
		"twice away":               {[]string{"delete from t where id = 1", "insert into t values (1, 'x')", "delete from t where id = 1"}, []string{`D {"id":1,"a":"a"} null`}},
		"another key":              {[]string{"update t set id = 3 where id = 1", "update t set a = 'x' where id = 3"}, []string{`U {"id":1,"a":"a"} {"id":3,"a":"x"}`}},
		"another key, and away":    {[]string{"update t set id = 3 where id = 1", "delete from t where id = 3"}, []string{`D {"id":1,"a":"a"} null`}},
		"keys that change places":  {[]string{"update t set id = 0 where id = 1", "update t set id = 1 where id = 2", "update t set id = 2 where id = 0"}, []string{`U {"id":1,"a":"a"} {"id":2,"a":"a"}`, `U {"id":2,"a":"b"} {"id":1,"a":"b"}`}},
		"the key of one that went": {[]string{"delete from t where id = 2", "update t set id = 2 where id = 1"}, []string{`D {"id":2,"a":"b"} null`, `U {"id":1,"a":"a"} {"id":2,"a":"a"}`}},
		"an upsert":                {[]string{"insert into t values (1, 'x') on conflict (id) do update set a = excluded.a", "insert into t values (1, 'y') on conflict (id) do update set a = excluded.a"}, []string{`U {"id":1,"a":"a"} {"id":1,"a":"y"}`}},
		"what is rolled back":      {[]string{"update t set a = 'x' where id = 1", "savepoint s", "update t set a = 'y' where id = 1", "insert into t values (3, 'z')", "rollback to s"}, []string{`U {"id":1,"a":"a"} {"id":1,"a":"x"}`}},
		"in subtransactions":       {[]string{"savepoint s", "update t set a = 'x' where id = 1", "release s", "savepoint s", "update t set a = 'y' where id = 1", "release s"}, []string{`U {"id":1,"a":"a"} {"id":1,"a":"y"}`}},
		"what ran early": {
			[]string{"update t set a = 'x' where id = 1", "set constraints all immediate", "update t set a = 'y' where id = 1", "insert into t values (3, 'x')", "set constraints all deferred", "update t set a = 'z' where id < 4"},
			[]string{`U {"id":1,"a":"a"} {"id":1,"a":"z"}`, `I null {"id":3,"a":"z"}`, `U {"id":2,"a":"b"} {"id":2,"a":"z"}`},
		},
		"what ran early and came to nothing": {
			[]string{"update t set a = 'x' where id = 1", "set constraints all immediate", "update t set a = 'a' where id = 1", "update t set a = 'y' where id = 1", "update t set a = 'a' where id = 1"}, nil,
		},
		"what ran early and is rolled back": {
			[]string{"update t set a = 'x' where id = 1", "savepoint s", "set constraints all immediate", "update t set a = 'y' where id = 1", "rollback to s"}, []string{`U {"id":1,"a":"a"} {"id":1,"a":"x"}`},
		},
	}
	for kind, options := range map[string][]func(*trigger.Spec){"": nil, "in order": {orderBy()}, "later": {func(s *trigger.Spec) { s.Delay = trigger.Duration(1e9) }}} {
		for _, guarded := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, guarded %t", kind, guarded), func(t *testing.T) {
				t.Parallel()
				w := newWatched(t, "create table t (id int primary key, a text)")
				if guarded {
					role, _ := w.Role(t)
					w.do(t, "alter table t owner to "+role)
				}
				w.apply(t, all("w", "t", atCommit(options...)))
				for name, c := range cases {
					w.do(t, "truncate t", "insert into t values (1, 'a'), (2, 'b')", "delete from rowhook.event_log")
					w.inOne(t, c.do...)
					var want []string
					for _, event := range c.want {
						want = append(want, "w "+event)
					}
					require.ElementsMatch(t, want, w.take(t), name)
				}
			})
		}
	}
}

func TestAWhenIsAskedOfTheRowBeforeAndAfterTheTransaction(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, status text, n int); create function is_final(text) returns boolean language plpgsql as 'begin return $1 = any (finals()); end'; create function finals() returns text[] language sql as $$select '{done}'::text[]$$",
		trigger.Spec{Name: "w", Table: "t", At: trigger.AtCommit, On: trigger.On{Update: trigger.UpdateOn{Enabled: true, Columns: []string{"status"}}}, When: "old.status = 'new' and is_final(new.status) -- in the end",
			Webhook: trigger.Webhook{URL: "http://127.0.0.1:1"}})
	w.do(t, "insert into t values (1, 'new', 0), (2, 'new', 0), (3, 'old', 0)")
	w.inOne(t, "update t set status = 'half', n = 1", "update t set status = 'done' where id in (1, 3)", "update t set status = 'new' where id = 2")
	require.Equal(t, []string{`w U {"id":1,"status":"new","n":0} {"id":1,"status":"done","n":1}`}, w.take(t))
	w.inOne(t, "update t set n = 2", "delete from t where id = 1")
	require.Empty(t, w.take(t))
	// Rows of the transaction that are not captured are not taken for new ones.
	w.inOne(t, "update t set status = 'new' where id = 3", "update t set status = 'done' where id = 3")
	require.Empty(t, w.take(t))
}

func TestWhatADeferredTriggerChangesIsInTheEvent(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `
create table t (id int primary key, a text);
create function upper_a() returns trigger language plpgsql as $$begin update t set a = upper(a) where id = new.id and a <> upper(a); return null; end$$;
create constraint trigger z_upper after insert or update on t deferrable initially deferred for each row execute function upper_a()`, all("w", "t", atCommit()))
	w.inOne(t, "insert into t values (1, 'x')", "update t set a = 'y'")
	require.Equal(t, []string{`w I null {"id":1,"a":"Y"}`}, w.take(t))
}

func TestAnApplyGoesToCommitAndBack(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a text, b int)")
	twice := func(want ...string) {
		t.Helper()
		w.inOne(t, "insert into t values (1, 'x', 1)", "update t set a = 'y'")
		require.Equal(t, want, w.take(t))
		w.do(t, "delete from t")
		w.take(t)
	}
	const first, second, both = `w I null {"id":1,"a":"x","b":1}`, `w U {"id":1,"a":"x","b":1} {"id":1,"a":"y","b":1}`, `w I null {"id":1,"a":"y","b":1}`
	for range 2 {
		w.apply(t, all("w", "t"))
		twice(first, second)
		w.apply(t, all("w", "t", atCommit()))
		twice(both)
		w.apply(t, all("w", "t", atCommit(orderBy())))
		twice(both)
		w.apply(t, all("w", "t", atCommit(func(s *trigger.Spec) { s.On.Insert, s.On.Delete, s.When = false, false, "new.b > old.b" })))
		w.inOne(t, "insert into t values (1, 'x', 1)", "update t set a = 'y'")
		require.Empty(t, w.take(t))
		w.do(t, "delete from t")
		w.apply(t, all("w", "t", atCommit(orderBy())))
	}
	plan, err := sqlschema.MakePlan(t.Context(), w.conn, []trigger.Spec{all("w", "t", atCommit(orderBy()))}, trigger.DefaultSettings())
	require.NoError(t, err)
	require.True(t, plan.Empty(), "%s", plan)

	// The table may change below it.
	w.do(t, "alter table t rename to u", "alter table u rename column a to c", "alter table u drop column b", "alter table u add column d numeric")
	w.inOne(t, "insert into u values (1, 'x', 1.10)", "update u set c = 'y'")
	require.Equal(t, []string{`w I null {"id":1,"c":"y","d":1.10}`}, w.take(t))
	w.apply(t, all("w", "u", atCommit()))
	w.do(t, "alter table u add column e int", "alter table u set schema public", "update u set e = 1")
	require.Equal(t, []string{`w U {"id":1,"c":"y","d":1.10,"e":null} {"id":1,"c":"y","d":1.10,"e":1}`}, w.take(t))

	// Another table takes the trigger.
	w.do(t, "create table v (id text primary key, x int)")
	w.apply(t, all("w", "v", atCommit()))
	w.inOne(t, "insert into v values ('k', 1)", "update v set x = 2", "update u set e = 2")
	require.Equal(t, []string{`w I null {"id":"k","x":2}`}, w.take(t))
	w.apply(t, all("w", "v"))
	var left string
	require.NoError(t, w.conn.QueryRow(t.Context(), "select coalesce(string_agg(oid::regprocedure::text, chr(10)), '') from pg_proc where pronamespace = 'rowhook'::regnamespace and proname ~ '^(payload|capture)_[0-9]'").Scan(&left))
	require.Empty(t, left, "functions of its own")
}

// TestNoChangeAtCommitIsLost tries what makes rows hard to tell apart, or to read.
func TestNoChangeAtCommitIsLost(t *testing.T) {
	t.Parallel()
	const plain = "create table t (id int primary key, a text); insert into t values (1, 'a'), (2, 'b')"
	for name, c := range map[string]struct {
		setup    string
		later    []string // after the apply
		whole    bool     // it is tried with a trigger for all changes only
		do, want []string
	}{
		"rows that have the same key for a while": {
			setup: "create table t (id int primary key deferrable initially deferred, a text); insert into t values (1, 'a'), (2, 'b')",
			do:    []string{"update t set id = id + 1", "update t set a = 'c' where id = 2"},
			want:  []string{`U {"id":1,"a":"a"} {"id":2,"a":"c"}`, `U {"id":2,"a":"b"} {"id":3,"a":"b"}`},
		},
		"a primary key that was dropped": {
			setup: plain, later: []string{"alter table t drop constraint t_pkey", "update t set id = 1"},
			do:   []string{"update t set a = a || 'x'", "update t set a = a || 'y'"},
			want: []string{`U {"id":1,"a":"a"} {"id":1,"a":"axy"}`, `U {"id":1,"a":"b"} {"id":1,"a":"bxy"}`},
		},
		"a new column in the same transaction": {
			setup: plain,
			do:    []string{"update t set a = 'x' where id = 1", "set constraints all immediate", "alter table t add column n int default 3", "update t set a = 'y' where id = 1"},
			want:  []string{`U {"id":1,"a":"a"} {"id":1,"a":"x"}`, `U {"id":1,"a":"x","n":3} {"id":1,"a":"y","n":3}`},
		},
		"columns called old, new, v, r, op and key": {
			setup: `create table t (id int primary key, "old" int, "new" int, v int, r int, op int, key int); insert into t values (1, 1, 2, 3, 4, 5, 6)`,
			do:    []string{`update t set "old" = 11`, `update t set op = 15, "new" = 12`},
			want:  []string{`U {"id":1,"old":1,"new":2,"v":3,"r":4,"op":5,"key":6} {"id":1,"old":11,"new":12,"v":3,"r":4,"op":15,"key":6}`},
		},
		"rows of the same key and text": {
			setup: plain, later: []string{"alter table t drop constraint t_pkey", "update t set id = 1, a = 'a'"},
			do:   []string{"update t set a = 'x'", "update t set a = 'y'", "update t set a = 'z' where ctid = (select min(ctid) from t)", "update t set id = 2 where a = 'z'"},
			want: []string{`U {"id":1,"a":"a"} {"id":1,"a":"y"}`, `U {"id":1,"a":"a"} {"id":2,"a":"z"}`},
		},
		"two rows that are deleted under one key, and come back": {
			setup: "create table t (id int primary key deferrable initially deferred, a text); insert into t values (1, 'a'), (2, 'b')",
			do:    []string{"update t set id = 3", "delete from t", "insert into t values (3, 'c'), (3, 'd')", "update t set id = 4 where a = 'd'"},
			want:  []string{`U {"id":1,"a":"a"} {"id":3,"a":"c"}`, `U {"id":2,"a":"b"} {"id":4,"a":"d"}`},
		},
		"rows that take each other's keys again and again": {
			setup: "create table t (id int primary key deferrable initially deferred, a text); insert into t values (1, 'a'), (2, 'b')",
			do:    slices.Repeat([]string{"update t set id = 3 - id", "update t set id = id + 1", "update t set id = id - 1"}, 3),
			want:  []string{`U {"id":1,"a":"a"} {"id":2,"a":"a"}`, `U {"id":2,"a":"b"} {"id":1,"a":"b"}`},
		},
		"a row that comes back after its table was altered": {
			setup: plain,
			do:    []string{"update t set a = 'x' where id = 1", "delete from t where id = 1", "set constraints all immediate", "alter table t add column n int", "insert into t values (1, 'c', 4)", "update t set n = 5"},
			want:  []string{`D {"id":1,"a":"a"} null`, `I null {"id":1,"a":"c","n":5}`, `U {"id":2,"a":"b","n":null} {"id":2,"a":"b","n":5}`},
			whole: true,
		},
		"xml that is no document": {
			setup: `create table t (id int primary key, x xml); insert into t values (1, 'a'); `,
			do:    []string{"update t set x = 'b'", "set local xmloption = 'document'", "update t set id = 2"},
			want:  []string{`U {"id":1,"x":"a"} {"id":2,"x":"b"}`},
		},
	} {
		columns := []string{"id"}
		for _, name := range []string{"a", "x", "old", "new", "op"} {
			if strings.Contains(c.setup, " "+name+" ") || strings.Contains(c.setup, `"`+name+`"`) {
				columns = append(columns, name)
			}
		}
		for kind, option := range map[string]func(*trigger.Spec){
			"": func(*trigger.Spec) {}, "when": func(s *trigger.Spec) { s.On.Insert, s.On.Delete, s.When = false, false, "new.id > 0 and old.id > 0" }, "columns": func(s *trigger.Spec) { s.On.Update.Columns = columns },
		} {
			if c.whole && kind != "" {
				continue
			}
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				w := newWatched(t, c.setup, all("w", "t", atCommit(option)))
				w.do(t, c.later...)
				w.take(t)
				w.inOne(t, c.do...)
				var want []string
				for _, event := range c.want {
					want = append(want, "w "+event)
				}
				require.ElementsMatch(t, want, w.take(t))
			})
		}
	}
}

// TestNoTransactionFailsOnAccountOfAnotherAtCommit has transactions take turns. None of their statements
// reads a row or an index of the table, so they fail only if captures do.
func TestNoTransactionFailsOnAccountOfAnotherAtCommit(t *testing.T) {
	t.Parallel()
	const writers = 6
	upsert := func(id, set string) string {
		return "insert into t values (" + id + ", 'w') on conflict (id) do update set " + set
	}
	for name, options := range map[string][]func(*trigger.Spec){
		"no trigger": nil, "all": {}, "in order": {orderBy()}, "when": {func(s *trigger.Spec) { s.On.Insert, s.On.Delete, s.When = false, false, "old.a < new.a" }}, "some columns": {updatesOf("a")},
	} {
		for _, level := range []string{"serializable", "repeatable read"} {
			t.Run(name+", "+level, func(t *testing.T) {
				t.Parallel()
				w := newWatched(t, "create table t (id int primary key, a text)")
				for n := range writers {
					w.do(t, fmt.Sprintf("insert into t values (%d, 'a')", 10*n))
				}
				if options != nil {
					w.apply(t, all("w", "t", atCommit(options...)))
				}
				var conns []*pgx.Conn
				for range writers {
					conns = append(conns, w.Conn(t))
				}
				each := func(statement func(n int) string) {
					for n, conn := range conns {
						_, err := conn.Exec(t.Context(), statement(n))
						require.NoError(t, err, statement(n))
					}
				}
				id := func(n, i int) string { return fmt.Sprint(10*n + i) }
				each(func(int) string { return "begin isolation level " + level })
				each(func(int) string { return "set constraints all immediate" })
				each(func(n int) string { return "insert into t values (" + id(n, 1) + ", 'x')" })
				each(func(n int) string { return "insert into t values (" + id(n, 2) + ", 'x')" })
				each(func(n int) string { return upsert(id(n, 0), "a = 'b'") })                 // the first change of a row that was there
				each(func(n int) string { return upsert(id(n, 0), "a = 'c'") })                 // and another one
				each(func(n int) string { return upsert(id(n, 0), "id = "+id(n, 3)) })          // it has another key
				each(func(n int) string { return upsert(id(n, 3), "id = "+id(n, 0)) })          // and its own again
				each(func(n int) string { return upsert(id(n, 0), "a = 'a'") })                 // and nothing has become of it
				each(func(n int) string { return upsert(id(n, 0), "a = 'd'") })                 // but then something has
				each(func(n int) string { return upsert(id(n, 1), "a = 'y', id = "+id(n, 4)) }) // one that is new
				for _, conn := range conns {
					var locks []string
					require.NoError(t, conn.QueryRow(t.Context(), `
select coalesce(array_agg(concat_ws(' ', c.oid::regclass, l.locktype)), '{}')
  from pg_locks l join pg_class c on c.oid = l.relation
 where l.mode = 'SIReadLock' and l.pid = pg_backend_pid() and c.relnamespace = 'rowhook'::regnamespace`).Scan(&locks))
					require.Empty(t, locks, "what captures read is locked")
				}
				each(func(int) string { return "commit" })
				require.Equal(t, fmt.Sprint(3*writers), w.scalar(t, "select count(*) from t"))
				var want []string
				for n := range writers {
					if name != "no trigger" {
						want = append(want, fmt.Sprintf(`w U {"id":%s,"a":"a"} {"id":%[1]s,"a":"d"}`, id(n, 0)))
					}
					if name == "all" || name == "in order" {
						want = append(want, fmt.Sprintf(`w I null {"id":%s,"a":"y"}`, id(n, 4)), fmt.Sprintf(`w I null {"id":%s,"a":"x"}`, id(n, 2)))
					}
				}
				if name == "in order" {
					require.NotContains(t, w.places(t), "wrong")
				}
				require.ElementsMatch(t, want, w.take(t))
				require.Equal(t, "0", w.scalar(t, "select count(*) from rowhook.key_move"))
			})
		}
	}
}

// TestARowThatItsTypeRefusesFailsNoWriteAtCommit has rows whose text can't be read back.
func TestARowThatItsTypeRefusesFailsNoWriteAtCommit(t *testing.T) {
	t.Parallel()
	for name, mend := range map[string]string{
		"a constraint that is not valid": "alter domain d add constraint c check (value <> 'bad') not valid",
		"a function that fails":          "create function f(text) returns boolean language sql as 'select $1 <> (select min(a) from t)'; alter domain d add constraint c check (f(value)) not valid",
	} {
		for kind, option := range map[string]func(*trigger.Spec){
			"": func(*trigger.Spec) {}, "when": func(s *trigger.Spec) { s.On.Insert, s.On.Delete, s.When = false, false, "old.id > 0 and new.a > ''" }, "columns": func(s *trigger.Spec) { s.On.Update.Columns = []string{"a"} }, "in order": orderBy(),
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				w := newWatched(t, "create domain d as text; create table t (id int primary key, d d, a text); insert into t values (1, 'bad', 'a'), (2, 'good', 'a')", all("w", "t", atCommit(option)))
				w.do(t, mend)
				// Each change of such a row is an event of its own.
				w.inOne(t, "update t set a = 'b'", "update t set a = 'c'", "update t set a = a || 'd' where id = 1")
				want := []string{
					`w U {"id":1,"d":"bad","a":"a"} {"id":1,"d":"bad","a":"b"}`, `w U {"id":1,"d":"bad","a":"b"} {"id":1,"d":"bad","a":"c"}`,
					`w U {"id":1,"d":"bad","a":"c"} {"id":1,"d":"bad","a":"cd"}`, `w U {"id":2,"d":"good","a":"a"} {"id":2,"d":"good","a":"c"}`,
				}
				if name == "a function that fails" {
					want[3] = `w U {"id":2,"d":"good","a":"a"} {"id":2,"d":"good","a":"b"}`
					want = append(want, `w U {"id":2,"d":"good","a":"b"} {"id":2,"d":"good","a":"c"}`)
					if kind == "when" { // the path is that of the user, and the function does not fail
						want = []string{`w U {"id":1,"d":"bad","a":"a"} {"id":1,"d":"bad","a":"cd"}`, `w U {"id":2,"d":"good","a":"a"} {"id":2,"d":"good","a":"c"}`}
					}
				}
				require.ElementsMatch(t, want, w.take(t))
				w.do(t, "delete from rowhook.key_move")
				w.inOne(t, "update t set id = 3 where id = 1", "delete from t where id = 3", "insert into t values (4, 'good', 'x')", "delete from t where id = 4")
				switch {
				case kind == "when" && len(want) == 2:
					require.Empty(t, w.take(t))
				case kind == "when":
					require.Equal(t, []string{`w U {"id":1,"d":"bad","a":"cd"} {"id":3,"d":"bad","a":"cd"}`}, w.take(t))
				case kind == "columns":
					require.Equal(t, []string{`w D {"id":3,"d":"bad","a":"cd"} null`}, w.take(t))
				default:
					require.Equal(t, []string{`w U {"id":1,"d":"bad","a":"cd"} {"id":3,"d":"bad","a":"cd"}`, `w D {"id":3,"d":"bad","a":"cd"} null`}, w.take(t))
				}
			})
		}
	}
}

func TestALongKeyFailsNoWriteAtCommit(t *testing.T) {
	t.Parallel()
	// The index of the primary key has the bytes, and the key of an event has two letters for each.
	const value = "sha512(x::bytea) || sha512(x::bytea || '1') || sha512(x::bytea || '2')"
	columns := strings.Split("a b c d e f g h i j k l", " ")
	w := newWatched(t, "create table t (n int, "+strings.Join(columns, " bytea, ")+" bytea, primary key ("+strings.Join(columns, ", ")+"))",
		all("w", "t", atCommit(func(s *trigger.Spec) { s.Payload.Columns = []string{"n"} })))
	var values []string
	for _, c := range columns {
		values = append(values, strings.ReplaceAll(value, "x", "'"+c+"'"))
	}
	w.inOne(t, "insert into t values (1, "+strings.Join(values, ", ")+")", "update t set n = 2", "update t set a = sha256(a)", "update t set n = 3")
	require.Equal(t, []string{`w I null {"n":3}`}, w.take(t))
}

func TestAColumnThatIsDroppedByCascadeFailsNoWriteAtCommit(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a text, b int)",
		all("w", "t", atCommit(func(s *trigger.Spec) { s.On.Insert, s.On.Delete, s.When = false, false, "old.b < new.b" })))
	w.do(t, "alter table t drop column b cascade", "insert into t values (1, 'x')", "update t set a = 'y'", "delete from t")
	require.Empty(t, w.take(t))
	found, err := sqlschema.FindUncaptured(t.Context(), w.conn)
	require.NoError(t, err)
	require.NotEmpty(t, found)
}

func TestCaptureAtCommitSaysWhatItCantDo(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table keyless (a text); create table t (id int primary key, a text); create table p (id int primary key, a text) partition by range (id); create table p1 partition of p for values from (0) to (10); create table p2 partition of p for values from (10) to (20)")
	for want, spec := range map[string]trigger.Spec{
		"has no primary key":        all("w", "keyless", atCommit()),
		"remove capture: statement": all("w", "t", atCommit(capturedBy(trigger.CaptureStatement))),
		"write order: row":          all("w", "t", atCommit(orderBy("a"))),
	} {
		_, err := sqlschema.MakePlan(t.Context(), w.conn, []trigger.Spec{spec}, trigger.DefaultSettings())
		var errs trigger.SpecErrors
		require.ErrorAs(t, err, &errs)
		require.Contains(t, errs[0].Message, want)
		require.Equal(t, []string{"at"}, errs[0].Path)
	}
	// A partitioned table.
	w.apply(t, all("w", "p", atCommit()))
	w.inOne(t, "insert into p values (1, 'x')", "update p set a = 'y'")
	require.Equal(t, []string{`w I null {"id":1,"a":"y"}`}, w.take(t))
	w.inOne(t, "update p set id = 11", "update p set a = 'z'")
	t.Log(w.take(t))
}

// TestAtCommitEventsAreTheDifferenceOfTheRows compares with the rows before and after.
func TestAtCommitEventsAreTheDifferenceOfTheRows(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a int)", all("w", "t", atCommit()))
	rows := func() map[string]string {
		found := map[string]string{}
		r, err := w.conn.Query(t.Context(), "select id::text, row_to_json(t)::text from t")
		require.NoError(t, err)
		var id, row string
		_, err = pgx.ForEachRow(r, []any{&id, &row}, func() error { found[id] = row; return nil })
		require.NoError(t, err)
		return found
	}
	rapid.Check(t, func(r *rapid.T) {
		before := rows()
		var did []string
		id := rapid.IntRange(1, 4)
		for range rapid.IntRange(1, 8).Draw(r, "statements") {
			n, m, a := id.Draw(r, "id"), id.Draw(r, "other"), rapid.IntRange(0, 2).Draw(r, "a")
			did = append(did, rapid.SampledFrom([]string{
				fmt.Sprintf("insert into t values (%d, %d) on conflict do nothing", n, a), fmt.Sprintf("insert into t values (%d, %d) on conflict (id) do update set a = excluded.a", n, a),
				fmt.Sprintf("update t set a = %d where id = %d", a, n), fmt.Sprintf("update t set a = (a + 1) %% 3 where id <= %d", n), fmt.Sprintf("delete from t where id = %d", n),
				fmt.Sprintf("delete from t where id >= %d", n), "set constraints all immediate", "set constraints all deferred", "savepoint s", "savepoint s; update t set a = 9; rollback to s",
				fmt.Sprintf("savepoint s; set constraints all immediate; delete from t where id = %d; rollback to s", m),
			}).Draw(r, "statement"))
		}
		w.inOne(t, did...)
		after := rows()
		want := []string{}
		for _, id := range []string{"1", "2", "3", "4"} {
			old, was := before[id]
			new, is := after[id]
			switch {
			case !was && is:
				want = append(want, "w I null "+new)
			case was && !is:
				want = append(want, "w D "+old+" null")
			case old != new:
				want = append(want, "w U "+old+" "+new)
			}
		}
		got := w.take(t)
		slices.Sort(got)
		slices.Sort(want)
		require.Equal(t, want, got, strings.Join(did, "; "))
	})
}

// TestAtCommitEventsMakeTheRowsAfterOfThoseBefore has rows that are the same. Then it does not matter
// of which one an event is.
func TestAtCommitEventsMakeTheRowsAfterOfThoseBefore(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a int)", all("w", "t", atCommit()))
	w.do(t, "alter table t drop constraint t_pkey")
	rows := func() (rows []string) {
		r, err := w.conn.Query(t.Context(), "select row_to_json(t)::text from t order by 1")
		require.NoError(t, err)
		rows, err = pgx.CollectRows(r, pgx.RowTo[string])
		require.NoError(t, err)
		return rows
	}
	rapid.Check(t, func(r *rapid.T) {
		bag := rows()
		var did []string
		small := rapid.IntRange(0, 1)
		for range rapid.IntRange(1, 10).Draw(r, "statements") {
			n, m, a := small.Draw(r, "id"), small.Draw(r, "other"), small.Draw(r, "a")
			one := fmt.Sprintf("ctid = (select min(ctid) from t where id = %d)", n)
			did = append(did, rapid.SampledFrom([]string{
				fmt.Sprintf("insert into t values (%d, %d)", n, a), fmt.Sprintf("insert into t values (%d, %d), (%[1]d, %[2]d)", n, a),
				fmt.Sprintf("update t set a = %d where %s", a, one), fmt.Sprintf("update t set id = %d where %s", m, one), fmt.Sprintf("update t set id = %d, a = %d", m, a), "update t set id = 1 - id", "update t set a = 1 - a",
				"delete from t where " + one, fmt.Sprintf("delete from t where a = %d", a), "set constraints all immediate", "set constraints all deferred", "savepoint s",
				fmt.Sprintf("savepoint s; set constraints all immediate; update t set id = %d; rollback to s", m),
			}).Draw(r, "statement"))
		}
		w.inOne(t, did...)
		events := w.take(t)
		for _, event := range events {
			of := strings.Split(event, " ")
			require.NotEqual(t, of[2], of[3], "%s: %s", did, event)
			if of[2] != "null" {
				at := slices.Index(bag, of[2])
				require.GreaterOrEqual(t, at, 0, "%s: no row was %s: %s", did, of[2], events)
				bag = slices.Delete(bag, at, at+1)
			}
			if of[3] != "null" {
				bag = append(bag, of[3])
			}
		}
		slices.Sort(bag)
		require.Equal(t, rows(), bag, "%s: %s", did, events)
		if len(bag) > 20 {
			w.do(t, "delete from t")
			w.take(t)
		}
	})
}

func TestAWayDownWaitsForTriggersThatCaptureAtCommit(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a text)", all("w", "t", atCommit()))
	err := sqlschema.MigrateTo(t.Context(), w.conn, queue.CommitSchema-1, nil)
	require.ErrorContains(t, err, "as w do: apply them with at: change first")
	w.inOne(t, "insert into t values (1, 'x')", "update t set a = 'y'")
	require.Equal(t, []string{`w I null {"id":1,"a":"y"}`}, w.take(t))
	w.apply(t, all("w", "t"))
	require.NoError(t, sqlschema.MigrateTo(t.Context(), w.conn, queue.CommitSchema-1, nil))
	w.inOne(t, "insert into t values (2, 'x')", "update t set a = 'z'")
	require.Len(t, w.take(t), 3)
	require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, nil))
	w.apply(t, all("w", "t", atCommit()))
	w.inOne(t, "insert into t values (3, 'x')", "update t set a = 'y' where id = 3")
	require.Equal(t, []string{`w I null {"id":3,"a":"y"}`}, w.take(t))
	w.do(t, "begin; update t set a = 'p' where id = 1") // it goes on
	require.NoError(t, pgx.BeginFunc(t.Context(), w.Conn(t), func(tx pgx.Tx) error {
		_, err := queue.ForgetCommitRows(t.Context(), tx)
		return err
	}))
	w.do(t, "update t set a = 'q' where id = 1", "commit")
	require.Equal(t, []string{`w U {"id":1,"a":"z"} {"id":1,"a":"q"}`}, w.take(t))
	// Transactions of other tests may be older.
	require.Eventually(t, func() bool {
		require.NoError(t, pgx.BeginFunc(t.Context(), w.conn, func(tx pgx.Tx) error {
			_, err := queue.ForgetCommitRows(t.Context(), tx)
			return err
		}))
		return w.scalar(t, "select count(*) from rowhook.commit_row") == "0"
	}, time.Minute, 50*time.Millisecond)
}

// TestACopyCapturesAtCommit loads a dump with what transactions of another server have noted.
func TestACopyCapturesAtCommit(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	specs := []trigger.Spec{all("w", "t", atCommit()), all("x", "u", atCommit(orderBy(), func(s *trigger.Spec) { s.When = "new.id > 0"; s.On.Delete = false }))}
	w := newWatched(t, "create table t (id int primary key, a text); create table u (id int primary key, a text)", specs...)
	w.inOne(t, "insert into t values (1, 'x')", "update t set a = 'y'")
	w.do(t, "update rowhook.commit_row set txid = '1000000000'")
	for _, arguments := range [][]string{{}, {"--schema-only"}, {"--inserts", "--no-owner", "--no-privileges"}} {
		dup := w.copied(t, arguments...)
		dup.apply(t, specs...)
		dup.take(t)
		dup.inOne(t, "insert into t values (2, 'x')", "update t set a = 'z' where id = 2", "insert into u values (1, 'x')", "update u set a = 'y'")
		require.ElementsMatch(t, []string{`w I null {"id":2,"a":"z"}`, `x I null {"id":1,"a":"y"}`}, dup.take(t), arguments)
		require.NoError(t, pgx.BeginFunc(t.Context(), dup.conn, func(tx pgx.Tx) error {
			_, err := queue.ForgetCommitRows(t.Context(), tx)
			return err
		}))
		require.Equal(t, "0", dup.scalar(t, "select count(*) from rowhook.commit_row where txid = '1000000000'"))
		require.NoError(t, sqlschema.Uninstall(t.Context(), dup.conn, quiet()))
		dup.inOne(t, "insert into t values (3, 'x')", "update t set a = 'z' where id = 3")
	}
}
