package template

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Body is a compiled JSON template.
type Body struct{ ops []op }

// op appends a text, or what a placeholder stands for.
type op struct {
	text   []byte
	value  value
	data   bool
	within bool // within a string: a string stands without its quotes
}

// Body compiles a JSON template: JSON whose strings are templates. A string that is a placeholder
// and nothing else stands for the JSON of its value, or with "as text" for a string. The keys keep
// their order.
func (s *Set) Body(raw json.RawMessage, expand Expand) (*Body, error) {
	b := &Body{}
	c := compiler{set: s, body: b, expand: expand}
	err := walk(raw, c.token)
	return b, err
}

// Append appends the JSON for an event.
func (b *Body) Append(dst []byte, v *Values) []byte {
	for i := range b.ops {
		o := &b.ops[i]
		if !o.data {
			dst = append(dst, o.text...)
			continue
		}
		found := v.json(&o.value)
		switch {
		case !o.within && len(found) == 0:
			dst = append(dst, "null"...)
		case !o.within:
			dst = append(dst, found...)
		case len(found) == 0 || string(found) == "null":
		case found[0] == '"':
			dst = append(dst, found[1:len(found)-1]...) // it is escaped already
		case found[0] == '{' || found[0] == '[':
			dst = appendEscaped(dst, found)
		default:
			dst = append(dst, found...)
		}
	}
	return dst
}

type compiler struct {
	set    *Set
	body   *Body
	expand Expand
}

func (c *compiler) literal(text ...byte) {
	ops := c.body.ops
	if n := len(ops); n > 0 && !ops[n-1].data {
		ops[n-1].text = append(ops[n-1].text, text...)
		return
	}
	c.body.ops = append(ops, op{text: text})
}

// token compiles what walk finds.
func (c *compiler) token(kind tokenKind, text string, _ []string) error {
	switch kind {
	case tokenRaw:
		c.literal([]byte(text)...)
		return nil
	case tokenKey:
		c.literal(append(AppendString(nil, text), ':')...)
		return nil
	case tokenString:
	}
	parts, err := Parse(text, Always)
	if err != nil {
		return err
	}
	if len(parts) == 1 && parts[0].Data != nil && !parts[0].Data.Text {
		return c.data(parts[0].Data, false)
	}
	c.literal('"')
	for _, part := range parts {
		switch {
		case part.Data != nil:
			if err := c.data(part.Data, true); err != nil {
				return err
			}
		case part.Reference != "":
			value, err := c.expand(part.Reference)
			if err != nil {
				return err
			}
			c.literal(appendEscaped(nil, value)...)
		default:
			c.literal(appendEscaped(nil, part.Text)...)
		}
	}
	c.literal('"')
	return nil
}

func (c *compiler) data(p *Placeholder, within bool) error {
	of, err := c.set.value(p)
	if err != nil {
		return err
	}
	c.body.ops = append(c.body.ops, op{value: of, data: true, within: within})
	return nil
}

// Each visits the strings of JSON that are values, each with the path to it: keys, and indexes as
// decimal numbers.
func Each(raw json.RawMessage, visit func(text string, path []string)) error {
	return walk(raw, func(kind tokenKind, text string, path []string) error {
		if kind == tokenString {
			visit(text, path)
		}
		return nil
	})
}

// Replace returns JSON with other strings as values, each by the path to it, as in Each. It keeps the
// order of keys. "" is returned as it is.
func Replace(raw json.RawMessage, other func(text string, path []string) string) (json.RawMessage, error) {
	if len(raw) == 0 {
		return raw, nil
	}
	var out []byte
	err := walk(raw, func(kind tokenKind, text string, path []string) error {
		switch kind {
		case tokenRaw:
			out = append(out, text...)
		case tokenKey:
			out = append(AppendString(out, text), ':')
		case tokenString:
			out = AppendString(out, other(text, path))
		}
		return nil
	})
	return out, err
}

type tokenKind int8

const (
	tokenRaw    tokenKind = iota // a bracket, a comma, a number or a word
	tokenKey                     // a key, without its colon
	tokenString                  // a string that is a value
)

// walk reads JSON in its order.
func walk(raw json.RawMessage, visit func(kind tokenKind, text string, path []string) error) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	w := walker{d: d, visit: visit}
	if err := w.value(nil); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the template goes on behind its end")
	}
	return nil
}

type walker struct {
	d     *json.Decoder
	visit func(kind tokenKind, text string, path []string) error
}

func (w *walker) value(path []string) error {
	token, err := w.d.Token()
	if err != nil {
		return fmt.Errorf("read the template: %w", err)
	}
	switch token := token.(type) {
	case json.Delim:
		return w.group(token, path)
	case string:
		return w.visit(tokenString, token, path)
	case json.Number:
		return w.visit(tokenRaw, token.String(), path)
	case bool:
		return w.visit(tokenRaw, strconv.FormatBool(token), path)
	}
	return w.visit(tokenRaw, "null", path)
}

// group reads an object or an array.
func (w *walker) group(open json.Delim, path []string) error {
	if err := w.visit(tokenRaw, open.String(), path); err != nil {
		return err
	}
	for i := 0; w.d.More(); i++ {
		if i > 0 {
			if err := w.visit(tokenRaw, ",", path); err != nil {
				return err
			}
		}
		step := strconv.Itoa(i)
		if open == '{' {
			token, err := w.d.Token()
			if err != nil {
				return fmt.Errorf("read the template: %w", err)
			}
			key, _ := token.(string)
			step = key
			if err := w.visit(tokenKey, key, path); err != nil {
				return err
			}
		}
		if err := w.value(append(path[:len(path):len(path)], step)); err != nil {
			return err
		}
	}
	end, err := w.d.Token()
	if err != nil {
		return fmt.Errorf("read the template: %w", err)
	}
	return w.visit(tokenRaw, fmt.Sprint(end), path)
}
