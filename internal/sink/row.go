package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// longestRow is the length in bytes that otherColumns aims at.
const longestRow = 240

// cell is a column of a row in a message.
type cell struct {
	label  string
	values []string // before and after a change, or one
}

// otherColumns returns the row in short: the columns that an update has changed, then the others.
// Long values are cut, all at the same length, so that none takes the place of the others. It leaves
// out the columns whose steps, joined by NUL, are in told.
func (d *Delivery) otherColumns(told map[string]bool) string {
	cells, more := d.cells(told)
	longest := longestValue
	for longest > 20 && rowLength(cells, longest) > longestRow {
		longest = longest * 3 / 4
	}
	var out strings.Builder
	for i, c := range cells {
		text := c.text(longest)
		if i > 0 && out.Len()+len(text) > longestRow {
			fmt.Fprintf(&out, "  … (%d columns more)", len(cells)-i+more)
			break
		}
		out.WriteString("  " + text)
	}
	return out.String()
}

// cells returns the columns, and the number of those beyond mostKeys, at which nobody looks.
func (d *Delivery) cells(told map[string]bool) (cells []cell, more int) {
	old, new := d.rows()
	row, root, before := new, "new", map[string]json.RawMessage{}
	if new == nil {
		row, root, old = old, "old", nil
	}
	was, _ := rawColumns(old)
	for _, c := range was {
		before[c.name] = c.value
	}
	var changed, others []cell
	all, more := rawColumns(row)
	for _, c := range all {
		if told[root+"\x00"+c.name] {
			continue
		}
		name := cut(pathKey(c.name), longestName)
		if was, ok := before[c.name]; ok && !bytes.Equal(was, c.value) && compact(was) != compact(c.value) {
			changed = append(changed, cell{name + ": ", []string{brief(was, 2*longestValue), brief(c.value, 2*longestValue)}})
			continue
		}
		others = append(others, cell{name + " = ", []string{brief(c.value, 2*longestValue)}})
	}
	return append(changed, others...), more
}

type rawColumn struct {
	name  string
	value json.RawMessage
}

// rawColumns returns the first mostKeys members of an object in their order, without copying, and the
// number of the others. What is not an object has none.
func rawColumns(object json.RawMessage) (all []rawColumn, more int) {
	inside, bracket := within(object)
	for bracket == '{' {
		name, value, ok := inside.next()
		if !ok {
			break
		}
		if len(all) == mostKeys {
			more++
			continue
		}
		if text, ok := unquote(name); ok {
			all = append(all, rawColumn{text, value})
		}
	}
	return all, more
}

// longestName is the greatest length of a column's name in messages, in bytes. Postgres has at most
// 63; somebody's own event may have more.
const longestName = 80

func (c cell) text(longest int) string {
	short := make([]string, len(c.values))
	for i, v := range c.values {
		short[i] = cut(v, longest)
	}
	return c.label + strings.Join(short, " -> ")
}

func rowLength(cells []cell, longest int) (sum int) {
	for _, c := range cells {
		sum += len("  ") + len(c.text(longest))
	}
	return sum
}

// cut shortens a text to at most so many bytes and an ellipsis.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most] + "…"
}
