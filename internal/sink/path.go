package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhook/rowhook/internal/suggest"
)

// path names a value in an event, such as new.items[0].sku. Its first step is a name of roots.
type path struct {
	text  string
	steps []string
}

// roots are the first steps of a path, to the keys that lead there from the top of the body.
var roots = map[string][]string{
	"new":               {"event", "data", "new"},
	"old":               {"event", "data", "old"},
	"op":                {"event", "op"},
	"session_variables": {"event", "session_variables"},
	"trace_context":     {"event", "trace_context"},
	"event":             {"event"},
	"id":                {"id"},
	"created_at":        {"created_at"},
	"table":             {"table"},
	"trigger":           {"trigger"},
	"delivery_info":     {"delivery_info"},
	"test":              {"test"},
}

// parsePath reads steps that are separated by dots. A step is a key or, in an array, an index, which
// may stand in brackets. A key with a dot, a bracket or a quote is written in double quotes as a
// JSON string, or with a backslash before each such character.
func parsePath(text string) (path, error) {
	p := path{text: text}
	rest := text
	for first := true; rest != "" || first; first = false {
		step, after, err := nextStep(rest, first)
		if err != nil {
			return path{}, fmt.Errorf("path %q: %w", text, err)
		}
		p.steps, rest = append(p.steps, step), after
	}
	if roots[p.steps[0]] == nil {
		return path{}, fmt.Errorf("path %q begins with %q, which no event has%s", text, p.steps[0], rootHint(text, p.steps[0]))
	}
	return p, nil
}

func rootHint(text, root string) string {
	if bare := strings.TrimPrefix(text, "$."); bare != text {
		return "; write " + bare
	}
	if hint := suggest.Hint(root, slices.Sorted(maps.Keys(roots))); hint != "" {
		return hint
	}
	return "; begin with new or old, as in new." + text
}

// nextStep takes the next step off rest.
func nextStep(rest string, first bool) (step, after string, err error) {
	inBrackets := strings.HasPrefix(rest, "[")
	switch {
	case inBrackets:
		rest = rest[1:]
	case !first && strings.HasPrefix(rest, "."):
		rest = rest[1:]
	case !first:
		return "", "", fmt.Errorf("a dot is missing before %q", rest)
	}
	if strings.HasPrefix(rest, `"`) {
		step, after, err = quotedStep(rest)
	} else {
		step, after, err = bareStep(rest)
		if err == nil && inBrackets && !isIndex(step) {
			err = fmt.Errorf("[%s] is neither an index from 0 nor a key in double quotes", step)
		}
	}
	if err != nil || !inBrackets {
		return step, after, err
	}
	after, ok := strings.CutPrefix(after, "]")
	if !ok {
		return "", "", errors.New("a bracket is not closed")
	}
	return step, after, nil
}

func quotedStep(rest string) (step, after string, err error) {
	in := json.NewDecoder(strings.NewReader(rest))
	if err := in.Decode(&step); err != nil {
		return "", "", errors.New("a key in double quotes is not a JSON string")
	}
	return step, rest[in.InputOffset():], nil
}

func bareStep(rest string) (step, after string, err error) {
	var b strings.Builder
	i := 0
	for ; i < len(rest) && !strings.ContainsRune(".[]", rune(rest[i])); i++ {
		if rest[i] == '\\' {
			if i++; i == len(rest) {
				return "", "", errors.New("nothing follows the last backslash")
			}
		}
		b.WriteByte(rest[i])
	}
	if i == 0 {
		return "", "", errors.New(`a key is empty; write "" for an empty key`)
	}
	return b.String(), rest[i:], nil
}

// pathKey writes a key as a step of a path.
func pathKey(key string) string {
	if key == "" || strings.ContainsAny(key, `.[]"\`) {
		return quoteJSON(key)
	}
	return key
}

func isIndex(step string) bool {
	_, err := strconv.ParseUint(step, 10, 31)
	return err == nil
}

// missing says why a path leads to nothing.
type missing struct {
	at   string   // where the path breaks off: its beginning, or the whole body
	is   string   // what is there instead of an object or array: "null", "text"; "" for those two
	keys []string // the keys of the object that lacks the next one
	rest []string // the steps that lead nowhere; the first one is the key that is missing
}

// find returns the value in body to which p leads. If there is none, it says why.
func (p path) find(body json.RawMessage) (json.RawMessage, *missing) {
	value := body
	for _, key := range roots[p.steps[0]] {
		next, lack := step(value, key)
		if lack != nil {
			return nil, lack
		}
		value = next
	}
	at := p.steps[0]
	for i, key := range p.steps[1:] {
		next, lack := step(value, key)
		if lack != nil {
			lack.at, lack.rest = at, p.steps[1+i:]
			return nil, lack
		}
		value, at = next, at+"."+pathKey(key)
	}
	return value, nil
}

func step(value json.RawMessage, key string) (json.RawMessage, *missing) {
	lack := &missing{rest: []string{key}}
	switch value = bytes.TrimLeft(value, " \t\r\n"); {
	case len(value) > 0 && value[0] == '{':
		var object map[string]json.RawMessage
		if json.Unmarshal(value, &object) == nil {
			if next, ok := object[key]; ok {
				return next, nil
			}
			lack.keys = slices.Sorted(maps.Keys(object))
		}
	case len(value) > 0 && value[0] == '[':
		var array []json.RawMessage
		index, err := strconv.Atoi(key)
		if err == nil && isIndex(key) && json.Unmarshal(value, &array) == nil && index < len(array) {
			return array[index], nil
		}
		lack.is = fmt.Sprintf("an array of %d", len(array))
	default:
		lack.is = string(value)
	}
	return nil, lack
}
