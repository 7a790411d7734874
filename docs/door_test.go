package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

// makeTargets are the targets of the Makefile, to their recipes.
func makeTargets(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../Makefile")
	require.NoError(t, err)
	targets := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z][\w-]*):(.*)\n((?:\t.*\n)*)`).FindAllStringSubmatch(string(text), -1) {
		require.Contains(t, m[2], "## ", "the target %s has no line for make help", m[1])
		require.Regexp(t, `(?m)^\.PHONY:.* `+m[1]+`( |$)`, string(text))
		targets[m[1]] = m[3]
	}
	require.Greater(t, len(targets), 10)
	return targets
}

func TestMakeHelpListsEveryTarget(t *testing.T) {
	t.Parallel()
	targets := makeTargets(t)
	program, err := exec.LookPath("make")
	if err != nil {
		t.Log("make is not installed: its help was not run")
		return
	}
	cmd := exec.CommandContext(t.Context(), program, "--no-print-directory", "-C", "..", "help")
	cmd.Env = append(os.Environ(), "MAKEFLAGS=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for name := range targets {
		require.Regexp(t, `(?m)^ +`+name+` +\w`, string(out))
	}
	require.Equal(t, len(targets), strings.Count(strings.TrimSpace(string(out)), "\n")+1, "%s", out)
}

func TestEveryScriptHasATarget(t *testing.T) {
	t.Parallel()
	recipes := strings.Builder{}
	for _, recipe := range makeTargets(t) {
		recipes.WriteString(recipe)
	}
	entries, err := os.ReadDir("../scripts")
	require.NoError(t, err)
	for _, e := range entries {
		if !e.IsDir() {
			require.Contains(t, recipes.String(), "scripts/"+e.Name())
		}
	}
}

// TestWorkflowsRunWhatThereIs can't run them: only a forge can. It holds them to files and targets that exist.
func TestWorkflowsRunWhatThereIs(t *testing.T) {
	t.Parallel()
	type workflow struct {
		Jobs map[string]struct {
			RunsOn  string `yaml:"runs-on"`
			Minutes int    `yaml:"timeout-minutes"`
			Steps   []struct{ Uses, Run string }
		}
	}
	files, err := filepath.Glob("../.github/workflows/*.yml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	ran := ""
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var w workflow
		require.NoError(t, yaml.Unmarshal(text, &w), file)
		require.NotEmpty(t, w.Jobs, file)
		for name, job := range w.Jobs {
			require.NotEmpty(t, job.RunsOn, name)
			require.NotZero(t, job.Minutes, "%s has no bound", name)
			for _, step := range job.Steps {
				require.NotEqual(t, step.Uses == "", step.Run == "", "%s: a step uses or runs something", name)
				ran += step.Run + "\n"
				words := strings.Fields(step.Run)
				switch {
				case len(words) == 0:
				case words[0] == "make":
					require.Contains(t, makeTargets(t), words[1], file)
				case strings.HasPrefix(words[0], "scripts/"):
					info, err := os.Stat("../" + words[0])
					require.NoError(t, err, file)
					require.NotZero(t, info.Mode()&0o111, words[0])
				}
			}
		}
	}
	// What .ci/run runs is there, too.
	ci, err := os.ReadFile("../.ci/run")
	require.NoError(t, err)
	scripts := regexp.MustCompile(`(?m)^step .*?(scripts/\w+)`).FindAllStringSubmatch(string(ci), -1)
	require.NotEmpty(t, scripts)
	for _, m := range scripts {
		require.Contains(t, ran, m[1])
	}
}

func TestFormsAndDependabotAreYAML(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../.github/ISSUE_TEMPLATE/*.yml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range append(files, "../.github/dependabot.yml") {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var any map[string]any
		require.NoError(t, yaml.Unmarshal(text, &any), file)
	}
	text, err := os.ReadFile("../.github/dependabot.yml")
	require.NoError(t, err)
	require.Contains(t, string(text), "dependency-name: github.com/jackc/pgxlisten", "no other version of it resolves")
}
