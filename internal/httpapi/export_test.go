package httpapi

import (
	"fmt"
	"slices"

	"github.com/rowhook/rowhook/internal/access"
)

// Routes describes the routes in the form that the test of the document uses.
func Routes() (out []string) {
	for _, r := range New(Config{}).routes() {
		query := slices.Sorted(slices.Values(r.query))
		out = append(out, fmt.Sprint(r.method, " ", r.path, " ", r.scope, " ", query, " ", r.body > 0))
	}
	return out
}

// Withholding names the routes that withhold something from tokens without the scope payloads.
func Withholding() (out []string) {
	s := New(Config{})
	known, err := readSchemas()
	if err != nil {
		panic(err)
	}
	for _, r := range s.routes() {
		if !r.scope.Has(access.Payloads) && known.responseFields(&r) != nil {
			out = append(out, r.method+" "+r.path)
		}
	}
	return out
}
