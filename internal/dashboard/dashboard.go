// Package dashboard serves the page that shows and steers an installation.
//
// The page is a client of /api/v1 and nothing else. It consists of the files in static, which are
// served as they are, but for comments and indents, and its modules as one: there is no build step.
// Paths in it are relative, so it works under the path prefix of a proxy.
package dashboard

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
)

// packed are the files in static, compressed: the program has a limit. A test holds it to them.
//
//go:embed static.zip
var packed []byte

// page is the file that is served at /.
const page = "index.html"

// Policy is the Content-Security-Policy of the page. It allows files of this server only, and
// neither inline scripts nor inline styles. Without Trusted Types for a policy, no script can be
// made from a string.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// file is one file of the page, as it is sent.
type file struct {
	media         string
	plain, zipped []byte
	tag           string // ETag
}

// Handler serves the page at / and its files below /assets/.
type Handler struct {
	page  file
	files map[string]file // by path, such as assets/0123abcd/main.js
}

// New returns the handler of the page.
func New() *Handler {
	contents := read()
	// All files share the directory of one digest, so browsers may keep them for ever, and the
	// relative imports between them hold.
	digest := sha256.New()
	names := slices.Sorted(maps.Keys(contents))
	for _, name := range names {
		_, _ = fmt.Fprintf(digest, "%s %d\n", name, len(contents[name]))
		_, _ = digest.Write(contents[name])
	}
	directory := "assets/" + hex.EncodeToString(digest.Sum(nil))[:16]
	h := &Handler{files: map[string]file{}}
	var preload strings.Builder
	for _, name := range names {
		if name == page {
			continue
		}
		h.files[directory+"/"+name] = newFile(name, contents[name])
		if strings.HasSuffix(name, ".js") {
			_, _ = fmt.Fprintf(&preload, "<link rel=\"modulepreload\" href=\"assets/%s\">\n", name)
		}
	}
	text := strings.Replace(string(contents[page]), "<!-- modulepreload -->\n", preload.String(), 1)
	h.page = newFile(page, []byte(strings.ReplaceAll(text, "assets/", directory+"/")))
	return h
}

// read returns the files that are served, by their path below static.
func read() map[string][]byte {
	contents := map[string][]byte{}
	static, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err == nil {
		err = fs.WalkDir(static, ".", func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || mediaType(name) == "" {
				return err
			}
			content, err := fs.ReadFile(static, name)
			if strings.HasSuffix(name, ".js") && !strings.HasPrefix(name, "vendor/") {
				content = withoutComments(content)
			}
			if strings.HasSuffix(name, ".css") {
				content = styleSpace.ReplaceAll(styleComment.ReplaceAll(content, nil), []byte("$1"))
			}
			contents[name] = content
			return err
		})
	}
	if err != nil {
		panic("the files in the program can't be read: " + err.Error())
	}
	one := bundled(contents)
	maps.DeleteFunc(contents, func(name string, _ []byte) bool {
		return strings.HasSuffix(name, ".js") && !strings.HasPrefix(name, "vendor/")
	})
	contents[bundle] = one
	return contents
}

// jsDoc matches a comment of JSDoc, lineComment a line that is a comment, endComment one at the end of
// a line of code, unless it has quotes: these could be the end of a text. No text in the modules
// looks like a comment: a test loads what is left. indent matches the spaces that begin a line; the
// templates of the page's elements ignore them, and no other text has several lines.
var (
	jsDoc       = regexp.MustCompile(`(?s)/\*\*.*?\*/`)
	lineComment = regexp.MustCompile(`(?m)^[ \t]*//.*$`)
	endComment  = regexp.MustCompile("(?m)[ \t]+//[^\"'`\n]*$")
	indent      = regexp.MustCompile(`(?m)^[ \t]+`)
)

// styleComment matches a comment of the style sheet, and styleSpace the spaces around a sign that needs
// none. No text in it has such a sign.
var (
	styleComment = regexp.MustCompile(`(?s)/\*.*?\*/`)
	styleSpace   = regexp.MustCompile(`\s*([{};,])\s*`)
)

// withoutComments removes the comments and the indents of a module. Lines keep their numbers.
func withoutComments(module []byte) []byte {
	module = jsDoc.ReplaceAllFunc(module, func(comment []byte) []byte {
		return bytes.Repeat([]byte("\n"), bytes.Count(comment, []byte("\n")))
	})
	for _, without := range []*regexp.Regexp{lineComment, endComment, indent} {
		module = without.ReplaceAll(module, nil)
	}
	return module
}

// mediaType returns the type of a file of the page. Licences and declarations of types are none: "".
func mediaType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return ""
}

func newFile(name string, content []byte) file {
	var zipped bytes.Buffer
	w, _ := gzip.NewWriterLevel(&zipped, gzip.BestCompression) // the level is valid
	_, _ = w.Write(content)                                    // a buffer takes everything
	_ = w.Close()
	sum := sha256.Sum256(content)
	return file{media: mediaType(name), plain: content, zipped: zipped.Bytes(), tag: `"` + hex.EncodeToString(sum[:8]) + `"`}
}

// Owns reports whether a path is the page's or one of its files'.
func Owns(path string) bool {
	return path == "/" || strings.HasPrefix(path, "/assets/")
}

// Size returns how many bytes a browser loads for the page: all files, compressed.
func (h *Handler) Size() int {
	size := len(h.page.zipped)
	for _, f := range h.files {
		size += len(f.zipped)
	}
	return size
}

// ServeHTTP serves GET and HEAD of the paths that Owns.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", Policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("X-Frame-Options", "DENY")
	f, ok := h.page, true
	if r.URL.Path == "/" {
		header.Set("Cache-Control", "no-cache")
	} else {
		f, ok = h.files[strings.TrimPrefix(r.URL.Path, "/")]
		header.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if !ok {
		// After an upgrade, a tab that is still open asks for files of the version before.
		header.Set("Cache-Control", "no-store")
		http.Error(w, "the page has no such file: it was upgraded, so load it again", http.StatusNotFound)
		return
	}
	f.write(w, r)
}

func (f *file) write(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("ETag", f.tag)
	header.Set("Vary", "Accept-Encoding")
	if slices.Contains(strings.Split(strings.ReplaceAll(r.Header.Get("If-None-Match"), " ", ""), ","), f.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	content := f.plain
	if acceptsGzip(r) {
		content = f.zipped
		header.Set("Content-Encoding", "gzip")
	}
	header.Set("Content-Type", f.media)
	header.Set("Content-Length", fmt.Sprint(len(content)))
	if r.Method == http.MethodGet {
		_, _ = io.Copy(w, bytes.NewReader(content)) // the client may have gone
	}
}

// acceptsGzip reports whether the client names gzip, and does not refuse it by q=0.
func acceptsGzip(r *http.Request) bool {
	for encoding := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, weight, _ := strings.Cut(strings.ReplaceAll(encoding, " ", ""), ";")
		if strings.EqualFold(name, "gzip") {
			return weight != "q=0" && weight != "q=0.0" && weight != "q=0.00" && weight != "q=0.000"
		}
	}
	return false
}
