package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	rulesFile     = "../../docs/prometheus/rules.yml"
	dashboardFile = "../../docs/grafana/rowhook.json"
)

func TestShorteningDividesDurationsAndNothingElse(t *testing.T) {
	t.Parallel()
	long, err := readRules(rulesFile)
	require.NoError(t, err)
	r, err := readRules(rulesFile)
	require.NoError(t, err)
	require.NoError(t, r.shorten(60))
	file := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, r.write(file))
	short, err := readRules(file)
	require.NoError(t, err)
	back := strings.NewReplacer("[5000ms]", "[5m]", "[10000ms]", "[10m]", "[15000ms]", "[15m]",
		"_age_seconds) > 10", "_age_seconds) > 600", "_held_back_seconds) > 30", "_held_back_seconds) > 1800")
	changed := 0
	for g := range long.Groups {
		for i, want := range long.Groups[g].Rules {
			got := short.Groups[g].Rules[i]
			require.Equal(t, strings.TrimSpace(want.Expr), strings.TrimSpace(back.Replace(got.Expr)), want.Alert)
			if got.Expr != want.Expr {
				changed++
			}
			if want.For != "" {
				a, err := time.ParseDuration(want.For)
				require.NoError(t, err)
				b, err := time.ParseDuration(got.For)
				require.NoError(t, err)
				require.Equal(t, a, 60*b, want.Alert)
			}
			got.Expr, got.For = want.Expr, want.For
			require.Equal(t, want, got)
		}
	}
	require.Equal(t, 8, changed)
}

func TestShorteningRefusesADurationThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	_, err := shortenExpression("rate(x[1d])", 60)
	require.ErrorContains(t, err, "a duration with a unit that Go does not know")
}

func TestTheAlertForTheDiskIsPointedAtAnother(t *testing.T) {
	t.Parallel()
	r, err := readRules(rulesFile)
	require.NoError(t, err)
	require.NoError(t, r.adjust("/mnt/x"))
	all := r.Groups[0].Rules
	require.Equal(t, `node_filesystem_avail_bytes{mountpoint="/mnt/x"} / node_filesystem_size_bytes{mountpoint="/mnt/x"} < 0.1`,
		strings.Join(strings.Fields(all[len(all)-1].Expr), " "))
	require.Error(t, r.adjust("/mnt/y"), "there is nothing left to adjust")
}

func TestOutagesDemandOnlyAlertsThatThereAre(t *testing.T) {
	t.Parallel()
	r, err := readRules(rulesFile)
	require.NoError(t, err)
	l := &lab{dispatchers: []*program{{}, {}}, sink: &program{}, exporter: &program{}}
	for _, o := range l.outages() {
		require.NotEmpty(t, o.fires, o.name)
		for _, list := range [][]string{o.fires, o.after, o.may} {
			for _, a := range list {
				require.Contains(t, r.severities(), a, o.name)
			}
		}
	}
}

func TestTheDashboardsVariablesArePutIn(t *testing.T) {
	t.Parallel()
	d, err := readDashboard(dashboardFile)
	require.NoError(t, err)
	require.Greater(t, len(d.panels), 40)
	require.Equal(t, [][2]string{{"rowhook_build_info", "job"}, {"rowhook_backlog_events", "trigger"}}, d.variables)
	all := ""
	for _, p := range d.panels {
		all += p.query + "\n"
	}
	require.NotContains(t, all, "$")
	require.Contains(t, all, `rowhook_attempts_total{trigger=~".*",job=~".*",outcome="delivered"}[4s]`)
}

func TestHistoryKeepsWhenAlertsFiredAndResolved(t *testing.T) {
	t.Parallel()
	h, start := newHistory(), time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	is := func(name, state string, since int) alert {
		return alert{Labels: map[string]string{"alertname": name}, State: state, ActiveAt: at(since), Annotations: map[string]string{"summary": "fine"}}
	}
	h.look(at(1), []alert{is("a", "pending", 0), is("b", "pending", 1)})
	require.False(t, h.fired("a", start))
	h.look(at(2), []alert{is("a", "pending", 1), is("a", "firing", 0)})
	require.True(t, h.fired("a", start))
	require.False(t, h.fired("a", at(2)), "it did before")
	h.look(at(3), []alert{is("a", "pending", 3)})
	h.look(at(4), nil)
	require.True(t, h.quiet())
	require.Equal(t, []spell{
		{alert: "a", pending: at(0), firing: at(2), over: at(3)},
		{alert: "b", pending: at(1), over: at(2)},
		{alert: "a", pending: at(3), over: at(4)},
	}, h.spells(start))
	require.Equal(t, []spell{{alert: "a", pending: at(3), over: at(4)}}, h.spells(at(3)))
	require.Empty(t, h.texts())
	h.look(at(5), []alert{{Labels: map[string]string{"alertname": "c"}, Annotations: map[string]string{"summary": "events of  wait"}}})
	require.Equal(t, []string{`c says "events of  wait"`}, h.texts())
	require.False(t, h.quiet("a"))
	require.True(t, h.quiet("c"))
}

func TestReportTellsWhatFiredUnasked(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	r := &report{factor: 60, severities: map[string]string{"a": "info"}, dashboard: &dashboard{}}
	r.add(&outage{name: "x", fires: []string{"a"}, may: []string{"b"}}, at(0), at(5), []spell{
		{alert: "a", pending: at(1), firing: at(2), over: at(8)},
		{alert: "b", pending: at(1), firing: at(2), over: at(4)},
		{alert: "c", pending: at(1), firing: at(2)},
		{alert: "d", pending: at(1), over: at(2)}, // did not fire
	})
	require.Equal(t, []string{"x: c fired, too"}, r.problems)
	require.Contains(t, r.text(), "| x | a | info | 1.0 | 2.0 | 3.0 |\n| x | b (may) |  | 1.0 | 2.0 | before |\n| x | c (must not) |  | 1.0 | 2.0 | never |\n")
}
