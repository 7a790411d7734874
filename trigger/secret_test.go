package trigger_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/trigger"
)

func TestASecretOfAWrongFormIsToldAndNeverQuoted(t *testing.T) {
	t.Parallel()
	for secret, want := range map[string]string{
		"v1,whsec_aGlkZGVuaGlkZGVuaGlkZGVu": "begins with v1,", "V1,hidden": "begins with v1,", "v1a,hidden": "begins with v1a,",
		`"whsec_aGlkZGVu"`: "quotes", "'hidden'": "quotes", "“hidden”": "quotes", `good "hidden"`: "quotes", `"${SECRET}"`: "quotes", "hidden'": "quotes",
		"whsk_aGlkZGVu": "Ed25519", "whpk_aGlkZGVu": "Ed25519", "WHSEC_aGlkZGVu": "capital", "whsec-aGlkZGVu": "not with whsec_",
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
