package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/configtest"
	"github.com/rowhook/rowhook/trigger"
)

func TestWhatIsWrittenOfATriggerParsesToItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		spec := specs().Draw(t, "spec")
		text, err := config.Write(spec)
		require.NoError(t, err)
		c, err := config.Parse("f", text)
		require.NoError(t, err, "%s", text)
		require.Equal(t, []trigger.Spec{spec}, c.Triggers, "%s", text)
	})
}

func TestWhatIsWrittenOfAConfigurationParsesToItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfNDistinct(specs(), 0, 3, func(s trigger.Spec) string { return s.Name }).Draw(t, "specs")
		if rapid.Bool().Draw(t, "alike") { // so that there is something to share
			for i := range all {
				all[i].Retry, all[i].Breaker = all[0].Retry, all[0].Breaker
				if all[i].Kind() == trigger.KindWebhook && all[0].Kind() == trigger.KindWebhook {
					all[i].Webhook.Timeout = all[0].Webhook.Timeout
				}
				all[i].Retry.Statuses = nil
			}
		}
		settings := configtest.Settings().Draw(t, "settings")
		for _, style := range []config.Style{config.Plain, config.Shared} {
			text, err := config.WriteAll(all, settings, style)
			require.NoError(t, err)
			c, err := config.Parse("f", text)
			require.NoError(t, err, "%s", text)
			require.Equal(t, append([]trigger.Spec{}, all...), append([]trigger.Spec{}, c.Triggers...), "%s", text)
			require.Equal(t, settings, c.Settings, "%s", text)
		}
		text, err := config.WriteJSON(all, settings)
		require.NoError(t, err)
		c, err := config.Parse("f", text)
		require.NoError(t, err, "%s", text)
		require.Equal(t, append([]trigger.Spec{}, all...), append([]trigger.Spec{}, c.Triggers...), "%s", text)
		require.Equal(t, settings, c.Settings, "%s", text)
	})
}

func TestATriggerIsWrittenAsAPersonWritesIt(t *testing.T) {
	t.Parallel()
	s := trigger.DefaultSpec()
	s.Name, s.Table, s.When = "order_placed", `public."Order Items"`, "new.amount > 100"
	s.On.Insert, s.On.Update = true, trigger.UpdateOn{Enabled: true, Columns: []string{"status"}}
	s.Webhook.URL, s.Webhook.Secret = "${ORDERS_URL}/hooks/orders", "${ORDERS_SECRET}"
	s.Webhook.Headers = map[string]string{"Authorization": "Bearer ${TOKEN}", "X-Version": "1"}
	s.Retry.Limit = 3
	s.Rate.Limit = trigger.PerTime{N: 50, Time: time.Second}
	s.Concurrency, s.ConcurrencyTotal = 5, 20
	text, err := config.Write(s)
	require.NoError(t, err)
	require.Equal(t, `triggers:
  - name: order_placed
    table: "public.\"Order Items\""
    on:
      insert: true
      update:
        columns:
          - status
    when: new.amount > 100
    webhook:
      url: ${ORDERS_URL}/hooks/orders
      headers:
        Authorization: Bearer ${TOKEN}
        X-Version: "1"
      secret: ${ORDERS_SECRET}
    retry:
      limit: 3
    rate:
      limit: 50/s
    concurrency:
      each: 5
      total: 20
`, string(text))
}
