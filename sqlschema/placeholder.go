package sqlschema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// checkPlaceholders finds placeholders of the webhook that would stand for nothing in every event:
// columns that the table does not have, or that are not sent, and rows that no captured operation has.
func (p *planner) checkPlaceholders(spec *trigger.Spec, rel *relation, lacks func(missing, message string, path ...string)) error {
	return spec.Webhook.EachText(func(text string, mode template.Mode, path ...string) {
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

// warnOfEmptySegments warns of segments of the URL's path that are empty for each event of some
// operation, which is never sent: /orders/$new.id in a trigger that captures deletes, too.
func (p *planner) warnOfEmptySegments(spec *trigger.Spec) {
	parts, err := template.Parse(spec.Webhook.URL, template.Mixed)
	if err != nil {
		return // it is reported with the text
	}
	for i, part := range parts {
		if strings.Contains(part.Text, "?") {
			return
		}
		if part.Data == nil || part.Data.Default != nil || !isSegment(parts, i) {
			continue
		}
		row, column, ok := part.Data.Column()
		if !ok || column == "" {
			continue
		}
		lacking, some := withoutRow(spec, row)
		if len(lacking) == 0 || !some {
			continue // with no such row at all, checkPlaceholder reports it
		}
		p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: webhook.url: %s is null in events of %s, which become dead letters, since a path with an empty segment is not sent: "+
			"give it a default, as in ${new.id ?? \"none\"}, or capture these by a trigger of their own", spec.Name, part.Data.Source, strings.Join(lacking, " and ")))
	}
}

// isSegment reports whether a placeholder is a whole segment of a path.
func isSegment(parts []template.Part, i int) bool {
	begins := i > 0 && strings.HasSuffix(parts[i-1].Text, "/")
	ends := i+1 == len(parts) || strings.HasPrefix(parts[i+1].Text, "/") || strings.HasPrefix(parts[i+1].Text, "?")
	return begins && ends
}

// withoutRow returns the captured operations whose events have no such row. some reports whether
// there are others.
func withoutRow(spec *trigger.Spec, row string) (lacking []string, some bool) {
	isOld := row == "old"
	for _, op := range []struct {
		name           string
		captured, lack bool
	}{
		{"insert", spec.On.Insert, isOld},
		{"update", spec.On.Update.Enabled, isOld && spec.Payload.Old == trigger.OldNone},
		{"delete", spec.On.Delete, !isOld},
		{"truncate", spec.On.Truncate, true},
		{"manual", spec.On.Manual, isOld},
	} {
		switch {
		case op.captured && op.lack:
			lacking = append(lacking, op.name)
		case op.captured:
			some = true
		}
	}
	return lacking, some
}

func (p *planner) checkPlaceholder(spec *trigger.Spec, rel *relation, data *template.Placeholder, lacks func(missing, message string, path ...string), path []string) {
	row, column, ok := data.Column()
	on := spec.On
	switch {
	case data.Word == "event" && len(data.Path) > 0 && data.Path[0].Name == "changed":
		switch {
		case !on.Update.Enabled:
			lacks("", fmt.Sprintf("%s is always null, since the trigger captures no updates: remove it, or capture them", data.Source), path...)
		case !spec.Payload.Changed:
			lacks("", fmt.Sprintf("%s is always null, since payload.changed is not true: write payload: {changed: true}", data.Source), path...)
		}
	case !ok:
	case row == "old" && !on.Update.Enabled && !on.Delete:
		lacks("", fmt.Sprintf("%s is always null, since the trigger captures no updates and no deletes: remove it, or capture them", data.Source), path...)
	case row == "old" && !on.Delete && spec.Payload.Old == trigger.OldNone:
		lacks("", fmt.Sprintf("%s is always null, since payload.old is none: remove it, or write old: all", data.Source), path...)
	case row == "new" && !on.Insert && !on.Update.Enabled && !on.Manual:
		why, remedy := "only deletes", "write old, or capture more"
		if !on.Delete {
			why, remedy = "only TRUNCATE", "remove it, or capture more"
		}
		lacks("", fmt.Sprintf("%s is always null, since the trigger captures %s: %s", data.Source, why, remedy), path...)
	case column == "":
	default:
		if message := p.missingColumn(rel, column); message != "" {
			if row == "new" && on.Manual { // the data of a manual event is anything
				p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf("%s: %s: %s, so %s is null but for manual events that have it", spec.Name, strings.Join(path, "."), message, data.Source))
				return
			}
			lacks(columnOfRelation(rel, column), message, path...)
			return
		}
		sent, whole := sentColumns(spec, row)
		if !whole && !slices.Contains(sent, column) {
			lacks("", fmt.Sprintf("%s is always null, since payload.columns leaves the column %q out: add it there%s", data.Source, column, suggest.Hint(column, sent)), path...)
		}
	}
}

// sentColumns returns the columns that the old or the new row has in the events of some operation.
// whole says that one of them has all.
func sentColumns(spec *trigger.Spec, row string) (names []string, whole bool) {
	for _, op := range rowOperations(spec) {
		if row == "old" && (op == insertOp || op == updateOp && spec.Payload.Old == trigger.OldNone) || row == "new" && op == deleteOp {
			continue
		}
		columns := spec.Payload.ColumnsOf(byte(op))
		whole = whole || len(columns) == 0
		names = append(names, columns...)
	}
	return names, whole || len(names) == 0
}
