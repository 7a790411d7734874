package trigger

import (
	"fmt"
	"strings"
)

// SpecError is something that the database has to say about one Spec: its table does not exist, its when is no expression.
type SpecError struct {
	Index   int      // of the Spec among those handed over
	Trigger string   // its name
	Path    []string // the key, such as {"on", "update", "columns", "1"}
	Message string   // what is wrong and what to do about it
}

func (e SpecError) Error() string {
	return fmt.Sprintf("trigger %q: %s: %s", e.Trigger, strings.Join(e.Path, "."), e.Message)
}

// SpecErrors is everything that is wrong with the Specs, in their order. As long as there is one, nothing is applied.
type SpecErrors []SpecError

func (e SpecErrors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}
