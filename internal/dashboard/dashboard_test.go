package dashboard_test

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rowhook/rowhook/internal/dashboard"
)

// get asks the page's handler for a path.
func get(t *testing.T, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	dashboard.New().ServeHTTP(w, r)
	return w
}

func TestThePageIsSmall(t *testing.T) {
	t.Parallel()
	require.Less(t, dashboard.New().Size(), 80_000, "bytes of all files, compressed")
}

func TestThePageLoadsOnlyFilesThatAreServed(t *testing.T) {
	t.Parallel()
	response := get(t, "/", nil)
	require.Equal(t, http.StatusOK, response.Code)
	require.Equal(t, "no-cache", response.Header().Get("Cache-Control"))
	page := response.Body.String()
	links := regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(page, -1)
	require.Greater(t, len(links), 8)
	for _, m := range links {
		require.Regexp(t, `^assets/[0-9a-f]{16}/[\w./-]+$`, m[1], "a relative path works under the prefix of a proxy")
		file := get(t, "/"+m[1], nil)
		require.Equal(t, http.StatusOK, file.Code, m[1])
		require.Equal(t, "public, max-age=31536000, immutable", file.Header().Get("Cache-Control"))
		if !strings.HasSuffix(m[1], ".js") {
			continue
		}
		require.Equal(t, "text/javascript; charset=utf-8", file.Header().Get("Content-Type"))
		for _, imported := range regexp.MustCompile(`\b(?:import|export)\b[^;"]*from ?"([^"]+)"`).FindAllStringSubmatch(file.Body.String(), -1) {
			name := filepath.Join(filepath.Dir(m[1]), imported[1])
			require.Contains(t, page, `"`+name+`"`, "%s imports %s", m[1], imported[1])
		}
	}
	require.NotRegexp(t, `<script(?: [^>]*)?>[^<]|<style| style=| on\w+=`, page, "the policy allows nothing inline")
}

func TestEveryAnswerHasThePolicy(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/", "/assets/0000000000000000/main.js"} {
		header := get(t, path, nil).Header()
		require.Equal(t, dashboard.Policy, header.Get("Content-Security-Policy"))
		require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
		require.Equal(t, "DENY", header.Get("X-Frame-Options"))
		require.Equal(t, "no-referrer", header.Get("Referrer-Policy"))
	}
	require.NotContains(t, dashboard.Policy, "unsafe")
}

func TestAFileOfAnotherVersionIsNotFoundAndNotKept(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/assets/0000000000000000/main.js", "/assets/../dashboard.go", "/assets/vendor/LICENSE.htm"} {
		response := get(t, path, nil)
		require.Equal(t, http.StatusNotFound, response.Code)
		require.Equal(t, "no-store", response.Header().Get("Cache-Control"))
	}
}

func TestFilesAreCompressedForWhoAcceptsIt(t *testing.T) {
	t.Parallel()
	plain := get(t, "/", nil).Body.String()
	for accept, zipped := range map[string]bool{"gzip": true, "br, gzip;q=0.8": true, "gzip;q=0": false, "br": false, "": false} {
		response := get(t, "/", http.Header{"Accept-Encoding": {accept}})
		require.Equal(t, zipped, response.Header().Get("Content-Encoding") == "gzip", accept)
		require.Equal(t, "Accept-Encoding", response.Header().Get("Vary"))
		text := io.Reader(response.Body)
		if zipped {
			r, err := gzip.NewReader(response.Body)
			require.NoError(t, err)
			text = r
		}
		got, err := io.ReadAll(text)
		require.NoError(t, err)
		require.Equal(t, plain, string(got))
	}
}

func TestAPageThatIsKnownIsNotSentAgain(t *testing.T) {
	t.Parallel()
	tag := get(t, "/", nil).Header().Get("ETag")
	require.NotEmpty(t, tag)
	require.Equal(t, http.StatusNotModified, get(t, "/", http.Header{"If-None-Match": {`"x", ` + tag}}).Code)
	require.Equal(t, http.StatusOK, get(t, "/", http.Header{"If-None-Match": {`"x"`}}).Code)
}

// TestVendoredFilesAreThoseOfTheirPackages compares with the list that scripts/vendor has made. scripts/vendor --check
// compares with the packages themselves.
func TestVendoredFilesAreThoseOfTheirPackages(t *testing.T) {
	t.Parallel()
	const directory = "static/vendor/"
	list, err := os.Open(directory + "SHA256SUMS")
	require.NoError(t, err)
	defer func() { require.NoError(t, list.Close()) }()
	listed := map[string]bool{"SHA256SUMS": true}
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		sum, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			continue // the comment
		}
		content, err := os.ReadFile(directory + name)
		require.NoError(t, err)
		digest := sha256.Sum256(content)
		require.Equal(t, sum, hex.EncodeToString(digest[:]), name)
		listed[name] = true
	}
	require.NoError(t, lines.Err())
	entries, err := os.ReadDir(directory)
	require.NoError(t, err)
	for _, e := range entries {
		require.True(t, listed[e.Name()] || strings.HasSuffix(e.Name(), ".d.ts"), "%s is not in the list", e.Name())
	}
	require.Greater(t, len(listed), 8)
}
