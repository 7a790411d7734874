package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// members walks through the members of an object, or the elements of an array, without copying. The
// text must be valid JSON; of other text it yields something or nothing, and ends.
type members struct {
	text []byte
	at   int // behind the member before
}

// within returns the members of an object or array. It reports the bracket that opens it; 0: value is
// neither.
func within(value json.RawMessage) (m members, bracket byte) {
	i := skipSpace(value, 0)
	if i == len(value) || value[i] != '{' && value[i] != '[' {
		return members{}, 0
	}
	return members{value, i + 1}, value[i]
}

// next returns the next member of an object. Its name is a JSON string.
func (m *members) next() (name, value json.RawMessage, ok bool) {
	from := m.skipComma()
	if from == len(m.text) || m.text[from] != '"' {
		return nil, nil, false
	}
	to := skipString(m.text, from)
	colon := skipSpace(m.text, to)
	if colon == len(m.text) || m.text[colon] != ':' {
		return nil, nil, false
	}
	m.at = colon + 1
	value, ok = m.element()
	return m.text[from:to], value, ok
}

// element returns the next element of an array.
func (m *members) element() (value json.RawMessage, ok bool) {
	from := m.skipComma()
	if m.at = skipValue(m.text, from); m.at == from {
		return nil, false
	}
	return m.text[from:m.at:m.at], true
}

// count returns the number of elements that are left.
func (m *members) count() (n int) {
	for {
		if _, ok := m.element(); !ok {
			return n
		}
		n++
	}
}

func (m *members) skipComma() int {
	i := skipSpace(m.text, m.at)
	if i < len(m.text) && m.text[i] == ',' {
		i = skipSpace(m.text, i+1)
	}
	return i
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && isSpace(text[i]) {
		i++
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// skipString returns the index behind the string that begins at i.
func skipString(text []byte, i int) int {
	for from := i + 1; ; {
		n := bytes.IndexByte(text[from:], '"')
		if n < 0 {
			return len(text)
		}
		end, escapes := from+n, 0
		for end-escapes > from && text[end-escapes-1] == '\\' {
			escapes++
		}
		if from = end + 1; escapes%2 == 0 {
			return from
		}
	}
}

// skipValue returns the index behind the value that begins at i; i if there is none.
func skipValue(text []byte, i int) int {
	if i < len(text) && text[i] == '"' {
		return skipString(text, i)
	}
	for depth := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			i = skipString(text, i) - 1
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == ':' || c == '}' || c == ']' || isSpace(c)):
			return i
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return i
}

// isText reports whether raw is a JSON string with exactly these characters.
func isText(raw json.RawMessage, text string) bool {
	if len(raw) < 2 || raw[0] != '"' {
		return false
	}
	// What is not UTF-8 is read as U+FFFD.
	if inner := raw[1 : len(raw)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return string(inner) == text
	}
	// Each character takes up to six bytes. This spares the copy of a long text.
	if len(raw)-2 > 6*len(text) {
		return false
	}
	got, ok := unquote(raw)
	return ok && got == text
}

func unquote(raw json.RawMessage) (text string, ok bool) {
	ok = json.Unmarshal(raw, &text) == nil
	return text, ok
}

// member returns the value of a key; of several the last one.
func member(object members, key string) (value json.RawMessage, found bool) {
	for {
		name, v, ok := object.next()
		if !ok {
			return value, found
		}
		if isText(name, key) {
			value, found = v, true
		}
	}
}

// brief returns JSON without its white space, shortened as term.Shorten does. It copies no more than
// that.
func brief(raw json.RawMessage, most int) string {
	head, size := make([]byte, 0, min(most+1, len(raw))), 0
	for i := 0; i < len(raw); {
		end := i + 1
		if raw[i] == '"' {
			end = skipString(raw, i)
		}
		if !isSpace(raw[i]) {
			size += end - i
			head = append(head, raw[i:min(end, i+most+1-len(head))]...)
		}
		i = end
	}
	if size <= most {
		return string(head)
	}
	for most > 0 && !utf8.RuneStart(head[most]) {
		most--
	}
	return fmt.Sprintf("%s… (%d bytes more)", head[:most], size-most)
}
