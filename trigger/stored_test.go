package trigger_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestAStoredSpecKeepsWhatItDoesNotName(t *testing.T) {
	t.Parallel()
	spec := trigger.DefaultSpec()
	require.NoError(t, json.Unmarshal([]byte(`{"name": "a", "webhook": {"url": "needs a newer rowhook", "target": "https://example.com"}}`), &spec))
	require.Equal(t, "https://example.com", spec.Webhook.URL)
	require.Equal(t, trigger.DefaultTimeout, spec.Webhook.Timeout)
	require.Error(t, json.Unmarshal([]byte(`{"name": 1}`), &spec))
}
