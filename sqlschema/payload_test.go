package sqlschema_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/pgtest"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

// payloadWith sets options of the payload.
func payloadWith(p trigger.Payload) func(*trigger.Spec) {
	return func(s *trigger.Spec) { s.Payload = p }
}

func of(columns ...string) trigger.PayloadOf { return trigger.PayloadOf{Columns: columns} }

// TestThePayloadOfEachOperationIsAsConfigured has each option on tables of trusted owners and of
// others, with an order and without.
func TestThePayloadOfEachOperationIsAsConfigured(t *testing.T) {
	t.Parallel()
	const (
		row   = `{"id":1,"a":"x","b":1.10,"n":9007199254740993}`
		later = `{"id":1,"a":"y","b":1.1,"n":9007199254740993}`
	)
	cases := map[string]struct {
		payload trigger.Payload
		want    []string // op, old and new of an insert, an update and a delete
	}{
		"the whole row": {trigger.Payload{}, []string{"I null " + row, "U " + row + " " + later, "D " + later + " null"}},
		"columns of one operation, whose list wins": {
			trigger.Payload{Columns: []string{"id", "a"}, Update: of("b", "id")},
			[]string{`I null {"id":1,"a":"x"}`, `U {"b":1.10,"id":1} {"b":1.1,"id":1}`, `D {"id":1,"a":"y"} null`},
		},
		"columns of each operation": {
			trigger.Payload{Insert: of("id"), Update: of("a"), Delete: of("b")},
			[]string{`I null {"id":1}`, `U {"a":"x"} {"a":"y"}`, `D {"b":1.1} null`},
		},
		"the whole row of deletes alone": {
			trigger.Payload{Columns: []string{"id"}, Delete: of("id", "n", "a", "b")},
			[]string{`I null {"id":1}`, `U {"id":1} {"id":1}`, `D {"id":1,"n":9007199254740993,"a":"y","b":1.1} null`},
		},
		"columns of deletes, and else the whole row": {
			trigger.Payload{Delete: of("id")},
			[]string{"I null " + row, "U " + row + " " + later, `D {"id":1} null`},
		},
		"no old row": {
			trigger.Payload{Old: trigger.OldNone},
			[]string{"I null " + row, "U null " + later, "D " + later + " null"},
		},
		"no old row of chosen columns": {
			trigger.Payload{Old: trigger.OldNone, Columns: []string{"id"}, Delete: of("a")},
			[]string{`I null {"id":1}`, `U null {"id":1}`, `D {"a":"y"} null`},
		},
		"what is made of both rows when it is sent": {
			trigger.Payload{Old: trigger.OldNone, Changed: true},
			[]string{"I null " + row, "U " + row + " " + later, "D " + later + " null"},
		},
		"only changed columns of the old row": {
			trigger.Payload{Old: trigger.OldChanged},
			[]string{"I null " + row, "U " + row + " " + later, "D " + later + " null"},
		},
		"numbers as text": {
			trigger.Payload{Numbers: trigger.NumbersText},
			[]string{`I null {"id":1,"a":"x","b":"1.10","n":"9007199254740993"}`, `U {"id":1,"a":"x","b":"1.10","n":"9007199254740993"} {"id":1,"a":"y","b":"1.1","n":"9007199254740993"}`,
				`D {"id":1,"a":"y","b":"1.1","n":"9007199254740993"} null`},
		},
		"numbers of chosen columns as text": {
			trigger.Payload{Numbers: trigger.NumbersText, Columns: []string{"n", "id"}, Update: of("b")},
			[]string{`I null {"n":"9007199254740993","id":1}`, `U {"b":"1.10"} {"b":"1.1"}`, `D {"n":"9007199254740993","id":1} null`},
		},
	}
	for kind, how := range map[string]struct {
		guarded bool
		with    func(*trigger.Spec)
	}{
		"by itself":                       {false, func(*trigger.Spec) {}},
		"of another owner":                {true, func(*trigger.Spec) {}},
		"in order":                        {false, orderBy()},
		"in order of another owner":       {true, orderBy()},
		"captured row by row":             {false, capturedBy(trigger.CaptureRows)},
		"at commit":                       {false, atCommit()},
		"at commit, of another owner":     {true, atCommit()},
		"at commit, in order":             {false, atCommit(orderBy())},
		"at commit, in order, of another": {true, atCommit(orderBy())},
		"with TRUNCATE":                   {false, func(s *trigger.Spec) { s.On.Truncate = true }},
		"with TRUNCATE, of another owner": {true, func(s *trigger.Spec) { s.On.Truncate = true }},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, "create table t (id int primary key, a text, b numeric, n bigint)")
			if how.guarded {
				role, _ := w.Role(t)
				w.do(t, "alter table t owner to "+role)
			}
			for name, c := range cases { // each is applied on top of another one
				w.apply(t, all("w", "t", payloadWith(c.payload), how.with))
				w.do(t, "insert into t values (1, 'x', 1.10, 9007199254740993)", "update t set a = 'y', b = 1.1", "delete from t")
				want := make([]string, len(c.want))
				for i := range c.want {
					want[i] = "w " + c.want[i]
				}
				require.Equal(t, want, w.take(t), name)
			}
		})
	}
}

// TestTheOldRowIsStoredWhereADeleteMayNeedIt is of order.latest, which sends an update and a delete
// as a delete with the old row of the update.
func TestTheOldRowIsStoredWhereADeleteMayNeedIt(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a text)",
		all("w", "t", payloadWith(trigger.Payload{Old: trigger.OldNone}), orderBy(), func(s *trigger.Spec) { s.Order.Latest = true }))
	w.do(t, "insert into t values (1, 'x')", "update t set a = 'y'")
	require.Equal(t, []string{`w I null {"id":1,"a":"x"}`, `w U {"id":1,"a":"x"} {"id":1,"a":"y"}`}, w.take(t))
}

// TestOptionsForUpdatesLeaveWholeInserts has options that say nothing of inserts.
func TestOptionsForUpdatesLeaveWholeInserts(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a text)")
	for _, c := range []struct {
		payload trigger.Payload
		whole   string
	}{
		{trigger.Payload{Old: trigger.OldNone, Changed: true, Update: of("a"), Delete: of("id")}, "1"},
		{trigger.Payload{Old: trigger.OldChanged}, "1"},
		{trigger.Payload{Insert: of("a")}, "0"},
		{trigger.Payload{Columns: []string{"a"}}, "0"},
		{trigger.Payload{Numbers: trigger.NumbersText}, "0"},
	} {
		w.apply(t, all("w", "t", payloadWith(c.payload)))
		require.Equal(t, c.whole, w.scalar(t, wholeInserts), "%+v", c.payload)
	}
	require.Equal(t, "nothing can be captured by the statement: its payload has numbers as text: write capture: auto, which captures row by row here",
		problemsOf(t, w, all("w", "t", payloadWith(trigger.Payload{Numbers: trigger.NumbersText}), capturedBy(trigger.CaptureStatement)))[0].Message)
}

// TestOptionsThatSayNothingLeaveTheSharedCapture has what is done when an event is sent, too.
func TestOptionsThatSayNothingLeaveTheSharedCapture(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, a text)", all("w", "t"), all("v", "t", payloadWith(trigger.Payload{Old: trigger.OldChanged, Changed: true})))
	require.Equal(t, "0", w.scalar(t, "select count(*) from pg_proc where proname ~ '^(capture|payload)_[0-9]+$'"))
}

func TestUnknownColumnsOfAnOperationAreNamed(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key, status text)")
	found := problemsOf(t, w, all("w", "t", payloadWith(trigger.Payload{Insert: of("id", "statsu"), Update: of("x"), Delete: of("id")})))
	require.Len(t, found, 2)
	require.Equal(t, "payload.insert.columns.1", strings.Join(found[0].Path, "."))
	require.Equal(t, `the table public.t has no column "statsu"; did you mean status?`, found[0].Message)
	require.Equal(t, "payload.update.columns.0", strings.Join(found[1].Path, "."))
}

// TestDroppingAColumnOfOneOperationLeavesNoWriteThatFails drops a column that only the payload of
// updates, or of deletes, has.
func TestDroppingAColumnOfOneOperationLeavesNoWriteThatFails(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]trigger.Payload{
		"of updates":                       {Update: of("b"), Columns: []string{"a"}},
		"of deletes":                       {Delete: of("b"), Columns: []string{"a"}},
		"of inserts":                       {Insert: of("b"), Columns: []string{"a"}},
		"of no operation that is captured": {Columns: []string{"b"}, Insert: of("a"), Update: of("a"), Delete: of("a")},
	} {
		for _, captured := range []trigger.On{
			{Insert: true, Update: trigger.UpdateOn{Enabled: true}, Delete: true}, {Update: trigger.UpdateOn{Enabled: true}}, {Delete: true}, {Insert: true},
		} {
			t.Run(fmt.Sprintf("%s, captured %+v", name, captured), func(t *testing.T) {
				t.Parallel()
				spec := all("w", "t", payloadWith(p), func(s *trigger.Spec) { s.On = captured })
				w := newWatched(t, "create table t (a int, b int)", spec)
				w.do(t, "alter table t drop b cascade", "insert into t values (1)", "update t set a = 2", "delete from t")
				w.take(t)
				w.do(t, "alter table t add b int")
				w.apply(t, spec)
				w.do(t, "insert into t values (1, 2)", "update t set a = 2, b = 3", "delete from t")
				require.Len(t, w.take(t), len(strings.Fields(w.scalar(t, "select string_agg(tgname, ' ') from pg_trigger where tgname ~ '^rowhook_w_(insert|update|delete)$'"))))
			})
		}
	}
}

func truncates(s *trigger.Spec) { s.On.Truncate = true }

func onlyTruncates(s *trigger.Spec) { s.On = trigger.On{Truncate: true} }

func TestTruncateIsOneEventWithoutRows(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		guarded bool
		spec    trigger.Spec
	}{
		"beside the rows":              {false, all("w", "t", truncates)},
		"of another owner":             {true, all("w", "t", truncates)},
		"alone":                        {false, all("w", "t", onlyTruncates)},
		"alone, of another owner":      {true, all("w", "t", onlyTruncates)},
		"in order":                     {false, all("w", "t", truncates, orderBy())},
		"in order, of another owner":   {true, all("w", "t", truncates, orderBy())},
		"row by row":                   {false, all("w", "t", truncates, capturedBy(trigger.CaptureRows))},
		"with a condition on rows":     {false, all("w", "t", truncates, when("coalesce(new.id, old.id) > 100"), func(s *trigger.Spec) { s.On.Insert, s.On.Delete = false, false })},
		"with chosen columns":          {false, all("w", "t", truncates, payload("id"))},
		"with whole inserts asked for": {false, all("w", "t", truncates, capturedBy(trigger.CaptureStatement))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, "create table t (id int primary key, a text)")
			if c.guarded {
				role, _ := w.Role(t)
				w.do(t, "alter table t owner to "+role)
			}
			w.apply(t, c.spec)
			w.do(t, "insert into t values (1, 'x'), (2, 'y')")
			w.take(t)
			w.do(t, "set rowhook.session = '{\"user\":7}'", "truncate t")
			require.Equal(t, "w T {\"user\":7}", w.scalar(t, "select concat_ws(' ', t.name, e.op, e.old, e.new, e.session) from rowhook.event_log e join rowhook.trigger t on t.id = e.trigger_id"))
			if !c.spec.Order.IsZero() {
				require.Equal(t, "T []", w.places(t))
			}
			require.Equal(t, "public.t TRUNCATE", w.scalar(t, "select concat(schema_name, '.', table_name, ' ', payload->>'op') from rowhook.events"))
			w.take(t)
			w.do(t, "truncate t") // an empty table
			require.Equal(t, []string{"w T null null"}, w.take(t))
			w.do(t, "begin", "truncate t", "rollback")
			require.Empty(t, w.take(t))
			w.do(t, "begin", "truncate t")
			require.Equal(t, `{"old" : null, "new" : null}`, w.scalar(t, "select json_build_object('old', old, 'new', new) from rowhook.recorded('w') where op = 'TRUNCATE' and body->'event'->>'op' = 'TRUNCATE'"))
			w.do(t, "rollback")
			w.apply(t, all("w", "t")) // takes it back
			w.do(t, "truncate t")
			require.Empty(t, w.take(t))
		})
	}
}

// TestTruncateOfOtherTablesFiresTheTriggersOfThoseThatItEmpties is about partitions, tables that
// inherit, and tables that refer to others.
func TestTruncateOfOtherTablesFiresTheTriggersOfThoseThatItEmpties(t *testing.T) {
	t.Parallel()
	w := newWatched(t, `create table parted (id int) partition by list (id); create table part partition of parted for values in (1);
		create table parent (id int); create table child () inherits (parent);
		create table referred (id int primary key); create table referring (id int references referred)`,
		all("parted", "parted", onlyTruncates), all("part", "part", onlyTruncates), all("parent", "parent", onlyTruncates), all("child", "child", onlyTruncates),
		all("referred", "referred", onlyTruncates), all("referring", "referring", onlyTruncates))
	for statement, want := range map[string][]string{
		"truncate parted":                     {"parted", "part"},
		"truncate part":                       {"part"},
		"truncate parent":                     {"parent", "child"},
		"truncate only parent":                {"parent"},
		"truncate child":                      {"child"},
		"truncate referring":                  {"referring"},
		"truncate referred cascade":           {"referred", "referring"},
		"truncate referred, referring":        {"referred", "referring"},
		"truncate referring restart identity": {"referring"},
	} {
		w.do(t, statement)
		for i := range want {
			want[i] += " T null null"
		}
		require.ElementsMatch(t, want, w.take(t), statement)
	}
}

func TestTruncateFiresForReplicasOnlyWithOnReplication(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (a int)", all("w", "t", onlyTruncates), all("v", "t", onlyTruncates, onReplication))
	w.do(t, "set session_replication_role = replica", "truncate t")
	require.Equal(t, []string{"v T null null"}, w.take(t))
}

// TestATriggerOfTruncateAloneIsNoDangerOnATableOfAnotherOwner is of a role that can't act as the
// owner. No row is turned into JSON, so no code of the owner runs.
func TestATriggerOfTruncateAloneNeedsNoTrustInTheOwner(t *testing.T) {
	t.Parallel()
	db := pgtest.NewEmpty(t)
	w := watched{db, db.Conn(t)}
	admin, url := w.Role(t)
	owner, _ := w.Role(t)
	w.do(t, "do $$ begin execute format('grant create on database %I to "+admin+"', current_database()); end $$",
		"create table t (a int)", "alter table t owner to "+owner, "grant trigger on t to "+admin)
	as := w.as(t, url)
	as.migrate(t)
	require.Contains(t, as.rejects(t, all("w", "t", truncates)), "could run code")
	as.apply(t, all("w", "t", onlyTruncates))
	w.do(t, "truncate t")
	require.Equal(t, []string{"w T null null"}, w.take(t))
}

// TestRecordedShowsOfUpdatesWhatIsSent compares with what webhook.Event.Trim says in its own test.
func TestRecordedShowsOfUpdatesWhatIsSent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		payload trigger.Payload
		want    string
	}{
		"all":              {trigger.Payload{}, `{"op":"UPDATE","data":{"old":{"id":1,"a":"x","b":1.10},"new":{"id":1,"a":"x","b":1.1}}`},
		"changed":          {trigger.Payload{Old: trigger.OldChanged}, `{"op":"UPDATE","data":{"old":{"b":1.10},"new":{"id":1,"a":"x","b":1.1}}`},
		"none":             {trigger.Payload{Old: trigger.OldNone}, `{"op":"UPDATE","data":{"old":null,"new":{"id":1,"a":"x","b":1.1}}`},
		"the list":         {trigger.Payload{Changed: true}, `{"op":"UPDATE","changed":["b"],"data":{"old":{"id":1,"a":"x","b":1.10},"new":{"id":1,"a":"x","b":1.1}}`},
		"the list alone":   {trigger.Payload{Changed: true, Old: trigger.OldNone}, `{"op":"UPDATE","changed":["b"],"data":{"old":null,"new":{"id":1,"a":"x","b":1.1}}`},
		"of sent columns":  {trigger.Payload{Changed: true, Old: trigger.OldChanged, Columns: []string{"id", "a"}}, `{"op":"UPDATE","changed":[],"data":{"old":{},"new":{"id":1,"a":"x"}}`},
		"numbers as texts": {trigger.Payload{Changed: true, Numbers: trigger.NumbersText, Columns: []string{"b"}}, `{"op":"UPDATE","changed":["b"],"data":{"old":{"b":"1.10"},"new":{"b":"1.1"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, "create table t (id int primary key, a text, b numeric)", all("w", "t", payloadWith(c.payload)))
			w.do(t, "insert into t values (1, 'x', 1.10)", "begin", "update t set b = 1.1")
			require.Equal(t, c.want+`,"session_variables":null,"trace_context":null}`, w.scalar(t, "select body->'event' from rowhook.recorded('w') where op = 'UPDATE'"))
		})
	}
}

// TestOptionsHoldForEachTableOfATrigger has tables with other columns and owners.
func TestOptionsHoldForEachTableOfATrigger(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table a (id int8 primary key, x numeric); create table b (x text, id int primary key); create table c (id int primary key, x numeric[])")
	role, _ := w.Role(t)
	w.do(t, "alter table c owner to "+role)
	spec := many("w", []string{"a", "b", "c"}, truncates, orderBy(), payloadWith(trigger.Payload{Numbers: trigger.NumbersText, Update: of("x", "id"), Delete: of("id"), Old: trigger.OldNone}))
	w.apply(t, spec)
	w.do(t, "insert into a values (1, 1.0); insert into b values ('x', 2); insert into c values (3, '{1.0}')", "update a set x = 2.0; update b set x = 'y'; update c set x = '{2.0}'",
		"delete from a; delete from b; delete from c", "truncate a; truncate c")
	require.Equal(t, []string{`w I null {"id":"1","x":"1.0"}`, `w I null {"x":"x","id":2}`, `w I null {"id":3,"x":["1.0"]}`,
		`w U null {"x":"2.0","id":"1"}`, `w U null {"x":"y","id":2}`, `w U null {"x":["2.0"],"id":3}`, `w D {"id":"1"} null`, `w D {"id":2} null`, `w D {"id":3} null`,
		"w T null null", "w T null null"}, w.take(t))
}

// TestWhatMakesOptionsIsMissedWhenItIsGone drops what captures of options are made of.
func TestWhatMakesOptionsIsMissedWhenItIsGone(t *testing.T) {
	t.Parallel()
	spec := all("w", "t", truncates, payloadWith(trigger.Payload{Delete: of("id")}))
	w := newWatched(t, "create table t (id int, a text)", spec)
	uncaptured := func() string {
		found, err := sqlschema.FindUncaptured(t.Context(), w.conn)
		require.NoError(t, err)
		return fmt.Sprint(found)
	}
	require.Equal(t, "[]", uncaptured())
	w.do(t, `drop function rowhook.payload_1(t, "char")`)
	require.Contains(t, uncaptured(), "the functions of the capture trigger were dropped")
	w.apply(t, spec)
	w.do(t, "drop trigger rowhook_w_truncate on t")
	require.Contains(t, uncaptured(), "rowhook_w_truncate on public.t was dropped")
	w.apply(t, spec)
	w.do(t, "alter table t disable trigger rowhook_w_truncate")
	require.Contains(t, uncaptured(), "rowhook_w_truncate on public.t is disabled")
	w.apply(t, spec)
	w.do(t, "truncate t")
	require.Equal(t, []string{"w T null null"}, w.take(t))
	w.apply(t) // removes it all
	require.Equal(t, "0", w.scalar(t, "select count(*) from pg_proc where proname ~ '^(capture|payload)_[0-9]'"))
}

// TestATruncateIsDelayedAsRowsAre has a trigger with a delay, alone, in order and of another owner.
func TestATruncateIsDelayedAsRowsAre(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "create table t (id int primary key); create table u (id int primary key)")
	role, _ := w.Role(t)
	w.do(t, "alter table u owner to "+role)
	delayed := func(s *trigger.Spec) { s.Delay = trigger.Duration(time.Hour) }
	w.apply(t, all("alone", "t", onlyTruncates, delayed), all("beside", "t", truncates, delayed), all("ordered", "t", truncates, delayed, orderBy()), all("guarded", "u", truncates, delayed),
		all("chosen", "u", truncates, delayed, orderBy(), payloadWith(trigger.Payload{Old: trigger.OldNone, Delete: of("id")})))
	w.do(t, "truncate t, u")
	require.Equal(t, "alone, beside, chosen, guarded, ordered", w.scalar(t, `
select string_agg(t.name, ', ' order by t.name) from rowhook.event_log e join rowhook.trigger t on t.id = e.trigger_id
 where e.op = 'T' and case when e.lane is null then e.due_at else e.due_at - interval '1752000 hours' end between now() + interval '59 minutes' and now() + interval '61 minutes'`))
}
