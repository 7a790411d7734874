package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// Write returns a trigger as a rowhook.yaml with this trigger alone. Keys that have their default
// are left out. Parse returns the same trigger.
func Write(spec trigger.Spec) ([]byte, error) {
	return WriteAll([]trigger.Spec{spec}, trigger.DefaultSettings(), Plain)
}

// Style says how WriteAll writes.
type Style int8

const (
	// Plain has every trigger with all that differs from Rowhook's defaults.
	Plain Style = iota
	// Shared has in defaults what all triggers say alike of retries, timeout and breaker.
	Shared
)

// WriteAll returns triggers and settings as a rowhook.yaml. Keys that have their default are left out,
// and references are written as they are. Parse returns the same triggers and settings.
func WriteAll(specs []trigger.Spec, settings trigger.Settings, style Style) ([]byte, error) {
	return (&Export{Triggers: specs, Settings: settings}).YAML(style)
}

// Export is what a configuration is written from.
type Export struct {
	Triggers []trigger.Spec
	Settings trigger.Settings
	// Sources are its databases, if it has sources.
	Sources []Source

	holders [][]string // the names of the sources of each trigger
}

// Add adds a trigger of a source. One that other sources have alike is written once.
func (e *Export) Add(spec trigger.Spec, source string) {
	for i := range e.Triggers {
		if reflect.DeepEqual(e.Triggers[i], spec) {
			e.holders[i] = append(e.holders[i], source)
			return
		}
	}
	e.Triggers, e.holders = append(e.Triggers, spec), append(e.holders, []string{source})
}

// YAML returns a rowhook.yaml. Keys that have their default are left out, and references are written as
// they are. Parse returns the same triggers and settings.
func (e *Export) YAML(style Style) ([]byte, error) {
	document, err := e.document(style)
	if err != nil {
		return nil, err
	}
	text, err := yaml.MarshalWithOptions(document,
		yaml.CustomMarshaler(func(s string) ([]byte, error) { return writeText(s) }), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	// The library quotes the key, as YAML 1.1 takes it for a boolean.
	text = bytes.ReplaceAll(text, []byte("\n    \"on\":"), []byte("\n    on:"))
	return bytes.ReplaceAll(text, []byte("\n  - \"on\":"), []byte("\n  - on:")), nil
}

// WriteJSON is WriteAll in JSON, which Parse reads, too.
func WriteJSON(specs []trigger.Spec, settings trigger.Settings) (json.RawMessage, error) {
	return (&Export{Triggers: specs, Settings: settings}).JSON()
}

// JSON is YAML in JSON, which Parse reads, too.
func (e *Export) JSON() (json.RawMessage, error) {
	document, err := e.document(Plain)
	if err != nil {
		return nil, err
	}
	return appendTree(nil, document)
}

// appendTree appends the JSON of what the library writes as YAML, with keys in their order.
func appendTree(dst []byte, tree any) ([]byte, error) {
	var err error
	switch tree := tree.(type) {
	case yaml.MapSlice:
		dst = append(dst, '{')
		for i, item := range tree {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(template.AppendString(dst, fmt.Sprint(item.Key)), ':')
			if dst, err = appendTree(dst, item.Value); err != nil {
				return nil, err
			}
		}
		return append(dst, '}'), nil
	case []any:
		dst = append(dst, '[')
		for i, value := range tree {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendTree(dst, value); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case digits:
		return append(dst, tree...), nil
	case string:
		return template.AppendString(dst, tree), nil
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	return append(dst, text...), nil
}

func (e *Export) document(style Style) (yaml.MapSlice, error) {
	usual, err := ordered(trigger.DefaultSpec())
	if err != nil {
		return nil, err
	}
	triggers := []any{}
	for i, spec := range e.Triggers {
		full, err := ordered(spec)
		if err != nil {
			return nil, err
		}
		entry := without(full, usual)
		if e.holders != nil && len(e.holders[i]) < len(e.Sources) {
			entry = slices.Insert(entry, 1, yaml.MapItem{Key: forKey, Value: listTree(e.holders[i])})
		}
		triggers = append(triggers, entry)
	}
	var document yaml.MapSlice
	if len(e.Sources) > 0 {
		document = append(document, yaml.MapItem{Key: sourcesKey, Value: sourceTree(e.Sources)})
	}
	if shared := share(triggers); style == Shared && len(shared) > 0 {
		for i := range triggers {
			triggers[i] = without(triggers[i].(yaml.MapSlice), shared)
		}
		document = append(document, yaml.MapItem{Key: sharedRule, Value: shared})
	}
	document = append(document, yaml.MapItem{Key: "triggers", Value: triggers})
	others, err := orderedSettings(e.Settings)
	return append(document, others...), err
}

func listTree(texts []string) []any {
	tree := make([]any, len(texts))
	for i, text := range texts {
		tree[i] = text
	}
	return tree
}

// sourceTree returns sources as YAML is written from them. A connection string without a reference may
// hold a password, so a variable takes its place.
func sourceTree(all []Source) (tree yaml.MapSlice) {
	for i := range all {
		s := &all[i]
		var keys yaml.MapSlice
		for _, c := range [...]struct{ key, value, variable string }{
			{"url", s.URL, "DATABASE_URL"}, {"listen_url", s.ListenURL, "LISTEN_URL"}, {"http_url", s.HTTPURL, "HTTP_DATABASE_URL"},
		} {
			switch {
			case c.value == "":
				continue
			case !strings.Contains(c.value, "${"):
				c.value = "${" + variableOf(s.Name) + "_" + c.variable + "}"
			}
			keys = append(keys, yaml.MapItem{Key: c.key, Value: c.value})
		}
		if s.Env != nil {
			keys = append(keys, yaml.MapItem{Key: "env", Value: listTree(s.Env)})
		}
		if s.SecretsDir != "" {
			keys = append(keys, yaml.MapItem{Key: "secrets_dir", Value: s.SecretsDir})
		}
		tree = append(tree, yaml.MapItem{Key: s.Name, Value: keys})
	}
	return tree
}

// variableOf returns the beginning of a variable's name for a source.
func variableOf(source string) string {
	name := strings.ToUpper(strings.ReplaceAll(source, "-", "_"))
	if isDigits(name[:1]) {
		return "_" + name
	}
	return name
}

// share returns the keys of Shared that all of several triggers have with the same value.
func share(triggers []any) (shared yaml.MapSlice) {
	if len(triggers) < 2 {
		return nil
	}
	for _, path := range [][]string{
		{"webhook", "timeout"}, {"retry", "limit"}, {"retry", "interval"}, {"retry", "backoff"}, {"retry", "max_interval"}, {"breaker"},
	} {
		value, ok := at(triggers[0], path)
		for _, other := range triggers[1:] {
			same, has := at(other, path)
			ok = ok && has && fmt.Sprint(same) == fmt.Sprint(value)
		}
		if !ok {
			continue
		}
		item := yaml.MapItem{Key: path[len(path)-1], Value: value}
		if len(path) == 1 {
			shared = append(shared, item)
			continue
		}
		i := slices.IndexFunc(shared, func(group yaml.MapItem) bool { return group.Key == path[0] })
		if i < 0 {
			i = len(shared)
			shared = append(shared, yaml.MapItem{Key: path[0], Value: yaml.MapSlice{}})
		}
		shared[i].Value = append(shared[i].Value.(yaml.MapSlice), item)
	}
	return shared
}

// at returns the value at a path of keys.
func at(tree any, path []string) (any, bool) {
	for _, key := range path {
		group, _ := tree.(yaml.MapSlice)
		i := slices.IndexFunc(group, func(item yaml.MapItem) bool { return item.Key == key })
		if i < 0 {
			return nil, false
		}
		tree = group[i].Value
	}
	return tree, true
}

// orderedSettings returns the keys of settings that have not their default.
func orderedSettings(settings trigger.Settings) (yaml.MapSlice, error) {
	var trees [2]yaml.MapSlice
	for i, s := range []trigger.Settings{settings, trigger.DefaultSettings()} {
		s.Alerts = slices.Clone(s.Alerts)
		for n := range s.Alerts {
			usualAlert(&s.Alerts[n])
		}
		text, err := yaml.MarshalWithOptions(s, yaml.CustomMarshaler(func(s string) ([]byte, error) { return json.Marshal(s) }))
		if err == nil {
			err = yaml.UnmarshalWithOptions(text, &trees[i], yaml.UseOrderedMap())
		}
		if err != nil {
			return nil, fmt.Errorf("write the settings: %w", err)
		}
	}
	return without(trees[0], trees[1]), nil
}

// usualAlert takes out of an alert what is its default.
func usualAlert(a *trigger.Alert) {
	if a.Format == trigger.AlertJSON {
		a.Format = ""
	}
	if a.Backlog.OlderThan == trigger.DefaultBacklog {
		a.Backlog = trigger.Backlog{}
	}
	if a.Every == trigger.DefaultHeartbeat {
		a.Every = 0
	}
}

// ordered returns the keys of a trigger in the order of its fields.
func ordered(spec trigger.Spec) (out yaml.MapSlice, err error) {
	quoted := yaml.CustomMarshaler(func(s string) ([]byte, error) { return json.Marshal(s) })
	request := spec.Request()
	// The library would read the numbers of a template, and so lose digits.
	if spec.Webhook.Body != "" {
		spec.Webhook.Body = trigger.BodyForm
	}
	if spec.NATS.Body != "" {
		spec.NATS.Body = trigger.BodyForm
	}
	text, err := yaml.MarshalWithOptions(spec, quoted)
	if err == nil {
		err = yaml.UnmarshalWithOptions(text, &out, yaml.UseOrderedMap())
	}
	if err == nil {
		err = putFree(out, spec.Kind(), &request)
	}
	if err != nil {
		return nil, fmt.Errorf("write the trigger %s: %w", spec.Name, err)
	}
	return out, nil
}

// putFree puts the values of a webhook or a message whose names are free where they belong, so that
// the library writes each name as it is read. destination is the key that has them.
func putFree(spec yaml.MapSlice, destination string, w *trigger.Webhook) error {
	for _, item := range spec {
		group, _ := item.Value.(yaml.MapSlice)
		for i := range group {
			if item.Key != destination {
				break
			}
			tree, err := any(nil), error(nil)
			switch key := group[i].Key; {
			case key == "body" && w.Body != trigger.BodyForm:
				tree, err = templateTree(w.Body)
			case key == "query":
				tree, err = mapTree(w.Query)
			case key == "form":
				tree, err = mapTree(w.Form)
			default:
				continue
			}
			if err != nil {
				return err
			}
			group[i].Value = tree
		}
	}
	return nil
}

// mapTree returns names and values as YAML is written from them.
func mapTree(values map[string]string) (any, error) {
	text, err := json.Marshal(values)
	if err != nil {
		return nil, err
	}
	return templateTree(trigger.Body(text))
}

// plainKey matches the keys that the library writes in a form that it reads.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_$](?:[A-Za-z0-9_.$ /-]*[A-Za-z0-9_.$/-])?$`)

// without returns the keys whose value is not the usual one, and those that each trigger needs.
func without(all, usual yaml.MapSlice) (out yaml.MapSlice) {
	for _, item := range all {
		i := slices.IndexFunc(usual, func(u yaml.MapItem) bool { return u.Key == item.Key })
		group, isGroup := item.Value.(yaml.MapSlice)
		switch {
		case item.Key == "on" || item.Key == "name" || item.Key == "url" || item.Key == "subject":
		case item.Key == "limit" && slices.ContainsFunc(all, func(o yaml.MapItem) bool { return o.Key == "schedule" }):
			// without it, it is the length of the schedule
		case i < 0:
		case isGroup:
			was, _ := usual[i].Value.(yaml.MapSlice)
			if item.Value = without(group, was); len(item.Value.(yaml.MapSlice)) == 0 {
				continue
			}
		case fmt.Sprint(item.Value) == fmt.Sprint(usual[i].Value):
			continue
		}
		out = append(out, item)
	}
	return out
}

// What YAML reads as this text without quotes, in every version of it: words and expressions that
// begin with a letter or a reference, and what has a unit.
var (
	plainText = regexp.MustCompile(`^(?:[A-Za-z_/]|\$\{|\$[a-z])[A-Za-z0-9_.,/@?=&+%<>()'*!${} -]*(?::/?[A-Za-z0-9_./@?=&+%${}-]+)*$`)
	withUnit  = regexp.MustCompile(`^(?:(?:[0-9]+(?:ns|us|ms|s|m|h|d|w))+|[0-9]+[KMGT]iB|[0-9]+/[smh])$`)
)

// writeText writes a text without quotes where that is safe.
func writeText(s string) ([]byte, error) {
	words := []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
	if withUnit.MatchString(s) || plainText.MatchString(s) && strings.TrimSpace(s) == s && !slices.Contains(words, strings.ToLower(s)) {
		return []byte(s), nil
	}
	return json.Marshal(s)
}
