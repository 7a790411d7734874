package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/rowhook/rowhook/internal/netrule"
	"github.com/rowhook/rowhook/trigger"
)

// maxIdentifier is the most bytes that Postgres keeps of a name (NAMEDATALEN - 1).
const maxIdentifier = 63

var identifier = regexp.MustCompile(`"(?:[^"]|"")+"|` + bareName)

func checkTable(s string) error {
	parts := identifier.FindAllString(s, -1)
	for i, part := range parts {
		if strings.HasPrefix(part, `"`) {
			parts[i] = strings.ReplaceAll(part[1:len(part)-1], `""`, `"`)
		} else {
			parts[i] = strings.ToLower(part)
		}
		if err := checkIdentifier(parts[i]); err != nil {
			return err
		}
	}
	if len(parts) == 2 && parts[0] == "rowhook" {
		return errors.New("this is one of Rowhook's own tables, where each event would cause another; name a table of your own")
	}
	return nil
}

func checkColumn(s string) error {
	if len(s) > 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return fmt.Errorf("%s has SQL quotes around it; write a column by its name alone, as in %s", quote(s), s[1:len(s)-1])
	}
	return checkIdentifier(s)
}

func checkIdentifier(s string) error {
	if len(s) > maxIdentifier {
		return fmt.Errorf("the name %s has %d bytes, and Postgres keeps %d; write the name as Postgres shows it", quote(s), len(s), maxIdentifier)
	}
	return nil
}

// checkURL checks as much of a URL as there is without the environment.
func checkURL(raw string) error {
	if _, err := trigger.References(raw); err != nil {
		return err
	}
	// A digit may stand wherever a variable may: in a host, a port, a path, a query.
	sample, err := trigger.ExpandReferences(raw, func(string) (string, bool) { return "1", true })
	if err != nil {
		return err
	}
	if strings.HasPrefix(raw, "${") {
		sample = "http://" + sample
	}
	if u, err := url.Parse(raw); err == nil && sample == raw && netrule.IsNumericHost(u.Hostname()) {
		return errors.New("has a host that is a number and no address; write addresses like 192.0.2.1")
	}
	return checkExpandedURL(sample)
}

var dollarName = regexp.MustCompile(`^\$([A-Za-z_][A-Za-z0-9_]*)(.*)$`)

func checkExpandedURL(raw string) error {
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("holds white space; remove it, or write %20 for a space that belongs to it")
	}
	if m := dollarName.FindStringSubmatch(raw); m != nil {
		return fmt.Errorf("$%s is not read from the environment; write ${%s}%s", m[1], m[1], m[2])
	}
	const remedy = "write it in full, as in https://example.com/hooks/orders"
	scheme, _, ok := strings.Cut(raw, "://")
	switch {
	case !ok:
		return errors.New("has no http:// or https:// before the host; " + remedy)
	case !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https"):
		return fmt.Errorf("events can't be sent by %s://; use http:// or https://", strings.Trim(quote(scheme), `"`))
	}
	u, err := url.Parse(raw)
	if err != nil {
		cause := err
		if ue, ok := errors.AsType[*url.Error](err); ok {
			cause = ue.Err // without the URL, which may hold a password
		}
		return fmt.Errorf("is not a URL (%w); %s", cause, remedy)
	}
	port, portErr := strconv.Atoi(u.Port())
	switch {
	case u.Hostname() == "":
		return errors.New("names no host; " + remedy)
	case u.Port() != "" && (portErr != nil || port < 1 || port > 65535):
		return fmt.Errorf("there is no port %s; use one from 1 to 65535", u.Port())
	case strings.Contains(raw, "#"):
		return errors.New("holds a # part, which is never sent; remove it, or write %23 for a # that belongs to the path")
	}
	return nil
}

var urlPassword = regexp.MustCompile(`^[^/]*://[^/@:]*:([^/@]+)@`)

// hasPassword reports a password in a URL that is no reference.
func hasPassword(raw string) bool {
	m := urlPassword.FindStringSubmatch(raw)
	return m != nil && !strings.HasPrefix(m[1], "${")
}

func checkHeaderValue(s string) error {
	if _, err := trigger.References(s); err != nil {
		return err
	}
	if !httpguts.ValidHeaderFieldValue(s) {
		return errors.New("holds a line break or another control character, which no header can; write it in one line")
	}
	return nil
}

// isReservedHeader names what frames a request or belongs to its connection. The name is in its canonical spelling.
func isReservedHeader(name string) bool {
	return slices.Contains([]string{
		"Content-Length", "Transfer-Encoding", "Trailer", "Te", "Connection", "Keep-Alive", "Proxy-Connection", "Upgrade", "Expect",
	}, name)
}

// checkSigned reports headers that a signed request has already.
func (d *decoder) checkSigned(w *trigger.Webhook, at place) {
	if w.Secret == "" {
		return
	}
	for _, name := range sortedKeys(w.Headers) {
		if slices.Contains([]string{"webhook-id", "webhook-timestamp", "webhook-signature"}, strings.ToLower(name)) {
			path := at.path.to("headers").to(name)
			d.reportAt(d.positions[path.id()], path, "a request that is signed with secret has the header %s already; remove one of them", name)
		}
	}
}

func isSecretHeader(name string) bool {
	return regexp.MustCompile(`(?i)authorization|cookie|token|secret|password|api-?key`).MatchString(name)
}

// checkSecret takes what requests are signed with: whsec_ and base64, or any text; several are separated by spaces.
func checkSecret(s string) error {
	if _, err := trigger.References(s); err != nil {
		return err
	}
	if fault := trigger.SecretFault(s); fault != "" {
		return errors.New(strings.Replace(fault, ": ", "; ", 1))
	}
	for _, part := range strings.Fields(s) {
		encoded, ok := strings.CutPrefix(part, trigger.SecretPrefix)
		if !ok || strings.Contains(encoded, "${") {
			continue
		}
		if key, err := decodeSecret(encoded); err != nil || len(key) == 0 {
			return errors.New("what follows whsec_ is not base64; copy the secret again, or make one: echo whsec_$(openssl rand -base64 32)")
		}
	}
	return nil
}

func decodeSecret(encoded string) ([]byte, error) {
	encoded = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(encoded, "="))
	return base64.RawStdEncoding.DecodeString(encoded)
}

// hasShortKey reports that a secret, all of whose references are expanded, has a key that is easily guessed.
func hasShortKey(s string) bool {
	for part := range strings.FieldsSeq(s) {
		encoded, prefixed := strings.CutPrefix(part, trigger.SecretPrefix)
		key := []byte(part)
		if prefixed {
			key, _ = decodeSecret(encoded) // what is not base64 is told elsewhere
		}
		if trigger.IsShortKey(key, prefixed) {
			return true
		}
	}
	return false
}

// checkPath takes a path with references.
func checkPath(s string) error {
	_, err := trigger.References(s)
	return err
}

// checkTLS reports half of a client certificate, and files for a connection without TLS.
func (d *decoder) checkTLS(w *trigger.Webhook, at place) {
	path := at.path.to("tls")
	if w.TLS.IsZero() || !d.clean(path) {
		return
	}
	pos := d.positions[path.id()]
	switch {
	case w.TLS.CertFile == "" && w.TLS.KeyFile != "":
		d.reportAt(pos, path, "has a key_file and no cert_file; name the certificate that the key belongs to, or remove key_file")
	case w.TLS.CertFile != "" && w.TLS.KeyFile == "":
		d.reportAt(pos, path, "has a cert_file and no key_file; name the file of its private key, which may be the same one")
	case len(w.URL) > 7 && strings.EqualFold(w.URL[:7], "http://"):
		d.reportAt(pos, path, "is for https, and the url is http://; write https:// in url, or remove tls")
	}
}

func checkRule(s string) error {
	_, err := netrule.Parse(s)
	if err != nil {
		return fmt.Errorf("is no rule for addresses; write %s, an address, or a prefix such as 10.1.0.0/16", strings.Join(netrule.Words(), ", "))
	}
	return nil
}

func checkTimeout(s string) error {
	if s == "0" {
		return errors.New("0 would fail every attempt; write how long one may take, as in timeout: 10s")
	}
	return nil
}

func (d *decoder) checkOn(on *trigger.On, at place) {
	if d.clean(at.path) && !on.Insert && !on.Update.Enabled && !on.Delete && !on.Manual {
		d.reportAt(at.pos, at.path, "captures nothing; set insert, update, delete or manual to true")
	}
}

func (d *decoder) checkRetry(r *trigger.Retry, at place) {
	interval, bound := at.path.to("interval"), at.path.to("max_interval")
	if r.Interval <= r.MaxInterval || !d.clean(interval) || !d.clean(bound) {
		return
	}
	// One of the two is in the file, as the defaults agree.
	path, byDefault := interval, " by default"
	if _, ok := d.positions[bound.id()]; ok {
		path, byDefault = bound, ""
	}
	d.reportAt(d.positions[path.id()], path, "max_interval bounds every wait and is %v%s, but interval is %v; write max_interval: %v or more",
		r.MaxInterval, byDefault, r.Interval, r.Interval)
}

// clean reports that nothing was found wrong at path or in it, so that a check of the whole is no echo.
func (d *decoder) clean(path keyPath) bool {
	prefix := path.String()
	return !slices.ContainsFunc(d.problems, func(p Problem) bool {
		rest, ok := strings.CutPrefix(p.Key, prefix)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// uniqueNames reports each trigger that has the name of an earlier one.
func (d *decoder) uniqueNames() {
	first := map[string]int{}
	for i, spec := range d.out.Triggers {
		if spec.Name == "" {
			continue
		}
		other, twice := first[spec.Name]
		if !twice {
			first[spec.Name] = i
			continue
		}
		at, path := fullPath(other, []string{"name"}), fullPath(i, []string{"name"})
		d.reportAt(d.positions[path.id()], path, "%q is the name of another trigger, on line %d; give each a name of its own",
			spec.Name, d.positions[at.id()].Line)
	}
}
