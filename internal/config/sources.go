package config

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/rowhook/rowhook/internal/secret"
	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// Source is a database of sources: one of several that one dispatcher process works on. What it says is
// the program's own configuration, and is never stored in a database.
type Source struct {
	Name string
	// URL, ListenURL and HTTPURL are connection strings, with references unexpanded. The last two may
	// be "".
	URL, ListenURL, HTTPURL string
	// Env are the patterns of the variables that this source's triggers may refer to; nil: the file
	// does not say.
	Env []string
	// SecretsDir is the directory of the files that they may refer to; "": the file does not say.
	SecretsDir string
	// Host and Database take the place of those in URL, for a source that Tenants have found. Else they
	// are "".
	Host, Database string
}

// sourceKeys are the keys of a Source in the file.
type sourceKeys struct {
	URL        string   `yaml:"url"`
	ListenURL  string   `yaml:"listen_url"`
	HTTPURL    string   `yaml:"http_url"`
	Env        []string `yaml:"env"`
	SecretsDir string   `yaml:"secrets_dir"`
}

// sourceGroup is sources in the file: names with their keys, and where further ones come from.
type sourceGroup struct {
	list  []Source
	from  *Tenants
	allow []string
}

// forKey is the key of a trigger that names its sources. It is not part of a trigger.Spec, since no
// database stores it.
const forKey = "for"

const (
	sourcesKey = "sources"
	sourceRule = sourcesKey + ".*"
	fromKey    = "from"  // of sources, and so the name of none
	allowKey   = "allow" // likewise
)

// sources decodes names and what they are.
func (d *decoder) sources(n ast.Node, v reflect.Value, at place) {
	m, ok := n.(ast.MapNode)
	if !ok {
		d.wrongType(n, at, "names of databases are needed", d.remedy(at))
		return
	}
	found, complete := d.entries(m, at)
	var group sourceGroup
	var all []Source
	for _, e := range found {
		if e.name == fromKey || e.name == allowKey {
			d.tenants(e, &group, at)
			continue
		}
		here := place{at.path.to(e.name), sourceRule, e.pos}
		d.sourceNames = append(d.sourceNames, e.name)
		if !d.matches(sourceNamePattern, e.name) {
			d.reportAt(e.pos, here.path, "%s is not a name for a source; use 1 to 63 letters, digits, _ and -, not starting with -", quote(e.name))
		}
		var keys sourceKeys
		d.value(e.value, reflect.ValueOf(&keys).Elem(), here)
		all = append(all, Source{Name: e.name, URL: keys.URL, ListenURL: keys.ListenURL, HTTPURL: keys.HTTPURL, Env: keys.Env, SecretsDir: keys.SecretsDir})
	}
	if len(found) == 0 && complete {
		d.reportAt(nodePosition(n), at.path, "is empty; %s", d.emptyRemedy(at))
	}
	group.list = all
	d.checkDirectories(all, at)
	d.checkDistinct(all, at)
	d.checkTenants(&group, at)
	v.Set(reflect.ValueOf(group))
}

// checkDirectories reports a directory of secrets within which another source has its own.
func (d *decoder) checkDirectories(all []Source, at place) {
	for i := range all {
		for j := range all {
			outer, inner := all[i].SecretsDir, all[j].SecretsDir
			path := at.path.to(all[i].Name).to("secrets_dir")
			if outer == "" || inner == "" || !d.cleanIn(d.name, path) {
				continue
			}
			rest, err := filepath.Rel(outer, inner)
			if err != nil || rest == "." || !filepath.IsLocal(rest) {
				continue
			}
			pos, _ := d.positions.at(d.name, path)
			d.reportAt(pos, path, "holds %s, which is the directory of %s, so triggers of %s could read what is that one's; give each a directory of its own",
				inner, strconv.Quote(all[j].Name), strconv.Quote(all[i].Name))
		}
	}
}

// checkDistinct reports a source whose database is named as that of an earlier one.
func (d *decoder) checkDistinct(all []Source, at place) {
	for i := range all {
		first := slices.IndexFunc(all[:i], func(s Source) bool { return s.URL == all[i].URL })
		path := at.path.to(all[i].Name).to("url")
		if all[i].URL == "" || first < 0 || !d.cleanIn(d.name, path) {
			continue
		}
		pos, _ := d.positions.at(d.name, path)
		d.reportAt(pos, path, "%s", SameDatabase(all[first].Name))
	}
}

// SameDatabase says what is wrong with a source that names the database of another one.
func SameDatabase(other string) string {
	return "names the database of the source " + strconv.Quote(other) +
		", and what is applied for one would remove what is for the other; name another database, or remove one of the two"
}

// forNames decodes for of a trigger or of defaults.
func (d *decoder) forNames(n ast.Node, at place) {
	var names []string
	d.value(n, reflect.ValueOf(&names).Elem(), at)
	d.forOf[positionID(d.name, at.path)] = names
}

// checkFor reports names in for that are no source's.
func (d *decoder) checkFor() {
	for i := range d.out.Triggers {
		d.checkForAt(d.origins[i].file, d.origins[i].path(forKey))
	}
	if d.shared != "" {
		d.checkForAt(d.shared, sharedPath(forKey))
	}
}

func (d *decoder) checkForAt(file string, path keyPath) {
	names, given := d.forOf[positionID(file, path)]
	if !given || d.hidden && len(d.sourceNames) == 0 {
		return
	}
	if !d.hasSources {
		pos, _ := d.positions.at(file, path)
		d.reportAt(pos, path, "names databases of sources, and there are no sources; remove it, or add sources at the top of the file")
		return
	}
	if d.out.Sources.from != nil || len(d.sourceNames) == 0 { // it may be the name of a tenant; or what is wrong with sources is said
		return
	}
	for i, name := range names {
		at := path.to(strconv.Itoa(i))
		if name == "" || !d.cleanIn(file, at) || slices.ContainsFunc(d.sourceNames, func(source string) bool { return matchSource(name, source) }) {
			continue
		}
		pos, _ := d.positions.at(file, at)
		if strings.Contains(name, "*") {
			d.reportAt(pos, at, "%s matches no source; the sources are %s", quote(name), Names(d.sourceNames))
			continue
		}
		d.reportAt(pos, at, "%s is no source%s; the sources are %s", quote(name), suggest.Hint(name, d.sourceNames), Names(d.sourceNames))
	}
}

// checkHolders reports sources that can't hold the rate of a trigger.
func (d *decoder) checkHolders() {
	for i, t := range d.out.Triggers {
		o, holder := d.origins[i], t.Rate.HeldBy
		file, path := o.file, o.path("rate", "held_by")
		pos, given := d.positions.at(file, path)
		if !given && d.shared != "" { // it is of the defaults
			file, path = d.shared, sharedPath("rate", "held_by")
			pos, given = d.positions.at(file, path)
		}
		switch {
		case holder == "" || t.Rate.IsZero() || !given || !d.cleanIn(file, path):
		case d.out.Sources.from != nil || len(d.sourceNames) == 0: // it may be the name of a tenant; or what is wrong with sources is said
		case !slices.Contains(d.sourceNames, holder):
			d.reportAt(pos, path, "%s is no source%s; the sources are %s", quote(holder), suggest.Hint(holder, d.sourceNames), Names(d.sourceNames))
		case !d.forOf.holds(o, d.shared, holder):
			d.reportAt(pos, path, "the trigger %s is not for the source %s, which has to hold its rate; add %s to for, or name one of its own sources", quote(t.Name), quote(holder), holder)
		}
	}
}

// warnOfHolders warns of sources that are to hold rates, where there are no sources: the configuration may
// be that of one of several databases, as an export of it is.
func (c *Config) warnOfHolders() {
	for i, t := range c.Triggers {
		if c.Sources == nil && t.Rate.HeldBy != "" {
			c.warn(i, "names a source, and there are no sources here, so that this database has the rate for itself; remove it, or add sources at the top of the file", "rate", "held_by")
		}
	}
	sorting.By(c.Warnings, Problem.compare)
}

// forLists are the lists of for, by positionID.
type forLists map[string][]string

// holds reports whether a trigger is for a source. shared is the file with defaults.
func (l forLists) holds(o origin, shared, source string) bool {
	names, given := l[positionID(o.file, o.path(forKey))]
	if !given {
		names, given = l[positionID(shared, sharedPath(forKey))]
	}
	return !given || slices.ContainsFunc(names, func(entry string) bool { return matchSource(entry, source) })
}

// matchSource reports whether an entry of for, which may hold *, stands for a source.
func matchSource(entry, source string) bool {
	matches, err := path.Match(entry, source)
	return err == nil && matches
}

// shareSource reports whether two triggers are for a common source, so that they need different names.
func (d *decoder) shareSource(a, b int) bool {
	holds := func(number int, source string) bool { return d.forOf.holds(d.origins[number], d.shared, source) }
	return len(d.sourceNames) == 0 || slices.ContainsFunc(d.sourceNames, func(name string) bool { return holds(a, name) && holds(b, name) })
}

// HasSources reports whether the configuration at path has sources, valid or not.
func HasSources(path string) bool {
	files, _, err := readAll(path)
	if err != nil {
		return false
	}
	d := newDecoder()
	d.files(files)
	return d.hasSources
}

// LoadSources reads the sources of the configuration at path, as Load reads it. What is wrong
// elsewhere in it is not reported, and it may have nothing but sources. The Config has no triggers.
func LoadSources(path string) (*Config, error) {
	files, _, err := readAll(path)
	if err != nil {
		return nil, err
	}
	d := newDecoder()
	d.files(files)
	var wrong []Problem
	for _, p := range d.problems {
		if p.Key == "" || isAboutSources(p) {
			wrong = append(wrong, p)
		}
	}
	if len(wrong) == 0 && !d.hasSources {
		return nil, unreadable(path, nil, "has no sources; %s, or name a file that has", d.remedy(place{rule: sourcesKey}))
	}
	if len(wrong) > 0 {
		return nil, ErrorOf(wrong...)
	}
	c := d.config(path)
	c.Sources, c.Tenants = d.out.Sources.list, d.out.Sources.of()
	return c, nil
}

// AboutSources reports whether something is wrong with sources, so that it is not known which they are.
func (e *Error) AboutSources() bool {
	return slices.ContainsFunc(e.Problems, isAboutSources)
}

func isAboutSources(p Problem) bool {
	rest, ok := strings.CutPrefix(p.Key, sourcesKey)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// Of returns the part of the configuration that is for a source: its triggers, and all settings.
// Positions, and what Explain says, are as in the whole. It has no warnings.
func (c *Config) Of(source string) *Config {
	part := *c
	part.Triggers, part.origins, part.Warnings, part.warned = []trigger.Spec{}, nil, nil, map[Problem]bool{}
	for i := range c.Triggers {
		if c.forOf.holds(c.origins[i], c.shared, source) {
			part.Triggers, part.origins = append(part.Triggers, c.Triggers[i]), append(part.origins, c.origins[i])
		}
	}
	return &part
}

// Single returns the configuration for one database, which stands for a source: with its triggers, or
// with all if source is "". Without sources it returns c.
func (c *Config) Single(source string) (*Config, error) {
	names := SourceNames(c.Sources)
	switch {
	case source == "" && c.Sources == nil:
		return c, nil
	case source != "" && !slices.Contains(names, source):
		return nil, unreadable(c.File, nil, "has no source %q%s; write one of %s", source, suggest.Hint(source, names), Names(names))
	}
	part := *c
	if source != "" {
		part = *c.Of(source)
		part.Warnings = slices.Clone(c.Warnings)
	}
	part.Sources = nil
	part.Triggers = slices.Clone(part.Triggers)
	named := map[string]bool{}
	for i := range part.Triggers {
		part.Triggers[i].Rate.HeldBy = "" // by the one database
		name := part.Triggers[i].Name
		if named[name] {
			return nil, ErrorOf(part.Problem(i, fmt.Sprintf("several sources have a trigger %q of their own, and here is one database; add --source and one of %s", name, Names(names)), "name"))
		}
		named[name] = true
	}
	return &part, nil
}

// SourcesOf returns the names of the sources that a trigger is for.
func (c *Config) SourcesOf(number int) []string {
	names := []string{}
	for _, s := range c.Sources {
		if c.forOf.holds(c.origins[number], c.shared, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}

// SourceProblem returns a problem with a key of a source.
func (c *Config) SourceProblem(source, message string, key ...string) Problem {
	return c.Problem(-1, message, append([]string{sourcesKey, source}, key...)...)
}

// WarnOfSources adds a warning for each reference of a trigger, or of an alert, that one of these
// sources refuses which has it: one warning for all that say the same. refuses is asked as in WarnOfReferences.
func (c *Config) WarnOfSources(sources []string, refuses func(source, name string) error) {
	c.eachReference(func(i int, _, value string, path ...string) {
		names, _ := trigger.References(value)
		for _, name := range names {
			said := map[string][]string{}
			for _, source := range sources {
				if i >= 0 && !c.forOf.holds(c.origins[i], c.shared, source) {
					continue
				}
				if err := refuses(source, name); err != nil {
					said[err.Error()] = append(said[err.Error()], strconv.Quote(source))
				}
			}
			for _, message := range sortedKeys(said) {
				c.warn(i, "for the source"+list(said[message])+": "+message, path...)
			}
		}
	})
	sorting.By(c.Warnings, Problem.compare)
}

// SourceNames returns the names of sources.
func SourceNames(all []Source) []string {
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	return names
}

// OwnReferences returns what the connection strings of all sources refer to, as References does.
func (c *Config) OwnReferences() (variables, files []string) {
	var all []string
	c.EachConnection(func(value string, _ ...string) { all = append(all, value) })
	return referencesIn(all...)
}

// References returns what the connection strings of a source refer to: the names of environment
// variables, and the paths of files, both sorted.
func (s *Source) References() (variables, files []string) {
	return referencesIn(s.URL, s.ListenURL, s.HTTPURL)
}

// EachConnection visits the connection strings of sources in the file that are set, with their keys.
func (c *Config) EachConnection(visit func(value string, path ...string)) {
	if c.Tenants != nil {
		visit(c.Tenants.URL, sourcesKey, fromKey, "url")
	}
	for i := range c.Sources {
		s := &c.Sources[i]
		if s.Host != "" { // it is a tenant
			continue
		}
		for _, c := range [...]struct{ key, value string }{{"url", s.URL}, {"listen_url", s.ListenURL}, {"http_url", s.HTTPURL}} {
			if c.value != "" {
				visit(c.value, sourcesKey, s.Name, c.key)
			}
		}
	}
}

// warnOfSourceSecrets warns of passwords in plain text.
func (c *Config) warnOfSourceSecrets() {
	c.EachConnection(func(value string, path ...string) {
		if hasPassword(value) || plainPassword.MatchString(value) {
			c.warn(-1, "contains a password in plain text, and whoever reads this file has it; write ${NAME} instead, and set NAME where the dispatcher runs", path...)
		}
	})
}

// warnOfSourceEnvironment warns of variables of sources that lookup does not know.
func (c *Config) warnOfSourceEnvironment(lookup func(string) (string, bool)) {
	c.EachConnection(func(value string, path ...string) {
		names, _ := trigger.References(value)
		for _, name := range names {
			if set, _ := lookup(name); set == "" && !strings.HasPrefix(name, trigger.FilePrefix) {
				c.warn(-1, fmt.Sprintf("environment variable %s is not set here; set it where the dispatcher runs", name), path...)
			}
		}
	})
}

// plainPassword matches a password in a connection string of keywords that is no reference.
var plainPassword = regexp.MustCompile(`(?:^|\s)password\s*=\s*'?[^\s'$]`)

// checkConnection checks a connection string as far as that is possible without the environment.
func checkConnection(raw string) error {
	const remedy = "write postgres://user@host:5432/database, or ${NAME} for an environment variable that holds it"
	if template.HasData(raw) {
		return errors.New("has data of an event, and is no text of an event; " + remedy)
	}
	if _, err := trigger.References(raw); err != nil {
		return err
	}
	// A digit is valid wherever a reference is: in a host, a port and a password.
	sample, err := trigger.ExpandReferences(raw, func(string) (string, bool) { return "1", true })
	if err != nil {
		return err
	}
	scheme, _, isURL := strings.Cut(sample, "://")
	switch {
	case strings.HasPrefix(raw, "${"):
		return nil
	case isURL && scheme != "postgres" && scheme != "postgresql":
		return errors.New("does not begin with postgres://; " + remedy)
	case !isURL && !strings.Contains(sample, "="):
		return errors.New("is no connection string; " + remedy)
	}
	if u, err := url.Parse(sample); isURL && (err != nil || u.Hostname() == "" && u.Query().Get("host") == "") {
		return errors.New("is no URL with a host, perhaps because of a special character in the password, which is written percent-encoded; " + remedy)
	}
	return nil
}

// checkSourceEnv checks a pattern of a source's env.
func checkSourceEnv(pattern string) error {
	if secret.CheckPattern(pattern) != nil {
		return fmt.Errorf("%s is no name of a variable; write a name such as ORDERS_URL, or ORDERS_* with * for any part", quote(pattern))
	}
	return nil
}

// checkSecretsDir checks a directory of secrets.
func checkSecretsDir(dir string) error {
	_, err := secret.CheckDir(dir)
	if err == nil {
		return nil
	}
	return errors.New(strings.Replace(err.Error(), ": ", "; ", 1))
}
