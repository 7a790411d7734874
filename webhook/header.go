package webhook

import (
	"context"
	"net/http"
)

// HeaderTest is the header of a request for an event that was made up. Its value is 1.
const HeaderTest = "Rowhook-Test"

type headerKey struct{}

// WithHeader returns a context with which Send adds header to the request. The names must be in
// canonical form. A header that the endpoint sets itself takes precedence.
func WithHeader(ctx context.Context, header http.Header) context.Context {
	return context.WithValue(ctx, headerKey{}, header)
}

// withHeader returns base, or a copy of base with the header of the context.
func withHeader(ctx context.Context, base http.Header) http.Header {
	extra, ok := ctx.Value(headerKey{}).(http.Header)
	if !ok {
		return base
	}
	h := make(http.Header, len(base)+len(extra))
	for _, from := range [...]http.Header{extra, base} {
		for name, values := range from {
			h[name] = values
		}
	}
	return h
}
