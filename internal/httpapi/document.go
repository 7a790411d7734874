package httpapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/goccy/go-yaml"
)

//go:embed openapi.yaml
var openapi []byte

// Document returns the OpenAPI document of the interface as JSON.
func Document() ([]byte, error) {
	doc, err := yaml.YAMLToJSON(openapi)
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, doc); err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	return compact.Bytes(), nil
}

func (s *Server) document(w http.ResponseWriter, _ *http.Request) (int, any, error) {
	doc, err := s.openapi()
	if err != nil {
		return 0, nil, err
	}
	w.Header().Set("Content-Type", "application/vnd.oai.openapi+json;version=3.1")
	_, _ = w.Write(doc) // an error means that the client is gone
	return 0, nil, nil
}

func operationURL(id string) *url.URL { return &url.URL{Path: "/api/v1/operations/" + id} }
