package dispatcher_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/dispatcher"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

const alertSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// alerts applies alerts, and the triggers that are there.
func (b *fixture) alerts(t *testing.T, alerts ...trigger.Alert) {
	t.Helper()
	conn := b.Conn(t)
	cfg, err := queue.Load(t.Context(), conn)
	require.NoError(t, err)
	var specs []trigger.Spec
	for _, old := range cfg.Triggers {
		specs = append(specs, old.Spec)
	}
	cfg.Settings.Alerts = alerts
	_, err = sqlschema.Apply(t.Context(), conn, specs, cfg.Settings, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
}

// told reads the alerts that came to a path, in short.
func (b *fixture) told(t *testing.T, path string) (said []string) {
	t.Helper()
	for _, d := range b.receiver.on(path) {
		var m struct{ Alert, State, Trigger string }
		require.NoError(t, json.Unmarshal([]byte(d.body), &m), d.body)
		said = append(said, strings.TrimSpace(m.Alert+" "+m.State+" "+m.Trigger))
	}
	return said
}

func (b *fixture) to(path string, on ...string) trigger.Alert {
	return trigger.Alert{On: on, URL: b.receiver.URL + "/" + path, Format: trigger.AlertJSON, Backlog: trigger.Backlog{OlderThan: trigger.DefaultBacklog}}
}

func lookAll(t *testing.T, all ...*running) {
	t.Helper()
	for _, r := range all {
		dispatcher.LookForTrouble(t.Context(), r.Dispatcher)
	}
}

// TestOneOfTwoDispatchersTellsOfAnEndpointThatFailsAndRecovers has two dispatchers look all the
// time.
func TestOneOfTwoDispatchersTellsOfAnEndpointThatFailsAndRecovers(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Retry.Interval = 0 })
	signed := b.to("told")
	signed.Secret = alertSecret
	slack := b.to("slack")
	slack.Format = trigger.AlertSlack
	b.alerts(t, signed, slack)
	var ill = make(chan struct{})
	b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
		select {
		case <-ill:
		default:
			if d.path == "orders" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
	})
	one, two := b.start(t), b.start(t)
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 30)")
	conn := b.Conn(t)
	eventually(t, conn, true, "select exists (select from rowhook.health where trigger_id is not null)")
	for range 3 {
		lookAll(t, one, two)
	}
	require.Equal(t, []string{"failing begun orders"}, b.told(t, "told"))
	require.Len(t, b.receiver.on("slack"), 1)
	for _, entry := range []string{"entry=alerts[0] ", "entry=alerts[1] "} {
		require.Contains(t, one.log.String()+two.log.String(), entry, "both have the same host")
	}
	got := b.receiver.on("told")[0]
	require.NoError(t, webhook.Verify(alertSecret, got.header, []byte(got.body), time.Now()))
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(got.body), &m))
	require.Equal(t, b.receiver.URL+"/orders", m["endpoint"])
	require.Contains(t, m["reason"], "503")
	require.NotEmpty(t, m["remedy"])
	require.WithinDuration(t, time.Now(), parseTime(t, m["since"]), patience)
	require.Contains(t, b.receiver.on("slack")[0].body, `{"text":"*failing*: orders (`)

	close(ill)
	eventually(t, conn, false, "select exists (select from rowhook.health)")
	one.Stop(t)
	require.Eventually(t, func() bool {
		lookAll(t, two)
		return len(b.receiver.on("told")) == 2 && len(b.receiver.on("slack")) == 2
	}, patience, 10*time.Millisecond, "the other one takes over at once when this one has stopped")
	require.Equal(t, []string{"failing begun orders", "failing ended orders"}, b.told(t, "told"))
	require.Contains(t, b.receiver.on("slack")[1].body, "*recovered*: orders")
	require.Contains(t, b.receiver.on("told")[1].body, `"remedy":""`)
	lookAll(t, two)
	require.Len(t, b.receiver.on("told"), 2)
}

func parseTime(t *testing.T, v any) time.Time {
	t.Helper()
	text, ok := v.(string)
	require.True(t, ok, v)
	at, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	return at
}

func TestDeadLettersAreToldWithTheirNumberAndTheFirstReason(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Retry.Limit = 0; s.Breaker = trigger.BreakerOff })
	b.alerts(t, b.to("told", "dead"), b.to("others", "backlog", "failing"))
	b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if d.path == "orders" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	r := b.start(t)
	conn := b.Conn(t)
	b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 3)")
	eventually(t, conn, 3, "select count(*)::integer from rowhook.dead_letter")
	lookAll(t, r)
	got := b.receiver.await(t, "told", 1)[0]
	require.Contains(t, got.body, `"counts":{"dead":3}`)
	require.Contains(t, got.body, "418")
	b.Exec(t, "insert into orders (v) values ('x')")
	eventually(t, conn, 4, "select count(*)::integer from rowhook.dead_letter")
	lookAll(t, r)
	require.Len(t, b.receiver.on("told"), 1, "more of the same is counted")
	// Under the lock of a look: one that has begun before would write the time back that it has read.
	b.Exec(t, `select from rowhook.alerter for update;
		update rowhook.dead_letter set died_at = died_at - interval '11 minutes'; update rowhook.alert set begun_at = begun_at - interval '11 minutes'`)
	lookAll(t, r)
	require.Equal(t, []string{"dead begun orders", "dead ended orders"}, b.told(t, "told"))
	ended := b.receiver.on("told")[1].body
	require.Contains(t, ended, `"counts":{"dead":4,"left":4}`)
	require.Contains(t, ended, "rowhook redeliver", "they are left")
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(ended), &m))
	require.Equal(t, one[time.Time](t, conn, "select max(died_at) from rowhook.dead_letter").UTC(), parseTime(t, m["until"]))
	require.Empty(t, b.receiver.on("others"))
}

func TestABacklogIsToldOfParkedEventsToo(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	nowhere := func(s *trigger.Spec) { s.Webhook.URL = "${NOWHERE}" }
	for _, name := range []string{"plain", "paused", "fresh"} {
		b.watch(t, name, nowhere)
	}
	b.watch(t, "ordered", byRow, nowhere)
	b.alerts(t, b.to("told"))
	b.Exec(t, "insert into plain (v) values ('x'), ('y'); insert into ordered (v) values ('x'); insert into paused (v) values ('x'); insert into fresh (v) values ('x')")
	b.Exec(t, `update rowhook.event_log set due_at = due_at - interval '6 minutes' where trigger_id <> (select id from rowhook.trigger where name = 'fresh');
		update rowhook.trigger set paused = true where name = 'paused'`)
	require.Equal(t, 1, one[int](t, b.Conn(t), "select count(*)::integer from rowhook.event_log where lane is not null and due_at > now() + interval '1 year'"))
	r := b.start(t)
	lookAll(t, r)
	require.ElementsMatch(t, []string{"backlog begun plain", "backlog begun ordered"}, b.told(t, "told"))
	for _, d := range b.receiver.on("told") {
		var m struct {
			Counts struct {
				OldestSeconds int `json:"oldest_seconds"`
			}
		}
		require.NoError(t, json.Unmarshal([]byte(d.body), &m))
		require.InDelta(t, 360, m.Counts.OldestSeconds, patience.Seconds(), d.body)
	}
	b.Exec(t, "delete from rowhook.event_log")
	lookAll(t, r)
	require.Len(t, b.told(t, "told"), 4)
}

func TestABacklogBehindADeadLetterNamesItsKeyAndTheRemedy(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "ordered", byRow, func(s *trigger.Spec) {
		s.Order.OnDead = trigger.OnDeadBlock
		s.Webhook.URL = "${NOWHERE}"
	})
	b.alerts(t, b.to("told", "backlog"))
	b.Exec(t, "insert into ordered (v) values ('x'); update ordered set v = 'y'; update rowhook.event_log set due_at = due_at - interval '6 minutes'")
	conn := b.Conn(t)
	id := one[string](t, conn, "select id::text from rowhook.event_log order by seq limit 1")
	b.Exec(t, `with gone as (delete from rowhook.event_log where id = '`+id+`' returning *)
		insert into rowhook.dead_letter (id, created_at, died_at, trigger_id, tries, op, reason, new, key, lane, seq, blocks)
		select id, created_at, now(), trigger_id, 6, op, 'the receiver answered 500', new, key, lane, seq, true from gone`)
	lookAll(t, b.start(t))
	require.Equal(t, []string{"backlog begun ordered"}, b.told(t, "told"))
	body := b.receiver.on("told")[0].body
	require.Contains(t, body, `"reason":"a dead letter holds the key [`)
	require.Contains(t, body, "rowhook redeliver "+id+"; to go on without it: rowhook discard "+id)
}

func TestATableThatIsNotCapturedIsTold(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.alerts(t, b.to("told"))
	b.Exec(t, "alter table orders disable trigger all")
	r := b.start(t)
	require.Eventually(t, func() bool { lookAll(t, r); return len(b.receiver.on("told")) > 0 }, patience, 10*time.Millisecond)
	require.Equal(t, []string{"uncaptured begun orders"}, b.told(t, "told"))
	b.Exec(t, "alter table orders enable trigger all")
	dispatcher.LookAtCaptures(t.Context(), r.Dispatcher)
	lookAll(t, r)
	require.Equal(t, []string{"uncaptured begun orders", "uncaptured ended orders"}, b.told(t, "told"))
}

// TestAnAlertThatCannotBeSentIsSeenAndSilencesTheHeartbeat also restarts the dispatcher meanwhile.
func TestAnAlertThatCannotBeSentIsSeenAndSilencesNoHeartbeat(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders")
	b.alerts(t, b.to("told"), trigger.Alert{Heartbeat: b.receiver.URL + "/beat", Every: 1})
	b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if d.path == "told" {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	r := b.start(t)
	lookAll(t, r)
	require.NotEmpty(t, b.receiver.on("beat"))
	require.Empty(t, b.receiver.on("beat")[0].body)
	b.Exec(t, "alter table orders disable trigger all")
	dispatcher.LookAtCaptures(t.Context(), r.Dispatcher)
	again := "update rowhook.alert set next_at = now() where pending <> ''"
	for range 5 {
		lookAll(t, r)
		b.Exec(t, again)
	}
	conn := b.Conn(t)
	require.Contains(t, one[string](t, conn, "select error from rowhook.alert"), "404")
	require.Equal(t, b.receiver.URL, one[string](t, conn, "select endpoint from rowhook.alert"))
	require.Equal(t, 1, strings.Count(r.log.String(), "can't send alerts; retrying"), r.log.String())
	lookAll(t, r)
	beats := len(b.receiver.on("beat"))
	lookAll(t, r)
	require.Greater(t, len(b.receiver.on("beat")), beats, "Rowhook works")

	r.Stop(t)
	b.receiver.respond(nil)
	b.Exec(t, again)
	r = b.start(t)
	dispatcher.LookAtCaptures(t.Context(), r.Dispatcher)
	lookAll(t, r)
	last := b.told(t, "told")
	require.Equal(t, "uncaptured begun orders", last[len(last)-1])
	require.Zero(t, one[int](t, conn, "select count(*)::integer from rowhook.alert where error is not null"))
}

func TestADispatcherLooksForTroubleByTheRightsOfADispatcher(t *testing.T) {
	t.Parallel()
	b := newFixture(t)
	b.watch(t, "orders", func(s *trigger.Spec) { s.Retry.Limit = 0 })
	b.alerts(t, b.to("told"), trigger.Alert{Heartbeat: b.receiver.URL + "/beat", Every: 1}, trigger.Alert{Heartbeat: "${NOWHERE}", Every: 1})
	b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
		if d.path == "orders" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	_, url := b.dispatches(t)
	r := b.start(t, func(c *dispatcher.Config) { c.DatabaseURL = url })
	b.Exec(t, "insert into orders (v) values ('x')")
	conn := b.Conn(t)
	eventually(t, conn, 1, "select count(*)::integer from rowhook.dead_letter")
	lookAll(t, r)
	require.Equal(t, []string{"dead begun orders"}, b.told(t, "told"))
	require.NotEmpty(t, b.receiver.on("beat"))
	require.Contains(t, one[string](t, conn, "select error from rowhook.alert where kind = 'heartbeat'"), "NOWHERE")
	b.alerts(t)
	require.Eventually(t, func() bool {
		lookAll(t, r)
		return one[int](t, conn, "select count(*)::integer from rowhook.alert") == 0
	}, patience, 10*time.Millisecond, "nothing is kept of alerts that are configured no more")
	require.NotContains(t, r.log.String(), "can't look for trouble")
}
