package template

import (
	"bytes"
	"errors"
)

// errNotJSON says that a row is not JSON. Postgres makes rows, so this is a defect or damage.
var errNotJSON = errors.New("the row is not JSON")

// node is a place in the JSON of a row that templates read, or that leads to one.
type node struct {
	slot     int // where its value goes; -1: nowhere
	members  map[string]*node
	elements map[int]*node
	below    []int // the slots of what is in it
}

// at returns the node at the end of a path from n, which it makes if it is new.
func (n *node) at(path []Step) *node {
	for _, step := range path {
		var next *node
		if step.IsIndex {
			next = n.elements[step.Index]
		} else {
			next = n.members[step.Name]
		}
		if next == nil {
			next = &node{slot: -1}
			switch {
			case step.IsIndex && n.elements == nil:
				n.elements = map[int]*node{step.Index: next}
			case step.IsIndex:
				n.elements[step.Index] = next
			case n.members == nil:
				n.members = map[string]*node{step.Name: next}
			default:
				n.members[step.Name] = next
			}
		}
		n = next
	}
	return n
}

// claim gives the node at a path a slot, if it has none.
func (n *node) claim(path []Step, free *int) int {
	leaf := n.at(path)
	if leaf.slot < 0 {
		leaf.slot = *free
		*free++
		for i := range path {
			above := n.at(path[:i])
			above.below = append(above.below, leaf.slot)
		}
	}
	return leaf.slot
}

// scanner reads JSON once and notes where the values of nodes are. It goes as deep as templates
// reach, and skips the rest without recursion.
type scanner struct {
	in    []byte
	at    int
	slots [][]byte
}

func (s *scanner) blanks() {
	for s.at < len(s.in) {
		switch s.in[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// value reads a value. n is its node, or nil.
func (s *scanner) value(n *node) bool {
	s.blanks()
	start := s.at
	ok := false
	switch {
	case start >= len(s.in):
	case n != nil && n.members != nil && s.in[start] == '{':
		ok = s.object(n)
	case n != nil && n.elements != nil && s.in[start] == '[':
		ok = s.array(n)
	default:
		ok = s.skip()
	}
	if ok && n != nil && n.slot >= 0 {
		s.slots[n.slot] = s.in[start:s.at:s.at]
	}
	return ok
}

func (s *scanner) object(n *node) bool {
	s.at++
	for first := true; ; first = false {
		s.blanks()
		if s.at >= len(s.in) {
			return false
		}
		if first && s.in[s.at] == '}' {
			s.at++
			return true
		}
		start := s.at
		if s.in[start] != '"' || !s.text() {
			return false
		}
		member := n.member(s.in[start+1 : s.at-1])
		s.blanks()
		if s.at >= len(s.in) || s.in[s.at] != ':' {
			return false
		}
		s.at++
		if member != nil {
			s.forget(member)
		}
		if !s.value(member) {
			return false
		}
		if ended, ok := s.behind('}'); ended || !ok {
			return ok
		}
	}
}

// forget drops what an earlier member of the same name had in it: of repeated members the last one
// counts, as in Postgres.
func (s *scanner) forget(n *node) {
	for _, slot := range n.below {
		s.slots[slot] = nil
	}
}

// member returns the node of a member by its name as JSON has it, without quotes.
func (n *node) member(raw []byte) *node {
	if bytes.IndexByte(raw, '\\') < 0 {
		return n.members[string(raw)]
	}
	return n.members[string(unescaped(nil, raw))]
}

func (s *scanner) array(n *node) bool {
	s.at++
	for i := 0; ; i++ {
		s.blanks()
		if s.at >= len(s.in) {
			return false
		}
		if i == 0 && s.in[s.at] == ']' {
			s.at++
			return true
		}
		if !s.value(n.elements[i]) {
			return false
		}
		if ended, ok := s.behind(']'); ended || !ok {
			return ok
		}
	}
}

// behind reads what stands behind a member or an element: a comma, or the end of them all.
func (s *scanner) behind(end byte) (ended, ok bool) {
	s.blanks()
	if s.at >= len(s.in) {
		return false, false
	}
	s.at++
	got := s.in[s.at-1]
	return got == end, got == end || got == ','
}

// skip reads a value without looking into it.
func (s *scanner) skip() bool {
	if s.at >= len(s.in) {
		return false
	}
	switch s.in[s.at] {
	case '"':
		return s.text()
	case '{', '[':
	default:
		start := s.at
		for s.at < len(s.in) {
			switch s.in[s.at] {
			case ',', ']', '}', ' ', '\t', '\n', '\r', ':', '"', '{', '[':
				return s.at > start
			}
			s.at++
		}
		return s.at > start
	}
	for depth := 0; s.at < len(s.in); {
		switch s.in[s.at] {
		case '"':
			if !s.text() {
				return false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if s.at++; depth == 0 {
			return true
		}
	}
	return false
}

// text reads a string.
func (s *scanner) text() bool {
	for i := s.at + 1; ; i++ {
		n := bytes.IndexByte(s.in[i:], '"')
		if n < 0 {
			return false
		}
		i += n
		back := i - 1
		for s.in[back] == '\\' {
			back--
		}
		if (i-back)%2 == 1 { // an even number of backslashes
			s.at = i + 1
			return true
		}
	}
}
