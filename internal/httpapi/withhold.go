package httpapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/access"
	"github.com/rowhook/rowhook/webhook"
)

// fields are what of a schema is for some only. The document says it by x-scope, so what it says is
// what is done.
type fields struct {
	withheld bool // this value is data of a row, or quotes a response
	brief    bool // it is a text, of which webhook.Brief may be shown
	null     bool // null is a value of it
	required bool
	codes    []any              // it is withheld only beside one of these codes; nil: always
	members  map[string]*fields // of an object
	items    *fields            // of an array
}

// schemas finds the fields in the schemas of the document.
type schemas struct{ all map[string]any }

func (s *schemas) resolve(schema map[string]any) map[string]any {
	ref, ok := schema["$ref"].(string)
	if !ok {
		return schema
	}
	target := asMap(asMap(asMap(s.all["components"])["schemas"])[strings.TrimPrefix(ref, "#/components/schemas/")])
	if target == nil {
		return schema
	}
	out := maps.Clone(target)
	for key, value := range schema { // keys beside $ref
		if key != "$ref" {
			out[key] = value
		}
	}
	return out
}

// fields returns the fields of a schema; nil: it has nothing to withhold.
func (s *schemas) fields(schema map[string]any) *fields {
	schema = s.resolve(schema)
	f := &fields{withheld: schema["x-scope"] == "payloads", brief: schema["x-brief"] == true}
	f.codes, _ = schema["x-codes"].([]any)
	_, typed := schema["type"]
	f.null = !typed && schema["anyOf"] == nil && schema["enum"] == nil
	switch t := schema["type"].(type) {
	case []any:
		f.null = slices.Contains(t, "null")
	case string:
		f.null = t == "null"
	}
	found := f.withheld
	required, _ := schema["required"].([]any)
	for name, member := range asMap(schema["properties"]) {
		if m := s.fields(asMap(member)); m != nil {
			m.required = slices.Contains(required, any(name))
			if f.members == nil {
				f.members = map[string]*fields{}
			}
			f.members[name], found = m, true
		}
	}
	if items := asMap(schema["items"]); items != nil {
		f.items = s.fields(items)
		found = found || f.items != nil
	}
	alternatives, _ := schema["anyOf"].([]any)
	for _, a := range alternatives {
		alternative := s.resolve(asMap(a))
		if alternative["type"] == "null" {
			f.null = true
		}
		if m := s.fields(alternative); m != nil {
			f.members, f.items, found = m.members, m.items, true
		}
	}
	if !found {
		return nil
	}
	return f
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// hide removes from v what is withheld, and adds the paths of what it has removed.
func (f *fields) hide(v any, path string, hidden map[string]bool) any {
	switch v := v.(type) {
	case map[string]any:
		for name, m := range f.members {
			value, ok := v[name]
			if !ok {
				continue
			}
			at := strings.TrimPrefix(path+"."+name, ".")
			if !m.withheld {
				v[name] = m.hide(value, at, hidden)
				continue
			}
			if value == nil || m.codes != nil && !slices.Contains(m.codes, v["code"]) {
				continue
			}
			text, isText := value.(string)
			shown := ""
			if m.brief && isText {
				shown = webhook.Brief(text)
			}
			switch {
			case isText && shown == text:
				continue
			case shown != "" || m.brief && m.required:
				v[name] = cmp.Or(shown, "withheld")
			case m.null:
				v[name] = nil
			default:
				delete(v, name)
			}
			hidden[at] = true
		}
	case []any:
		for i := range v {
			if f.items != nil {
				v[i] = f.items.hide(v[i], path, hidden)
			}
		}
	}
	return v
}

// withhold returns a response as its receiver may see it. The response of an object says which
// fields are withheld.
func (f *fields) withhold(v any) (any, error) {
	if f == nil {
		return v, nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode the response: %w", err)
	}
	var out any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // digits are kept
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("read the response: %w", err)
	}
	hidden := map[string]bool{}
	out = f.hide(out, "", hidden)
	if object := asMap(out); object != nil && len(hidden) > 0 {
		object["withheld"] = slices.Sorted(maps.Keys(hidden))
	}
	return out, nil
}

// responseFields returns what the responses of a route withhold; nil: nothing.
func (s *schemas) responseFields(route *route) *fields {
	operation := asMap(asMap(asMap(s.all["paths"])[route.path])[strings.ToLower(route.method)])
	for _, status := range []string{"200", "201"} {
		content := asMap(asMap(asMap(operation["responses"])[status])["content"])
		for _, media := range []string{"application/json", "application/x-ndjson"} {
			if schema := asMap(asMap(content[media])["schema"]); schema != nil {
				return s.fields(schema)
			}
		}
	}
	return nil
}

// readSchemas reads the document.
func readSchemas() (*schemas, error) {
	text, err := Document()
	if err != nil {
		return nil, err
	}
	s := &schemas{}
	if err := json.Unmarshal(text, &s.all); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	return s, nil
}

type routeKey struct{}

// shown returns a response, or a message of a stream, as the sender of the request may see it.
func shown(r *http.Request, v any) (any, error) {
	route, ok := r.Context().Value(routeKey{}).(*route)
	if b := bearerOf(r.Context()); !ok || b == nil || b.scopes.Has(access.Payloads) {
		return v, nil
	}
	return route.fields().withhold(v)
}
