package dispatcher_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/sqlschema"
)

// forbidDDL has an event trigger refuse whatever would change a schema.
func (b *fixture) forbidDDL(t *testing.T) {
	t.Helper()
	b.Exec(t, `create function public.no_ddl() returns event_trigger language plpgsql as $$ begin raise exception 'no DDL here'; end $$;
create event trigger no_ddl on ddl_command_start execute function public.no_ddl()`)
}

// dropDays drops the partitions of these days from today, and those that there are of yesterday.
func (b *fixture) dropDays(t *testing.T, days ...int) {
	t.Helper()
	for _, n := range days {
		day := time.Now().UTC().AddDate(0, 0, n).Format("20060102")
		b.Exec(t, "drop table if exists rowhook.event_archive_"+day+", rowhook.invocation_log_"+day)
	}
}

func (b *fixture) warned(t *testing.T, code string) string {
	t.Helper()
	problem := ""
	require.Eventually(t, func() bool {
		s, err := operate.ReadStatus(t.Context(), b.Conn(t))
		require.NoError(t, err)
		for _, w := range s.Warnings {
			if w.Code == code {
				problem = w.Problem
			}
		}
		return problem != ""
	}, patience, 100*time.Millisecond, code)
	return problem
}

func TestWhereHistoryCannotBeWrittenEventsAreSettledWithoutIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		breaks func(t *testing.T, b *fixture, role string)
		mends  string
		why    string
	}{
		"an event trigger forbids DDL": {func(t *testing.T, b *fixture, _ string) {
			b.dropDays(t, -1, 0, 1, 2, 3)
			b.forbidDDL(t)
		}, "drop event trigger no_ddl", "no DDL here"},
		"no right to write it": {func(t *testing.T, b *fixture, role string) {
			b.Exec(t, "revoke insert on rowhook.event_archive from "+role)
		}, "", "permission denied"},
		"it is gone": {func(t *testing.T, b *fixture, _ string) {
			b.Exec(t, "drop view rowhook.events; drop table rowhook.invocation_log")
		}, "", "does not exist"},
		"a trigger of someone's refuses it": {func(t *testing.T, b *fixture, _ string) {
			b.Exec(t, `create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'not here'; end $$;
create trigger refuse before insert on rowhook.event_archive for each row execute function public.refuse()`)
		}, "drop trigger refuse on rowhook.event_archive", "not here"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders", noRetry)
			b.watch(t, "bad", noRetry)
			b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
				if d.path == "bad" {
					w.WriteHeader(500)
				}
			})
			conn := b.Conn(t)
			role, url := b.Role(t)
			_, err := sqlschema.Grant(t.Context(), conn, []string{role})
			require.NoError(t, err)
			r := b.start(t, func(c *dispatcher.Config) { c.DatabaseURL = url })
			c.breaks(t, b, role)
			b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 50); insert into bad default values")
			b.receiver.await(t, "orders", 50)
			b.settled(t)
			require.Len(t, b.receiver.on("orders"), 50)
			require.Equal(t, 1, one[int](t, conn, "select count(*) from rowhook.dead_letter"), "dead letters are kept")
			require.Equal(t, 0, one[int](t, conn, "select count(*) from rowhook.event_archive"))
			r.says(t, "history can't be written")
			require.Contains(t, r.Stats().History, c.why)
			if name != "it is gone" { // which is an error of status
				require.Contains(t, b.warned(t, "no_history"), c.why)
			}
			if c.mends == "" {
				return
			}
			b.Exec(t, c.mends)
			require.Eventually(t, func() bool {
				b.Exec(t, "insert into orders default values")
				return one[int](t, conn, "select count(*) from rowhook.event_archive") > 0
			}, patience, 500*time.Millisecond)
			require.Eventually(t, func() bool { return r.Stats().History == "" }, patience, 10*time.Millisecond)
			require.Contains(t, r.log.String(), "history is written again")
		})
	}
}

func TestThatHistoryWillEndIsSaidADayBefore(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.dropDays(t, 1, 2, 3)
	b.forbidDDL(t)
	r := b.start(t)
	require.Contains(t, b.warned(t, "history_ends"), "0 days after today")
	require.Eventually(t, func() bool { return r.Stats().HistoryEnds != "" }, patience, 10*time.Millisecond)
	require.Contains(t, r.Stats().HistoryEnds, "no DDL here")
	require.Contains(t, r.log.String(), "can't create history partitions in advance")
	b.Exec(t, "insert into orders default values")
	b.receiver.await(t, "orders", 1)
	b.settled(t)
	require.Equal(t, 1, one[int](t, b.Conn(t), "select count(*) from rowhook.event_archive"), "today's are there")
}

// An event trigger's function that names a table without its schema finds it as in any session.
func TestHousekeepingsDDLFindsWhatEventTriggersName(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]string{
		"in public":                      "create table public.ddl_log (tag text)",
		"in a schema set for a database": "create schema audit; create table audit.ddl_log (tag text); do $$ begin execute format('alter database %I set search_path = audit, public', current_database()); end $$",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders")
			b.Exec(t, prepare+`;
create function public.log_ddl() returns event_trigger language plpgsql as $$ begin insert into ddl_log values (tg_tag); end $$;
create event trigger log_ddl on ddl_command_end execute function public.log_ddl()`)
			conn := b.Conn(t)
			role, url := b.Role(t)
			_, err := sqlschema.Grant(t.Context(), conn, []string{role})
			require.NoError(t, err)
			// What the dispatcher's role sets for itself counts for nothing: the function runs with
			// the rights of Rowhook's owner.
			b.Exec(t, "create schema theirs authorization "+role+"; create table theirs.ddl_log (tag text); alter table theirs.ddl_log owner to "+role+
				"; alter role "+role+" set search_path = theirs")
			b.Exec(t, "alter event trigger log_ddl disable")
			b.dropDays(t, 0, 1, 2, 3)
			b.Exec(t, "alter event trigger log_ddl enable")
			b.start(t, func(c *dispatcher.Config) { c.DatabaseURL = url })
			b.Exec(t, "insert into orders default values")
			b.receiver.await(t, "orders", 1)
			b.settled(t)
			require.Equal(t, 1, one[int](t, conn, "select count(*) from rowhook.event_archive"))
			require.Zero(t, one[int](t, conn, "select count(*) from theirs.ddl_log"))
		})
	}
}
