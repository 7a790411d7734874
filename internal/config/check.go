package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/rowhook/rowhook/internal/mask"
	"github.com/rowhook/rowhook/internal/netrule"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// maxIdentifier is the greatest length of a name in Postgres, in bytes (NAMEDATALEN - 1).
const maxIdentifier = 63

var identifier = regexp.MustCompile(`"(?:[^"]|"")+"|` + bareName)

// checkTables checks a name of a table, or a pattern.
func checkTables(s string) error {
	p, err := pg.ParsePattern(s)
	if err != nil {
		return err
	}
	for _, part := range p.Fixed() {
		if err := checkIdentifier(part); err != nil {
			return err
		}
	}
	if p.OnlySchema("rowhook") {
		return errOwnTable()
	}
	return nil
}

// checkExcept checks an entry of except.
func checkExcept(s string) error {
	if p, err := pg.ParsePattern(s); err == nil && !p.HasSchema() {
		return errors.New("has no schema, so it could be any; write it as in billing.drafts")
	}
	return checkTables(s)
}

func errOwnTable() error {
	return errors.New("this is one of Rowhook's own tables, where each event would cause another; choose a table of your own")
}

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
		return errOwnTable()
	}
	return nil
}

func checkColumn(s string) error {
	if len(s) > 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return fmt.Errorf("%s has SQL quotes around it; write the name of the column alone, as in %s", quote(s), s[1:len(s)-1])
	}
	return checkIdentifier(s)
}

func checkMask(s string) error {
	column, any, err := mask.Column(s)
	if err != nil || any {
		return err
	}
	return checkIdentifier(column)
}

func checkIdentifier(s string) error {
	if len(s) > maxIdentifier {
		return fmt.Errorf("the name %s has %d bytes, and Postgres keeps only %d; write the name as Postgres shows it", quote(s), len(s), maxIdentifier)
	}
	return nil
}

// checkTemplateURL checks a URL that may have data of the event behind its host.
func checkTemplateURL(raw string) error {
	parts, err := template.Parse(raw, template.Mixed)
	if err != nil || parts == nil {
		return cmp.Or(err, checkURL(raw))
	}
	if err := checkParts(parts); err != nil {
		return err
	}
	before := ""
	for _, part := range parts {
		before += part.Text + part.Reference
		if part.Data == nil {
			continue
		}
		_, behind, ok := strings.Cut(before, "://")
		if strings.HasPrefix(before, "${") {
			_, behind, ok = strings.Cut(before, "}")
		}
		if !ok || !strings.ContainsAny(behind, "/?#") {
			return &template.Error{At: part.At, Message: "data of the event stands in the scheme, user name, host or port, and may stand behind the host only, as in https://example.com/orders/$new.id; " +
				"write the host itself, or ${NAME} for the environment's"}
		}
		before += "1"
	}
	return checkURL(template.Sample(raw, template.Mixed))
}

// checkAlertURL checks a URL that is called for no event.
func checkAlertURL(raw string) error {
	if template.HasData(raw) {
		return errors.New("has data of an event, and is called for none; write the URL itself, or ${NAME} for the environment's")
	}
	return checkURL(raw)
}

// checkURL checks a URL as far as that is possible without the environment.
func checkURL(raw string) error {
	sample, err := withoutEnvironment(raw)
	if err != nil {
		return err
	}
	if strings.HasPrefix(raw, "${") {
		sample = "http://" + sample
	}
	if u, err := url.Parse(raw); err == nil && sample == raw && netrule.IsNumericHost(u.Hostname()) {
		return errors.New("has a number as its host; write an address such as 192.0.2.1")
	}
	return checkExpandedURL(sample)
}

// withoutEnvironment returns a URL with a digit for each reference, which is valid wherever a reference
// is: in a host, a port, a path and a query.
func withoutEnvironment(raw string) (sample string, err error) {
	if _, err := trigger.References(raw); err != nil {
		return "", err
	}
	return trigger.ExpandReferences(raw, func(string) (string, bool) { return "1", true })
}

var dollarName = regexp.MustCompile(`^\$([A-Za-z_][A-Za-z0-9_]*)(.*)$`)

func checkExpandedURL(raw string) error {
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("contains white space; remove it, or write %20 for a space that belongs to it")
	}
	if m := dollarName.FindStringSubmatch(raw); m != nil {
		return fmt.Errorf("$%s is not read from the environment; write ${%s}%s", m[1], m[1], m[2])
	}
	const remedy = "write the full URL, as in https://example.com/hooks/orders"
	scheme, _, ok := strings.Cut(raw, "://")
	switch {
	case !ok:
		return errors.New("has no http:// or https:// before the host; " + remedy)
	case !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https"):
		return fmt.Errorf("the scheme %s:// is not supported; use http:// or https://", strings.Trim(quote(scheme), `"`))
	}
	u, err := url.Parse(raw)
	if err != nil {
		cause := err
		if ue, ok := errors.AsType[*url.Error](err); ok {
			cause = ue.Err // without the URL, which may contain a password
		}
		return fmt.Errorf("is not a URL (%w); %s", cause, remedy)
	}
	port, portErr := strconv.Atoi(u.Port())
	switch {
	case u.Hostname() == "":
		return errors.New("has no host; " + remedy)
	case u.Port() != "" && (portErr != nil || port < 1 || port > 65535):
		return fmt.Errorf("port %s does not exist; use one from 1 to 65535", u.Port())
	case strings.Contains(raw, "#"):
		return errors.New("contains a # part, which is never sent; remove it, or write %23 for a # that belongs to the path")
	}
	return nil
}

var urlPassword = regexp.MustCompile(`^[^/]*://[^/@:]*:([^/@]+)@`)

// hasPassword reports whether a URL contains a password that is not a reference.
func hasPassword(raw string) bool {
	m := urlPassword.FindStringSubmatch(raw)
	return m != nil && !strings.HasPrefix(m[1], "${")
}

func checkHeaderValue(s string) error {
	parts, err := template.Parse(s, template.Mixed)
	if err != nil {
		return err
	}
	if parts != nil {
		if err := checkParts(parts); err != nil {
			return err
		}
		s = template.Sample(s, template.Mixed)
	}
	if _, err := trigger.References(s); err != nil {
		return err
	}
	if !httpguts.ValidHeaderFieldValue(s) {
		return errors.New("contains a line break or another control character, which is not allowed in a header; write it in one line")
	}
	return nil
}

// isReservedHeader reports whether a header, in its canonical spelling, frames a request or belongs
// to its connection.
func isReservedHeader(name string) bool {
	return slices.Contains([]string{
		"Content-Length", "Transfer-Encoding", "Trailer", "Te", "Connection", "Keep-Alive", "Proxy-Connection", "Upgrade", "Expect",
	}, name)
}

var secretHeader = regexp.MustCompile(`(?i)authorization|cookie|token|secret|password|api-?key`)

func isSecretHeader(name string) bool { return secretHeader.MatchString(name) }

// checkSecret checks a signing secret: whsec_ and base64, or any other text. Several are separated
// by spaces.
func checkSecret(s string) error {
	if _, err := trigger.References(s); err != nil {
		return err
	}
	if fault := trigger.SecretFault(s); fault != "" {
		return errors.New(strings.Replace(fault, ": ", "; ", 1))
	}
	for part := range strings.FieldsSeq(s) {
		encoded, shared := strings.CutPrefix(part, trigger.SecretPrefix)
		private, isPrivate := strings.CutPrefix(part, trigger.PrivatePrefix)
		switch {
		case strings.Contains(part, "${"):
		case isPrivate:
			if _, err := trigger.PrivateKey(private); err != nil {
				return errors.New(strings.Replace(err.Error(), ": ", "; ", 1))
			}
		case shared:
			if key, err := trigger.DecodeKey(encoded); err != nil || len(key) == 0 {
				return errors.New("the part after whsec_ is not base64; copy the secret again, or make one: echo whsec_$(openssl rand -base64 32)")
			}
		}
	}
	return nil
}

// hasShortKey reports whether a secret with expanded references has a key that is easily guessed.
func hasShortKey(s string) bool {
	for part := range strings.FieldsSeq(s) {
		if strings.HasPrefix(part, trigger.PrivatePrefix) {
			continue
		}
		encoded, prefixed := strings.CutPrefix(part, trigger.SecretPrefix)
		key := []byte(part)
		if prefixed {
			key, _ = trigger.DecodeKey(encoded) // checkSecret rejects what is not base64
		}
		if trigger.IsShortKey(key, prefixed) {
			return true
		}
	}
	return false
}

// checkScope checks a scope of OAuth 2.0 (RFC 6749, section 3.3).
func checkScope(s string) error {
	if _, err := trigger.References(s); err != nil {
		return err
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
		return errors.New("has a blank or another character that no scope has; write each scope as an entry of its own")
	}
	return nil
}

// checkPath checks the references in a path, or in another text that may be anything.
func checkPath(s string) error {
	_, err := trigger.References(s)
	return err
}

func checkRule(s string) error {
	_, err := netrule.Parse(s)
	if err != nil {
		return fmt.Errorf("is not a rule for addresses; write %s, an address, or a prefix such as 10.1.0.0/16", strings.Join(netrule.Words(), ", "))
	}
	return nil
}

func checkTimeout(s string) error {
	if s == "0" {
		return errors.New("0 would fail every attempt; write the longest time for one attempt, as in timeout: 10s")
	}
	return nil
}

// uniqueNames reports each trigger with the name of an earlier one for the same source.
func (d *decoder) uniqueNames() {
	named := map[string][]int{}
	for i, spec := range d.out.Triggers {
		if spec.Name == "" {
			continue
		}
		others := named[spec.Name]
		named[spec.Name] = append(others, i)
		same := slices.IndexFunc(others, func(other int) bool { return d.shareSource(other, i) })
		if same < 0 {
			continue
		}
		before, path := d.origins[others[same]], d.origins[i].path("name")
		at, _ := d.positions.at(before.file, before.path("name"))
		pos, _ := d.positions.at(d.origins[i].file, path)
		d.reportAt(pos, path, "%q is the name of another trigger, %s; give each trigger a different name", spec.Name, at.from(pos.File))
	}
}

// CanName reports whether a list of columns can name this column. Postgres has names that it can't,
// such as one of blanks only.
func CanName(column string) bool {
	return strings.TrimSpace(column) != "" && checkColumn(column) == nil
}
