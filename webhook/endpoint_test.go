package webhook

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

// env returns a lookup over pairs of a name and a value.
func env(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func TestEndpointThatCantBeCalledSaysWhyAndNeverTheValue(t *testing.T) {
	t.Parallel()
	headers := func(pairs ...string) map[string]string {
		h := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			h[pairs[i]] = pairs[i+1]
		}
		return h
	}
	const ok = "http://localhost/x"
	for name, c := range map[string]struct {
		webhook trigger.Webhook
		lookup  func(string) (string, bool)
		want    string
	}{
		"variable of the url not set":  {trigger.Webhook{URL: "${ORDERS_URL}/x"}, env(), `url "${ORDERS_URL}/x": environment variable ORDERS_URL is not set`},
		"a key beside that variable":   {trigger.Webhook{URL: "https://u:p?w@${HOST}/x?key=hidden&to=${TO}"}, env(), `url "https://<redacted>@${HOST}/x?key=<redacted>&to=${TO}": environment`},
		"variable of a header not set": {trigger.Webhook{URL: ok, Headers: headers("X-A", "${TOKEN}")}, env(), `header "X-A": environment variable TOKEN is not set`},
		"variable of secret not set":   {trigger.Webhook{URL: ok, Secret: "${KEY}"}, env(), `secret: environment variable KEY is not set`},
		"two faults, both told":        {trigger.Webhook{URL: "${A}", Secret: "${B}"}, env(), `variable A is not set; secret: environment variable B`},
		"empty":                        {trigger.Webhook{URL: "${U}"}, env("U", ""), `url "${U}" is empty`},
		"no scheme":                    {trigger.Webhook{URL: "${U}"}, env("U", "hidden.example:80/x"), "does not begin with http:// or https://"},
		"no scheme, an address":        {trigger.Webhook{URL: "${U}"}, env("U", "10.9.8.7:80/hidden"), "does not begin with http:// or https://"},
		"relative":                     {trigger.Webhook{URL: "${U}"}, env("U", "/hidden"), "does not begin with http:// or https://"},
		"other scheme":                 {trigger.Webhook{URL: "${U}"}, env("U", "ftp://hidden/x"), "has a scheme other than http and https"},
		"no host":                      {trigger.Webhook{URL: "${U}"}, env("U", "http:///hidden"), "has no host"},
		"port is a word":               {trigger.Webhook{URL: "${U}"}, env("U", "http://hidden:hidden/"), "has a port that is not a number"},
		"port too large":               {trigger.Webhook{URL: "${U}"}, env("U", "http://hidden:65536/"), "has a port that is not between 1 and 65535"},
		"line break":                   {trigger.Webhook{URL: "${U}"}, env("U", "http://hidden/\r\nX: y"), "has a space, a line break"},
		"space":                        {trigger.Webhook{URL: "${U}"}, env("U", " http://hidden/"), "has a space, a line break"},
		"bad escape":                   {trigger.Webhook{URL: "${U}"}, env("U", "http://hidden/%zz"), "has a %"},
		"bad host":                     {trigger.Webhook{URL: "${U}"}, env("U", "http://hid<den/"), "a character that no host name can have"},
		"header value with a break":    {trigger.Webhook{URL: ok, Headers: headers("X-A", "a${T}")}, env("T", "hidden\nX-B: y"), `header "X-A" has a value with a line break`},
		"header name":                  {trigger.Webhook{URL: ok, Headers: headers("X A", "a")}, env(), `header "X A" has a character`},
		"framing header":               {trigger.Webhook{URL: ok, Headers: headers("content-length", "1")}, env(), `header "content-length" is set by Rowhook itself`},
		"transfer-encoding":            {trigger.Webhook{URL: ok, Headers: headers("Transfer-Encoding", "chunked")}, env(), "is set by Rowhook itself"},
		"signature header, signed":     {trigger.Webhook{URL: ok, Secret: "x", Headers: headers("webhook-id", "a")}, env(), `header "webhook-id" is set by Rowhook itself`},
		"header twice":                 {trigger.Webhook{URL: ok, Headers: headers("X-A", "a", "x-a", "b")}, env(), `header "x-a" is given twice, also as "X-A"`},
		"host header":                  {trigger.Webhook{URL: ok, Headers: headers("Host", "a b")}, env(), "has a value that is not a host name"},
		"secret not base64":            {trigger.Webhook{URL: ok, Secret: "${S}"}, env("S", "whsec_!!hidden"), "the rest is not base64"},
		"secret as in a signature":     {trigger.Webhook{URL: ok, Secret: "${S}"}, env("S", "v1,whsec_hidden"), "secret begins with v1,"},
		"secret in quotes":             {trigger.Webhook{URL: ok, Secret: "${S}"}, env("S", "'hidden'"), "secret stands in quotes"},
		"an Ed25519 key":               {trigger.Webhook{URL: ok, Secret: "${S}"}, env("S", "whsk_hidden"), "secret is not a key of Ed25519 behind whsk_"},
		"a public key":                 {trigger.Webhook{URL: ok, Secret: "${S}"}, env("S", "whpk_hidden"), "secret begins with whpk_"},
		"a file of its own":            {trigger.Webhook{URL: ok, Secret: "${file:/s}"}, env(), "secret: the file /s is not given out here"},
		"secret empty":                 {trigger.Webhook{URL: ok, Secret: "${S}"}, env("S", ""), "secret is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ep, err := NewEndpoint(c.webhook, c.lookup)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "hidden")
			require.NotContains(t, err.Error(), "\n")
			require.NotContains(t, ep.String(), "hidden")
			require.Equal(t, err, ep.Problem())

			client := NewClient(ClientConfig{})
			defer client.Close()
			r := client.Send(context.Background(), ep, orderPlaced(), nil)
			require.Equal(t, KindBadURL, r.Kind)
			require.Equal(t, err.Error(), r.Err)
			require.False(t, r.Delivered())
		})
	}
}

func TestEndpointShowsWhereItLeadsAndNothingSecret(t *testing.T) {
	t.Parallel()
	lookup := env("U", "http://users.internal:8080", "SLASH", "http://users.internal:8080/", "SLACK", "https://hooks.slack.com/services/T0/B0/hidden", "USER", "hidden",
		"PW", "hidden", "HOST", "users.internal", "PORT", "8080", "AUTH", "https://me:hidden@host:1/hidden?x=hidden", "TOKEN", "hidden", "Q", "http://h?key=hidden")
	for configured, want := range map[string]string{
		"${U}":                                   "http://users.internal:8080",
		"${U}/x":                                 "http://users.internal:8080/x",
		"${SLASH}":                               "http://users.internal:8080/",
		"${SLASH}x":                              "http://users.internal:8080/x",
		"${SLACK}":                               "https://hooks.slack.com/${SLACK}",
		"${SLACK}/y":                             "https://hooks.slack.com/${SLACK}/y",
		"https://${HOST}:${PORT}/a/${TOKEN}":     "https://users.internal:8080/a/${TOKEN}",
		"http://api.${HOST}/a":                   "http://api.users.internal/a",
		"https://user:pw@host/a@b":               "https://<redacted>@host/a@b",
		"https://${USER}:${PW}@host/a":           "https://<redacted>@host/a",
		"${AUTH}":                                "https://<redacted>@host:1/${AUTH}",
		"https://host/a@b":                       "https://host/a@b",
		"https://host/a?key=hidden&x=${TOKEN}&y": "https://host/a?key=<redacted>&x=${TOKEN}&y",
		"${Q}":                                   "http://h?${Q}",
		"https://host/a#hidden":                  "https://host/a",
		"${NONE}/x":                              "${NONE}/x",
	} {
		ep, _ := NewEndpoint(trigger.Webhook{URL: configured}, lookup)
		require.Equal(t, want, ep.String())
		require.NotContains(t, ep.String(), "hidden")
	}
}

func TestEndpointHasTheDefaultTimeoutWhereNoneIsGiven(t *testing.T) {
	t.Parallel()
	ep, err := NewEndpoint(trigger.Webhook{URL: "http://h"}, env())
	require.NoError(t, err)
	require.Equal(t, time.Minute, ep.Timeout())
}
