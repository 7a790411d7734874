package term

import (
	"fmt"
	"io"
	"strings"
)

// Page is where a command writes for people. It is a writer, too, for what needs no form.
type Page struct {
	io.Writer
	lines  int // of the terminal; 0: not known
	edge   int // columns of the terminal; 0: not known
	width  int // columns of a paragraph
	colour bool
}

// NewPage returns a page that is shown on w. lookup reads COLUMNS, NO_COLOR and TERM; it may be
// nil.
func NewPage(w io.Writer, lookup Lookup) *Page {
	p := &Page{Writer: w, width: Width(w, lookup, DefaultWidth), colour: WantsColour(w, lookup)}
	p.edge, p.lines = size(w)
	return p
}

// To returns a page of the same form that is written to w, and shown where p is.
func (p *Page) To(w io.Writer) *Page {
	q := *p
	q.Writer = w
	return &q
}

// Printf writes as [fmt.Printf] does.
func (p *Page) Printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }

// Paint returns a text with a colour, if the page has colours.
func (p *Page) Paint(s string, c Colour) string {
	if !p.colour || c == Plain || s == "" {
		return s
	}
	return string(c) + s + reset
}

// deepest is how far a paragraph is indented at most.
const deepest = 18

// Paragraph writes a text behind a head. It is wrapped, but not inside a command, and its further lines are indented by the
// width of the head.
func (p *Page) Paragraph(head, body Cell) {
	label := Clean(head.Text)
	indent := min(Columns(label), deepest)
	for i, line := range wrap(unbroken(body.Text), p.width-indent, p.width-Columns(label)) {
		before := strings.Repeat(" ", indent)
		if i == 0 {
			before = p.Paint(label, head.Colour)
		}
		p.Printf("%s%s\n", before, p.Paint(line, body.Colour))
	}
}

// Redraw writes over what the terminal shows, line by line, and clears what is left. A screen that
// is cleared first would flicker. Lines that the terminal has no room for are left out. clear
// clears the whole screen, before a first picture.
func (p *Page) Redraw(picture string, clear bool) error {
	lines := strings.Split(strings.TrimRight(picture, "\n"), "\n")
	if p.lines > 1 && len(lines) > p.lines-1 {
		lines = lines[:p.lines-1]
	}
	var b strings.Builder
	if clear {
		b.WriteString("\x1b[2J")
	}
	b.WriteString("\x1b[H")
	for _, line := range lines {
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	_, err := io.WriteString(p, b.String())
	return err
}
