package dispatcher

import (
	"slices"
	"strings"

	"github.com/google/uuid"
)

func eventID(dl *delivery) string { return uuid.UUID(dl.event.ID).String() }

// namedEvents is how many events a line of the log names.
const namedEvents = 10

// eventAttrs names events and their triggers for a line of the log. Of many events it names the
// first.
func eventAttrs(ds []*delivery) []any {
	var ids, triggers []string
	for _, dl := range ds {
		if len(ids) < namedEvents {
			ids = append(ids, eventID(dl))
		}
		if !slices.Contains(triggers, dl.event.Trigger) {
			triggers = append(triggers, dl.event.Trigger)
		}
	}
	args := []any{"event", strings.Join(ids, ","), "trigger", strings.Join(triggers, ",")}
	if len(ds) > len(ids) {
		args = append(args, "and_more", len(ds)-len(ids))
	}
	return args
}
