package sink

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

func (s *sender) sendBatch(path string, events ...*webhook.Event) (webhook.Result, []int) {
	ep, err := webhook.NewEndpoint(trigger.Webhook{URL: s.server.URL + path, Timeout: trigger.Duration(s.timeout), Secret: s.secret},
		func(string) (string, bool) { return "", false })
	require.NoError(s, err)
	return s.client.SendBatch(context.Background(), ep, events)
}

func TestABatchShowsAsItsEventsAndFailsThoseThatAreToFail(t *testing.T) {
	t.Parallel()
	s := &Sink{Secret: secret}
	sender := start(t, s)
	sender.secret = secret
	_, err := s.Behave(Rule{Trigger: "second", Behaviour: Behaviour{Fail: 1}})
	require.NoError(t, err)
	second := event(2)
	second.Trigger = "second"
	r, failed := sender.sendBatch("/hook", event(1), second, event(3))
	require.True(t, r.Delivered(), r.Err)
	require.Equal(t, []int{1}, failed)
	all := s.Deliveries()
	require.Len(t, all, 3)
	for i := range all {
		require.Equal(t, string(webhook.AppendBody(nil, []*webhook.Event{event(1), second, event(3)}[i]))[:60], string(all[i].Body)[:60])
		require.Equal(t, Valid, all[i].Signature)
		require.Equal(t, i != 1, all[i].Accepted())
		require.True(t, strings.HasPrefix(all[i].Header.Get(webhook.HeaderID), "batch_"))
	}
	r, failed = sender.sendBatch("/hook", second)
	require.True(t, r.Delivered(), r.Err)
	require.Empty(t, failed)
	require.Equal(t, 2, s.Deliveries()[3].Attempt)

	_, err = s.Behave(Rule{Behaviour: Behaviour{Fail: -1, FailStatus: 503}})
	require.NoError(t, err)
	r, _ = sender.sendBatch("/hook", event(4), event(5))
	require.Equal(t, 503, r.Status, "if all fail, the request does")
	sender.secret = "another"
	r, _ = sender.sendBatch("/hook", event(4), event(5))
	require.Equal(t, 401, r.Status)
}
