// Package template makes parts of a request from an event: its body, the values of its headers and
// its query, and the path of its URL.
//
// A template is text with placeholders, such as $new.id or ${new.note ?? "-"}, which stand for data
// of the event. Nothing is evaluated, and nothing repeats. [Parse] reads a text. A [Set] holds the
// templates of one request, compiled so that each row of an event is read once for all of them.
package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/suggest"
)

// Words returns the words that a placeholder may begin with.
func Words() []string {
	return []string{"new", "old", "event", "session", "trigger", "table", "sequence", "created_at", "attempt", "id"}
}

// Part is a piece of a text. Exactly one of its fields but At is set.
type Part struct {
	Text      string       // stands for itself
	Reference string       // ${NAME}, as written: the environment's. It may be malformed
	Data      *Placeholder // data of the event
	At        int          // where it begins in the text, in bytes
}

// Placeholder stands for data of an event.
type Placeholder struct {
	Word    string // one of Words
	Path    []Step // into the JSON of the word
	Default []byte // JSON that stands for what is not there, or is null; nil: there is none
	Text    bool   // as text: a JSON string, also where the placeholder is the whole text
	Source  string // as written
}

// Step goes from a JSON value to one in it: to the member Name of an object, or, if Name is "" and
// IsIndex is set, to the element Index of an array, from 0.
type Step struct {
	Name    string
	Index   int
	IsIndex bool
}

// Error says what is wrong with a text. It quotes nothing of it but names of placeholders.
type Error struct {
	At      int // the byte at which the fault begins
	Message string
}

func (e *Error) Error() string { return e.Message }

// Mode says what a $ means in a text.
type Mode int8

const (
	// Always is for texts that are templates: $$ stands for $, and a placeholder with an unknown
	// word is an error.
	Always Mode = iota
	// Mixed is for texts that were none in earlier versions, such as a URL. They are templates if
	// they have a placeholder, perhaps one behind $$. Others mean what they did.
	Mixed
)

// Parse reads a text. In the mode Mixed it returns nil for a text that is no template. An error is
// an *Error.
func Parse(s string, mode Mode) ([]Part, error) {
	p := parser{in: s, mode: mode}
	if err := p.parts(); err != nil {
		return nil, err
	}
	if mode == Mixed && !p.template {
		return nil, nil
	}
	return p.out, nil
}

// HasData reports whether a text of the mode Mixed has a placeholder.
func HasData(s string) bool {
	if !strings.Contains(s, "$") {
		return false
	}
	parts, err := Parse(s, Mixed)
	return err == nil && slices.ContainsFunc(parts, func(p Part) bool { return p.Data != nil })
}

// IsTemplate reports whether a text of the mode Mixed is a template.
func IsTemplate(s string) bool {
	if !strings.Contains(s, "$") {
		return false
	}
	parts, err := Parse(s, Mixed)
	return err == nil && parts != nil
}

// Skip returns the length of the placeholder with braces that s begins with, or 0.
func Skip(s string) int {
	if !strings.HasPrefix(s, "${") {
		return 0
	}
	p := parser{in: s}
	if data, err := p.braced(); err != nil || data == nil {
		return 0
	}
	return p.at
}

type parser struct {
	in       string
	at       int
	mode     Mode
	out      []Part
	template bool // it has a placeholder, perhaps one behind $$
}

func (p *parser) rest() string { return p.in[p.at:] }

func (p *parser) fail(at int, format string, args ...any) error {
	return &Error{At: at, Message: fmt.Sprintf(format, args...)}
}

// text adds a text, to the one before it if there is one.
func (p *parser) text(s string, at int) {
	if n := len(p.out); n > 0 && p.out[n-1].Reference == "" && p.out[n-1].Data == nil {
		p.out[n-1].Text += s
		return
	}
	if s != "" {
		p.out = append(p.out, Part{Text: s, At: at})
	}
}

func (p *parser) parts() error {
	for p.at < len(p.in) {
		i := strings.IndexByte(p.rest(), '$')
		if i < 0 {
			p.text(p.rest(), p.at)
			return nil
		}
		p.text(p.rest()[:i], p.at)
		p.at += i
		start := p.at
		if strings.HasPrefix(p.rest(), "$$") {
			p.at++
			p.template = p.template || p.standsFor()
			p.text("$", start)
			p.at = start + 2
			continue
		}
		data, err := p.placeholder()
		switch {
		case err != nil:
			return err
		case data != nil:
			p.template = true
			data.Source = p.in[start:p.at]
			p.out = append(p.out, Part{Data: data, At: start})
		case strings.HasPrefix(p.rest(), "${"):
			end := strings.IndexByte(p.rest(), '}')
			if end < 0 {
				end = len(p.rest()) - 1 // malformed
			}
			p.out = append(p.out, Part{Reference: p.rest()[:end+1], At: start})
			p.at += end + 1
		default:
			p.at = start + 1
			p.text("$", start)
		}
	}
	return nil
}

// standsFor reports whether a placeholder begins here.
func (p *parser) standsFor() bool {
	q := parser{in: p.rest(), mode: Mixed}
	data, err := q.placeholder()
	return err == nil && data != nil
}

// placeholder reads a placeholder. It returns nil, and reads nothing, if there is none.
func (p *parser) placeholder() (*Placeholder, error) {
	if strings.HasPrefix(p.rest(), "${") {
		return p.braced()
	}
	start := p.at
	word := name(p.in[start+1:], false)
	behind := p.in[start+1+len(word):]
	if slices.Contains(Words(), word) {
		p.at = start + 1 + len(word)
		data := &Placeholder{Word: word}
		if err := p.path(data, false); err != nil {
			return nil, err
		}
		return data, p.known(data, start)
	}
	if word == "" {
		return nil, nil
	}
	reaches := len(behind) > 1 && (behind[0] == '.' && name(behind[1:], false) != "" || behind[0] == '[' && isDigit(behind[1]))
	near := suggest.Near(word, Words(), 1)
	switch {
	case p.mode == Always && (reaches || len(near) > 0), reaches && len(near) > 0:
		hint := "the words are $" + strings.Join(Words(), ", $")
		if len(near) > 0 {
			hint = "did you mean $" + near[0] + "?"
		}
		return nil, p.fail(start, "$%s is no data of an event; %s For a $ that stands for itself write $$", word, sentence(hint))
	}
	return nil, nil
}

func sentence(s string) string {
	if strings.HasSuffix(s, "?") {
		return s
	}
	return s + "."
}

// asText stands behind the path of a placeholder that is a string in JSON, whatever its value is.
const asText = "as text"

// braced reads a placeholder with braces. It returns nil, and reads nothing, for what may be a
// reference to the environment.
func (p *parser) braced() (*Placeholder, error) {
	start := p.at
	p.at += len("${")
	p.blanks()
	word := name(p.rest(), false)
	behind := p.rest()[len(word):]
	if !slices.Contains(Words(), word) || behind != "" && !strings.ContainsRune(".[?} \t\n", rune(behind[0])) {
		p.at = start
		if near := suggest.Near(word, Words(), 1); word != "" && len(behind) > 0 && strings.ContainsRune(".[", rune(behind[0])) {
			hint := "the words are " + strings.Join(Words(), ", ")
			if len(near) > 0 {
				hint = "did you mean ${" + near[0] + behind[:1] + "...}?"
			}
			return nil, p.fail(start, "${%s...} is no data of an event; %s", word, hint)
		}
		return nil, nil
	}
	p.at += len(word)
	data := &Placeholder{Word: word}
	if err := p.path(data, true); err != nil {
		return nil, err
	}
	p.blanks()
	if strings.HasPrefix(p.rest(), asText) && strings.IndexAny(p.rest()[len(asText):]+" ", "?} \t\n") == 0 {
		data.Text = true
		p.at += len(asText)
		p.blanks()
	}
	if strings.HasPrefix(p.rest(), "??") {
		p.at += 2
		p.blanks()
		if err := p.byDefault(data); err != nil {
			return nil, err
		}
		p.blanks()
	}
	if !strings.HasPrefix(p.rest(), "}") {
		if p.rest() == "" {
			return nil, p.fail(start, "the placeholder of $%s has no closing }; write it like ${%s.name}", word, word)
		}
		return nil, p.fail(p.at, "the placeholder of $%s goes on with something unknown; write ${%s.name}, ${%s.name[0]}, ${%s.\"a name\"}, ${%s.name as text} or ${%s.name ?? \"a default\"}",
			word, word, word, word, word, word)
	}
	p.at++
	return data, p.known(data, start)
}

// path reads the steps of a placeholder. In braces, names may hold hyphens. Outside, those of session
// variables may, which always do.
func (p *parser) path(data *Placeholder, braces bool) error {
	for {
		switch rest := p.rest(); {
		case strings.HasPrefix(rest, `."`):
			quoted, n, err := quotedName(rest[1:])
			if err != nil {
				return p.fail(p.at, "the quoted name behind $%s %v", data.Word, err)
			}
			data.Path = append(data.Path, Step{Name: quoted})
			p.at += 1 + n
		case strings.HasPrefix(rest, "."):
			member := name(rest[1:], braces || ofSession(data))
			if member == "" && !braces {
				return nil // the end of a sentence
			}
			if member == "" {
				return p.fail(p.at, `the . behind $%s is not followed by a name; put a name with other characters in double quotes, as in ${%s."a name"}`, data.Word, data.Word)
			}
			data.Path = append(data.Path, Step{Name: member})
			p.at += 1 + len(member)
		case strings.HasPrefix(rest, "["):
			end := strings.IndexByte(rest, ']')
			index, err := strconv.Atoi(rest[1:max(end, 1)])
			if end < 0 || err != nil || !isDigit(rest[1]) || index > mostIndex {
				return p.fail(p.at, `the [ behind $%s is not followed by a number and ]; write [0] for an element, ."a name" for a name, or put the placeholder in ${} if the [ does not belong to it`, data.Word)
			}
			data.Path = append(data.Path, Step{Index: index, IsIndex: true})
			p.at += end + 1
		default:
			return nil
		}
		if len(data.Path) > mostSteps {
			return p.fail(p.at, "the placeholder of $%s goes deeper than %d steps", data.Word, mostSteps)
		}
	}
}

// The bounds of a placeholder.
const (
	mostIndex = 1_000_000
	mostSteps = 32
)

// ofSession reports whether a path is in the session variables so far.
func ofSession(data *Placeholder) bool {
	return data.Word == "session" && len(data.Path) == 0 ||
		data.Word == "event" && len(data.Path) == 1 && data.Path[0].Name == "session_variables"
}

// byDefault reads the default of a placeholder: JSON, or a text in single quotes.
func (p *parser) byDefault(data *Placeholder) error {
	rest := p.rest()
	if strings.HasPrefix(rest, "'") {
		end := strings.IndexByte(rest[1:], '\'')
		if end < 0 {
			return p.fail(p.at, "the default of $%s has no closing '", data.Word)
		}
		data.Default = AppendString(nil, rest[1:1+end])
		p.at += end + 2
		return nil
	}
	s := scanner{in: []byte(rest)}
	if s.skip() && json.Valid(s.in[:s.at]) && utf8.Valid(s.in[:s.at]) {
		data.Default = s.in[:s.at:s.at]
		p.at += s.at
		return nil
	}
	return p.fail(p.at, `the default of $%s is not JSON; write a text in quotes, as in ${%s ?? "-"}, a number, true, false, null, [] or {}`, data.Word, data.Word)
}

// known checks the steps of words whose members are known.
func (p *parser) known(data *Placeholder, at int) error {
	var members []string
	switch data.Word {
	case "new", "old", "session":
		if len(data.Path) > 0 && data.Path[0].IsIndex {
			return p.fail(at, "$%s is an object and has no elements; write $%s.name", data.Word, data.Word)
		}
		return nil
	case "event":
		members = []string{"op", "changed", "data", "session_variables", "trace_context"}
		if len(data.Path) > 1 && data.Path[0].Name == "data" && !slices.Contains([]string{"old", "new"}, data.Path[1].Name) {
			return p.fail(at, "$event.data has the members old and new, and no other")
		}
		if len(data.Path) > 1 && data.Path[0].Name == "op" {
			return p.fail(at, "$event.op is a text and has no members")
		}
		if len(data.Path) > 1 && data.Path[0].Name == "changed" {
			return p.fail(at, "$event.changed is the list of names as a whole; write $event.changed")
		}
	case "table":
		members = []string{"schema", "name"}
		if len(data.Path) > 1 {
			return p.fail(at, "$table.%s is a text and has no members", data.Path[0].Name)
		}
	}
	if len(data.Path) == 0 || slices.Contains(members, data.Path[0].Name) {
		return nil
	}
	if len(members) == 0 {
		return p.fail(at, "$%s has no members; put it in ${} if what follows does not belong to it", data.Word)
	}
	hint := "; it has " + strings.Join(members, ", ")
	if near := suggest.Near(data.Path[0].Name, members, 1); len(near) > 0 {
		hint = "; did you mean $" + data.Word + "." + near[0] + "?"
	}
	return p.fail(at, "$%s has no member %q%s", data.Word, data.Path[0].Name, hint)
}

func (p *parser) blanks() {
	p.at += len(p.rest()) - len(strings.TrimLeft(p.rest(), " \t\n"))
}

// name returns the name that s begins with, or "". A hyphen belongs to it only if another character
// of the name follows.
func name(s string, hyphens bool) string {
	end := 0
	for i, r := range s {
		letter := r == '_' || unicode.IsLetter(r) && r != utf8.RuneError
		switch {
		case letter, i > 0 && unicode.IsDigit(r):
			end = i + utf8.RuneLen(r)
		case hyphens && i > 0 && r == '-' && i == end:
		default:
			return s[:end]
		}
	}
	return s[:end]
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// quotedName reads a name in double quotes as SQL writes it: "" stands for a quote in it.
func quotedName(s string) (name string, length int, err error) {
	var out strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			out.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			out.WriteByte('"')
			i++
			continue
		}
		if out.Len() == 0 {
			return "", 0, errors.New("is empty")
		}
		return out.String(), i + 1, nil
	}
	return "", 0, errors.New(`has no closing "`)
}

// Column returns the row, old or new, and the column of it that a placeholder reads. column is "" if
// it is the whole row. ok is false if it reads no row.
func (p *Placeholder) Column() (row, column string, ok bool) {
	path := p.Path
	switch {
	case p.Word == "new", p.Word == "old":
		row = p.Word
	case p.Word == "event" && len(path) > 1 && path[0].Name == "data":
		row, path = path[1].Name, path[2:]
	default:
		return "", "", false
	}
	if len(path) > 0 {
		column = path[0].Name
	}
	return row, column, true
}

// Sample returns a text with a digit in the place of each placeholder. Its references to the
// environment stay, as package trigger reads them. A text that is no template is returned as it is.
func Sample(s string, mode Mode) string {
	parts, err := Parse(s, mode)
	if err != nil || parts == nil {
		return s
	}
	var out strings.Builder
	for _, part := range parts {
		switch {
		case part.Data != nil:
			out.WriteByte('1')
		case part.Reference != "":
			out.WriteString(part.Reference)
		default:
			out.WriteString(strings.ReplaceAll(part.Text, "${", "$${"))
		}
	}
	return out.String()
}
