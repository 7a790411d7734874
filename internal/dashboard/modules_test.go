package dashboard_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestModulesOfThePage runs the tests of the modules that need no browser: filters, JSON, visible
// text and shell commands. They need Node 20 or later, and no package.
func TestModulesOfThePage(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("test/*.test.mjs")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed, so these were not run: " + strings.Join(files, ", "))
	}
	version, err := exec.CommandContext(t.Context(), node, "--version").Output()
	require.NoError(t, err)
	if regexp.MustCompile(`^v1?\d\.`).Match(version) {
		t.Skipf("node is %s, and 20 or later is needed, so these were not run: %s", strings.TrimSpace(string(version)), strings.Join(files, ", "))
	}
	out, err := exec.CommandContext(t.Context(), node, append([]string{"--test"}, files...)...).CombinedOutput()
	require.NoError(t, err, string(out))
}
