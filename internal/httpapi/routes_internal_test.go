package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	claim "github.com/stretchr/testify/require" // require is a function of the package

	"github.com/rowhook/rowhook/internal/operate"
)

func TestMisspelledNamesGetAHint(t *testing.T) {
	t.Parallel()
	var in struct {
		Filter operate.Filter `json:"filter"`
		Limit  int64          `json:"limit"`
	}
	err := decode(httptest.NewRequest(http.MethodPost, "/x", strings.NewReader(`{"filter":{"trigers":["a"]}}`)), &in)
	claim.ErrorContains(t, err, `unknown field "trigers"; did you mean triggers?`)
	claim.ErrorContains(t, decode(httptest.NewRequest(http.MethodPost, "/x", strings.NewReader(`{"xyzzy":1}`)), &in), `unknown field "xyzzy"`)

	p := (&Server{}).checkRequest(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/x?trigers=a", nil), route{query: []string{"state", "trigger"}})
	claim.ErrorContains(t, p, `/x has no parameter "trigers"; did you mean trigger?`)
	p = (&Server{}).checkRequest(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/x?a=b", nil), route{})
	claim.ErrorContains(t, p, `has no parameter "a"`)
}
