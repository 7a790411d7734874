// Package apitest holds the answers of an HTTP interface to its OpenAPI document.
package apitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/webapi"
)

// Document is an OpenAPI document whose objects allow no unknown keys.
type Document struct {
	*openapi3.T
	raw    any
	routes *http.ServeMux // the routes of the document

	mu   sync.Mutex
	seen map[string]bool // operations that succeeded
}

// NewDocument reads a document in JSON, and drops its servers.
func NewDocument(t *testing.T, text []byte) *Document {
	t.Helper()
	d := &Document{routes: http.NewServeMux(), seen: map[string]bool{}}
	require.NoError(t, json.Unmarshal(text, &d.raw))
	d.raw = closed(d.raw)
	text, err := json.Marshal(d.raw)
	require.NoError(t, err)
	d.T, err = openapi3.NewLoader().LoadFromData(text)
	require.NoError(t, err)
	require.NoError(t, d.Validate(t.Context()))
	d.Servers = nil
	for path, item := range d.Paths.Map() {
		for method := range item.Operations() {
			d.routes.Handle(method+" "+path, http.NotFoundHandler())
		}
	}
	return d
}

func closed(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			v[key] = closed(value)
		}
		if _, ok := v["properties"].(map[string]any); ok && v["type"] == "object" && v["additionalProperties"] == nil {
			v["additionalProperties"] = false
		}
	case []any:
		for i := range v {
			v[i] = closed(v[i])
		}
	}
	return v
}

// Unseen returns the ids of the operations that no successful Check was about, without those in
// except.
func (d *Document) Unseen(except ...string) (ids []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, item := range d.Paths.Map() {
		for _, o := range item.Operations() {
			if !d.seen[o.OperationID] && !slices.Contains(except, o.OperationID) {
				ids = append(ids, o.OperationID)
			}
		}
	}
	return ids
}

// Check compares a successful request, and every response, with the document. data and text are
// their bodies. The response to an unknown route must be a problem.
func (d *Document) Check(t *testing.T, req *http.Request, data []byte, resp *http.Response, text []byte) {
	t.Helper()
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode != http.StatusNoContent {
		require.NoError(t, err, "%s: %s", req.URL, text)
	}
	_, pattern := d.routes.Handler(req)
	if pattern == "" {
		require.Equal(t, webapi.ProblemType, media)
		d.validate(t, "/components/schemas/Problem", text)
		return
	}
	method, path, _ := strings.Cut(pattern, " ")
	operation := d.Paths.Value(path).GetOperation(method)
	if resp.StatusCode/100 == 2 {
		d.checkRequest(t, req, data, path, operation)
	}
	code := fmt.Sprint(resp.StatusCode)
	if operation.Responses.Value(code) == nil {
		code = "default"
	}
	response := operation.Responses.Value(code)
	pointer := "/paths/" + escape(path) + "/" + strings.ToLower(method) + "/responses/" + code
	if response.Ref != "" {
		pointer = strings.TrimPrefix(response.Ref, "#")
	}
	switch content := response.Value.Content; {
	case resp.StatusCode == http.StatusNoContent:
		require.Empty(t, text)
	case media != "application/json" && media != webapi.ProblemType:
		require.NotNil(t, content.Get(resp.Header.Get("Content-Type")), "%s: %s", req.URL, media)
	default:
		require.Contains(t, content, media, "%s: %d %.500s", req.URL, resp.StatusCode, text)
		d.validate(t, pointer+"/content/"+escape(media)+"/schema", text)
	}
}

func (d *Document) checkRequest(t *testing.T, req *http.Request, data []byte, path string, operation *openapi3.Operation) {
	t.Helper()
	params := map[string]string{}
	want, got := strings.Split(path, "/"), strings.Split(req.URL.Path, "/")
	for i := range want {
		if strings.HasPrefix(want[i], "{") {
			params[strings.Trim(want[i], "{}")] = got[i]
		}
	}
	req.Body = io.NopCloser(bytes.NewReader(data))
	require.NoError(t, openapi3filter.ValidateRequest(t.Context(), &openapi3filter.RequestValidationInput{
		Request: req, PathParams: params, Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
		Route: &routers.Route{Spec: d.T, Path: path, PathItem: d.Paths.Value(path), Method: req.Method, Operation: operation},
	}), "%s %s: %s", req.Method, req.URL, data)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[operation.OperationID] = true
}

// escape escapes a key of a JSON pointer for the fragment of a URL.
func escape(key string) string {
	return url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
}

// validate checks JSON against a schema of the document. OpenAPI 3.1 uses JSON Schema 2020-12.
func (d *Document) validate(t *testing.T, pointer string, text []byte) {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	require.NoError(t, c.AddResource("openapi.json", d.raw))
	schema, err := c.Compile("openapi.json#" + pointer)
	require.NoError(t, err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err, "%s", text)
	require.NoError(t, schema.Validate(v), "%.2000s", text)
}
