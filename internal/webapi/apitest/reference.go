package apitest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// Reference describes the operations in Markdown: a section for each one, by the document's order of
// tags, then by path.
func (d *Document) Reference() string {
	var b strings.Builder
	for _, tag := range d.Tags {
		fmt.Fprintf(&b, "\n%s.\n", tag.Description)
		for _, path := range slices.Sorted(slices.Values(d.Paths.InMatchingOrder())) {
			item := d.Paths.Value(path)
			for _, method := range []string{"GET", "PUT", "POST", "DELETE"} {
				if o := item.GetOperation(method); o != nil && slices.Contains(o.Tags, tag.Name) {
					describe(&b, method, path, item, o)
				}
			}
		}
	}
	return b.String()
}

func describe(b *strings.Builder, method, path string, item *openapi3.PathItem, o *openapi3.Operation) {
	fmt.Fprintf(b, "\n### `%s %s`\n\n%s.", method, path, o.Summary)
	if o.Description != "" {
		fmt.Fprintf(b, " %s", strings.TrimSpace(o.Description))
	}
	if o.Security != nil {
		for _, scopes := range *o.Security {
			for _, scope := range slices.Concat(slices.Collect(maps.Values(scopes))...) {
				fmt.Fprintf(b, " Needs the scope `%s`.", scope)
			}
		}
	}
	b.WriteString("\n")
	parameters := slices.Concat(item.Parameters, o.Parameters)
	if len(parameters) > 0 {
		b.WriteString("\n| parameter | in | |\n|---|---|---|\n")
	}
	for _, p := range parameters {
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", p.Value.Name, p.Value.In, strings.ReplaceAll(p.Value.Description, "|", `\|`))
	}
	if o.RequestBody != nil {
		fmt.Fprintf(b, "\nBody: %s\n", shape(o.RequestBody.Value.Content["application/json"].Schema, 0))
	}
	for _, status := range []string{"200", "201"} {
		if r := o.Responses.Value(status); r != nil {
			if c := r.Value.Content["application/json"]; c != nil {
				fmt.Fprintf(b, "\nAnswer: %s\n", shape(c.Schema, 0))
			}
		}
	}
}

// shape writes a schema as the keys of an object. Optional keys have a question mark.
func shape(s *openapi3.SchemaRef, depth int) string {
	v := s.Value
	switch {
	case v.Type.Is("array") && v.Items != nil && v.Items.Value.Properties != nil && depth <= 1:
		return "[" + shape(v.Items, depth) + ", ...]"
	case v.Properties == nil && s.Ref == "" && len(v.AnyOf) == 2 && v.AnyOf[1].Value.Properties != nil && depth <= 1:
		return shape(v.AnyOf[1], depth) + " or null"
	case v.Properties == nil || depth > 1:
		return ""
	}
	var keys []string
	for _, name := range slices.Sorted(maps.Keys(v.Properties)) {
		key := "`" + name + "`"
		if !slices.Contains(v.Required, name) {
			key += "?"
		}
		if inner := shape(v.Properties[name], depth+1); inner != "" {
			key += ": " + inner
		}
		keys = append(keys, key)
	}
	return "{" + strings.Join(keys, ", ") + "}"
}
