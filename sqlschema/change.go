package sqlschema

import (
	"fmt"
	"strings"
)

// Action says what a Change does to its object. Its character is the sign in front of a printed
// change.
type Action byte

// The actions.
const (
	Create  Action = '+' // makes it
	Replace Action = '~' // changes it or makes it again
	Remove  Action = '-' // drops it
)

// Change is one change that an apply makes.
type Change struct {
	Action Action // what is done to the object
	// Object is the kind of the object: trigger, capture trigger, guard trigger, function, setting,
	// schema, sequence, table, events, lanes or rights of a dispatcher.
	Object string
	// Name is the name of the object. For rights it is "for ROLE".
	Name string
	// Table is the table of a capture trigger, or "".
	Table string
	// Trigger is the name of the trigger to which a capture trigger or a function belongs, or "".
	Trigger string
	// Detail says in words what differs, or "".
	Detail string
	// Lock is the mode of the lock on Table, such as SHARE ROW EXCLUSIVE, or "".
	Lock string
	// Events is the number of waiting events of a trigger. Those of a removed one are moved to the
	// dead letters. Those of a changed one are sent as the new Spec says.
	Events int64
	// Role is the role that gets rights, and Rights are these, in the form of GRANT.
	Role   string
	Rights []string
	// Differences are the values that change in a Spec or a setting. Secrets and header values are
	// not in them.
	Differences []Difference
}

// String returns the change in one line, beginning with its Action.
func (c Change) String() string {
	if len(c.Differences) == 0 {
		return c.line()
	}
	texts := make([]string, len(c.Differences))
	for i, d := range c.Differences {
		texts[i] = d.String()
	}
	return c.line() + ": " + strings.Join(texts, "; ")
}

// line is String without the differences.
func (c Change) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%c %s %s", c.Action, c.Object, c.Name)
	if c.Table != "" {
		fmt.Fprintf(&b, " on %s", c.Table)
	}
	if c.Detail != "" {
		fmt.Fprintf(&b, ": %s", c.Detail)
	}
	many := c.Events != 1
	switch {
	case c.Events > 0 && c.Action == Remove:
		fmt.Fprintf(&b, "; %d waiting event%s the dead letters", c.Events, map[bool]string{false: " goes to", true: "s go to"}[many])
	case c.Events > 0:
		fmt.Fprintf(&b, " (%d waiting event%s)", c.Events, map[bool]string{false: " follows", true: "s follow"}[many])
	}
	if against := c.locksOut(); against != "" {
		fmt.Fprintf(&b, " (locks the table against %s for a moment)", against)
	}
	return b.String()
}

// locksOut returns what waits for the lock; "": there is none.
func (c Change) locksOut() string {
	switch c.Lock {
	case writersWait:
		return "writes"
	case everyoneWaits:
		return "reads and writes"
	}
	return ""
}

// mostLines is how many changes of one trigger Plan.Summary lists.
const mostLines = 20

// alike are changes of one trigger that Plan.Summary counts in one line.
type alike struct {
	trigger        string
	action         Action
	object, detail string
}

// countAlike returns a line for each kind of change, in the order of the first of each.
func countAlike(changes []Change) (lines []string) {
	var order []alike
	first, count, tables := map[alike]Change{}, map[alike]int{}, map[alike]map[string]bool{}
	for _, c := range changes {
		key := alike{c.Trigger, c.Action, c.Object, c.Detail}
		if count[key]++; count[key] == 1 {
			order, first[key], tables[key] = append(order, key), c, map[string]bool{}
		}
		if c.Table != "" {
			tables[key][c.Table] = true
		}
	}
	for _, key := range order {
		if count[key] == 1 {
			lines = append(lines, first[key].line())
			continue
		}
		line := fmt.Sprintf("%c %d %ss", key.action, count[key], key.object)
		if n := len(tables[key]); n > 1 {
			line += fmt.Sprintf(" on %d tables", n)
		}
		if key.detail != "" {
			line += ": " + key.detail
		}
		if against := first[key].locksOut(); against != "" {
			line += fmt.Sprintf(" (locks each table against %s for a moment)", against)
		}
		lines = append(lines, line)
	}
	return lines
}

// The locks that changes take on a watched table.
const (
	writersWait   = "SHARE ROW EXCLUSIVE"
	everyoneWaits = "ACCESS EXCLUSIVE"
)
