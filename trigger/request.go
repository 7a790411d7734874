package trigger

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/rowhook/rowhook/internal/template"
)

// Body is the template of a request's body: JSON with placeholders in its strings, in the order of its
// keys. [BodyForm] is the body of a form with the columns of the row. "" is the body that is made
// without a template.
type Body string

// BodyForm is a Body that stands for a form with the columns of new, or of old for a delete.
const BodyForm Body = `"form"`

// MarshalJSON writes a string with the JSON in it: the database does not keep the order of keys.
func (b Body) MarshalJSON() ([]byte, error) { return json.Marshal(string(b)) }

// UnmarshalJSON reads what MarshalJSON writes.
func (b *Body) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil || text != "" && !json.Valid([]byte(text)) {
		return errors.New("read body: it is not a string with JSON in it")
	}
	*b = Body(text)
	return nil
}

// MarshalYAML writes the template as JSON, which is YAML, too.
func (b Body) MarshalYAML() ([]byte, error) {
	switch b {
	case "":
		return []byte("null"), nil
	case BodyForm:
		return []byte("form"), nil
	}
	return []byte(b), nil
}

// The methods of a webhook.
const (
	MethodPost   = "POST" // the default, which is stored as ""
	MethodPut    = "PUT"
	MethodPatch  = "PATCH"
	MethodDelete = "DELETE"
	MethodGet    = "GET"
)

// Methods returns the values of Webhook.Method in rowhook.yaml.
func Methods() []string {
	return []string{MethodPost, MethodPut, MethodPatch, MethodDelete, MethodGet}
}

// HasBody reports whether requests have a body.
func (w *Webhook) HasBody() bool {
	return w.Method != MethodGet && (w.Method != MethodDelete || w.Body != "" || len(w.Form) > 0)
}

// IsTemplate reports whether Body or Form say what requests hold.
func (w *Webhook) IsTemplate() bool { return w.Body != "" || len(w.Form) > 0 }

// URLHasData reports whether URL or Query hold data of the event, so that events go to different
// addresses.
func (w *Webhook) URLHasData() bool {
	for _, text := range w.Query {
		if parts, err := template.Parse(text, template.Always); err == nil && hasData(parts) {
			return true
		}
	}
	return template.HasData(w.URL)
}

// HeadersHaveData returns the names of headers that hold data of the event, sorted.
func (w *Webhook) HeadersHaveData() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(w.Headers)) {
		if template.HasData(w.Headers[name]) {
			names = append(names, name)
		}
	}
	return names
}

func hasData(parts []template.Part) bool {
	return slices.ContainsFunc(parts, func(p template.Part) bool { return p.Data != nil })
}

// hasOwnRequest reports whether requests differ from those of schema version 6.
func (w *Webhook) hasOwnRequest() bool {
	for _, value := range w.Headers {
		if template.IsTemplate(value) {
			return true
		}
	}
	return w.Method != "" || len(w.Query) > 0 || w.IsTemplate() || template.IsTemplate(w.URL)
}

// EachText visits the texts of a webhook that may hold placeholders for data of the event, in a fixed
// order, each with its path in rowhook.yaml. The placeholders of url and headers are read as
// [template.Mixed] says, all others as [template.Always]. Words that are no template, such as form for
// body, are left out.
func (w *Webhook) EachText(visit func(text string, mode template.Mode, path ...string)) error {
	visit(w.URL, template.Mixed, "webhook", "url")
	for _, of := range []struct {
		key   string
		texts map[string]string
		mode  template.Mode
	}{{"query", w.Query, template.Always}, {"headers", w.Headers, template.Mixed}, {"form", w.Form, template.Always}} {
		for _, name := range slices.Sorted(maps.Keys(of.texts)) {
			visit(of.texts[name], of.mode, "webhook", of.key, name)
		}
	}
	return w.Body.eachText(visit, "webhook")
}

// eachText visits the texts of a template. key is that of the destination.
func (b Body) eachText(visit func(text string, mode template.Mode, path ...string), key string) error {
	if b == "" || b == BodyForm {
		return nil
	}
	err := template.Each(json.RawMessage(b), func(text string, path []string) {
		visit(text, template.Always, append([]string{key, "body"}, path...)...)
	})
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	return nil
}
