package sink

import (
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
	if step == "" || step[0] < '0' || step[0] > '9' {
		return false // at once: an error would be made of it
	}
	_, err := strconv.ParseUint(step, 10, 31)
	return err == nil
}

// missing says why a path leads to nothing.
type missing struct {
	at    string          // where the path breaks off: its beginning, or the whole body
	value json.RawMessage // what is there
	rest  []string        // the steps that lead nowhere; the first one is the key that is missing
}

// find returns the value in body to which p leads. If there is none, it says why.
func (p path) find(body json.RawMessage) (json.RawMessage, *missing) {
	value, found := rootIn(body, p.steps[0])
	if !found {
		value = body
		for _, key := range roots[p.steps[0]] {
			next, ok := step(value, key)
			if !ok {
				return nil, &missing{value: value, rest: []string{key}}
			}
			value = next
		}
	}
	at := p.steps[0]
	for i, key := range p.steps[1:] {
		next, ok := step(value, key)
		if !ok {
			return nil, &missing{at, value, p.steps[1+i:]}
		}
		value, at = next, at+"."+pathKey(key)
	}
	return value, nil
}

// root returns the value in body to which the first step of p leads.
func (p path) root(body json.RawMessage) (value json.RawMessage, found bool) {
	return rootIn(body, p.steps[0])
}

// under returns the value to which p leads, from that of its root.
func (p path) under(root json.RawMessage) (value json.RawMessage, found bool) {
	return steps(root, p.steps[1:])
}

func steps(value json.RawMessage, keys []string) (json.RawMessage, bool) {
	for _, key := range keys {
		next, ok := step(value, key)
		if !ok {
			return nil, false
		}
		value = next
	}
	return value, true
}

// step returns the value of a key, or of an index in an array. It copies nothing: bodies can be
// large, and many questions look into each.
func step(value json.RawMessage, key string) (json.RawMessage, bool) {
	inside, bracket := within(value)
	switch {
	case bracket == '{':
		return member(inside, key)
	case bracket == '[' && isIndex(key):
		index, err := strconv.Atoi(key)
		for ; err == nil; index-- {
			next, ok := inside.element()
			if !ok || index == 0 {
				return next, ok
			}
		}
	}
	return nil, false
}

// is describes what is there instead of an object or array that the path could go on in; "" for an
// object, which lacks a key.
func (l *missing) is() string {
	switch inside, bracket := within(l.value); bracket {
	case '{':
		return ""
	case '[':
		return fmt.Sprintf("an array of %d", inside.count())
	}
	return shownJSON(l.value)
}

// mostKeys is the number of keys of an object that a message looks at. A table has fewer columns.
const mostKeys = 2000

// keys returns the keys of the object that lacks one, in their order. more is the number of members
// beyond mostKeys.
func (l *missing) keys() (keys []string, more int) {
	inside, bracket := within(l.value)
	for bracket == '{' {
		name, _, ok := inside.next()
		if !ok {
			break
		}
		if len(keys) == mostKeys {
			more++
			continue
		}
		if key, ok := unquote(name); ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), more
}
