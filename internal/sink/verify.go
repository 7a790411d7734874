package sink

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/webapi"
	"github.com/rowhook/rowhook/trigger"
)

// claim is the body of POST /verify.
type claim struct {
	Match  *matchJSON       `json:"match"`
	Count  *int             `json:"count"` // exactly; nil: at least one
	Within trigger.Duration `json:"within"`
	Never  bool             `json:"never"`
}

// matchJSON is a Match in JSON. Unlike those of a query, its values have types.
type matchJSON struct {
	Trigger  *string     `json:"trigger"`
	Op       *string     `json:"op"`
	Table    *string     `json:"table"`
	ID       *string     `json:"id"`
	Where    typedWhere  `json:"where"`
	Present  presentList `json:"present"`
	Attempt  *int        `json:"attempt"`
	Attempts *string     `json:"attempts"`
	Accepted *bool       `json:"accepted"`
	Test     *bool       `json:"test"`
	After    uint64      `json:"after"`
}

// typedWhere reads an object of paths to the values that they must have.
type typedWhere []Condition

// UnmarshalJSON implements json.Unmarshaler. It keeps the order.
func (w *typedWhere) UnmarshalJSON(text []byte) error {
	if *w = nil; string(text) == "null" {
		return nil
	}
	in := json.NewDecoder(bytes.NewReader(text))
	if open, err := in.Token(); err != nil || open != json.Delim('{') {
		return errors.New(`where must be an object of paths to values, such as {"new.id": 7}`)
	}
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return err
		}
		var v json.RawMessage
		if err := in.Decode(&v); err != nil {
			return err
		}
		c, err := Where(name.(string), v) // the key of an object
		if err != nil {
			return err
		}
		*w = append(*w, c)
	}
	return nil
}

// presentList reads a list of paths at which there must be a value.
type presentList []Condition

// UnmarshalJSON implements json.Unmarshaler.
func (l *presentList) UnmarshalJSON(text []byte) error {
	var paths []string
	if json.Unmarshal(text, &paths) != nil {
		return errors.New(`present must be a list of paths, such as ["new.email"]`)
	}
	*l = nil
	for _, p := range paths {
		c, err := Present(p)
		if err != nil {
			return err
		}
		*l = append(*l, c)
	}
	return nil
}

// match returns the Match that m describes.
func (m *matchJSON) match() (Match, error) {
	out := Match{Accepted: m.Accepted, Test: m.Test, After: m.After, Where: slices.Concat([]Condition(m.Where), []Condition(m.Present))}
	for name, text := range map[string]*string{"trigger": m.Trigger, "op": m.Op, "table": m.Table, "id": m.ID, "attempts": m.Attempts} {
		if text == nil {
			continue
		}
		if err := out.read(name, *text); err != nil {
			return Match{}, err
		}
	}
	if m.Attempt != nil {
		if out.Attempt = *m.Attempt; out.Attempt < 1 {
			return Match{}, invalid(fmt.Sprintf("attempt is %d", out.Attempt), "attempts are counted from 1")
		}
	}
	return out, nil
}

// verify answers POST /verify.
func (s *Sink) verify(w http.ResponseWriter, r *http.Request, body []byte) error {
	var c claim
	if err := decode(body, &c); err != nil {
		return err
	}
	m, err := c.check()
	if err != nil {
		return err
	}
	if err := s.checkCursor(m); err != nil {
		return err
	}
	ctx, cancel := withWait(r, c.Within.Std())
	defer cancel()
	var miss *Miss
	switch {
	case c.Never:
		miss = s.Never(ctx, m)
	case c.Count == nil:
		miss = s.arrives(ctx, m, 1)
	default:
		_, miss = s.Exactly(ctx, m, *c.Count)
	}
	if err := stopping(r); err != nil {
		return err
	}
	switch {
	case miss == nil:
		m = m.counting()
		s.writeList(w, func(v view) []*Delivery { return m.counted(v.deliveries) }, maxCount)
		return nil
	case miss.Shortfall == TooFew:
		return miss.write(w, http.StatusRequestTimeout)
	}
	return miss.write(w, http.StatusConflict)
}

// check returns the match of a claim.
func (c *claim) check() (Match, error) {
	switch {
	case c.Match == nil:
		return Match{}, invalid("match is missing", `write {"match": {"trigger": "order_placed", "where": {"new.id": 7}}, "within": "5s"}; {"match": {}} chooses every delivery`)
	case c.Never && c.Count != nil:
		return Match{}, invalid("never and count contradict each other", "leave one of them out")
	case c.Count != nil && (*c.Count < 0 || *c.Count > maxCount):
		return Match{}, invalid(fmt.Sprintf("count is %d, and not from 0 to %d", *c.Count, maxCount), "write \"count\": 1")
	case c.Within.Std() > maxWait:
		return Match{}, invalid(fmt.Sprintf("within is %s, which is more than %s", c.Within, trigger.Duration(maxWait)), "verify several times")
	}
	if c.Count != nil && *c.Count == 0 {
		c.Never = true
	}
	return c.Match.match()
}

// decode reads a body in JSON.
func decode(body []byte, v any) error {
	err := webapi.Decode(bytes.NewReader(body), v)
	var wrong *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case webapi.UnknownField(err) != "":
		name := webapi.UnknownField(err)
		return invalid(fmt.Sprintf("there is no field %q%s", name, suggest.Hint(name, fields(reflect.TypeOf(v)))), "the fields are "+strings.Join(fields(reflect.TypeOf(v)), ", "))
	case errors.As(err, &wrong):
		return invalid(fmt.Sprintf("%s is of the kind %s, and must be %s", cmp.Or(wrong.Field, "the body"), wrong.Value, kind(wrong.Type)), "GET /openapi.json describes what is accepted")
	case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("the body is not JSON: "+strings.TrimPrefix(err.Error(), "json: "), "")
	}
	return problem(err)
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

// fields returns the names that the JSON of a struct has, those of its parts among them.
func fields(t reflect.Type) (names []string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "" {
			names = append(names, name)
		}
		names = append(names, fields(t.Field(i).Type)...)
	}
	return names
}
