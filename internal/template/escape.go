package template

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	hexDigits   = "0123456789abcdef"
	upperDigits = "0123456789ABCDEF"
)

// AppendString appends s as a JSON string. It escapes only what JSON requires: other characters
// stay UTF-8, and so do <, > and &. Bytes that are not UTF-8 become U+FFFD. A name in a SQL_ASCII
// database can have such bytes.
func AppendString[S []byte | string](dst []byte, s S) []byte {
	dst = append(dst, '"')
	dst = appendEscaped(dst, s)
	return append(dst, '"')
}

// appendEscaped appends s as the inside of a JSON string.
func appendEscaped[S []byte | string](dst []byte, s S) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			var head [utf8.UTFMax]byte
			r, n := utf8.DecodeRune(head[:copy(head[:], s[i:])])
			if r == utf8.RuneError && n == 1 {
				dst = append(dst, s[start:i]...)
				dst = append(dst, "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= 0x20 && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(dst, s[start:]...)
}

// unescaped appends what the inside of a JSON string stands for, as UTF-8. Half of a pair of
// surrogates becomes U+FFFD.
func unescaped(dst, raw []byte) []byte {
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 || i+1 >= len(raw) {
			return append(dst, raw...)
		}
		dst = append(dst, raw[:i]...)
		c := raw[i+1]
		raw = raw[i+2:]
		switch c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := unit(raw)
			raw = raw[min(4, len(raw)):]
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if len(raw) >= 6 && raw[0] == '\\' && raw[1] == 'u' {
					low = unit(raw[2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					raw = raw[6:]
				}
			}
			dst = utf8.AppendRune(dst, r)
		default: // a quote, a backslash or a slash
			dst = append(dst, c)
		}
	}
}

// unit reads four hexadecimal digits.
func unit(raw []byte) rune {
	var b [2]byte
	if len(raw) < 4 {
		return utf8.RuneError
	}
	if _, err := hex.Decode(b[:], raw[:4]); err != nil {
		return utf8.RuneError
	}
	return rune(binary.BigEndian.Uint16(b[:]))
}

// Place is where a text stands.
type Place int8

// The places.
const (
	InHeader    Place = iota // the value of a header
	InURL                    // a segment of a path, or a name or a value of a query
	InForm                   // a name or a value of a form
	InAttribute              // an attribute of a CloudEvent in a header
	InSubject                // a part of a token of a subject of NATS
)

// Append appends a text, escaped for the place. In a URL and a form, all but letters, digits, and
// - . _ ~ is escaped, and so nothing separates. In a header, a control character becomes a space, as
// RFC 9110 (5.5) says of those that arrive. In an attribute, all but printable ASCII is escaped, and so
// are blank, quote and percent, as the HTTP binding of CloudEvents says.
//
// In a subject, all but letters and digits of ASCII, - and _ is written as a percent sign and two
// hexadecimal digits for each byte, and a text without a byte as the percent sign alone. So different
// texts never make the same token, and none makes a second token, a wildcard or a blank.
func (p Place) Append(dst []byte, s []byte) []byte {
	if p == InSubject && len(s) == 0 {
		return append(dst, '%')
	}
	for _, c := range s {
		switch {
		case p == InSubject && (c == '.' || c == '~'):
			dst = append(dst, '%', upperDigits[c>>4], upperDigits[c&15])
		case p == InHeader && (c < 0x20 && c != '\t' || c == 0x7f):
			dst = append(dst, ' ')
		case p == InHeader, isUnreserved(c), p == InAttribute && '!' <= c && c <= '~' && c != '"' && c != '%':
			dst = append(dst, c)
		case p == InForm && c == ' ':
			dst = append(dst, '+')
		default:
			dst = append(dst, '%', upperDigits[c>>4], upperDigits[c&15])
		}
	}
	return dst
}

// Encoded returns a text of the configuration as it stands in an attribute. What is percent-encoded in
// it already stays.
func Encoded(text string) string {
	var out []byte
	for i := range len(text) {
		if text[i] == '%' && i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]) {
			out = append(out, '%')
			continue
		}
		out = InAttribute.Append(out, []byte{text[i]})
	}
	return string(out)
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// AppendForm appends the members of a row as the fields of a form. A row that is no object, as manual
// events may have, is the field value. null is an empty form, and a member that is null an empty field.
func AppendForm(dst, row []byte) []byte {
	var v Values
	start := len(dst)
	field := func(name, value []byte) {
		if len(dst) > start {
			dst = append(dst, '&')
		}
		dst = InForm.Append(dst, name)
		dst = append(dst, '=')
		dst = InForm.Append(dst, v.text(value))
	}
	s := scanner{in: bytes.TrimSpace(row)}
	switch {
	case len(s.in) == 0 || string(s.in) == "null":
	case s.in[0] == '{':
		s.members(field)
	case s.skip():
		field([]byte("value"), s.in[:s.at])
	}
	return dst
}

// members visits the members of an object.
func (s *scanner) members(visit func(name, value []byte)) {
	for s.at++; ; s.at++ {
		s.blanks()
		if s.at >= len(s.in) || s.in[s.at] != '"' {
			return
		}
		start := s.at
		if !s.text() {
			return
		}
		name := unescaped(nil, s.in[start+1:s.at-1])
		s.blanks()
		s.at++ // the colon
		s.blanks()
		begin := s.at
		if !s.skip() {
			return
		}
		visit(name, s.in[begin:s.at])
		if s.blanks(); s.at >= len(s.in) || s.in[s.at] != ',' {
			return
		}
	}
}
