package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// report is the result of a run.
type report struct {
	factor            float64
	severities        map[string]string
	outages           []outage
	rows              []row
	dashboard         *dashboard
	problems          []string
	took              time.Duration
	committed, failed int64
}

// row is one alert that fired in an outage. Times are in seconds: since the outage began, and for
// the last one since its repair.
type row struct {
	outage, alert, severity  string
	pending, firing, resolve float64
	note                     string // if the alert was not required
	stuck                    bool
}

func (r *report) problemf(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// add adds what the alerts did in an outage.
func (r *report) add(o *outage, began, repaired time.Time, spells []spell) {
	for _, s := range spells {
		if s.firing.IsZero() {
			continue
		}
		note := ""
		switch {
		case slices.Contains(o.fires, s.alert), slices.Contains(o.after, s.alert):
		case slices.Contains(o.may, s.alert):
			note = " (may)"
		default:
			note = " (must not)"
			r.problemf("%s: %s fired, too", o.name, s.alert)
		}
		r.rows = append(r.rows, row{
			outage: o.name, alert: s.alert, severity: r.severities[s.alert], note: note, stuck: s.over.IsZero(),
			pending: s.pending.Sub(began).Seconds(), firing: s.firing.Sub(began).Seconds(), resolve: s.over.Sub(repaired).Seconds(),
		})
	}
}

// text is the report for people.
func (r *report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| outage | alert | severity | pending after (s) | firing after (s) | resolved after (s) |\n|---|---|---|---:|---:|---:|\n")
	for _, w := range r.rows {
		resolved := fmt.Sprintf("%.1f", w.resolve)
		switch {
		case w.stuck:
			resolved = "never"
		case w.resolve < 0:
			resolved = "before"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %.1f | %.1f | %s |\n", w.outage, w.alert+w.note, w.severity, w.pending, w.firing, resolved)
	}
	fmt.Fprintf(&b, "\n%d outages in %.0f s, durations divided by %g; %d writes were committed and %d failed\n",
		len(r.outages), r.took.Seconds(), r.factor, r.committed, r.failed)
	data, still := 0, []string{}
	for _, p := range r.dashboard.panels {
		if p.data {
			data++
		}
		if p.data && !p.moved {
			still = append(still, p.title+": "+p.query)
		}
	}
	fmt.Fprintf(&b, "%d of the dashboard's %d queries returned numbers (asked %d times)", data, len(r.dashboard.panels), r.dashboard.asked)
	if len(still) > 0 {
		fmt.Fprintf(&b, "; these returned nothing but 0:\n  %s", strings.Join(still, "\n  "))
	}
	b.WriteByte('\n')
	for _, p := range r.problems {
		fmt.Fprintf(&b, "FAILED: %s\n", p)
	}
	return b.String()
}
