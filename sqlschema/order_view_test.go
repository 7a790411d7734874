package sqlschema_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRecordedShowsOrderedEventsWithTheirSequence(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key); create table u (id int primary key)", all("t", "t", orderBy()), all("u", "u"))
	w.do(t, "insert into t values (1)", "insert into u values (1)", "analyze rowhook.event_log",
		`insert into rowhook.event_log (id, trigger_id, op, new, created_at, due_at, key, lane, seq) select rowhook.uuid7(), 1, 'I', '{}', now() - interval '1 hour',
		   now() + interval '1752000 hours' + case when n % 2 = 0 then interval '1 hour' else interval '-1 hour' end, '[1]', 1, n from generate_series(1, 20000) n`)
	_, err := w.conn.Exec(t.Context(), "begin; insert into t values (2); insert into u values (2); update t set id = 3 where id = 2")
	require.NoError(t, err)
	const read = `select sum(pg_stat_get_xact_tuples_returned(c.oid) + pg_stat_get_xact_tuples_fetched(c.oid))
		from pg_class c where relnamespace = 'rowhook'::regnamespace and relname ~ '^event_log'`
	before := w.scalar(t, read)
	require.Equal(t, `t INSERT {"id":2}, u INSERT {"id":2}, t UPDATE {"id":3}`, recorded(t, w.conn))
	require.Equal(t, "true", w.scalar(t, "select ("+read+") - $1::numeric < 20", before), "it reads little")
	require.Equal(t, "t 2, u none, t 3", w.scalar(t, `select string_agg(concat(trigger, ' ', coalesce(body->>'sequence', 'none')), ', ') from rowhook.recorded()`))
	// Not JSONEq: the text of the body is that of a request.
	require.Equal(t, []string{`{"id":"ID","created_at":"AT","sequence":2,"table":{"schema":"public","name":"t"},"trigger":{"name":"t"},"event":{"op":"INSERT","data":{"old":null,"new":{"id":2}},` +
		`"session_variables":null,"trace_context":null},"delivery_info":{"current_retry":0,"max_retries":12}}`},
		[]string{w.scalar(t, `select regexp_replace(regexp_replace(body::text, '"id":"[^"]*"', '"id":"ID"'), '"created_at":"[^"]*"', '"created_at":"AT"') from rowhook.recorded() where op = 'INSERT' and trigger = 't'`)})
	_, err = w.conn.Exec(t.Context(), "rollback")
	require.NoError(t, err)
}

func TestTheViewOfEventsShowsWhenParkedOnesAreRetried(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key)", all("t", "t", orderBy()))
	w.do(t, "insert into t values (1)", "update rowhook.event_log set tries = 1, due_at = due_at + interval '1 hour'")
	require.Equal(t, "true", w.scalar(t, "select next_retry_at - created_at between interval '59 minutes' and interval '61 minutes' and locked is null from rowhook.events"))
}
