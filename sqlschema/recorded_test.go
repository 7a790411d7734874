package sqlschema_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// recorded returns what the session's transaction has recorded, as "trigger op new, ...".
func recorded(t *testing.T, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, name ...string) (all string) {
	t.Helper()
	arguments := make([]any, len(name))
	call := "rowhook.recorded()"
	for i, n := range name {
		call, arguments[i] = "rowhook.recorded($1)", n
	}
	require.NoError(t, db.QueryRow(t.Context(), "select coalesce(string_agg(concat_ws(' ', trigger, op, coalesce(new, old)), ', ' order by n), '') from "+
		call+" with ordinality as r (id, created_at, trigger, op, schema, \"table\", old, new, session_variables, trace_context, body, n)", arguments...).Scan(&all))
	return all
}

// manual is a trigger that takes manual events and nothing else.
func manual(name, table string) trigger.Spec {
	spec := all(name, table)
	spec.On = trigger.On{Manual: true}
	return spec
}

func TestRecordedShowsWhatTheTransactionHasRecordedInItsOrder(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create schema "my Shop"; create table "my Shop"."an ""order" (id int primary key, v text); create table u (id int primary key)`,
		all("order_changed", `"my Shop"."an ""order"`), all("u", "u", payload("id")), manual("by_hand", "u"))
	tx, err := w.conn.Begin(t.Context())
	require.NoError(t, err)
	require.Empty(t, recorded(t, tx), "nothing yet")
	for _, sql := range []string{
		`set local rowhook.session = '{"user": 7}'`, `set local rowhook.trace_context = 'free text'`,
		`insert into "my Shop"."an ""order" values (1, 'a'), (2, 'b')`, "insert into u values (5)",
		`update "my Shop"."an ""order" set v = 'c' where id = 2`, "select rowhook.emit('by_hand', '{\"x\": 1}')", `delete from "my Shop"."an ""order" where id = 1`,
	} {
		_, err := tx.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	require.Equal(t, `order_changed INSERT {"id":1,"v":"a"}, order_changed INSERT {"id":2,"v":"b"}, u INSERT {"id":5}, `+
		`order_changed UPDATE {"id":2,"v":"c"}, by_hand MANUAL {"x": 1}, order_changed DELETE {"id":1,"v":"a"}`, recorded(t, tx))
	require.Equal(t, `u INSERT {"id":5}`, recorded(t, tx, "u"))
	var row string
	require.NoError(t, tx.QueryRow(t.Context(), `select concat_ws('|', schema, "table", old, new, session_variables, trace_context, created_at between now() and clock_timestamp(),
		id = (body->>'id')::uuid) from rowhook.recorded('order_changed') where op = 'UPDATE'`).Scan(&row))
	require.Equal(t, `my Shop|an "order|{"id":2,"v":"b"}|{"id":2,"v":"c"}|{"user": 7}|"free text"|t|t`, row)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Empty(t, recorded(t, w.conn), "a transaction of its own")
	require.Equal(t, "0", w.scalar(t, "select count(*) from rowhook.event_log"))
}

func TestRecordedSeesSubtransactionsThatStandAndNoOther(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key)", all("t", "t"))
	tx, err := w.conn.Begin(t.Context())
	require.NoError(t, err)
	for _, sql := range []string{
		"savepoint a", "insert into t values (1)", "savepoint b", "insert into t values (2)", "rollback to savepoint b", "insert into t values (3)", "release savepoint a",
		"savepoint c", "insert into t values (4)", "rollback to savepoint c",
		`do $$ begin begin insert into t values (5); raise 'undone'; exception when others then null; end;
		              begin insert into t values (6); exception when others then null; end; end $$`,
		"savepoint d", "insert into t values (7)", // not released
	} {
		_, err := tx.Exec(t.Context(), sql)
		require.NoError(t, err, sql)
	}
	require.Equal(t, `t INSERT {"id":1}, t INSERT {"id":3}, t INSERT {"id":6}, t INSERT {"id":7}`, recorded(t, tx))
	require.NoError(t, tx.Rollback(t.Context()))
}

// PostgreSQL caches 64 subtransactions of a transaction. Of more it knows only that there are more.
func TestRecordedSeesMoreSubtransactionsThanTheServerCaches(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key)", all("t", "t"))
	// Another transaction with as many, so that ids of both lie among each other.
	other := w.Conn(t)
	tx, err := w.conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = other.Exec(t.Context(), "begin")
	require.NoError(t, err)
	const rounds, each = 4, 50
	for i := range rounds {
		for n, exec := range []func(sql string) error{
			func(sql string) error { _, err := tx.Exec(t.Context(), sql); return err },
			func(sql string) error { _, err := other.Exec(t.Context(), sql); return err },
		} {
			require.NoError(t, exec(fmt.Sprintf(`do $$ begin for n in %d..%d loop
				begin insert into t values (n); exception when others then raise; end;
				begin insert into t values (-n); raise 'undone'; exception when others then null; end;
			end loop; end $$`, n*1000+i*each+1, n*1000+(i+1)*each)))
		}
	}
	var want []string
	for n := range rounds * each {
		want = append(want, fmt.Sprintf(`t INSERT {"id":%d}`, n+1))
	}
	require.Equal(t, strings.Join(want, ", "), recorded(t, tx))
	_, err = other.Exec(t.Context(), "commit")
	require.NoError(t, err)
	require.Equal(t, strings.Join(want, ", "), recorded(t, tx), "read committed sees the other's rows now")
	require.NoError(t, tx.Rollback(t.Context()))
}

func TestRecordedShowsNothingOfOtherTransactions(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key)", all("t", "t"))
	_, err := w.conn.Exec(t.Context(), "insert into t values (1)") // earlier, by the same session
	require.NoError(t, err)
	other, prepared := w.Conn(t), w.Conn(t)
	gid := w.scalar(t, "select current_database()") // they are the server's
	for _, level := range []string{"read committed", "repeatable read", "serializable"} {
		tx, err := w.conn.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "set transaction isolation level "+level+"; delete from t where id = 2; insert into t values (2)")
		require.NoError(t, err)
		// Committed, in progress and prepared ones, all of them with later ids than this one's.
		_, err = prepared.Exec(t.Context(), "insert into t values (3)")
		require.NoError(t, err)
		_, err = other.Exec(t.Context(), "begin; insert into t values (4)")
		require.NoError(t, err)
		_, err = prepared.Exec(t.Context(), "begin; insert into t values (5); savepoint a; insert into t values (6); prepare transaction '"+gid+"'")
		require.NoError(t, err)
		require.Equal(t, `t INSERT {"id":2}`, recorded(t, tx), level)
		_, err = prepared.Exec(t.Context(), "commit prepared '"+gid+"'")
		require.NoError(t, err)
		require.Equal(t, `t INSERT {"id":2}`, recorded(t, tx), level)
		require.NoError(t, tx.Rollback(t.Context()))
		_, err = other.Exec(t.Context(), "rollback")
		require.NoError(t, err)
		_, err = other.Exec(t.Context(), "delete from t where id > 2")
		require.NoError(t, err)
	}
	// One that has written nothing, as one that may not.
	for _, begin := range []string{"begin", "begin read only"} {
		_, err := w.conn.Exec(t.Context(), begin)
		require.NoError(t, err)
		require.Empty(t, recorded(t, w.conn), begin)
		_, err = w.conn.Exec(t.Context(), "rollback")
		require.NoError(t, err)
	}
}

func TestRecordedMayBeCalledOnlyByThoseWhoWereGrantedIt(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key)", all("t", "t"))
	role, url := w.Role(t)
	as, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, as.Close(context.Background())) })
	w.do(t, "grant usage on schema rowhook to "+role, "grant insert on t to "+role)
	_, err = as.Exec(t.Context(), "select from rowhook.recorded()")
	require.ErrorContains(t, err, "permission denied for function recorded")
	w.do(t, "grant execute on function rowhook.recorded to "+role)
	tx, err := as.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "insert into t values (1)")
	require.NoError(t, err)
	require.Equal(t, `t INSERT {"id":1}`, recorded(t, tx), "a role that may not read the queue, nor the table")
	require.NoError(t, tx.Rollback(t.Context()))

	// What one role writes, another one sees, if they share the transaction.
	tx, err = w.conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "insert into t values (2); set local role "+role+"; insert into t values (3)")
	require.NoError(t, err)
	require.Equal(t, `t INSERT {"id":2}, t INSERT {"id":3}`, recorded(t, tx))
	require.NoError(t, tx.Rollback(t.Context()))
}

func TestRecordedRejectsTheNameOfNoTrigger(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key)", all("t", "t"), all("u", "t"))
	w.apply(t, all("t", "t")) // u is removed
	for _, name := range []string{"u", "T", "", `x'; "`} {
		_, err := w.conn.Exec(t.Context(), "select from rowhook.recorded($1)", name)
		require.ErrorContains(t, err, `there is no Rowhook trigger named "`+name+`"`)
		_, err = w.conn.Exec(t.Context(), "begin; insert into t values (1)")
		require.NoError(t, err)
		_, err = w.conn.Exec(t.Context(), "select from rowhook.recorded($1)", name)
		require.ErrorContains(t, err, `there is no Rowhook trigger named "`+name+`"`)
		_, err = w.conn.Exec(t.Context(), "rollback")
		require.NoError(t, err)
	}
	unknown := func(there string, specs ...trigger.Spec) {
		t.Helper()
		w.apply(t, specs...)
		_, err := w.conn.Exec(t.Context(), "select from rowhook.recorded('x')")
		require.ErrorContains(t, err, `named "x"; `+there+" (SQLSTATE")
	}
	unknown("there is none")
	unknown("there are a, b", all("b", "t"), all("a", "t"))
	var many []trigger.Spec
	for i := range 21 {
		many = append(many, all(fmt.Sprintf("t%d", 10+i), "t"))
	}
	unknown("there are t10, t11, t12, t13, t14, t15, t16, t17, t18, t19, t20, t21, t22, t23, t24, t25, t26, t27, t28, t29 and more", many...)
}

// A suite's session can have any settings, and statistics can say anything.
func TestRecordedReadsOnlyWhatBecameDueSinceTheTransactionBegan(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key)", all("t", "t"))
	w.do(t, "alter table rowhook.event_log set (autovacuum_enabled = off)", "analyze rowhook.event_log",
		`insert into rowhook.event_log (id, trigger_id, op, new, created_at, due_at) select rowhook.uuid7(), 1, 'I', '{}', now() - interval '1 hour',
		   now() + case when n % 2 = 0 then interval '1 hour' else interval '-1 hour' end from generate_series(1, 20000) n`)
	for _, analyzed := range []bool{false, true} {
		if analyzed {
			w.do(t, "analyze rowhook.event_log")
		}
		_, err := w.conn.Exec(t.Context(), "begin; set local timezone to 'Asia/Kathmandu'; set local datestyle to 'German'; set local enable_indexscan to off; "+
			"set local search_path to ''; insert into public.t values (1)")
		require.NoError(t, err)
		// A scan counts what it reads for the table, or else for the index.
		const read = `select sum(pg_stat_get_xact_tuples_returned(c.oid) + pg_stat_get_xact_tuples_fetched(c.oid))
			from pg_class c where relnamespace = 'rowhook'::regnamespace and relname ~ '^event_log'`
		before := w.scalar(t, read)
		require.Equal(t, `t INSERT {"id":1}`, recorded(t, w.conn))
		require.Equal(t, "true", w.scalar(t, "select ("+read+") - $1::numeric < 10", before))
		_, err = w.conn.Exec(t.Context(), "rollback")
		require.NoError(t, err)
	}
}

// A server's clock may be corrected while a transaction runs.
func TestRecordedBearsAClockThatIsSetBackALittle(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key)", all("t", "t"))
	_, err := w.conn.Exec(t.Context(), "begin; insert into t values (1), (2); "+
		"update rowhook.event_log set due_at = now() - interval '500 ms', created_at = now() - interval '500 ms' where new->>'id' = '1'; "+
		"update rowhook.event_log set due_at = clock_timestamp() + interval '500 ms' where new->>'id' = '2'")
	require.NoError(t, err)
	require.Equal(t, "2", w.scalar(t, "select count(*) from rowhook.recorded()"))
	_, err = w.conn.Exec(t.Context(), "rollback")
	require.NoError(t, err)
}
