package sink

import (
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
	cells := d.cells(told)
	longest := longestValue
	for longest > 20 && rowLength(cells, longest) > longestRow {
		longest = longest * 3 / 4
	}
	var out strings.Builder
	for i, c := range cells {
		text := c.text(longest)
		if i > 0 && out.Len()+len(text) > longestRow {
			fmt.Fprintf(&out, "  … (%d columns more)", len(cells)-i)
			break
		}
		out.WriteString("  " + text)
	}
	return out.String()
}

func (d *Delivery) cells(told map[string]bool) []cell {
	old, new := d.rows()
	before := map[string]string{}
	for _, c := range columns(old) {
		before[c.name] = c.value
	}
	row, root := columns(new), "new"
	if new == nil {
		row, root, before = columns(old), "old", nil
	}
	var changed, others []cell
	for _, c := range row {
		if told[root+"\x00"+c.name] {
			continue
		}
		name := cut(pathKey(c.name), longestName)
		if was, ok := before[c.name]; ok && was != c.value {
			changed = append(changed, cell{name + ": ", []string{was, c.value}})
			continue
		}
		others = append(others, cell{name + " = ", []string{c.value}})
	}
	return append(changed, others...)
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
