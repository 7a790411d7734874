package hasura

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/rowhook/rowhook/internal/importer"
)

// writer turns expressions of Kriti into what rowhook.yaml has for them.
type writer struct {
	baseURL  []importer.Piece // $base_url: the webhook
	retries  int              // $body.delivery_info.max_retries
	variable func(name, value string) (string, bool)
}

// found is what a path stands for.
type found struct {
	data  string           // a placeholder
	never bool             // it is never null
	json  string           // a template of several placeholders, as JSON
	base  []importer.Piece // the webhook
}

// Objects of the usual body as templates.
const wholeTable, wholeTrigger = `{"schema":"$table.schema","name":"$table.name"}`, `{"name":"$trigger"}`

// usualBody is the usual body as a template, for places where only a template can stand. The one thing
// that it does not have is delivery_info.current_retry.
func (w *writer) usualBody() string {
	return `{"id":"$id","created_at":"$created_at","table":` + wholeTable + `,"trigger":` + wholeTrigger + `,"event":"$event","delivery_info":{"max_retries":` + strconv.Itoa(w.retries) + `}}`
}

// path finds what a path stands for.
func (w *writer) path(e *expression) (found, error) {
	switch e.root {
	case "$base_url":
		if len(e.steps) > 0 {
			return found{}, beyond("a member of $base_url")
		}
		return found{base: w.baseURL}, nil
	case "$session_variables":
		return found{data: session(e.steps)}, nil
	case "$body":
		return w.body(e.steps)
	}
	return found{}, beyond("%s", e.root)
}

func (w *writer) body(steps []step) (found, error) {
	name := func(at int) string {
		if at < len(steps) && !steps[at].isIndex {
			return steps[at].name
		}
		return ""
	}
	whole := len(steps) == 1
	switch first := name(0); {
	case len(steps) == 0:
		return found{json: w.usualBody()}, nil
	case whole && (first == "id" || first == "created_at"):
		return found{data: first, never: true}, nil
	case whole && first == "trigger":
		return found{json: wholeTrigger}, nil
	case first == "trigger" && name(1) == "name" && len(steps) == 2:
		return found{data: "trigger", never: true}, nil
	case whole && first == "table":
		return found{json: wholeTable}, nil
	case first == "table" && len(steps) == 2 && (name(1) == "schema" || name(1) == "name"):
		return found{data: "table." + name(1), never: true}, nil
	case first == "delivery_info" && name(1) == "max_retries" && len(steps) == 2:
		return found{json: strconv.Itoa(w.retries)}, nil
	case first == "delivery_info":
		return found{}, beyond("$body.delivery_info, which counts attempts ($attempt is one more than current_retry)")
	case first != "event":
		return found{}, beyond("$body%s, which the body does not have", written(steps))
	}
	switch second := name(1); {
	case whole:
		return found{data: "event", never: true}, nil
	case second == "op" && len(steps) == 2:
		return found{data: "event.op", never: true}, nil
	case second == "session_variables":
		return found{data: session(steps[2:])}, nil
	case second == "trace_context":
		return found{data: members("event.trace_context", steps[2:])}, nil
	case second == "data" && len(steps) == 2:
		return found{data: "event.data", never: true}, nil
	case second == "data" && (name(2) == "new" || name(2) == "old"):
		return found{data: members(name(2), steps[3:])}, nil
	}
	return found{}, beyond("$body%s, which the body does not have", written(steps))
}

func written(steps []step) string { return members("", steps) }

func members(base string, steps []step) string {
	for _, s := range steps {
		if s.isIndex {
			base += "[" + strconv.Itoa(s.index) + "]"
			continue
		}
		base = importer.Member(base, s.name)
	}
	return base
}

var plainSession = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*$`)

// session returns the placeholder of a session variable. Their names have hyphens.
func session(steps []step) string {
	if len(steps) == 0 || steps[0].isIndex || !plainSession.MatchString(steps[0].name) {
		return members("session", steps)
	}
	return members("session."+strings.ToLower(steps[0].name), steps[1:])
}

// place says what an expression is written for.
type place int8

const (
	inJSON   place = iota // a value of the body
	inString              // within a string of the body
	inForm                // a form or a header: a text
	inQuery               // a value of the query, which Rowhook escapes
	inURL                 // the URL, whose data Rowhook escapes
)

// data returns the placeholder of an expression, with its default. A null in a text is the word null
// for Kriti.
func (w *writer) data(e *expression, to place) (found, error) {
	switch {
	case e.root != "":
		f, err := w.path(e)
		return f, err
	case e.value != nil:
		return w.defaulted(e, to)
	case e.call == "getSessionVariable":
		name, ok := e.argument.plain()
		if !ok {
			return found{}, beyond("a session variable whose name is computed")
		}
		return found{data: session([]step{{name: name}})}, nil
	case e.call == "escapeUri" && (to == inURL || to == inQuery):
		return w.data(e.argument, to)
	case e.call != "":
		return found{}, beyond("the function %s", e.call)
	}
	if constant, ok := e.constant(); ok {
		return found{json: constant}, nil
	}
	return found{}, beyond("an expression")
}

func (w *writer) defaulted(e *expression, to place) (found, error) {
	f, err := w.data(e.value, to)
	if err != nil || f.data == "" || f.never {
		return f, err
	}
	if strings.Contains(f.data, " ?? ") {
		return found{}, beyond("a default of a default")
	}
	constant, ok := e.otherwise.constant()
	if !ok {
		return found{}, beyond("a default that is no constant")
	}
	if constant == "null" {
		return f, nil
	}
	f.data += " ?? " + constant
	f.never = true
	return f, nil
}

// json writes an expression as a template of a body. key is the name that the value has.
func (w *writer) json(e *expression, key string) (string, error) {
	switch {
	case e.isObject:
		parts := make([]string, len(e.object))
		for i, m := range e.object {
			value, err := w.json(m.value, m.name)
			if err != nil {
				return "", err
			}
			parts[i] = quoted(m.name) + ":" + value
		}
		return "{" + strings.Join(parts, ",") + "}", nil
	case e.isArray:
		parts := make([]string, len(e.array))
		for i, item := range e.array {
			var err error
			if parts[i], err = w.json(item, key); err != nil {
				return "", err
			}
		}
		return "[" + strings.Join(parts, ",") + "]", nil
	case e.word != "":
		return e.word, nil
	case e.isText:
		pieces, err := w.text(e, inString, key)
		return quoted(importer.Join(importer.Always, pieces...)), err
	}
	f, err := w.data(e, inJSON)
	switch {
	case err != nil:
		return "", err
	case f.json != "":
		return f.json, nil
	case f.base != nil:
		return quoted(importer.Join(importer.Always, f.base...)), nil
	}
	return quoted(importer.Join(importer.Always, importer.Data(f.data))), nil
}

// text writes a string as pieces.
func (w *writer) text(e *expression, to place, key string) ([]importer.Piece, error) {
	if plain, ok := e.plain(); ok {
		if name, secret := w.variable(key, plain); secret {
			return []importer.Piece{importer.Ref(name)}, nil
		}
		return []importer.Piece{importer.Text(plain)}, nil
	}
	var pieces []importer.Piece
	for _, part := range e.parts {
		if part.isPart {
			pieces = append(pieces, importer.Text(part.literal))
			continue
		}
		if part.isText { // a string within a string
			more, err := w.text(part, to, "")
			if err != nil {
				return nil, err
			}
			pieces = append(pieces, more...)
			continue
		}
		f, err := w.data(part, to)
		switch {
		case err != nil:
			return nil, err
		case f.base != nil:
			pieces = append(pieces, f.base...)
			continue
		case f.json != "":
			constant, err := constantText(f.json)
			if err != nil {
				return nil, err
			}
			pieces = append(pieces, importer.Text(constant))
			continue
		}
		data := f.data
		if to == inString && len(e.parts) == 1 {
			data = asText(data)
		}
		// In a URL it is nothing: a dead letter is better than a call of /orders/null.
		if !f.never && to != inURL && !(to == inQuery && len(e.parts) == 1) {
			data += ` ?? "null"`
		}
		pieces = append(pieces, importer.Data(data))
	}
	return pieces, nil
}

// asText has a placeholder be a string in JSON.
func asText(data string) string {
	placeholder, otherwise, has := strings.Cut(data, " ?? ")
	if !has {
		return placeholder + " as text"
	}
	return placeholder + " as text ?? " + otherwise
}

// constantText returns the text that a constant is within a string.
func constantText(constant string) (string, error) {
	if strings.Contains(constant, `"$`) {
		return "", beyond("an object within a text")
	}
	if !strings.HasPrefix(constant, `"`) {
		return constant, nil
	}
	e, err := parseTemplate(constant)
	if err != nil {
		return "", err
	}
	s, _ := e.plain()
	return s, nil
}

// texts writes the inside of a string, as a URL, a query, a header or a field of a form is one.
func (w *writer) texts(source string, to place, key string) ([]importer.Piece, error) {
	e, err := parseText(source)
	if err != nil {
		return nil, err
	}
	return w.text(e, to, key)
}

// isUsual reports whether a template is the usual body.
func isUsual(e *expression) bool { return e.root == "$body" && len(e.steps) == 0 }
