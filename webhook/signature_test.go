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
	for _, secret := range []string{"", "  ", "whsec_", "whsec_!!hidden", "whsk_", "whsk_!!hidden", "whsk_aGlkZGVu"} {
		_, err := Sign(secret, "id", vectorTime, nil)
		require.Error(t, err, secret)
		require.NotContains(t, err.Error(), "hidden")
	}
}

// The key and the signature are those of the tests of Standard Webhooks.
const (
	vectorPrivate = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="
	vectorSigned  = "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="
)

func TestASignatureByEd25519IsTheOneStandardWebhooksPublishes(t *testing.T) {
	t.Parallel()
	got, err := Sign(vectorPrivate, vectorID, vectorTime, []byte(vectorBody))
	require.NoError(t, err)
	require.Equal(t, vectorSigned, got)
}

func TestAReceiverVerifiesEd25519WithThePublicKeyAlone(t *testing.T) {
	t.Parallel()
	public, err := PublicKeys(vectorSecret + " " + vectorPrivate)
	require.NoError(t, err)
	require.Len(t, public, 1)
	require.Regexp(t, "^whpk_[A-Za-z0-9+/]{43}=$", public[0])

	both := signedBy(t, vectorSecret+" "+vectorPrivate+" plain-text-secret")
	require.Regexp(t, "^v1,[^ ]+ v1a,[^ ]+ v1,[^ ]+$", both.Get("webhook-signature"))
	for _, secret := range []string{public[0], vectorPrivate, vectorSecret, "other " + public[0], "plain-text-secret"} {
		require.NoError(t, Verify(secret, both, []byte(vectorBody), vectorTime), secret)
	}
	require.ErrorIs(t, Verify(public[0], both, []byte("{}"), vectorTime), ErrSignature)
	require.ErrorIs(t, Verify(public[0], signedBy(t, vectorSecret), []byte(vectorBody), vectorTime), ErrSignature)
	require.ErrorIs(t, Verify("whpk_"+strings.Repeat("A", 43)+"=", both, []byte(vectorBody), vectorTime), ErrSignature)

	_, err = Sign(public[0], vectorID, vectorTime, nil)
	require.ErrorContains(t, err, "public key")
	require.ErrorContains(t, Verify("whpk_AAAA", both, nil, vectorTime), "32 bytes")
}

func TestARequestWithManySignaturesIsNotTriedOneByOne(t *testing.T) {
	t.Parallel()
	h := signedBy(t, vectorPrivate)
	h.Set("webhook-signature", strings.Repeat(vectorSigned+" ", 40))
	require.ErrorContains(t, Verify(vectorPrivate, h, []byte(vectorBody), vectorTime), "40 signatures")
}
