package term

import (
	"cmp"
	"slices"
	"strings"
)

// Table is written in aligned columns. Each is as wide as its widest cell. The last cell of a row
// is cut where the terminal ends.
type Table struct {
	// Gap is how many columns of the terminal are between two of the table. 0 means 2.
	Gap int
	// Stack gives a first cell that has no room beside the others a line of its own.
	Stack bool
	// Whole cuts no cell.
	Whole bool

	page *Page
	edge int // columns that a line may have; 0: any number
	rows [][]Cell
}

// Table returns an empty table with these heads, or without any. A head that ends with > is aligned
// to the right.
func (p *Page) Table(heads ...string) *Table {
	t := &Table{page: p, edge: p.edge}
	var row []Cell
	for _, h := range heads {
		row = append(row, Cell{strings.TrimSuffix(h, ">"), Bold, strings.HasSuffix(h, ">")})
	}
	if row != nil {
		t.rows = append(t.rows, row)
	}
	return t
}

// Fit has the table take no more columns than a paragraph, also where there is no terminal.
func (t *Table) Fit() { t.edge = t.page.width }

// Add adds a row.
func (t *Table) Add(cells ...Cell) { t.rows = append(t.rows, cells) }

// Drop takes a column away.
func (t *Table) Drop(column int) {
	for i, row := range t.rows {
		t.rows[i] = slices.Delete(row, column, column+1)
	}
}

// Fits reports that no line is too wide.
func (t *Table) Fits() bool {
	widths := t.widths()
	return t.edge == 0 || widths[0]+t.rest(widths) <= t.edge
}

// Flush writes the table and empties it.
func (t *Table) Flush() {
	widths := t.widths()
	if t.Stack && !t.Fits() {
		widths[0] = max(t.edge-t.rest(widths), Columns(t.rows[0][0].Text))
	}
	for _, row := range t.rows {
		if t.Stack && Columns(row[0].Text) > widths[0] {
			t.write(row[:1], widths)
			row = slices.Clone(row)
			row[0].Text = ""
		}
		t.write(row, widths)
	}
	t.rows = t.rows[:0]
}

// widths are those of the columns.
func (t *Table) widths() (widths []int) {
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], Columns(c.Text))
		}
	}
	return widths
}

func (t *Table) gap() int { return cmp.Or(t.Gap, 2) }

// rest is the width of all columns but the first, with the gap before each.
func (t *Table) rest(widths []int) (n int) {
	for _, w := range widths[1:] {
		n += t.gap() + w
	}
	return n
}

// leastCut is how many columns a last cell must have left to be cut.
const leastCut = 10

func (t *Table) write(row []Cell, widths []int) {
	var b strings.Builder
	at := 0
	for i, c := range row {
		padding := strings.Repeat(" ", max(widths[i]-Columns(c.Text), 0))
		last := i == len(row)-1
		if c.Right {
			b.WriteString(padding)
		}
		s := c.Text
		if last && !t.Whole && t.edge > at+leastCut {
			s = Cut(s, t.edge-at)
		}
		b.WriteString(t.page.Paint(s, c.Colour))
		if !last {
			if !c.Right {
				b.WriteString(padding)
			}
			b.WriteString(strings.Repeat(" ", t.gap()))
		}
		at += widths[i] + t.gap()
	}
	t.page.Printf("%s\n", strings.TrimRight(b.String(), " "))
}
