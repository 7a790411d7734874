package importer

import (
	"fmt"
	"regexp"
	"strings"
)

// mostName is the greatest length of a trigger's name.
const mostName = 42

var notInTriggerName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// TriggerName returns the nearest name to a text that rowhook.yaml accepts for a trigger.
func TriggerName(text string) string {
	name := strings.Trim(notInTriggerName.ReplaceAllString(text, "_"), "_-")
	if name == "" {
		name = "trigger"
	}
	if c := name[0]; c >= '0' && c <= '9' {
		name = "t_" + name
	}
	if strings.HasPrefix(text, "_") && len(text) > 1 && notInTriggerName.ReplaceAllString(text, "") == text {
		name = strings.TrimRight(text, "-") // it was valid
	}
	if len(name) > mostName {
		name = strings.TrimRight(name[:mostName], "_-")
	}
	return name
}

// FreeName returns the name for a trigger that is called wanted. If another trigger of the import has
// that name, more is added to it, such as the name of the table, or a number.
func (i *Import) FreeName(wanted, more string) string {
	name := TriggerName(wanted)
	if _, taken := i.Taken(name); !taken {
		return name
	}
	with := func(end string) string {
		return strings.TrimRight(name[:min(len(name), mostName-len(end)-1)], "_-") + "_" + end
	}
	if end := TriggerName(more); more != "" && len(end) < mostName/2 {
		if other := with(end); !i.isTaken(other) {
			return other
		}
	}
	for n := 2; ; n++ {
		if other := with(fmt.Sprint(n)); !i.isTaken(other) {
			return other
		}
	}
}

func (i *Import) isTaken(name string) bool { _, taken := i.Taken(name); return taken }
