package config

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/rowhook/rowhook/internal/sorting"
)

// Position is a place in a file. Line and Column count from 1, columns in characters; both are 0
// for the file as a whole.
type Position struct {
	File         string
	Line, Column int
}

// String returns rowhook.yaml:12:7, which terminals and editors turn into a link.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// from says where the place is, to a reader who looks at a place in file.
func (p Position) from(file string) string {
	if p.File == file {
		return fmt.Sprintf("on line %d", p.Line)
	}
	return fmt.Sprintf("at %s:%d", p.File, p.Line)
}

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Position
	// Key is the path to the wrong value in its file, such as triggers[0].webhook.url. It is "" for
	// the whole file.
	Key string
	// Message says what is wrong and, after a semicolon, what to do.
	Message string
	// Excerpt is two lines: the line of the file, and a mark under the place. It is "" if there is
	// no such line, or if the line may contain a secret.
	Excerpt string
}

// String returns one line: rowhook.yaml:12:7: triggers[0].webhook.url: what is wrong; what to do.
func (p Problem) String() string {
	return joined(p.Position.String(), p.Key, p.Message)
}

// Labelled returns String with a label such as "warning" behind the place, as compilers print it.
func (p Problem) Labelled(label string) string {
	return joined(p.Position.String(), label, p.Key, p.Message)
}

func joined(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

func (p Problem) compare(q Problem) int {
	return cmp.Or(cmp.Compare(p.File, q.File), cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
}

// Error is everything that is wrong with a configuration.
type Error struct {
	Problems []Problem // sorted by file and line
	cause    error     // see Unwrap
	sound    *Config   // see Sound
}

// ErrorOf returns an *Error with these problems. Without problems it returns nil.
func ErrorOf(problems ...Problem) error {
	if len(problems) == 0 {
		return nil
	}
	sorted := slices.Clone(problems)
	sorting.By(sorted, Problem.compare)
	return &Error{Problems: sorted}
}

// Error returns every problem with its excerpt, on lines of their own.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
		if p.Excerpt != "" {
			b.WriteString("\n" + p.Excerpt)
		}
	}
	return b.String()
}

// Unwrap returns the operating system's error if the file could not be read, and otherwise nil.
func (e *Error) Unwrap() error { return e.cause }

// lines are those of a file, for excerpts.
type lines []string

// secretLine matches lines that an excerpt does not show, because messages are logged.
var secretLine = regexp.MustCompile(`(?i)(secret|token|password|passwd|authorization|cookie|credential|api[-_]?key)["']?\s*[:=]\s*\S|://[^/\s]*@|postgres(?:ql)?://|whsec_|bearer |basic `)

// excerptOf is excerpt for the value at a path. A line of sources may hold a password in any form.
func (s lines) excerptOf(path keyPath, p Position) string {
	if len(path) > 0 && path[0] == sourcesKey {
		return ""
	}
	return s.excerpt(p)
}

func (s lines) excerpt(p Position) string {
	if p.Line < 1 || p.Line > len(s) {
		return ""
	}
	line := []rune(s[p.Line-1])
	if strings.TrimSpace(string(line)) == "" || secretLine.MatchString(string(line)) {
		return ""
	}
	at := min(max(p.Column-1, 0), len(line))
	const before, width = 60, 100
	if at > width-20 {
		line = append([]rune("…"), line[at-before:]...)
		at = before + 1
	}
	if len(line) > width {
		line = append(line[:width:width], '…')
	}
	for i, r := range line {
		if !unicode.IsPrint(r) {
			line[i] = ' '
		}
	}
	return fmt.Sprintf("%6d | %s\n       | %s^", p.Line, strings.TrimRight(string(line), " "), strings.Repeat(" ", at))
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
