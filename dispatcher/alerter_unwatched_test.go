package dispatcher_test

import (
	"log/slog"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestAnEndpointThatNobodyWatchesAnyMoreIsNotToldAsRecovered(t *testing.T) {
	t.Parallel()
	for reason, change := range map[string]func(*trigger.Spec){
		"it has breaker: off now":    func(s *trigger.Spec) { s.Breaker = trigger.BreakerOff },
		"it has another webhook now": func(s *trigger.Spec) { s.Webhook.URL += "?new=1" },
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t)
			b.watch(t, "orders")
			slack := b.to("slack", "failing", "recovered")
			slack.Format = trigger.AlertSlack
			b.alerts(t, slack, b.to("told", "failing", "recovered"))
			b.receiver.respond(func(_ int, d delivery, w http.ResponseWriter, _ *http.Request) {
				if d.path == "orders" {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			})
			r := b.start(t)
			conn := b.Conn(t)
			b.Exec(t, "insert into orders (v) select 'x' from generate_series(1, 30)")
			eventually(t, conn, true, "select exists (select from rowhook.health where trigger_id is not null)")
			lookAll(t, r)
			require.Equal(t, []string{"failing begun orders"}, b.told(t, "told"))
			b.Exec(t, "update rowhook.trigger set paused = true") // so that the new webhook does not fail as well
			b.watchAgain(t, change)
			lookAll(t, r)
			got := b.receiver.await(t, "told", 2)[1]
			require.Contains(t, got.body, reason)
			require.Contains(t, b.receiver.await(t, "slack", 2)[1].body, "*no longer watched*: orders")
		})
	}
}

// watchAgain changes the triggers, and keeps the settings.
func (b *fixture) watchAgain(t *testing.T, change func(*trigger.Spec)) {
	t.Helper()
	conn := b.Conn(t)
	cfg, err := queue.Load(t.Context(), conn)
	require.NoError(t, err)
	var specs []trigger.Spec
	for _, old := range cfg.Triggers {
		change(&old.Spec)
		specs = append(specs, old.Spec)
	}
	_, err = sqlschema.Apply(t.Context(), conn, specs, cfg.Settings, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
}
