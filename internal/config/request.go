package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// formWord is the word of webhook.body for a form with the columns of the row.
const formWord = "form"

// body decodes a template of a request's body: form, none, or YAML with placeholders.
func (d *decoder) body(n ast.Node, v reflect.Value, at place) {
	if text, ok := textOf(n); ok {
		parts, err := template.Parse(text, template.Always)
		switch {
		case text == formWord:
			v.Set(reflect.ValueOf(trigger.BodyForm))
			return
		case text == none:
			v.SetString("")
			return
		case err == nil && !slices.ContainsFunc(parts, func(p template.Part) bool { return p.Data != nil }):
			d.reportAt(nodePosition(n), at.path, "%s is text without data of the event; write keys, as in body: {order: $new.id}, form for a form with all columns, or none", quote(text))
			return
		}
	}
	var out bytes.Buffer
	if d.template(n, at, &out, 0) {
		v.SetString(out.String())
	}
}

// mostNested is how deep a template may be nested.
const mostNested = 100

// template writes a part of a template as JSON. It returns false if it has found a problem.
func (d *decoder) template(n ast.Node, at place, out *bytes.Buffer, depth int) bool {
	d.mark(at.path, at.pos)
	n, ok := d.plain(n, at)
	if !ok {
		return false
	}
	if depth > mostNested {
		d.reportAt(nodePosition(n), at.path, "is nested deeper than %d levels; a receiver could not read it", mostNested)
		return false
	}
	if m, ok := n.(*ast.MappingNode); !ok || m.IsFlowStyle {
		d.mark(at.path, nodePosition(n))
	}
	switch n := n.(type) {
	case ast.MapNode:
		return d.templateObject(n, at, out, depth)
	case *ast.SequenceNode:
		return d.templateArray(n, at, out, depth)
	case *ast.BoolNode:
		out.WriteString(strconv.FormatBool(n.Value))
		return true
	case *ast.NullNode:
		if n.GetToken().Type == token.ImplicitNullType {
			d.reportAt(at.pos, at.path, "has no value; write null if that is meant, or remove it")
			return false
		}
		out.WriteString("null")
		return true
	}
	return d.templateScalar(n, at, out)
}

// jsonNumber matches the numbers of JSON.
var jsonNumber = regexp.MustCompile(`^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$`)

// templateScalar writes a text or a number. The digits of a number are kept.
func (d *decoder) templateScalar(n ast.Node, at place, out *bytes.Buffer) bool {
	written := n.GetToken().Value
	text, isText := n.(*ast.StringNode)
	literal, isLiteral := n.(*ast.LiteralNode)
	switch {
	case isText && isUnquoted(text) && jsonNumber.MatchString(text.Value): // a number that the parser finds too large
		out.WriteString(text.Value)
		return true
	case isText:
		return d.templateText(n, text.Value, at, out)
	case isLiteral:
		return d.templateText(n, literal.Value.Value, at, out)
	case jsonNumber.MatchString(written):
		out.WriteString(written)
		return true
	}
	d.reportAt(nodePosition(n), at.path, "%s is not a number of JSON; write its digits, as in 1000 or 1.5, or put it in quotes if it is text", quote(written))
	return false
}

// isUnquoted reports whether a text has no quotes in the file.
func isUnquoted(n *ast.StringNode) bool {
	return !strings.HasPrefix(strings.TrimSpace(n.GetToken().Origin), `"`) && !strings.HasPrefix(strings.TrimSpace(n.GetToken().Origin), "'")
}

func (d *decoder) templateText(n ast.Node, text string, at place, out *bytes.Buffer) bool {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		d.reportAt(nodePosition(n), at.path, "contains a character that Postgres can't store (NUL, or half of a UTF-16 pair); remove the escape")
		return false
	}
	if err := checkTemplate(text); err != nil {
		d.reportIn(n, text, at.path, err)
		return false
	}
	out.Write(template.AppendString(nil, text))
	return true
}

// reportIn reports an error in a text, at its place in it if that is known.
func (d *decoder) reportIn(n ast.Node, text string, path keyPath, err error) {
	pos := nodePosition(n)
	at, ok := errors.AsType[*template.Error](err)
	origin := strings.TrimLeft(n.GetToken().Origin, " \t")
	if i := strings.Index(origin, text); ok && i >= 0 && !strings.Contains(text, "\n") {
		pos.Column += utf8.RuneCountInString(origin[:i]) + utf8.RuneCountInString(text[:min(at.At, len(text))])
	}
	d.reportAt(pos, path, "%v", err)
}

func (d *decoder) templateObject(n ast.MapNode, at place, out *bytes.Buffer, depth int) bool {
	found, complete := d.entries(n, at)
	before := len(d.problems)
	out.WriteByte('{')
	for i, e := range found {
		if i > 0 {
			out.WriteByte(',')
		}
		here := place{at.path.to(e.name), at.rule + ".*", e.pos}
		if parts, _ := template.Parse(e.name, template.Mixed); slices.ContainsFunc(parts, func(p template.Part) bool { return p.Data != nil }) {
			d.reportAt(e.pos, here.path, "data of the event can't name a key; write the placeholder as a value")
		}
		if !utf8.ValidString(e.name) || strings.ContainsRune(e.name, 0) {
			d.reportAt(e.pos, here.path, "contains a character that Postgres can't store (NUL, or half of a UTF-16 pair); remove the escape")
		}
		out.Write(template.AppendString(nil, e.name))
		out.WriteByte(':')
		d.template(e.value, here, out, depth+1)
	}
	out.WriteByte('}')
	return complete && len(d.problems) == before
}

func (d *decoder) templateArray(n *ast.SequenceNode, at place, out *bytes.Buffer, depth int) bool {
	before := len(d.problems)
	out.WriteByte('[')
	for i, value := range n.Values {
		if i > 0 {
			out.WriteByte(',')
		}
		d.template(value, place{at.path.to(strconv.Itoa(i)), at.rule + "[]", nodePosition(value)}, out, depth+1)
	}
	out.WriteByte(']')
	return len(d.problems) == before
}

// named returns the entries of names with their values, and those of defaults, which they are merged with.
func (d *decoder) named(n ast.Node, v reflect.Value, at place, names string) (found []entry, defaults map[string]string) {
	m, ok := n.(ast.MapNode)
	if !ok {
		d.wrongType(n, at, names+" with their values are needed", d.remedy(at))
		return nil, nil
	}
	found, _ = d.entries(m, at)
	defaults = map[string]string{}
	for it := v.MapRange(); it.Next(); {
		defaults[it.Key().String()] = it.Value().String()
	}
	return found, defaults
}

// texts decodes names with texts, which are merged with those of defaults.
func (d *decoder) texts(n ast.Node, v reflect.Value, at place) {
	found, texts := d.named(n, v, at, "names")
	for _, e := range found {
		here := place{at.path.to(e.name), at.rule + ".*", e.pos}
		if e.name == "" || !utf8.ValidString(e.name) || strings.ContainsRune(e.name, 0) {
			d.reportAt(e.pos, here.path, "is not a name; %s", d.remedy(at))
			continue
		}
		switch n := e.value.(type) { // as they are written
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			d.mark(here.path, e.pos)
			d.mark(here.path, nodePosition(n))
			texts[e.name] = n.GetToken().Value
			continue
		}
		var value string
		if d.value(e.value, reflect.ValueOf(&value).Elem(), here) {
			texts[e.name] = value
		}
	}
	if len(found) > 0 {
		v.Set(reflect.ValueOf(texts))
	}
}

// checkTemplate checks the placeholders and the references of a text. An error of a placeholder is a
// *template.Error.
func checkTemplate(s string) error {
	parts, err := template.Parse(s, template.Always)
	if err != nil {
		return err
	}
	return checkParts(parts)
}

// checkParts checks the references of a text.
func checkParts(parts []template.Part) error {
	for _, part := range parts {
		if part.Reference == "" {
			continue
		}
		if _, err := trigger.References(part.Reference); err != nil {
			return &template.Error{At: part.At, Message: strings.Replace(err.Error(), "${ at character 1 ", "${ ", 1)}
		}
	}
	return nil
}

// checkRequest reports keys that say different things about the request.
func (t merged) checkRequest() {
	if t.spec.Kind() != trigger.KindWebhook {
		return
	}
	w := &t.spec.Webhook
	body, form, method := []string{"webhook", "body"}, []string{"webhook", "form"}, []string{"webhook", "method"}
	if t.isOwn(body) && !t.isOwn(form) {
		w.Form = nil // that of defaults
	} else if t.isOwn(form) && !t.isOwn(body) {
		w.Body = ""
	}
	if !t.clean("webhook") {
		return
	}
	switch {
	case w.Body != "" && len(w.Form) > 0:
		t.conflict("form and body both say what a request holds; keep one", form, body)
	case w.Method == trigger.MethodGet && w.Body != "":
		t.conflict("a GET has no body; remove body (body: none, where defaults give it) and write data into query, or use another method", method, body)
	case w.Method == trigger.MethodGet && len(w.Form) > 0:
		t.conflict("a GET has no body; write query in the place of form, or use another method", method, form)
	}
	t.checkBatchedRequest()
}

// checkBatchedRequest reports what a request for several events can't have.
func (t merged) checkBatchedRequest() {
	w := &t.spec.Webhook
	if t.spec.Batch.IsZero() || !t.clean("batch") {
		return
	}
	const remedy = "; write batch: none, or "
	batch := []string{"batch"}
	hasData := func(text string, mode template.Mode) bool {
		parts, err := template.Parse(text, mode)
		return err == nil && slices.ContainsFunc(parts, func(p template.Part) bool { return p.Data != nil })
	}
	switch {
	case !w.HasBody():
		t.conflict("a batch is an array in the body, and a "+w.Method+" has none"+remedy+"another method", []string{"webhook", "method"}, batch)
	case w.Body == trigger.BodyForm:
		t.conflict("a form holds one event, and a batch several"+remedy+"a body with keys", []string{"webhook", "body"}, batch)
	case len(w.Form) > 0:
		t.conflict("a form holds one event, and a batch several"+remedy+"body in the place of form", []string{"webhook", "form"}, batch)
	case hasData(w.URL, template.Mixed):
		t.conflict("a batch is one request for several events, and the url has data of one"+remedy+"a url without data", []string{"webhook", "url"}, batch)
	}
	for _, name := range sortedKeys(w.Query) {
		if hasData(w.Query[name], template.Always) {
			t.conflict("a batch is one request for several events, and the query has data of one"+remedy+"a query without data", []string{"webhook", "query", name}, batch)
		}
	}
	for _, name := range w.HeadersHaveData() {
		t.conflict("a batch is one request for several events, and the header has data of one"+remedy+"a header without data", []string{"webhook", "headers", name}, batch)
	}
}

// isOwn reports whether a value is the trigger's own, and not of defaults.
func (t merged) isOwn(path []string) bool {
	_, ok := t.d.positions.at(t.d.name, t.own(path))
	return ok
}

// templateTree returns a template as YAML is written from it. Numbers keep their digits. A template with
// unusual keys is JSON, which is YAML, too.
func templateTree(raw trigger.Body) (any, error) {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	tree, err := treeOf(d)
	if errors.Is(err, errOddKey) {
		return digits(raw), nil
	}
	return tree, err
}

// errOddKey says that the library may write a key in a form that it does not read.
var errOddKey = errors.New("an unusual key")

func treeOf(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	switch token {
	case json.Delim('{'):
		object := yaml.MapSlice{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, fmt.Errorf("read the template: %w", err)
			}
			if name, _ := key.(string); !plainKey.MatchString(name) {
				return nil, errOddKey
			}
			value, err := treeOf(d)
			if err != nil {
				return nil, err
			}
			object = append(object, yaml.MapItem{Key: key, Value: value})
		}
		_, err = d.Token()
		return object, err
	case json.Delim('['):
		array := []any{}
		for d.More() {
			value, err := treeOf(d)
			if err != nil {
				return nil, err
			}
			array = append(array, value)
		}
		_, err = d.Token()
		return array, err
	}
	if number, ok := token.(json.Number); ok {
		return digits(number), nil
	}
	return token, nil
}

// digits is a number, or other JSON, as it is written.
type digits string

func (d digits) MarshalYAML() ([]byte, error) { return []byte(d), nil }
