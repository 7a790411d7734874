package httpapi_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/httpapi"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/sqlschema"
)

// The test calls every operation. The harness checks each response against its schema.
func TestEveryOperationAnswersAsTheDocumentSays(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(c *httpapi.Config) { c.WriteToken = "0123456789abcdef-write" })
	delivered, dead, waiting, flying := d.archive(t), d.bury(t, 5), d.wait(t, 3, false), d.wait(t, 1, true)
	d.Exec(t, `
insert into rowhook.instance (id, name, version, listens) values (2, 'a:1', 'v1', false), (3, 'b:1', 'v1', true);
insert into rowhook.activity (minute, trigger_id, instance_id, delivered, failed, died, latency, error_at, error)
select date_trunc('minute', now()), id, 2, 3, 1, 1, array_fill(1, array[120]), now(), 'the receiver answered 500' from rowhook.trigger where name = 'orders'`)

	require.Equal(t, http.StatusOK, d.ask(t, "GET", "/healthz", nil).StatusCode)
	require.Equal(t, http.StatusOK, d.ask(t, "GET", "/readyz", nil).StatusCode)
	require.Contains(t, d.ask(t, "GET", "/metrics", nil).text, "rowhook_build_info")
	require.True(t, strings.HasPrefix(d.ask(t, "GET", "/api/v1/openapi.json", nil).text, `{"openapi":"3.1.0"`))

	var status operate.Status
	d.ask(t, "GET", "/api/v1/status", nil).into(t, &status)
	require.Len(t, status.Triggers, 2)
	require.EqualValues(t, 5, status.Triggers[1].Dead)
	require.Len(t, status.Instances, 2)

	var activity operate.Activity
	d.ask(t, "GET", "/api/v1/activity?trigger=orders&minutes=90", nil).into(t, &activity)
	require.Len(t, activity.Triggers, 1)
	require.Len(t, activity.Triggers[0].P95MS, 90)

	triggers := d.ask(t, "GET", "/api/v1/triggers", nil)
	require.Contains(t, triggers.text, `"url":"https://<redacted>@example.com/orders"`)
	require.NotContains(t, triggers.text, "of-all")

	var page operate.Page
	d.ask(t, "GET", "/api/v1/events?trigger=orders&trigger=manual&state=dead&state=delivered&limit=4&with_payload=true&since=2020-01-01T00:00:00Z&table=public.orders", nil).into(t, &page)
	require.Len(t, page.Events, 4)
	require.NotEmpty(t, page.Next)
	d.ask(t, "GET", "/api/v1/events?state=dead&state=delivered&limit=4&cursor="+page.Next, nil).into(t, &page)
	require.Len(t, page.Events, 2)
	d.ask(t, "GET", "/api/v1/events?payload="+url.QueryEscape("new.v=3"), nil).into(t, &page)
	require.Len(t, page.Events, 2)
	require.JSONEq(t, `{"events": 5, "more": false}`, d.ask(t, "GET", "/api/v1/events/count?state=dead", nil).text)
	var groups operate.Groups
	d.ask(t, "GET", "/api/v1/events/groups?state=dead&by=trigger&by=status&status=5xx&error=answered", nil).into(t, &groups)
	require.Len(t, groups.Groups, 1)
	g := groups.Groups[0]
	require.Equal(t, operate.Group{Trigger: "orders", Status: "500", Events: 5, FirstAt: g.FirstAt, LastAt: g.LastAt, ExampleID: slices.Max(dead)}, g)
	exported := d.ask(t, "GET", "/api/v1/events/export?state=dead", nil)
	require.Equal(t, 5, strings.Count(exported.text, "\n"))
	require.Regexp(t, `^attachment; filename="rowhook-events-[0-9TZ]+\.ndjson"$`, exported.Header.Get("Content-Disposition"))
	var trigger operate.TriggerDetail
	d.ask(t, "GET", "/api/v1/triggers/orders", nil).into(t, &trigger)
	require.Len(t, trigger.SQLTriggers, 3)
	require.Contains(t, trigger.YAML, "X-From: ${FROM}\n")
	require.NotContains(t, trigger.YAML, "of-all")
	require.NotContains(t, trigger.YAML, "user:secret")
	for _, id := range []string{delivered, dead[0], waiting[0], flying[0]} {
		var detail operate.Detail
		shown := d.ask(t, "GET", "/api/v1/events/"+id, nil)
		shown.into(t, &detail)
		require.Equal(t, id, detail.ID)
		require.NotContains(t, shown.text, "of-all")
		require.Equal(t, "${FROM}", detail.Request.Headers["X-From"])
	}

	var op httpapi.Operation
	d.ask(t, "POST", "/api/v1/events/redeliver", map[string]any{"filter": map[string]any{"ids": dead[:2]}}).into(t, &op)
	require.Equal(t, "done", op.State)
	require.EqualValues(t, 2, op.Result.Changed)
	require.EqualValues(t, 2, *op.Expected)
	d.ask(t, "POST", "/api/v1/events/redeliver", map[string]any{"filter": map[string]any{"ids": []string{dead[2], flying[0]}}, "limit": 9}).into(t, &op)
	require.Equal(t, []operate.Skip{{ID: flying[0], Reason: "busy"}}, op.Result.Skips)
	d.ask(t, "POST", "/api/v1/events/discard", map[string]any{"filter": map[string]any{"states": []string{"dead"}, "triggers": []string{"orders"}}}).into(t, &op)
	require.EqualValues(t, 2, op.Result.Changed)

	var made struct{ ID string }
	a := d.ask(t, "POST", "/api/v1/triggers/manual/invoke", map[string]any{"payload": map[string]any{"a": 1}, "session_variables": map[string]any{"user": 7}, "trace_context": "t"})
	require.Equal(t, http.StatusCreated, a.StatusCode)
	a.into(t, &made)
	require.JSONEq(t, `[{"a": 1}, {"user": 7}, "t"]`, d.ids(t, "select json_build_array(new, session, trace)::text from rowhook.event_log where id::text = $1", made.ID)[0])
	d.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 4)")
	a = d.ask(t, "POST", "/api/v1/triggers/orders/backfill", map[string]any{"where": "id > 1"})
	a.into(t, &op)
	require.EqualValues(t, 3, op.Backfill.Recorded, a.text)

	again := d.archive(t)
	var plan operate.ReplayPlan
	d.ask(t, "GET", "/api/v1/triggers/orders/replay?from=2020-01-01T00:00:00Z&to=2999-01-01T00:00:00%2B00:00&op=update&payload=new.v=x", nil).into(t, &plan)
	require.EqualValues(t, 2, plan.Events)
	require.NotNil(t, plan.ReachesBackTo)
	replay := map[string]any{"from": "2020-01-01T00:00:00Z", "ops": []string{"UPDATE"}, "payload": "new.v=x"}
	a = d.ask(t, "POST", "/api/v1/triggers/orders/replay", replay)
	a.into(t, &op)
	require.EqualValues(t, 2, op.Replay.Replayed, a.text)
	require.EqualValues(t, 2, *op.Expected)
	require.Contains(t, d.ids(t, "select id::text from rowhook.event_log"), again)
	d.Exec(t, "update rowhook.replay set finished_at = null")
	d.ask(t, "GET", "/api/v1/triggers/orders/replay?from=2020-01-01T00:00:00Z", nil).into(t, &plan)
	require.EqualValues(t, 2, plan.Unfinished.Replayed)
	d.ask(t, "GET", "/api/v1/status", nil).into(t, &status)
	require.Len(t, status.Replays, 1)
	require.Equal(t, "422 refused", d.problem(t, "POST", "/api/v1/triggers/orders/replay", replay), "its end is another one")
	d.ask(t, "POST", "/api/v1/triggers/orders/replay", map[string]any{"continue": true}).into(t, &op)
	require.Equal(t, "done", op.State)
	require.Equal(t, "404 not_found", d.problem(t, "POST", "/api/v1/triggers/orders/replay", map[string]any{"continue": true}))

	failed := d.ids(t, "update rowhook.event_log set tries = 1, due_at = now() + interval '1 hour' where id::text = $1 returning id::text", waiting[0])
	require.JSONEq(t, `{"trigger": "orders", "events": 1, "ids": ["`+failed[0]+`"], "paused": false}`,
		d.ask(t, "POST", "/api/v1/triggers/orders/retry?wait=5", map[string]any{"ids": failed}).text)
	require.JSONEq(t, `{"trigger": "orders", "events": 0, "ids": [], "paused": false}`, d.ask(t, "POST", "/api/v1/triggers/orders/retry", map[string]any{}).text)

	canceled := d.ask(t, "POST", "/api/v1/triggers/orders/cancel", map[string]any{})
	require.JSONEq(t, fmt.Sprintf(`{"trigger": "orders", "in_flight": %s, "uncounted": false, "paused": false}`,
		d.ids(t, "select count(*)::text from rowhook.event_log e join rowhook.trigger t on t.id = e.trigger_id where t.name = 'orders' and e.claimed_by is not null")[0]), canceled.text)

	require.JSONEq(t, `{"changed": ["orders"]}`, d.ask(t, "POST", "/api/v1/pause", map[string]any{"triggers": []string{"orders"}, "reason": "why not"}).text)
	d.ask(t, "GET", "/api/v1/status", nil).into(t, &status)
	require.Equal(t, "why not", status.Triggers[1].Pause.Reason)
	require.Contains(t, status.Triggers[1].Pause.By, "HTTP with ROWHOOK_HTTP_TOKEN, from 127.0.0.1, role ")
	var audit operate.AuditPage
	d.ask(t, "GET", "/api/v1/audit?limit=1", nil).into(t, &audit)
	require.Equal(t, []string{"HTTP with ROWHOOK_HTTP_TOKEN", "127.0.0.1", "pause"}, []string{audit.Entries[0].Who, audit.Entries[0].Client, audit.Entries[0].Action})
	d.ask(t, "GET", fmt.Sprintf("/api/v1/audit?limit=100&action=backfill&action=discard&trigger=orders&since=2026-01-01&cursor=%d", audit.Next), nil).into(t, &audit)
	require.Equal(t, "HTTP with ROWHOOK_HTTP_TOKEN", audit.Entries[0].Who, "of what runs in the background, too")
	require.Len(t, audit.Entries, 2)
	var changed struct{ Changed []string }
	d.ask(t, "POST", "/api/v1/pause", map[string]any{"all": true}).into(t, &changed)
	require.Equal(t, []string{"manual"}, changed.Changed)
	d.ask(t, "POST", "/api/v1/resume", map[string]any{"all": true}).into(t, &changed)
	require.ElementsMatch(t, []string{"orders", "manual"}, changed.Changed)
	require.Contains(t, d.ask(t, "GET", "/api/v1/drain?trigger=orders&wait=1", nil).text, `"drained":false`)

	d.me(t)
	require.JSONEq(t, `{"sources": []}`, d.ask(t, "GET", "/api/v1/sources", nil).text, "there is one database, without a name")
	require.Contains(t, d.ask(t, "GET", "/api/v1/operations", nil).text, op.ID)
	d.ask(t, "GET", "/api/v1/operations/"+op.ID, nil)
	d.ask(t, "DELETE", "/api/v1/operations/"+op.ID, nil).into(t, &op)
	require.Equal(t, "done", op.State, "it had ended")
	d.tail(t, "", func(next func() string) { d.Exec(t, "insert into orders (v) values ('y')"); next() })

	require.Empty(t, d.doc.Unseen(append([]string{"tail", "statusStream"}, devOperations...)...), "they were not asked for")
}

func TestRoutesAndDocumentAgree(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(c *httpapi.Config) { c.WriteToken, c.ReadToken = "0123456789abcdef-write", "0123456789abcdef-read" })
	var described []string
	for path, item := range d.doc.Paths.Map() {
		for method, o := range item.Operations() {
			var query []string
			for _, p := range append(item.Parameters, o.Parameters...) {
				if p.Value.In == "query" {
					query = append(query, p.Value.Name)
				}
			}
			slices.Sort(query)
			security := d.doc.Security
			if o.Security != nil {
				security = *o.Security
			}
			require.Len(t, security, 1)
			described = append(described, fmt.Sprint(method, " ", path, " ", strings.Join(security[0]["token"], ","), " ", query, " ", o.RequestBody != nil))
		}
	}
	require.ElementsMatch(t, httpapi.Routes(), described)
	require.Greater(t, len(described), 15)
}

func TestWhatIsWrongIsSaidAsAProblem(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	flying := d.wait(t, 1, true)[0]
	body := func(v any) map[string]any { return map[string]any{"filter": v} }
	cases := map[string]struct {
		method, path string
		body         any
		want         string
	}{
		"no such path":             {"GET", "/api/v2/status", nil, "404 not_found"},
		"the root":                 {"POST", "/", nil, "404 not_found"},
		"another method":           {"POST", "/api/v1/status", map[string]any{}, "405 method_not_allowed"},
		"another method of events": {"DELETE", "/api/v1/events/" + flying, nil, "405 method_not_allowed"},
		"an unknown parameter":     {"GET", "/api/v1/events?trigers=orders", nil, "400 invalid"},
		"a parameter too many":     {"GET", "/api/v1/status?x=1", nil, "400 invalid"},
		"a bad limit":              {"GET", "/api/v1/events?limit=0", nil, "400 invalid"},
		"a bad cursor":             {"GET", "/api/v1/events?cursor=x", nil, "400 invalid"},
		"a bad time":               {"GET", "/api/v1/events?since=yesterday", nil, "400 invalid"},
		"another bad time":         {"GET", "/api/v1/audit?until=2026-11-25+00", nil, "400 invalid"},
		"a bad action":             {"GET", "/api/v1/audit?action=undo", nil, "400 invalid"},
		"a session of text":        {"POST", "/api/v1/triggers/manual/invoke", map[string]any{"payload": 1, "session_variables": "x"}, "400 invalid"},
		"a bad status":             {"GET", "/api/v1/events?status=abc", nil, "400 invalid"},
		"a bad kind":               {"GET", "/api/v1/events?kind=abc", nil, "400 invalid"},
		"a bad group":              {"GET", "/api/v1/events/groups?by=abc", nil, "400 invalid"},
		"a bad state":              {"GET", "/api/v1/events?state=lost", nil, "400 invalid"},
		"a bad payload filter":     {"GET", "/api/v1/events?payload=x", nil, "400 invalid"},
		"tables":                   {"GET", "/api/v1/status?tables=1", nil, "400 invalid"},
		"with_payload":             {"GET", "/api/v1/events?with_payload=1", nil, "400 invalid"},
		"an unknown trigger":       {"GET", "/api/v1/events?trigger=nope", nil, "404 not_found"},
		"a tail of such":           {"GET", "/api/v1/events/tail?trigger=nope", nil, "404 not_found"},
		"no id":                    {"GET", "/api/v1/events/7", nil, "400 invalid"},
		"an unknown event":         {"GET", "/api/v1/events/0199a8e2-7c5d-7a3e-9f10-2b7f4c1d8e90", nil, "404 not_found"},
		"an unknown operation":     {"GET", "/api/v1/operations/7", nil, "404 not_found"},
		"an unknown field":         {"POST", "/api/v1/events/redeliver", map[string]any{"filters": 1}, "400 invalid"},
		"an unknown filter":        {"POST", "/api/v1/events/redeliver", body(map[string]any{"trigger": "orders"}), "400 invalid"},
		"no filter":                {"POST", "/api/v1/events/redeliver", map[string]any{}, "400 invalid"},
		"an empty filter":          {"POST", "/api/v1/events/discard", body(map[string]any{}), "400 invalid"},
		"delivered ones":           {"POST", "/api/v1/events/discard", body(map[string]any{"states": []string{"delivered"}}), "400 invalid"},
		"a negative limit":         {"POST", "/api/v1/events/discard", map[string]any{"limit": -1}, "400 invalid"},
		"one in flight":            {"POST", "/api/v1/events/redeliver", body(map[string]any{"ids": []string{flying}}), "409 busy"},
		"no manual events":         {"POST", "/api/v1/triggers/orders/invoke", map[string]any{"payload": 1}, "422 refused"},
		"no payload":               {"POST", "/api/v1/triggers/manual/invoke", map[string]any{}, "400 invalid"},
		"an unknown trigger's":     {"POST", "/api/v1/triggers/nope/invoke", map[string]any{"payload": 1}, "404 not_found"},
		"all and some":             {"POST", "/api/v1/pause", map[string]any{"all": true, "triggers": []string{"orders"}}, "400 invalid"},
		"none":                     {"POST", "/api/v1/resume", map[string]any{}, "400 invalid"},
		"not all":                  {"POST", "/api/v1/resume", map[string]any{"triggers": []string{"orders", "nope"}}, "404 not_found"},
		"SQL without a token":      {"POST", "/api/v1/triggers/orders/backfill", map[string]any{"where": "true"}, "403 sql_needs_token"},
		"a replay of no time":      {"POST", "/api/v1/triggers/orders/replay", map[string]any{}, "400 invalid"},
		"a plan of no time":        {"GET", "/api/v1/triggers/orders/replay", nil, "400 invalid"},
		"a replay of a bad time":   {"POST", "/api/v1/triggers/orders/replay", map[string]any{"from": "yesterday"}, "400 invalid"},
		"a plan of a bad time":     {"GET", "/api/v1/triggers/orders/replay?from=yesterday", nil, "400 invalid"},
		"a replay and the rest":    {"POST", "/api/v1/triggers/orders/replay", map[string]any{"continue": true, "as_new": true}, "400 invalid"},
		"another trigger's replay": {"POST", "/api/v1/triggers/nope/replay", map[string]any{"from": "2026-11-26T00:00:00Z"}, "404 not_found"},
		"a long wait":              {"GET", "/api/v1/drain?wait=3600", nil, "400 invalid"},
		"a malformed parameter":    {"GET", "/api/v1/events/count?trigger=%zz", nil, "400 invalid"},
		"a semicolon":              {"GET", "/api/v1/events/count?trigger=orders;state=dead", nil, "400 invalid"},
		"a path that is no text":   {"GET", "/api/v1/events?payload=$.a%00", nil, "400 invalid"},
		"a path that is no UTF-8":  {"GET", "/api/v1/events?payload=$.a%ff", nil, "400 invalid"},
		"a value that is no text":  {"GET", "/api/v1/events?payload=new.a=%00", nil, "400 invalid"},
		"a filter that is no text": {"POST", "/api/v1/events/discard", body(map[string]any{"payload": "$.a\x00"}), "400 invalid"},
		"a name that is no text":   {"POST", "/api/v1/triggers/%00/invoke", map[string]any{"payload": 1}, "404 not_found"},
		"a name that is no UTF-8":  {"POST", "/api/v1/triggers/%ff/invoke", map[string]any{"payload": 1}, "404 not_found"},
		"no UTF-8":                 {"POST", "/api/v1/triggers/manual/invoke", json.RawMessage("{\"payload\":\"\xff\"}"), "400 invalid"},
	}
	for name, c := range cases {
		require.Equal(t, c.want, d.problem(t, c.method, c.path, c.body), name)
	}
	require.Equal(t, "GET, HEAD", d.ask(t, "PUT", "/api/v1/status", nil).Header.Get("Allow"))
	require.Equal(t, "415 not_json", d.problem(t, "POST", "/api/v1/pause", map[string]any{"all": true}, "Content-Type", "text/plain"))
	require.Equal(t, "400 invalid", d.problem(t, "POST", "/api/v1/pause", json.RawMessage(`"x"`)))
	require.Equal(t, "413 too_large", d.problem(t, "POST", "/api/v1/pause", map[string]any{"triggers": []string{strings.Repeat("x", 2<<20)}}))
	require.Empty(t, d.ids(t, "select name from rowhook.trigger where paused"))
}

func TestADatabaseThatIsLateOrAwayIsSaid(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(c *httpapi.Config) { c.Timeout = 5 * time.Second })
	tx, err := d.Conn(t).Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table rowhook.trigger in access exclusive mode")
	require.NoError(t, err)
	require.Equal(t, "504 timeout", d.problem(t, "GET", "/api/v1/status", nil))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Eventually(t, func() bool { return d.ask(t, "GET", "/api/v1/status", nil).StatusCode == http.StatusOK }, patience, 10*time.Millisecond)

	server := pgtestServer(t)
	away := newDesk(t, func(c *httpapi.Config) { c.DB = server.pool })
	server.stop()
	require.Equal(t, "503 database", away.problem(t, "GET", "/api/v1/status", nil))
	require.Equal(t, "503 database", away.problem(t, "POST", "/api/v1/pause", map[string]any{"all": true}))
}

func TestReadinessSaysWhatIsNot(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ready := func() (int, string) {
		var r httpapi.Readiness
		a := d.ask(t, "GET", "/readyz", nil)
		a.into(t, &r)
		var not []string
		for _, c := range r.Checks {
			if !c.OK {
				not = append(not, c.Name)
			}
			require.Equal(t, c.OK, c.Detail == "", c.Name)
		}
		require.Len(t, r.Checks, 10)
		return a.StatusCode, strings.Join(not, " ")
	}
	expect := func(status int, not string) {
		t.Helper()
		gotStatus, gotNot := ready()
		require.Equal(t, not, gotNot)
		require.Equal(t, status, gotStatus)
	}
	expect(200, "")
	d.set(func(s *dispatcher.Stats) { s.Listens = false })
	expect(503, "listening")
	d.set(func(s *dispatcher.Stats) { s.Polls = true })
	expect(200, "")
	d.set(func(s *dispatcher.Stats) { s.Registered = false })
	expect(503, "registered")
	d.set(func(s *dispatcher.Stats) { s.Registered = true })
	d.set(func(s *dispatcher.Stats) { s.Claiming = "a database statement failed" })
	expect(503, "claiming")
	d.set(func(s *dispatcher.Stats) { s.Claiming, s.Settling = "", "a database statement failed" })
	expect(503, "settling")
	d.set(func(s *dispatcher.Stats) { s.Settling, s.Stopping = "", true })
	expect(503, "running")
	d.set(func(s *dispatcher.Stats) { s.Stopping = false })
	d.Exec(t, "alter schema rowhook rename to elsewhere")
	require.Eventually(t, func() bool { _, not := ready(); return not == "migrated" }, patience, 100*time.Millisecond)
	require.Equal(t, http.StatusOK, d.ask(t, "GET", "/healthz", nil).StatusCode, "alive all the same")
}

func TestTimesOfPostgresChooseEvents(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.bury(t, 2)
	for _, offset := range []string{"+00", "%2B00", "%2B00:00", "%2B0000", "Z", ""} {
		for when, want := range map[string]int{"2020-01-02 03:04:05.123456": 2, "2090-01-02T03:04:05": 0} {
			var n operate.Tally
			d.ask(t, "GET", "/api/v1/events/count?since="+strings.ReplaceAll(when, " ", "%20")+offset, nil).into(t, &n)
			require.EqualValues(t, want, n.Events, when+offset)
		}
	}
}

func TestReadinessTellsOfTablesThatAreNotCaptured(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.set(func(s *dispatcher.Stats) {
		s.Uncaptured = []sqlschema.Uncaptured{{Trigger: "a", Problem: "the table public.a is gone", Remedy: "make it again"}}
	})
	var r httpapi.Readiness
	a := d.ask(t, "GET", "/readyz", nil)
	a.into(t, &r)
	require.Equal(t, 200, a.StatusCode, "another instance would do no better")
	require.Contains(t, r.Checks, httpapi.Check{Name: "capturing", OK: true, Detail: "a: the table public.a is gone: make it again", Remedy: "run \"rowhook apply\", which makes the missing capture triggers"})
}

// TestASchemaThatTheProgramCantWorkOnIsAProblemOfItsOwn moves the schema while the server runs, as
// "rowhook migrate" of another program does.
func TestASchemaThatTheProgramCantWorkOnIsAProblemOfItsOwn(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	_, newest, err := sqlschema.Version(t.Context(), d.conn)
	require.NoError(t, err)
	schema := func(version int32) {
		require.NoError(t, sqlschema.MigrateTo(t.Context(), d.conn, version, slog.New(slog.DiscardHandler)))
	}
	const says = "this program can't work on the database as it is now: "
	pause := map[string]any{"triggers": []string{"orders"}}

	schema(sqlschema.OldestSchema)
	require.Equal(t, http.StatusOK, d.ask(t, "GET", "/api/v1/status", nil).StatusCode)
	require.Equal(t, http.StatusOK, d.ask(t, "POST", "/api/v1/pause", pause).StatusCode, "it can work on the version before")
	schema(sqlschema.OldestSchema - 1)
	require.Equal(t, "503 schema", d.problem(t, "POST", "/api/v1/resume", pause))
	schema(1)
	for method, path := range map[string]string{"GET": "/api/v1/status", "POST": "/api/v1/resume"} {
		var body any
		if method == "POST" {
			body = pause
		}
		var p httpapi.Problem
		a := d.ask(t, method, path, body)
		a.into(t, &p)
		require.Equal(t, http.StatusServiceUnavailable, a.StatusCode, path)
		require.Equal(t, "schema", p.Code)
		require.Equal(t, fmt.Sprintf("%sthe schema rowhook is at version 1, and this program needs %d: run \"rowhook migrate\" of this version first", says, sqlschema.OldestSchema), p.Detail)
	}
	schema(newest)
	require.Equal(t, http.StatusOK, d.ask(t, "GET", "/api/v1/status", nil).StatusCode)

	d.Exec(t, fmt.Sprintf("update rowhook.schema_version set version = %d; update rowhook.setting set value = '%[1]d' where name = 'compatible'", newest+1))
	require.Equal(t, "503 schema", d.problem(t, "POST", "/api/v1/resume", pause), "nothing is written to a schema that a newer program has")
	var paused bool
	require.NoError(t, d.conn.QueryRow(t.Context(), "select paused from rowhook.trigger where name = 'orders'").Scan(&paused))
	require.True(t, paused, "as it was before")
	d.Exec(t, fmt.Sprintf("update rowhook.schema_version set version = %d; update rowhook.setting set value = '%d' where name = 'compatible'", newest, newest-1))
	require.Equal(t, http.StatusOK, d.ask(t, "POST", "/api/v1/resume", pause).StatusCode)
}
