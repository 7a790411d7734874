package template

import (
	"fmt"
)

// Datum is a part of an event that is not in the JSON of a row.
type Datum int8

// The data.
const (
	ID          Datum = iota // a text
	CreatedAt                // a text
	Sequence                 // a number, or null
	Attempt                  // a number, from 1
	Trigger                  // a text
	Table                    // a text, schema.name
	TableSchema              // a text
	TableName                // a text
	Op                       // a text
	Changed                  // an array of names, or null
	Data                     // an object with the rows
	Whole                    // the object event of Hasura's body
)

// Source is an event.
type Source interface {
	// Rows returns JSON, each empty for null.
	Rows() (old, new, session, trace []byte)
	// AppendDatum appends a datum as JSON.
	AppendDatum(dst []byte, d Datum) []byte
}

// The roots of what is read by a scan.
const (
	rootOld = iota
	rootNew
	rootSession
	rootTrace
	roots
)

// Set is the templates of one request. They share what is read of an event. Make all of them before
// the first Read. Then any number of goroutines may use it, each with Values of its own.
type Set struct {
	roots  [roots]*node
	slots  int
	values int // placeholders
}

// Empty reports whether the templates have no placeholder.
func (s *Set) Empty() bool { return s.values == 0 }

// Values are what the placeholders of a Set stand for, for one event. They are valid until the JSON
// of the event changes, or until the next Read.
type Values struct {
	source Source
	slots  [][]byte
	made   []byte // data that are not in a row, one after another
	plain  []byte // scratch space
}

// Read reads an event. An error means that its JSON is none.
func (s *Set) Read(v *Values, source Source) error {
	v.source, v.made = source, v.made[:0]
	if cap(v.slots) < s.slots {
		v.slots = make([][]byte, s.slots)
	}
	v.slots = v.slots[:s.slots]
	clear(v.slots)
	var of [roots][]byte
	of[rootOld], of[rootNew], of[rootSession], of[rootTrace] = source.Rows()
	for i, root := range s.roots {
		if root == nil || len(of[i]) == 0 {
			continue
		}
		scan := scanner{in: of[i], slots: v.slots}
		if !scan.value(root) {
			return errNotJSON
		}
		if scan.blanks(); scan.at != len(scan.in) {
			return errNotJSON
		}
	}
	return nil
}

// value is a compiled placeholder.
type value struct {
	slot      int   // -1: it is the datum
	datum     Datum // of slot -1
	otherwise []byte
}

// value compiles a placeholder.
func (s *Set) value(p *Placeholder) (value, error) {
	s.values++
	otherwise := p.Default
	if string(otherwise) == "null" {
		otherwise = nil
	}
	in := func(root int, path []Step) (value, error) {
		if s.roots[root] == nil {
			s.roots[root] = &node{slot: -1}
		}
		return value{slot: s.roots[root].claim(path, &s.slots), otherwise: otherwise}, nil
	}
	of := func(d Datum) (value, error) { return value{slot: -1, datum: d, otherwise: otherwise}, nil }
	first := ""
	if len(p.Path) > 0 {
		first = p.Path[0].Name
	}
	switch p.Word {
	case "new":
		return in(rootNew, p.Path)
	case "old":
		return in(rootOld, p.Path)
	case "session":
		return in(rootSession, p.Path)
	case "event":
		switch {
		case first == "":
			return of(Whole)
		case first == "op":
			return of(Op)
		case first == "changed":
			return of(Changed)
		case first == "session_variables":
			return in(rootSession, p.Path[1:])
		case first == "trace_context":
			return in(rootTrace, p.Path[1:])
		case len(p.Path) == 1:
			return of(Data)
		case p.Path[1].Name == "old":
			return in(rootOld, p.Path[2:])
		}
		return in(rootNew, p.Path[2:])
	case "trigger":
		return of(Trigger)
	case "table":
		return of(map[string]Datum{"": Table, "schema": TableSchema, "name": TableName}[first])
	case "sequence":
		return of(Sequence)
	case "created_at":
		return of(CreatedAt)
	case "attempt":
		return of(Attempt)
	case "id":
		return of(ID)
	}
	return value{}, fmt.Errorf("$%s is no data of an event", p.Word)
}

// json returns the JSON that a placeholder stands for, or its default; nil: null.
func (v *Values) json(of *value) []byte {
	var found []byte
	if of.slot >= 0 {
		found = v.slots[of.slot]
	} else {
		start := len(v.made)
		v.made = v.source.AppendDatum(v.made, of.datum)
		found = v.made[start:]
	}
	if len(found) == 0 || string(found) == "null" {
		return of.otherwise
	}
	return found
}

// text returns the text that JSON stands for: a string is its content, null nothing, and anything
// else its JSON. It may use the scratch space of v, until the next call.
func (v *Values) text(json []byte) []byte {
	if len(json) == 0 || string(json) == "null" {
		return nil
	}
	if json[0] != '"' {
		return json
	}
	inner := json[1 : len(json)-1]
	v.plain = unescaped(v.plain[:0], inner)
	return v.plain
}

// Expand returns the value of a reference such as ${NAME}.
type Expand func(reference string) (string, error)

// Text is a compiled text for a place where one is needed.
type Text struct {
	set    *Set
	place  Place
	pieces []piece
}

// piece is a text, escaped for its place, or a placeholder.
type piece struct {
	text  []byte
	value value
	data  bool
}

// Text begins a text for a place. Its methods add to it.
func (s *Set) Text(place Place) *Text { return &Text{set: s, place: place} }

// Raw adds a text that is escaped already.
func (t *Text) Raw(text string) {
	if n := len(t.pieces); n > 0 && !t.pieces[n-1].data {
		t.pieces[n-1].text = append(t.pieces[n-1].text, text...)
		return
	}
	if text != "" {
		t.pieces = append(t.pieces, piece{text: []byte(text)})
	}
}

// Plain adds a text, which it escapes.
func (t *Text) Plain(text string) { t.Raw(string(t.place.Append(nil, []byte(text)))) }

// Data adds a placeholder.
func (t *Text) Data(p *Placeholder) error {
	of, err := t.set.value(p)
	if err != nil {
		return err
	}
	t.pieces = append(t.pieces, piece{value: of, data: true})
	return nil
}

// Parts adds the parts of a text, which it escapes.
func (t *Text) Parts(parts []Part, expand Expand) error {
	for _, part := range parts {
		text := part.Text
		switch {
		case part.Data != nil:
			if err := t.Data(part.Data); err != nil {
				return err
			}
			continue
		case part.Reference != "":
			var err error
			if text, err = expand(part.Reference); err != nil {
				return err
			}
		}
		t.Plain(text)
	}
	return nil
}

// Fixed reports whether the text has no placeholder, and so is the same for every event.
func (t *Text) Fixed() bool { return len(t.pieces) == 0 || len(t.pieces) == 1 && !t.pieces[0].data }

// Append appends the text for an event.
func (t *Text) Append(dst []byte, v *Values) []byte {
	for i := range t.pieces {
		p := &t.pieces[i]
		if !p.data {
			dst = append(dst, p.text...)
			continue
		}
		dst = t.place.Append(dst, v.text(v.json(&p.value)))
	}
	return dst
}

// Add adds another text of the same Set and place.
func (t *Text) Add(other *Text) {
	for _, p := range other.pieces {
		if !p.data {
			t.Raw(string(p.text))
			continue
		}
		t.pieces = append(t.pieces, p)
	}
}
