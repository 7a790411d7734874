package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// table is text in columns.
type table struct {
	head  []string
	rows  [][]string
	right []bool // which columns are aligned to the right
}

// text renders the table for a terminal.
func (t *table) text() string {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	line := func(row []string) {
		var s strings.Builder
		for i, cell := range row {
			space := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				s.WriteString("  ")
			}
			if t.right[i] {
				s.WriteString(space + cell)
			} else {
				s.WriteString(cell + space)
			}
		}
		b.WriteString(strings.TrimRight(s.String(), " ") + "\n")
	}
	line(t.head)
	rule := make([]string, len(t.head))
	for i := range rule {
		rule[i] = strings.Repeat("-", width[i])
	}
	line(rule)
	for _, row := range t.rows {
		line(row)
	}
	return b.String()
}

// markdown renders the table for documents.
func (t *table) markdown() string {
	var b strings.Builder
	line := func(row []string) { b.WriteString("| " + strings.Join(row, " | ") + " |\n") }
	line(t.head)
	rule := make([]string, len(t.head))
	for i := range rule {
		rule[i] = "---"
		if t.right[i] {
			rule[i] = "--:"
		}
	}
	line(rule)
	for _, row := range t.rows {
		line(row)
	}
	return b.String()
}

// figureTable has a line for each measure.
func figureTable(r *results) *table {
	t := &table{
		head:  []string{"", "measure", "value", "from", "to", "goal", "verdict", "load", "others"},
		right: []bool{false, false, true, true, true, true, false, true, true},
	}
	compared := slices.ContainsFunc(r.Builds, func(b string) bool { return strings.HasPrefix(b, "other: ") })
	if compared {
		t.head = slices.Insert(t.head, 3, "other", "this/other")
		t.right = slices.Insert(t.right, 3, true, true)
	}
	for _, m := range measures() {
		one := r.find(m.scenario, "this")
		if one == nil {
			continue
		}
		v, ok := one.Median[m.value]
		if !ok {
			continue
		}
		all := one.all(m.value)
		row := []string{
			m.scenario, m.title, m.show(v), m.bare(slices.Min(all)), m.bare(slices.Max(all)), m.showGoal(), verdict(r, &m),
			fmt.Sprintf("%.1f", median(one.loads())), fmt.Sprintf("%.2f", median(one.foreigns())),
		}
		if compared {
			other, ratio := "", ""
			if o := r.find(m.scenario, "other"); o != nil {
				other, ratio = m.show(o.Median[m.value]), fmt.Sprintf("%.3f", v/o.Median[m.value])
			}
			row = slices.Insert(row, 3, other, ratio)
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func (r *result) loads() (out []float64) {
	for _, s := range r.Samples {
		out = append(out, s.Load)
	}
	return out
}

func (r *result) foreigns() (out []float64) {
	for _, s := range r.Samples {
		out = append(out, s.Foreign)
	}
	return out
}

// verdict says whether a goal is met. Where two goals are alternatives, the missed one says that
// the other is met.
func verdict(r *results, m *measure) string {
	if m.goal == 0 {
		return ""
	}
	if m.met(m.in(r.find(m.scenario, "this").Median[m.value])) {
		return "met"
	}
	for _, other := range measures() {
		if m.either != "" && other.either == m.either && other.value != m.value && other.met(other.in(r.find(m.scenario, "this").Median[other.value])) {
			return "alternative met"
		}
	}
	return "missed"
}

// bare formats a value without its unit, show with it.
func (m *measure) bare(v float64) string { return grouped(m.in(v), m.digits) }

func (m *measure) show(v float64) string {
	switch m.unit {
	case "%", "/s", "x":
		return m.bare(v) + m.unit
	case "":
		return m.bare(v)
	}
	return m.bare(v) + " " + m.unit
}

func (m *measure) showGoal() string {
	if m.goal == 0 {
		return ""
	}
	sign := "≥ "
	if m.atMost {
		sign = "≤ "
	}
	digits := 0
	for ; digits < 2 && math.Abs(m.goal*math.Pow10(digits)-math.Round(m.goal*math.Pow10(digits))) > 1e-9; digits++ {
		continue
	}
	return sign + grouped(m.goal, digits)
}

// grouped formats a number with commas between thousands.
func grouped(v float64, digits int) string {
	s := fmt.Sprintf("%.*f", digits, math.Abs(v))
	whole, fraction, point := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if point {
		whole += "." + fraction
	}
	if v < 0 && strings.Trim(whole, "0.,") != "" {
		return "-" + whole
	}
	return whole
}

// costTable has a line for each scenario and build, with what an event cost.
func costTable(r *results) *table {
	t := &table{head: []string{"", "build"}, right: []bool{false, false}}
	for _, m := range costs() {
		head := m.title
		if m.unit != "" {
			head += ", " + m.unit
		}
		t.head, t.right = append(t.head, head), append(t.right, true)
	}
	for _, one := range r.Scenarios {
		if one.Scenario == "peers" {
			continue // has a table of its own
		}
		row := []string{one.Scenario, one.Build}
		some := false
		for _, m := range costs() {
			v, ok := one.Median[m.value]
			if !ok {
				row = append(row, "")
				continue
			}
			some = true
			row = append(row, m.bare(v))
		}
		if some {
			t.rows = append(t.rows, row)
		}
	}
	return t
}

// curveTable has a line for each rate.
func curveTable(r *results) *table {
	t := &table{head: []string{"rate", "achieved", "p50", "p99"}, right: []bool{true, true, true, true}}
	one := r.find("curve", "this")
	if one == nil {
		return t
	}
	p50, p99, achieved := one.series("p50"), one.series("p99"), one.series("achieved")
	for i, rate := range one.series("rates") {
		t.rows = append(t.rows, []string{grouped(rate, 0) + "/s", grouped(achieved[i], 0) + "/s", grouped(p50[i], 2) + " ms", grouped(p99[i], 2) + " ms"})
	}
	return t
}

// headline says how the figures were made.
func headline(r *results) string {
	e := r.Environment
	fsync, quick := "on", ""
	if !e.Fsync {
		fsync = "off"
	}
	if e.Flush > 0 {
		fsync += fmt.Sprintf(" and flushes that take %s longer", e.Flush)
	}
	if r.Quick {
		quick = ", quick sizes"
	}
	return fmt.Sprintf("%s: %d CPUs (%s), Linux %s, PostgreSQL %s with fsync %s, %s; medians of %d%s",
		r.Started.UTC().Format("2006-01-02 15:04"), e.CPUs, e.CPU, e.Kernel, e.Postgres, fsync, e.Go, r.Repeat, quick)
}

// render returns the whole report.
func render(r *results, markdown bool) string {
	show := func(t *table) string {
		if len(t.rows) == 0 {
			return ""
		}
		if markdown {
			return "\n" + t.markdown()
		}
		return "\n" + t.text()
	}
	out := headline(r) + "\n"
	for _, b := range r.Builds {
		out += b + "\n"
	}
	out += show(figureTable(r)) + show(costTable(r)) + show(curveTable(r)) + show(peerTable(r))
	if b := r.find("B", "this"); b != nil && b.Median["memory"] > memoryGoal {
		out += fmt.Sprintf("\nmemory while draining B: %.1f MB, goal %d: missed\n", b.Median["memory"], memoryGoal)
	}
	return out
}
