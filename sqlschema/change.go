package sqlschema

import (
	"fmt"
	"strings"
)

// Action says what a Change does to its object. It is the sign that it prints.
type Action byte

// The three actions.
const (
	Create  Action = '+'
	Replace Action = '~'
	Remove  Action = '-'
)

// Change is one thing that an apply does.
type Change struct {
	Action  Action
	Object  string // what is changed: trigger, capture trigger, guard trigger, function, setting, schema
	Name    string
	Table   string // whose capture trigger it is
	Trigger string // whose capture trigger or function it is
	Detail  string // what differs, for people
	Lock    string // lock mode on Table, "" for none
	Events  int64  // waiting events: of a trigger that is removed, which go to the dead letters, or that is changed, and which follow it

	Differences []string // what changes in a spec or a setting, a line each: retry.limit: 5 becomes 3
}

// String writes it in one line.
func (c Change) String() string {
	if len(c.Differences) == 0 {
		return c.line()
	}
	return c.line() + ": " + strings.Join(c.Differences, "; ")
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
	switch c.Lock {
	case writersWait:
		b.WriteString(" (locks the table against writes for a moment)")
	case everyoneWaits:
		b.WriteString(" (locks the table against reads and writes for a moment)")
	}
	return b.String()
}

// The locks that changes take on a watched table.
const (
	writersWait   = "SHARE ROW EXCLUSIVE"
	everyoneWaits = "ACCESS EXCLUSIVE"
)
