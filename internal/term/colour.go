package term

// Colour is an ANSI escape that a text begins with.
type Colour string

// The colours. Plain is none.
const (
	Plain  Colour = ""
	Bold   Colour = "\x1b[1m"
	Dim    Colour = "\x1b[2m"
	Red    Colour = "\x1b[31m"
	Green  Colour = "\x1b[32m"
	Yellow Colour = "\x1b[33m"
	Cyan   Colour = "\x1b[36m"

	reset = "\x1b[0m"
)

// Cell is a text of one colour, as in a table.
type Cell struct {
	Text   string
	Colour Colour
	Right  bool // aligned to the right
}

// Text is a cell that shows s, whatever characters that has.
func Text(s string) Cell { return Cell{Text: Clean(s)} }

// Coloured is Text in a colour.
func Coloured(s string, c Colour) Cell { return Cell{Text: Clean(s), Colour: c} }

// Number is a cell that shows a number.
func Number(n int64) Cell { return Figure(Digits(n)) }

// Figure is a cell that shows what stands for a number, such as a duration.
func Figure(s string) Cell { return Cell{Text: s, Right: true} }
