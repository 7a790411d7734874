package httpapi

import (
	"fmt"
	"slices"
)

// Routes describes the routes in the form that the test of the document uses.
func Routes() (out []string) {
	for _, r := range New(Config{}).routes() {
		query := slices.Sorted(slices.Values(r.query))
		out = append(out, fmt.Sprint(r.method, " ", r.path, " ", r.scope, " ", query, " ", r.body > 0))
	}
	return out
}
