package webhook

import (
	"context"
	"net/http"
)

type headerKey struct{}

// WithHeader has Send add header, whose names are in canonical form, to the request. What the endpoint itself sets wins.
func WithHeader(ctx context.Context, header http.Header) context.Context {
	return context.WithValue(ctx, headerKey{}, header)
}

// withHeader is base, or a copy of it with the context's header.
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
