package docs_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/webhook"
)

// TestTheVerificationInPythonTellsRightFromWrong runs the function that receivers.md shows.
func TestTheVerificationInPythonTellsRightFromWrong(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is missing")
	}
	const body = `{"customer":"Zoë"}`
	now := time.Now()
	signed := func(secret string, at time.Time) map[string]string {
		signature, err := webhook.Sign(secret, "id", at, []byte(body))
		require.NoError(t, err)
		return map[string]string{"webhook-id": "id", "webhook-timestamp": strconv.FormatInt(at.Unix(), 10), "webhook-signature": signature}
	}
	type request struct {
		Secret  string
		Headers map[string]string
		Want    bool
	}
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	good := signed(secret, now)
	without := func(name string) map[string]string {
		headers := map[string]string{}
		for key, value := range good {
			if key != name {
				headers[key] = value
			}
		}
		return headers
	}
	cases := []request{
		{secret, good, true},
		{"plain-text", signed("plain-text", now), true},
		{secret, signed("whsec_AAAA "+secret, now), true}, // one of several
		{"whsec_AAAA", good, false},
		{secret, signed(secret, now.Add(-time.Hour)), false},
		{secret, without("webhook-id"), false},
		{secret, without("webhook-timestamp"), false},
		{secret, without("webhook-signature"), false},
		{secret, map[string]string{"webhook-id": "id", "webhook-timestamp": "²", "webhook-signature": "v1,ü"}, false},
	}
	input, err := json.Marshal(cases)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), python, "-B", "-c", `
import json, sys
from receiver import verify
for case in json.load(sys.stdin):
    print(bool(verify(case["Secret"], case["Headers"], sys.argv[1].encode())) == case["Want"])
`, body)
	cmd.Env = append(os.Environ(), "PYTHONPATH=../examples/receivers/python", "ORDERS_SECRET=of-each-case")
	cmd.Stdin = strings.NewReader(string(input))
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, string(output))
	require.Equal(t, strings.Repeat("True\n", len(cases)), string(output))
}
