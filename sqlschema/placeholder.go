package sqlschema

import (
	"fmt"
	"strings"

	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// checkPlaceholders finds placeholders of the request for columns that the table does not have. Those
// that stand for nothing whatever the table has are rule.Faults.
func (p *planner) checkPlaceholders(spec *trigger.Spec, rel *relation, lacks func(missing, message string, path ...string)) error {
	return spec.EachText(func(text string, mode template.Mode, path ...string) {
		parts, err := template.Parse(text, mode)
		if err != nil {
			lacks("", err.Error(), path...)
			return
		}
		for _, part := range parts {
			if part.Data != nil {
				p.checkPlaceholder(spec, rel, part.Data, lacks, path)
			}
		}
	})
}

func (p *planner) checkPlaceholder(spec *trigger.Spec, rel *relation, data *template.Placeholder, lacks func(missing, message string, path ...string), path []string) {
	row, column, ok := data.Column()
	if !ok || column == "" {
		return
	}
	message := p.missingColumn(rel, column)
	switch {
	case message == "":
	case row == "new" && spec.On.Manual: // the data of a manual event is anything
		p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: %s: %s, so %s is null but for manual events that have it", spec.Name, strings.Join(path, "."), message, data.Source))
	default:
		lacks(columnOfRelation(rel, column), message, path...)
	}
}
