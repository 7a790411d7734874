package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNobodySeesOverHTTPWhatATriggerMasks(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.Exec(t, `update rowhook.trigger set spec = jsonb_set(spec, '{payload}', '{"mask": ["v", "address.city"]}') where name = 'orders'`)
	ids := d.bury(t, 2)
	d.Exec(t, `update rowhook.dead_letter set reason = 'answered 422 no secret', new = '{"id": 7, "v": "secret", "address": {"city": "secret", "zip": "open"}}', old = '{"v": "secret"}'`)
	d.Exec(t, `insert into rowhook.invocation_log (event_id, started_at, trigger_id, instance_id, duration_us, attempt, status, error, response_headers, response_body)
		select id, now(), trigger_id, 2, 1500, 1, 422, 'answered 422 no secret', '{"X-Echo": "secret"}', 'secret' from rowhook.dead_letter`)
	var all strings.Builder
	for _, path := range []string{
		"/api/v1/events", "/api/v1/events?with_payload=true", "/api/v1/events/" + ids[0], "/api/v1/events/export", "/api/v1/events/groups?by=error", "/api/v1/events/groups?by=error&by=status",
		"/api/v1/status", "/api/v1/triggers", "/api/v1/triggers/orders", "/api/v1/activity", "/metrics",
	} {
		a := d.ask(t, http.MethodGet, path, nil)
		require.Equal(t, http.StatusOK, a.StatusCode, a.text)
		require.NotContains(t, a.text, "secret\"", path)
		require.NotContains(t, a.text, "no secret", path)
		all.WriteString(a.text)
	}
	for _, shown := range []string{`"v":"<masked>"`, `"city":"<masked>","zip":"open"`, `"response_body":"<masked>"`, `"masked":["v","address.city"]`, `"error":"answered 422"`} {
		require.Contains(t, strings.ReplaceAll(all.String(), ": ", ":"), shown)
	}
	for _, path := range []string{"/api/v1/events", "/api/v1/events/count", "/api/v1/events/export", "/api/v1/events/tail", "/api/v1/events/groups"} {
		more := ""
		if strings.HasSuffix(path, "groups") {
			more = "&by=state"
		}
		require.Equal(t, "422 refused", d.problem(t, http.MethodGet, path+"?payload=new.v%3Dsecret"+more, nil), path)
		require.Equal(t, "422 refused", d.problem(t, http.MethodGet, path+"?payload=%24.new"+more, nil), path)
	}
	require.Equal(t, "422 refused", d.problem(t, http.MethodPost, "/api/v1/events/discard", map[string]any{"filter": map[string]any{"payload": "new.v=secret"}}))
	a := d.ask(t, http.MethodGet, "/api/v1/events?payload=new.address.zip%3Dopen", nil)
	require.Contains(t, a.text, ids[0], "what is not masked can be searched")
}
