package sqlschema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// differences returns what differs between two JSON objects, one value a line: retry.limit: 5
// becomes 3. For a value that may be secret it only says that it changed.
func differences(have, want []byte) ([]string, error) {
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
	}
	return compare(nil, old, new), nil
}

func compare(path []string, old, new any) (lines []string) {
	if reflect.DeepEqual(old, new) {
		return nil
	}
	from, isMap := old.(map[string]any)
	to, isMapToo := new.(map[string]any)
	if (isMap || old == nil) && (isMapToo || new == nil) && (isMap || isMapToo) {
		keys := maps.Clone(from)
		if keys == nil {
			keys = map[string]any{}
		}
		maps.Copy(keys, to)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			lines = append(lines, compare(append(slices.Clone(path), key), from[key], to[key])...)
		}
		return lines
	}
	name := strings.Join(path, ".")
	secret := name == "webhook.secret" || strings.HasPrefix(name, "webhook.headers.")
	switch {
	case old == nil && secret:
		return []string{name + " added"}
	case old == nil:
		return []string{name + ": " + plainValue(new)}
	case new == nil:
		return []string{name + " removed"}
	case secret:
		return []string{name + " changed"}
	}
	return []string{name + ": " + plainValue(old) + " becomes " + plainValue(new)}
}

// plainValue returns a value of a spec as text, without the password of a URL.
func plainValue(v any) string {
	if s, ok := v.(string); ok {
		if u, err := url.Parse(s); err == nil && u.User != nil {
			return u.Redacted()
		}
		return s
	}
	text, err := json.Marshal(v)
	if err != nil { // it was JSON before
		return fmt.Sprint(v)
	}
	return string(text)
}
