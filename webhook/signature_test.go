package webhook

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	vectorSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID     = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorBody   = `{"test": 2432232314}`
)

var vectorTime = time.Unix(1614265330, 0)

func signedBy(t *testing.T, secret string) http.Header {
	value, err := Sign(secret, vectorID, vectorTime, []byte(vectorBody))
	require.NoError(t, err)
	h := http.Header{}
	h.Set("webhook-id", vectorID)
	h.Set("webhook-timestamp", strconv.FormatInt(vectorTime.Unix(), 10))
	h.Set("webhook-signature", value)
	return h
}

func TestSignatureIsTheOneStandardWebhooksPublishes(t *testing.T) {
	t.Parallel()
	got, err := Sign(vectorSecret, vectorID, vectorTime, []byte(vectorBody))
	require.NoError(t, err)
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", got)
}

func TestSignatureVerifiesWithAnyOfTheRotatedSecrets(t *testing.T) {
	t.Parallel()
	both := signedBy(t, vectorSecret+" plain-text-secret")
	require.Len(t, strings.Fields(both.Get("webhook-signature")), 2)
	for _, secret := range []string{vectorSecret, "plain-text-secret", "other " + vectorSecret, strings.ReplaceAll(vectorSecret, "/", "_")} {
		require.NoError(t, Verify(secret, both, []byte(vectorBody), vectorTime.Add(4*time.Minute)))
	}
}

func TestVerifyRefusesWhatWasNotSigned(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		secret string
		change func(http.Header)
		body   string
		now    time.Time
		want   string
	}{
		"another body":      {body: "{}", want: "is not what was signed"},
		"another secret":    {secret: "whsec_AAAA", want: "is not what was signed"},
		"another id":        {change: func(h http.Header) { h.Set("webhook-id", "x") }, want: "is not what was signed"},
		"another timestamp": {change: func(h http.Header) { h.Set("webhook-timestamp", "1614265331") }, want: "is not what was signed"},
		"no id":             {change: func(h http.Header) { h.Del("webhook-id") }, want: "is missing"},
		"no signature":      {change: func(h http.Header) { h.Del("webhook-signature") }, want: "is missing"},
		"no number":         {change: func(h http.Header) { h.Set("webhook-timestamp", "now") }, want: "is not a number"},
		"too old":           {now: vectorTime.Add(6 * time.Minute), want: "6m0s off"},
		"from the future":   {now: vectorTime.Add(-6 * time.Minute), want: "6m0s off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header, secret, body, now := signedBy(t, vectorSecret), vectorSecret, vectorBody, vectorTime
			if c.change != nil {
				c.change(header)
			}
			if c.secret != "" {
				secret = c.secret
			}
			if c.body != "" {
				body = c.body
			}
			if !c.now.IsZero() {
				now = c.now
			}
			err := Verify(secret, header, []byte(body), now)
			require.ErrorIs(t, err, ErrSignature)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestSecretThatCantBeReadIsAnErrorWithoutIt(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"", "  ", "whsec_", "whsec_!!hidden"} {
		_, err := Sign(secret, "id", vectorTime, nil)
		require.Error(t, err, secret)
		require.NotContains(t, err.Error(), "hidden")
	}
}
