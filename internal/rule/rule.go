// Package rule finds what is wrong with a trigger by its spec alone, without a database. The reader
// of a file reports it with its place, and an apply reports it of specs that come from elsewhere.
package rule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// MostKeyColumns bounds the columns of a key. It is the bound of an index.
const MostKeyColumns = 32

// Fault is something that is wrong with a spec.
type Fault struct {
	Path            []string   // of the key, such as webhook, body, id
	Beside          [][]string // keys that it does not go with
	Problem, Remedy string     // what is wrong, and what to do
}

// Faults returns what is wrong with a spec.
func Faults(s *trigger.Spec) []Fault {
	return slices.Concat(capture(s), key(s), placeholders(s))
}

// Warnings returns what of a spec may not be what is meant.
func Warnings(s *trigger.Spec) []Fault { return slices.Concat(emptySegments(s), movedKeys(s)) }

// movedKeys finds updates of a key of named columns that are not captured.
func movedKeys(s *trigger.Spec) []Fault {
	on := s.On.Update
	if s.Order.IsZero() || s.Order.ByRow() || !on.Enabled || len(on.Columns) == 0 {
		return nil // primary keys hardly ever change
	}
	left := slices.DeleteFunc(slices.Clone(s.Order.By), func(name string) bool { return slices.Contains(on.Columns, name) })
	if len(left) == 0 {
		return nil
	}
	for i, name := range left {
		left[i] = pg.PlainName(name)
	}
	return []Fault{{
		[]string{"on", "update", "columns"}, [][]string{{"order", "by"}},
		"an update that changes the key is only in order with the events of its old and its new key if it is captured",
		"add " + strings.Join(left, ", ") + " to on.update.columns",
	}}
}

// rows reports whether the trigger captures changes of rows.
func rows(s *trigger.Spec) bool { return s.On.Insert || s.On.Update.Enabled || s.On.Delete }

// capture finds ways of capturing that exclude each other.
func capture(s *trigger.Spec) (found []Fault) {
	at, captured, order := []string{"at"}, []string{"capture"}, []string{"order"}
	commit := s.At == trigger.AtCommit && rows(s)
	switch {
	case commit && s.Capture == trigger.CaptureStatement:
		found = append(found, Fault{at, [][]string{captured}, "what is captured at commit is captured row by row", "remove capture: statement"})
	case s.Capture == trigger.CaptureStatement:
		if reason, path := ByRows(s); reason != "" {
			found = append(found, Fault{captured, [][]string{path}, "nothing can be captured by the statement: " + reason, "write capture: auto, which captures row by row here"})
		}
	}
	if commit && !s.Order.IsZero() && !s.Order.ByRow() {
		found = append(found, Fault{at, [][]string{order}, "what is captured at commit can be ordered by row only", "write order: row"})
	}
	return found
}

// ByRows returns why none of the changes of a trigger can be captured by the statement whatever table
// it watches, and the key that says so; "": some can, if the table allows it.
func ByRows(s *trigger.Spec) (reason string, path []string) {
	for _, op := range []byte("DUI") { // the reason of the first captured operation is the one told
		why, at := ByRow(s, op)
		if why == "" {
			return "", nil
		}
		if reason == "" || captures(s, op) {
			reason, path = why, at
		}
	}
	return reason, path
}

// captures reports whether a trigger captures an operation: I, U or D.
func captures(s *trigger.Spec, op byte) bool {
	return map[byte]bool{'I': s.On.Insert, 'U': s.On.Update.Enabled, 'D': s.On.Delete}[op]
}

// ByRow returns why an operation, I, U or D, can't be captured by the statement whatever table the
// trigger watches, and the key that says so; "": it can, if the table allows it.
func ByRow(s *trigger.Spec, op byte) (reason string, path []string) {
	switch {
	case !captures(s, op):
		return "it captures no changes of rows", []string{"on"}
	case s.When != "":
		return "its when must be evaluated for each row", []string{"when"}
	case s.OnReplication:
		return "it has on_replication, and the apply worker of a subscription runs no triggers for whole statements", []string{"on_replication"}
	case len(s.Payload.ColumnsOf(op)) > 0:
		return "its payload has chosen columns", []string{"payload"}
	case s.Payload.Numbers == trigger.NumbersText:
		return "its payload has numbers as text", []string{"payload", "numbers"}
	case op == 'U' && len(s.On.Update.Columns) > 0:
		return "it captures updates of certain columns, which are compared for each row", []string{"on", "update", "columns"}
	case op != 'I' && !s.Order.IsZero():
		return "it has an order, and the keys of updates and deletes are compared for each row", []string{"order"}
	}
	return "", nil
}

// key finds keys that are too long for any table.
func key(s *trigger.Spec) []Fault {
	if s.Order.IsZero() || !rows(s) || len(s.Order.By) <= MostKeyColumns {
		return nil
	}
	return []Fault{{
		[]string{"order"}, nil, fmt.Sprintf("a key has at most %d columns, and these are %d", MostKeyColumns, len(s.Order.By)),
		"leave some out, since events of a shorter key are in order, too",
	}}
}

// placeholders finds data of the event that no event has.
func placeholders(s *trigger.Spec) (found []Fault) {
	if s.On.IsZero() {
		return nil
	}
	// A body that is no JSON is the reader's to report, and so is a text that can't be parsed.
	_ = s.EachText(func(text string, mode template.Mode, path ...string) {
		parts, err := template.Parse(text, mode)
		if err != nil {
			return
		}
		for _, part := range parts {
			if part.Data == nil {
				continue
			}
			if f := placeholder(s, part.Data); f != nil {
				f.Path = path
				found = append(found, *f)
			}
		}
	})
	return found
}

func placeholder(s *trigger.Spec, data *template.Placeholder) *Fault {
	row, column, ok := data.Column()
	on := s.On
	always := func(beside []string, why, remedy string) *Fault {
		return &Fault{Beside: [][]string{beside}, Problem: data.Source + " is always null, since " + why, Remedy: remedy}
	}
	switch {
	case data.Word == "event" && len(data.Path) > 0 && data.Path[0].Name == "changed":
		switch {
		case !on.Update.Enabled:
			return always([]string{"on"}, "the trigger captures no updates", "remove it, or capture them")
		case !s.Payload.Changed:
			return always([]string{"payload"}, "payload.changed is not true", "write payload: {changed: true}")
		}
	case !ok:
	case row == "old" && !on.Update.Enabled && !on.Delete:
		return always([]string{"on"}, "the trigger captures no updates and no deletes", "remove it, or capture them")
	case row == "old" && !on.Delete && s.Payload.Old == trigger.OldNone:
		return always([]string{"payload", "old"}, "payload.old is none", "remove it, or write old: all")
	case row == "new" && !on.Insert && !on.Update.Enabled && !on.Manual:
		if !on.Delete {
			return always([]string{"on"}, "the trigger captures only TRUNCATE", "remove it, or capture more")
		}
		return always([]string{"on"}, "the trigger captures only deletes", "write old, or capture more")
	case column == "" || row == "new" && on.Manual: // the data of a manual event is anything
	default:
		if sent, whole := sentColumns(s, row); !whole && !slices.Contains(sent, column) {
			return always([]string{"payload"}, "payload.columns leaves the column "+strconv.Quote(column)+" out", "add it there"+suggest.Hint(column, sent))
		}
	}
	return nil
}

// sentColumns returns the columns that the old or the new row has in the events of some operation.
// whole says that one of them has all.
func sentColumns(s *trigger.Spec, row string) (names []string, whole bool) {
	for _, op := range []struct {
		letter       byte
		captured     bool
		isOld, isNew bool // its events have the row
	}{
		{'I', s.On.Insert, false, true},
		{'U', s.On.Update.Enabled, s.Payload.Old != trigger.OldNone, true},
		{'D', s.On.Delete, true, false},
	} {
		if !op.captured || row == "old" && !op.isOld || row == "new" && !op.isNew {
			continue
		}
		columns := s.Payload.ColumnsOf(op.letter)
		whole = whole || len(columns) == 0
		names = append(names, columns...)
	}
	return names, whole || len(names) == 0
}

// emptySegments finds segments of the URL's path that are empty for each event of some
// operation, which is never sent: /orders/$new.id in a trigger that captures deletes, too.
func emptySegments(spec *trigger.Spec) (found []Fault) {
	parts, err := template.Parse(spec.Webhook.URL, template.Mixed)
	if err != nil {
		return nil // it is reported with the text
	}
	for i, part := range parts {
		if strings.Contains(part.Text, "?") {
			return found
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
			continue // with no such row at all, it is a fault
		}
		found = append(found, Fault{
			[]string{"webhook", "url"}, nil,
			fmt.Sprintf("%s is null in events of %s, which become dead letters, since a path with an empty segment is not sent", part.Data.Source, strings.Join(lacking, " and ")),
			fmt.Sprintf("give it a default, as in %s, or capture these by a trigger of their own", withDefault(part.Data.Source)),
		})
	}
	return found
}

// withDefault returns a placeholder, as it is written, with a default.
func withDefault(source string) string {
	return "${" + strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(source, "$"), "{"), "}") + ` ?? "none"}`
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
