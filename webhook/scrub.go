package webhook

import (
	"bytes"
	"cmp"
	"encoding/json"
	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
	"net/url"
	"slices"
	"strings"
)

// shortestSecret is the least length in bytes of a value that is scrubbed. A shorter value occurs
// in ordinary text by chance, and protects nothing.
const shortestSecret = 4

// scrubber replaces values from the environment by their references, such as ${TOKEN}.
type scrubber struct {
	secrets        []secret // longest first
	starts         [256]bool
	host, hostname string // of the endpoint; not scrubbed: not secret, and needed to find a fault
}

type secret struct{ value, shown string }

// addVariable registers the value of ${name} in the forms in which a receiver may echo it:
// unchanged, and escaped for JSON or for a URL. If the value is a URL, its path, its password and
// the values of its query are registered, too.
func (s *scrubber) addVariable(name, value string) {
	shown := "${" + name + "}"
	s.add(value, shown)
	s.add(url.QueryEscape(value), shown)
	s.add(url.PathEscape(value), shown)
	addLong := func(part string, least int) {
		if len(part) >= least {
			s.add(part, shown)
		}
	}
	for _, word := range strings.Fields(value) { // a scheme and a token, or several signing secrets
		addLong(strings.TrimPrefix(strings.TrimPrefix(word, secretPrefix), trigger.PrivatePrefix), 8)
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" {
		return
	}
	addLong(u.RequestURI(), 8)
	addLong(u.Path, 8)
	for segment := range strings.SplitSeq(u.Path, "/") {
		addLong(segment, 16)
	}
	for _, values := range u.Query() {
		for _, v := range values {
			s.add(v, shown)
		}
	}
	if password, ok := u.User.Password(); ok {
		s.add(password, shown)
	}
}

func (s *scrubber) add(value, shown string) {
	if len(value) < shortestSecret || value == s.host || value == s.hostname {
		return
	}
	forms := []string{value, string(bytes.Trim(template.AppendString(nil, value), `"`))}
	if b, err := json.Marshal(value); err == nil { // escapes <, > and &, as many receivers do
		forms = append(forms, strings.Trim(string(b), `"`))
	}
	for _, form := range forms {
		if form == "" || slices.ContainsFunc(s.secrets, func(o secret) bool { return o.value == form }) {
			continue
		}
		s.secrets = append(s.secrets, secret{form, shown})
		s.starts[form[0]] = true
	}
	sorting.By(s.secrets, func(a, b secret) int { return cmp.Compare(len(b.value), len(a.value)) })
}

// clone returns a copy to which others can be added.
func (s *scrubber) clone() scrubber {
	c := *s
	c.secrets = slices.Clone(s.secrets)
	return c
}

// longest returns the length of the longest value to look for.
func (s *scrubber) longest() int {
	if len(s.secrets) == 0 {
		return 0
	}
	return len(s.secrets[0].value)
}

// scrubbed appends the first limit bytes of src to dst, with secrets replaced. A secret that starts
// before limit is replaced even if it ends behind, so that no part of it is kept.
func scrubbed[S []byte | string](s *scrubber, dst []byte, src S, limit int) []byte {
	limit = min(limit, len(src))
	if len(s.secrets) == 0 {
		return append(dst, src[:limit]...)
	}
	start := 0
	for i := 0; i < limit; {
		if !s.starts[src[i]] {
			i++
			continue
		}
		found := slices.IndexFunc(s.secrets, func(o secret) bool {
			return len(src)-i >= len(o.value) && string(src[i:i+len(o.value)]) == o.value
		})
		if found < 0 {
			i++
			continue
		}
		dst = append(dst, src[start:i]...)
		dst = append(dst, s.secrets[found].shown...)
		i += len(s.secrets[found].value)
		start = i
	}
	if start < limit {
		dst = append(dst, src[start:limit]...)
	}
	return dst
}

func (s *scrubber) text(text string) string {
	return string(scrubbed(s, nil, text, len(text)))
}
