package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/rowhook/rowhook/trigger"
)

// Write returns a trigger as a rowhook.yaml with this trigger alone. Keys that have their default
// are left out. Parse returns the same trigger.
func Write(spec trigger.Spec) ([]byte, error) {
	full, err := ordered(spec)
	if err != nil {
		return nil, err
	}
	usual, err := ordered(trigger.DefaultSpec())
	if err != nil {
		return nil, err
	}
	text, err := yaml.MarshalWithOptions(yaml.MapSlice{{Key: "triggers", Value: []any{without(full, usual)}}},
		yaml.CustomMarshaler(func(s string) ([]byte, error) { return writeText(s) }), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("write the trigger %s: %w", spec.Name, err)
	}
	// The library quotes the key, as YAML 1.1 takes it for a boolean.
	return bytes.Replace(text, []byte("\n    \"on\":"), []byte("\n    on:"), 1), nil
}

// ordered returns the keys of a trigger in the order of its fields.
func ordered(spec trigger.Spec) (out yaml.MapSlice, err error) {
	quoted := yaml.CustomMarshaler(func(s string) ([]byte, error) { return json.Marshal(s) })
	webhook := spec.Webhook
	if webhook.Body != "" {
		spec.Webhook.Body = trigger.BodyForm // the library would read numbers, and so lose digits
	}
	text, err := yaml.MarshalWithOptions(spec, quoted)
	if err == nil {
		err = yaml.UnmarshalWithOptions(text, &out, yaml.UseOrderedMap())
	}
	if err == nil {
		err = putFree(out, &webhook)
	}
	if err != nil {
		return nil, fmt.Errorf("write the trigger %s: %w", spec.Name, err)
	}
	return out, nil
}

// putFree puts the values of a webhook whose names are free where they belong, so that the library
// writes each name as it is read.
func putFree(spec yaml.MapSlice, w *trigger.Webhook) error {
	for _, item := range spec {
		group, _ := item.Value.(yaml.MapSlice)
		for i := range group {
			if item.Key != "webhook" {
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
		case item.Key == "on" || item.Key == "name" || item.Key == "url":
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
