package operate_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/config"
	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/sqlschema"
	"github.com/rowhook/rowhook/trigger"
)

func TestATriggersConfigurationIsShownWithoutSecretsAndIsValid(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	plain := d.Spec("a", func(s *trigger.Spec) {
		s.Webhook.URL, s.Webhook.Secret = "${URL}/hooks?from=${FROM}", "${SECRET}"
		s.Webhook.Headers = map[string]string{"Authorization": "Bearer ${TOKEN}"}
	})
	d.Apply(t, plain)
	shown, err := operate.ShowTrigger(t.Context(), d.conn, "a")
	require.NoError(t, err)
	c, err := config.Parse("f", []byte(shown.YAML))
	require.NoError(t, err, shown.YAML)
	require.Equal(t, []trigger.Spec{plain}, c.Triggers)

	d.Apply(t, d.Spec("a", func(s *trigger.Spec) {
		s.Webhook.URL, s.Webhook.Secret = "https://me:pass1@example.com/hooks?key=pass2", "pass3"
		s.Webhook.Headers = map[string]string{"X-Key": "pass4", "X-Ref": "${REF}"}
		s.Webhook.OAuth2 = trigger.OAuth2{TokenURL: "https://auth.example.com/t?key=pass5", ClientID: "a", ClientSecret: "pass6"}
	}))
	shown, err = operate.ShowTrigger(t.Context(), d.conn, "a")
	require.NoError(t, err)
	require.NotContains(t, shown.YAML, "pass")
	require.Contains(t, shown.YAML, "# ${HIDDEN} stands for")
	c, err = config.Parse("f", []byte(shown.YAML))
	require.NoError(t, err, shown.YAML)
	require.Equal(t, "https://${HIDDEN}@example.com/hooks?key=${HIDDEN}", c.Triggers[0].Webhook.URL)
	require.Equal(t, map[string]string{"X-Key": "${HIDDEN}", "X-Ref": "${REF}"}, c.Triggers[0].Webhook.Headers)
	require.Equal(t, trigger.OAuth2{TokenURL: "https://auth.example.com/t?key=${HIDDEN}", ClientID: "a", ClientSecret: "${HIDDEN}"}, c.Triggers[0].Webhook.OAuth2)

	d.Apply(t, d.Spec("a", func(s *trigger.Spec) {
		s.Webhook.URL, s.Webhook.Query = "https://me:pass1@example.com/${new.v ?? \"?\"}", map[string]string{"api_key": "pass2", "id": "$new.id", "from": "shop"}
		s.Webhook.Body = `{"token":"pass3","z":1.10,"a":["$new.id"]}`
	}))
	shown, err = operate.ShowTrigger(t.Context(), d.conn, "a")
	require.NoError(t, err)
	require.NotContains(t, shown.YAML, "pass")
	c, err = config.Parse("f", []byte(shown.YAML))
	require.NoError(t, err, shown.YAML)
	require.Equal(t, "https://${HIDDEN}@example.com/${new.v ?? \"?\"}", c.Triggers[0].Webhook.URL)
	require.Equal(t, map[string]string{"api_key": "${HIDDEN}", "id": "$new.id", "from": "shop"}, c.Triggers[0].Webhook.Query)
	require.Equal(t, trigger.Body(`{"token":"${HIDDEN}","z":1.10,"a":["$new.id"]}`), c.Triggers[0].Webhook.Body)
}

func TestATriggerShowsItsSQLTriggersAndWhatIsWrongWithEach(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "a")
	look := func() map[string]sqlschema.SQLTrigger {
		t.Helper()
		shown, err := operate.ShowTrigger(t.Context(), d.conn, "a")
		require.NoError(t, err)
		out := map[string]sqlschema.SQLTrigger{}
		for _, s := range shown.SQLTriggers {
			require.Equal(t, "public.a", s.Table)
			out[s.Name] = s
		}
		return out
	}
	whole := look()
	require.Len(t, whole, 4)
	for name, s := range whole {
		require.True(t, s.Present && s.Enabled && s.Problem == "", name)
		require.Equal(t, name == "rowhook_a_guard", s.Guard)
	}
	d.do(t, "alter table a disable trigger rowhook_a_update; drop trigger rowhook_a_delete on a; alter trigger rowhook_a_insert on a rename to mine")
	now := look()
	require.Equal(t, sqlschema.SQLTrigger{Table: "public.a", Name: "rowhook_a_update", Present: true, Problem: "is disabled", Remedy: `run "rowhook apply"`}, now["rowhook_a_update"])
	require.Equal(t, sqlschema.SQLTrigger{Table: "public.a", Name: "rowhook_a_delete", Problem: "was dropped", Remedy: `run "rowhook apply"`}, now["rowhook_a_delete"])
	require.Equal(t, sqlschema.SQLTrigger{Table: "public.a", Name: "mine", Present: true, Enabled: true}, now["mine"], "it captures under another name")
	require.Empty(t, now["rowhook_a_guard"].Problem)
	d.do(t, "drop table a")
	for _, s := range look() {
		require.False(t, s.Present)
		require.NotEmpty(t, s.Problem)
	}
}
