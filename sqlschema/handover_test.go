package sqlschema_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// guarded is a database with a table t, whose owner is not trusted.
type guarded struct {
	watched
	owner    watched // the same database, as the owner of t
	name     string  // of the owner
	listener *pgx.Conn
}

func newGuarded(t *testing.T, specs ...trigger.Spec) guarded {
	t.Helper()
	w := newWatched(t, "create table t (id int, v text)")
	name, url := w.Role(t)
	w.do(t, "alter table t owner to "+name)
	g := guarded{w, w.as(t, url), name, w.Conn(t)}
	g.apply(t, specs...)
	_, err := g.listener.Exec(t.Context(), "listen rowhook; listen rowhook_take_7")
	require.NoError(t, err)
	return g
}

// apply applies, which stops all hand-over, and has instance 7 awake again.
func (g guarded) apply(t *testing.T, specs ...trigger.Spec) *sqlschema.Plan {
	t.Helper()
	plan := g.watched.apply(t, specs...)
	g.awake(t)
	return plan
}

// awake says that instance 7 is awake, and for which remainders of their ids it refuses triggers.
func (w watched) awake(t *testing.T, refused ...int) {
	t.Helper()
	value := int64(7)
	for _, r := range refused {
		value += 1 << (31 + r)
	}
	w.do(t, fmt.Sprintf("select setval('rowhook.doorbell', 1), setval('rowhook.handover', %d)", value))
}

// recorded returns the events since the last call, oldest first, and how each is: handed, or waiting.
func (w watched) recorded(t *testing.T) (out []string) {
	t.Helper()
	rows, err := w.conn.Query(t.Context(), `
with gone as (delete from rowhook.event_log returning *)
select concat_ws(' ', t.name, q.op, coalesce(q.old::text, 'null'), coalesce(q.new::text, 'null'),
         case when q.claimed_by = 7 and q.tries = 1 and q.claim = 1 and q.due_at between now() + interval '60 seconds' and now() + interval '90 seconds' then 'handed'
              when q.claimed_by is null and q.tries = 0 and q.claim is null then 'waiting' else 'neither' end)
  from gone q join rowhook.trigger t on t.id = q.trigger_id and t.relation_id = q.relation_id order by q.created_at, q.id`)
	require.NoError(t, err)
	out, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return out
}

// recordedAs returns how the events since the last call are, such as 2 handed.
func (w watched) recordedAs(t *testing.T) string {
	t.Helper()
	n := map[string]int{}
	for _, line := range w.recorded(t) {
		n[line[strings.LastIndex(line, " ")+1:]]++
	}
	var parts []string
	for _, how := range []string{"handed", "waiting", "neither"} {
		if n[how] > 0 {
			parts = append(parts, fmt.Sprint(n[how], " ", how))
		}
	}
	return strings.Join(parts, ", ")
}

// announced returns the channels of the notifications since the last call. What instance 7 was told
// are events that were handed over to it.
func (g guarded) announced(t *testing.T) (channels []string) {
	t.Helper()
	g.do(t, "select pg_notify('rowhook', 'end')")
	for {
		n, err := g.listener.WaitForNotification(t.Context())
		require.NoError(t, err)
		if n.Payload == "end" {
			return channels
		}
		channels = append(channels, n.Channel)
		if n.Channel != "rowhook" {
			require.Equal(t, "1", g.scalar(t, "select count(*) from rowhook.event_log where concat(trigger_id, ' ', id) = $1 and claimed_by = 7", n.Payload))
		}
	}
}

// handings counts the functions by which guarded captures hand over.
const handings = "select count(*) from pg_proc where pronamespace = 'rowhook'::regnamespace and proname ~ '^payload_[0-9]' and pronargs = 5"

func TestSingleRowsOfATableOfAnUntrustedOwnerAreHandedOver(t *testing.T) {
	t.Parallel()
	for how, with := range map[string]func(*trigger.Spec){
		"by the statement": capturedBy("auto"), "by row": capturedBy("rows"), "chosen columns": payload("id", "v"), "without the old row": func(s *trigger.Spec) { s.Payload.Old = trigger.OldNone },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, all("w", "t", with))
			was := `{"id":1,"v":"x"}`
			if how == "without the old row" {
				was = "null"
			}
			writes := func(how string, channels ...string) {
				t.Helper()
				g.owner.do(t, "insert into t values (1, 'x')", "update t set v = 'y'", "delete from t")
				require.Equal(t, channels, g.announced(t))
				require.Equal(t, []string{`w I null {"id":1,"v":"x"} ` + how, `w U ` + was + ` {"id":1,"v":"y"} ` + how, `w D {"id":1,"v":"y"} null ` + how}, g.recorded(t))
			}
			const take = "rowhook_take_7"
			writes("handed", take, take, take)
			g.awake(t, 1) // the trigger's own remainder
			writes("waiting", "rowhook", "rowhook", "rowhook")
			g.awake(t, 0, 2, 31)
			writes("handed", take, take, take)
			g.do(t, "select setval('rowhook.handover', 0)") // nobody
			writes("waiting", "rowhook", "rowhook", "rowhook")
			g.awake(t)
			g.do(t, "select setval('rowhook.doorbell', 7)") // silence
			writes("waiting")
			require.Equal(t, g.name, g.scalar(t, "select proowner::regrole from pg_proc where proname = 'capture_1'"))
			require.Equal(t, "postgres", g.scalar(t, "select proowner::regrole from pg_proc where proname = 'payload_1' and pronargs = 5 and prosecdef and proconfig = '{\"search_path=pg_catalog, pg_temp\"}'"))
		})
	}
}

func TestWhatIsNotHandedOverIsRecordedAsBeforeOnATableOfAnUntrustedOwner(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, all("w", "t"))
	g.owner.do(t, "insert into t select i, 'x' from generate_series(1, 100) i")
	require.Equal(t, "100 waiting", g.recordedAs(t))
	require.Equal(t, []string{"rowhook"}, g.announced(t))
	g.owner.do(t, "begin; do $$ begin for i in 1..20 loop insert into t values (i, 'x'); end loop; end $$; commit")
	require.Equal(t, "8 handed, 12 waiting", g.recordedAs(t))
	g.owner.do(t, "begin", "savepoint s", "insert into t values (1, 'x')", "rollback to s", "insert into t values (2, 'y')", "commit")
	require.Equal(t, []string{`w I null {"id":2,"v":"y"} handed`}, g.recorded(t))
}

// What a trigger no longer needs is dropped, and nothing of a removed one stays.
func TestWhatHandsOverGoesWhenItIsNotNeeded(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, all("w", "t"))
	single := func() string {
		g.owner.do(t, "insert into t values (1, 'x')")
		return g.recordedAs(t)
	}
	for _, step := range []struct {
		with   func(*trigger.Spec)
		n, how string
	}{
		{func(s *trigger.Spec) { s.Order.By = []string{"id"} }, "0", "1 waiting"}, {capturedBy("auto"), "1", "1 handed"},
		{func(s *trigger.Spec) { s.Delay = trigger.Duration(1e9) }, "0", "1 waiting"}, {payload("id"), "1", "1 handed"},
		{func(s *trigger.Spec) { s.On.Truncate = true }, "0", "1 waiting"}, {neverNotify, "1", "1 waiting"}, {capturedBy("auto"), "1", "1 handed"},
	} {
		g.apply(t, all("w", "t", step.with))
		require.Equal(t, step.n, g.scalar(t, handings))
		require.Equal(t, step.how, single())
	}
	g.do(t, "alter table t owner to current_user; grant insert on t to "+g.name)
	g.apply(t, all("w", "t"))
	require.Equal(t, "0", g.scalar(t, handings))
	require.Equal(t, "1 handed", single())
	g.do(t, "alter table t owner to "+g.name)
	g.apply(t, all("w", "t"))
	require.Equal(t, "1 handed", single())
	g.apply(t)
	require.Equal(t, "0", g.scalar(t, "select count(*) from pg_class c full join pg_proc p on false where relname ~ '_1$' and relnamespace = 'rowhook'::regnamespace or proname ~ '_1$' and pronamespace = 'rowhook'::regnamespace"))
}

func TestHandOverGoesOnUnderOtherNames(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, all("w", "t"))
	g.do(t, "alter role "+g.name+" rename to "+g.name+"_new", "alter table t rename column v to old")
	g.do(t, "alter table t rename to u")
	g.owner.do(t, "insert into u values (1, 'x')")
	require.Equal(t, []string{`w I null {"id":1,"old":"x"} handed`}, g.recorded(t))
	g.do(t, "alter role "+g.name+"_new rename to "+g.name)
	g.apply(t, all("w", "u"))
	g.owner.do(t, "insert into u values (1, 'x')")
	require.Equal(t, []string{`w I null {"id":1,"old":"x"} handed`}, g.recorded(t))
}

// Columns may be called as the variables of a capture are.
func TestColumnsOfAHandedRowMayHaveAnyName(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, all("w", "t"))
	g.owner.do(t, `alter table t add before text default 'b', add after text default 'a', add r int default 1, add session text default 's', add op text default 'o'`)
	g.apply(t, all("w", "t"))
	row := `{"id":1,"v":"x","before":"b","after":"a","r":1,"session":"s","op":"o"}`
	g.owner.do(t, "insert into t values (1, 'x')", "update t set id = 1, v = 'x', r = 2", "insert into t select 1, 'x' from generate_series(1, 2)")
	require.Equal(t, []string{"w I null " + row + " handed", "w U " + row + " " + strings.Replace(row, `"r":1`, `"r":2`, 1) + " handed", "w I null " + row + " waiting", "w I null " + row + " waiting"}, g.recorded(t))
}

func TestAWayDownLeavesCapturesThatHandNothingOver(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, all("w", "t"))
	_, newest, err := sqlschema.Version(t.Context(), g.conn)
	require.NoError(t, err)
	for _, version := range []int32{7, 3} {
		require.NoError(t, sqlschema.MigrateTo(t.Context(), g.conn, version, nil))
		g.owner.do(t, "insert into t values (1, 'x')", "update t set v = 'y'", "delete from t")
		require.Equal(t, "0", g.scalar(t, "select count(*) from rowhook.event_log where claimed_by is not null or tries <> 0"))
		require.Len(t, g.take(t), 3)
	}
	require.NoError(t, sqlschema.MigrateTo(t.Context(), g.conn, newest, nil))
	g.awake(t)
	g.owner.do(t, "insert into t values (1, 'x')")
	require.Equal(t, "1 handed", g.recordedAs(t))
	require.True(t, g.plan(t, all("w", "t")).Empty())
}

func TestEachTableOfATriggerHandsOverAsItsOwner(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	other, url := g.Role(t)
	g.do(t, "create table u (id int, v text); alter table u owner to "+other+"; create table mine (id int, v text)")
	spec := all("w", "")
	spec.Table, spec.Tables = "", []string{"public.t", "public.u", "public.mine"}
	g.apply(t, spec)
	require.Equal(t, "2", g.scalar(t, handings))
	eve := g.as(t, url)
	g.owner.do(t, "insert into t values (1, 'x')")
	eve.do(t, "insert into u values (1, 'x')")
	g.do(t, "insert into mine values (1, 'x')")
	require.Equal(t, "mine t u", g.scalar(t, `select string_agg(r.table_name, ' ' order by r.table_name) from rowhook.event_log q join rowhook.relation r on r.id = q.relation_id
		where q.claimed_by = 7 and q.claim = 1`))
	// One owner records nothing of the other's table.
	function := g.scalar(t, "select oid::regproc from pg_proc where pronargs = 5 and proname ~ '^payload_' and has_function_privilege($1, oid, 'EXECUTE')", other)
	require.Contains(t, g.owner.fails(t, "select "+function+"('I', null, '{}', null, null)"), "permission denied for function")
}

func TestALostFunctionThatHandsOverIsToldAndMadeAgain(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, all("w", "t"))
	found, err := sqlschema.FindUncaptured(t.Context(), g.conn)
	require.NoError(t, err)
	require.Empty(t, found)
	g.do(t, `drop function rowhook.payload_1("char", json, json, json, json)`)
	found, err = sqlschema.FindUncaptured(t.Context(), g.conn)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Contains(t, found[0].Problem, "the functions of the capture trigger were dropped")
	for _, change := range []string{
		`select 1`, `alter function rowhook.payload_1("char", json, json, json, json) security invoker`,
		`alter function rowhook.payload_1("char", json, json, json, json) reset search_path`,
		`revoke all on function rowhook.payload_1("char", json, json, json, json) from ` + g.name,
		`alter function rowhook.payload_1("char", json, json, json, json) owner to ` + g.name,
	} {
		g.do(t, change)
		require.Len(t, g.apply(t, all("w", "t")).Changes(), 1, change)
		g.owner.do(t, "insert into t values (1, 'x')")
		require.Equal(t, "1 handed", g.recordedAs(t), change)
	}
	foreign, err := sqlschema.ForeignGrants(t.Context(), g.conn)
	require.NoError(t, err)
	require.Empty(t, foreign)
}
