package webhook

import (
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/template"
)

// Result is the outcome of one attempt. Values from the environment are replaced in its texts by
// their references.
type Result struct {
	StartedAt time.Time     // when Send was called
	Duration  time.Duration // from StartedAt to the last byte of the response
	// Status is the status of the response, or 0 if none arrived.
	Status int
	// Kind says why no status arrived. It is KindResponse if one did, except KindRejected and
	// KindBadAnswer of a batch.
	Kind Kind
	// Connected says that the attempt had a connection: a new one, with its TLS handshake behind it, or
	// one that was kept. Through a proxy it is one to the host, for http without TLS one to the proxy.
	// It tells a connect time-out from a response time-out.
	Connected bool
	// Err says in one line what went wrong, for people. If the event was delivered, Err is "" or
	// says what of the response is incomplete.
	Err string
	// Header holds the headers of the response as a JSON object. A value is a string, or an array
	// of strings if the header came several times. Credentials are redacted. nil if no response
	// arrived.
	Header []byte
	// Body is the beginning of the response's body, as UTF-8 text without NUL. It has about
	// ClientConfig.KeepBody bytes at most. nil if there was none.
	Body []byte
	// RetryAfter is the wait that the receiver asked for by a Retry-After header. It is above 0,
	// and set only if HasRetryAfter. A response with a 2xx status has none.
	RetryAfter    time.Duration
	HasRetryAfter bool // RetryAfter is set
	// Hopeless says that nothing was sent because of the event itself. A later attempt would fail,
	// too.
	Hopeless bool
}

// Delivered reports whether the receiver has the event: it answered with a status of 200 to 299.
// The body of the response need not be complete.
func (r *Result) Delivered() bool { return r.Kind == KindResponse && r.Status/100 == 2 }

const redacted = "<redacted>"

// appendHeader appends h as a JSON object with sorted names. names and value are scratch space,
// which it returns for the next call.
func appendHeader(dst []byte, h http.Header, scrub *scrubber, names []string, value []byte) ([]byte, []string, []byte) {
	names = names[:0]
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = template.AppendString(dst, name)
		dst = append(dst, ':')
		values, hidden := h[name], isCredential(name)
		if len(values) != 1 {
			dst = append(dst, '[')
		}
		for j, v := range values {
			if j > 0 {
				dst = append(dst, ',')
			}
			if hidden {
				v = redacted
			}
			value = scrubbed(scrub, value[:0], v, len(v))
			value = cleaned(value, false)
			dst = template.AppendString(dst, value)
		}
		if len(values) != 1 {
			dst = append(dst, ']')
		}
	}
	return append(dst, '}'), names, value
}

// IsCredential reports whether the value of a header may grant access, by the header's name in any
// case. The values of such headers are redacted.
func IsCredential(name string) bool { return isCredential(http.CanonicalHeaderKey(name)) }

// isCredential is IsCredential for a name in canonical form.
func isCredential(name string) bool {
	switch name {
	case "Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "Set-Cookie2":
		return true
	}
	for i := range len(name) {
		switch rest := name[i:]; name[i] | 0x20 { // lower case, for letters
		case 't':
			if startsFold(rest, "token") {
				return true
			}
		case 's':
			if startsFold(rest, "secret") {
				return true
			}
		case 'p':
			if startsFold(rest, "password") || startsFold(rest, "passwd") {
				return true
			}
		case 'c':
			if startsFold(rest, "credential") {
				return true
			}
		case 'a':
			if startsFold(rest, "api-key") || startsFold(rest, "apikey") || startsFold(rest, "api_key") {
				return true
			}
		}
	}
	return false
}

func startsFold(s, word string) bool {
	return len(s) >= len(word) && strings.EqualFold(s[:len(word)], word)
}

// cleaned makes text fit for a text column of Postgres, in place if nothing has to change. NUL and
// bytes that are not UTF-8 become U+FFFD. If the text was cut, an incomplete character at its end
// is removed.
func cleaned(text []byte, cut bool) []byte {
	if cut {
		for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
			if tail := text[len(text)-back:]; utf8.RuneStart(tail[0]) {
				if !utf8.FullRune(tail) {
					text = text[:len(text)-back]
				}
				break
			}
		}
	}
	if utf8.Valid(text) && !slices.Contains(text, 0) {
		return text
	}
	return []byte(strings.ReplaceAll(strings.ToValidUTF8(string(text), "\uFFFD"), "\x00", "\uFFFD"))
}
