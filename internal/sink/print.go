package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/term"
)

// Format says how a Sink prints a delivery.
type Format int

// The formats.
const (
	FormatLine Format = iota // one line with the change, shortened to longestChange
	FormatFull               // one line without the change, then the whole body, indented
	FormatJSON               // one line with a JSON object of headers and body
)

// longestChange is the greatest length of a change in FormatLine, in bytes.
const longestChange = 240

// text returns what f prints for d. It contains no control character but line feeds, so that the
// data of a row can't control the terminal.
func (f Format) text(d *Delivery) []byte {
	var out string
	switch f {
	case FormatJSON:
		b, err := json.Marshal(d)
		if err != nil { // headers, strings and checked JSON always marshal
			b = fmt.Appendf(nil, `{"problem":%q}`, err)
		}
		out = string(b)
	case FormatFull:
		var indented bytes.Buffer
		out = head(d)
		if json.Indent(&indented, d.Body, "  ", "  ") == nil {
			out += "\n  " + indented.String()
		} else if len(d.Body) > 0 {
			out += "\n  " + string(d.Body)
		}
	default:
		out = head(d) + "  " + term.Shorten(d.change(), longestChange)
	}
	return append(printable(out, f == FormatFull), '\n')
}

// head returns the line for d without the change.
func head(d *Delivery) string {
	at := d.ReceivedAt.Format("15:04:05.000")
	if d.Problem != "" {
		return fmt.Sprintf("%s  rejected with %d: %s", at, d.Status, d.Problem)
	}
	line := fmt.Sprintf("%s  %-6s  %s  %s  %s  attempt %d  %.2f ms", at, d.Op, d.table(), d.Trigger,
		d.ID[len(d.ID)-12:], d.CurrentRetry+1, milliseconds(d.Latency()))
	switch {
	case d.Duplicate:
		line += "  again"
	case d.Status == 0:
		line += "  -> no response"
	case !d.Accepted():
		line += fmt.Sprintf("  -> %d", d.Status)
	}
	if d.Note != "" {
		line += "  (" + d.Note + ")"
	}
	if d.Signature == Invalid {
		line += "  signature: " + d.SignatureProblem
	}
	if d.Test {
		line += "  test"
	}
	return line
}

// change describes the change of the row: the new row, the deleted row, or the columns that an
// update changed.
func (d *Delivery) change() string {
	if d.Problem != "" {
		return string(d.Body)
	}
	was, is := d.rows()
	switch {
	case is == nil:
		return compact(was)
	case was == nil:
		return compact(is)
	}
	before, after := columns(was), columns(is)
	old := map[string]string{}
	for _, c := range before {
		old[c.name] = c.value
	}
	var parts []string
	for _, c := range after {
		was, ok := old[c.name]
		switch {
		case !ok:
			parts = append(parts, c.name+": "+c.value)
		case was != c.value:
			parts = append(parts, c.name+": "+was+" -> "+c.value)
		}
	}
	if len(parts) == 0 {
		return "no column differs: " + compact(is)
	}
	return strings.Join(parts, ", ")
}

type column struct{ name, value string }

// columns returns the members of a JSON object in their order, and nil if it is not an object.
func columns(object json.RawMessage) []column {
	in := json.NewDecoder(bytes.NewReader(object))
	if open, err := in.Token(); err != nil || open != json.Delim('{') {
		return nil
	}
	var all []column
	for in.More() {
		var value json.RawMessage
		name, err := in.Token()
		if err != nil || in.Decode(&value) != nil {
			return all
		}
		all = append(all, column{fmt.Sprint(name), compact(value)})
	}
	return all
}

func compact(raw json.RawMessage) string {
	var out bytes.Buffer
	if json.Compact(&out, raw) != nil {
		return string(raw)
	}
	return out.String()
}

// printable replaces characters that may control a terminal (escape sequences, other control
// characters, marks that reorder text) by their JSON escapes. It replaces bytes that are not UTF-8
// by U+FFFD.
func printable(s string, lines bool) []byte {
	out := make([]byte, 0, len(s)+1)
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			out = append(out, "\uFFFD"...)
		case unicode.IsPrint(r), lines && r == '\n':
			out = utf8.AppendRune(out, r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
