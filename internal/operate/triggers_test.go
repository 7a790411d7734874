package operate_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestTriggersSayWhatIsAppliedAndHowItIsDoing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	none, err := operate.ListTriggers(t.Context(), d.conn)
	require.NoError(t, err)
	require.Equal(t, []operate.Trigger{}, none)

	names := []string{"active", "failing", "gone", "old", "paused", "unable", "uncaptured"}
	var specs []trigger.Spec
	for _, name := range names {
		d.Table(t, name)
		specs = append(specs, d.Spec(name))
	}
	specs[0].Webhook = trigger.Webhook{
		URL: "https://user:hidden@${HOST}/orders?x=1", Headers: map[string]string{"X-B": "hidden", "Authorization": "Bearer ${TOKEN}"},
		Secret: "whsec_aGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVu", Timeout: trigger.Duration(1500 * time.Millisecond), TLS: trigger.TLS{CAFile: "/etc/ca.pem"},
	}
	specs[1].Webhook.URL = "https://shop.example/${PATH_OF_IT}?key=${KEY}"
	specs[0].On.Delete, specs[0].On.Manual = false, false
	specs[0].When, specs[0].Concurrency, specs[0].Payload.Columns = "new.v <> ''", 3, []string{"v"}
	specs[0].Order, specs[0].Batch.Max = trigger.Order{By: []string{trigger.OrderByRow}, Latest: true}, 5
	specs[0].Rate.Limit = trigger.PerTime{N: 50, Time: time.Second}
	specs[0].ConcurrencyTotal, specs[0].Breaker = 9, trigger.BreakerOff
	d.Apply(t, specs...)
	id := func(name string) (id int32) {
		require.NoError(t, d.conn.QueryRow(t.Context(), "select id from rowhook.trigger where name = $1", name).Scan(&id))
		return id
	}
	_, err = operate.PauseFor(t.Context(), d.conn, "why not", "paused")
	require.NoError(t, err)
	d.do(t, `insert into rowhook.activity (minute, trigger_id, instance_id, delivered, failed, died, latency, error_at, error)
		select date_trunc('minute', now()) - n * interval '1 minute', $1, 9, d, f, 0, array_fill(0, array[$2::integer]), case when f > 0 then now() - n * interval '1 minute' end, 'answered 500'
		  from (values (9, 0, 5), (7, 3, 1), (5, 0, 2), (2, 0, 2)) as a (n, d, f)`, id("failing"), queue.LatencyBuckets)
	d.do(t, `insert into rowhook.instance (id, name, version, listens, seen_at, trouble) values (99, 'host:1', 'v', false, now() + interval '1 hour', '{"unable": {"unable": "no HOST"}}')`)
	d.wait(t, "gone", 2)
	d.Apply(t, specs[0], specs[1], specs[4], specs[5], specs[6])
	d.do(t, "alter table uncaptured disable trigger all")

	all, err := operate.ListTriggers(t.Context(), d.conn)
	require.NoError(t, err)
	states := map[string]operate.TriggerState{}
	for i := range all {
		states[all[i].Name] = all[i].State
	}
	require.Equal(t, map[string]operate.TriggerState{"active": "active", "failing": "failing", "paused": "paused", "unable": "unable", "uncaptured": "uncaptured", "gone": "removed"}, states)

	text, err := json.Marshal(all[0])
	require.NoError(t, err)
	require.JSONEq(t, `{"name": "active", "table": "public.active", "state": "active", "paused": false, "on": {"insert": true, "update": true}, "when": "new.v <> ''",
		"columns": ["v"], "url": "https://<redacted>@${HOST}/orders?x=<redacted>", "headers": ["Authorization", "X-B"], "signed": true, "tls": {"ca_file": "/etc/ca.pem"},
		"timeout_ms": 1500, "retry": {"limit": 12, "interval": "10s", "backoff": "exponential", "max_interval": "1h"}, "concurrency": 3, "concurrency_total": 9, "breaker": "off",
		"order": {"by": ["row"], "strict": false, "on_dead": "skip", "latest": true}, "batch": {"max": 5, "bytes": "1MiB"}, "rate": {"limit": "50/s", "burst": 1}, "notify": "auto", "at": "change", "capture": "auto",
		"on_replication": false, "problems": [], "failing_since": null, "last_error_at": null, "health": null, "owed": 0, "dead": 0}`, string(text))
	failing, err := operate.ReadTrigger(t.Context(), d.conn, "failing")
	require.NoError(t, err)
	require.Equal(t, all[1], failing)
	require.WithinDuration(t, time.Now().Add(-5*time.Minute), *failing.FailingSince, time.Minute+5*time.Second, "the first failures after the last delivery")
	status, err := operate.ReadStatus(t.Context(), d.conn)
	require.NoError(t, err)
	for i := range status.Triggers {
		if st := &status.Triggers[i]; st.Name == "failing" {
			require.Equal(t, failing.FailingSince, st.FailingSince)
		} else if st.Name == "active" {
			require.Nil(t, st.FailingSince)
		}
	}
	require.Equal(t, "answered 500", failing.LastError)
	require.Equal(t, "https://shop.example/${PATH_OF_IT}?key=${KEY}", failing.URL)
	require.EqualValues(t, 2, all[2].Dead, "its events are among the dead letters")
	require.Equal(t, "why not", all[3].Pause.Reason)
	require.Contains(t, all[4].Problems[0].Problem, "no HOST")
	require.Equal(t, operate.Uncaptured, all[5].Problems[0].Code)

	old, err := operate.ReadTrigger(t.Context(), d.conn, "old")
	require.NoError(t, err, "a removed one without events")
	require.Equal(t, operate.TriggerRemoved, old.State)
	_, err = operate.ReadTrigger(t.Context(), d.conn, "activ")
	require.ErrorIs(t, err, operate.ErrNotFound)
	require.ErrorContains(t, err, `did you mean active?`)
	_, err = operate.ReadTrigger(t.Context(), d.conn, "\xff")
	require.ErrorIs(t, err, operate.ErrNotFound)

	require.NoError(t, sqlschema.MigrateTo(t.Context(), d.conn, sqlschema.OldestSchema, nil))
	older, err := operate.ListTriggers(t.Context(), d.conn)
	require.NoError(t, err)
	require.Len(t, older, len(all))
}
