package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// chart is a plot of lines over a common x axis, written as SVG.
type chart struct {
	title, note    string
	xTitle, yTitle string
	xLog, yLog     bool
	xTicks, yTicks []float64 // the first and the last one bound the axis
	lines          []line
	marks          []mark
}

type line struct {
	name  string
	color string
	x, y  []float64
}

// mark is a vertical line with a label.
type mark struct {
	x    float64
	text string
}

const (
	blue, orange, green, grey = "#2563a8", "#d9622b", "#2f8f5b", "#6b7280"

	chartWidth, chartHeight = 760.0, 430.0
	left, right             = 88.0, 150.0
	top, bottom             = 64.0, 58.0
)

func scaled(v float64, ticks []float64, log bool) float64 {
	low, high := ticks[0], ticks[len(ticks)-1]
	if log {
		v, low, high = math.Log(max(v, low)), math.Log(low), math.Log(high)
	}
	return min(max((v-low)/(high-low), 0), 1)
}

func (c *chart) px(v float64) float64 {
	return left + scaled(v, c.xTicks, c.xLog)*(chartWidth-left-right)
}

func (c *chart) py(v float64) float64 {
	return chartHeight - bottom - scaled(v, c.yTicks, c.yLog)*(chartHeight-top-bottom)
}

// svg draws the chart.
func (c *chart) svg() string {
	var b strings.Builder
	openSVG(&b, c.title, c.note, chartHeight)
	for i, v := range c.yTicks {
		y := c.py(v)
		shade := "#e5e7eb"
		if i == 0 {
			shade = "#9ca3af"
		}
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", left, y, chartWidth-right, y, shade)
		label(&b, left-8, y+4, "end", "#374151", short(v))
	}
	for _, v := range c.xTicks {
		x := c.px(v)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#9ca3af"/>`+"\n", x, chartHeight-bottom, x, chartHeight-bottom+5)
		label(&b, x, chartHeight-bottom+19, "middle", "#374151", short(v))
	}
	label(&b, (left+chartWidth-right)/2, chartHeight-14, "middle", "#374151", c.xTitle)
	fmt.Fprintf(&b, `<text transform="translate(16 %.1f) rotate(-90)" text-anchor="middle" fill="#374151">%s</text>`+"\n", (top+chartHeight-bottom)/2, escape(c.yTitle))
	for _, m := range c.marks {
		x := c.px(m.x)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#9ca3af" stroke-dasharray="4 4"/>`+"\n", x, top, x, chartHeight-bottom)
		label(&b, x+5, top+12, "start", grey, m.text)
	}
	ends := c.ends()
	for i, l := range c.lines {
		points := make([]string, len(l.x))
		for j := range l.x {
			points[j] = fmt.Sprintf("%.1f,%.1f", c.px(l.x[j]), c.py(l.y[j]))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2.2" stroke-linejoin="round"/>`+"\n", strings.Join(points, " "), l.color)
		for j := range l.x {
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", c.px(l.x[j]), c.py(l.y[j]), l.color)
		}
		label(&b, chartWidth-right+10, ends[i]+4, "start", l.color, l.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// ends returns the heights of the lines' names. They stand beside the last points, and move apart
// where they would overlap.
func (c *chart) ends() []float64 {
	const apart = 16
	order := make([]int, len(c.lines))
	at := make([]float64, len(c.lines))
	for i, l := range c.lines {
		order[i], at[i] = i, c.py(l.y[len(l.y)-1])
	}
	slices.SortFunc(order, func(a, b int) int { return int(math.Copysign(1, at[a]-at[b])) })
	for i := 1; i < len(order); i++ {
		at[order[i]] = max(at[order[i]], at[order[i-1]]+apart)
	}
	if n := len(order); n > 0 {
		if over := at[order[n-1]] - (chartHeight - bottom); over > 0 {
			for i := range at {
				at[i] -= over
			}
		}
	}
	return at
}

// bars is a plot of horizontal bars, written as SVG.
type bars struct {
	title, note, unit string
	rows              []bar
}

type bar struct {
	name, color string
	value       float64
}

func (p *bars) svg() string {
	const row, from, to = 38.0, 230.0, chartWidth - 90
	var b strings.Builder
	openSVG(&b, p.title, p.note, top+row*float64(len(p.rows))+16)
	most := 0.0
	for _, r := range p.rows {
		most = max(most, r.value)
	}
	for i, r := range p.rows {
		y := top + row*float64(i)
		width := (to - from) * r.value / most
		label(&b, from-10, y+22, "end", "#374151", r.name)
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" fill="%s"/>`+"\n", from, y+6, width, row-14, r.color)
		label(&b, from+width+8, y+22, "start", "#374151", grouped(r.value, 0)+p.unit)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func openSVG(b *strings.Builder, title, note string, height float64) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="system-ui, -apple-system, 'Segoe UI', sans-serif" font-size="13">`+"\n", chartWidth, height)
	fmt.Fprintf(b, `<title>%s</title>`+"\n"+`<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n", escape(title))
	fmt.Fprintf(b, `<text x="20" y="26" font-size="16" font-weight="600" fill="#111827">%s</text>`+"\n", escape(title))
	fmt.Fprintf(b, `<text x="20" y="45" font-size="12" fill="%s">%s</text>`+"\n", grey, escape(note))
}

func label(b *strings.Builder, x, y float64, anchor, color, text string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, color, escape(text))
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// short formats a number for an axis.
func short(v float64) string {
	digits := 0
	for ; digits < 2 && math.Abs(v*math.Pow10(digits)-math.Round(v*math.Pow10(digits))) > 1e-9; digits++ {
		continue
	}
	return grouped(v, digits)
}

// logTicks returns 1, 2 and 5 times powers of ten that enclose the values.
func logTicks(values ...float64) []float64 {
	low, high := slices.Min(values), slices.Max(values)
	var ticks []float64
	for power := math.Pow10(int(math.Floor(math.Log10(low)))); ; power *= 10 {
		for i, digit := range []float64{1, 2, 5} {
			following := []float64{2, 5, 10}[i] * power
			if following <= low {
				continue
			}
			ticks = append(ticks, digit*power)
			if digit*power >= high {
				return ticks
			}
		}
	}
}

// evenTicks returns about five even steps, from 0 to above the largest value.
func evenTicks(most float64) []float64 {
	step := math.Pow10(int(math.Floor(math.Log10(most))))
	for _, part := range []float64{0.2, 0.25, 0.5, 1, 2} {
		if most/(step*part) <= 6 {
			step *= part
			break
		}
	}
	ticks := []float64{0}
	for ticks[len(ticks)-1] < most {
		ticks = append(ticks, step*float64(len(ticks)))
	}
	return ticks
}

// writePlots writes the plots for which the results have data.
func writePlots(r *results, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // for everyone to read
		return fmt.Errorf("write the plots: %w", err)
	}
	for name, svg := range map[string]string{"latency.svg": latencyPlot(r), "drain.svg": drainPlot(r), "writers.svg": writersPlot(r)} {
		if svg == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(svg), 0o644); err != nil { //nolint:gosec // for everyone to read
			return fmt.Errorf("write the plots: %w", err)
		}
	}
	return nil
}

func medians(r *results) string {
	runs := "one run"
	if r.Repeat > 1 {
		runs = fmt.Sprintf("medians of %d", r.Repeat)
	}
	return fmt.Sprintf("%s, %d CPUs shared by Postgres, writers, dispatcher and receiver", runs, r.Environment.CPUs)
}

// keptPace is the share of a rate that the writers must have achieved for its point to be shown.
const keptPace = 0.9

// latencyPlot shows latency over the rate.
func latencyPlot(r *results) string {
	one := r.find("curve", "this")
	if one == nil {
		return ""
	}
	var rates, p50, p99 []float64
	achieved := one.series("achieved")
	for i, rate := range one.series("rates") {
		if achieved[i] < keptPace*rate {
			continue
		}
		rates, p50, p99 = append(rates, rate), append(p50, one.series("p50")[i]), append(p99, one.series("p99")[i])
	}
	if len(rates) == 0 {
		return ""
	}
	c := chart{
		title: "Commit to receipt, by rate of events", note: medians(r),
		xTitle: "events per second", yTitle: "milliseconds", xLog: true, yLog: true,
		xTicks: []float64{20, 50, 100, 200, 500, 1000, 2000, 3000},
		yTicks: logTicks(append(slices.Clone(p50), p99...)...),
		lines:  []line{{"p99", orange, rates, p99}, {"p50", blue, rates, p50}},
	}
	return c.svg()
}

// drainPlot shows the rate of each tenth of a drain.
func drainPlot(r *results) string {
	c := chart{
		title: "A backlog drained, tenth by tenth", note: "with the full invocation log, concurrency 100; " + medians(r),
		xTitle: "part of the backlog delivered, %", yTitle: "events per second",
		xTicks: []float64{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100},
	}
	most := 0.0
	for _, l := range []struct{ scenario, name, color string }{
		{"B", "usual", blue}, {"E", "open transaction", orange}, {"F", "long history", green},
	} {
		one := r.find(l.scenario, "this")
		if one == nil {
			continue
		}
		y := one.series("tenths")
		if len(y) == 0 {
			continue
		}
		x := make([]float64, len(y))
		for i := range x {
			x[i] = 10*float64(i) + 5
		}
		most = max(most, slices.Max(y))
		c.lines = append(c.lines, line{l.name, l.color, x, y})
	}
	if len(c.lines) == 0 {
		return ""
	}
	c.yTicks = evenTicks(most)
	return c.svg()
}

// writersPlot shows how many commits the writers of a watched table still achieve.
func writersPlot(r *results) string {
	price, busy := r.find("C'", "this"), r.find("C", "this")
	if price == nil || busy == nil {
		return ""
	}
	p := bars{
		title: "Eight writers flat out, single-row commits", note: medians(r), unit: "/s",
		rows: []bar{
			{"no trigger", grey, price.Median["plain"]},
			{"trigger, bell silent", blue, price.Median["silent"]},
			{"trigger, dispatcher stopped", blue, price.Median["stopped"]},
			{"2,000/s being delivered", blue, price.Median["busy"]},
			{"everything being delivered", orange, busy.Median["rate"]},
		},
	}
	return p.svg()
}
