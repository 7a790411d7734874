package importer

import (
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/template"
)

// Piece is a part of a text of rowhook.yaml: a text that stands for itself, a reference to a variable,
// or data of the event.
type Piece struct {
	text      string
	reference string
	data      string
}

// Text is a text that stands for itself, whatever characters it has.
func Text(s string) Piece { return Piece{text: s} }

// Ref is a reference to a variable of the dispatcher's environment.
func Ref(name string) Piece { return Piece{reference: name} }

// Data is a placeholder without its $ and braces, as in new.id and new.note ?? "-".
func Data(placeholder string) Piece { return Piece{data: placeholder} }

// IsText reports whether all pieces stand for themselves.
func IsText(pieces []Piece) bool {
	return !slices.ContainsFunc(pieces, func(p Piece) bool { return p.reference != "" || p.data != "" })
}

// HasData reports whether a piece is data of the event.
func HasData(pieces []Piece) bool {
	return slices.ContainsFunc(pieces, func(p Piece) bool { return p.data != "" })
}

// Cut returns the pieces of a URL in front of a character: ? before its query, # before its fragment.
// found says whether it is there.
func Cut(pieces []Piece, at string) (before []Piece, found bool) {
	for i, p := range pieces {
		if text, _, found := strings.Cut(p.text, at); found {
			return append(slices.Clone(pieces[:i]), Text(text)), true
		}
	}
	return pieces, false
}

// Plain returns the pieces that stand for themselves as one text.
func Plain(pieces []Piece) string {
	var out strings.Builder
	for _, p := range pieces {
		out.WriteString(p.text)
	}
	return out.String()
}

// The modes of texts, as in package template: Always is for query, body and form, Mixed for url and
// headers.
const (
	Always = template.Always
	Mixed  = template.Mixed
)

// Join writes pieces as a text of rowhook.yaml.
func Join(mode template.Mode, pieces ...Piece) string {
	pieces = merge(pieces)
	if mode == Mixed && !HasData(pieces) {
		// It is no template unless its text looks like one.
		text := render(pieces, func(s string) string { return strings.ReplaceAll(s, "${", "$${") })
		if !template.IsTemplate(text) {
			return text
		}
	}
	return render(pieces, func(s string) string { return strings.ReplaceAll(s, "$", "$$") })
}

func render(pieces []Piece, escaped func(string) string) string {
	var out strings.Builder
	for _, p := range pieces {
		switch {
		case p.reference != "":
			out.WriteString("${" + p.reference + "}")
		case p.data != "" && len(pieces) == 1 && !strings.ContainsAny(p.data, " -"):
			out.WriteString("$" + p.data)
		case p.data != "":
			out.WriteString("${" + p.data + "}")
		default:
			out.WriteString(escaped(p.text))
		}
	}
	return out.String()
}

// merge joins neighbouring texts, so that a $ at the end of one is seen with what follows.
func merge(pieces []Piece) (out []Piece) {
	for _, p := range pieces {
		last := len(out) - 1
		isText := p.reference == "" && p.data == ""
		switch {
		case isText && p.text == "":
		case isText && last >= 0 && out[last].reference == "" && out[last].data == "":
			out[last].text += p.text
		default:
			out = append(out, p)
		}
	}
	return out
}

func isWord(name string) bool { return slices.Contains(template.Words(), name) }

// Member returns a placeholder for a member: base.name, with quotes where the name needs them.
func Member(base, name string) string {
	if plainMember(name) {
		return base + "." + name
	}
	return base + `."` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// plainMember reports whether a name needs no quotes in a placeholder with braces.
func plainMember(name string) bool {
	for i, r := range name {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}
