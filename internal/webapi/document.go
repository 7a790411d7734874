package webapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/goccy/go-yaml"
)

// Document returns an OpenAPI document that is written in YAML as JSON.
func Document(openapi []byte) ([]byte, error) {
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

// WriteDocument responds with an OpenAPI document in JSON.
func WriteDocument(w http.ResponseWriter, doc []byte) {
	w.Header().Set("Content-Type", "application/vnd.oai.openapi+json;version=3.1")
	_, _ = w.Write(doc) // an error means that the client is gone
}
