package sequin

import (
	"regexp"
	"strconv"
	"strings"
)

// value is an expression of a function of Sequin, which is code in Elixir. Only what a condition in SQL
// or a template can say is read.
type value struct {
	kind    valueKind
	text    string   // of a constant; the root of a path; the operator or function
	names   []string // of a path: the members behind its root; of a map: its keys
	members []value  // of a list or a map, the pieces of a text, or what an operator or function is applied to
}

type valueKind int8

const (
	textValue   valueKind = iota // text is a string
	wordValue                    // text is a number, true, false or nil
	textPieces                   // members are texts and expressions in #{}
	pathValue                    // record["a"]["b"], changes["a"], metadata.table_name, action
	listValue                    // [a, b]
	mapValue                     // %{a: 1, "b" => 2}
	appliedTerm                  // members[0] operator members[1], function(members...)
)

var (
	// function is the code of a function: its head, and what it returns.
	function    = regexp.MustCompile(`^(?s:\s*def\s+\w+\s*\(\s*action\s*,\s*record\s*,\s*changes\s*,\s*metadata\s*\)\s+do\b(.*)\bend\s*)$`)
	elixirToken = regexp.MustCompile(`^(?:[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*[?!]?|-?[0-9][0-9_]*(?:\.[0-9]+)?|===|!==|==|!=|>=|<=|=>|&&|\|\||%\{|[<>!()\[\]{},:])`)
)

// elixir reads the code of a function.
type elixir struct {
	in string
	ok bool
}

// parseFunction reads what a function returns. It returns false for code that does more than return one
// expression, or has what is not read.
func parseFunction(code string) (value, bool) {
	m := function.FindStringSubmatch(code)
	if m == nil {
		return value{}, false
	}
	p := &elixir{in: m[1], ok: true}
	v := p.expression(0)
	return v, p.ok && p.peek() == ""
}

// peek returns the next token, without reading it; "" at the end. A text is its quote.
func (p *elixir) peek() string {
	for {
		p.in = strings.TrimLeft(p.in, " \t\r\n")
		if !strings.HasPrefix(p.in, "#") {
			break
		}
		_, p.in, _ = strings.Cut(p.in, "\n")
	}
	if strings.HasPrefix(p.in, `"`) {
		return `"`
	}
	token := elixirToken.FindString(p.in)
	if token == "" && p.in != "" {
		p.ok = false
	}
	return token
}

func (p *elixir) take(token string) bool {
	if !p.ok || p.peek() != token {
		return false
	}
	p.in = p.in[len(token):]
	return true
}

func (p *elixir) need(token string) {
	if !p.take(token) {
		p.ok = false
	}
}

// operators by how strongly they bind, the weakest first, each with the name that it has here.
var operators = []map[string]string{
	{"or": "or", "||": "or"},
	{"and": "and", "&&": "and"},
	{"==": "=", "===": "=", "!=": "<>", "!==": "<>"},
	{"<": "<", ">": ">", "<=": "<=", ">=": ">="},
	{"in": "in"},
}

func (p *elixir) expression(level int) value {
	if level == len(operators) {
		return p.unary()
	}
	left := p.expression(level + 1)
	for p.ok {
		token, negated := p.peek(), false
		if level == len(operators)-1 && token == "not" { // not in
			p.take("not")
			token, negated = p.peek(), true
		}
		name := operators[level][token]
		if name == "" {
			p.ok = p.ok && !negated
			return left
		}
		p.take(token)
		left = value{kind: appliedTerm, text: name, members: []value{left, p.expression(level + 1)}}
		if negated {
			left = value{kind: appliedTerm, text: "not", members: []value{left}}
		}
	}
	return left
}

func (p *elixir) unary() value {
	if p.take("not") || p.take("!") {
		operand := p.unary()
		if p.take("in") { // not a in b is not (a in b)
			operand = value{kind: appliedTerm, text: "in", members: []value{operand, p.unary()}}
		}
		return value{kind: appliedTerm, text: "not", members: []value{operand}}
	}
	return p.primary()
}

func (p *elixir) primary() value {
	switch token := p.peek(); {
	case token == `"`:
		return p.string()
	case p.take("("):
		v := p.expression(0)
		p.need(")")
		return v
	case p.take("["):
		return value{kind: listValue, members: p.until("]")}
	case p.take("%{"):
		return p.object()
	case token == "true" || token == "false" || token == "nil":
		p.take(token)
		return value{kind: wordValue, text: token}
	case token != "" && (token[0] == '-' || token[0] >= '0' && token[0] <= '9'):
		p.take(token)
		return value{kind: wordValue, text: strings.ReplaceAll(token, "_", "")}
	case token == "is_nil" || token == "Map.get" || token == "Map.has_key?": //nolint:gosec // names of functions
		p.take(token)
		p.need("(")
		return called(token, p.until(")"))
	default:
		return p.path(token)
	}
}

// called is a function with its arguments. Map.get is another form of a path.
func called(name string, arguments []value) value {
	if name == "Map.get" && len(arguments) == 2 && arguments[0].kind == pathValue && arguments[1].kind == textValue {
		path := arguments[0]
		path.names = append(path.names, arguments[1].text)
		return path
	}
	return value{kind: appliedTerm, text: name, members: arguments}
}

// path reads a name, and the members in brackets behind it.
func (p *elixir) path(token string) value {
	root, rest, dotted := strings.Cut(token, ".")
	v := value{kind: pathValue, text: root}
	switch root {
	case "record", "changes", "metadata", "action":
		p.take(token)
	default:
		p.ok = false
		return v
	}
	if dotted {
		v.names = strings.Split(rest, ".")
	}
	for p.ok && strings.HasPrefix(p.in, "[") { // without a blank, as another list would have
		p.take("[")
		name := p.expression(0)
		p.need("]")
		p.ok = p.ok && name.kind == textValue
		v.names = append(v.names, name.text)
	}
	return v
}

func (p *elixir) until(end string) (all []value) {
	for p.ok && !p.take(end) {
		all = append(all, p.expression(0))
		if !p.take(",") && p.ok && p.peek() != end {
			p.ok = false
		}
	}
	return all
}

// object reads a map behind %{.
func (p *elixir) object() value {
	v := value{kind: mapValue}
	for p.ok && !p.take("}") {
		name := p.peek()
		if name == `"` {
			key := p.string()
			name, p.ok = key.text, p.ok && key.kind == textValue
			if !p.take(":") {
				p.need("=>")
			}
		} else {
			p.take(name)
			p.need(":")
		}
		v.names, v.members = append(v.names, name), append(v.members, p.expression(0))
		if !p.take(",") && p.ok && p.peek() != "}" {
			p.ok = false
		}
	}
	return v
}

// string reads a text in double quotes.
func (p *elixir) string() value {
	p.in = p.in[1:]
	var literal strings.Builder
	v := value{kind: textPieces}
	flush := func() {
		if literal.Len() > 0 {
			v.members = append(v.members, value{text: literal.String()})
			literal.Reset()
		}
	}
	for p.ok {
		switch {
		case p.in == "":
			p.ok = false
		case p.in[0] == '"':
			p.in = p.in[1:]
			if len(v.members) == 0 {
				return value{text: literal.String()}
			}
			flush()
			return v
		case strings.HasPrefix(p.in, "#{"):
			flush()
			p.in = p.in[2:]
			v.members = append(v.members, p.expression(0))
			p.need("}")
		case p.in[0] == '\\':
			c, _, rest, err := strconv.UnquoteChar(p.in, '"')
			if strings.HasPrefix(p.in, `\#`) {
				c, rest, err = '#', p.in[2:], nil
			}
			p.ok = err == nil
			literal.WriteRune(c)
			p.in = rest
		default:
			literal.WriteByte(p.in[0])
			p.in = p.in[1:]
		}
	}
	return v
}
