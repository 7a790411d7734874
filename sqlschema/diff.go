package sqlschema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/trigger"
)

// Difference is one value that changes in a Spec or a setting.
type Difference struct {
	Key    string // its path, such as retry.limit
	Action Action // Create: it was not there before; Remove: it is not there any more
	// Old and New are the values, as encoding/json decodes them, without the password of a URL. nil:
	// there is none, or it is secret.
	Old, New any
	Secret   bool // it may be a secret, so Old and New are nil
}

// String returns the difference in words: retry.limit: 5 becomes 3.
func (d Difference) String() string {
	switch {
	case d.Action == Create && d.Secret:
		return d.Key + " added"
	case d.Action == Create:
		return d.Key + ": " + plainValue(d.New)
	case d.Action == Remove:
		return d.Key + " removed"
	case d.Secret:
		return d.Key + " changed"
	}
	return d.Key + ": " + plainValue(d.Old) + " becomes " + plainValue(d.New)
}

// differences returns what differs between two JSON objects.
func differences(have, want []byte) ([]Difference, error) {
	var old, new any
	for _, side := range []struct {
		text []byte
		to   *any
	}{{have, &old}, {want, &new}} {
		d := json.NewDecoder(bytes.NewReader(side.text))
		d.UseNumber()
		if err := d.Decode(side.to); err != nil {
			return nil, fmt.Errorf("compare with the applied configuration: %w", err)
		}
		if spec, ok := (*side.to).(map[string]any); ok {
			trigger.ShowStored(spec)
		}
	}
	return compare(nil, old, new), nil
}

func compare(path []string, old, new any) (found []Difference) {
	if reflect.DeepEqual(old, new) {
		return nil
	}
	from, isMap := asMap(old)
	to, isMapToo := asMap(new)
	isMap = isMap || isMapToo && isEmptyList(old)
	isMapToo = isMapToo || isMap && isEmptyList(new)
	if (isMap || old == nil) && (isMapToo || new == nil) && (isMap || isMapToo) {
		keys := maps.Clone(from)
		if keys == nil {
			keys = map[string]any{}
		}
		maps.Copy(keys, to)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			found = append(found, compare(append(slices.Clone(path), key), from[key], to[key])...)
		}
		return found
	}
	d := Difference{Key: strings.Join(path, "."), Action: Replace}
	if d.Key == "concurrency_total" {
		d.Key = "concurrency.total" // as in rowhook.yaml
	}
	switch {
	case old == nil:
		d.Action = Create
	case new == nil:
		d.Action = Remove
	}
	if d.Secret = isSecret(d.Key); !d.Secret {
		d.Old, d.New = withoutPassword(old), withoutPassword(new)
	}
	return []Difference{d}
}

// asMap returns the keys of an object, or the entries of a list of objects, as of alerts, by their
// place.
func asMap(v any) (keys map[string]any, ok bool) {
	if keys, ok = v.(map[string]any); ok {
		return keys, true
	}
	list, _ := v.([]any)
	for i, entry := range list {
		if _, ok := entry.(map[string]any); !ok {
			return nil, false
		}
		if keys == nil {
			keys = map[string]any{}
		}
		keys[fmt.Sprintf("[%d]", i)] = entry
	}
	return keys, keys != nil
}

func isEmptyList(v any) bool {
	list, ok := v.([]any)
	return ok && len(list) == 0
}

// alertSecret matches the values of alerts that grant access: a URL of Slack is a secret by itself.
var alertSecret = regexp.MustCompile(`^\[[0-9]+\]\.(?:url|secret|heartbeat)$`)

func isSecret(key string) bool {
	return key == "webhook.secret" || key == "webhook.oauth2.client_secret" || strings.HasPrefix(key, "webhook.headers.") || alertSecret.MatchString(key)
}

// passwordInURL matches the password also where a reference such as ${HOST} makes no URL of it.
var passwordInURL = regexp.MustCompile(`^([^/]*://[^/@:?#]*):[^/?#]*@`)

// withoutPassword returns a value of a spec without the password of a URL.
func withoutPassword(v any) any {
	s, ok := v.(string)
	if !ok {
		return v
	}
	return passwordInURL.ReplaceAllString(s, "$1:xxxxx@")
}

// plainValue returns a value of a spec as text.
func plainValue(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	text, err := json.Marshal(v)
	if err != nil { // it was JSON before
		return fmt.Sprint(v)
	}
	return string(text)
}
