package operate_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
)

// failed makes dead letters of a trigger, each with a logged attempt.
func (d *desk) failed(t *testing.T, trigger string, n int, status, kind, text string) []string {
	t.Helper()
	ids := d.bury(t, trigger, n)
	d.do(t, "update rowhook.dead_letter set reason = $2 where id = any($1::text[]::uuid[])", ids, text)
	d.do(t, `
insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt, status, error_kind, error)
select id, now() - n * interval '1 second', trigger_id, 2, 1, 2 - n, case n when 0 then nullif($2, '')::smallint else 418 end, nullif($3, ''), $4
  from rowhook.dead_letter, generate_series(0, 1) n where id = any($1::text[]::uuid[])`, ids, status, kind, text)
	return ids
}

func TestDeadLettersAreFilteredGroupedAndRedeliveredByTheirLastAttempt(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.failed(t, "a", 3, "503", "", "answered 503 Service Unavailable")
	d.failed(t, "b", 2, "503", "", "answered 503 Service Unavailable")
	d.failed(t, "a", 4, "502", "", "answered 502 Bad Gateway")
	d.failed(t, "a", 5, "", "timeout", "no answer within 10s")
	d.bury(t, "b", 6) // without a log: the receiver answered 500
	d.wait(t, "a", 7)
	for want, f := range map[int64]operate.Filter{
		9:  {Statuses: []string{"503", "502"}},
		15: {Statuses: []string{"5xx"}},
		6:  {Statuses: []string{"500"}},
		5:  {Kinds: []string{"timeout"}},
		4:  {Error: "bad GATEWAY"},
		3:  {Error: "503", Triggers: []string{"a"}},
		0:  {Statuses: []string{"418"}},
	} {
		n, err := operate.Count(t.Context(), d.conn, f, time.Minute)
		require.NoError(t, err)
		require.Equal(t, want, n.Events, f)
		page, err := operate.List(t.Context(), d.conn, f, operate.ListOptions{Budget: time.Minute})
		require.NoError(t, err)
		require.Len(t, page.Events, int(want), f)
	}
	for _, wrong := range []operate.Filter{{Statuses: []string{"600"}}, {Statuses: []string{"5%"}}, {Kinds: []string{"slow"}}, {Error: "\x00"}} {
		_, err := operate.Count(t.Context(), d.conn, wrong, 0)
		require.ErrorIs(t, err, operate.ErrInvalid)
	}

	groups, err := operate.GroupBy(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Dead}}, []string{"trigger", "status", "kind"}, time.Minute)
	require.NoError(t, err)
	require.Equal(t, []operate.Group{
		{Trigger: "b", Status: "500", Events: 6}, {Trigger: "a", Kind: "timeout", Events: 5}, {Trigger: "a", Status: "502", Events: 4},
		{Trigger: "a", Status: "503", Events: 3}, {Trigger: "b", Status: "503", Events: 2},
	}, counted(groups.Groups))
	groups, err = operate.GroupBy(t.Context(), d.conn, operate.Filter{}, []string{"state"}, time.Minute)
	require.NoError(t, err)
	require.Equal(t, []operate.Group{{State: operate.Dead, Events: 20}, {State: operate.Waiting, Events: 7}}, counted(groups.Groups))
	_, err = operate.GroupBy(t.Context(), d.conn, operate.Filter{}, []string{"moon"}, 0)
	require.ErrorIs(t, err, operate.ErrInvalid)

	got, err := operate.Redeliver(t.Context(), d.conn, operate.Filter{Statuses: []string{"503"}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 5, got.Changed)
	got, err = operate.Discard(t.Context(), d.conn, operate.Filter{Kinds: []string{"timeout"}}, operate.BulkOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 5, got.Changed)
	require.Equal(t, 10, d.count(t, "rowhook.dead_letter"))
}

// counted are groups without what tells when they began.
func counted(groups []operate.Group) (out []operate.Group) {
	for _, g := range groups {
		g.FirstAt, g.LastAt, g.ExampleID = time.Time{}, time.Time{}, ""
		out = append(out, g)
	}
	return out
}

func TestAGroupSaysWhenItBeganAndHasAnExample(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a", "b")
	d.bury(t, "a", 2) // for another reason
	ids := d.failed(t, "a", 3, "503", "", "answered 503 Service Unavailable")
	d.failed(t, "b", 1, "503", "", "answered 503 Service Unavailable")
	d.do(t, "update rowhook.dead_letter set died_at = now() - make_interval(hours => (id = $1::text::uuid)::integer)", ids[0])
	for _, by := range [][]string{{"trigger", "error"}, {"trigger", "error", "status"}} {
		groups, err := operate.GroupBy(t.Context(), d.conn, operate.Filter{Triggers: []string{"a"}, States: []operate.State{operate.Dead}}, by, time.Minute)
		require.NoError(t, err)
		require.Len(t, groups.Groups, 2)
		g := groups.Groups[0]
		require.EqualValues(t, 3, g.Events)
		require.Contains(t, g.Error, "answered 503")
		require.WithinDuration(t, time.Now().Add(-time.Hour), g.FirstAt, 2*time.Minute)
		require.WithinDuration(t, time.Now(), g.LastAt, 2*time.Minute)
		require.Contains(t, ids, g.ExampleID, "of this reason")
	}
	groups, err := operate.GroupBy(t.Context(), d.conn, operate.Filter{States: []operate.State{operate.Dead}}, []string{"error"}, time.Minute)
	require.NoError(t, err)
	require.EqualValues(t, 4, groups.Groups[0].Events, "of both triggers")
	require.WithinDuration(t, time.Now().Add(-time.Hour), groups.Groups[0].FirstAt, 2*time.Minute)
}

func TestJSONThatIsNestedTooDeepIsShownAsAString(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 20_000) + `"<"` + strings.Repeat("]", 20_000)
	for _, v := range []any{&operate.Event{Payload: &operate.Payload{New: json.RawMessage(deep)}}, operate.Request{Body: json.RawMessage(deep)}} {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		require.Contains(t, string(text), strings.Repeat("[", 20_000))
	}
	level := strings.Repeat("[", 9_900) + strings.Repeat("]", 9_900)
	text, err := json.Marshal(operate.Payload{New: json.RawMessage(level), Old: json.RawMessage(`"` + strings.Repeat("[", 20_000) + `\"["`)})
	require.NoError(t, err)
	require.Contains(t, string(text), `"new":[[`)
	require.True(t, json.Valid(text))
}
