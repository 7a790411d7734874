package config

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/trigger"
)

// Tenants are sources that a query names: it says their names, hosts and databases, and nothing else.
type Tenants struct {
	// Source is the name of the source that is asked.
	Source string
	Query  string
	// URL is the connection string of each tenant, with references unexpanded, but for the host and the
	// database.
	URL string
	// Every is how often the query runs.
	Every time.Duration
	// Env and SecretsDir are as in a Source.
	Env        []string
	SecretsDir string
	// Allow are the patterns of the hosts that a tenant may have.
	Allow []string
}

// tenantKeys are the keys of Tenants in the file.
type tenantKeys struct {
	Source     string           `yaml:"source"`
	Query      string           `yaml:"query"`
	URL        string           `yaml:"url"`
	Every      trigger.Duration `yaml:"every"`
	Env        []string         `yaml:"env"`
	SecretsDir string           `yaml:"secrets_dir"`
}

const (
	fromRule  = sourcesKey + "." + fromKey
	allowRule = sourcesKey + "." + allowKey

	// DefaultTenantsEvery is how often a query for tenants runs.
	DefaultTenantsEvery = trigger.Duration(30 * time.Second)
	leastTenantsEvery   = trigger.Duration(time.Second)
)

// of returns the tenants with the hosts that they may have.
func (g *sourceGroup) of() *Tenants {
	if g.from != nil {
		g.from.Allow = g.allow
	}
	return g.from
}

// tenants decodes from or allow of sources.
func (d *decoder) tenants(e entry, group *sourceGroup, at place) {
	here := place{at.path.to(e.name), sourcesKey + "." + e.name, e.pos}
	if e.name == allowKey {
		d.value(e.value, reflect.ValueOf(&group.allow).Elem(), here)
		return
	}
	keys := tenantKeys{Every: DefaultTenantsEvery}
	d.value(e.value, reflect.ValueOf(&keys).Elem(), here)
	group.from = &Tenants{Source: keys.Source, Query: keys.Query, URL: keys.URL, Every: keys.Every.Std(), Env: keys.Env, SecretsDir: keys.SecretsDir}
}

// checkTenants reports from without allow, allow without from, and a source that does not exist.
func (d *decoder) checkTenants(group *sourceGroup, at place) {
	from, allow := at.path.to(fromKey), at.path.to(allowKey)
	fromAt, hasFrom := d.positions.at(d.name, from)
	allowAt, hasAllow := d.positions.at(d.name, allow)
	switch {
	case hasFrom && !hasAllow:
		d.reportAt(fromAt, from, "needs allow beside it, since a query could name any host; write it like allow: [\"*.db.internal\"]")
	case hasAllow && !hasFrom:
		d.reportAt(allowAt, allow, "is of use with from alone, and there is none; remove it")
	}
	if !hasFrom || group.from.Source == "" || slices.ContainsFunc(group.list, func(s Source) bool { return s.Name == group.from.Source }) {
		return
	}
	names := SourceNames(group.list)
	pos, _ := d.positions.at(d.name, from.to("source"))
	known := "; add it, since it is the one that is asked"
	if len(names) > 0 {
		known = "; the sources are " + Names(names)
	}
	d.reportAt(pos, from.to("source"), "%s is no source%s%s", quote(group.from.Source), suggest.Hint(group.from.Source, names), known)
}

var (
	hostPattern = regexp.MustCompile(`^[A-Za-z0-9*.:_-]+$`)
	plainHost   = regexp.MustCompile(`^(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$|^[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*$`)
	sourceName  = regexp.MustCompile(sourceNamePattern)
)

func checkHostPattern(s string) error {
	switch {
	case !hostPattern.MatchString(s):
		return fmt.Errorf("%s is no name of a host; write a name such as db1.internal, an address, or a pattern such as *.db.internal, without a port", quote(s))
	case strings.Trim(s, "*.") == "":
		return fmt.Errorf("%s allows every host; name the part that is yours, as in *.db.internal", quote(s))
	}
	return nil
}

// checkTemplateConnection checks a connection string of which host and database are replaced.
func checkTemplateConnection(raw string) error {
	err := checkConnection(raw)
	if err == nil && !strings.Contains(raw, "${") {
		_, err = Place(raw, "h", "d")
	}
	return err
}

// Place returns a connection string with another host and database.
func Place(text, host, database string) (string, error) {
	const only = "which is replaced for each tenant; leave it out"
	if scheme, _, isURL := strings.Cut(text, "://"); isURL && (scheme == "postgres" || scheme == "postgresql") {
		u, err := url.Parse(text)
		if err != nil {
			return "", errors.New("is no URL, perhaps because of a special character in the password, which is written percent-encoded; write postgres://user@host:5432/database")
		}
		query := u.Query()
		for _, key := range []string{"host", "hostaddr", "dbname", "database", "service"} {
			if query.Has(key) {
				return "", fmt.Errorf("has the parameter %s, %s", key, only)
			}
		}
		if strings.Contains(u.Host, ",") {
			return "", errors.New("has several hosts, and a tenant has one; write one of them, which is replaced")
		}
		port := u.Port()
		if u.Host = bracketed(host); port != "" {
			u.Host += ":" + port
		}
		u.Path, u.RawPath = "/"+database, "/"+url.PathEscape(database)
		return u.String(), nil
	}
	if !strings.Contains(text, "=") {
		return "", errors.New("is no connection string; write postgres://user@host:5432/database")
	}
	if strings.Contains(text, "service") || strings.Contains(text, "hostaddr") {
		return "", fmt.Errorf("has the parameter service or hostaddr, %s", only)
	}
	quoted := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }
	return text + " host=" + quoted(host) + " dbname=" + quoted(database), nil // the last one counts
}

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// With returns the configuration with further sources.
func (c *Config) With(found []Source) *Config {
	all := *c
	all.Sources = append(slices.Clone(c.Sources), found...)
	return &all
}

// Row is what a query says of a tenant.
type Row struct{ Name, Host, Database string }

// Of returns the sources of what the query has found. refused says of each row that is none why not, by
// the name in the row. others are the names of the sources of the file.
func (t *Tenants) Of(rows []Row, others []string) (found []Source, refused map[string]error) {
	refused = map[string]error{}
	taken := map[string]bool{}
	for _, name := range others {
		taken[name] = true
	}
	type database struct{ host, name string }
	owners := map[database]string{}
	for _, r := range rows {
		here := database{strings.ToLower(r.Host), r.Database}
		if err := t.check(r, taken); err != nil {
			refused[r.Name] = err
			continue
		}
		if owner, ok := owners[here]; ok {
			refused[r.Name] = errors.New(SameDatabase(owner))
			continue
		}
		taken[r.Name], owners[here] = true, r.Name
		found = append(found, Source{Name: r.Name, URL: t.URL, Env: t.Env, SecretsDir: t.SecretsDir, Host: here.host, Database: here.name})
	}
	return found, refused
}

func (t *Tenants) check(r Row, taken map[string]bool) error {
	const most = 63
	host := strings.ToLower(r.Host)
	switch {
	case !sourceName.MatchString(r.Name) || r.Name == fromKey || r.Name == allowKey:
		return fmt.Errorf("%s is not a name for a source: use 1 to 63 letters, digits, _ and -", quote(r.Name))
	case taken[r.Name]:
		return errors.New("another source has this name")
	case !plainHost.MatchString(host) || len(host) > 253:
		return fmt.Errorf("%s is not the name or the address of one host", quote(r.Host))
	case !slices.ContainsFunc(t.Allow, func(pattern string) bool {
		matches, err := path.Match(strings.ToLower(pattern), host)
		return err == nil && matches
	}):
		return fmt.Errorf("the host %s is not allowed: sources.allow has %s", strconv.Quote(host), strings.Join(t.Allow, ", "))
	case r.Database == "" || len(r.Database) > most || strings.ContainsRune(r.Database, 0) || !utf8.ValidString(r.Database):
		return fmt.Errorf("%s is not the name of a database", quote(r.Database))
	}
	return nil
}
