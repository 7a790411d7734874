package hasura

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// expression is a part of a Kriti template, which is JSON with expressions in double braces. Exactly one
// of its groups of fields is set.
type expression struct {
	object   []member
	isObject bool

	array   []*expression
	isArray bool

	parts  []*expression // a string: texts and expressions
	isText bool

	word string // a number, true, false or null, as JSON

	literal string // a part of a string that stands for itself
	isPart  bool

	root  string // a path: $body, ...
	steps []step

	call     string // a function with one argument
	argument *expression

	value, otherwise *expression // value ?? otherwise
}

type member struct {
	name  string
	value *expression
}

type step struct {
	name    string
	index   int
	isIndex bool
}

// unreachableError says what of a template rowhook.yaml can't say.
type unreachableError struct{ what string }

func (e *unreachableError) Error() string { return e.what }

func beyond(format string, args ...any) error {
	return &unreachableError{fmt.Sprintf(format, args...)}
}

// parseTemplate reads a template of a body.
func parseTemplate(source string) (*expression, error) {
	p := kriti{in: source}
	e, err := p.expression()
	if err != nil {
		return nil, err
	}
	if p.blanks(); p.at < len(p.in) {
		return nil, p.unknown()
	}
	return e, nil
}

// parseText reads a template of a URL, a query, a header or a form: the inside of a string.
func parseText(source string) (*expression, error) {
	p := kriti{in: source}
	e, err := p.text(false)
	if err != nil {
		return nil, err
	}
	if p.at < len(p.in) {
		return nil, p.unknown()
	}
	return e, nil
}

type kriti struct {
	in    string
	at    int
	depth int
}

func (p *kriti) rest() string { return p.in[p.at:] }

func (p *kriti) unknown() error {
	line := strings.Count(p.in[:p.at], "\n") + 1
	if p.at >= len(p.in) {
		return beyond("it ends in the middle of something")
	}
	r, _ := utf8.DecodeRuneInString(p.rest())
	return beyond("%q on line %d of it is not understood", r, line)
}

// blanks skips white space and comments.
func (p *kriti) blanks() {
	for {
		p.at += len(p.rest()) - len(strings.TrimLeft(p.rest(), " \t\r\n"))
		if !strings.HasPrefix(p.rest(), "#") {
			return
		}
		line, _, _ := strings.Cut(p.rest(), "\n")
		p.at += len(line)
	}
}

func (p *kriti) take(token string) bool {
	p.blanks()
	if !strings.HasPrefix(p.rest(), token) {
		return false
	}
	p.at += len(token)
	return true
}

const deepest = 100

func (p *kriti) expression() (*expression, error) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > deepest {
		return nil, beyond("it is nested deeper than %d levels", deepest)
	}
	e, err := p.atom()
	if err != nil {
		return nil, err
	}
	p.blanks()
	if p.take("??") {
		otherwise, err := p.expression()
		return &expression{value: e, otherwise: otherwise}, err
	}
	for _, operator := range []string{"==", "!=", ">=", "<=", "&&", "||", ">", "<", "in "} {
		if strings.HasPrefix(p.rest(), operator) {
			return nil, beyond("the operator %s", strings.TrimSpace(operator))
		}
	}
	return e, nil
}

var (
	identifier = regexp.MustCompile(`^(?:\$?[A-Za-z_][$A-Za-z0-9_-]*|\$)`)
	anyNumber  = regexp.MustCompile(`^-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?`)
)

func (p *kriti) atom() (*expression, error) {
	e, err := p.primary()
	for err == nil {
		optional := false
		if p.blanks(); strings.HasPrefix(p.rest(), "?") && !strings.HasPrefix(p.rest(), "??") {
			p.at++
			optional = true
			p.blanks()
		}
		switch {
		case e.root == "" && (strings.HasPrefix(p.rest(), ".") || strings.HasPrefix(p.rest(), "[")) && !e.isPart:
			return nil, beyond("a member of what is no path")
		case strings.HasPrefix(p.rest(), "."):
			p.at++
			p.blanks()
			name := identifier.FindString(p.rest())
			if name == "" {
				return nil, p.unknown()
			}
			p.at += len(name)
			e.steps = append(e.steps, step{name: name})
		case strings.HasPrefix(p.rest(), "["):
			p.at++
			err = p.index(e)
		case optional:
		default:
			return e, nil
		}
	}
	return nil, err
}

// index reads a step in brackets.
func (p *kriti) index(e *expression) error {
	p.blanks()
	rest := p.rest()
	switch {
	case strings.HasPrefix(rest, "'"):
		end := strings.IndexByte(rest[1:], '\'')
		if end < 0 {
			return p.unknown()
		}
		e.steps = append(e.steps, step{name: rest[1 : 1+end]})
		p.at += end + 2
	case strings.HasPrefix(rest, `"`):
		p.at++
		name, err := p.text(true)
		if err != nil {
			return err
		}
		plain, ok := name.plain()
		if !ok {
			return beyond("a member whose name is computed")
		}
		e.steps = append(e.steps, step{name: plain})
	default:
		digits := anyNumber.FindString(rest)
		n, err := strconv.Atoi(digits)
		if err != nil || n < 0 {
			return beyond("a member whose name or number is computed")
		}
		e.steps = append(e.steps, step{index: n, isIndex: true})
		p.at += len(digits)
	}
	if !p.take("]") {
		return p.unknown()
	}
	return nil
}

func (p *kriti) primary() (*expression, error) {
	p.blanks()
	rest := p.rest()
	switch {
	case strings.HasPrefix(rest, "{{"):
		return p.braces()
	case strings.HasPrefix(rest, "{"):
		return p.object()
	case strings.HasPrefix(rest, "["):
		return p.array()
	case strings.HasPrefix(rest, "("):
		p.at++
		e, err := p.expression()
		if err == nil && !p.take(")") {
			err = p.unknown()
		}
		return e, err
	case strings.HasPrefix(rest, `"`):
		p.at++
		return p.text(true)
	case strings.HasPrefix(rest, "'"):
		end := strings.IndexByte(rest[1:], '\'')
		if end < 0 {
			return nil, p.unknown()
		}
		p.at += end + 2
		return textOf(rest[1 : 1+end]), nil
	}
	if digits := anyNumber.FindString(rest); digits != "" {
		p.at += len(digits)
		return &expression{word: jsonNumber(digits)}, nil
	}
	return p.named()
}

// jsonNumber drops zeros in front of a number, which JSON does not have.
func jsonNumber(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		digits = digits[1:]
	}
	return sign + digits
}

// named reads what begins with a name.
func (p *kriti) named() (*expression, error) {
	name := identifier.FindString(p.rest())
	switch name {
	case "":
		return nil, p.unknown()
	case "true", "false", "null":
		p.at += len(name)
		return &expression{word: name}, nil
	case "if", "elif", "else", "end":
		return nil, beyond("the condition {{ if }}")
	case "range":
		return nil, beyond("the loop {{ range }}")
	case "not":
		return nil, beyond("the operator not")
	}
	p.at += len(name)
	if !p.take("(") {
		return &expression{root: name}, nil
	}
	argument, err := p.expression()
	if err == nil && !p.take(")") {
		err = p.unknown()
	}
	if err == nil && name == "concat" && argument.joins() {
		return &expression{isText: true, parts: argument.array}, nil
	}
	return &expression{call: name, argument: argument}, err
}

// joins reports whether concat of a list makes a text: one of its elements is a text, so that all of
// them are.
func (e *expression) joins() bool {
	return slices.ContainsFunc(e.array, func(item *expression) bool { return item.isText })
}

func (p *kriti) braces() (*expression, error) {
	p.at += len("{{")
	e, err := p.expression()
	if err == nil && !p.take("}}") {
		err = p.unknown()
	}
	return e, err
}

func (p *kriti) object() (*expression, error) {
	p.at++
	e := &expression{isObject: true}
	for first := true; ; first = false {
		if first && p.take("}") {
			return e, nil
		}
		if p.blanks(); !strings.HasPrefix(p.rest(), `"`) && !strings.HasPrefix(p.rest(), "'") {
			return nil, p.unknown()
		}
		key, err := p.primary()
		if err != nil {
			return nil, err
		}
		name, ok := key.plain()
		if !ok {
			return nil, beyond("a key that is computed")
		}
		if !p.take(":") {
			return nil, p.unknown()
		}
		value, err := p.expression()
		if err != nil {
			return nil, err
		}
		e.object = slices.DeleteFunc(e.object, func(m member) bool { return m.name == name })
		e.object = append(e.object, member{name, value})
		switch {
		case p.take(","):
		case p.take("}"):
			return e, nil
		default:
			return nil, p.unknown()
		}
	}
}

func (p *kriti) array() (*expression, error) {
	p.at++
	e := &expression{isArray: true}
	for first := true; ; first = false {
		if first && p.take("]") {
			return e, nil
		}
		value, err := p.expression()
		if err != nil {
			return nil, err
		}
		e.array = append(e.array, value)
		switch {
		case p.take(","):
		case p.take("]"):
			return e, nil
		default:
			return nil, p.unknown()
		}
	}
}

// text reads a string behind its quote, to the quote that ends it, or, without quotes, to the end.
func (p *kriti) text(quoted bool) (*expression, error) {
	e := &expression{isText: true}
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			e.parts = append(e.parts, &expression{isPart: true, literal: literal.String()})
			literal.Reset()
		}
	}
	for p.at < len(p.in) {
		rest := p.rest()
		switch {
		case quoted && rest[0] == '"':
			p.at++
			flush()
			return e, nil
		case strings.HasPrefix(rest, "{{"):
			flush()
			value, err := p.braces()
			if err != nil {
				return nil, err
			}
			e.parts = append(e.parts, value)
		case rest[0] == '\\':
			if err := p.escape(&literal); err != nil {
				return nil, err
			}
		default:
			literal.WriteByte(rest[0])
			p.at++
		}
	}
	if quoted {
		return nil, p.unknown()
	}
	flush()
	return e, nil
}

// escape reads a character behind a backslash. \{ is a brace that begins no expression.
func (p *kriti) escape(to *strings.Builder) error {
	rest := p.rest()
	length := min(2, len(rest))
	if strings.HasPrefix(rest, `\u`) {
		length = min(6, len(rest))
		if strings.HasPrefix(rest[length:], `\u`) && len(rest) >= 12 && strings.HasPrefix(strings.ToLower(rest[2:]), "d") {
			length = 12 // a pair of UTF-16
		}
	}
	if strings.HasPrefix(rest, `\{`) {
		to.WriteByte('{')
		p.at += length
		return nil
	}
	var s string
	if json.Unmarshal([]byte(`"`+rest[:length]+`"`), &s) != nil {
		return p.unknown()
	}
	to.WriteString(s)
	p.at += length
	return nil
}

func textOf(s string) *expression {
	return &expression{isText: true, parts: []*expression{{isPart: true, literal: s}}}
}

// plain returns a string without expressions.
func (e *expression) plain() (string, bool) {
	out := ""
	for _, part := range e.parts {
		if !part.isPart {
			return "", false
		}
		out += part.literal
	}
	return out, e.isText
}

// constant returns JSON that has no expressions.
func (e *expression) constant() (string, bool) {
	switch {
	case e.word != "":
		return e.word, true
	case e.isText:
		s, ok := e.plain()
		return quoted(s), ok
	case e.isArray:
		parts := make([]string, len(e.array))
		for i, item := range e.array {
			var ok bool
			if parts[i], ok = item.constant(); !ok {
				return "", false
			}
		}
		return "[" + strings.Join(parts, ",") + "]", true
	case e.isObject:
		parts := make([]string, len(e.object))
		for i, m := range e.object {
			value, ok := m.value.constant()
			if !ok {
				return "", false
			}
			parts[i] = quoted(m.name) + ":" + value
		}
		return "{" + strings.Join(parts, ",") + "}", true
	}
	return "", false
}

// quoted returns a text as JSON.
func quoted(s string) string {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(s) // a string can always be encoded
	return strings.TrimSuffix(out.String(), "\n")
}
