package sqlschema

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/rowhook/rowhook/trigger"
)

// createDelayed makes the view through which the function of a guarded trigger with a delay writes.
// The view of other guarded triggers has no due_at, and a column can't be taken from a view.
func createDelayed(of own) string {
	return fmt.Sprintf("create or replace view %s with (security_barrier) as select id, trigger_id, op, old, new, session, trace, relation_id, due_at "+
		"from rowhook.event_log where %s with check option", of.delayed(), of.condition())
}

// delayOf returns SQL for a delay.
func delayOf(d trigger.Duration) string {
	return fmt.Sprintf("interval '%d milliseconds'", d.Std()/time.Millisecond)
}

// What a capture function writes: the columns of an insert, and the values of a row or of the rows of
// a statement.
var (
	recordsInto = regexp.MustCompile(`insert into rowhook\.event_log \(([^)]*)\)`)
	recordsRow  = regexp.MustCompile(`(session, trace)(\);| from (?:(?:inserted|deleted) as r;|\(\n))`)
)

// delayedCapture has the events of a capture function due later than they are recorded. definition is
// that of rowhook.capture, or what orderedCapture has made of it.
func delayedCapture(definition string, delay trigger.Duration) (string, error) {
	const parked = "clock_timestamp() + coalesce(rowhook.parked()"
	due := "clock_timestamp() + " + delayOf(delay)
	inserts, written := 0, strings.Count(definition, parked)
	definition = strings.ReplaceAll(definition, parked, due+" + coalesce(rowhook.parked()")
	definition = recordsInto.ReplaceAllStringFunc(definition, func(into string) string {
		inserts++
		if strings.Contains(into, "due_at") {
			return into
		}
		return strings.TrimSuffix(into, ")") + ", due_at)"
	})
	definition = recordsRow.ReplaceAllStringFunc(definition, func(values string) string {
		written++
		return strings.Replace(values, "session, trace", "session, trace, "+due, 1)
	})
	if inserts == 0 || inserts != written {
		return "", fmt.Errorf("derive a capture function: the definition of rowhook.capture was changed by hand (%d inserts, of which %d have values that are known): "+
			"restore it, or uninstall and apply again", inserts, written)
	}
	return definition, nil
}
