package webhook_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
	"github.com/rowhook/rowhook/webhook"
)

// TestAProxyThatCanNotBeUsedKeepsItsWebhooksFromBeingCalled sets variables of the process, so it is
// not parallel.
func TestAProxyThatCanNotBeUsedKeepsItsWebhooksFromBeingCalled(t *testing.T) { //nolint:paralleltest // Setenv
	t.Setenv("NO_PROXY", "spared.example")
	for value, problem := range map[string]string{
		":bad": "not the URL of a proxy", "ht tp://x": "not the URL of a proxy", "http://": "not the URL of a proxy", "socks9://user:hunter2@10.0.0.1:1": "a scheme other than",
		"http://10.0.0.1:99999": "a port that is not between", "10.0.0.1:0": "a port that is not between",
		"": "", "10.0.0.1:3128": "", "http://user:pass@10.0.0.1:3128": "", "socks5h://10.0.0.1": "", "http://[::1]:3128/": "",
	} {
		t.Setenv("HTTP_PROXY", value)
		t.Setenv("HTTPS_PROXY", value)
		client := webhook.NewClient(webhook.ClientConfig{})
		for _, scheme := range []string{"http", "https"} {
			for host, used := range map[string]bool{"shop.example": true, "spared.example": false, "127.0.0.1:9": false} {
				ep, err := webhook.NewEndpoint(trigger.Webhook{URL: scheme + "://" + host + "/x"}, func(string) (string, bool) { return "", false })
				require.NoError(t, err)
				err = client.Prepare(ep)
				if problem == "" || !used {
					require.NoError(t, err, "%s for %s", value, host)
					continue
				}
				require.ErrorContains(t, err, problem, "%s for %s", value, host)
				require.NotContains(t, err.Error(), "hunter2")
			}
		}
		client.Close()
	}
}
