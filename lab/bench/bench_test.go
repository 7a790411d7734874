package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPercentileInterpolatesBetweenValues(t *testing.T) {
	t.Parallel()
	values := []float64{1, 2, 3, 4}
	require.InDelta(t, 1, percentile(values, 0), 1e-9)
	require.InDelta(t, 2.5, percentile(values, 0.5), 1e-9)
	require.InDelta(t, 3.97, percentile(values, 0.99), 1e-9)
	require.InDelta(t, 4, percentile(values, 1), 1e-9)
	require.InDelta(t, 7, percentile([]float64{7}, 0.99), 1e-9)
	require.True(t, math.IsNaN(percentile(nil, 0.5)))
	require.InDelta(t, 2, median([]float64{9, 1, 2}), 1e-9)
}

func TestTenthsAreTheRatesOfEachTenth(t *testing.T) {
	t.Parallel()
	var stamps []int64
	at := int64(1e18)
	for i := range 1000 {
		stamps = append(stamps, at)
		if i < 500 {
			at += 1e6 // 1,000/s
		} else {
			at += 2e6 // 500/s
		}
	}
	stamps[0], stamps[700] = stamps[700], stamps[0] // in any order
	got := tenths(stamps)
	require.Len(t, got, 10)
	require.InDelta(t, 1000, got[0], 1)
	require.InDelta(t, 500, got[9], 1)
	require.Nil(t, tenths(stamps[:15]))
}

func TestLatenciesLeaveOutWhatWasNotCommittedOrDidNotArrive(t *testing.T) {
	t.Parallel()
	commits := []int64{0, 1e6, 2e6, 0, 4e6, 9e6}
	stamps := []int64{0, 4e6, 0, 5e6, 5e6, 10e6}
	require.Equal(t, []float64{1, 3}, latencies(commits, stamps, 1, 4))
	require.Equal(t, []float64{1, 1}, latencies(commits, stamps, 2, 5))
}

// ran returns results in which scenario B reached these rates of its floor.
func ran(ofFloor ...float64) *results {
	r := &results{Repeat: len(ofFloor), Builds: []string{"this: rowhook 1"}}
	for _, v := range ofFloor {
		s := newSample()
		s.set("rate", v*30000)
		s.set("floor", 30000)
		s.set("of_floor", v)
		s.set("lost", 0)
		s.set("duplicates", 0)
		r.add("B", "this", s)
	}
	return r
}

func TestCheckFailsBelowFourFifthsOfTheCommittedRatio(t *testing.T) {
	t.Parallel()
	committed := ran(0.5)
	require.Empty(t, check(ran(0.41), committed))
	require.Empty(t, check(ran(0.1, 0.5, 0.6), committed), "the median counts")
	problems := check(ran(0.39), committed)
	require.Len(t, problems, 1)
	require.Contains(t, problems[0].text, "B: of the floor fell to 0.390")
	require.Equal(t, []string{"B"}, suspects(problems), "it may have been the machine")
}

func TestARatioThatIsAsLowForTheReferenceIsTheMachines(t *testing.T) {
	t.Parallel()
	committed := ran(0.5)
	beside := func(this, reference float64) *results {
		now := ran(this)
		for _, s := range ran(reference).find("B", "this").Samples {
			now.add("B", "other", s)
		}
		return now
	}
	slow := beside(0.3, 0.35)
	require.Empty(t, slowerThan(slow, check(slow, committed)))
	slower := beside(0.3, 0.45)
	problems := slowerThan(slower, check(slower, committed))
	require.Len(t, problems, 1)
	require.Contains(t, problems[0].text, "the reference reaches 0.450 beside it")
	lossy := beside(0.3, 0.35)
	lossy.find("B", "this").Median["lost"] = 1
	require.Len(t, slowerThan(lossy, check(lossy, committed)), 1, "a loss is nobody's but this program's")
}

func TestTheReferenceIsBuiltBesideTheTree(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	if _, err := output(ctx, "", nil, "git", "rev-parse", "--verify", "HEAD"); err != nil {
		t.Skipf("there is no repository here: %v", err)
	}
	path, err := buildReference(ctx, t.TempDir(), "HEAD")
	require.NoError(t, err)
	b, err := newBuild(ctx, "other", path)
	require.NoError(t, err)
	require.Contains(t, b.text, "rowhook")
	_, err = buildReference(ctx, t.TempDir(), "0000000000000000000000000000000000000001")
	require.ErrorContains(t, err, "git read-tree")
}

func TestCheckFailsOnAnyLossOrDuplicate(t *testing.T) {
	t.Parallel()
	now := ran(0.5, 0.5, 0.5)
	s := newSample()
	s.set("of_floor", 0.5)
	s.set("lost", 1)
	s.set("duplicates", 2)
	now.add("B", "this", s)
	problems := check(now, ran(0.5))
	require.Equal(t, []problem{{scenario: "B", text: "B: 1 lost"}, {scenario: "B", text: "B: 2 duplicates"}}, problems)
	require.Empty(t, suspects(problems), "no second look makes a loss good")
}

func TestCheckRefusesResultsOfOtherSizes(t *testing.T) {
	t.Parallel()
	quick := ran(0.5)
	quick.Quick = true
	require.Len(t, check(quick, ran(0.5)), 1)
}

func TestCheckMissesAValueThatIsNoLongerMeasured(t *testing.T) {
	t.Parallel()
	now := ran(0.5)
	delete(now.find("B", "this").Median, "of_floor")
	require.Len(t, check(now, ran(0.5)), 1)
}

func TestVerdictOfGoalsThatStandForEachOther(t *testing.T) {
	t.Parallel()
	r := ran(0.52) // 15,600/s
	lines := strings.Split(figureTable(r).text(), "\n")
	require.Contains(t, lines[2], "alternative met")
	require.Regexp(t, `of the floor +52% .*≥ 50  met`, lines[4])
	require.Contains(t, figureTable(ran(0.4)).text(), "missed")
}

func TestComparedBuildsShowTheirRatio(t *testing.T) {
	t.Parallel()
	r := ran(0.6)
	r.Builds = append(r.Builds, "other: rowhook 0")
	s := newSample()
	s.set("rate", 9000)
	r.add("B", "other", s)
	require.Regexp(t, `drained and recorded +18,000/s +9,000/s +2\.000`, figureTable(r).text())
}

func TestNumbersAreGrouped(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v      float64
		digits int
		want   string
	}{{0, 0, "0"}, {999, 0, "999"}, {1000, 0, "1,000"}, {1234567.891, 2, "1,234,567.89"}, {-1234.5, 1, "-1,234.5"}, {-0.001, 1, "0.0"}, {99.96, 1, "100.0"}} {
		require.Equal(t, c.want, grouped(c.v, c.digits))
	}
}

func TestTablesAlignTheirColumns(t *testing.T) {
	t.Parallel()
	tab := table{head: []string{"a", "n"}, right: []bool{false, true}, rows: [][]string{{"long", "1"}, {"µ", "22"}}}
	require.Equal(t, "a      n\n----  --\nlong   1\nµ     22\n", tab.text())
	require.Equal(t, "| a | n |\n| --- | --: |\n| long | 1 |\n| µ | 22 |\n", tab.markdown())
}

func TestResultsSurviveTheirFile(t *testing.T) {
	t.Parallel()
	r := ran(0.5, 0.6)
	r.find("B", "this").Samples[0].Series["tenths"] = []float64{1, 2}
	r.find("B", "this").Samples[1].Series["tenths"] = []float64{3, 4}
	path := filepath.Join(t.TempDir(), "r.json")
	require.NoError(t, r.write(path))
	back, err := readResults(path)
	require.NoError(t, err)
	require.InDelta(t, 0.55, back.find("B", "this").Median["of_floor"], 1e-9)
	require.Equal(t, []float64{2, 3}, back.find("B", "this").series("tenths"))
}

func TestTicksEncloseTheValues(t *testing.T) {
	t.Parallel()
	require.Equal(t, []float64{0.5, 1, 2, 5, 10}, logTicks(0.7, 6))
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.Float64Range(1e-3, 1e4).Draw(t, "low")
		high := low * rapid.Float64Range(1.01, 1e4).Draw(t, "factor")
		ticks := logTicks(low, high)
		require.LessOrEqual(t, ticks[0], low*(1+1e-9))
		require.GreaterOrEqual(t, ticks[len(ticks)-1], high*(1-1e-9))
		even := evenTicks(high)
		require.GreaterOrEqual(t, even[len(even)-1], high)
		require.LessOrEqual(t, len(even), 8)
	})
}

func TestPlotsAreWellFormedAndNameTheirLines(t *testing.T) {
	t.Parallel()
	r := ran(0.5)
	r.find("B", "this").Samples[0].Series["tenths"] = []float64{900, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 990}
	curve := newSample()
	curve.Series["rates"] = []float64{20, 200, 2000, 3000}
	curve.Series["achieved"] = []float64{20, 199, 1990, 2000} // the last rate was too fast for the writers
	curve.Series["p50"] = []float64{0.6, 0.7, 1, 4000}
	curve.Series["p99"] = []float64{1, 2, 9, 5000}
	r.add("curve", "this", curve)
	s := newSample()
	s.set("plain", 16000)
	s.set("silent", 11000)
	s.set("stopped", 11000)
	s.set("busy", 9000)
	s.set("rate", 6000)
	r.add("C'", "this", s)
	r.add("C", "this", s)
	dir := t.TempDir()
	require.NoError(t, writePlots(r, dir))
	for name, words := range map[string][]string{
		"latency.svg": {"milliseconds", "events per second", "p50", "p99"},
		"drain.svg":   {"events per second", "usual"},
		"writers.svg": {"no trigger", "16,000/s"},
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		for _, w := range words {
			require.Contains(t, string(b), w)
		}
		for d := xml.NewDecoder(strings.NewReader(string(b))); ; {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
		}
	}
}

func TestPlotLeavesOutRatesThatWritersDidNotReach(t *testing.T) {
	t.Parallel()
	r := ran(0.5)
	curve := newSample()
	curve.Series["rates"] = []float64{20, 3000}
	curve.Series["achieved"] = []float64{20, 2000}
	curve.Series["p50"] = []float64{1, 4000}
	curve.Series["p99"] = []float64{2, 5000}
	r.add("curve", "this", curve)
	require.NotContains(t, latencyPlot(r), "5,000")
	curve.Series["achieved"][1] = 2900
	require.Contains(t, latencyPlot(r), "5,000")
}

func TestRowIsFoundByTheReceiversRule(t *testing.T) {
	t.Parallel()
	row := appendRow(nil, 42, "")
	require.True(t, strings.HasPrefix(string(row), `{"seq":42,`))
	require.InDelta(t, 240, len(row), 40, "about 200 bytes of values")
	require.Len(t, randomText(100_000), 100_000)
}

func TestOptionsAreRead(t *testing.T) {
	t.Parallel()
	opt, err := parse([]string{"--quick", "--only", "A, C'", "--repeat", "2"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, []string{"A", "C'"}, opt.only)
	require.Equal(t, 2, opt.sizes.Repeat)
	require.True(t, opt.fsync)
	_, err = parse([]string{"A"}, io.Discard)
	require.ErrorContains(t, err, `unexpected argument "A"`)
	opt, err = parse([]string{"--flush", "400us"}, io.Discard)
	require.NoError(t, err)
	settings := serverSettings(opt.fsync, opt.flush)
	require.Equal(t, []string{"400", "0"}, []string{settings["commit_delay"], settings["commit_siblings"]})
	require.NotContains(t, serverSettings(true, 0), "commit_delay")
	_, err = parse([]string{"--flush", "1s"}, io.Discard)
	require.ErrorContains(t, err, "--flush is 1s; it must be from 0 to 100ms")
}

func TestTheBodyOfTheFloorOfNetHTTPIsTheDispatchers(t *testing.T) {
	t.Parallel()
	before, after, err := envelope("http://127.0.0.1:1/")
	require.NoError(t, err)
	var body struct {
		Event struct {
			Data struct{ New struct{ Seq int } }
		}
	}
	require.NoError(t, json.Unmarshal(slices.Concat(before, appendRow(nil, 42, ""), after), &body))
	require.Equal(t, 42, body.Event.Data.New.Seq)
}
