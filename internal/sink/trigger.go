package sink

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/suggest"
)

// checkTrigger rejects a trigger that does not exist, where Triggers says which ones do: a wait for it
// would last for its whole time, and a "never" would always hold. A trigger that has been removed
// since is accepted as long as a delivery or a rule of it is there.
func (s *Sink) checkTrigger(name string) error {
	if name == "" || s.Triggers == nil {
		return nil
	}
	known := s.Triggers()
	if slices.Contains(known, name) || s.remembers(name) {
		return nil
	}
	return invalid(fmt.Sprintf("there is no trigger %q%s", name, suggest.Hint(name, known)), triggersRemedy(known))
}

func (s *Sink) remembers(name string) bool {
	return slices.ContainsFunc(s.journal.all().deliveries, func(d *Delivery) bool { return d.Trigger == name }) ||
		slices.ContainsFunc(s.Rules(), func(r Rule) bool { return r.Trigger == name })
}

func triggersRemedy(known []string) string {
	const most = 20
	if len(known) == 0 {
		return "no trigger is configured"
	}
	text := "the triggers are " + strings.Join(known[:min(most, len(known))], ", ")
	if more := len(known) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
