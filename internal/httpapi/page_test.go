package httpapi_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/httpapi"
)

// page asks for the page, which is no part of the document that answers are held to.
func (d *desk) page(t *testing.T, path, host string, header ...string) (status int, head http.Header, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+path, nil)
	require.NoError(t, err)
	if host != "" {
		r.Host = host
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { require.NoError(t, response.Body.Close()) }()
	all, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, response.Header, string(all)
}

func TestThePageIsServedToWhomeverALinkLeadsToIt(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(c *httpapi.Config) { c.WriteToken = writeToken })
	for _, header := range [][]string{nil, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "none"}} {
		status, head, text := d.page(t, "/", "rowhook.example.com", header...)
		require.Equal(t, http.StatusOK, status, header)
		require.Contains(t, text, "<title>Rowhook</title>")
		require.NotEmpty(t, head.Get("Content-Security-Policy"))
	}
	status, _, _ := d.page(t, "/assets/0000000000000000/main.js", "")
	require.Equal(t, http.StatusNotFound, status)
}

func TestWithoutTokensThePageIsServedForThisHostOnly(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	status, _, text := d.page(t, "/", "rebound.example.com")
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, text, "wrong_host")
	status, _, _ = d.page(t, "/", "localhost:8787")
	require.Equal(t, http.StatusOK, status)
}
