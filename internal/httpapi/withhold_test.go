package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/internal/httpapi"
)

// hidden stands in every place where data of a row or of a receiver can be.
const hidden = "s3cr3t"

// secrets fills the database with events, attempts, errors and an audit that say hidden. It returns
// the ids of the events.
func secrets(t *testing.T, d *desk) []string {
	t.Helper()
	d.Exec(t, strings.ReplaceAll(`
update rowhook.trigger set spec = jsonb_set(spec, '{order}', '{"by": ["row"], "on_dead": "block"}') where name = 'orders';
insert into rowhook.dead_letter (id, created_at, died_at, trigger_id, tries, op, reason, new, seq, key, lane, blocks)
select rowhook.uuid7(), now(), now(), id, 6, 'I', 'answered 500 $hidden', '{"v": "$hidden"}', 1, '["$hidden"]', 1, true from rowhook.trigger where name = 'orders';
insert into rowhook.event_log (id, trigger_id, op, new, due_at, tries, seq, key, lane)
select rowhook.uuid7(), id, 'I', '{"v": "$hidden"}', now() + interval '73000 days', 1, 2, '["$hidden"]', 1 from rowhook.trigger where name = 'orders';
insert into rowhook.event_log (id, trigger_id, op, new, due_at, tries, session, trace)
select rowhook.uuid7(), id, 'U', '{"v": "$hidden"}', now() - interval '1 minute', 1, '{"user": "$hidden"}', '"$hidden"' from rowhook.trigger where name = 'manual';
insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt, status, error, response_headers, response_body)
select id, now(), trigger_id, 2, 1500, 1, 500, 'answered 500 $hidden', '{"X": "$hidden"}', '$hidden' from (
  select id, trigger_id from rowhook.event_log union all select id, trigger_id from rowhook.dead_letter) as e;
insert into rowhook.activity (minute, trigger_id, instance_id, delivered, failed, died, latency, error_at, error)
select date_trunc('minute', now()), id, 2, 0, 1, 0, '{}', now(), 'malformed HTTP response $hidden' from rowhook.trigger;
insert into rowhook.health (target, trigger_id, webhook, triggers, state, endpoint, since, reason, probe_at, probes)
select 'x' || id, id, md5((spec->'webhook')::text), array[id], 'failing', 'https://example.com', now(), 'answered 503 $hidden', now() + interval '1 hour', 1 from rowhook.trigger;
insert into rowhook.audit (role, who, client, action, target, detail) values ('r', 'w', '', 'redeliver', '{orders}', '{"filter": "$hidden"}');
insert into rowhook.backfill (trigger_id, condition, key, expected, until, horizon, home) select id, 'v = ''$hidden''', '{id}', 1, null, '1', 0 from rowhook.trigger where name = 'orders';
insert into rowhook.replay (trigger_id, from_at, until_at, as_new, payload, expected, counted) select id, now() - interval '1 hour', now(), false, 'new.v=$hidden', 1, true from rowhook.trigger where name = 'orders'`,
		"$hidden", hidden))
	return d.ids(t, "select id::text from rowhook.event_log union all select id::text from rowhook.dead_letter")
}

// Whoever has only the scope status sees no data by any route, and the answer says what is missing.
func TestTheScopeStatusSeesNoData(t *testing.T) {
	t.Parallel()
	d := newNamedDesk(t)
	viewer, reader := d.add(t, "viewer", access.Status, time.Time{}), d.add(t, "reader", access.Payloads, time.Time{})
	steerer := d.add(t, "steerer", access.Steer, time.Time{})
	ids := secrets(t, d.desk)
	paths := map[string]string{
		"/api/v1/status":                                 "backfills.where blocked.key replays.payload triggers.health.reason triggers.last_error",
		"/api/v1/triggers":                               "triggers.health.reason triggers.last_error",
		"/api/v1/triggers/orders":                        "health.reason last_error",
		"/api/v1/events":                                 "events.key events.reason",
		"/api/v1/audit":                                  "entries.detail",
		"/api/v1/events/groups?by=trigger&by=status":     "",
		"/api/v1/events/count":                           "",
		"/api/v1/drain":                                  "",
		"/api/v1/triggers/orders/replay?from=2026-01-01": "unfinished.payload",
		"/api/v1/operations":                             "",
		"/readyz":                                        "",
	}
	for _, id := range ids {
		paths["/api/v1/events/"+id] = "*"
	}
	for path, want := range paths {
		for name, token := range map[string]string{"viewer": viewer, "steerer": steerer} {
			d.token = token
			a := d.ask(t, "GET", path, nil)
			require.Equal(t, http.StatusOK, a.StatusCode, a.text)
			require.NotContains(t, a.text, hidden, "%s of %s", path, name)
			var out struct{ Withheld []string }
			a.into(t, &out)
			if want != "*" {
				require.Equal(t, want, strings.Join(out.Withheld, " "), path)
			} else {
				require.Contains(t, out.Withheld, "payload")
				require.Contains(t, out.Withheld, "attempt_log.response_body")
				require.Contains(t, a.text, `"error":"answered 500"`, "what is known to quote nothing is shown")
			}
		}
		d.token = reader
		a := d.ask(t, "GET", path, nil)
		require.NotContains(t, a.text, `"withheld"`, path)
		if want != "" {
			require.Contains(t, a.text, hidden, "the test shows nothing if %s has no data", path)
		}
	}

	d.token = viewer
	for _, path := range []string{
		"/api/v1/events?payload=new.v=x", "/api/v1/events?error=x", "/api/v1/events?with_payload=true", "/api/v1/events/count?payload=new.v=x", "/api/v1/events/count?error=x",
		"/api/v1/events/groups?by=error", "/api/v1/events/groups?by=state&payload=new.v=x", "/api/v1/events/tail?error=x", "/api/v1/events/tail?payload=new.v=x",
		"/api/v1/triggers/orders/replay?from=2026-01-01&payload=new.v=x",
	} {
		require.Equal(t, "403 scope", d.problem(t, "GET", path, nil), "by whether something is found one could guess what is in it: %s", path)
	}
	d.token = steerer
	for _, filter := range []map[string]any{{"payload": "new.v=x"}, {"error": "x"}} {
		for _, path := range []string{"/api/v1/events/redeliver", "/api/v1/events/discard"} {
			require.Equal(t, "403 scope", d.problem(t, "POST", path, map[string]any{"filter": filter}))
		}
	}
	require.Equal(t, "403 scope", d.problem(t, "POST", "/api/v1/triggers/orders/replay", map[string]any{"from": "2026-01-01T00:00:00Z", "payload": "new.v=x"}))
}

func TestStreamsWithholdWhatListsDo(t *testing.T) {
	t.Parallel()
	d := newNamedDesk(t)
	viewer, reader := d.add(t, "viewer", access.Status, time.Time{}), d.add(t, "reader", access.Payloads, time.Time{})
	secrets(t, d.desk)
	for token, seen := range map[string]bool{viewer: false, reader: true} {
		d.token = token
		d.stream(t, "/api/v1/status/stream", "", func(next func() string) {
			line := next()
			require.Contains(t, line, `"status":{`)
			require.Equal(t, seen, strings.Contains(line, hidden), line)
			require.Equal(t, !seen, strings.Contains(line, `"withheld":["status.backfills.where"`), line)
		})
		d.stream(t, "/api/v1/events/tail?since=2020-01-01", "text/event-stream", func(next func() string) {
			for range 2 {
				next() // event
				next() // id
				line := next()
				require.Contains(t, line, `data: {`)
				if strings.Contains(line, `"trigger":"orders"`) {
					require.Equal(t, seen, strings.Contains(line, hidden), line)
					require.Equal(t, !seen, strings.Contains(line, `"withheld":["key"`), line)
				}
			}
		})
	}
}

// A response from which something can be withheld has to have the key that says so.
func TestEveryResponseSaysWhatItWithholds(t *testing.T) {
	t.Parallel()
	d := document(t)
	routes := httpapi.Withholding()
	require.Greater(t, len(routes), 8)
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		content := d.Paths.Value(path).GetOperation(method).Responses.Value("200").Value.Content
		schema := content.Get("application/json")
		if schema == nil {
			schema = content.Get("application/x-ndjson")
		}
		require.Contains(t, schema.Schema.Value.Properties, "withheld", route)
	}
}

// A new text in a response has to be judged: data of rows or of receivers has x-scope: payloads in
// openapi.yaml, and what else is a text is listed here.
func TestEveryTextOfAResponseIsJudged(t *testing.T) {
	t.Parallel()
	safe := strings.Fields(`
Activity.triggers.name DevAbout.config DevAbout.forward_to DevAbout.sink_url DevAbout.triggers.forward_url DevAbout.triggers.name
DevAbout.triggers.table DevAbout.triggers.url DevAnswer.delay DevAnswer.trigger Event.last_attempt.kind Detail.last_attempt.kind Alive.version Attempt.batch Attempt.error_kind AuditEntry.client AuditEntry.role AuditEntry.target AuditEntry.who Backfill.table Backfill.trigger BlockedKey.remedy
BlockedKey.trigger Choice.triggers Detail.masked Detail.next Detail.request.url Detail.table Detail.trigger Detail.waits_on EndpointHealth.endpoint Event.table
Event.trigger Event.waits_on Filter.error Filter.kinds Filter.payload Filter.statuses Filter.table Filter.triggers History.partitions.day
History.partitions.name Holder.name Holder.state Holder.user Instance.name Instance.version Left.trigger Me.actor Me.database Me.instance.name Me.name
Me.trace_link Me.version Replay.trigger Pause.by Pause.reason Problem.detail Problem.explanation Problem.remedy Problem.title Readiness.checks.detail Readiness.checks.remedy
Status.alerts.about Status.alerts.to Payload.new Payload.old Payload.session_variables Payload.trace_context Status.retention Trigger.batch.bytes Trigger.batch.wait Trigger.columns Trigger.delay Trigger.headers Trigger.mask Trigger.method Trigger.name
Trigger.on.update.columns Trigger.order.by Trigger.payload.delete.columns Trigger.payload.insert.columns Trigger.payload.update.columns Trigger.rate.held_by Trigger.rate.limit Trigger.retention.attempts Trigger.retention.delivered
Trigger.retry.max_age Trigger.retry.schedule Trigger.sql_triggers.name Trigger.sql_triggers.problem Trigger.sql_triggers.remedy Trigger.sql_triggers.table Trigger.yaml Trigger.retry.interval Trigger.retry.max_interval Trigger.table Trigger.tls.ca_file
Trigger.tls.cert_file Trigger.tls.key_file Trigger.url Trigger.when TriggerStatus.hanging.endpoint TriggerStatus.name TriggerStatus.table Warning.code
Check.detail Check.remedy SourceReadiness.source Status.standby.name Trigger.nats.stream Trigger.nats.subject Warning.remedy Warning.trigger WatchedTable.note WatchedTable.problem WatchedTable.table Withheld
`)
	d := document(t)
	var doc map[string]any
	text, err := json.Marshal(d.T)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &doc))
	object := func(v any) map[string]any {
		m, ok := v.(map[string]any)
		require.True(t, ok)
		return m
	}
	var unjudged []string
	var walk func(at string, schema map[string]any)
	walk = func(at string, schema map[string]any) {
		if schema["x-scope"] != nil || schema["$ref"] != nil {
			return
		}
		kind := fmt.Sprint(schema["type"])
		free := schema["type"] == nil && schema["properties"] == nil && schema["anyOf"] == nil // any JSON
		if (free || strings.Contains(kind, "string")) && schema["format"] == nil && schema["enum"] == nil && schema["const"] == nil && !slices.Contains(safe, at) {
			unjudged = append(unjudged, at)
		}
		properties, _ := schema["properties"].(map[string]any)
		for name, p := range properties {
			walk(at+"."+name, object(p))
		}
		for _, key := range []string{"items", "additionalProperties"} {
			if s, ok := schema[key].(map[string]any); ok {
				walk(at, s)
			}
		}
		all, _ := schema["anyOf"].([]any)
		for _, s := range all {
			walk(at, object(s))
		}
	}
	schemas := object(object(doc["components"])["schemas"])
	for name, s := range schemas {
		if slices.Contains([]string{"DevConfig", "DevDelivery", "DevProblem", "DevSQL"}, name) { // for payloads and admin only
			continue
		}
		walk(name, object(s))
	}
	slices.Sort(unjudged)
	require.Empty(t, unjudged, strings.Join(unjudged, " "))
}
