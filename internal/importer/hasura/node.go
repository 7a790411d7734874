package hasura

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"

	"github.com/rowhook/rowhook/internal/importer"
)

type kind int8

const (
	null kind = iota
	boolean
	number
	text
	list
	group
	include // text is a path
)

// node is a value of a YAML or JSON file.
type node struct {
	kind    kind
	text    string // of boolean, number, text and include, as the file has it
	items   []*node
	entries []entry
	place   importer.Place
	dir     string // of the file, for includes
}

type entry struct {
	name  string
	place importer.Place
	value *node
}

// get returns the value of a key. Of repeated ones the last counts, as for Hasura.
func (n *node) get(name string) *node {
	if n == nil || n.kind != group {
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
func (n *node) isSet() bool { return n != nil && n.kind != null }

// is reports whether a value is a single one: a text, a number or a boolean.
func (n *node) isScalar() bool {
	return n != nil && (n.kind == text || n.kind == number || n.kind == boolean)
}

// The bounds of what is read. Real metadata come nowhere near them.
const (
	mostBytes  = 16 << 20 // of a file
	mostTotal  = 64 << 20 // of all files
	mostFiles  = 20_000
	mostNodes  = 1_000_000
	mostDeep   = 200 // nested values of a file, without aliases
	mostNested = 20  // files that include each other
)

// builder makes nodes of one file.
type builder struct {
	place   importer.Place // File is its name
	dir     string
	left    *int // how many nodes may still be made
	anchors map[string]ast.Node
	within  int
}

// faultError is a mistake in what is imported. It names the file and the line.
type faultError struct {
	place   importer.Place
	message string
}

func (e *faultError) Error() string { return e.place.String() + ": " + e.message }

func fault(place importer.Place, format string, args ...any) error {
	return &faultError{place, fmt.Sprintf(format, args...)}
}

// parse reads a YAML or JSON file.
func (b *builder) parse(data []byte) (*node, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) {
		return nil, fault(b.place, "is not UTF-8 text; is this the right file?")
	}
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if len(trimmed) == 0 {
		return b.node(null, 1)
	}
	if trimmed[0] == '{' || trimmed[0] == '[' {
		if n, err := b.json(data); err == nil || json.Valid(data) {
			return n, err
		}
		// It may be YAML that begins with a brace.
	}
	return b.yaml(strings.ReplaceAll(strings.ReplaceAll(string(data), "\r\n", "\n"), "\r", "\n"))
}

func (b *builder) at(line int) importer.Place { return importer.Place{File: b.place.File, Line: line} }

func (b *builder) node(k kind, line int) (*node, error) {
	*b.left--
	if *b.left < 0 {
		return nil, fault(b.at(line), "has more than %d values with those before it; is this Hasura's metadata?", mostNodes)
	}
	return &node{kind: k, place: b.at(line), dir: b.dir}, nil
}

func (b *builder) yaml(data string) (*node, error) {
	file, wrong := importer.ParseYAML(data, mostDeep)
	if wrong != nil {
		return nil, fault(b.at(wrong.Line), "%s; is this Hasura's metadata? Export it again, or correct the file", wrong.Problem)
	}
	var root ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if root != nil {
			return nil, fault(b.at(doc.Body.GetToken().Position.Line), "a second YAML document starts here; keep one")
		}
		root = doc.Body
	}
	b.anchors = map[string]ast.Node{}
	if root == nil {
		return b.node(null, 1)
	}
	return b.value(root)
}

// value makes a node of a value of YAML. Aliases are followed, so a small file can stand for many
// values: left bounds them.
func (b *builder) value(n ast.Node) (*node, error) {
	b.within++
	defer func() { b.within-- }()
	line := 1
	if n != nil && n.GetToken() != nil {
		line = n.GetToken().Position.Line
	}
	if b.within > 2*mostDeep {
		return nil, fault(b.at(line), "is nested too deep; is this Hasura's metadata?")
	}
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return b.node(null, line)
	case *ast.AnchorNode:
		b.anchors[n.Name.GetToken().Value] = n.Value
		return b.value(n.Value)
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		to, ok := b.anchors[name]
		if !ok {
			return nil, fault(b.at(line), "*%s stands for nothing before it; write the value itself", name)
		}
		return b.value(to)
	case *ast.TagNode:
		if n.Start.Value == "!include" {
			return b.included(n, line)
		}
		return b.value(n.Value)
	case *ast.SequenceNode:
		out, err := b.node(list, line)
		for _, item := range n.Values {
			if err != nil {
				return nil, err
			}
			var value *node
			if value, err = b.value(item); err == nil {
				out.items = append(out.items, value)
			}
		}
		return out, err
	case ast.MapNode:
		return b.group(n, line)
	}
	return b.scalar(n, line)
}

func (b *builder) included(n *ast.TagNode, line int) (*node, error) {
	out, err := b.node(include, line)
	if err != nil {
		return nil, err
	}
	path, ok := n.Value.(*ast.StringNode)
	if !ok {
		return nil, fault(b.at(line), "!include names no file; write it like !include public_orders.yaml")
	}
	out.text = strings.TrimSpace(path.Value)
	return out, nil
}

func (b *builder) group(n ast.MapNode, line int) (*node, error) {
	out, err := b.node(group, line)
	if err != nil {
		return nil, err
	}
	var merged []entry
	for it := n.MapRange(); it.Next(); {
		key := it.Key()
		if key.IsMergeKey() {
			from, err := b.value(it.Value())
			if err != nil {
				return nil, err
			}
			merged = append(merged, from.entries...)
			for _, item := range from.items {
				merged = append(merged, item.entries...)
			}
			continue
		}
		value, err := b.value(it.Value())
		if err != nil {
			return nil, err
		}
		name, err := b.value(key)
		if err != nil {
			return nil, err
		}
		value.place = name.place // the key is where people look
		out.entries = append(out.entries, entry{name.text, name.place, value})
	}
	for _, e := range merged {
		if !slices.ContainsFunc(out.entries, func(own entry) bool { return own.name == e.name }) {
			out.entries = append(out.entries, e)
		}
	}
	return out, nil
}

func (b *builder) scalar(n ast.Node, line int) (*node, error) {
	out, err := b.node(text, line)
	if err != nil {
		return nil, err
	}
	switch n := n.(type) {
	case *ast.StringNode:
		out.text = n.Value
	case *ast.LiteralNode:
		out.text = n.Value.Value
	case *ast.BoolNode:
		out.kind, out.text = boolean, strconv.FormatBool(n.Value)
	case *ast.MappingKeyNode:
		return b.value(n.Value)
	default:
		out.kind, out.text = number, n.GetToken().Value
	}
	return out, nil
}

// json reads a JSON file, with the line of each value.
func (b *builder) json(data []byte) (*node, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	r := jsonReader{builder: b, data: data, d: d, line: 1}
	n, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fault(b.at(r.here()), "the file goes on behind its JSON; is it whole?")
	}
	return n, nil
}

type jsonReader struct {
	*builder
	data []byte
	d    *json.Decoder
	seen int // up to where lines are counted
	line int
}

// here returns the line of the token that was read last.
func (r *jsonReader) here() int {
	at := int(r.d.InputOffset())
	r.line += bytes.Count(r.data[r.seen:at], []byte{'\n'})
	r.seen = at
	return r.line
}

func (r *jsonReader) token() (json.Token, error) {
	t, err := r.d.Token()
	if err != nil {
		return nil, fault(r.at(r.here()), "this is not JSON: %v; export the metadata again, or correct the file", err)
	}
	return t, nil
}

func (r *jsonReader) value(depth int) (*node, error) {
	t, err := r.token()
	if err != nil {
		return nil, err
	}
	line := r.here()
	if depth > mostDeep {
		return nil, fault(r.at(line), "is nested more than %d levels deep; is this Hasura's metadata?", mostDeep)
	}
	out, err := r.node(null, line)
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		err = r.composite(out, t, depth)
	case string:
		out.kind, out.text = text, t
	case json.Number:
		out.kind, out.text = number, t.String()
	case bool:
		out.kind, out.text = boolean, strconv.FormatBool(t)
	}
	return out, err
}

func (r *jsonReader) composite(out *node, open json.Delim, depth int) error {
	out.kind = list
	if open == '{' {
		out.kind = group
	}
	for r.d.More() {
		var e entry
		if open == '{' {
			key, err := r.token()
			if err != nil {
				return err
			}
			e.name, _ = key.(string)
			e.place = r.at(r.here())
		}
		value, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		if open == '[' {
			out.items = append(out.items, value)
			continue
		}
		value.place = e.place // the key is where people look
		e.value = value
		out.entries = append(out.entries, e)
	}
	_, err := r.token()
	return err
}
