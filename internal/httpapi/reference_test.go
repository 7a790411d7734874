package httpapi_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the list in docs/api.md")

func TestReferenceListsTheOperations(t *testing.T) {
	t.Parallel()
	const file, begin = "../../docs/api.md", "-update -->\n"
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	prose, list, ok := strings.Cut(string(text), begin)
	require.True(t, ok)
	doc := document(t)
	want := operationList(doc.T)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(prose+begin+want), 0o644))
		return
	}
	require.Equal(t, want, list, "rewrite it: go test ./internal/httpapi -run Reference -update")
	for _, value := range doc.Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		require.Contains(t, prose, fmt.Sprintf("`%s`", value), "the table of problems has each code")
	}
}

// operationList returns a section for each operation, by the document's order of tags, then by
// path.
func operationList(doc *openapi3.T) string {
	var b strings.Builder
	for _, tag := range doc.Tags {
		fmt.Fprintf(&b, "\n%s.\n", tag.Description)
		for _, path := range slices.Sorted(slices.Values(doc.Paths.InMatchingOrder())) {
			item := doc.Paths.Value(path)
			for _, method := range []string{"GET", "POST", "DELETE"} {
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
