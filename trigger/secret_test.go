package trigger_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestASecretOfAWrongFormIsToldAndNeverQuoted(t *testing.T) {
	t.Parallel()
	for secret, want := range map[string]string{
		"v1,whsec_aGlkZGVuaGlkZGVuaGlkZGVu": "begins with v1,", "V1,hidden": "begins with v1,", "v1a,hidden": "begins with v1a,",
		`"whsec_aGlkZGVu"`: "quotes", "'hidden'": "quotes", "“hidden”": "quotes", `good "hidden"`: "quotes", `"${SECRET}"`: "quotes", "hidden'": "quotes",
		"whsk_aGlkZGVu": "", "whpk_aGlkZGVu": "public key", "WHSK_aGlkZGVu": "capital", "SECRET=whsk_aGlkZGVu": "middle", "whsk-aGlkZGVu": "not with whsk_",
		"${file:/run/secrets/my whsec_ key}": "", "whsk_${file:/k}": "", "'${file:/k}'": "quotes", "$${file:/a b}": "", "${file:/k} v1,x": "begins with v1,", "WHSEC_aGlkZGVu": "capital", "whsec-aGlkZGVu": "not with whsec_",
		"whsec_aGlk,whsec_ZGVu": "", "SECRET=whsec_aGlkZGVu": "middle", "whsec_whsec_aGlkZGVu": "", "$SECRET": "braces", "$(SECRET)": "braces", "v1,${S}": "begins with v1,",
		"hidden": "", "whsec_aGlkZGVu": "", "a whsec_aGlkZGVu": "", "${SECRET}": "", "whsec_${SECRET}": "", "pa$$word": "", "v1": "", "ab": "",
	} {
		fault := trigger.SecretFault(secret)
		require.NotContains(t, fault, "hidden")
		if want == "" {
			require.Empty(t, fault, secret)
			continue
		}
		require.Contains(t, fault, want, secret)
	}
}

func TestAPrivateKeyHas32BytesOr64ThatBelongTogether(t *testing.T) {
	t.Parallel()
	seed := []byte("TESTSIGNINGKEYDONOTUSETHISFORANY")
	whole := ed25519.NewKeyFromSeed(seed)
	for _, encoded := range []string{
		base64.StdEncoding.EncodeToString(seed), base64.RawURLEncoding.EncodeToString(seed), base64.StdEncoding.EncodeToString(whole),
	} {
		key, err := trigger.PrivateKey(encoded)
		require.NoError(t, err)
		require.Equal(t, whole, key)
	}
	wrong := bytes.Clone(whole)
	wrong[40]++
	for want, encoded := range map[string]string{
		"not base64": "!hidden", "32 or 64 bytes": base64.StdEncoding.EncodeToString(seed[:31]), "do not belong together": base64.StdEncoding.EncodeToString(wrong),
	} {
		_, err := trigger.PrivateKey(encoded)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), encoded)
	}
	_, err := trigger.PrivateKey("")
	require.ErrorContains(t, err, "32 or 64 bytes")
}
