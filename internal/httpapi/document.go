package httpapi

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/rowhook/rowhook/internal/webapi"
)

// packed is openapi.yaml, compressed: the program has a limit, and few ask for the document.
//
//go:embed openapi.yaml.gz
var packed []byte

// Document returns the OpenAPI document of the interface as JSON.
func Document() ([]byte, error) {
	text, err := unpacked()
	if err != nil {
		return nil, err
	}
	return webapi.Document(text)
}

func unpacked() ([]byte, error) {
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

func (s *Server) document(w http.ResponseWriter, _ *http.Request) (int, any, error) {
	doc, err := s.openapi()
	if err != nil {
		return 0, nil, err
	}
	webapi.WriteDocument(w, doc)
	return 0, nil, nil
}

func operationURL(id string) *url.URL { return &url.URL{Path: "/api/v1/operations/" + id} }
