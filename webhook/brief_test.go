package webhook_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/webhook"
)

func TestBriefShowsNothingThatAReceiverMaySay(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"answered 503 Service Unavailable":                                     "answered 503",
		"answered 500 row 7 of ann@example.com":                                "answered 500",
		"the receiver answered 404":                                            "the receiver answered 404",
		"answered 200, but the response names ann: all events count as failed": "answered 200",
		"no response within 10s":                                               "no response within 10s",
		"connection refused by 127.0.0.1:80":                                   "connection refused by 127.0.0.1:80",
		"through the proxy: connection refused by the.proxy:80":                "through the proxy: connection refused by the.proxy:80",
		"connection closed by [::1]:80 before the response was complete":       "connection closed by [::1]:80 before the response was complete",
		"no such host: api.example.com":                                        "no such host: api.example.com",
		"canceled: ann@laptop":                                                 "canceled: ann@laptop",
		`malformed HTTP response "ann@example.com"`:                            "",
		"connection refused by 127.0.0.1:80; ann":                              "",
		"": "",
	} {
		require.Equal(t, want, webhook.Brief(text), text)
	}
}
