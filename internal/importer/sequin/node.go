package sequin

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/rowhook/rowhook/internal/importer"
)

// node is a value of a YAML file, with its line.
type node struct {
	line    int
	text    string // of a scalar
	isNull  bool
	scalar  bool
	items   []*node
	entries []entry
	isMap   bool
}

type entry struct {
	name  string
	value *node
}

// get returns the value of a key, or nil. Of repeated ones the last one counts.
func (n *node) get(name string) *node {
	if n == nil {
		return nil
	}
	for i := len(n.entries) - 1; i >= 0; i-- {
		if n.entries[i].name == name {
			return n.entries[i].value
		}
	}
	return nil
}

// isSet reports whether there is a value that is not null.
func (n *node) isSet() bool { return n != nil && !n.isNull }

// str returns the text of a scalar; "" for anything else.
func (n *node) str() string {
	if n == nil || !n.scalar {
		return ""
	}
	return strings.TrimSpace(n.text)
}

// list returns the items of a list, or a value by itself as the only item.
func (n *node) list() []*node {
	switch {
	case !n.isSet():
		return nil
	case n.scalar || n.isMap:
		return []*node{n}
	}
	return n.items
}

// mostDeep bounds how deep values may be nested, and mostNodes how many there may be with aliases.
const (
	mostDeep  = 100
	mostNodes = 500_000
)

// reading makes nodes of a file.
type reading struct {
	name    string
	anchors map[string]ast.Node
	left    int
}

// parse reads a YAML file.
func parse(name string, data []byte) (*node, error) {
	file, wrong := importer.ParseYAML(string(data), mostDeep)
	if wrong != nil {
		return nil, &FaultError{fmt.Sprintf("%s:%d: %s; export the configuration again (sequin config export), or correct the file", name, wrong.Line, wrong.Problem)}
	}
	r := &reading{name: name, anchors: map[string]ast.Node{}, left: mostNodes}
	for _, doc := range file.Docs {
		if doc.Body != nil {
			return r.value(doc.Body, 0)
		}
	}
	return &node{line: 1, isNull: true}, nil
}

func (r *reading) value(n ast.Node, depth int) (*node, error) {
	out := &node{line: 1}
	if n != nil && n.GetToken() != nil {
		out.line = n.GetToken().Position.Line
	}
	r.left--
	if depth > mostDeep || r.left < 0 {
		return nil, &FaultError{fmt.Sprintf("%s:%d: values are nested too deep, or there are too many; is this a configuration of Sequin?", r.name, out.line)}
	}
	switch n := n.(type) {
	case nil, *ast.NullNode:
		out.isNull = true
	case *ast.AnchorNode:
		r.anchors[n.Name.GetToken().Value] = n.Value
		return r.value(n.Value, depth+1)
	case *ast.AliasNode:
		to, ok := r.anchors[n.Value.GetToken().Value]
		if !ok {
			return nil, &FaultError{fmt.Sprintf("%s:%d: *%s stands for nothing before it; write the value itself", r.name, out.line, n.Value.GetToken().Value)}
		}
		return r.value(to, depth+1)
	case *ast.TagNode:
		return r.value(n.Value, depth+1)
	case *ast.SequenceNode:
		for _, item := range n.Values {
			v, err := r.value(item, depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, v)
		}
	case ast.MapNode:
		out.isMap = true
		for it := n.MapRange(); it.Next(); {
			v, err := r.value(it.Value(), depth+1)
			if err != nil {
				return nil, err
			}
			if it.Key().IsMergeKey() {
				out.entries = append(append([]entry{}, v.entries...), out.entries...)
				continue
			}
			key, err := r.value(it.Key(), depth+1)
			if err != nil {
				return nil, err
			}
			v.line = key.line // the key is where people look
			out.entries = append(out.entries, entry{key.text, v})
		}
	case *ast.MappingKeyNode:
		return r.value(n.Value, depth+1)
	case *ast.StringNode:
		out.scalar, out.text = true, n.Value
	case *ast.LiteralNode:
		out.scalar, out.text = true, n.Value.Value
	default:
		out.scalar, out.text = true, n.GetToken().Value
	}
	return out, nil
}
