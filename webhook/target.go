package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// Control characters mark where data of the event stands in a URL. No URL can hold them. Between them
// is the number of the placeholder.
const (
	markBegin = "\x04"
	markEnd   = "\x05"
)

// markedURL is a configured URL with marks in the place of its placeholders.
type markedURL struct {
	marked string // with references to the environment as in a configuration
	data   []*template.Placeholder
}

// markURL marks the placeholders of a configured URL.
func markURL(configured string) (*markedURL, error) {
	parts, err := template.Parse(configured, template.Mixed)
	if err != nil || parts == nil {
		return &markedURL{marked: configured}, err
	}
	if strings.ContainsAny(configured, markBegin+markEnd) {
		return nil, errors.New("has a control character")
	}
	u := &markedURL{}
	for _, part := range parts {
		switch {
		case part.Data != nil:
			u.marked += u.mark(part.Data)
		case part.Reference != "":
			u.marked += part.Reference
		default:
			u.marked += strings.ReplaceAll(part.Text, "${", "$${")
		}
	}
	return u, nil
}

func (u *markedURL) mark(p *template.Placeholder) string {
	u.data = append(u.data, p)
	return markBegin + strconv.Itoa(len(u.data)-1) + markEnd
}

// pieces splits a text at its marks.
func (u *markedURL) pieces(text string, plain func(string), data func(*template.Placeholder)) {
	for {
		before, after, found := strings.Cut(text, markBegin)
		plain(before)
		if !found {
			return
		}
		number, rest, _ := strings.Cut(after, markEnd)
		if i, err := strconv.Atoi(number); err == nil && i < len(u.data) {
			data(u.data[i])
		}
		text = rest
	}
}

// sample returns a text with a digit in the place of each mark. A digit is valid wherever data may
// stand.
func (u *markedURL) sample(text string) string {
	if len(u.data) == 0 {
		return text
	}
	var out strings.Builder
	u.pieces(text, func(s string) { out.WriteString(s) }, func(*template.Placeholder) { out.WriteByte('0') })
	return out.String()
}

// behindHost reports whether all data of an expanded URL stands behind its host.
func (u *markedURL) behindHost(expanded string) bool {
	before, _, found := strings.Cut(expanded, markBegin)
	_, rest, ok := strings.Cut(before, "://")
	return !found || ok && strings.ContainsAny(rest, "/?#")
}

// target makes the URL of each request.
type target struct {
	segments []segment      // of the path; nil: that of the endpoint
	query    *template.Text // nil: that of the endpoint
}

// segment is a part of a path, behind a /.
type segment struct {
	text  *template.Text
	shown string // the placeholders in it; "": there is none
}

// prepareTarget completes u, and makes the target of the endpoint if its URL depends on the event.
func (ep *Endpoint) prepareTarget(u *url.URL, query map[string]string, text *markedURL, expanded string, source trigger.Source) error {
	if len(text.data) == 0 && len(query) == 0 {
		return nil
	}
	expanded, _, _ = strings.Cut(expanded, "#")
	_, rest, _ := strings.Cut(expanded, "://")
	begin := strings.IndexAny(rest+"/", "/?")
	path, configured, _ := strings.Cut(rest[min(begin, len(rest)):], "?")
	t := &target{}
	if strings.Contains(path, markBegin) {
		for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
			s, err := ep.segment(part, text)
			if err != nil {
				return fmt.Errorf("url %q: %w", ep.template, err)
			}
			t.segments = append(t.segments, s)
		}
	}
	all := ep.set().Text(template.InURL)
	var err error
	text.pieces(configured, all.Raw, func(p *template.Placeholder) { err = errors.Join(err, all.Data(p)) })
	more, failed := ep.pairs(template.InURL, query, func(reference string) (string, error) { return ep.resolve(reference, source) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("query: %w", err)
	}
	if len(query) > 0 && configured != "" {
		all.Raw("&")
	}
	all.Add(more)
	if all.Fixed() {
		u.RawQuery = string(all.Append(nil, nil))
	} else {
		t.query = all
	}
	if t.segments != nil || t.query != nil {
		ep.target = t
	}
	return nil
}

// segment compiles a part of a path.
func (ep *Endpoint) segment(part string, text *markedURL) (s segment, err error) {
	s.text = ep.set().Text(template.InURL)
	text.pieces(part, func(plain string) {
		decoded, failed := url.PathUnescape(plain)
		if failed != nil {
			err = errors.New("has a % that is not followed by two hexadecimal digits: write it as %25")
		}
		s.text.Raw((&url.URL{Path: decoded, RawPath: plain}).EscapedPath())
	}, func(p *template.Placeholder) {
		err = errors.Join(err, s.text.Data(p))
		s.shown += showPlaceholder(p)
	})
	return s, err
}

// url returns the URL for an event.
func (t *target) url(base *url.URL, v *template.Values) (*url.URL, *refusal) {
	u := *base
	size := 0
	if t.segments != nil {
		var room [256]byte
		path := room[:0]
		for i := range t.segments {
			path = append(path, '/')
			begin := len(path)
			path = t.segments[i].text.Append(path, v)
			if what := t.segments[i].shown; what != "" && leadsAway(path[begin:]) {
				return nil, &refusal{KindBadURL, fmt.Sprintf("%s makes a segment of the URL's path empty, . or .., which leads to another address: nothing was sent", what)}
			}
		}
		u.RawPath = string(path)
		var err error
		if u.Path, err = url.PathUnescape(u.RawPath); err != nil {
			return nil, &refusal{KindBadURL, "the URL can't be made with the data of this event"}
		}
		size += len(path)
	}
	if t.query != nil {
		u.RawQuery = string(t.query.Append(nil, v))
		size += len(u.RawQuery)
	}
	if size > mostURL {
		return nil, &refusal{KindBadURL, fmt.Sprintf("the URL has more than %d bytes with the data of this event", mostURL)}
	}
	return &u, nil
}

// leadsAway reports whether a segment of a path is empty, or is, or may be taken by a receiver that
// decodes it once more, for one that leads to another path.
func leadsAway(segment []byte) bool {
	if len(segment) == 0 {
		return true
	}
	if bytes.IndexByte(segment, '.') < 0 && bytes.IndexByte(segment, '%') < 0 {
		return false
	}
	for range mostDecodings {
		decoded := decodedOnce(segment)
		for part := range bytes.FieldsFuncSeq(decoded, func(r rune) bool { return r == '/' || r == '\\' }) {
			part, _, _ = bytes.Cut(part, []byte(";"))
			if string(part) == "." || string(part) == ".." {
				return true
			}
		}
		if len(decoded) == len(segment) {
			return false
		}
		segment = decoded
	}
	return false
}

// mostDecodings is how often receivers and proxies may decode a path, one after another.
const mostDecodings = 4

// decodedOnce decodes what is percent-encoded, and leaves what is not.
func decodedOnce(s []byte) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(string(s[i+1:i+3]), 16, 8); err == nil {
				out = append(out, byte(c))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return out
}

// show sets the URL for people. shown is the URL with marks.
func (ep *Endpoint) show(shown string, query map[string]string, text *markedURL) error {
	separator := "?"
	if strings.Contains(shown, "?") {
		separator = "&"
	}
	u := &markedURL{data: slices.Clone(text.data)}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		parts, err := template.Parse(query[name], template.Always)
		if err != nil {
			return fmt.Errorf("query %q: %w", name, err)
		}
		shown += separator + url.QueryEscape(name) + "="
		for _, part := range parts {
			switch {
			case part.Data != nil:
				shown += u.mark(part.Data)
			case part.Reference != "":
				shown += part.Reference
			case isCredential(name):
				shown += redacted
			default:
				shown += string(template.InURL.Append(nil, []byte(part.Text)))
			}
		}
		separator = "&"
	}
	if len(u.data) == 0 {
		ep.shown = shown
		return nil
	}
	ep.shown = ""
	t := ep.set().Text(template.InURL)
	var err error
	u.pieces(shown, func(plain string) {
		t.Raw(plain)
		ep.shown += plain
	}, func(p *template.Placeholder) {
		err = errors.Join(err, t.Data(p))
		ep.shown += p.Source
	})
	ep.shownText = t
	return err
}

// shownFor returns the URL for people with the data that was read of an event.
func (ep *Endpoint) shownFor(s *scratch) string {
	if ep.shownText == nil {
		return ep.shown
	}
	return string(ep.shownText.Append(nil, &s.values))
}

// showPlaceholder returns a placeholder for people, without its default.
func showPlaceholder(p *template.Placeholder) string {
	out := "${" + p.Word
	for _, step := range p.Path {
		if step.IsIndex {
			out += "[" + strconv.Itoa(step.Index) + "]"
		} else {
			out += "." + string(template.InURL.Append(nil, []byte(step.Name)))
		}
	}
	return out + "}"
}
