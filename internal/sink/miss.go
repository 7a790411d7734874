package sink

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/term"
)

// Shortfall says in which way a count was not the wanted one.
type Shortfall string

// The shortfalls.
const (
	TooFew   Shortfall = "too_few"
	TooMany  Shortfall = "too_many"
	Unwanted Shortfall = "unwanted"
)

// Miss says what was wanted, what has arrived instead, and how the nearest delivery differs. String
// is what a failing test prints.
type Miss struct {
	Shortfall Shortfall `json:"shortfall"`
	// Wanted is the wanted number of deliveries, and Got the number that arrived. Beyond Wanted, Got
	// is not exact.
	Wanted int `json:"wanted"`
	Got    int `json:"got"`
	// Trigger is the wanted trigger; "": any.
	Trigger string `json:"trigger,omitempty"`
	// Arrived has the newest deliveries of the trigger, oldest first: of too many, those that were
	// counted. Total is the number of all of them.
	Arrived []Arrival `json:"arrived"`
	Total   int       `json:"total"`
	// Others has the number of deliveries of each other trigger, if none of the wanted one arrived.
	Others map[string]int `json:"others,omitempty"`
	// Dropped is the number of older deliveries that the limits of memory have removed.
	Dropped uint64 `json:"dropped,omitempty"`
	// Nearest is the delivery that differs least; nil if none is similar.
	Nearest *Near `json:"nearest,omitempty"`
	// Within is how long was waited; 0 if the outcome was clear at once.
	Within time.Duration `json:"-"`

	what string // of the match
}

// Arrival is a delivery in short.
type Arrival struct {
	Sequence uint64 `json:"sequence"`
	ID       string `json:"id"`
	Trigger  string `json:"trigger"`
	Op       string `json:"op"`
	Schema   string `json:"schema"`
	Table    string `json:"table"`
	Attempt  int    `json:"attempt"`
	Status   int    `json:"status"`
	// Text is a line for people.
	Text string `json:"text"`
}

// Near is a delivery that differs from what was wanted.
type Near struct {
	Arrival
	Differences []Difference `json:"differences"`
}

// Difference is one reason why a delivery was not chosen.
type Difference struct {
	// Path is that of a condition, or the name of what differs: trigger, op, table, id, attempt,
	// status, sequence, test.
	Path string `json:"path"`
	// Got and Want are shortened. They are JSON for the path of a condition. Got is empty if
	// nothing is there.
	Got  string `json:"got,omitempty"`
	Want string `json:"want"`
	// Text is the difference for people: new.id is 8, wanted 7.
	Text string `json:"text"`

	weight int
}

// newest is the number of deliveries that a Miss lists.
const newest = 5

// Explain returns why fewer than n of the events that m chooses have arrived.
func (s *Sink) Explain(m Match, n int) *Miss {
	t, always := newTally(m.counting(), n), context.Background()
	for !t.count(always, s.journal.all()) {
	}
	return s.explain(always, t, n, TooFew)
}

// explain ends early, with less, if client ends.
func (s *Sink) explain(client context.Context, t *tally, n int, shortfall Shortfall) *Miss {
	v := s.journal.all()
	m := &t.match
	miss := &Miss{Shortfall: shortfall, Wanted: n, Got: t.n, Trigger: m.Trigger, Dropped: v.dropped, Arrived: []Arrival{}}
	described := *m
	if !m.eachAttempt() {
		described.Accepted = nil // what people expect of a delivery need not be said
	}
	miss.what = described.String()
	var arrived []*Delivery
	if shortfall == TooFew {
		for _, d := range v.deliveries {
			if m.fitsTrigger(d) {
				arrived = append(arrived, d)
			}
		}
		if len(arrived) > 0 || len(m.Where) > 0 || m.ID != "" {
			miss.Nearest = m.nearest(client, v.deliveries, len(arrived) > 0)
		}
	} else {
		arrived = m.counted(client, v.deliveries)
	}
	if len(arrived) == 0 {
		miss.Others = map[string]int{}
		for _, d := range v.deliveries {
			if d.Trigger != "" {
				miss.Others[d.Trigger]++
			}
		}
	}
	miss.Total = len(arrived)
	for _, d := range arrived[max(0, len(arrived)-newest):] {
		if client.Err() != nil {
			break
		}
		miss.Arrived = append(miss.Arrived, m.arrival(d))
	}
	return miss
}

// nearest returns the delivery that differs least; of several the newest one. If the wanted trigger
// has none, it is one of another trigger that differs in nothing else.
func (m *Match) nearest(client context.Context, deliveries []*Delivery, ofTrigger bool) *Near {
	var best *Delivery
	var least []Difference
	for _, d := range slices.Backward(deliveries) {
		if client.Err() != nil {
			return nil
		}
		if d.Op == "" || ofTrigger && !m.fitsTrigger(d) {
			continue
		}
		differences := m.differences(d, false)
		if len(differences) == 0 || !ofTrigger && len(differences) > 1 {
			continue
		}
		if best == nil || weigh(differences) < weigh(least) {
			best, least = d, differences
		}
	}
	if best == nil {
		return nil
	}
	return &Near{m.arrival(best), m.differences(best, true)}
}

func weigh(differences []Difference) (sum int) {
	for _, d := range differences {
		sum += d.weight
	}
	return sum
}

// differences returns why the match does not choose d, what matters most first. Unless explained is
// set, those of conditions have only their weight.
func (m *Match) differences(d *Delivery, explained bool) []Difference {
	var out []Difference
	add := func(fits bool, weight int, path, got, want string) {
		if !fits {
			out = append(out, Difference{path, got, want, fmt.Sprintf("%s is %s, wanted %s", path, got, want), weight})
		}
	}
	add(m.fitsTrigger(d), 8, "trigger", shown(d.Trigger), shown(m.Trigger))
	add(m.fitsTable(d), 4, "table", shown(d.table()), shown(m.Table))
	add(m.fitsOp(d), 4, "op", shown(d.Op), strings.ToUpper(shown(m.Op)))
	add(m.fitsID(d), 4, "id", shown(d.ID), shown(m.ID))
	for _, c := range m.Where {
		weight := c.distance(d)
		switch {
		case weight > 0 && explained:
			out = append(out, c.difference(d, weight))
		case weight > 0:
			out = append(out, Difference{weight: weight})
		}
	}
	add(m.After == 0 || d.Sequence > m.After, 2, "sequence", fmt.Sprint(d.Sequence), fmt.Sprintf("more than %d", m.After))
	add(m.fitsTest(d), 2, "test", fmt.Sprint(d.Test), fmt.Sprint(!d.Test))
	add(m.fitsAttempt(d), 1, "attempt", fmt.Sprint(d.Attempt), fmt.Sprint(m.Attempt))
	if !m.fitsOutcome(d) {
		want := "2xx"
		if !*m.Accepted {
			want = "other than 2xx"
		}
		out = append(out, Difference{"status", fmt.Sprint(d.Status), want, "it was " + d.outcome() + ", wanted " + want, 1})
	}
	return out
}

func (c Condition) difference(d *Delivery, weight int) Difference {
	out := Difference{Path: c.path.text, Want: "a value", weight: weight}
	if c.value != nil {
		out.Want = shown(c.value.text)
	}
	got, lack := c.path.find(d.Body)
	if lack == nil {
		out.Got = shownJSON(got)
		out.Text = fmt.Sprintf("%s is %s, wanted %s", out.Path, out.Got, out.Want)
		return out
	}
	out.Text = fmt.Sprintf("%s is missing, wanted %s", out.Path, out.Want)
	if is := lack.is(); is != "" {
		out.Text += fmt.Sprintf(" (%s is %s)", lack.at, is)
	} else {
		out.Text += lack.hint()
	}
	return out
}

// hint suggests what to write instead of a path that leads to nothing.
func (l *missing) hint() string {
	keys, more := l.keys()
	for n := len(l.rest); n > 1; n-- {
		if key := strings.Join(l.rest[:n], "."); slices.Contains(keys, key) {
			return "; write " + l.at + "." + pathKey(key)
		}
	}
	near := suggest.Near(l.rest[0], keys, 3)
	if near == nil {
		near = suggest.Near(strings.Join(l.rest, "."), keys, 3)
	}
	for i, key := range near {
		near[i] = shown(pathKey(key))
	}
	if near != nil {
		return "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return l.inventory(keys, more)
}

// inventory lists the keys that there are.
func (l *missing) inventory(keys []string, more int) string {
	const most = 12
	if len(keys) == 0 {
		return ""
	}
	var names []string
	for _, key := range keys[:min(most, len(keys))] {
		names = append(names, shown(pathKey(key)))
	}
	text := "; " + cmp.Or(l.at, "the event") + " has " + strings.Join(names, ", ")
	if more += len(keys) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// arrival returns d in short. Its text begins with what the conditions are about.
func (m *Match) arrival(d *Delivery) Arrival {
	a := Arrival{Sequence: d.Sequence, ID: d.ID, Trigger: d.Trigger, Op: d.Op, Schema: d.Schema, Table: d.Table, Attempt: d.Attempt, Status: d.Status}
	if d.Op == "" {
		a.Text = d.outcome()
		return a
	}
	a.Text = d.Op + " " + d.table()
	if m.Trigger == "" {
		a.Text = d.Trigger + "  " + a.Text
	}
	told := map[string]bool{}
	for _, c := range m.Where {
		key := strings.Join(c.path.steps, "\x00")
		if got, lack := c.path.find(d.Body); lack == nil && !told[key] {
			a.Text += "  " + c.path.text + " = " + brief(got, longestValue)
			told[key] = true
		}
	}
	a.Text += d.otherColumns(told)
	a.Text = string(printable(fmt.Sprintf("%s   (attempt %d, %s)", a.Text, d.Attempt, d.outcome()), false))
	return a
}

// outcome says how the delivery was answered.
func (d *Delivery) outcome() string {
	switch {
	case d.Problem != "":
		return fmt.Sprintf("rejected with %d: %s", d.Status, d.Problem)
	case d.Status == 0:
		return "not answered"
	}
	return fmt.Sprintf("answered %d", d.Status)
}

// Headline says in one line what was wanted and what came.
func (m *Miss) Headline() string {
	what := "delivery"
	if m.Wanted > 1 {
		what = "deliveries"
	}
	if m.what != "" {
		what += " " + m.what
	}
	when := " has arrived"
	if m.Within > 0 {
		when = " arrived within " + m.Within.String()
	}
	switch {
	case m.Shortfall == Unwanted:
		return "a delivery " + strings.TrimPrefix(what, "delivery ") + " arrived, wanted none"
	case m.Shortfall == TooMany:
		return fmt.Sprintf("more than %d %s arrived, wanted exactly %d", m.Wanted, what, m.Wanted)
	case m.Wanted == 1:
		return "no " + what + when
	}
	return fmt.Sprintf("%d of %d %s%s", m.Got, m.Wanted, what, when)
}

// String returns the headline, what arrived, and the nearest miss, in lines without an end.
func (m *Miss) String() string {
	var out bytes.Buffer
	out.WriteString(m.Headline())
	about := "arrived"
	if m.Trigger != "" {
		about = "arrived for " + shown(m.Trigger)
	}
	if m.Total == 0 {
		fmt.Fprintf(&out, "\nnothing %s", about)
		out.WriteString(m.others())
	} else {
		fmt.Fprintf(&out, "\n%s: %d", about, m.Total)
		if m.Total > len(m.Arrived) {
			fmt.Fprintf(&out, ", the newest:")
		}
		for _, a := range m.Arrived {
			out.WriteString("\n  " + a.Text)
		}
	}
	if m.Dropped > 0 {
		fmt.Fprintf(&out, "\nno longer kept, since the memory is bounded: %s older", term.Digits(int64(m.Dropped)))
	}
	if m.Nearest != nil {
		var texts []string
		for _, d := range m.Nearest.Differences {
			texts = append(texts, d.Text)
		}
		out.WriteString("\nnearest: " + strings.Join(texts, "; "))
		if m.Nearest.Trigger != m.Trigger && m.Trigger != "" {
			out.WriteString("\n  " + m.Nearest.Text)
		}
	}
	return out.String()
}

// others lists the other triggers, those with the most deliveries first.
func (m *Miss) others() string {
	var names []string
	for name := range m.Others {
		names = append(names, name)
	}
	if m.Trigger == "" || len(names) == 0 {
		return ""
	}
	sorting.By(names, func(a, b string) int {
		if d := m.Others[b] - m.Others[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var parts []string
	for _, name := range names[:min(len(names), newest)] {
		parts = append(parts, fmt.Sprintf("%s (%d)", shown(name), m.Others[name]))
	}
	return ", but for " + strings.Join(parts, ", ") + suggest.Hint(m.Trigger, names)
}
