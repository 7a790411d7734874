package webhook

import (
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Result is how one attempt went. None of its texts holds a value that came from the environment.
type Result struct {
	StartedAt time.Time
	Duration  time.Duration // to the last byte of the response
	// Status is the response's status, 0 if none arrived.
	Status int
	Kind   Kind
	// Err says in one line what went wrong, for people; where the event was delivered, only that the rest
	// of the response was not whole.
	Err string
	// Header is the response's headers as a JSON object of strings, and arrays of strings where a header came several
	// times; credentials are redacted. Nil if no response arrived.
	Header []byte
	// Body is the beginning of the response's body, as UTF-8 text without NUL. Nil if there was none.
	Body []byte
	// RetryAfter is the wait that a response other than 2xx asked for, over 0 and valid if HasRetryAfter.
	RetryAfter    time.Duration
	HasRetryAfter bool
	// Hopeless says that nothing was sent, on account of the event itself: no later attempt would send it either.
	Hopeless bool
}

// Delivered reports that the receiver has the event: it answered with a status of 200 to 299, whatever became of the body behind that.
func (r *Result) Delivered() bool { return r.Kind == KindResponse && r.Status/100 == 2 }

const redacted = "<redacted>"

// appendHeader appends h as a JSON object, names sorted. names and value are scratch space, returned for the next use.
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
		dst = appendString(dst, name)
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
			dst = appendString(dst, value)
		}
		if len(values) != 1 {
			dst = append(dst, ']')
		}
	}
	return append(dst, '}'), names, value
}

// IsCredential reports that a header's value, whatever the case of its name, may let someone in.
func IsCredential(name string) bool { return isCredential(http.CanonicalHeaderKey(name)) }

// isCredential reports that a header's value, by its name in canonical form, may let someone in.
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

// cleaned makes text storable in a Postgres text column, in place where it already is: bytes that are not UTF-8, and
// NUL, become U+FFFD. Of text that was cut short, the part of a character at its end goes.
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
