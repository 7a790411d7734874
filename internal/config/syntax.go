package config

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxDepth is the deepest nesting that is parsed. A valid file has 6 levels. The YAML parser
// recurses, and its time grows with the square of the depth.
const maxDepth = 50

// parse reads the text as one YAML document. If it is not YAML, parse reports that and returns nil.
func (d *decoder) parse(data []byte) ast.Node {
	text, ok := d.readable(data)
	if !ok {
		return nil
	}
	tokens := lexer.Tokenize(text)
	if t := TooDeep(tokens, maxDepth); t != nil {
		d.reportAt(position(t), nil, "is nested more than %d levels deep; check the brackets and dashes here", maxDepth)
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.syntaxError(text, err)
		return nil
	}
	return d.onlyDocument(file)
}

// readable checks that the file is UTF-8 text, and turns its line ends into \n.
func (d *decoder) readable(data []byte) (string, bool) {
	if len(data) > MaxSize {
		d.reportAt(Position{}, nil, "is larger than %d MB; is this the right file?", MaxSize>>20)
		return "", false
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		d.reportAt(Position{Line: 1, Column: 1}, nil, "is UTF-16 text; save it as UTF-8")
		return "", false
	}
	text, bom := strings.CutPrefix(string(data), "\ufeff")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if at := firstBadByte(line); at >= 0 {
			// No excerpt: it would print the bad bytes.
			p := Position{Line: i + 1, Column: utf8.RuneCountInString(line[:at]) + 1}
			r, size := utf8.DecodeRuneInString(line[at:])
			if r == utf8.RuneError && size == 1 {
				d.reportAt(p, nil, "byte 0x%02x is not UTF-8; save the file as UTF-8", line[at])
			} else {
				d.reportAt(p, nil, "control character U+%04X is not allowed; remove it, or write it as \"\\u%04x\" in double quotes", r, r)
			}
			return "", false
		}
	}
	d.lines[d.name] = lines
	if bom {
		d.reportAt(Position{Line: 1, Column: 1}, nil, "starts with a byte order mark; save the file as UTF-8 without one (without BOM)")
	}
	if strings.TrimSpace(text) == "" {
		d.reportAt(Position{}, nil, "%s", emptyFile)
		return "", false
	}
	return text, true
}

const emptyFile = "contains no configuration; start with triggers: and an entry, or write triggers: [] for none"

// firstBadByte returns the index of the first byte that is not UTF-8 or begins a control character;
// -1: none.
func firstBadByte(s string) int {
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		case r < ' ' && r != '\t', r >= 0x7f && r < 0xa0, r == '\ufeff':
			return i
		}
	}
	return -1
}

// TooDeep returns the token by which YAML is nested deeper than depth; nil: none is. Brackets count,
// the dashes and question marks of one line, and keys that are indented by more than four columns for
// each level.
func TooDeep(tokens token.Tokens, depth int) *token.Token {
	flow, line, onLine := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, onLine = t.Position.Line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			onLine++
		}
		indented := flow == 0 && t.Type == token.MappingValueType && min(t.Position.Column, t.Position.IndentNum) > 4*depth
		if flow+onLine > depth || indented {
			return t
		}
	}
	return nil
}

// onlyDocument returns the content of the file. It reports further documents, and a file without
// content.
func (d *decoder) onlyDocument(file *ast.File) ast.Node {
	var root ast.Node
	for _, doc := range file.Docs {
		switch body := doc.Body.(type) {
		case nil:
		case *ast.DirectiveNode:
			d.reportAt(nodePosition(body), nil, "YAML directives (lines that start with %%) are not supported; remove the line")
		default:
			if root != nil {
				p := nodePosition(body)
				if doc.Start != nil {
					p = position(doc.Start)
				}
				d.reportAt(p, nil, "a second YAML document starts here; keep one: remove the --- and the other document")
				continue
			}
			root = body
		}
	}
	if root == nil && len(d.problems) == 0 {
		d.reportAt(Position{}, nil, "%s", emptyFile)
	}
	return root
}

// syntaxRemedies translates messages of the parser. The first entry whose text is in the parser's
// message applies.
var syntaxRemedies = []struct{ parser, wrong, remedy string }{
	{"cannot start any token", "a tab is used to indent", "indent with spaces"},
	{"tab character", "a tab is used to indent", "indent with spaces"},
	{"mapping value is not allowed in this context", "a colon makes this a key where no key can be", "check the indentation, and put a value that contains a colon and a space in quotes"},
	{"map key-value is pre-defined", "there is more text after the closing quote", "put the whole value in single quotes and double each ' in it, or put it on separate lines under key: |"},
	{"value is not allowed in this context", "the indentation matches no line above", "align the line with the keys or the dashes that it belongs to"},
	{"non-map value is specified", "this is not a key with a value", "write key: value, with a space after the colon, and a space after a leading dash"},
	{"',' or '}' must be specified", "inside { } a comma or the closing } is missing", "check the braces, and put values that contain { } [ ] or a comma in quotes, as in {url: \"${NAME}\"}"},
	{"',' or ']' must be specified", "inside [ ] a comma or the closing ] is missing", "check the brackets, and put values that contain [ ] { } or a comma in quotes"},
	{"mapping end token", "this { is never closed", "add the }"},
	{"sequence end token", "this [ is never closed", "add the ]"},
	{"end character of double-quoted", "this double quote is never closed", "add the closing \""},
	{"end character of single-quoted", "this single quote is never closed", "add the closing ', and double each ' inside the text"},
	{"is a reserved character", "a value can't start with @ or `", "put the value in quotes"},
	{"unexpected directive", "a value can't start with %", "put the value in quotes"},
	{"invalid key for this map", "this is not a key", "write a plain word, a colon and a space before the value"},
	{"escape", "YAML does not know this escape in double quotes", "double the backslash, or use single quotes"},
}

func (d *decoder) syntaxError(text string, err error) {
	message, p := err.Error(), Position{Line: 1, Column: 1}
	if se, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		message = se.Message
		if se.Token != nil {
			p = position(se.Token)
		}
	}
	const rest = " (the rest of the file is checked when this is fixed)"
	for _, s := range syntaxRemedies {
		if !strings.Contains(message, s.parser) {
			continue
		}
		if s.remedy == "indent with spaces" && d.tabs(text) {
			return
		}
		if strings.Contains(s.parser, "must be specified") && p.Line <= len(d.lines[d.name]) && strings.Contains(d.lines[d.name][p.Line-1], "${") {
			d.reportAt(p, nil, "inside { } and [ ] a value that contains ${NAME} needs quotes; write it like {url: \"${NAME}/path\"}%s", rest)
			return
		}
		d.reportAt(p, nil, "%s; %s%s", s.wrong, s.remedy, rest)
		return
	}
	d.reportAt(p, nil, "this is not YAML: %s; check the indentation, the quotes and the brackets%s", message, rest)
}

// tabs reports every line that is indented with a tab.
func (d *decoder) tabs(text string) bool {
	found := false
	for i, line := range strings.Split(text, "\n") {
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t-"))]
		content := strings.TrimSpace(line[len(indent):])
		if at := strings.IndexByte(indent, '\t'); at >= 0 && content != "" && content[0] != '#' {
			found = true
			d.reportAt(Position{Line: i + 1, Column: at + 1}, nil, "a tab is used to indent; indent with spaces")
		}
	}
	return found
}

func position(t *token.Token) Position {
	return Position{Line: t.Position.Line, Column: t.Position.Column}
}

// nodePosition returns where a value starts. A block of keys starts at its first key.
func nodePosition(n ast.Node) Position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return nodePosition(m.Values[0].Key)
	}
	return position(n.GetToken())
}

// describe names the kind of a value, for messages.
func describe(n ast.Node) string {
	switch n := n.(type) {
	case *ast.MappingNode:
		return "a group of keys"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return strconv.FormatBool(n.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + n.GetToken().Value
	}
	return "text"
}
