package sqlschema_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (w watched) plan(t *testing.T, specs ...trigger.Spec) *sqlschema.Plan {
	t.Helper()
	plan, err := sqlschema.MakePlan(t.Context(), w.conn, specs, trigger.DefaultSettings())
	require.NoError(t, err)
	return plan
}

// state is everything that an apply may write, with the ids of the transactions that wrote it.
func (w watched) state(t *testing.T) string {
	t.Helper()
	return w.scalar(t, `select string_agg(x, e'\n' order by x) from (
		select concat_ws(' ', xmin, t) from rowhook.trigger t union all select concat_ws(' ', xmin, s) from rowhook.setting s
		union all select concat_ws(' ', t.xmin, tgrelid, tgname, tgenabled) from pg_trigger t where not tgisinternal
		union all select concat_ws(' ', xmin, oid, proname) from pg_proc where pronamespace = 'rowhook'::regnamespace) as _ (x)`)
}

// TestApplyReconciles goes from one configuration to another, while the table may be changed in
// between, and writes.
func TestApplyReconciles(t *testing.T) {
	t.Parallel()
	table := "create table t (id int primary key, a int, b int); create table u (id int, a int)"
	insertOnly := func(s *trigger.Spec) { s.On = trigger.On{Insert: true} }
	for name, c := range map[string]struct {
		before []trigger.Spec
		meddle string
		after  []trigger.Spec
		plan   string // without the notes on locks
		want   []string
	}{
		"created": {nil, "", []trigger.Spec{all("w", "t", insertOnly)},
			"+ trigger w: on public.t\n  + capture trigger rowhook_w_insert on public.t\n  + guard trigger rowhook_w_guard on public.t", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"unchanged": {[]trigger.Spec{all("w", "t")}, "", []trigger.Spec{all("w", "t")}, "", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"only the delivery changed": {[]trigger.Spec{all("w", "t")}, "", []trigger.Spec{all("w", "t", func(s *trigger.Spec) { s.Webhook.URL, s.Retry.Limit = "http://x", 0 })},
			"~ trigger w\n    retry.limit: 12 becomes 0\n    webhook.url: ${URL} becomes http://x", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"an operation added": {[]trigger.Spec{all("w", "t", updatesOf("a"))}, "", []trigger.Spec{all("w", "t", func(s *trigger.Spec) {
			s.On = trigger.On{Insert: true, Update: trigger.UpdateOn{Enabled: true, Columns: []string{"a"}}}
		})}, "~ trigger w\n    on.insert: true\n  + capture trigger rowhook_w_insert on public.t\n  + guard trigger rowhook_w_guard on public.t", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"an operation removed": {[]trigger.Spec{all("w", "t")}, "", []trigger.Spec{all("w", "t", insertOnly)},
			"~ trigger w\n    on.delete removed\n    on.update removed\n  - capture trigger rowhook_w_delete on public.t\n  - capture trigger rowhook_w_update on public.t", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"when changed": {[]trigger.Spec{all("w", "t", insertOnly)}, "", []trigger.Spec{all("w", "t", insertOnly, when("new.a = 2"))},
			"~ trigger w\n    when: new.a = 2\n  ~ capture trigger rowhook_w_insert on public.t\n  - guard trigger rowhook_w_guard on public.t", nil},
		"columns chosen": {[]trigger.Spec{all("w", "t", insertOnly)}, "", []trigger.Spec{all("w", "t", insertOnly, payload("b"))},
			"~ trigger w\n    payload.columns: [\"b\"]\n  + function rowhook.payload_1\n  ~ capture trigger rowhook_w_insert on public.t\n  - guard trigger rowhook_w_guard on public.t", []string{`w I null {"b":1}`}},
		"other columns chosen": {[]trigger.Spec{all("w", "t", insertOnly, payload("b"))}, "", []trigger.Spec{all("w", "t", insertOnly, payload("a", "b"))},
			"~ trigger w\n    payload.columns: [\"b\"] becomes [\"a\",\"b\"]\n  ~ function rowhook.payload_1", []string{`w I null {"a":1,"b":1}`}},
		"no columns chosen any more": {[]trigger.Spec{all("w", "t", insertOnly, payload("b"))}, "", []trigger.Spec{all("w", "t", insertOnly)},
			"~ trigger w\n    payload.columns removed\n  - function rowhook.capture_1()\n  - function rowhook.payload_1(public.t)\n  ~ capture trigger rowhook_w_insert on public.t\n  + guard trigger rowhook_w_guard on public.t", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"removed": {[]trigger.Spec{all("w", "t", insertOnly, payload("b"))}, "insert into t values (9, 9, 9)", nil,
			"- trigger w: no longer configured; 1 waiting event goes to the dead letters\n  - capture trigger rowhook_w_insert on public.t\n  - function rowhook.capture_1()\n  - function rowhook.payload_1(public.t)", nil},
		"moved to another table": {[]trigger.Spec{all("w", "u", insertOnly, payload("a"))}, "", []trigger.Spec{all("w", "t", insertOnly, payload("a"))},
			"  - capture trigger rowhook_w_insert on public.u\n  - function rowhook.capture_1()\n  - function rowhook.payload_1(public.u)\n~ trigger w: moves to another table, public.t\n    table: u becomes t\n" +
				"  + function rowhook.payload_1\n  + capture trigger rowhook_w_insert on public.t", []string{`w I null {"a":1}`}},
		"two triggers swapped": {[]trigger.Spec{all("w", "u", insertOnly), all("v", "t", insertOnly)}, "", []trigger.Spec{all("w", "t", insertOnly), all("v", "u", insertOnly)},
			"  - guard trigger rowhook_w_guard on public.u\n  - capture trigger rowhook_w_insert on public.u\n  - guard trigger rowhook_v_guard on public.t\n  - capture trigger rowhook_v_insert on public.t\n" +
				"~ trigger w: moves to another table, public.t\n    table: u becomes t\n  + capture trigger rowhook_w_insert on public.t\n  + guard trigger rowhook_w_guard on public.t\n" +
				"~ trigger v: moves to another table, public.u\n    table: t becomes u\n  + capture trigger rowhook_v_insert on public.u\n  + guard trigger rowhook_v_guard on public.u", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"renamed trigger": {[]trigger.Spec{all("w", "t", insertOnly)}, "", []trigger.Spec{all("v", "t", insertOnly)},
			"- trigger w: no longer configured\n  - guard trigger rowhook_w_guard on public.t\n  - capture trigger rowhook_w_insert on public.t\n+ trigger v: on public.t\n  + capture trigger rowhook_v_insert on public.t\n  + guard trigger rowhook_v_guard on public.t", []string{`v I null {"id":1,"a":1,"b":1}`}},
		"table dropped and made again": {[]trigger.Spec{all("w", "t", insertOnly, payload("a"))}, "drop table t cascade; create table t (id int, a int, b int)", []trigger.Spec{all("w", "t", insertOnly, payload("a"))},
			"~ trigger w: moves to another table, public.t, since the table that it watched was dropped\n  + function rowhook.payload_1\n  + capture trigger rowhook_w_insert on public.t", []string{`w I null {"a":1}`}},
		"another table renamed into its place": {[]trigger.Spec{all("w", "t", insertOnly)}, "alter table t rename to t_old; create table t (like t_old)", []trigger.Spec{all("w", "t", insertOnly)},
			"  - guard trigger rowhook_w_guard on public.t_old\n  - capture trigger rowhook_w_insert on public.t_old\n~ trigger w: moves to another table, public.t, which has the name now: public.t_old is no longer watched\n  + capture trigger rowhook_w_insert on public.t\n  + guard trigger rowhook_w_guard on public.t", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"dropped by hand": {[]trigger.Spec{all("w", "t", insertOnly)}, "drop trigger rowhook_w_insert on t", []trigger.Spec{all("w", "t", insertOnly)},
			"  + capture trigger rowhook_w_insert on public.t", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"disabled by hand": {[]trigger.Spec{all("w", "t", insertOnly)}, "alter table t disable trigger rowhook_w_insert", []trigger.Spec{all("w", "t", insertOnly)},
			"  ~ capture trigger rowhook_w_insert on public.t: enabled as configured", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"renamed by hand": {[]trigger.Spec{all("w", "t", insertOnly)}, "alter trigger rowhook_w_insert on t rename to mine", []trigger.Spec{all("w", "t", insertOnly)},
			"  + capture trigger rowhook_w_insert on public.t\n  - capture trigger mine on public.t", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"redefined by hand": {[]trigger.Spec{all("w", "t", insertOnly)}, "create or replace trigger rowhook_w_insert after insert on t for each row when (new.a > 1) execute function rowhook.capture('1')", []trigger.Spec{all("w", "t", insertOnly)},
			"  ~ capture trigger rowhook_w_insert on public.t", []string{`w I null {"id":1,"a":1,"b":1}`}},
		"function dropped by hand": {[]trigger.Spec{all("w", "t", insertOnly, payload("a"))}, "drop function rowhook.payload_1", []trigger.Spec{all("w", "t", insertOnly, payload("a"))},
			"  + function rowhook.payload_1", []string{`w I null {"a":1}`}},
		"function redefined by hand": {[]trigger.Spec{all("w", "t", insertOnly, payload("a"))}, "create or replace function rowhook.payload_1(t) returns json language sql return '1'::json", []trigger.Spec{all("w", "t", insertOnly, payload("a"))},
			"  ~ function rowhook.payload_1", []string{`w I null {"a":1}`}},
		"watched column dropped with cascade": {[]trigger.Spec{all("w", "t", updatesOf("b"))}, "alter table t drop b cascade; alter table t add b int", []trigger.Spec{all("w", "t", updatesOf("b"))},
			"  + capture trigger rowhook_w_update on public.t", nil},
		"manual only": {nil, "", []trigger.Spec{all("w", "t", func(s *trigger.Spec) { s.On = trigger.On{Manual: true} }, payload("a"))}, "+ trigger w: on public.t", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, table)
			w.apply(t, c.before...)
			w.do(t, c.meddle)
			var lines []string
			for line := range strings.Lines(w.plan(t, c.after...).String()) {
				line, _, _ = strings.Cut(strings.TrimRight(line, "\n"), " (locks")
				lines = append(lines, line)
			}
			require.Equal(t, c.plan, strings.Join(lines, "\n"))
			generation := w.scalar(t, "select value::int from rowhook.setting where name = 'generation'")
			w.apply(t, c.after...)
			if c.plan == "" {
				require.Equal(t, generation, w.scalar(t, "select value::int from rowhook.setting where name = 'generation'"))
			} else {
				require.NotEqual(t, generation, w.scalar(t, "select value::int from rowhook.setting where name = 'generation'"))
			}
			before := w.state(t)
			w.apply(t, c.after...)
			require.Equal(t, before, w.state(t))
			w.take(t)
			w.do(t, "insert into t values (1, 1, 1)")
			if got := w.take(t); len(got)+len(c.want) > 0 {
				require.Equal(t, c.want, got)
			}
		})
	}
}

func TestPlanSaysWhatIsLocked(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int)")
	require.Contains(t, w.plan(t, all("w", "t")).String(), "+ capture trigger rowhook_w_insert on public.t (locks the table against writes for a moment)")
	w.apply(t, all("w", "t"))
	require.Contains(t, w.plan(t).String(), "- capture trigger rowhook_w_insert on public.t (locks the table against reads and writes for a moment)")
}

func TestPlanWarnsOfInheritance(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int); create table c () inherits (t)")
	require.Contains(t, w.plan(t, all("w", "t")).String(), "! w: other tables inherit from public.t")
}

func TestPlanWorksBeforeTheFirstMigration(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	db.Exec(t, "create table t (a int)")
	w := watched{db, db.Conn(t)}
	require.Equal(t, "+ schema rowhook\n+ trigger w: on public.t\n  + capture trigger rowhook_w_insert on public.t (locks the table against writes for a moment)\n"+
		"  + guard trigger rowhook_w_guard on public.t (locks the table against writes for a moment)",
		w.plan(t, all("w", "t", func(s *trigger.Spec) { s.On = trigger.On{Insert: true} })).String())
	require.Equal(t, "false", w.scalar(t, "select exists (select from pg_namespace where nspname = 'rowhook')"))
}

func TestApplyWritesSettings(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "")
	settings := trigger.Settings{
		Retention: trigger.Retention{Delivered: 0, Attempts: trigger.Duration(time.Hour)},
		Network:   trigger.Network{Deny: []string{"private"}, Allow: []string{"10.1.0.0/16"}},
		Alerts:    []trigger.Alert{{URL: "https://hidden.example", Format: "slack", Secret: "hidden"}, {Heartbeat: "https://hidden.example/h", Every: trigger.DefaultHeartbeat}},
	}
	plan, err := sqlschema.Apply(t.Context(), w.conn, nil, settings, quiet())
	require.NoError(t, err)
	require.Equal(t, "~ setting retention\n    attempts: 7d becomes 1h\n    delivered: 7d becomes 0\n"+
		`+ setting network: {"deny":["private"],"allow":["10.1.0.0/16"]}`+"\n+ setting alerts: 2 entries", plan.String())
	cfg, err := queue.Load(t.Context(), w.conn)
	require.NoError(t, err)
	require.Equal(t, settings, cfg.Settings)
	again, err := sqlschema.MakePlan(t.Context(), w.conn, nil, settings)
	require.NoError(t, err)
	require.True(t, again.Empty())

	settings.Alerts[0] = trigger.Alert{URL: "https://hidden.example/other", Format: "json", On: []string{"dead"}}
	plan, err = sqlschema.Apply(t.Context(), w.conn, nil, settings, quiet())
	require.NoError(t, err)
	require.Equal(t, "~ setting alerts\n    [0].format: slack becomes json\n    [0].on: [\"dead\"]\n    [0].secret removed\n    [0].url changed", plan.String())
	settings.Alerts = nil
	plan, err = sqlschema.Apply(t.Context(), w.conn, nil, settings, quiet())
	require.NoError(t, err)
	require.NotContains(t, plan.String(), "hidden")
	require.Contains(t, plan.String(), "[1].heartbeat removed")
	settings.Alerts = []trigger.Alert{{URL: "https://hidden.example", Format: "json"}}
	plan, err = sqlschema.Apply(t.Context(), w.conn, nil, settings, quiet())
	require.NoError(t, err)
	require.NotContains(t, plan.String(), "hidden")
}

// TestRemovedTriggersEventsGoToTheDeadLetters also inserts an event in a transaction that outlasts
// the removal, and brings the trigger back.
func TestRemovedTriggersEventsGoToTheDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int); create table u (a int)", all("w", "t"), all("u", "u"))
	w.do(t, "insert into t values (1), (2)", "insert into u values (1)", "update rowhook.event_log set claimed_by = 7, due_at = now() + '1h' where new::text = '{\"a\":2}'")
	id := w.scalar(t, "select id from rowhook.trigger where name = 'w'")
	plan := w.apply(t, all("u", "u"))
	require.Contains(t, plan.String(), "2 waiting events go to the dead letters")
	require.Equal(t, `I trigger removed {"a":1}`, w.scalar(t, "select concat_ws(' ', op, reason, new) from rowhook.dead_letter where trigger_id = $1", id))
	require.Equal(t, "t", w.scalar(t, "select bool_and(claimed_by = 7)::text::\"char\" from rowhook.event_log where trigger_id = $1", id))
	w.do(t, "insert into rowhook.event_log (id, trigger_id, op) select rowhook.uuid7(), "+id+", 'I' from generate_series(1, 12000)", "update rowhook.event_log set claimed_by = null, due_at = now()")
	buried, err := queue.BuryOrphans(t.Context(), w.conn)
	require.NoError(t, err)
	require.EqualValues(t, 12001, buried)
	require.Equal(t, []string{`u I null {"a":1}`}, w.take(t))
	w.apply(t, all("w", "t"), all("u", "u"))
	require.Equal(t, id, w.scalar(t, "select id from rowhook.trigger where name = 'w' and removed_at is null"))
	w.do(t, "insert into t values (3)")
	require.Equal(t, []string{`w I null {"a":3}`}, w.take(t))
}

func TestConcurrentAppliesEndAtOneOfTheConfigurations(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int, b int)")
	var g errgroup.Group
	for i := range 6 {
		conn := w.Conn(t)
		g.Go(func() error {
			_, err := sqlschema.Apply(t.Context(), conn, []trigger.Spec{all("w", "t", payload([]string{"a", "b"}[i%2]))}, trigger.DefaultSettings(), quiet())
			return err
		})
	}
	require.NoError(t, g.Wait())
	w.do(t, "insert into t values (1, 1)")
	require.Len(t, w.take(t), 1)
	w.apply(t, all("w", "t", payload("a")))
}

// TestBusyTableHoldsNothingUp applies while a transaction holds the table. Others write to it
// meanwhile, and other tables are applied. The error names the blocker. After the transaction an
// apply succeeds.
func TestBusyTableHoldsNothingUp(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int); create table u (a int)")
	busy := watched{w.DB, w.Conn(t)}
	busy.do(t, "set application_name = 'long job'", "begin", "insert into t values (1)")
	specs := []trigger.Spec{all("w", "t"), all("u", "u")}
	applier := sqlschema.Applier{LockTimeout: 50 * time.Millisecond, Patience: 600 * time.Millisecond}
	writer := watched{w.DB, w.Conn(t)}
	writer.do(t, "set lock_timeout = '5s'")
	done := make(chan error, 1)
	go func() {
		_, err := applier.Apply(t.Context(), w.conn, specs, trigger.DefaultSettings(), quiet())
		done <- err
	}()
	var err error
	for err == nil {
		writer.do(t, "insert into t values (2)")
		select {
		case err = <-done:
		default:
		}
	}
	var blocked *sqlschema.BusyError
	require.ErrorAs(t, err, &blocked)
	require.Equal(t, "public.t", blocked.Table)
	require.Contains(t, err.Error(), "long job")
	require.Contains(t, err.Error(), "idle in transaction")
	require.Contains(t, err.Error(), fmt.Sprintf("pg_terminate_backend(%d)", busy.conn.PgConn().PID()))
	w.do(t, "insert into u values (1)")
	require.Equal(t, []string{`u I null {"a":1}`}, w.take(t))

	go func() {
		_, err := sqlschema.Applier{LockTimeout: 20 * time.Millisecond}.Apply(t.Context(), w.conn, specs, trigger.DefaultSettings(), quiet())
		done <- err
	}()
	require.Eventually(t, func() bool {
		return writer.scalar(t, "select exists (select from pg_locks where not granted and relation = 't'::regclass and database = (select oid from pg_database where datname = current_database()))") == "true"
	}, time.Minute, time.Millisecond)
	busy.do(t, "commit")
	require.NoError(t, <-done)
	w.do(t, "insert into t values (3)")
	require.Equal(t, []string{`w I null {"a":3}`}, w.take(t))
}

func TestBusyTableHeldByAPreparedTransaction(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int)")
	gid := "g_" + w.scalar(t, "select current_database()")
	w.do(t, "begin", "insert into t values (1)", "prepare transaction '"+gid+"'")
	_, err := sqlschema.Applier{LockTimeout: 20 * time.Millisecond, Patience: 50 * time.Millisecond}.Apply(t.Context(), w.conn, []trigger.Spec{all("w", "t")}, trigger.DefaultSettings(), quiet())
	w.do(t, "rollback prepared '"+gid+"'")
	require.ErrorContains(t, err, `prepared transaction "`+gid+`"`)
}

// TestMoveWaitsForItsOldTable checks that no table is left with a function for the rows of another
// one.
func TestMoveWaitsForItsOldTable(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int); create table u (b int)", all("w", "t", payload("a")))
	busy := watched{w.DB, w.Conn(t)}
	busy.do(t, "begin", "select from t")
	_, err := sqlschema.Applier{LockTimeout: 20 * time.Millisecond, Patience: 50 * time.Millisecond}.Apply(t.Context(), w.conn, []trigger.Spec{all("w", "u", payload("b"))}, trigger.DefaultSettings(), quiet())
	require.ErrorContains(t, err, "public.t was busy")
	require.ErrorContains(t, err, "its capture trigger is still on public.t")
	w.do(t, "insert into t values (1)")
	require.Equal(t, []string{`w I null {"a":1}`}, w.take(t))
	busy.do(t, "commit")
	w.apply(t, all("w", "u", payload("b")))
	w.do(t, "insert into t values (1)", "insert into u values (2)")
	require.Equal(t, []string{`w I null {"b":2}`}, w.take(t))
}

func TestLongNamesAreCutAndStayApart(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 40)
	w := newWatched(t, "create table t (a int)", all(long+"1", "t"), all(long+"2", "t"))
	w.do(t, "insert into t values (1)", "update t set a = 2", "delete from t")
	require.Len(t, w.take(t), 6)
}

// Hasura allows names of 42 characters, in any alphabet. Existing names are kept.
func TestTriggerNamesOf42CharactersAreCapturedUnderNamesThatStayApart(t *testing.T) {
	t.Parallel()
	var specs []trigger.Spec
	for _, letter := range []string{"x", "ä", "日", "😀"} {
		for _, length := range []int{40, 41, 42} {
			specs = append(specs, all(strings.Repeat(letter, length), "t"))
		}
	}
	w := newWatched(t, "create table t (a int)", specs...)
	w.do(t, "insert into t values (1)", "update t set a = 2", "delete from t")
	require.Len(t, w.take(t), 3*len(specs))
	require.Equal(t, "rowhook_"+strings.Repeat("x", 42)+"_insert", w.scalar(t, "select max(tgname) from pg_trigger where tgname ~ '^rowhook_x+_insert$'"))
	w.apply(t)
	require.Equal(t, "0", w.scalar(t, "select count(*) from pg_trigger where tgname like 'rowhook%'"))
}

func TestVirtualColumnsAppearInRowsWithColumnsAddedLater(t *testing.T) {
	t.Parallel()
	if pgtest.Version(t) < 18 {
		return
	}
	w := newWatched(t, "create table t (a int, v int generated always as (a * 2) virtual)", all("w", "t"))
	w.do(t, "alter table t add b int default 5", "alter table t rename a to z", "insert into t (z) values (1)")
	require.Equal(t, []string{`w I null {"z":1,"v":2,"b":5}`}, w.take(t))
	w.apply(t, all("w", "t"))
	w.do(t, "alter table t alter v set expression as (z * 3)")
	require.False(t, w.plan(t, all("w", "t")).Empty())
	w.apply(t, all("w", "t"))
	w.do(t, "insert into t (z) values (1)")
	require.Equal(t, []string{`w I null {"z":1,"v":3,"b":5}`}, w.take(t))
	w.do(t, "alter table t drop v cascade")
	w.apply(t, all("w", "t"))
	w.do(t, "insert into t (z) values (1)")
	require.Equal(t, []string{`w I null {"z":1,"b":5}`}, w.take(t))
}

func TestDroppingAChosenColumnWithCascadeLeavesNoWriteThatFails(t *testing.T) {
	t.Parallel()
	spec := all("w", "t", payload("a", "b"))
	w := newWatched(t, "create table t (a int, b int)", spec)
	w.do(t, "alter table t drop b cascade", "insert into t values (1)", "update t set a = 2", "delete from t")
	require.Empty(t, w.take(t), "the triggers went with the column")
	w.do(t, "alter table t add b int")
	require.False(t, w.plan(t, spec).Empty(), "apply notices and makes them again")
	w.apply(t, spec)
	w.do(t, "insert into t values (1, 2)")
	require.Equal(t, []string{`w I null {"a":1,"b":2}`}, w.take(t))
}

func masks(paths ...string) func(*trigger.Spec) {
	return func(s *trigger.Spec) { s.Payload.Mask = paths }
}

func TestAMaskMayNameWhatOnlyManualEventsHave(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int, b int)")
	plan := w.plan(t, all("w", "t", masks("a", "*", "other.d"), func(s *trigger.Spec) { s.On.Manual = true }))
	require.Equal(t, []string{`w: payload.mask has other.d, which masks only what manual events call so: the table public.t has no column "other"; its columns are a, b`}, plan.Warnings)
}

// TestSpecErrorsSayWhatToDo has a spec for every fault that only the database can tell.
func TestSpecErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create table orders (id int, status text, "Größe" int, amount numeric); create schema shop; create table shop.customers (a int);
		create table "Users" (a int); create view vw as select 1 as a; create materialized view mv as select 1 as a; create temporary table tmp (a int);
		create table parent (a int); create sequence sq;
		create foreign data wrapper w; create server s foreign data wrapper w; create foreign table ft (a int) server s;
		create function f() returns trigger language plpgsql as 'begin return null; end'; create trigger rowhook_taken_insert after insert on parent for each row execute function f()`)
	insert := func(s *trigger.Spec) { s.On = trigger.On{Insert: true} }
	for _, c := range []struct {
		spec trigger.Spec
		path string
		want string
	}{
		{all("x", "public.order"), "table", "there is no table public.order in this database; did you mean public.orders?"},
		{all("x", "customers"), "table", "there is no table customers in this database; did you mean shop.customers?"},
		{all("x", "Users"), "table", `there is no table Users in this database; did you mean public."Users"?`},
		{all("x", "nothing_like_it"), "table", "there is no table nothing_like_it in this database: create it first, or correct the name"},
		{all("x", `"a`), "table", "write it as in SQL"},
		{all("x", "a.b.c.d"), "table", "write it as in SQL"},
		{all("x", "vw"), "table", "public.vw is a view"},
		{all("x", "mv"), "table", "public.mv is a materialized view"},
		{all("x", "tmp"), "table", "is a temporary table"},
		{all("x", "ft"), "table", "public.ft is a foreign table"},
		{all("x", "sq"), "table", "public.sq is not a table"},
		{all("x", "pg_class"), "table", "belongs to Postgres itself"},
		{all("x", "information_schema.sql_features"), "table", "belongs to Postgres itself"},
		{all("x", "rowhook.event_log"), "table", "is Rowhook's own"},
		{all("x", "orders", updatesOf("status", "amounts")), "on.update.columns.1", `the table public.orders has no column "amounts"; did you mean amount?`},
		{all("x", "orders", updatesOf("STATUS")), "on.update.columns.0", `no column "STATUS"; did you mean status?`},
		{all("x", "orders", payload("id", "status", "x")), "payload.columns.2", `no column "x"; its columns are id, status, Größe, amount`},
		{all("x", "orders", masks("status", "amounts.*")), "payload.mask.1", `the table public.orders has no column "amounts"; did you mean amount?`},
		{all("x", "orders", masks("status.")), "payload.mask.0", `the masked path "status." has a part without a name: write a column`},
		{all("x", "orders", insert, when("new.amount >")), "when", "is incomplete"},
		{all("x", "orders", insert, when("new.amount")), "when", "must be true or false (boolean), but is of type numeric"},
		{all("x", "orders", insert, when("new.amount > 1 and new.statsu = 'x'")), "when", `column new.statsu does not exist at character 20 ("new.statsu = 'x'"); did you mean status?`},
		{all("x", "orders", insert, when("amount > 1")), "when", "write columns as new.name and old.name"},
		{all("x", "orders", insert, when("excluded.amount > 1")), "when", "write columns as new.name and old.name"},
		{all("x", "orders", insert, when("new.\"Größe\" = 1 or new.amount ~ 'x'")), "when", `operator does not exist: numeric ~ unknown at character 31 ("~ 'x'")`},
		{all("x", "orders", insert, when("true) or (true")), "when", "closes a parenthesis that it has not opened"},
		{all("x", "orders", insert, when("true) execute function pg_catalog.now(); --")), "when", `syntax error at or near "execute" at character 7`},
		{all("x", "orders", insert, when("true; drop table orders")), "when", `syntax error at or near ";" at character 5`},
		{all("x", "orders", insert, when("true /*")), "when", "unterminated /* comment"},
		{all("x", "orders", insert, when("$1")), "when", "has a parameter ($1)"},
		{all("x", "orders", insert, when("exists (select from shop.customers)")), "when", `cannot use subquery in when at character 1`},
		{all("x", "orders", insert, when("sum(new.amount) > 1")), "when", "aggregate functions are not allowed in when"},
		{all("x", "orders", insert, when("old.amount > 1")), "when", `mentions old, which an inserted row does not have: remove insert`},
		{all("x", "orders", when("new.amount > old.amount")), "when", `mentions old, which an inserted row does not have`},
		{all("x", "orders", func(s *trigger.Spec) { s.On = trigger.On{Delete: true} }, when("new.amount > 1")), "when", `mentions new, which a deleted row does not have`},
		{all("taken", "parent"), "name", "public.parent already has a trigger rowhook_taken_insert that is not Rowhook's"},
	} {
		t.Run(c.want, func(t *testing.T) {
			before := w.state(t)
			_, err := sqlschema.Apply(t.Context(), w.conn, []trigger.Spec{all("fine", "orders"), c.spec}, trigger.DefaultSettings(), quiet())
			var problems trigger.SpecErrors
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems, 1, "%v", err)
			require.Equal(t, 1, problems[0].Index)
			require.Equal(t, c.path, strings.Join(problems[0].Path, "."))
			require.Contains(t, problems[0].Message, c.want)
			require.Equal(t, before, w.state(t))
		})
	}
	_, err := sqlschema.MakePlan(t.Context(), w.conn, []trigger.Spec{all("a", "nope"), all("b", "orders", updatesOf("nope"), payload("nope"), when("nope"))}, trigger.DefaultSettings())
	var problems trigger.SpecErrors
	require.ErrorAs(t, err, &problems)
	require.Len(t, problems, 4)
	w.apply(t, all("renamed", "orders"))
	_, err = sqlschema.MakePlan(t.Context(), w.conn, []trigger.Spec{all("renamed", "oders")}, trigger.DefaultSettings())
	require.ErrorContains(t, err, "there is no table oders in this database; did you mean public.orders?", "the table is as it was")
	w.do(t, "alter table orders rename to purchases")
	_, err = sqlschema.MakePlan(t.Context(), w.conn, []trigger.Spec{all("renamed", "orders")}, trigger.DefaultSettings())
	require.ErrorContains(t, err, "the table that this trigger watches is now called public.purchases")
}

// TestApplyWithoutPrivilege applies as roles that lack rights.
func TestApplyWithoutPrivilege(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int); create table o (a int)")
	role := w.role(t)
	w.do(t, "grant usage, create on schema rowhook to "+role, "grant all on all tables in schema rowhook to "+role, "grant all on all sequences in schema rowhook to "+role,
		"grant execute on all functions in schema rowhook to "+role)
	as := watched{w.DB, w.Conn(t)}
	as.do(t, "set role "+role)
	_, err := sqlschema.Apply(t.Context(), as.conn, []trigger.Spec{all("w", "t")}, trigger.DefaultSettings(), quiet())
	require.ErrorContains(t, err, "may not create triggers on public.t: grant trigger on public.t to "+role)
	w.do(t, "grant trigger on t to "+role)
	as.apply(t, all("w", "t"))
	_, err = sqlschema.Apply(t.Context(), as.conn, []trigger.Spec{all("w", "t", onReplication)}, trigger.DefaultSettings(), quiet())
	require.ErrorContains(t, err, "on_replication needs ALTER TABLE")
	_, err = sqlschema.Apply(t.Context(), as.conn, nil, trigger.DefaultSettings(), quiet())
	require.ErrorContains(t, err, "must be owner of")
	require.ErrorContains(t, err, "apply as the table's owner")
	w.do(t, "insert into t values (1)")
	require.Len(t, w.take(t), 1)
}

func TestUninstallLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create schema "O o"; create table "O o"."T t" (a int); create table p (a int) partition by list (a); create table p1 partition of p for values in (1)`,
		all("w", `"O o"."T t"`), all("v", `"O o"."T t"`, payload("a")), all("p", "p", onReplication))
	w.do(t, `insert into "O o"."T t" values (1)`)
	loss, err := sqlschema.UninstallSummary(t.Context(), w.conn)
	require.NoError(t, err)
	require.Equal(t, sqlschema.Loss{Triggers: []string{"p", "v", "w"}, Waiting: 2}, loss)
	require.Contains(t, loss.String(), "3 triggers (p, v, w)\n2 events that wait to be delivered\n")

	busy := watched{w.DB, w.Conn(t)}
	busy.do(t, "begin", `select from "O o"."T t"`)
	err = sqlschema.Applier{LockTimeout: 20 * time.Millisecond, Patience: 50 * time.Millisecond}.Uninstall(t.Context(), w.conn, quiet())
	var blocked *sqlschema.BusyError
	require.ErrorAs(t, err, &blocked)
	busy.do(t, "commit")
	require.NoError(t, sqlschema.Uninstall(t.Context(), w.conn, quiet()))
	w.do(t, `insert into "O o"."T t" values (1)`, "insert into p values (1)")
	require.Equal(t, "0", w.scalar(t, "select count(*) from pg_trigger where not tgisinternal"))
	require.Equal(t, "false", w.scalar(t, "select exists (select from pg_namespace where nspname = 'rowhook')"))
	require.NoError(t, sqlschema.Uninstall(t.Context(), w.conn, quiet()))
	loss, err = sqlschema.UninstallSummary(t.Context(), w.conn)
	require.NoError(t, err)
	require.Zero(t, loss)
}

func TestMigrateIsSafeFromManyAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	var g errgroup.Group
	for range 6 {
		conn := db.Conn(t)
		g.Go(func() error { return sqlschema.Migrate(t.Context(), conn, quiet()) })
	}
	require.NoError(t, g.Wait())
	conn := db.Conn(t)
	require.NoError(t, sqlschema.Migrate(t.Context(), conn, quiet()))
	database, program, err := sqlschema.Version(t.Context(), conn)
	require.NoError(t, err)
	require.Equal(t, program, database)
}

// newerSchema turns a database into one that a later version has migrated and that this version
// can't work with.
const newerSchema = `
update rowhook.schema_version set version = version + 1;
update rowhook.setting set value = (select to_jsonb(version) from rowhook.schema_version) where name = 'compatible'`

func TestMigrateRefusesWhatItCannotWorkWith(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ prepare, want string }{
		"newer schema":       {newerSchema, "a newer Rowhook migrated it"},
		"read-only database": {"set default_transaction_read_only = on", "default_transaction_read_only is on"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, "")
			w.do(t, c.prepare)
			require.ErrorContains(t, sqlschema.Migrate(t.Context(), w.conn, quiet()), c.want)
		})
	}
	t.Run("newer schema refuses to apply", func(t *testing.T) {
		t.Parallel()
		w := newWatched(t, newerSchema)
		_, err := sqlschema.Apply(t.Context(), w.conn, nil, trigger.DefaultSettings(), quiet())
		var newer *sqlschema.NewerSchemaError
		require.ErrorAs(t, err, &newer)
		require.Equal(t, newer.Program+1, newer.Database)
	})
	t.Run("no privilege", func(t *testing.T) {
		t.Parallel()
		db := pgtest.NewEmpty(t)
		w := watched{db, db.Conn(t)}
		role := w.role(t)
		w.do(t, "set role "+role)
		require.ErrorContains(t, sqlschema.Migrate(t.Context(), w.conn, quiet()), "grant create on database")
	})
}

// TestMigratedTwiceStaysTheSame compares the ids of the transactions that wrote the rows.
func TestMigratedTwiceStaysTheSame(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int)", all("w", "t"))
	before := w.state(t)
	require.NoError(t, sqlschema.Migrate(t.Context(), w.conn, quiet()))
	require.Equal(t, before, w.state(t))
}

func TestPartitionsCopyDisabledByHandIsEnabledAgain(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table p (a int) partition by list (a); create table p1 partition of p for values in (1); create table p2 partition of p for values in (2)", all("p", "p"))
	w.do(t, "alter table p1 disable trigger rowhook_p_insert")
	require.Contains(t, w.plan(t, all("p", "p")).String(), "~ capture trigger rowhook_p_insert on public.p: enabled as configured")
	w.apply(t, all("p", "p"))
	w.do(t, "insert into p values (1), (2)")
	require.Equal(t, []string{`p I null {"a":1}`, `p I null {"a":2}`}, w.take(t))
}

func TestAPlanSaysWhatChangesAndHowManyEventsFollow(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a int, b int)", all("w", "t", func(s *trigger.Spec) {
		s.Webhook.URL, s.Webhook.Secret = "https://user:hunter2@example.com/a", "hunter3"
		s.Webhook.Headers = map[string]string{"X-Token": "Bearer hunter4", "X-Old": "hunter5"}
		s.Webhook.OAuth2 = trigger.OAuth2{TokenURL: "https://a.example.com", ClientID: "a", ClientSecret: "hunter10"}
	}))
	w.do(t, "insert into t values (1, 1, 1), (2, 2, 2)")
	plan := w.plan(t, all("w", "t", func(s *trigger.Spec) {
		s.Webhook.URL, s.Webhook.Secret = "https://user:hunter6@example.com/b", "hunter7"
		s.Webhook.Headers = map[string]string{"X-Token": "Bearer hunter8", "X-New": "hunter9"}
		s.Webhook.OAuth2 = trigger.OAuth2{TokenURL: "https://a.example.com", ClientID: "b", ClientSecret: "hunter11"}
		s.Retry.Interval = trigger.Duration(time.Minute)
	}))
	require.Equal(t, `~ trigger w (2 waiting events follow)
    retry.interval: 10s becomes 1m
    webhook.headers.X-New added
    webhook.headers.X-Old removed
    webhook.headers.X-Token changed
    webhook.oauth2.client_id: a becomes b
    webhook.oauth2.client_secret changed
    webhook.secret changed
    webhook.url: https://user:xxxxx@example.com/a becomes https://user:xxxxx@example.com/b`, plan.String())
	require.Equal(t, "~ trigger w (2 waiting events follow): retry.interval: 10s becomes 1m; webhook.headers.X-New added; "+
		"webhook.headers.X-Old removed; webhook.headers.X-Token changed; webhook.oauth2.client_id: a becomes b; webhook.oauth2.client_secret changed; webhook.secret changed; webhook.url: https://user:xxxxx@example.com/a becomes https://user:xxxxx@example.com/b", plan.Changes()[0].String())
}

// An application's migration may still make what is missing. Whoever waits for it asks Missing.
func TestFaultsSayWhatTheDatabaseLacksIfThatIsAll(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create table t (id int primary key, "A b" text); create view v as select 1 as a; create table old_name (id int)`)
	missing := func(specs ...trigger.Spec) []string {
		t.Helper()
		_, err := sqlschema.MakePlan(t.Context(), w.conn, specs, trigger.DefaultSettings())
		var faults trigger.SpecErrors
		require.ErrorAs(t, err, &faults)
		return faults.Missing()
	}
	columns := all("x", "t", payload("id", "new one"))
	columns.On.Update.Columns = []string{"A b", "status"}
	when := all("w", "t")
	when.On, when.When = trigger.On{Update: trigger.UpdateOn{Enabled: true}}, "new.paid and old.id > 0"
	require.Equal(t, []string{"the table public.later", "the column status of public.t", `the column "new one" of public.t`, "the column paid of public.t"},
		missing(all("a", "public.later"), columns, when, all("b", "public.later")))
	require.Equal(t, []string{"the table no_schema.t"}, missing(all("a", "no_schema.t")))

	bad := when
	for _, sql := range []string{"new.id >", "new.id + 1", "no_such_function(new.id)", "id > 0", "exists (select 1)"} {
		bad.When = sql
		require.Nil(t, missing(bad, all("a", "public.later")), sql)
	}
	require.Nil(t, missing(all("a", "v")), "a view")
	require.Nil(t, missing(all("a", "public.later"), all("b", "v")), "something else is wrong, too")
	w.apply(t, all("r", "old_name"))
	w.do(t, "alter table old_name rename to new_name")
	require.Nil(t, missing(all("r", "old_name")), "the file has to follow the rename")
}
