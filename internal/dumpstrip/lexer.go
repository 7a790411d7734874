package dumpstrip

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// token is a part of a statement.
type token struct {
	kind kind
	text string // a name as Postgres stores it; the content of a string, up to mostText
}

type kind byte

const (
	word   kind = iota // a name or a keyword, in small letters
	quoted             // a name in quotes
	text               // a string
	sign               // any other character
)

const (
	mostText   = 1 << 20 // kept bytes of a token
	mostTokens = 64      // kept tokens of a statement that can be judged by its beginning
)

// lexer reads one statement.
type lexer struct {
	s        *stripper
	raw      []byte // bytes that were read and not written yet
	tokens   []token
	count    int  // all tokens, including those that were not kept
	ended    bool // the statement has ended
	escapes  bool // backslashes are escapes in plain strings
	parens   int  // depth of parentheses
	atomic   int  // depth of BEGIN ATOMIC and CASE
	mentions bool // it refers to the schema rowhook
	copying  bool // it is COPY ... FROM stdin
	last     [2]token
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func beginsName(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// next reads a byte. ok is false at the end of the dump.
func (l *lexer) next() (c byte, ok bool, err error) {
	c, err = l.s.in.ReadByte()
	switch {
	case errors.Is(err, io.EOF):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("read the dump: %w", err)
	}
	if c == '\n' {
		l.s.line++
	}
	l.raw = append(l.raw, c)
	return c, true, nil
}

// ahead returns the byte n bytes ahead without reading it, and 0 at the end of the dump.
func (l *lexer) ahead(n int) byte {
	b, _ := l.s.in.Peek(n + 1) // the next read returns the error again
	if len(b) <= n {
		return 0
	}
	return b[n]
}

// token reads a token, with the white space and comments before it. At the end of the statement it
// sets ended.
func (l *lexer) token() error {
	for {
		c, ok, err := l.next()
		if err != nil {
			return err
		}
		switch {
		case !ok:
			l.ended = true
			return nil
		case isSpace(c):
			continue
		case c == '-' && l.ahead(0) == '-':
			if err := l.lineComment(); err != nil {
				return err
			}
			continue
		case c == '/' && l.ahead(0) == '*':
			if err := l.blockComment(); err != nil {
				return err
			}
			continue
		case c == ';' && l.parens <= 0 && l.atomic == 0:
			l.ended = true
			l.copying = l.copying || l.isCopy()
			return nil
		case c == '\'':
			return l.str(l.escapes)
		case c == '"':
			return l.quotedName()
		case (c == 'e' || c == 'E') && l.ahead(0) == '\'':
			if _, _, err := l.next(); err != nil {
				return err
			}
			return l.str(true)
		case beginsName(c):
			return l.name(c)
		case isDigit(c):
			return l.number()
		case c == '$':
			return l.dollar()
		}
		switch c {
		case '(':
			l.parens++
		case ')':
			l.parens--
		}
		l.add(token{sign, string(rune(c))})
		return nil
	}
}

func (l *lexer) lineComment() error {
	for {
		c, ok, err := l.next()
		if err != nil || !ok || c == '\n' {
			return err
		}
	}
}

// blockComment reads the rest of a comment after its first slash.
func (l *lexer) blockComment() error {
	began, depth := l.s.line, 1
	if _, _, err := l.next(); err != nil {
		return err
	}
	for {
		c, ok, err := l.next()
		switch {
		case err != nil:
			return err
		case !ok:
			return fmt.Errorf("the dump ends within the comment that begins at line %d: it is incomplete, so dump again", began)
		case c == '/' && l.ahead(0) == '*':
			depth++
		case c == '*' && l.ahead(0) == '/':
			depth--
		default:
			continue
		}
		if _, _, err := l.next(); err != nil || depth == 0 {
			return err
		}
	}
}

func (l *lexer) str(escapes bool) error {
	var b strings.Builder
	began := l.s.line
	for {
		c, ok, err := l.next()
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("the dump ends within the string that begins at line %d: it is incomplete, so dump again", began)
		}
		switch {
		case c == '\'' && l.ahead(0) == '\'', c == '\\' && escapes:
			if c, _, err = l.next(); err != nil {
				return err
			}
		case c == '\'':
			l.add(token{text, b.String()})
			return nil
		}
		if b.Len() < mostText {
			b.WriteByte(c)
		}
	}
}

func (l *lexer) quotedName() error {
	var b strings.Builder
	began := l.s.line
	for {
		c, ok, err := l.next()
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("the dump ends within the quoted name that begins at line %d: it is incomplete, so dump again", began)
		}
		if c == '"' {
			if l.ahead(0) != '"' {
				l.add(token{quoted, b.String()})
				return nil
			}
			if _, _, err := l.next(); err != nil {
				return err
			}
		}
		if b.Len() < mostText {
			b.WriteByte(c)
		}
	}
}

func (l *lexer) name(first byte) error {
	b := []byte{first}
	for c := l.ahead(0); beginsName(c) || isDigit(c) || c == '$'; c = l.ahead(0) {
		if _, _, err := l.next(); err != nil {
			return err
		}
		if len(b) < mostText {
			b = append(b, c)
		}
	}
	l.add(token{word, strings.ToLower(string(b))})
	return nil
}

func (l *lexer) number() error {
	for c := l.ahead(0); beginsName(c) || isDigit(c) || c == '.'; c = l.ahead(0) {
		if _, _, err := l.next(); err != nil {
			return err
		}
	}
	l.add(token{sign, "0"})
	return nil
}

// dollar reads a string in dollar quotes, or a parameter such as $1, after its first dollar.
func (l *lexer) dollar() error {
	n := 0
	for c := l.ahead(n); beginsName(c) || n > 0 && isDigit(c); c = l.ahead(n) {
		if n++; n > 256 {
			break
		}
	}
	if l.ahead(n) != '$' {
		l.add(token{sign, "$"})
		return nil
	}
	begin := len(l.raw) - 1
	for range n + 1 {
		if _, _, err := l.next(); err != nil {
			return err
		}
	}
	tag := string(l.raw[begin:])
	began := l.s.line
	var b []byte // the beginning of the string, and the last bytes, which may be the closing tag
	for {
		c, ok, err := l.next()
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("the dump ends within the string that begins with %s at line %d: it is incomplete, so dump again", tag, began)
		}
		if b = append(b, c); c == '$' && strings.HasSuffix(string(b[max(0, len(b)-len(tag)):]), tag) {
			l.add(token{text, string(b[:len(b)-len(tag)])})
			return nil
		}
	}
}

// inBody matches references to the schema rowhook in the body of a user's function.
var inBody = regexp.MustCompile(`(?i)(^|[^a-z0-9_$."])("rowhook"|rowhook)\s*\.\s*["a-z_]`)

// add adds a token to the statement.
func (l *lexer) add(t token) {
	l.count++
	if l.count <= mostTokens || l.whole() {
		l.tokens = append(l.tokens, t)
	}
	if l.isRoutine() && l.parens == 0 && t.kind == word {
		// psql finds the end of a routine with an SQL body in the same way.
		switch {
		case t.text == "begin", t.text == "case" && l.atomic > 0:
			l.atomic++
		case t.text == "end" && l.atomic > 0:
			l.atomic--
		}
	}
	switch before, dot := l.last[0], l.last[1]; {
	case l.isData():
	case t.kind == word || t.kind == quoted:
		l.mentions = l.mentions || before.is(schema) && dot == token{sign, "."}
	case t.kind == text && (l.isRoutine() || l.first("do")):
		l.mentions = l.mentions || t.text == schema || inBody.MatchString(t.text)
	case t.kind == text && dot == token{sign, "("} && (before.is("nextval") || before.is("currval") || before.is("setval")):
		l.mentions = l.mentions || strings.HasPrefix(strings.ReplaceAll(t.text, `"`, ""), schema+".")
	}
	l.last[0], l.last[1] = l.last[1], t
	l.copying = l.isCopy()
}

// is reports whether the token is this name.
func (t token) is(name string) bool { return (t.kind == word || t.kind == quoted) && t.text == name }

func (l *lexer) first(keyword string) bool {
	return len(l.tokens) > 0 && l.tokens[0] == token{word, keyword}
}

// isData reports whether the statement contains data, in which any text may occur.
func (l *lexer) isData() bool { return l.first("insert") || l.first("copy") || l.first("set") }

// isRoutine reports whether the statement creates a function or procedure.
func (l *lexer) isRoutine() bool {
	if !l.first("create") {
		return false
	}
	i := 1
	if l.at(i, "or") && l.at(i+1, "replace") {
		i += 2
	}
	return l.at(i, "function") || l.at(i, "procedure")
}

// whole reports whether the statement can't be judged by its beginning. The function of a trigger
// is at the end. In GRANT and REVOKE many columns may come before the object.
func (l *lexer) whole() bool {
	if l.first("grant") || l.first("revoke") {
		return true
	}
	for i := 1; l.first("create") && i < min(5, len(l.tokens)); i++ {
		if l.at(i, "trigger") {
			return true
		}
	}
	return false
}

// at reports whether token i is this keyword.
func (l *lexer) at(i int, keyword string) bool {
	return i < len(l.tokens) && l.tokens[i] == token{word, keyword}
}

// isCopy reports whether the statement so far is COPY ... FROM stdin.
func (l *lexer) isCopy() bool {
	return l.copying || l.first("copy") && l.last[0] == token{word, "from"} && l.last[1] == token{word, "stdin"}
}

// copies reports whether rows follow the statement.
func (l *lexer) copies() bool { return l.ended && l.copying }

// setting returns the name and the value of a SET or RESET. ok is false for other statements.
func (l *lexer) setting() (name, value string, ok bool) {
	switch {
	case l.at(1, "session") && l.at(2, "authorization") && (l.first("set") || l.first("reset")):
		if l.first("reset") || l.at(3, "default") {
			return "session authorization", "", true
		}
		if len(l.tokens) == 4 {
			return "session authorization", l.tokens[3].text, true
		}
	case l.first("set") && len(l.tokens) == 4 && (l.tokens[2] == token{sign, "="} || l.at(2, "to")):
		return l.tokens[1].text, l.tokens[3].text, true
	}
	return "", "", false
}

// beginning returns the beginning of the statement, by which a person recognizes it.
func (l *lexer) beginning() string {
	var b strings.Builder
	for i, t := range l.tokens {
		if i >= 10 || t == (token{sign, "("}) || t.kind == text || i > 2 && (t.is("as") || t.is("using") || t.is("returns")) {
			break
		}
		dot := t.text == "." || i > 0 && l.tokens[i-1].text == "."
		if i > 0 && !dot {
			b.WriteByte(' ')
		}
		if t.kind == word && i < 2 {
			t.text = strings.ToUpper(t.text)
		}
		b.WriteString(t.text)
	}
	return b.String()
}

// beginningOf returns a statement's tokens in small letters, each followed by a space.
func beginningOf(tokens []token) string {
	var b strings.Builder
	for _, t := range tokens {
		if t.kind == text {
			t.text = "''"
		}
		b.WriteString(t.text)
		b.WriteByte(' ')
	}
	return b.String()
}
