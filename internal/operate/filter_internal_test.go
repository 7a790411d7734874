package operate

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestKeysOfPayloadsMayHaveAnyName writes names with other characters as placeholders do.
func TestKeysOfPayloadsMayHaveAnyName(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`new.customer.id=42`:              `$.new."customer"."id" ? (@ == "42" || @ == 42)`,
		`new."first name"=Ann`:            `$.new."first name" ? (@ == "Ann")`,
		`new."a.b".c=x=y`:                 `$.new."a.b"."c" ? (@ == "x=y")`,
		`old."a=b"=`:                      `$.old."a=b" ? (@ == "")`,
		`new."say ""a"" \\"."\n"="x"`:     `$.new."say \"a\" \\\\"."\\n" ? (@ == "\"x\"" || @ == "x")`,
		`session_variables."größe"=1e400`: `$.session_variables."größe" ? (@ == "1e400" || @ == 1e400)`,
		`new.größe=x`:                     `$.new."größe" ? (@ == "x")`,
	} {
		path, _, err := payloadPath(text)
		require.NoError(t, err, text)
		require.Equal(t, want, path, text)
	}
	for _, text := range []string{`new."a=b`, `new.""=x`, `new."a"b=x`, `new.a b=x`, `"new".a=x`, `new=x`, `new."a".=x`} {
		_, _, err := payloadPath(text)
		require.ErrorContains(t, err, "is not understood", text)
	}
	_, members, err := payloadPath(`new."a.b".c=x`)
	require.NoError(t, err)
	require.Equal(t, []string{"new", "a.b", "c"}, members, "by which masks are compared")
}
