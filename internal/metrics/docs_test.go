package metrics_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/metrics"
)

var update = flag.Bool("update", false, "rewrite the list in docs/metrics.md")

const (
	reference = "../../docs/metrics.md"
	rules     = "../../docs/prometheus/rules.yml"
	rulesTest = "../../docs/prometheus/rules_test.yml"
	dashboard = "../../docs/grafana/rowhook.json"
	listBegin = "-update -->\n"
)

func TestReferenceListsTheMetrics(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(reference)
	require.NoError(t, err)
	prose, list, ok := strings.Cut(string(text), listBegin)
	require.True(t, ok)
	var want strings.Builder
	want.WriteString("\n| metric | type | labels | |\n|---|---|---|---|\n")
	for _, d := range metrics.Definitions() {
		help := d.Help
		if d.Shared {
			help = "*Shared.* " + help
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", d.Name, d.Kind, strings.Join(d.Labels, ", "), help)
	}
	if *update {
		require.NoError(t, os.WriteFile(reference, []byte(prose+listBegin+want.String()), 0o644))
		return
	}
	require.Equal(t, want.String(), list, "rewrite it: go test ./internal/metrics -run Reference -update")
}

// ruleFile is the part of rules.yml that the tests check.
type ruleFile struct {
	Groups []struct {
		Rules []struct {
			Alert       string
			Expr        string
			Labels      map[string]string
			Annotations map[string]string
		}
	}
}

func readRules(t *testing.T) ruleFile {
	t.Helper()
	text, err := os.ReadFile(rules)
	require.NoError(t, err)
	var f ruleFile
	require.NoError(t, yaml.Unmarshal(text, &f))
	return f
}

func TestAlertsAskForMetricsThatThereAreAndSayWhatToDo(t *testing.T) {
	t.Parallel()
	tests, err := os.ReadFile(rulesTest)
	require.NoError(t, err)
	n := 0
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			n++
			require.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"], r.Alert)
			require.NotEmpty(t, r.Annotations["summary"], r.Alert)
			require.NotEmpty(t, r.Annotations["description"], r.Alert)
			require.GreaterOrEqual(t, strings.Count(string(tests), "alertname: "+r.Alert), 2, "%s is staged, and shown quiet", r.Alert)
			checkExpression(t, r.Alert, r.Expr)
		}
	}
	require.Greater(t, n, 10)
}

// panel is the part of a panel that the tests check.
type panel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ X, Y, W, H int }
	Targets []struct{ Expr string }
}

func readPanels(t *testing.T) []panel {
	t.Helper()
	text, err := os.ReadFile(dashboard)
	require.NoError(t, err)
	var d struct {
		UID    string
		Panels []panel
	}
	require.NoError(t, json.Unmarshal(text, &d))
	require.Equal(t, "rowhook", d.UID)
	return d.Panels
}

func TestDashboardAsksForMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	used := ""
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range readPanels(t) {
		require.False(t, ids[p.ID], "panel ids are unique: %d", p.ID)
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Less(t, x, 24, p.Title)
				require.Empty(t, taken[[2]int{x, y}], "%s lies on another", p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			checkExpression(t, p.Title, target.Expr)
			used += target.Expr
		}
	}
	for _, d := range metrics.Definitions() {
		if !strings.Contains(used, d.Name) {
			require.Fail(t, "the dashboard does not show "+d.Name)
		}
	}
}

var (
	metricName = regexp.MustCompile(`\b((?:rowhook|go|process|node)_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	labelName  = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)`)
)

// checkExpression checks that every metric and label of an expression exists.
func checkExpression(t *testing.T, where, expression string) {
	t.Helper()
	known := map[string]metrics.Definition{}
	for _, d := range metrics.Definitions() {
		known[d.Name] = d
		if d.Kind == metrics.Histogram {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				known[d.Name+suffix] = d
			}
		}
	}
	found := metricName.FindAllStringSubmatch(expression, -1)
	if !strings.HasPrefix(expression, "up{") {
		require.NotEmpty(t, found, "%s: %s", where, expression)
	}
	for _, m := range found {
		if !strings.HasPrefix(m[1], "rowhook_") {
			continue // a metric of the Go client or of node_exporter
		}
		d, ok := known[m[1]]
		require.True(t, ok, "%s: there is no metric %s", where, m[1])
		require.False(t, d.Kind == metrics.Histogram && m[1] == d.Name, "%s: %s is a histogram", where, m[1])
		for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
			require.True(t, slices.Contains(append([]string{"job", "instance"}, d.Labels...), l[1]), "%s: %s has no label %s", where, m[1], l[1])
		}
	}
}

// The test needs promtool, which scripts/test provides if it can. Without it only the tests above
// check the rules, against the registry.
func TestPromtoolAcceptsRulesAndFiresTheAlerts(t *testing.T) {
	t.Parallel()
	tool := os.Getenv("ROWHOOK_TEST_PROMTOOL")
	if tool == "" {
		tool, _ = exec.LookPath("promtool")
	}
	if tool == "" {
		t.Log("promtool is not installed: the rules were not run")
		return
	}
	run := func(args ...string) {
		out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	run("check", "rules", rules)
	run("test", "rules", rulesTest)

	// The dashboard's expressions become rules, so that promtool parses them.
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var all []rule
	for _, p := range readPanels(t) {
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$trigger", "x", "$job", "x").Replace(target.Expr)
			all = append(all, rule{fmt.Sprintf("panel%d:n%d", p.ID, len(all)), expr})
		}
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": all}}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	run("check", "rules", file)
}
