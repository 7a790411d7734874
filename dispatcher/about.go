package dispatcher

import (
	"slices"
	"strings"

	"github.com/google/uuid"
)

func id(dl *delivery) string { return uuid.UUID(dl.event.ID).String() }

// aboutMost is how many events a line of the log names.
const aboutMost = 10

// about names events and their triggers for a line of the log: the first few where there are many.
func about(ds []*delivery) []any {
	var ids, triggers []string
	for _, dl := range ds {
		if len(ids) < aboutMost {
			ids = append(ids, id(dl))
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
