package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"time"
)

// results are what a run measured, in the form of the JSON file.
type results struct {
	Started     time.Time   `json:"started"`
	Quick       bool        `json:"quick"`
	Repeat      int         `json:"repeat"`
	Environment environment `json:"environment"`
	Builds      []string    `json:"builds"`
	Commit      string      `json:"commit,omitempty"` // that the first build was made from, if it says so
	Scenarios   []*result   `json:"scenarios"`
}

// environment is what the figures depend on.
type environment struct {
	CPUs     int    `json:"cpus"`
	CPU      string `json:"cpu"`
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
	Postgres string `json:"postgres"`
	Fsync    bool   `json:"fsync"`
	// Flush is how much longer each flush took than the disk needs.
	Flush time.Duration `json:"flush,omitempty"`
}

// result holds the samples of a scenario and a build, and the median of each value.
type result struct {
	Scenario string             `json:"scenario"`
	Build    string             `json:"build"`
	Median   map[string]float64 `json:"median"`
	Samples  []*sample          `json:"samples"`
}

// add adds a sample.
func (r *results) add(scenario, build string, s *sample) {
	for name, v := range s.Values {
		if math.IsNaN(v) || math.IsInf(v, 0) { // JSON has neither
			delete(s.Values, name)
		}
	}
	one := r.find(scenario, build)
	if one == nil {
		one = &result{Scenario: scenario, Build: build}
		r.Scenarios = append(r.Scenarios, one)
	}
	one.Samples = append(one.Samples, s)
	one.Median = map[string]float64{}
	for name := range s.Values {
		one.Median[name] = median(one.all(name))
	}
	// For what must never happen, the total counts and not the median.
	for _, name := range []string{"lost", "duplicates", "memory"} {
		if all := one.all(name); len(all) > 0 {
			one.Median[name] = slices.Max(all)
		}
	}
}

// all returns this value of every sample that has it.
func (r *result) all(name string) []float64 {
	var out []float64
	for _, s := range r.Samples {
		if v, ok := s.Values[name]; ok {
			out = append(out, v)
		}
	}
	return out
}

// series returns a series of medians, point by point.
func (r *result) series(name string) []float64 {
	var out []float64
	for i := 0; ; i++ {
		var at []float64
		for _, s := range r.Samples {
			if points := s.Series[name]; i < len(points) {
				at = append(at, points[i])
			}
		}
		if len(at) == 0 {
			return out
		}
		out = append(out, median(at))
	}
}

// find returns the result of a scenario and a build; nil: there is none.
func (r *results) find(scenario, build string) *result {
	for _, one := range r.Scenarios {
		if one.Scenario == scenario && one.Build == build {
			return one
		}
	}
	return nil
}

func readResults(path string) (*results, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	var r results
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read results from %s: %w", path, err)
	}
	return &r, nil
}

func (r *results) write(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil { //nolint:gosec // for everyone to read
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// floorShare is the share of its committed value that a guarded ratio must keep.
const floorShare = 0.8

// problem is one thing that is wrong with a run.
type problem struct {
	scenario string
	text     string
	ratio    bool   // a ratio has fallen, which a busy machine may have caused
	value    string // name of the ratio in sample.Values
}

// check returns the problems of a run: losses, duplicates, and ratios that have fallen below four
// fifths of the committed ones.
func check(now, committed *results) []problem {
	var problems []problem
	for _, one := range now.Scenarios {
		if one.Build != "this" {
			continue
		}
		for _, name := range []string{"lost", "duplicates"} {
			if n := one.Median[name]; n != 0 {
				problems = append(problems, problem{scenario: one.Scenario, text: fmt.Sprintf("%s: %.0f %s", one.Scenario, n, name)})
			}
		}
	}
	if now.Quick != committed.Quick {
		return append(problems, problem{text: "the committed results were made with other sizes: --quick both times, or never"})
	}
	for _, m := range measures() {
		if !m.guarded {
			continue
		}
		one, before := now.find(m.scenario, "this"), committed.find(m.scenario, "this")
		if one == nil || before == nil {
			continue
		}
		v, ok := one.Median[m.value]
		want, had := before.Median[m.value]
		if all := before.all(m.value); had && len(all) > 0 {
			want = slices.Min(all) // the worst one that was accepted then
		}
		if had && (!ok || v < floorShare*want) {
			problems = append(problems, problem{
				scenario: m.scenario, ratio: ok, value: m.value,
				text: fmt.Sprintf("%s: %s fell to %.3f, below four fifths of the committed %.3f", m.scenario, m.title, v, want),
			})
		}
	}
	return problems
}

// suspects returns the scenarios to measure again. If every problem is a ratio, these are all
// scenarios with a problem. Otherwise there are none.
func suspects(problems []problem) []string {
	var keys []string
	for _, p := range problems {
		if !p.ratio {
			return nil
		}
		if !slices.Contains(keys, p.scenario) {
			keys = append(keys, p.scenario)
		}
	}
	return keys
}
