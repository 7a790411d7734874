package trigger

import (
	"fmt"
	"slices"
	"strings"
)

// SpecError is one fault of a [Spec] that only the database can tell, such as a table that does not
// exist or a condition that is not valid SQL.
type SpecError struct {
	Index   int      // index of the Spec in the slice that the caller passed
	Trigger string   // Spec.Name
	Path    []string // path of the key in the Spec, such as {"on", "update", "columns", "1"}
	Message string   // what is wrong and what to do
	// Missing names the table or the column that does not exist, if that is the fault: the database
	// may get it later, such as by a migration of the application. "": the fault is another one.
	Missing string
}

// Error returns the name of the trigger, the path and the message, in one line.
func (e SpecError) Error() string {
	return fmt.Sprintf("trigger %q: %s: %s", e.Trigger, strings.Join(e.Path, "."), e.Message)
}

// SpecErrors are all faults of the [Spec] values, in the order of the values. If there is one,
// nothing is applied.
type SpecErrors []SpecError

// Missing returns what the database lacks, each once, if all faults are that something does not
// exist. Otherwise it returns nil.
func (e SpecErrors) Missing() []string {
	var missing []string
	for i := range e {
		if e[i].Missing == "" {
			return nil
		}
		if !slices.Contains(missing, e[i].Missing) {
			missing = append(missing, e[i].Missing)
		}
	}
	return missing
}

// Error returns one line for each fault.
func (e SpecErrors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}
