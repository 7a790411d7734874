package webhook

import (
	"bytes"

	"github.com/rowhook/rowhook/trigger"
)

// Trim makes of an update what its trigger sends: with the names of the changed columns, and without
// what it leaves out of the old row. Another call changes nothing. The memory of Old and New stays
// as it is.
//
// A column has changed if its JSON differs between the old and the new row, so 1.1 and 1.10 differ.
// If one of the rows is not known, Changed is null, and Old stays unless the trigger sends none.
func (e *Event) Trim(p trigger.Payload) {
	if !p.IsTrimmed() || e.Op != 'U' || len(e.Changed) > 0 {
		return
	}
	if p.Old == trigger.OldNone && !p.Changed {
		e.Old = nil
		return
	}
	old, isRow := appendMembers(make([]member, 0, 16), e.Old)
	fresh, isRowToo := appendMembers(make([]member, 0, 16), e.New)
	known := isRow && isRowToo
	if p.Changed {
		e.Changed = nullJSON
		if known {
			e.Changed = changedNames(old, fresh)
		}
	}
	switch {
	case p.Old == trigger.OldNone:
		e.Old = nil
	case p.Old == trigger.OldChanged && known:
		e.Old = changedMembers(old, fresh)
	}
}

// appendChanged appends the member with the names of the changed columns, if the body has it.
func (e *Event) appendChanged(dst []byte) []byte {
	if len(e.Changed) == 0 {
		return dst
	}
	return append(append(dst, `,"changed":`...), e.Changed...)
}

func (e *Event) changedSize() int {
	if len(e.Changed) == 0 {
		return 0
	}
	return len(`,"changed":`) + len(e.Changed)
}

var nullJSON = []byte("null")

// member is a member of a JSON object, as it is written.
type member struct{ name, value []byte } // the name with its quotes

// changedNames returns the JSON array of the names of members that differ: those of old in their
// order, and then those that only fresh has.
func changedNames(old, fresh []member) []byte {
	names := []byte{'['}
	add := func(name []byte) {
		if len(names) > 1 {
			names = append(names, ',')
		}
		names = append(names, name...)
	}
	for i, m := range old {
		if !m.same(fresh, i) {
			add(m.name)
		}
	}
	for i, m := range fresh {
		if _, has := m.find(old, i); !has {
			add(m.name)
		}
	}
	return append(names, ']')
}

// changedMembers returns the JSON object of those members of old that differ.
func changedMembers(old, fresh []member) []byte {
	object := []byte{'{'}
	for i, m := range old {
		if m.same(fresh, i) {
			continue
		}
		if len(object) > 1 {
			object = append(object, ',')
		}
		object = append(append(append(object, m.name...), ':'), m.value...)
	}
	return append(object, '}')
}

// same reports whether others have a member of the same name and value. It is probably at i.
func (m member) same(others []member, i int) bool {
	value, has := m.find(others, i)
	return has && bytes.Equal(value, m.value)
}

func (m member) find(others []member, i int) (value []byte, has bool) {
	if i < len(others) && bytes.Equal(others[i].name, m.name) {
		return others[i].value, true
	}
	for _, o := range others {
		if bytes.Equal(o.name, m.name) {
			return o.value, true
		}
	}
	return nil, false
}

// appendMembers appends the members of a JSON object to dst. ok is false if raw is no object, or
// not JSON.
func appendMembers(dst []member, raw []byte) (members []member, ok bool) {
	s := jsonScan{raw: raw}
	if !s.take('{') {
		return dst, false
	}
	if s.take('}') {
		return dst, s.ended()
	}
	for {
		name := s.value()
		if len(name) == 0 || name[0] != '"' || !s.take(':') {
			return dst, false
		}
		value := s.value()
		if len(value) == 0 {
			return dst, false
		}
		dst = append(dst, member{name, value})
		if s.take('}') {
			return dst, s.ended()
		}
		if !s.take(',') {
			return dst, false
		}
	}
}

// jsonScan finds the values of a JSON text. It does not check what is inside of a value.
type jsonScan struct {
	raw []byte
	at  int
}

func (s *jsonScan) space() {
	for s.at < len(s.raw) {
		switch s.raw[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// take skips a delimiter, with the space before it, and reports whether it was there.
func (s *jsonScan) take(c byte) bool {
	s.space()
	if s.at < len(s.raw) && s.raw[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *jsonScan) ended() bool {
	s.space()
	return s.at == len(s.raw)
}

// value returns the next value, or nil if there is none.
func (s *jsonScan) value() []byte {
	s.space()
	start, depth := s.at, 0
	for s.at < len(s.raw) {
		switch c := s.raw[s.at]; c {
		case '"':
			if !s.text() {
				return nil
			}
			if depth == 0 {
				return s.raw[start:s.at]
			}
			continue
		case '{', '[':
			depth++
		case '}', ']', ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return s.raw[start:s.at]
			}
			if c == '}' || c == ']' {
				if depth--; depth == 0 {
					s.at++
					return s.raw[start:s.at]
				}
			}
		}
		s.at++
	}
	if depth > 0 {
		return nil
	}
	return s.raw[start:s.at]
}

// text skips a string, and reports whether it ends.
func (s *jsonScan) text() bool {
	for s.at++; s.at < len(s.raw); s.at++ {
		switch s.raw[s.at] {
		case '\\':
			s.at++
		case '"':
			s.at++
			return true
		}
	}
	return false
}
