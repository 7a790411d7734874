// Package mask hides members of JSON by their paths, and changes no other byte of it.
//
// A path is a column and, behind dots, members of its value: email, address.city. A * stands for
// every member of an object and for every element of an array. A name with a dot, a quote or a * in
// it stands in double quotes, and a quote within them is written twice. A member of an array is that
// member of each element, so lines.price masks the prices of all lines.
package mask

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Text is shown in the place of what is masked.
const Text = "<masked>"

// JSON is Text as a JSON string.
const JSON = `"` + Text + `"`

// A Mask is a set of paths. nil masks nothing.
type Mask struct {
	paths [][]step
	root  *node
}

// step is a part of a path: the name of a member, or any.
type step struct {
	name string
	any  bool
}

// node is what is masked within a value.
type node struct {
	whole bool             // the value itself
	named map[string]*node // its members, and those of its elements
	any   *node            // each member, and each element
}

// New returns the mask of these paths; nil if there are none.
func New(paths []string) (*Mask, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	m := &Mask{root: &node{}}
	for _, path := range paths {
		steps, err := parse(path)
		if err != nil {
			return nil, err
		}
		m.paths = append(m.paths, steps)
		m.root.add(steps)
	}
	return m, nil
}

// All returns a mask that masks every column.
func All() *Mask {
	return &Mask{paths: [][]step{{{any: true}}}, root: &node{any: &node{whole: true}}}
}

func (n *node) add(steps []step) {
	for _, s := range steps {
		var next *node
		switch {
		case s.any && n.any == nil:
			n.any = &node{}
			next = n.any
		case s.any:
			next = n.any
		case n.named[s.name] == nil:
			if n.named == nil {
				n.named = map[string]*node{}
			}
			next = &node{}
			n.named[s.name] = next
		default:
			next = n.named[s.name]
		}
		n = next
	}
	n.whole = true
}

// Column returns the column that a path begins with. any says that it is every column. The error
// says what is wrong with the path and, after a semicolon, what to do.
func Column(path string) (name string, any bool, err error) {
	steps, err := parse(path)
	if err != nil {
		return "", false, err
	}
	return steps[0].name, steps[0].any, nil
}

func parse(path string) (steps []step, err error) {
	for rest, more := path, true; more; {
		var s step
		if s, rest, more, err = parseStep(rest); err != nil {
			return nil, err
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// parseStep reads one step. more says that rest follows it, behind a dot.
func parseStep(text string) (s step, rest string, more bool, err error) {
	if quoted, ok := strings.CutPrefix(text, `"`); ok {
		return parseQuoted(quoted)
	}
	s.name, rest, more = strings.Cut(text, ".")
	switch {
	case s.name == "":
		return s, "", false, errors.New("has a part without a name; write a column, or a column and a member of it, as in email or address.city")
	case s.name == "*":
		return step{any: true}, rest, more, nil
	case strings.Contains(s.name, "*"):
		return s, "", false, fmt.Errorf("%q has a * within a name; write * alone for every member, or the name in double quotes", s.name)
	case strings.Contains(s.name, `"`):
		return s, "", false, fmt.Errorf("%q has a quote within a name; write the whole name in double quotes, and each quote in it twice", s.name)
	case strings.Trim(s.name, "0123456789") == "":
		return s, "", false, fmt.Errorf("%q is no element of an array; write * for every element, or %[1]q in double quotes for a member of that name", s.name)
	}
	return s, rest, more, nil
}

// parseQuoted reads a step behind its opening quote.
func parseQuoted(text string) (s step, rest string, more bool, err error) {
	var name strings.Builder
	for {
		part, after, ok := strings.Cut(text, `"`)
		if !ok {
			return s, "", false, errors.New("has a double quote that is not closed; write one at the end of the name")
		}
		name.WriteString(part)
		if text, ok = strings.CutPrefix(after, `"`); ok {
			name.WriteByte('"')
			continue
		}
		s.name = name.String()
		rest, more = strings.CutPrefix(after, ".")
		switch {
		case s.name == "":
			return s, "", false, errors.New("has a part without a name; write a column, or a column and a member of it, as in email or address.city")
		case !more && after != "":
			return s, "", false, fmt.Errorf("has %q behind a closing quote; write a dot between two names", after)
		}
		return s, rest, more, nil
	}
}

// Reaches reports whether something of a column is masked.
func (m *Mask) Reaches(column string) bool { return m.Overlaps([]string{column}) }

// Overlaps reports whether what is at this path of members, or within it, or around it, is masked.
func (m *Mask) Overlaps(members []string) bool {
	return m != nil && slices.ContainsFunc(m.paths, func(steps []step) bool { return overlap(steps, members) })
}

func overlap(steps []step, members []string) bool {
	switch {
	case len(steps) == 0 || len(members) == 0:
		return true
	case steps[0].any: // for an element of an array no member is written
		return overlap(steps[1:], members[1:]) || overlap(steps[1:], members)
	}
	return steps[0].name == members[0] && overlap(steps[1:], members[1:])
}

// Apply returns a row, or another JSON text, with Text in the place of what is masked. All other
// bytes are as they were. Of a member that is there twice, both are masked. A value that is no
// object or array although a path leads into it is masked, but null. What is not JSON is masked
// whole. Apply does not change text; the result may be text itself.
func (m *Mask) Apply(text []byte) []byte {
	if m == nil || len(text) == 0 {
		return text
	}
	s := scanner{text: text}
	err := s.value([]*node{m.root}, 0)
	if s.space(); err != nil || s.at != len(text) {
		return []byte(JSON)
	}
	if s.copied == 0 && s.out == nil {
		return text
	}
	return append(s.out, text[s.copied:]...)
}

// scanner reads JSON, and copies it once something of it is masked.
type scanner struct {
	text   []byte
	at     int // how far it has read
	out    []byte
	copied int // how much of text is in out
}

var errSyntax = errors.New("not JSON")

// deepest bounds the nesting of arrays in which paths are looked for, and so the stack.
const deepest = 100_000

// value reads a value of which the nodes say what is masked.
func (s *scanner) value(nodes []*node, depth int) error {
	s.space()
	start := s.at
	switch {
	case depth > deepest || s.at == len(s.text):
		return errSyntax
	case slices.ContainsFunc(nodes, func(n *node) bool { return n.whole }):
		if err := s.skip(); err != nil {
			return err
		}
		s.replace(start)
		return nil
	case len(nodes) == 0:
		return s.skip()
	}
	switch s.text[s.at] {
	case '{':
		return s.object(nodes, depth)
	case '[':
		return s.array(nodes, depth)
	}
	if err := s.skip(); err != nil {
		return err
	}
	if string(s.text[start:s.at]) != "null" {
		s.replace(start)
	}
	return nil
}

// replace masks what was read since start.
func (s *scanner) replace(start int) {
	s.out = append(append(s.out, s.text[s.copied:start]...), JSON...)
	s.copied = s.at
}

func (s *scanner) object(nodes []*node, depth int) error {
	s.at++
	if s.next('}') {
		return nil
	}
	var within []*node
	for {
		s.space()
		name, err := s.name()
		if err != nil {
			return err
		}
		if !s.next(':') {
			return errSyntax
		}
		within = within[:0]
		for _, n := range nodes {
			if member := n.named[string(name)]; member != nil {
				within = append(within, member)
			}
			if n.any != nil {
				within = append(within, n.any)
			}
		}
		if err := s.value(within, depth+1); err != nil {
			return err
		}
		if !s.next(',') {
			break
		}
	}
	if !s.next('}') {
		return errSyntax
	}
	return nil
}

func (s *scanner) array(nodes []*node, depth int) error {
	var within []*node // of each element: a * is one, and a name is a member of it
	for _, n := range nodes {
		if n.any != nil {
			within = append(within, n.any)
		}
		if len(n.named) > 0 && n.any == nil {
			within = append(within, n)
		} else if len(n.named) > 0 {
			within = append(within, &node{named: n.named})
		}
	}
	s.at++
	if s.next(']') {
		return nil
	}
	for {
		if err := s.value(within, depth+1); err != nil {
			return err
		}
		if !s.next(',') {
			break
		}
	}
	if !s.next(']') {
		return errSyntax
	}
	return nil
}

// name reads the name of a member.
func (s *scanner) name() ([]byte, error) {
	start := s.at
	if err := s.string(); err != nil {
		return nil, err
	}
	raw := s.text[start:s.at]
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return nil, errSyntax
	}
	return []byte(name), nil
}

func (s *scanner) space() {
	for s.at < len(s.text) && isSpace(s.text[s.at]) {
		s.at++
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// next skips white space, and then this character. It reports whether it was there.
func (s *scanner) next(c byte) bool {
	s.space()
	if s.at == len(s.text) || s.text[s.at] != c {
		return false
	}
	s.at++
	return true
}

// skip reads a value in which nothing is masked by itself. It needs no stack.
func (s *scanner) skip() error {
	for depth := 0; s.at < len(s.text); {
		switch c := s.text[s.at]; {
		case c == '"':
			if err := s.string(); err != nil {
				return err
			}
		case c == '{' || c == '[':
			depth++
			s.at++
		case c == '}' || c == ']':
			if depth--; depth < 0 {
				return errSyntax
			}
			s.at++
		case isSpace(c) || c == ',' || c == ':':
			if depth == 0 {
				return errSyntax
			}
			s.at++
		default:
			s.literal()
		}
		if depth == 0 {
			return nil
		}
	}
	return errSyntax
}

// literal reads a number or a word.
func (s *scanner) literal() {
	for s.at < len(s.text) && !isSpace(s.text[s.at]) && !bytes.ContainsRune([]byte(`,:]}[{"`), rune(s.text[s.at])) {
		s.at++
	}
}

func (s *scanner) string() error {
	if s.at == len(s.text) || s.text[s.at] != '"' {
		return errSyntax
	}
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case '"':
			s.at++
			return nil
		}
	}
	return errSyntax
}
