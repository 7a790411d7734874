package webapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/goccy/go-yaml"
)

// Unpack returns the text of an openapi.yaml that a program has compressed: it has a limit, and few ask for the
// document.
func Unpack(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack openapi.yaml: %w", err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("unpack openapi.yaml: %w", err)
	}
	return text, nil
}

// Document returns an OpenAPI document that is written in YAML, and compressed, as JSON.
func Document(packed []byte) ([]byte, error) {
	openapi, err := Unpack(packed)
	if err != nil {
		return nil, err
	}
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
