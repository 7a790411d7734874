package httpapi

import (
	_ "embed"
	"net/http"
	"net/url"

	"github.com/rowhook/rowhook/internal/webapi"
)

// packed is openapi.yaml; see webapi.Unpack.
//
//go:embed openapi.yaml.gz
var packed []byte

// Document returns the OpenAPI document of the interface as JSON.
func Document() ([]byte, error) { return webapi.Document(packed) }

func (s *Server) document(w http.ResponseWriter, _ *http.Request) (int, any, error) {
	doc, err := s.openapi()
	if err != nil {
		return 0, nil, err
	}
	webapi.WriteDocument(w, doc)
	return 0, nil, nil
}

func operationURL(id string) *url.URL { return &url.URL{Path: "/api/v1/operations/" + id} }
