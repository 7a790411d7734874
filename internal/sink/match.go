package sink

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/rowhook/rowhook/internal/term"
)

// Match chooses deliveries. Its zero value chooses all of them.
type Match struct {
	Trigger string
	Op      string // INSERT, UPDATE, DELETE, TRUNCATE or MANUAL, in any case
	Table   string // with its schema or without, as SQL writes it; see CheckTable
	ID      string // of the event
	// Where are conditions on the event. All must hold.
	Where []Condition
	// Attempt is the number of the attempt, as Delivery.Attempt counts. 0: any.
	Attempt int
	// Accepted chooses by whether the response was 2xx, and Test by whether the event is made up by
	// rowhook test. nil: both.
	Accepted, Test *bool
	// After chooses deliveries with a greater Sequence, which are newer than it.
	After uint64
	// AllAttempts says what Await, Exactly and Never count: each delivery. Otherwise they count
	// events, by their first accepted delivery. Attempt, and Accepted if it is false, imply
	// AllAttempts.
	AllAttempts bool
}

// Condition is a condition on a value in an event: that it is there, or that it equals another.
type Condition struct {
	path  path
	value *value // nil: present
}

// Where returns the condition that the value at a path equals v as JSON. Numbers are equal by their
// value, with every digit: 7 equals 7.0. A path is one like new.id, old.status, new.items[0].sku,
// session_variables.x-user or id. A key with a dot is quoted: new."a.b".
func Where(path string, v any) (Condition, error) {
	p, err := parsePath(path)
	if err != nil {
		return Condition{}, err
	}
	want, err := typedValue(v)
	if err != nil {
		return Condition{}, fmt.Errorf("the value for %s can't be written as JSON: %w", path, err)
	}
	return Condition{p, &want}, nil
}

// Present returns the condition that there is a value at a path, be it null. Paths are as for Where.
func Present(path string) (Condition, error) {
	p, err := parsePath(path)
	return Condition{path: p}, err
}

// loosely returns the condition of a query, whose value has no type: it equals a string with these
// characters, and JSON that is written so.
func loosely(path, text string) (Condition, error) {
	p, err := parsePath(path)
	v := looseValue(text)
	return Condition{p, &v}, err
}

// String returns the condition as messages show it.
func (c Condition) String() string {
	if c.value == nil {
		return c.path.text
	}
	return c.path.text + " = " + shown(c.value.text)
}

// longestValue is the greatest length of a value in messages, in bytes.
const longestValue = 120

// shown returns JSON as messages show it.
func shown(text string) string {
	return string(printable(term.Shorten(text, longestValue), false))
}

// distance says how far d is from the condition; 0: it holds. A wrong value is nearer than none.
func (c Condition) distance(d *Delivery) int {
	root, found := c.path.root(d.Body)
	if !found {
		return 4
	}
	got, found := c.path.under(root)
	switch {
	case !found:
		return 4
	case c.value != nil && !c.value.equals(got):
		return 3
	}
	return 0
}

// shownJSON returns JSON as messages show it, without its white space.
func shownJSON(raw json.RawMessage) string {
	return string(printable(brief(raw, longestValue), false))
}

// eachAttempt reports whether each delivery counts, and not each event.
func (m *Match) eachAttempt() bool {
	return m.AllAttempts || m.Attempt != 0 || m.Accepted != nil && !*m.Accepted
}

// counting returns the match by which deliveries are counted.
func (m Match) counting() Match {
	if m.Accepted == nil && !m.eachAttempt() {
		m.Accepted = new(true)
	}
	return m
}

// fits reports whether the match chooses d.
func (m *Match) fits(d *Delivery) bool {
	if m.After >= d.Sequence && m.After > 0 || !m.fitsTrigger(d) || !m.fitsOp(d) || !m.fitsTable(d) || !m.fitsID(d) ||
		!m.fitsAttempt(d) || !m.fitsOutcome(d) || !m.fitsTest(d) {
		return false
	}
	return m.fitsWhere(d)
}

// fitsWhere reports whether the conditions hold. Those with the same root look for it once.
func (m *Match) fitsWhere(d *Delivery) bool {
	if len(m.Where) > 0 && d.Op == "" && !json.Valid(d.Body) {
		return false // it was rejected
	}
	var name string
	var root json.RawMessage
	for _, c := range m.Where {
		if c.path.steps[0] != name {
			var found bool
			if root, found = c.path.root(d.Body); !found {
				return false
			}
			name = c.path.steps[0]
		}
		if got, found := c.path.under(root); !found || c.value != nil && !c.value.equals(got) {
			return false
		}
	}
	return true
}

func (m *Match) fitsTrigger(d *Delivery) bool { return m.Trigger == "" || m.Trigger == d.Trigger }
func (m *Match) fitsOp(d *Delivery) bool      { return m.Op == "" || strings.EqualFold(m.Op, d.Op) }
func (m *Match) fitsID(d *Delivery) bool      { return m.ID == "" || strings.EqualFold(m.ID, d.ID) }
func (m *Match) fitsAttempt(d *Delivery) bool { return m.Attempt == 0 || m.Attempt == d.Attempt }
func (m *Match) fitsTest(d *Delivery) bool    { return m.Test == nil || *m.Test == d.Test }
func (m *Match) fitsOutcome(d *Delivery) bool {
	return m.Accepted == nil || *m.Accepted == d.Accepted()
}

// String describes what the match chooses: "of order_placed with new.id = 7".
func (m *Match) String() string {
	var parts []string
	add := func(format string, given bool, args ...any) {
		if given {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add("of %s", m.Trigger != "", shown(m.Trigger))
	add("by %s", m.Op != "", strings.ToUpper(shown(m.Op)))
	add("on %s", m.Table != "", shown(m.Table))
	for i, c := range m.Where {
		add("%s %s", true, [...]string{"with", "and"}[min(i, 1)], c)
	}
	add("with the id %s", m.ID != "", shown(m.ID))
	add("at attempt %s", m.Attempt != 0, strconv.Itoa(m.Attempt))
	if m.Accepted != nil {
		add("that was accepted", *m.Accepted)
		add("that was not accepted", !*m.Accepted)
	}
	if m.Test != nil {
		add("of a test event", *m.Test)
		add("of an event that is no test", !*m.Test)
	}
	add("after sequence %d", m.After != 0, m.After)
	return strings.Join(parts, " ")
}
