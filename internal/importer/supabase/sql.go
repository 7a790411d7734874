package supabase

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind is the kind of a token of SQL.
type kind byte

const (
	word   kind = iota // a name or a keyword without quotes, in small letters
	quoted             // a name in double quotes, without them
	text               // the value of a string
	number             // as it is written
	symbol             // any other character
	body               // the text between dollar signs
	bound              // a value that psql or another program fills in, such as :'url'
)

// token is a token of SQL with its place in the text.
type token struct {
	kind       kind
	text       string
	start, end int // bytes in the source
	line       int
}

// is reports whether a token is a keyword, a name without quotes or a symbol.
func (t token) is(s string) bool { return (t.kind == word || t.kind == symbol) && t.text == s }

// isName reports whether a token can be a name.
func (t token) isName() bool { return t.kind == word || t.kind == quoted }

// scanner reads tokens of SQL as PostgreSQL and psql do. Comments and the data of COPY are none.
type scanner struct {
	src  string
	pos  int
	line int
}

// statements returns the statements of SQL text, each without its semicolon. firstLine is the line
// number of its beginning.
func statements(src string, firstLine int) (all [][]token) {
	s := &scanner{src: src, line: firstLine}
	var now []token
	end := func() {
		if len(now) > 0 {
			all = append(all, now)
		}
		now = nil
	}
	for {
		t, ok := s.next(len(now) == 0)
		if !ok {
			end()
			return all
		}
		if t.is(";") {
			if copies(now) {
				s.skipData()
			}
			end()
			continue
		}
		now = append(now, t)
	}
}

// copies reports whether lines of data follow a statement.
func copies(tokens []token) bool {
	n := len(tokens)
	if n < 3 || !tokens[0].is("copy") {
		return false
	}
	for i := 1; i+1 < n; i++ {
		if tokens[i].is("from") && tokens[i+1].is("stdin") {
			return true
		}
	}
	return false
}

// skipData skips the data of a COPY, to the line \. or the end.
func (s *scanner) skipData() {
	for first := true; s.pos < len(s.src); first = false {
		line, _, _ := strings.Cut(s.src[s.pos:], "\n")
		s.advance(min(len(line)+1, len(s.src)-s.pos))
		if !first && strings.TrimRight(line, "\r") == `\.` {
			return
		}
	}
}

func (s *scanner) advance(n int) {
	s.line += strings.Count(s.src[s.pos:s.pos+n], "\n")
	s.pos += n
}

// skip skips spaces and comments.
func (s *scanner) skip() {
	for s.pos < len(s.src) {
		rest := s.src[s.pos:]
		switch {
		case strings.ContainsRune(" \t\r\n\f\v\ufeff", first(rest)):
			s.advance(len(string(first(rest))))
		case strings.HasPrefix(rest, "--"):
			line, _, _ := strings.Cut(rest, "\n")
			s.advance(len(line))
		case strings.HasPrefix(rest, "/*"):
			s.advance(commentLength(rest))
		default:
			return
		}
	}
}

func first(s string) rune {
	r, _ := utf8.DecodeRuneInString(s)
	return r
}

// commentLength returns the length of a block comment, in which others may be.
func commentLength(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); {
		switch s[i : i+2] {
		case "/*":
			depth, i = depth+1, i+2
		case "*/":
			depth, i = depth-1, i+2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return len(s)
}

// next returns the next token. atStart says that it would begin a statement, where psql has its own
// commands.
func (s *scanner) next(atStart bool) (token, bool) {
	s.skip()
	for atStart && s.pos < len(s.src) && s.src[s.pos] == '\\' { // \connect, \restrict
		line, _, _ := strings.Cut(s.src[s.pos:], "\n")
		s.advance(len(line))
		s.skip()
	}
	if s.pos >= len(s.src) {
		return token{}, false
	}
	t := token{start: s.pos, line: s.line}
	rest := s.src[s.pos:]
	c, length := utf8.DecodeRuneInString(rest)
	switch {
	case c == '\'':
		t.kind = text
		t.text, length = s.str(rest, false)
	case (c == 'e' || c == 'E') && len(rest) > 1 && rest[1] == '\'':
		t.kind = text
		t.text, length = s.str(rest[1:], true)
		length++
	case (c == 'n' || c == 'N') && len(rest) > 1 && rest[1] == '\'':
		t.kind = text
		t.text, length = s.str(rest[1:], false)
		length++
	case c == '"':
		t.kind = quoted
		t.text, length = delimited(rest, '"')
	case c == '$' && dollarTag(rest) != "":
		tag := dollarTag(rest)
		t.kind = body
		inner, _, found := strings.Cut(rest[len(tag):], tag)
		t.text, length = inner, len(tag)+len(inner)
		if found {
			length += len(tag)
		}
	case isLetter(c):
		for length < len(rest) {
			r := first(rest[length:])
			if !isLetter(r) && r != '$' && (r < '0' || r > '9') {
				break
			}
			length += len(string(r))
		}
		t.kind, t.text = word, strings.ToLower(rest[:length])
	case c >= '0' && c <= '9':
		for length < len(rest) && (rest[length] >= '0' && rest[length] <= '9' || rest[length] == '.' || rest[length] == '_') {
			length++
		}
		t.kind, t.text = number, rest[:length]
	case c == ':' && len(rest) > 1 && (rest[1] == '\'' || rest[1] == '"' || isLetter(first(rest[1:]))):
		t.kind = bound
		if rest[1] == '\'' || rest[1] == '"' {
			_, length = delimited(rest[1:], rest[1])
			length++
		} else {
			for length < len(rest) && isLetter(first(rest[length:])) {
				length++
			}
		}
		t.text = rest[:length]
	default:
		t.kind, t.text = symbol, rest[:length]
	}
	s.advance(length)
	t.end = s.pos
	return t, true
}

func isLetter(r rune) bool {
	return r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80 && r != utf8.RuneError && r != 0xfeff
}

// delimited reads what is between a character and its next occurrence. Twice, it stands for itself.
func delimited(s string, mark byte) (value string, length int) {
	var out strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != mark {
			out.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == mark {
			out.WriteByte(mark)
			i++
			continue
		}
		return out.String(), i + 1
	}
	return out.String(), len(s)
}

// str reads a string, and strings on further lines that continue it.
func (s *scanner) str(rest string, escapes bool) (value string, length int) {
	read := delimited1
	if escapes {
		read = escaped
	}
	value, length = read(rest)
	for {
		gap := len(rest[length:]) - len(strings.TrimLeft(rest[length:], " \t\r\n\f\v"))
		after := rest[length+gap:]
		if !strings.Contains(rest[length:length+gap], "\n") || !strings.HasPrefix(after, "'") {
			return value, length
		}
		more, n := read(after)
		value, length = value+more, length+gap+n
	}
}

func delimited1(s string) (value string, length int) { return delimited(s, '\'') }

// escaped reads a string with escapes, as E'...' has them.
func escaped(s string) (value string, length int) {
	var out strings.Builder
	simple := map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', 'b': '\b', 'f': '\f'}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			plain, isSimple := simple[s[i]]
			coded, length := character(s[i:])
			switch {
			case length > 0:
				out.WriteString(coded)
				i += length - 1
			case isSimple:
				out.WriteByte(plain)
			default:
				out.WriteByte(s[i])
			}
		case c != '\'':
			out.WriteByte(c)
		case i+1 < len(s) && s[i+1] == '\'':
			out.WriteByte(c)
			i++
		default:
			return out.String(), i + 1
		}
	}
	return out.String(), len(s)
}

// character returns what the code of an escape stands for, such as x41, 101 and u0041, and the length of
// the code; 0: it is none.
func character(s string) (value string, length int) {
	start, base, most := 1, 16, 2
	switch c := s[0]; {
	case c == 'x':
	case c == 'u':
		most = 4
	case c == 'U':
		most = 8
	case c >= '0' && c <= '7':
		start, base, most = 0, 8, 3
	default:
		return "", 0
	}
	end := start
	for end < len(s) && end-start < most && strings.IndexByte("0123456789abcdef"[:base], s[end]|0x20) >= 0 {
		end++
	}
	code, err := strconv.ParseUint(s[start:end], base, 32)
	if err != nil { // no digits
		return "", 0
	}
	if most >= 4 {
		return string(rune(code)), end
	}
	return string([]byte{byte(code)}), end
}

// dollarTag returns the delimiter with which a text in dollar signs begins, or "".
func dollarTag(s string) string {
	for i, r := range s[1:] {
		switch {
		case r == '$':
			return s[:i+2]
		case isLetter(r), i > 0 && r >= '0' && r <= '9':
		default:
			return ""
		}
	}
	return ""
}

// parser reads the tokens of one statement.
type parser struct {
	src string
	all []token
	at  int
}

func (p *parser) more() bool { return p.at < len(p.all) }

func (p *parser) peek() token {
	if !p.more() {
		return token{kind: symbol}
	}
	return p.all[p.at]
}

// take skips the keywords, if they come next.
func (p *parser) take(words ...string) bool {
	for i, w := range words {
		if p.at+i >= len(p.all) || !p.all[p.at+i].is(w) {
			return false
		}
	}
	p.at += len(words)
	return true
}

// name reads a name.
func (p *parser) name() (string, bool) {
	if t := p.peek(); t.isName() {
		p.at++
		return t.text, true
	}
	return "", false
}

// qualified reads a name with its schema, which may be missing.
func (p *parser) qualified() (schema, name string, ok bool) {
	if name, ok = p.name(); !ok {
		return "", "", false
	}
	for p.peek().is(".") {
		p.at++
		schema = name
		if name, ok = p.name(); !ok {
			return "", "", false
		}
	}
	return schema, name, true
}

// parenthesized reads what is in parentheses, without them.
func (p *parser) parenthesized() (inner []token, ok bool) {
	if !p.take("(") {
		return nil, false
	}
	depth, from := 1, p.at
	for ; p.more(); p.at++ {
		switch {
		case p.peek().is("("):
			depth++
		case p.peek().is(")"):
			depth--
		}
		if depth == 0 {
			inner = p.all[from:p.at]
			p.at++
			return inner, true
		}
	}
	return nil, false
}

// sourceOf returns the text of tokens as it is written, with one space in the place of spaces,
// comments and line breaks.
func sourceOf(src string, tokens []token) string {
	var out strings.Builder
	for i, t := range tokens {
		if i > 0 && tokens[i-1].end < t.start {
			out.WriteByte(' ')
		}
		out.WriteString(src[t.start:t.end])
	}
	return out.String()
}
