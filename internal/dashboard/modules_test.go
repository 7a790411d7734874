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
	out, err := exec.CommandContext(t.Context(), node(t, strings.Join(files, ", ")), append([]string{"--test"}, files...)...).CombinedOutput()
	require.NoError(t, err, string(out))
}

// node returns the program, or skips the test and says what was not run.
func node(t *testing.T, what string) string {
	t.Helper()
	program, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed, so this was not run: " + what)
	}
	version, err := exec.CommandContext(t.Context(), program, "--version").Output()
	require.NoError(t, err)
	if regexp.MustCompile(`^v1?\d\.`).Match(version) {
		t.Skipf("node is %s, and 20 or later is needed, so this was not run: %s", strings.TrimSpace(string(version)), what)
	}
	return program
}

// TestModulesAreServedAsOneWithoutTheirComments loads the page's modules as they are served. Without a browser they run into
// the first thing of a browser, but only once all of them are parsed, and what they import from each other is found.
func TestModulesAreServedAsOneWithoutTheirComments(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	page := get(t, "/", nil).Body.String()
	for _, m := range regexp.MustCompile(`"(assets/[0-9a-f]+/([\w./-]+\.js))"`).FindAllStringSubmatch(page, -1) {
		to := filepath.Join(directory, m[2])
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o700))
		require.NoError(t, os.WriteFile(to, get(t, "/"+m[1], nil).Body.Bytes(), 0o600))
	}
	text, err := os.ReadFile(filepath.Join(directory, "app.js"))
	require.NoError(t, err)
	require.NotContains(t, string(text), "/**")
	parts := regexp.MustCompile(`(?m)^// ([\w./-]+\.js)\n.*\n`).Split(string(text), -1)[1:]
	names := regexp.MustCompile(`(?m)^// ([\w./-]+\.js)$`).FindAllStringSubmatch(string(text), -1)
	require.Len(t, parts, len(names))
	served := map[string]bool{}
	for i, m := range names {
		served[m[1]] = true
		source, err := os.ReadFile(filepath.Join("static", m[1]))
		require.NoError(t, err)
		require.Equal(t, strings.Count(string(source), "\n")+3, strings.Count(parts[i], "\n"), "the lines of %s can be counted from its name", m[1])
	}
	for _, pattern := range []string{"static/*.js", "static/lib/*.js", "static/parts/*.js", "static/pages/*.js"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			require.True(t, served[strings.TrimPrefix(filepath.ToSlash(file), "static/")], "%s is imported by no module", file)
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(directory, "package.json"), []byte(`{"type": "module"}`), 0o600))
	program := node(t, "loading the modules as they are served")
	out, err := exec.CommandContext(t.Context(), program, "--input-type=module", "--eval", `import("file://" + process.argv[1]).catch((e) => console.log(String(e)))`, filepath.Join(directory, "app.js")).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, "ReferenceError: location is not defined", strings.TrimSpace(string(out)))
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
