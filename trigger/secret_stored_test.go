package trigger_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestASpecWithNewSecretsIsLeftToDispatchersThatKnowThem(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*trigger.Webhook){
		"oauth2": func(w *trigger.Webhook) {
			w.OAuth2 = trigger.OAuth2{TokenURL: "https://a.example.com", ClientID: "c", ClientSecret: "s", Scopes: []string{"a"}}
		},
		"private key": func(w *trigger.Webhook) { w.Secret = "whsec_a whsk_b" },
		"file":        func(w *trigger.Webhook) { w.Headers = map[string]string{"A": "b", "X": "${file:/x}"} },
		"secret file": func(w *trigger.Webhook) { w.Secret = "${file:/x}" },
	} {
		spec := trigger.DefaultSpec()
		spec.Name, spec.Webhook.URL = "a", "https://example.com"
		require.False(t, spec.IsNew())
		change(&spec.Webhook)
		require.True(t, spec.IsNew(), name)
		stored, err := json.Marshal(spec)
		require.NoError(t, err)
		require.Contains(t, string(stored), `"url":"needs a newer rowhook"`)
		back := trigger.DefaultSpec()
		require.NoError(t, json.Unmarshal(stored, &back))
		require.Equal(t, spec, back, name)
	}
}
