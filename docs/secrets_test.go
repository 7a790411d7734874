package docs_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/webhook"
)

// TestTheVerificationOfEd25519TellsRightFromWrong runs the function that the page about secrets shows.
func TestTheVerificationOfEd25519TellsRightFromWrong(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is missing")
	}
	page, err := os.ReadFile("secrets.md")
	require.NoError(t, err)
	const first = "    const { createPublicKey, verify } = require(\"node:crypto\");\n"
	_, code, found := strings.Cut(string(page), first)
	require.True(t, found)
	code, _, _ = strings.Cut(code, "\n\nIn Go")
	code = strings.TrimSpace(first) + "\n" + strings.ReplaceAll(code, "\n    ", "\n")

	const body, private = `{"customer":"Zoë"}`, "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="
	now := time.Now()
	public, err := webhook.PublicKeys(private)
	require.NoError(t, err)
	signed := func(secret string, at time.Time) map[string]string {
		signature, err := webhook.Sign(secret, "id", at, []byte(body))
		require.NoError(t, err)
		return map[string]string{"webhook-id": "id", "webhook-timestamp": strconv.FormatInt(at.Unix(), 10), "webhook-signature": signature}
	}
	type request struct {
		Key     string
		Headers map[string]string
		Body    string
		Want    bool
	}
	good := signed(private, now)
	with := func(name, value string) map[string]string {
		headers := map[string]string{}
		for key, v := range good {
			headers[key] = v
		}
		if headers[name] = value; value == "" {
			delete(headers, name)
		}
		return headers
	}
	other := "whpk_" + strings.Repeat("A", 43) + "="
	cases := []request{
		{public[0], good, body, true},
		{public[0], signed("whsec_AAAA "+private, now), body, true},
		{public[0], signed(private, now.Add(-time.Hour)), body, false},
		{public[0], signed("whsec_AAAA", now), body, false},
		{public[0], good, "{}", false},
		{other, good, body, false},
		{public[0], with("webhook-id", "another"), body, false},
		{public[0], with("webhook-id", ""), body, false},
		{public[0], with("webhook-timestamp", "now"), body, false},
		{public[0], with("webhook-timestamp", ""), body, false},
		{public[0], with("webhook-signature", ""), body, false},
		{public[0], with("webhook-signature", "v1a,"), body, false},
	}
	input, err := json.Marshal(cases)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "verify.js")
	require.NoError(t, os.WriteFile(file, []byte(code+`
const cases = JSON.parse(require("node:fs").readFileSync(0));
for (const [i, c] of cases.entries()) {
  const got = verifyEd25519(c.Key, c.Headers, Buffer.from(c.Body));
  if (got !== c.Want) { console.log(i, got); process.exitCode = 1; }
}
`), 0o600))
	cmd := exec.CommandContext(t.Context(), node, file)
	cmd.Stdin = strings.NewReader(string(input))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}
