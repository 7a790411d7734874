package rowhooktest

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/sink"
)

// Match chooses events. Several matches choose those that meet all of them.
type Match func(*criteria) error

// criteria is what matches add up to.
type criteria struct {
	sink.Match
	functions []function
}

// function is a condition in Go.
type function struct {
	holds func(Event) bool
	place string // where it is, for messages
}

func meet(trigger string, matches []Match) (criteria, error) {
	c := criteria{Match: sink.Match{Trigger: trigger}}
	return c, All(matches...)(&c)
}

// fits reports whether the functions choose an event.
func (c *criteria) fits(e Event) bool {
	for _, f := range c.functions {
		if !f.holds(e) {
			return false
		}
	}
	return true
}

// choose returns the deliveries that the functions choose, as events.
func (c *criteria) choose(deliveries []sink.Delivery) []Event {
	var out []Event
	for i := range deliveries {
		if e := newEvent(&deliveries[i]); c.fits(e) {
			out = append(out, e)
		}
	}
	return out
}

// Path chooses events that have this value at a path, as JSON: Path("new.id", 7). Numbers are equal
// by their value, with every digit. A path begins with new, old, op, id, session_variables,
// trace_context or another part of the event's body: new.items[0].sku, session_variables.x-user. A
// key with a dot is quoted: new."a.b".
func Path(path string, value any) Match {
	return func(c *criteria) error {
		condition, err := sink.Where(path, value)
		c.Where = append(c.Where, condition)
		return err
	}
}

// Has chooses events that have a value at a path, be it null. Paths are as for [Path].
func Has(path string) Match {
	return func(c *criteria) error {
		condition, err := sink.Present(path)
		c.Where = append(c.Where, condition)
		return err
	}
}

// Op chooses events of an operation: insert, update, delete, truncate or manual, in any case.
func Op(op string) Match {
	return func(c *criteria) error {
		if !slices.Contains([]string{"INSERT", "UPDATE", "DELETE", "TRUNCATE", "MANUAL"}, strings.ToUpper(op)) {
			return fmt.Errorf("Op(%q): it is none of insert, update, delete, truncate and manual", op)
		}
		c.Op = op
		return nil
	}
}

// Table chooses events of a table, with its schema or without. A name is written as in SQL:
// public."Guest Notes".
func Table(name string) Match {
	return func(c *criteria) error { c.Table = name; return sink.CheckTable(name) }
}

// ID chooses the event with this id.
func ID(id string) Match {
	return func(c *criteria) error { c.ID = id; return nil }
}

// Where chooses events for which a function returns true.
func Where(holds func(Event) bool) Match {
	place := "a function"
	if _, file, line, ok := runtime.Caller(1); ok {
		place = fmt.Sprintf("the function at %s:%d", lastElement(file), line)
	}
	return func(c *criteria) error {
		if holds == nil {
			return errors.New("Where: the function is nil")
		}
		c.functions = append(c.functions, function{holds, place})
		return nil
	}
}

// Attempt chooses the delivery of an event's attempt with this number, from 1, whatever was answered.
// Without it an event has arrived when it was answered with a 2xx status.
func Attempt(n int) Match {
	return func(c *criteria) error {
		if n < 1 {
			return fmt.Errorf("Attempt(%d): attempts count from 1", n)
		}
		c.Match.Attempt = n
		return nil
	}
}

// After chooses events that arrived after another one.
func After(e Event) Match {
	return func(c *criteria) error { c.Match.After = e.sequence; return nil }
}

// All is several matches in the place of one, as for [Harness.Order].
func All(matches ...Match) Match {
	return func(c *criteria) error {
		for i, m := range matches {
			if m == nil {
				return fmt.Errorf("match %d of %d is nil: leave it out, or name a condition such as Path", i+1, len(matches))
			}
			if err := m(c); err != nil {
				return err
			}
		}
		return nil
	}
}
