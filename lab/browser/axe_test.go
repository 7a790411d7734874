package browser_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// axe returns axe-core's script, which scripts/browser downloads.
func axe(t testing.TB) string {
	t.Helper()
	script, err := os.ReadFile(os.Getenv("ROWHOOK_TEST_AXE"))
	require.NoError(t, err, "scripts/test --browser sets ROWHOOK_TEST_AXE")
	return string(script)
}
