package trigger_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestASingleStatusHasPrecedenceOverARange(t *testing.T) {
	t.Parallel()
	var s trigger.Statuses
	require.NoError(t, json.Unmarshal([]byte(`{"429": "retry", "400-499": "dead", "410": "pause", "503": "dead"}`), &s))
	for status, want := range map[int]string{400: "dead", 404: "dead", 410: "pause", 429: "retry", 499: "dead", 500: "", 503: "dead", 301: "", 0: "", 200: ""} {
		require.Equal(t, want, s.Then(status), status)
	}
	require.True(t, s.Pauses())
	text, err := json.Marshal(s)
	require.NoError(t, err)
	require.Equal(t, `{"400-499":"dead","410":"pause","429":"retry","503":"dead"}`, string(text))
	set := s.Set(trigger.StatusRule{From: 410, To: 410, Then: trigger.StatusDead})
	require.False(t, set.Pauses())
	require.True(t, s.Pauses(), "the rules of before are as they were")
}

func TestStatusesOfAWrongFormAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "4", "4xx", "200", "200-299", "299-300", "1000", "404-404", "499-400", "0404", "404-", "404 - 410", "-404"} {
		_, err := trigger.ParseStatuses(text)
		require.Error(t, err, text)
	}
	var s trigger.Statuses
	require.ErrorContains(t, json.Unmarshal([]byte(`{"404": "delivered"}`), &s), "not a valid value")
	require.Error(t, json.Unmarshal([]byte(`["404"]`), &s))
}

func TestWhatOlderDispatchersWouldGiveUpOtherwiseIsHiddenFromThem(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*trigger.Spec){
		"schedule": func(s *trigger.Spec) {
			s.Retry.Schedule, s.Retry.Interval, s.Retry.Backoff = []trigger.Duration{1}, 0, ""
		},
		"statuses": func(s *trigger.Spec) {
			s.Retry.Statuses = trigger.Statuses{{From: 404, To: 404, Then: trigger.StatusDead}}
		},
		"max_age": func(s *trigger.Spec) { s.Retry.MaxAge = trigger.Duration(time.Hour) },
	} {
		spec := trigger.DefaultSpec()
		spec.Webhook.URL = "https://example.com/"
		require.False(t, spec.IsNew())
		spec.Delay = trigger.Duration(time.Second) // the event has it
		require.False(t, spec.IsNew())
		change(&spec)
		require.True(t, spec.IsNew(), name)
		text, err := json.Marshal(spec)
		require.NoError(t, err)
		var before struct{ Webhook struct{ URL string } }
		require.NoError(t, json.Unmarshal(text, &before))
		require.NotEqual(t, spec.Webhook.URL, before.Webhook.URL, name)
		back := trigger.DefaultSpec()
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, spec, back, name)
	}
}
