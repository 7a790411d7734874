package operate_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

func TestTriggersThatComeWhileAllArePausedStartPaused(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	_, err := operate.PauseFor(t.Context(), d.conn, "the CRM is being moved")
	require.NoError(t, err)
	paused := func() string {
		return strings.Join(d.ids(t, "select name from rowhook.trigger where paused and removed_at is null order by 1"), " ")
	}
	require.Equal(t, "a b", paused())

	renamed := d.Spec("a", func(s *trigger.Spec) { s.Name = "a2" })
	d.Run(t)
	d.Apply(t, renamed, d.Spec("b"))
	require.Equal(t, "a2 b", paused(), "a new name")
	d.do(t, "insert into a (v) values ('x'); insert into b (v) values ('y')")
	d.Apply(t, renamed)
	d.Apply(t, renamed, d.Spec("b"))
	require.Equal(t, "a2 b", paused(), "one that comes back")
	_, err = operate.Resume(t.Context(), d.conn, "b")
	require.NoError(t, err)
	d.Apply(t, renamed, d.Spec("b"), d.Spec("b", func(s *trigger.Spec) { s.Name = "b2" }))
	require.Equal(t, "a2 b2", paused(), "also after one was resumed by its name")

	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Equal(t, "the CRM is being moved", s.AllPaused.Reason)
	require.Equal(t, s.AllPaused, statusOf(t, s, "a2").Pause, "who, when and why goes for what came later")
	require.Nil(t, statusOf(t, s, "b").Pause)
	require.Zero(t, d.receiver.unique())

	_, err = operate.Resume(t.Context(), d.conn)
	require.NoError(t, err)
	d.Apply(t, renamed, d.Spec("b"), d.Spec("b", func(s *trigger.Spec) { s.Name = "b3" }))
	require.Empty(t, paused(), "resume of all ends it")
	until(t, "what was recorded is delivered", func() bool { return d.receiver.unique() == 1 })
}

func TestAnApplyThatIsUnderWayWhenAllArePausedLeavesNoneUnpaused(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	tx, err := d.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "update rowhook.setting set value = value where name = 'generation'") // as an apply does at its end
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "insert into rowhook.trigger (name, relation, schema_name, table_name, spec) select 'new', relation, schema_name, table_name, spec from rowhook.trigger")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := operate.Pause(t.Context(), d.conn)
		ended <- err
	}()
	observer := d.Conn(t)
	until(t, "the pause waits for the apply", func() bool {
		var waits bool
		require.NoError(t, observer.QueryRow(t.Context(), "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%generation%' and datname = current_database())").Scan(&waits))
		return waits
	})
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-ended)
	require.Zero(t, d.count(t, "rowhook.trigger where not paused"))
}

func TestStatusSaysWhoPausedWhatWhenAndWhy(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	ctx := queue.WithActor(t.Context(), queue.Actor{Name: "ann@laptop", Client: "192.0.2.7"})
	_, err := operate.PauseFor(ctx, d.conn, " their\nday off\x00 ", "a")
	require.NoError(t, err)
	s, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Nil(t, s.AllPaused)
	p := statusOf(t, s, "a").Pause
	require.Equal(t, "their day off", p.Reason)
	require.Regexp(t, `^ann@laptop, from 192\.0\.2\.7, role \w+$`, p.By)
	require.WithinDuration(t, time.Now(), p.At, time.Minute)
	require.Nil(t, statusOf(t, s, "b").Pause)
	_, err = operate.PauseFor(t.Context(), d.conn, "a better reason", "a")
	require.NoError(t, err)
	s, err = operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	require.Equal(t, "a better reason", statusOf(t, s, "a").Pause.Reason)
	require.Equal(t, p.At, statusOf(t, s, "a").Pause.At, "it is paused since the first time")
	_, err = operate.PauseFor(t.Context(), d.conn, strings.Repeat("x", 501), "b")
	require.ErrorIs(t, err, operate.ErrInvalid)
}

func TestTheAuditSaysWhoDidWhat(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	dead := d.bury(t, "a", 3)
	d.do(t, "insert into a (v) values ('x')")
	ctx := queue.WithActor(t.Context(), queue.Actor{Name: "ann@laptop"})
	_, err := operate.PauseFor(ctx, d.conn, "why not", "a")
	require.NoError(t, err)
	_, err = operate.Redeliver(ctx, d.conn, operate.Filter{IDs: dead[:1]}, operate.BulkOptions{})
	require.NoError(t, err)
	_, err = operate.Discard(ctx, d.conn, operate.Filter{Triggers: []string{"a"}}, operate.BulkOptions{})
	require.NoError(t, err)
	_, err = operate.Backfill(ctx, d.conn, "a", operate.BackfillOptions{})
	require.NoError(t, err)
	for range 3 {
		_, err = operate.Invoke(ctx, d.conn, "a", json.RawMessage(`1`))
		require.NoError(t, err)
	}
	_, err = operate.Resume(ctx, d.conn)
	require.NoError(t, err)

	page, err := operate.Audit(t.Context(), d.conn, operate.AuditOptions{})
	require.NoError(t, err)
	var actions []string
	for _, e := range page.Entries {
		actions = append(actions, e.Action)
		require.NotEmpty(t, e.Role)
	}
	require.Equal(t, "resume invoke backfill discard redeliver pause apply", strings.Join(actions, " ")[:len("resume invoke backfill discard redeliver pause apply")],
		"latest first, one for the manual events of a minute")
	detail := func(i int) string { return string(page.Entries[i].Detail) }
	require.JSONEq(t, `{"all": true, "changed": ["a"]}`, detail(0))
	require.Empty(t, page.Entries[0].Target)
	require.Contains(t, detail(2), `"recorded":1`)
	require.JSONEq(t, `{"filter": {"triggers": ["a"], "states": ["dead"]}, "changed": 2}`, detail(3))
	require.Contains(t, detail(4), `"changed":1`)
	require.JSONEq(t, `{"changed": ["a"], "reason": "why not"}`, detail(5))
	require.Equal(t, []string{"a"}, page.Entries[5].Target)
	require.Equal(t, "ann@laptop", page.Entries[5].Who)
	require.Contains(t, detail(6), "+ trigger a: on public.a")
	require.Contains(t, page.Entries[6].Who, "@", "the user and the host of the program")

	some, err := operate.Audit(t.Context(), d.conn, operate.AuditOptions{Actions: []string{"pause", "resume"}, Triggers: []string{"a"}})
	require.NoError(t, err)
	require.Len(t, some.Entries, 1)
	first, err := operate.Audit(t.Context(), d.conn, operate.AuditOptions{Limit: 2})
	require.NoError(t, err)
	second, err := operate.Audit(t.Context(), d.conn, operate.AuditOptions{Limit: 2, Before: first.Next})
	require.NoError(t, err)
	require.Equal(t, page.Entries[2:4], second.Entries)
}

func TestTheAuditIsBoundedByAgeAndRows(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.do(t, "truncate rowhook.audit")
	d.do(t, "insert into rowhook.audit (at, role, who, client, action, target, detail) select now() - interval '91 days', '', '', '', 'pause', '{}', '{}' from generate_series(1, 5)")
	d.do(t, "insert into rowhook.audit (at, role, who, client, action, target, detail) select now() - interval '89 days', '', '', '', 'pause', '{}', '{}'")
	_, err := operate.Pause(t.Context(), d.conn, "a")
	require.NoError(t, err)
	require.Equal(t, 2, d.count(t, "rowhook.audit"))
	d.do(t, "alter sequence rowhook.audit_id_seq restart with 500000")
	_, err = operate.Resume(t.Context(), d.conn, "a")
	require.NoError(t, err)
	require.Equal(t, 1, d.count(t, "rowhook.audit"))
}

func TestManualEventsCarrySessionVariables(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	d.do(t, "set rowhook.session = 'not this one'")
	id, err := operate.Record(t.Context(), d.conn, operate.Manual{
		Trigger: "a", Payload: json.RawMessage(`1`), SessionVariables: json.RawMessage(`{"x-user": "7"}`), TraceContext: json.RawMessage(`"00-aa-bb-01"`),
	})
	require.NoError(t, err)
	shown, err := operate.Show(t.Context(), d.conn, id)
	require.NoError(t, err)
	require.JSONEq(t, `{"x-user": "7"}`, string(shown.Payload.SessionVariables))
	require.JSONEq(t, `"00-aa-bb-01"`, string(shown.Payload.TraceContext))
	id, err = operate.Record(t.Context(), d.conn, operate.Manual{Trigger: "a", Payload: json.RawMessage(`1`), SessionVariables: json.RawMessage(`null`)})
	require.NoError(t, err)
	shown, err = operate.Show(t.Context(), d.conn, id)
	require.NoError(t, err)
	require.Nil(t, shown.Payload.SessionVariables)
	for _, wrong := range []string{`"text"`, `{`, ` [1]`, ``} {
		_, err = operate.Record(t.Context(), d.conn, operate.Manual{Trigger: "a", Payload: json.RawMessage(`1`), SessionVariables: json.RawMessage(wrong)})
		require.ErrorIs(t, err, operate.ErrInvalid, wrong)
	}
}

func TestTimesAreReadAsPostgresPrintsThem(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	berlin := time.FixedZone("", 3600)
	for text, want := range map[string]string{
		"2026-11-25 22:54:17.123456+00":    "2026-11-25T22:54:17.123456Z",
		"2026-11-25 22:54:17+00":           "2026-11-25T22:54:17Z",
		"2026-11-25 22:54:17+00:00":        "2026-11-25T22:54:17Z",
		"2026-11-25 22:54:17.1+0530":       "2026-11-25T17:24:17.1Z",
		"2026-11-25 22:54:17-03:30":        "2026-11-26T02:24:17Z",
		"2026-11-25 22:54-08":              "2026-11-26T06:54:00Z",
		"1880-01-01 00:00:00+00:53:28":     "1879-12-31T23:06:32Z",
		"2026-11-25T22:54:17.123Z":         "2026-11-25T22:54:17.123Z",
		"2026-11-25T22:54:17+01:00":        "2026-11-25T21:54:17Z",
		"2026-11-25 22:54:17 UTC":          "2026-11-25T22:54:17Z",
		"2026-11-25 22:54:17.5":            "2026-11-25T21:54:17.5Z",
		"2026-11-25 22:54":                 "2026-11-25T21:54:00Z",
		"2026-11-25T22:54":                 "2026-11-25T21:54:00Z",
		"2026-11-25":                       "2026-11-24T23:00:00Z",
		"2026-11-25 22:54:17.123456 +0000": "2026-11-25T22:54:17.123456Z",
	} {
		got, ok := operate.ParseTime(text, berlin)
		require.True(t, ok, text)
		require.Equal(t, want, got.UTC().Format(time.RFC3339Nano), text)
	}
	for _, text := range []string{"", "yesterday", "2026-13-01", "2026-11-25 25:00", "2026-11-25+00", "22:54", "2026-11-25 22:54:17+0", "now", "2026-11-25 22:54:17+99"} {
		_, ok := operate.ParseTime(text, berlin)
		require.False(t, ok, text)
	}
	for _, zone := range []string{"UTC", "Asia/Kolkata", "America/St_Johns", "Asia/Kathmandu", "Africa/Monrovia"} {
		d.do(t, "set timezone = '"+zone+"'")
		var text string
		var want time.Time
		require.NoError(t, d.conn.QueryRow(t.Context(), "select t::text, t from (values (clock_timestamp())) as v(t)").Scan(&text, &want))
		got, ok := operate.ParseTime(text, berlin)
		require.True(t, ok, text)
		require.True(t, want.Equal(got), text)
	}
}
