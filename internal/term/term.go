// Package term writes for people at a terminal: tables, paragraphs, figures, and a progress bar.
//
// Nothing that it writes steers the terminal but its own colours and redraws: [Clean] shows control
// characters by their codes.
package term

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
	"golang.org/x/term"
)

// Lookup reads a variable of the environment, as [os.LookupEnv] does.
type Lookup = func(name string) (string, bool)

// DefaultWidth is how wide lines are where nothing says how wide the terminal is.
const DefaultWidth = 80

// IsTerminal reports that f, a reader or a writer, is a terminal.
func IsTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// WantsColour reports that w is a terminal whose user has not asked for plain text, by NO_COLOR
// (see no-color.org) or TERM=dumb. lookup may be nil.
func WantsColour(w io.Writer, lookup Lookup) bool {
	if lookup != nil {
		if v, _ := lookup("NO_COLOR"); v != "" {
			return false
		}
		if v, _ := lookup("TERM"); v == "dumb" {
			return false
		}
	}
	return IsTerminal(w)
}

// Width returns how many columns a line on w may have: those of the terminal that w is, what
// COLUMNS says, or otherwise. With a nil lookup COLUMNS is not asked.
func Width(w io.Writer, lookup Lookup, otherwise int) int {
	if columns, _ := size(w); columns > 0 {
		return columns
	}
	if lookup != nil {
		text, _ := lookup("COLUMNS")
		if columns, err := strconv.Atoi(text); err == nil && columns > 0 {
			return columns
		}
	}
	return otherwise
}

// size returns the size of the terminal that w is, or zeros.
func size(w io.Writer) (columns, lines int) {
	if !IsTerminal(w) {
		return 0, 0
	}
	columns, lines, err := term.GetSize(int(w.(*os.File).Fd()))
	if err != nil {
		return 0, 0
	}
	return columns, lines
}

// Columns returns how many columns of a terminal a text takes.
func Columns(s string) int { return uniseg.StringWidth(s) }

// Cut shortens a text to so many columns. Its last character is … then.
func Cut(s string, columns int) string {
	if columns < 2 || Columns(s) <= columns {
		return s
	}
	end, at, state := 0, 0, -1
	for rest := s; rest != ""; {
		var cluster string
		var width int
		cluster, rest, width, state = uniseg.FirstGraphemeClusterInString(rest, state)
		if at+width > columns-1 {
			break
		}
		at += width
		end += len(cluster)
	}
	return s[:end] + "…"
}

// Shorten shortens a text to so many bytes, and says how many it left out.
func Shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "… (" + strconv.Itoa(len(s)-most) + " bytes more)"
}

// Wrap breaks a text at blanks into lines of at most width columns. The first line has a width of
// its own. A word is never cut: it may be a command to copy. A line is at least 20 columns wide.
func Wrap(s string, width, first int) []string { return wrap(strings.Split(s, " "), width, first) }

// wrap is Wrap of words that are not broken.
func wrap(words []string, width, first int) []string {
	const least = 20
	width, first = max(width, least), max(first, least)
	var lines []string
	line, room := "", first
	for _, word := range words {
		switch {
		case line == "":
			line = word
		case Columns(line)+1+Columns(word) <= room:
			line += " " + word
		default:
			lines = append(lines, line)
			line, room = word, width
		}
	}
	return append(lines, line)
}

// unbroken splits a text at its spaces, but not inside a command such as "rowhook discard ID", which
// people copy. A command ends at a mark of punctuation.
func unbroken(s string) []string {
	words := strings.Split(s, " ")
	var out []string
	for i := 0; i < len(words); i++ {
		word := words[i]
		if strings.TrimLeft(word, `"(`) == "rowhook" && (i == 0 || words[i-1] != "schema") {
			for i+1 < len(words) && !strings.ContainsAny(word[len(word)-1:], `;,.:)"`) {
				i++
				word += " " + words[i]
			}
		}
		out = append(out, word)
	}
	return out
}

// Clean shows control characters, which could steer the terminal, by their codes. A receiver's
// answer may hold any.
func Clean(s string) string {
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
