package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/rowhook/rowhook/trigger"
)

// JSONSchema returns the JSON Schema (draft 2020-12) of rowhook.yaml. It comes from the same
// structs and rules as Parse. docs/rowhook.schema.json is a copy.
func JSONSchema() ([]byte, error) {
	root := (&schemaMaker{keys: keys()}).object(reflect.ValueOf(document{Settings: trigger.DefaultSettings()}), "")
	root["allOf"] = unlessShared()
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "rowhook.yaml"
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(root); err != nil {
		return nil, fmt.Errorf("write the JSON Schema: %w", err)
	}
	return out.Bytes(), nil
}

type schemaMaker struct{ keys map[string]key }

// of returns the schema of the value at a path of keys(). v is its default.
func (m *schemaMaker) of(v reflect.Value, rule string) map[string]any {
	k := m.keys[rule]
	var s map[string]any
	switch value := v.Interface().(type) {
	case trigger.Duration:
		s = map[string]any{
			"anyOf":   []any{map[string]any{"type": "string", "pattern": durationPattern}, map[string]any{"const": 0}},
			"default": value.String(),
		}
		if k.check != nil && k.check("0") != nil {
			s["not"] = map[string]any{"enum": []any{0, "0"}}
			if value == 0 { // it has no default
				delete(s, "default")
			}
		}
	case *trigger.Duration:
		s = m.of(reflect.ValueOf(trigger.Duration(0)), rule)
		delete(s, "default") // it is that of the whole installation
	case trigger.Size:
		s = map[string]any{
			"anyOf":   []any{map[string]any{"type": "string", "pattern": sizePattern}, map[string]any{"const": 0}},
			"default": value.String(),
		}
		if k.pattern != "" {
			s = map[string]any{"type": "string", "pattern": k.pattern, "default": trigger.DefaultBatchBytes.String()}
		}
	case trigger.UpdateOn:
		s = map[string]any{
			"anyOf":   []any{map[string]any{"type": "boolean"}, m.object(reflect.ValueOf(updateColumns{}), rule)},
			"default": false,
		}
	case trigger.Order:
		s = map[string]any{"anyOf": []any{
			map[string]any{"enum": []any{trigger.OrderByRow, none}},
			m.object(reflect.ValueOf(orderKeys{OnDead: trigger.OnDeadSkip}), rule),
		}}
	case keyColumns:
		s = map[string]any{"anyOf": []any{map[string]any{"const": trigger.OrderByRow}, m.ofKind(reflect.ValueOf([]string(nil)), rule)}}
	case trigger.Batch, trigger.Rate:
		s = map[string]any{"anyOf": []any{map[string]any{"const": none}, m.object(v, rule)}}
	case trigger.PerTime:
		s = map[string]any{"type": "string", "pattern": perTimePattern}
	case trigger.Body:
		s = map[string]any{"anyOf": []any{
			map[string]any{"enum": []any{formWord, none}}, map[string]any{"type": "object"}, map[string]any{"type": "array"},
			map[string]any{"type": "string", "pattern": `\$`},
		}}
	case trigger.Statuses:
		s = map[string]any{"anyOf": []any{map[string]any{"const": none}, map[string]any{
			"type":                 "object",
			"propertyNames":        map[string]any{"pattern": k.namePattern},
			"additionalProperties": m.of(reflect.ValueOf(""), rule+".*"),
		}}}
	case sourceGroup:
		s = map[string]any{
			"type": "object", "minProperties": 1, "propertyNames": map[string]any{"pattern": k.namePattern},
			"additionalProperties": m.of(reflect.ValueOf(sourceKeys{}), sourceRule),
			"properties": map[string]any{
				fromKey:  m.of(reflect.ValueOf(tenantKeys{Every: DefaultTenantsEvery}), fromRule),
				allowKey: m.of(reflect.ValueOf([]string(nil)), allowRule),
			},
			"dependentRequired": map[string]any{fromKey: []string{allowKey}, allowKey: []string{fromKey}},
		}
	case map[string]string:
		s = map[string]any{"type": "object", "additionalProperties": m.of(reflect.ValueOf(""), rule+".*")}
		if k.namePattern == "" { // numbers are the text that is written
			s["additionalProperties"] = map[string]any{"type": []any{"string", "number", "boolean"}, "description": m.keys[rule+".*"].doc}
		} else {
			s["propertyNames"] = map[string]any{"pattern": k.namePattern}
		}
	case int:
		s = m.ofKind(v, rule)
		if rule == triggerRule+".concurrency" {
			s = map[string]any{"anyOf": []any{s, m.object(reflect.ValueOf(concurrency{}), rule)}}
		}
	case trigger.Spec:
		if rule == sharedRule {
			s = m.shared(value)
			break
		}
		s = m.ofKind(v, rule)
	default:
		s = m.ofKind(v, rule)
	}
	s["description"] = k.doc
	return s
}

func (m *schemaMaker) ofKind(v reflect.Value, rule string) map[string]any {
	k := m.keys[rule]
	switch v.Kind() {
	case reflect.Struct:
		return m.object(v, rule)
	case reflect.Slice:
		element := reflect.New(v.Type().Elem()).Elem()
		if element.Type() == reflect.TypeFor[trigger.Spec]() {
			element.Set(reflect.ValueOf(trigger.DefaultSpec()))
		}
		if element.Type() == reflect.TypeFor[trigger.Alert]() {
			element.Set(reflect.ValueOf(defaultAlert()))
		}
		s := map[string]any{"type": "array", "items": m.of(element, rule+"[]")}
		if k.nonEmpty {
			s["minItems"] = 1
		}
		if k.unique {
			s["uniqueItems"] = true
		}
		return s
	case reflect.Bool:
		return map[string]any{"type": "boolean", "default": v.Bool()}
	case reflect.Int:
		s := map[string]any{"type": "integer", "minimum": k.min, "maximum": k.max}
		if v.Int() >= k.min { // otherwise the key has no default, or its description says it
			s["default"] = v.Int()
		}
		return s
	}
	s := map[string]any{"type": "string"}
	switch {
	case k.onOff:
		return map[string]any{"enum": []any{trigger.BreakerOn, trigger.BreakerOff, true, false}, "default": k.enum[0]}
	case len(k.enum) > 0:
		s["enum"] = k.enum
	case k.pattern != "":
		s["pattern"] = k.pattern
	case k.nonEmpty:
		s["pattern"] = `\S`
	}
	if v.String() != "" {
		s["default"] = v.String()
	}
	return s
}

func (m *schemaMaker) object(v reflect.Value, rule string) map[string]any {
	properties := map[string]any{}
	var required []string
	for _, f := range fieldsOf(v.Type()) {
		at := place{rule: rule}.key(f.name, Position{}).rule
		properties[f.name] = m.of(f.in(v), at)
		if m.keys[at].required && !m.maybeShared(at) {
			required = append(required, f.name)
		}
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false, "description": m.keys[rule].doc}
	if len(required) > 0 {
		s["required"] = required
	}
	if rule == triggerRule {
		s["oneOf"] = []any{onlyWith("table", "tables", "except", "follow"), onlyWith("tables", "table")}
		s["not"] = map[string]any{"required": []string{"webhook", "nats"}}
	}
	if rule == alertRule {
		s["oneOf"] = []any{onlyWith("url", "heartbeat", "every"), onlyWith("heartbeat", "url", "on", "format", "secret", "backlog")}
	}
	return s
}

// onlyWith returns a schema that requires a key, and none of the others.
func onlyWith(key string, others ...string) map[string]any {
	var refused []any
	for _, name := range others {
		refused = append(refused, requireIn(name, nil))
	}
	s := requireIn(key, nil)
	s["not"] = map[string]any{"anyOf": refused}
	return s
}

// shared returns the schema of defaults: each key is described at the trigger.
func (m *schemaMaker) shared(spec trigger.Spec) map[string]any {
	properties := map[string]any{}
	for _, f := range fieldsOf(reflect.TypeOf(spec)) {
		if !isOwn(f.name) {
			properties[f.name] = map[string]any{"$ref": "#/properties/triggers/items/properties/" + f.name}
		}
	}
	return map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
}

// maybeShared reports whether a required key of a trigger may come from defaults. unlessShared
// requires it.
func (m *schemaMaker) maybeShared(rule string) bool {
	name, ok := strings.CutPrefix(rule, triggerRule+".")
	return ok && m.keys[rule].required != m.keys[sharedRule+"."+name].required && !isOwn(name)
}

// someDestination requires a webhook with a url, or nats with keys.
func someDestination(ofNATS ...string) map[string]any {
	nats := map[string]any{"type": "object"}
	if len(ofNATS) > 0 {
		nats["required"] = ofNATS
	}
	return map[string]any{"anyOf": []any{requireIn("webhook", requireIn("url", nil)), requireIn("nats", nats)}}
}

// unlessShared requires of each trigger what defaults do not give: on with an operation, and
// webhook with a url, or nats.
func unlessShared() []any {
	on := map[string]any{"required": []string{"on"}, "properties": map[string]any{"on": map[string]any{"anyOf": []any{
		requireTrue("insert"), requireTrue("delete"), requireTrue("truncate"), requireTrue("manual"),
		map[string]any{
			"required":   []string{"update"},
			"properties": map[string]any{"update": map[string]any{"not": map[string]any{"const": false}}},
		},
	}}}}
	all := []any{unless(requireIn("on", nil), on), unless(someDestination("url", "subject"), someDestination())}
	for _, needs := range [...][2]string{{"order", "by"}, {"batch", "max"}, {"rate", "limit"}, {"nats", "url"}, {"nats", "subject"}} {
		group := map[string]any{"properties": map[string]any{needs[0]: map[string]any{
			"if": map[string]any{"type": "object"}, "then": requireIn(needs[1], nil),
		}}}
		all = append(all, unless(requireIn(needs[0], map[string]any{"anyOf": []any{
			map[string]any{"const": trigger.OrderByRow}, map[string]any{"type": "object", "required": []string{needs[1]}},
		}}), group))
	}
	return all
}

// unless requires a schema of each trigger, unless defaults have another.
func unless(shared, required map[string]any) map[string]any {
	return map[string]any{
		"if":   requireIn(sharedRule, shared),
		"else": map[string]any{"properties": map[string]any{"triggers": map[string]any{"items": required}}},
	}
}

// requireIn returns a schema that requires a key, and of its value the inner schema; nil: any.
func requireIn(name string, inner map[string]any) map[string]any {
	s := map[string]any{"required": []string{name}}
	if inner != nil {
		s["properties"] = map[string]any{name: inner}
	}
	return s
}

func requireTrue(name string) map[string]any {
	return requireIn(name, map[string]any{"const": true})
}
