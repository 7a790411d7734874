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

func TestAProgramOfTheVersionBeforeFindsNoURLWithFormatOrCompression(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*trigger.Webhook){
		func(w *trigger.Webhook) { w.Format = trigger.FormatCloudEvents },
		func(w *trigger.Webhook) { w.Compress = trigger.CompressGzip },
	} {
		spec := trigger.DefaultSpec()
		spec.Webhook.URL = "https://example.com"
		require.False(t, spec.IsNew())
		change(&spec.Webhook)
		require.True(t, spec.IsNew())
		stored, err := json.Marshal(spec)
		require.NoError(t, err)
		require.Contains(t, string(stored), `"url":"needs a newer rowhook"`)
		var back trigger.Spec
		require.NoError(t, json.Unmarshal(stored, &back))
		require.Equal(t, spec, back)
	}
}

// TestVersionsBeforeLeaveWhatTheyWouldSendOtherwise has the keys whose effect is not in the row that
// was stored.
func TestVersionsBeforeLeaveWhatTheyWouldSendOtherwise(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spec  trigger.Spec
		isNew bool
	}{
		"nothing new":             {trigger.Spec{}, false},
		"columns of an operation": {trigger.Spec{Payload: trigger.Payload{Insert: trigger.PayloadOf{Columns: []string{"a"}}}}, false},
		"numbers":                 {trigger.Spec{Payload: trigger.Payload{Numbers: trigger.NumbersText}}, false},
		"changed columns":         {trigger.Spec{Payload: trigger.Payload{Old: trigger.OldChanged}}, true},
		"no old row":              {trigger.Spec{Payload: trigger.Payload{Old: trigger.OldNone}}, true},
		"the list":                {trigger.Spec{Payload: trigger.Payload{Changed: true}}, true},
		"TRUNCATE":                {trigger.Spec{On: trigger.On{Truncate: true}}, true},
		// They name the table of each event by its relation_id, as for a trigger that has moved.
		"several tables": {trigger.Spec{Tables: []string{"a.*"}, Except: []string{"a.b"}, Follow: true}, false},
	} {
		require.Equal(t, c.isNew, c.spec.IsNew(), name)
	}
}
