package dispatcher_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/session"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// neighbour waits for an event of another trigger.
func (b *fixture) neighbour(t *testing.T, table string) {
	t.Helper()
	before := len(b.receiver.on(table))
	b.Exec(t, "insert into "+table+" (v) values ('fine')")
	b.receiver.await(t, table, before+1)
}

// write runs SQL in a session that speaks UTF-8, whatever is set.
func (b *fixture) write(t *testing.T, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.URL()+"&client_encoding=UTF8")
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func TestSessionsSpeakUTF8WhateverRoleAndDatabaseSay(t *testing.T) {
	t.Parallel()
	for name, setting := range map[string]string{
		"database":  "do $$ begin execute format('alter database %I set client_encoding = ''LATIN1''', current_database()); end $$",
		"role":      "do $$ begin execute format('alter role %I in database %I set client_encoding = ''LATIN1''', current_user, current_database()); end $$",
		"SQL_ASCII": "do $$ begin execute format('alter database %I set client_encoding = ''SQL_ASCII''', current_database()); end $$",
	} {
		for _, encoding := range []string{"UTF8", "EUC_JP"} {
			setting := strings.ReplaceAll(setting, "LATIN1", map[string]string{"UTF8": "LATIN1", "EUC_JP": "SJIS"}[encoding])
			t.Run(name+" "+encoding, func(t *testing.T) {
				t.Parallel()
				b := newFixtureOn(t, pgtest.NewIn(t, encoding))
				b.watch(t, "orders")
				b.watch(t, "other")
				b.Exec(t, setting)
				b.start(t)
				b.write(t, "insert into orders (v) values ('日本')")
				require.Equal(t, `"日本"`, string(b.receiver.await(t, "orders", 1)[0].new["v"]))
				b.neighbour(t, "other")
				b.settled(t)
			})
		}
	}
}

func TestADatabaseOfAnotherEncodingDeliversUTF8AndKnowsItsNames(t *testing.T) {
	t.Parallel()
	b := newFixtureOn(t, pgtest.NewIn(t, "LATIN1"))
	b.write(t, `create table orders (id serial, "größe" text, n text)`)
	conn, err := pgx.Connect(t.Context(), b.URL()+"&client_encoding=UTF8")
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = sqlschema.Apply(t.Context(), conn, []trigger.Spec{b.Spec("orders", func(s *trigger.Spec) {
		s.Payload.Columns = []string{"größe"}
		s.When = "new.n = 'café'"
		s.On = trigger.On{Insert: true}
	})}, trigger.DefaultSettings(), nil)
	require.NoError(t, err)
	b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Reply", "日本")
		if strings.Contains(d.body, "fails") {
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = w.Write([]byte("日本 café \U0001F600"))
	})
	r := b.start(t)
	b.write(t, `insert into orders ("größe", n) values ('groß', 'no'), ('groß', 'café')`)
	require.Equal(t, `"groß"`, string(b.receiver.await(t, "orders", 1)[0].new["größe"]))
	b.settled(t)
	require.Equal(t, `\u65e5\u672c caf\u00e9 \ud83d\ude00`, one[string](t, conn, "select response_body from rowhook.invocation_log"), "what the database can't store is written by its code point")
	require.Equal(t, 1, one[int](t, conn, "select count(*)::integer from rowhook.event_archive"))
	b.write(t, `insert into orders ("größe", n) values ('fails', 'café')`)
	b.receiver.await(t, "orders", 2)
	eventually(t, conn, 1, "select count(*)::integer from rowhook.activity where failed > 0")
	require.NotContains(t, r.log.String(), "level=ERROR")
}

func TestAPayloadThatCanNotBeConvertedCostsItsEventAlone(t *testing.T) {
	t.Parallel()
	for encoding, bytes := range map[string]string{
		"EUC_JP":    "convert_from('\\xa9a1', 'EUC_JP')",    // of no character
		"SQL_ASCII": "convert_from('\\x80ff', 'SQL_ASCII')", // no UTF-8
	} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			b := newFixtureOn(t, pgtest.NewIn(t, encoding))
			var names []string
			for n := range 5 {
				names = append(names, fmt.Sprint("t", n))
				b.watch(t, names[n])
			}
			b.Exec(t, "set client_encoding = 'SQL_ASCII'; insert into t0 (v) values ('good'), ("+bytes+"), ('good too')")
			r := b.start(t)
			conn := b.Conn(t)
			b.Exec(t, "set client_encoding = 'SQL_ASCII'; insert into t0 (v) values ("+bytes+"), (repeat("+bytes+", 50000))")
			for _, name := range names[1:] {
				b.neighbour(t, name)
			}
			eventually(t, conn, 3, "select count(*)::integer from rowhook.dead_letter where reason like 'the payload can''t be read from the database: %'")
			b.settled(t)
			require.Equal(t, 2, b.receiver.unique("t0"))
			require.Len(t, b.receiver.on("t0"), 2)
			require.Equal(t, 3, one[int](t, conn, "select count(*)::integer from rowhook.dead_letter where new is not null"), "the payload is kept")
			require.Equal(t, 3, one[int](t, conn, "select count(*)::integer from rowhook.invocation_log where error_kind = 'bad_payload' and status is null"))
			require.NotContains(t, r.log.String(), "a database statement failed")

			// Nor does it when its trigger is removed.
			r.Stop(t)
			b.Exec(t, "set client_encoding = 'SQL_ASCII'; insert into t0 (v) values ("+bytes+")")
			b.Exec(t, "update rowhook.trigger set removed_at = now() where name = 't0'")
			b.start(t)
			b.settled(t)
		})
	}
}

// A value that is damaged on the disk can be read neither to be sent nor to be moved. So can one
// whose outcome has to be recorded.
func TestAnOutcomeThatCanNotBeRecordedWithItsPayloadIsRecordedWithoutIt(t *testing.T) {
	t.Parallel()
	for _, state := range []string{pgerrcode.DataCorrupted, pgerrcode.ProgramLimitExceeded, pgerrcode.InternalError, pgerrcode.OutOfMemory} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders")
			b.watch(t, "dies", func(s *trigger.Spec) { s.Retry.Limit = 0 })
			b.watch(t, "other")
			b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
				if d.path == "dies" {
					w.WriteHeader(http.StatusTeapot)
				}
				_, _ = w.Write([]byte("an answer"))
			})
			b.Exec(t, `
create function damaged() returns trigger language plpgsql as $$ begin raise exception 'missing chunk number 0 for toast value' using errcode = '`+state+`'; end $$;
create trigger damaged before insert on rowhook.event_archive for each row when (new.new::text like '%damaged%') execute function damaged();
create trigger damaged before insert on rowhook.dead_letter for each row when (new.new::text like '%damaged%') execute function damaged()`)
			b.start(t)
			b.Exec(t, "insert into orders (v) values ('damaged'), ('fine'); insert into dies (v) values ('damaged'), ('fine')")
			b.neighbour(t, "other")
			b.settled(t)
			conn := b.Conn(t)
			require.Equal(t, "1 1", one[string](t, conn, "select format('%s %s', count(*) filter (where new is null), count(*) filter (where new is not null)) from rowhook.event_archive where trigger_id = 1"))
			require.Equal(t, 1, one[int](t, conn, "select count(*)::integer from rowhook.dead_letter where new is null and reason like '%(the payload is lost: %'"))
			require.Equal(t, 5, one[int](t, conn, "select count(*)::integer from rowhook.invocation_log where response_body = 'an answer'"))
			require.Len(t, b.receiver.on("orders"), 2)
		})
	}
}

// Of what a role, a database or a person sets, a dispatcher's sessions keep nothing that could make
// one event fail all.
func TestSettingsOfRoleAndDatabaseDoNotReachTheDispatcher(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.watch(t, "other")
	conn := b.Conn(t)
	b.Exec(t, `do $$
declare setting text;
begin
  foreach setting in array array['statement_timeout = 5', 'lock_timeout = 1', 'DateStyle = ''SQL, DMY''', 'IntervalStyle = sql_standard', 'bytea_output = escape',
      'search_path = nowhere', 'default_transaction_isolation = serializable', 'row_security = off', 'extra_float_digits = -15', 'TimeZone = ''Asia/Kolkata'''] loop
    execute format('alter database %I set %s', current_database(), setting);
  end loop;
end $$`)
	r := b.start(t, func(c *dispatcher.Config) { c.Name = "größer" })
	b.Exec(t, "set statement_timeout = 0; set lock_timeout = 0; insert into public.orders (v) select repeat('x', 200000) from generate_series(1, 20)")
	b.receiver.await(t, "orders", 20)
	eventually(t, conn, 0, "select count(*)::integer from rowhook.event_log")
	require.NotContains(t, r.log.String(), "level=ERROR")
}

// TestTimeoutsOfTheRoleEndNoSettlement has one take longer than each of them allows, by a session
// of the dispatcher's own and as through a pooler, where nothing may be set for longer than a
// transaction.
func TestTimeoutsOfTheRoleEndNoSettlement(t *testing.T) {
	t.Parallel()
	for _, pooled := range []bool{false, true} {
		t.Run(fmt.Sprintf("pooled %v", pooled), func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders")
			timeouts := []string{"statement_timeout", "lock_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout"}
			if pgtest.Version(t) >= 17 {
				timeouts = append(timeouts, "transaction_timeout")
			}
			for _, name := range timeouts {
				b.Exec(t, "do $$ begin execute format('alter database %I set "+name+" = ''2s''', current_database()); end $$")
			}
			const unhurried = "set statement_timeout = 0; set lock_timeout = 0; "
			b.Exec(t, unhurried+`
create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(2.5); return new; end $$;
create trigger slow before insert on rowhook.event_archive for each row execute function slow()`)
			r := b.start(t, func(c *dispatcher.Config) {
				if pooled {
					c.ListenURL = b.URL()
				}
			})
			b.Exec(t, unhurried+"insert into orders (v) values ('x')")
			b.receiver.await(t, "orders", 1)
			conn, err := session.Open(t.Context(), b.URL())
			require.NoError(t, err)
			defer func() { _ = conn.Close(context.Background()) }()
			eventually(t, conn, 1, "select count(*)::integer from rowhook.event_archive")
			require.Len(t, b.receiver.on("orders"), 1)
			require.NotContains(t, r.log.String(), "timeout")
		})
	}
}

func TestAPayloadAboveTheLargestBodyIsADeadLetterThatWasNeverFetched(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.watch(t, "other")
	r := b.start(t, func(c *dispatcher.Config) { c.MaxBody = 100_000 })
	// Packed, as it is, packed and yet above the limit, and below it.
	b.Exec(t, `insert into orders (v)
select repeat('x', 5000000) union all select string_agg(md5(i::text), '') from generate_series(1, 5000) i
union all select string_agg(md5((i / 10)::text), '') from generate_series(1, 20000) i union all select repeat('y', 99000)`)
	b.neighbour(t, "other")
	b.settled(t)
	conn := b.Conn(t)
	require.Equal(t, 3, one[int](t, conn, "select count(*)::integer from rowhook.dead_letter where reason like 'the payload of % bytes is over the limit of 100000%' and tries = 1 and new is not null"))
	require.Equal(t, 3, one[int](t, conn, "select count(*)::integer from rowhook.invocation_log where error_kind = 'too_large'"))
	require.Len(t, b.receiver.on("orders"), 1)
	require.NotContains(t, r.log.String(), "can't fetch")
	r.Stop(t)

	small := b.start(t, func(c *dispatcher.Config) { c.MaxBody = 600 })
	b.Exec(t, "insert into orders (v) values (repeat('z', 700)), ('fits')")
	b.settled(t)
	require.Len(t, b.receiver.on("orders"), 2)
	small.Stop(t)
}

// TestABodyAboveTheLargestIsADeadLetterAtItsFirstAttempt has a payload below the limit, which the
// rest of the body takes above it.
func TestABodyAboveTheLargestIsADeadLetterAtItsFirstAttempt(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.watch(t, "other")
	b.start(t, func(c *dispatcher.Config) { c.MaxBody = 1000 })
	b.Exec(t, "insert into orders (v) values (repeat('x', 900)), ('fits')")
	b.neighbour(t, "other")
	b.settled(t)
	conn := b.Conn(t)
	require.Len(t, b.receiver.on("orders"), 1)
	require.Equal(t, 1, one[int](t, conn, "select count(*)::integer from rowhook.dead_letter where reason like 'the event''s body of % bytes is over the limit of 1000%' and tries = 1"))
	require.Equal(t, 1, one[int](t, conn, "select count(*)::integer from rowhook.invocation_log where error_kind = 'too_large'"))
}

// TestAnEventIsSentAloneWhenTheOutcomesOfTheOthersAreWritten keeps outcomes from being written. An
// outcome that the dispatcher's end takes with it looks like one more interruption.
func TestAnEventIsSentAloneWhenTheOutcomesOfTheOthersAreWritten(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", byRow, func(s *trigger.Spec) { s.Retry.Limit = 1 })
	b.Exec(t, `insert into orders (v) values ('one'), ('another')`)
	b.Exec(t, `update rowhook.event_log set claim = 5, tries = 2`)
	tx, err := b.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table rowhook.event_archive in exclusive mode")
	require.NoError(t, err)
	b.start(t)
	b.receiver.await(t, "orders", 1)
	require.Never(t, func() bool { // on a busy machine aloneWithin may pass meanwhile
		all := b.receiver.on("orders")
		return len(all) > 1 && all[1].at.Sub(all[0].at) < time.Second
	}, 300*time.Millisecond, 10*time.Millisecond)
	require.NoError(t, tx.Commit(t.Context()))
	b.receiver.await(t, "orders", 2)
	b.settled(t)
	require.Equal(t, 2, one[int](t, b.Conn(t), "select count(*)::integer from rowhook.event_archive"))
}

func TestAnEventThatMayEndTheDispatcherIsSentAloneOnceAndThenBuried(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Retry.Limit = 1 })
	b.watch(t, "other")
	b.Exec(t, `insert into orders (v) values ('alone'), ('buried'), ('in order')`)
	b.Exec(t, `
update rowhook.event_log set claimed_by = 999, claim = 5, tries = 2 where new->>'v' = 'alone';
update rowhook.event_log set claimed_by = 999, claim = 5, tries = 3 where new->>'v' = 'buried';
update rowhook.event_log set tries = 7 where new->>'v' = 'in order'`)
	b.Exec(t, "insert into other (v) select 'x' from generate_series(1, 50)")
	b.start(t)
	b.receiver.await(t, "orders", 2)
	b.neighbour(t, "other")
	b.settled(t)
	require.Len(t, b.receiver.on("orders"), 2)
	conn := b.Conn(t)
	require.Equal(t, "buried", one[string](t, conn, "select new->>'v' from rowhook.dead_letter where reason like 'its attempts were interrupted%'"))
	require.Equal(t, 2, one[int](t, conn, "select count(*)::integer from rowhook.event_archive where trigger_id = 1"))
}
