package console

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/rowhook/rowhook/internal/logs"
	"github.com/rowhook/rowhook/internal/operate"
)

// colour is an ANSI escape that a cell begins with; "": none.
type colour string

const (
	plain  colour = ""
	bold   colour = "\x1b[1m"
	dim    colour = "\x1b[2m"
	red    colour = "\x1b[31m"
	green  colour = "\x1b[32m"
	yellow colour = "\x1b[33m"
	cyan   colour = "\x1b[36m"
	reset         = "\x1b[0m"
)

// cell is a text in a table.
type cell struct {
	text   string
	colour colour
	right  bool // aligned to the right
}

func text(s string) cell               { return cell{text: clean(s)} }
func number(n int64) cell              { return cell{text: digits(n), right: true} }
func coloured(s string, c colour) cell { return cell{clean(s), c, false} }

// table writes aligned columns. Each column is as wide as its widest cell; the last is cut where the terminal ends.
type table struct {
	out    io.Writer
	colour bool
	width  int  // of the terminal; 0: unbounded
	gap    int  // between columns; 0: two
	stack  bool // a first cell for which there is no room has a line of its own
	rows   [][]cell
}

// width is how wide a line may be: as the terminal, as COLUMNS says, or 80.
func (c *console) width() int {
	if f, ok := c.terminal().(interface{ Fd() uintptr }); ok && logs.IsTerminal(c.terminal()) {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	if text, ok := c.Lookup("COLUMNS"); ok {
		if w, err := strconv.Atoi(text); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// paragraph writes a text behind a head, wrapped and indented by as much. No word is cut: the last one may be a command to copy.
func (c *console) paragraph(head string, style cell, body cell) {
	colourful := logs.WantsColour(c.terminal(), c.Lookup)
	paint := func(s string, how colour) string {
		if colourful && how != plain && s != "" {
			return string(how) + s + reset
		}
		return s
	}
	head = clean(head)
	indent := min(utf8.RuneCountInString(head), 18)
	lines := wrap(body.text, c.width()-indent, c.width()-utf8.RuneCountInString(head))
	for i, line := range lines {
		if i == 0 {
			c.printf("%s%s\n", paint(head, style.colour), paint(line, body.colour))
			continue
		}
		c.printf("%s%s\n", strings.Repeat(" ", indent), paint(line, body.colour))
	}
}

// wrap breaks a text at blanks into lines of so many characters; the first has another width.
func wrap(s string, width, first int) []string {
	const least = 20
	width, first = max(width, least), max(first, least)
	var lines []string
	line, room := "", first
	for word := range strings.SplitSeq(s, " ") {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= room:
			line += " " + word
		default:
			lines = append(lines, line)
			line, room = word, width
		}
	}
	return append(lines, line)
}

func (c *console) table(head ...string) *table {
	t := &table{out: c.Stdout, colour: logs.WantsColour(c.terminal(), c.Lookup)}
	if f, ok := c.terminal().(interface{ Fd() uintptr }); ok && logs.IsTerminal(c.terminal()) {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			t.width = w
		}
	}
	var cells []cell
	for _, h := range head {
		cells = append(cells, cell{strings.TrimSuffix(h, ">"), bold, strings.HasSuffix(h, ">")})
	}
	t.rows = append(t.rows, cells)
	return t
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// widths are those of the columns.
func (t *table) widths() []int {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	return widths
}

// between is how far columns are apart.
func (t *table) between() int { return cmp.Or(t.gap, 2) }

// rest is how wide all columns but the first are, with what is before each.
func (t *table) rest(widths []int) (n int) {
	for _, w := range widths[1:] {
		n += t.between() + w
	}
	return n
}

// fits reports that no line is wider than the terminal.
func (t *table) fits() bool {
	widths := t.widths()
	return t.width == 0 || widths[0]+t.rest(widths) <= t.width
}

func (t *table) flush() {
	widths := t.widths()
	if t.stack && !t.fits() {
		widths[0] = max(t.width-t.rest(widths), utf8.RuneCountInString(t.rows[0][0].text))
	}
	for _, row := range t.rows {
		if t.stack && utf8.RuneCountInString(row[0].text) > widths[0] {
			t.writeRow(row[:1], widths)
			row = slices.Clone(row)
			row[0].text = ""
		}
		t.writeRow(row, widths)
	}
	t.rows = t.rows[:0]
}

func (t *table) writeRow(row []cell, widths []int) {
	var b strings.Builder
	at := 0
	for i, c := range row {
		padding := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(c.text), 0))
		last := i == len(row)-1
		if c.right {
			b.WriteString(padding)
		}
		s := c.text
		if last && t.width > at+10 {
			s = cut(s, t.width-at)
		}
		if t.colour && c.colour != plain && s != "" {
			s = string(c.colour) + s + reset
		}
		b.WriteString(s)
		if !last {
			if !c.right {
				b.WriteString(padding)
			}
			b.WriteString(strings.Repeat(" ", t.between()))
		}
		at += widths[i] + t.between()
	}
	fmt.Fprintln(t.out, strings.TrimRight(b.String(), " "))
}

// cut shortens a text to so many characters.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n || n < 2 {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// clean shows control characters, which could steer the terminal, by their codes. What comes from a receiver may hold any.
func clean(s string) string {
	if !strings.ContainsFunc(s, hidden) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func hidden(r rune) bool { return !unicode.IsPrint(r) }

// digits writes a number with its thousands apart.
func digits(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span writes a duration by its largest one or two units.
func span(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.2fms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// ago writes a moment relative to another.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case d < 0 && d > -time.Second, d >= 0 && d < time.Second:
		return "now"
	case d < 0:
		return "in " + span(-d)
	}
	return span(d) + " ago"
}

// size writes a number of bytes.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// plural writes a number with its noun.
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return digits(n) + " " + noun + "s"
}

func stateCell(s operate.State) cell {
	c := map[operate.State]colour{operate.InFlight: cyan, operate.Retrying: yellow, operate.Delivered: green, operate.Dead: red}[s]
	return cell{text: strings.ReplaceAll(string(s), "_", " "), colour: c}
}
