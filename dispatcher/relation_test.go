package dispatcher_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/dispatchtest"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// tables lists the tables that the deliveries named, by the value of their row.
func (b *fixture) tables(t *testing.T, trigger string, n int) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, d := range b.receiver.await(t, trigger, n) {
		var body struct{ Table struct{ Schema, Name string } }
		require.NoError(t, json.Unmarshal([]byte(d.body), &body))
		out[string(d.new["v"])] = body.Table.Schema + "." + body.Table.Name
	}
	return out
}

// lacking is what a start warns of.
func (b *fixture) lacking(t *testing.T) (lines []string) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), b.Conn(t), func(tx pgx.Tx) (err error) {
		lines, err = sqlschema.Lacking(t.Context(), tx)
		return err
	}))
	return lines
}

// TestEventsKeepTheirTableWhenTheirTriggerMoves has events of four tables waiting: one is left and
// stays, one is left and renamed, one is left and dropped, and one is watched. Half of them have
// died and are sent again.
func TestEventsKeepTheirTableWhenTheirTriggerMoves(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.Exec(t, "create table stays (id int, v text); create table renamed (id int, v text); create table dropped (id int, v text); create table watched (id int, v text)")
	manual := func(s *trigger.Spec) { s.On.Manual = true; s.Retry.Limit = 0 }
	on := func(table string) func(*trigger.Spec) { return func(s *trigger.Spec) { s.Table = table } }
	for _, table := range []string{"stays", "renamed", "dropped", "watched"} {
		b.apply(t, b.Spec("moves", manual, on(table)))
		b.Exec(t, "insert into "+table+" (v) values ('"+table+"'), ('"+table+" again')")
	}
	b.Exec(t, "alter table renamed rename to has_a_new_name; drop table dropped")
	want := map[string]string{
		`"stays"`: "public.stays", `"renamed"`: "public.has_a_new_name", `"dropped"`: "public.dropped", `"watched"`: "public.watched",
		`"stays again"`: "public.stays", `"renamed again"`: "public.has_a_new_name", `"dropped again"`: "public.dropped", `"watched again"`: "public.watched",
	}
	listed := func() map[string]string {
		page, err := operate.List(t.Context(), b.Pool(t), operate.Filter{}, operate.ListOptions{Payload: true})
		require.NoError(t, err)
		out := map[string]string{}
		for _, e := range page.Events {
			var row struct{ V string }
			require.NoError(t, json.Unmarshal(e.Payload.New, &row))
			out[`"`+row.V+`"`] = e.Table
		}
		return out
	}
	require.Equal(t, want, listed())
	var viewed map[string]string
	require.NoError(t, b.Conn(t).QueryRow(t.Context(), `select json_object_agg((payload->'data'->'new'->'v')::text, schema_name || '.' || table_name) from rowhook.events`).Scan(&viewed))
	require.Equal(t, want, viewed)
	page, err := operate.List(t.Context(), b.Pool(t), operate.Filter{Table: "stays"}, operate.ListOptions{})
	require.NoError(t, err)
	require.Len(t, page.Events, 2, "those of a table are found although nothing watches it")

	b.receiver.respond(func(_ int, _ delivery, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	b.start(t)
	require.Equal(t, want, b.tables(t, "moves", 8))
	eventually(t, b.Conn(t), 8, "select count(*)::integer from rowhook.dead_letter")
	require.Equal(t, want, listed(), "dead letters")
	b.receiver.respond(nil)
	_, err = operate.Redeliver(t.Context(), b.Pool(t), operate.Filter{States: []operate.State{operate.Dead}}, operate.BulkOptions{})
	require.NoError(t, err)
	eventually(t, b.Conn(t), 8, "select count(*)::integer from rowhook.event_archive")
	require.Equal(t, want, listed(), "delivered ones")
}

// TestAnEventOfASwappedTableIsNeverOfTheTableThatHasItsNameNow swaps a watched table by renames,
// applies, and drops the old one while its event waits.
func TestAnEventOfASwappedTableIsNeverOfTheTableThatHasItsNameNow(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.Exec(t, "create table swapped (id int, v text)")
	b.apply(t, b.Spec("swapped"))
	b.Exec(t, "insert into swapped (v) values ('old'); alter table swapped rename to swapped_old; create table swapped (id int, v text)")
	b.apply(t, b.Spec("swapped"))
	b.Exec(t, "insert into swapped (v) values ('new'); drop table swapped_old")
	b.start(t)
	require.Equal(t, map[string]string{`"old"`: "public.swapped_old", `"new"`: "public.swapped"}, b.tables(t, "swapped", 2))
}

// TestARestoredDatabaseNamesItsOwnTables loads a dump into a database in which oids are others, and
// delivers without an apply.
func TestARestoredDatabaseNamesItsOwnTables(t *testing.T) {
	t.Parallel()
	if !pgtest.CanDump(t) {
		return
	}
	b := newFixture(t)
	b.watch(t, "first")
	b.Exec(t, "create table second (id int, v text); insert into first (v) values ('first')")
	moved := b.Spec("first", func(s *trigger.Spec) { s.Table = "second" })
	b.apply(t, moved)
	b.Exec(t, "insert into second (v) values ('second')")
	b.watch(t, "gone")
	b.Exec(t, "insert into gone (v) values ('gone'); drop table gone")
	dump := b.Dump(t)

	copied := &fixture{&dispatchtest.Site{DB: pgtest.NewEmpty(t), Endpoint: b.Endpoint}, b.receiver}
	copied.Load(t, dump)
	conn := copied.Conn(t)
	var stale int
	require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from rowhook.trigger where relation <> 'second'::regclass and name = 'first'").Scan(&stale))
	if stale == 0 { // it has the same oids by chance
		copied.Exec(t, "alter table rowhook.trigger disable trigger all; update rowhook.trigger set relation = 'rowhook.backfill_unfinished'::regclass; "+
			"update rowhook.relation set oid = oid + 1000000, home = 1; alter table rowhook.trigger enable trigger all")
	}
	copied.Exec(t, "alter table rowhook.trigger disable trigger all; "+ // the oid that the dump has of it is another's here
		"update rowhook.trigger set relation = 'rowhook.backfill_unfinished'::regclass, watched = 'rowhook.backfill_unfinished' where name = 'gone'; alter table rowhook.trigger enable trigger all")
	lines := copied.lacking(t)
	require.Contains(t, strings.Join(lines, "\n"), "the trigger first watches public.second, whose recorded oid is that of another database")
	copied.start(t, func(c *dispatcher.Config) { c.DatabaseURL = copied.URL() })
	want := map[string]string{`"first"`: "public.first", `"second"`: "public.second"}
	require.Equal(t, want, copied.tables(t, "first", 2))
	require.Equal(t, map[string]string{`"gone"`: "public.gone"}, copied.tables(t, "gone", 1))

	cfg, err := queue.Load(t.Context(), conn)
	require.NoError(t, err)
	_, err = sqlschema.Apply(t.Context(), conn, []trigger.Spec{moved}, cfg.Settings, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Empty(t, copied.lacking(t))
	require.NoError(t, conn.QueryRow(t.Context(), `
select (select count(*) from rowhook.trigger where relation <> 'second'::regclass and name = 'first') +
       (select count(*) from rowhook.relation where oid <> coalesce(to_regclass(table_name), 0) or home <> 'rowhook.relation'::regclass)`).Scan(&stale))
	require.Zero(t, stale)
}
