package dashboard_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/operate"
	"github.com/rowhook/rowhook/webhook"
)

// TestModulesOfThePage runs the tests of the modules that need no browser: filters, JSON, visible
// text and shell commands. They need Node 20 or later, and no package.
func TestModulesOfThePage(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("test/*.test.mjs")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		_, err := os.ReadFile(name) // so that go test notices a change
		require.NoError(t, err)
	}
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

// TestFiltersKnowTheWordsOfTheServer compares the lists that the page completes and checks with those that the server takes.
func TestFiltersKnowTheWordsOfTheServer(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("static/lib/filter.js")
	require.NoError(t, err)
	listed := func(name string) (out []string) {
		list := regexp.MustCompile(`export const ` + name + ` = \[([^\]]*)\]`).FindSubmatch(source)
		require.NotNil(t, list, name)
		for _, m := range regexp.MustCompile(`"(\w+)"`).FindAllSubmatch(list[1], -1) {
			out = append(out, string(m[1]))
		}
		return out
	}
	require.Equal(t, webhook.Kinds(), listed("kinds"))
	require.Equal(t, operate.Ops(), listed("ops"))
	var states []string
	for _, state := range operate.States() {
		states = append(states, string(state))
	}
	require.Equal(t, states, listed("states"))
}
