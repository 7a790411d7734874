package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/webapi"
)

// decode reads a body in JSON. An empty one counts as {}.
func decode(body []byte, v any) error {
	if string(bytes.TrimSpace(body)) == "null" {
		return invalid("the body is null, and must be an object", "write {} if you mean no field")
	}
	err := webapi.Decode(bytes.NewReader(body), v)
	if err == nil {
		return nil
	}
	if !json.Valid(body) {
		return invalid("the body is not JSON: "+strings.TrimPrefix(err.Error(), "json: "), "")
	}
	if located := locate(body, reflect.TypeOf(v).Elem(), nil, nil); located != nil {
		return located
	}
	return problem(err)
}

// locate returns what is wrong with JSON that does not fit a type, and where. at is the path of field
// names to it, and above has the fields of the object around it.
func locate(text []byte, t reflect.Type, at []string, above []field) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if _, own := reflect.New(t).Interface().(json.Unmarshaler); own || t.Kind() != reflect.Struct {
		return mistyped(text, t, at)
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(text, &members) != nil {
		return mistyped(text, t, at)
	}
	known := fields(t)
	for _, m := range columns(text) {
		i := slices.IndexFunc(known, func(f field) bool { return strings.EqualFold(f.name, m.name) })
		if i < 0 {
			return unknownField(m, known, at, above)
		}
		if err := locate([]byte(m.value), known[i].kind, append(at[:len(at):len(at)], known[i].name), known); err != nil {
			return err
		}
	}
	return nil
}

// mistyped returns why text can't be read as t; nil if it can.
func mistyped(text []byte, t reflect.Type, at []string) error {
	err := json.Unmarshal(text, reflect.New(t).Interface())
	if err == nil {
		return nil
	}
	name := strings.Join(at, ".")
	if name == "" {
		name = "the body"
	}
	const remedy = "GET /openapi.json describes what is accepted"
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		var p *webapi.Problem
		if errors.As(err, &p) || len(at) > 0 && strings.HasPrefix(err.Error(), at[len(at)-1]+" ") {
			return problem(err) // it names the field
		}
		return invalid(name+": "+err.Error(), remedy)
	}
	if t.Kind() == reflect.Slice && wrong.Type != t {
		name = "a value in " + name
	}
	return invalid(fmt.Sprintf("%s is of the kind %s, and must be %s", name, wrong.Value, kind(wrong.Type)), remedy)
}

// unknownField is about a member of the object at a path that has no such field.
func unknownField(m column, known []field, at []string, above []field) error {
	where := ""
	if len(at) > 0 {
		where = " in " + strings.Join(at, ".")
	}
	detail := fmt.Sprintf("there is no field %q%s", m.name, where)
	names := namesOf(known)
	remedy := "the fields are " + strings.Join(names, ", ")
	for _, f := range known {
		if inner := namesOf(fields(f.kind)); slices.Contains(inner, m.name) {
			return invalid(detail+" at the top; it belongs inside "+f.name, fmt.Sprintf(`write {"%s": {"%s": %s}}`, f.name, m.name, shown(m.value)))
		}
	}
	hint := suggest.Hint(m.name, names)
	switch {
	case slices.Contains(namesOf(above), m.name):
		hint = "; it belongs beside " + at[len(at)-1]
	case hint == "" && len(at) == 0 && holds(m.value, names):
		hint = "; its fields belong at the top"
	}
	return invalid(detail+hint, remedy)
}

// holds reports whether text is an object all of whose keys are among names.
func holds(text string, names []string) bool {
	all := columns(json.RawMessage(text))
	return len(all) > 0 && !slices.ContainsFunc(all, func(c column) bool { return !slices.Contains(names, c.name) })
}

// kind describes what the JSON of a Go type is.
func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Uint64:
		return "a whole number from 0"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	}
	return "an object"
}

// field is a field in JSON.
type field struct {
	name string
	kind reflect.Type
}

// fields returns the fields that the JSON of a struct has, with those of the structs that it embeds.
// What is no struct has none.
func fields(t reflect.Type) (all []field) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			all = append(all, fields(f.Type)...)
			continue
		}
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			all = append(all, field{name, f.Type})
		}
	}
	return all
}

func namesOf(all []field) []string {
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = f.name
	}
	return names
}
