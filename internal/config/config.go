// Package config reads rowhook.yaml, or a directory of such files, strictly. It reports every error
// at once, each with its file, line, key and remedy. It also writes the JSON Schema, with which
// editors check and complete a file.
package config

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhook/rowhook/internal/rule"
	"github.com/rowhook/rowhook/internal/sorting"
	"github.com/rowhook/rowhook/internal/template"
	"github.com/rowhook/rowhook/trigger"
)

// MaxSize is the greatest size of a configuration in bytes. No real file comes near it, and a wrong
// path (a dump, a log) is rejected at once.
const MaxSize = 10 << 20

// Config is a rowhook.yaml that is valid as far as the file alone shows. Only an apply can tell
// whether its tables and columns exist, and whether Postgres accepts each when. Problem turns what
// an apply finds into the same kind of message.
type Config struct {
	// File is the name of the file or the directory in messages.
	File string
	// Files are the names of the files: File itself, or those of the directory, sorted.
	Files []string
	// Ignored are the names of what a directory holds besides, without hidden entries.
	Ignored []string
	// Triggers are in the order of the files, with the defaults filled in, both those of the file
	// and those of Rowhook, and ${NAME} references unexpanded.
	Triggers []trigger.Spec
	Settings trigger.Settings
	// Sources are the databases of sources, in the order of the file. nil: the file has none, and so one
	// database, which it does not name.
	Sources []Source
	// Tenants says where further sources come from; nil: there are none.
	Tenants *Tenants
	// Warnings are probable mistakes: a variable that is not set here, or a secret in plain text.
	Warnings []Problem

	lines     map[string]lines
	positions positions
	origins   []origin // of each trigger
	shared    string   // the file with defaults; "": none has
	forOf     forLists // of the triggers
	warned    map[Problem]bool
}

// Load reads the configuration at path: a file, or a directory, of which it reads the files *.yaml
// and *.yml. With a lookup, such as os.LookupEnv, it also warns of variables that lookup does not
// know, and of URLs that are invalid once expanded; nil omits these warnings. The error is an
// *Error. If path does not exist, errors.Is(err, fs.ErrNotExist) is true.
func Load(path string, lookup func(string) (string, bool)) (*Config, error) {
	files, ignored, err := readAll(path)
	if err != nil {
		return nil, err
	}
	c, err := parse(path, files)
	if err != nil {
		return nil, err
	}
	c.Ignored = ignored
	c.warnOfIgnored()
	if lookup != nil {
		c.warnOfEnvironment(lookup)
	}
	return c, nil
}

// Read reads a configuration from r, such as standard input, as Load reads a file. name stands for
// its path in messages.
func Read(name string, r io.Reader, lookup func(string) (string, bool)) (*Config, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, unreadable(name, err, "can't read it to its end (%v); try again, or give the path of a file", reason(err))
	}
	c, err := Parse(name, data)
	if err != nil {
		return nil, err
	}
	if lookup != nil {
		c.warnOfEnvironment(lookup)
	}
	return c, nil
}

// Parse reads a configuration from memory. name is the name of the file in messages. The error is
// an *Error.
func Parse(name string, data []byte) (*Config, error) {
	return parse(name, []file{{name, data}})
}

func parse(name string, files []file) (*Config, error) {
	d := newDecoder()
	d.files(files)
	if len(d.problems) > 0 {
		sorted := slices.Clone(d.problems)
		sorting.By(sorted, Problem.compare)
		return nil, &Error{Problems: sorted, sound: d.sound(name)}
	}
	for i := range d.out.Triggers {
		normalize(&d.out.Triggers[i])
	}
	c := d.config(name)
	c.Triggers, c.Settings = d.out.Triggers, d.out.Settings
	c.Sources, c.Tenants = d.out.Sources.list, d.out.Sources.of()
	c.warnOfSecrets()
	c.warnOfHolders()
	return c, nil
}

// config returns the Config of the files, without their content.
func (d *decoder) config(name string) *Config {
	return &Config{
		File: name, Files: d.names, Settings: trigger.DefaultSettings(),
		lines: d.lines, positions: d.positions, origins: d.origins, shared: d.shared, forOf: d.forOf, warned: map[Problem]bool{},
	}
}

// sound returns the part of an invalid file that can still be checked against a database: every
// trigger, without its invalid values.
func (d *decoder) sound(name string) *Config {
	c := d.config(name)
	for i, spec := range d.out.Triggers {
		clean := func(key string) bool { return d.soundAt(d.origins[i], key) }
		if spec.Table == "" || !clean("table") {
			spec.Table = ""
		}
		if !clean("tables") || !clean("except") || spec.Table != "" {
			spec.Tables, spec.Except = nil, nil
		}
		if spec.Name == "" || !clean("name") {
			spec.Name = fmt.Sprintf("trigger_%d", i)
		}
		if !clean("on") || spec.On.IsZero() {
			spec.On = trigger.On{Manual: true}
		}
		if !clean("when") {
			spec.When = ""
		}
		if !clean("payload") {
			spec.Payload = trigger.Payload{}
		}
		if !clean("webhook") {
			spec.Webhook = trigger.Webhook{}
		}
		if !clean("nats") {
			spec.NATS = trigger.NATS{}
		}
		if !clean("order") {
			spec.Order = trigger.Order{}
		}
		c.Triggers = append(c.Triggers, spec)
	}
	c.Sources = d.out.Sources.list
	return c
}

// Sound returns the part of an invalid file that can still be checked against a database. Triggers
// with an invalid table have Table "" and no Tables, and can't be checked. nil: the error has no such part.
func (e *Error) Sound() *Config { return e.sound }

// Position returns the place of a trigger's value in its file, as in Position(0, "webhook", "url")
// or Position(2, "on", "update", "columns", "1"). The place of a value that comes from defaults is
// there. With trigger -1 the path begins at the top of the file: Position(-1, "retention"). For a
// value that no file contains it returns the place of the nearest parent.
func (c *Config) Position(trigger int, path ...string) Position {
	position, _, _ := c.find(trigger, path)
	return position
}

// Explain returns the problems that the database found with triggers. The Index of each error is
// that of its trigger. What it says of a value that comes from defaults is one problem, whose
// message names the triggers. ErrorOf makes an error of them.
func (c *Config) Explain(found trigger.SpecErrors) []Problem {
	type said struct {
		key, message string
	}
	var problems []Problem
	at := map[said]int{}           // the index in problems
	triggers := map[int][]string{} // by index in problems
	for _, e := range found {
		p := c.Problem(e.Index, e.Message, e.Path...)
		if _, _, shared := c.find(e.Index, e.Path); !shared {
			problems = append(problems, p)
			continue
		}
		i, again := at[said{p.Key, p.Message}]
		if !again {
			i = len(problems)
			at[said{p.Key, p.Message}] = i
			problems = append(problems, p)
		}
		if name := c.called(e.Index); !slices.Contains(triggers[i], name) {
			triggers[i] = append(triggers[i], name)
		}
	}
	for i, names := range triggers {
		problems[i].Message = "for the trigger" + list(names) + ": " + problems[i].Message
	}
	return problems
}

// called returns the name of a trigger in quotes, or where it is if its file gives it none.
func (c *Config) called(trigger int) string {
	o := c.origins[trigger]
	if _, named := c.positions.at(o.file, o.path("name")); named {
		return strconv.Quote(c.Triggers[trigger].Name)
	}
	at := c.Position(trigger)
	return fmt.Sprintf("at %s:%d", at.File, at.Line)
}

// list returns names with the ending of the plural before them, at most three of them.
func list(names []string) string {
	const most = 3
	switch n := len(names); {
	case n == 1:
		return " " + names[0]
	case n <= most:
		return "s " + strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return fmt.Sprintf("s %s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// Problem returns a problem with the value at path of a trigger, both as in Position. It lets
// errors of Postgres read like errors of this package. ErrorOf combines several.
func (c *Config) Problem(trigger int, message string, path ...string) Problem {
	position, key, _ := c.find(trigger, path)
	return Problem{Position: position, Key: key.String(), Message: message, Excerpt: c.lines[position.File].excerptOf(key, position)}
}

// References returns what a trigger's webhook refers to: the names of environment variables, and the
// paths of files, both sorted.
func References(s trigger.Spec) (variables, files []string) {
	var values []string
	eachReferring(s, func(value string, _ ...string) { values = append(values, value) })
	return referencesIn(values...)
}

func referencesIn(values ...string) (variables, files []string) {
	variables, files = []string{}, []string{}
	for _, value := range values {
		found, _ := trigger.References(value) // Parse has rejected malformed references
		for _, name := range found {
			if path, isFile := strings.CutPrefix(name, trigger.FilePrefix); isFile {
				files = append(files, path)
			} else {
				variables = append(variables, name)
			}
		}
	}
	slices.Sort(variables)
	slices.Sort(files)
	return slices.Compact(variables), slices.Compact(files)
}

// WarnOfRules adds a warning for what may not be what is meant, which an apply warns of, too.
func (c *Config) WarnOfRules() {
	for i := range c.Triggers {
		for _, w := range rule.Warnings(&c.Triggers[i]) {
			c.warn(i, w.Problem+"; "+w.Remedy, w.Path...)
		}
	}
}

// WarnOfReferences adds a warning for each reference that refuses returns an error for. It is asked
// for the name of a variable, or for [trigger.FilePrefix] and the path of a file.
func (c *Config) WarnOfReferences(refuses func(name string) error) {
	c.eachReference(func(i int, _, value string, path ...string) {
		names, _ := trigger.References(value)
		for _, name := range names {
			if err := refuses(name); err != nil {
				c.warn(i, err.Error(), path...)
			}
		}
	})
	sorting.By(c.Warnings, Problem.compare)
}

// eachReferring visits the values of a trigger that may contain references, in a fixed order.
func eachReferring(s trigger.Spec, visit func(value string, path ...string)) {
	// The body was made by Parse, or was read from a valid spec.
	_ = s.EachText(func(text string, mode template.Mode, path ...string) {
		visit(referring(text, mode, path[1] == "url"), path...)
	})
	if s.Kind() == trigger.KindNATS {
		eachReferringNATS(&s.NATS, visit)
		return
	}
	visit(s.Webhook.Secret, "webhook", "secret")
	visit(s.Webhook.TLS.CAFile, "webhook", "tls", "ca_file")
	visit(s.Webhook.TLS.CertFile, "webhook", "tls", "cert_file")
	visit(s.Webhook.TLS.KeyFile, "webhook", "tls", "key_file")
	o := s.Webhook.OAuth2
	visit(o.TokenURL, "webhook", "oauth2", "token_url")
	visit(o.ClientID, "webhook", "oauth2", "client_id")
	visit(o.ClientSecret, "webhook", "oauth2", "client_secret")
	for i, scope := range o.Scopes {
		visit(scope, "webhook", "oauth2", "scopes", strconv.Itoa(i))
	}
	visit(o.Audience, "webhook", "oauth2", "audience")
}

// referring returns a text as package trigger reads its references. One with data of the event is
// reduced to its references, unless it is needed whole.
func referring(text string, mode template.Mode, whole bool) string {
	parts, err := template.Parse(text, mode)
	if err != nil || whole || !slices.ContainsFunc(parts, func(p template.Part) bool { return p.Data != nil }) {
		return template.Sample(text, mode)
	}
	references := ""
	for _, part := range parts {
		references += part.Reference
	}
	return references
}

// eachReference visits the values of triggers and alerts that may contain references. trigger is -1
// for those of alerts. field is what a value is: url, headers, secret, tls, oauth2, or a key of nats.
func (c *Config) eachReference(visit func(trigger int, field, value string, path ...string)) {
	for i, spec := range c.Triggers {
		eachReferring(spec, func(value string, path ...string) { visit(i, path[1], value, path...) })
	}
	c.eachReferringAlert(func(value string, path ...string) {
		field := path[2]
		if field == "heartbeat" {
			field = "url"
		}
		visit(-1, field, value, path...)
	})
}

func (c *Config) warnOfEnvironment(lookup func(string) (string, bool)) {
	c.warnOfSourceEnvironment(lookup)
	c.eachReference(func(i int, field, value string, path ...string) {
		names, _ := trigger.References(value)
		whole := true
		for _, name := range names {
			set, ok := lookup(name)
			switch {
			case strings.HasPrefix(name, trigger.FilePrefix): // it is where the dispatcher runs
				whole = false
			case !ok:
				whole = false
				c.warn(i, fmt.Sprintf("environment variable %s is not set here; set it where the dispatcher runs", name), path...)
			case set == "":
				whole = false
				c.warn(i, fmt.Sprintf("environment variable %s is empty here; give it a value where the dispatcher runs", name), path...)
			}
		}
		if !whole || len(names) == 0 {
			return
		}
		expanded, err := trigger.ExpandReferences(value, lookup)
		if err == nil && field == "secret" {
			c.warnOfSecret(i, expanded, strings.Join(names, ", "), path...)
		}
		if err == nil && path[0] == trigger.KindNATS && field == "url" && checkExpandedNATS(expanded) != nil {
			c.warn(i, fmt.Sprintf("with the value of %s here this is not a nats:// URL; check the value where the dispatcher runs", strings.Join(names, ", ")), path...)
			return
		}
		if err == nil && path[0] != trigger.KindNATS && field == "url" && checkExpandedURL(expanded) != nil {
			c.warn(i, fmt.Sprintf("with the value of %s here this is not an http:// or https:// URL; check the value where the dispatcher runs",
				strings.Join(names, ", ")), path...)
		}
	})
	sorting.By(c.Warnings, Problem.compare)
}

// warnOfSecrets warns of secrets in plain text: the database stores them, and they belong in the
// environment.
func (c *Config) warnOfSecrets() {
	c.warnOfSourceSecrets()
	const remedy = "; write ${NAME} instead, and set NAME where the dispatcher runs"
	c.eachReference(func(i int, field, value string, path ...string) {
		plain := value != "" && !strings.Contains(value, "${")
		switch key := path[len(path)-1]; {
		case plain && (field == "secret" || key == "client_secret" && field == "oauth2" || path[0] == trigger.KindNATS && isNATSSecret(field) ||
			(field == "headers" || field == "query" || field == "form") && isSecretHeader(key)):
			message := "is plain text here, so the database stores it, too" + remedy
			if field == "secret" && hasShortKey(value) {
				message += ". And it " + shortSecret
			}
			c.warn(i, message, path...)
		case (field == "url" || key == "token_url") && hasPassword(value):
			c.warn(i, "contains a password, so the database stores it, too"+remedy, path...)
		case plain && i < 0 && strings.Contains(value, "://hooks.slack.com/"):
			c.warn(i, "is a secret, since whoever has it may post there, and the database stores it"+remedy, path...)
		}
	})
	sorting.By(c.Warnings, Problem.compare)
}

// warnOfSecret warns of a secret whose value from the environment is malformed or too short.
func (c *Config) warnOfSecret(trigger int, expanded, names string, path ...string) {
	problem := ""
	if err := checkSecret(strings.ReplaceAll(expanded, "${", "$${")); err != nil {
		problem = err.Error()
	} else if hasShortKey(expanded) {
		problem = shortSecret
	}
	if problem != "" {
		c.warn(trigger, fmt.Sprintf("with the value of %s here the secret %s; check the value where the dispatcher runs", names, problem), path...)
	}
}

const shortSecret = "has a key that is short enough to be guessed; make one: echo whsec_$(openssl rand -base64 32)"

// warn adds a warning. One of a value in defaults is said once for all triggers.
func (c *Config) warn(trigger int, message string, path ...string) {
	p := c.Problem(trigger, message, path...)
	if !c.warned[p] {
		c.warned[p] = true
		c.Warnings = append(c.Warnings, p)
	}
}

// warnOfIgnored warns of files in a directory whose name only looks like that of a configuration.
func (c *Config) warnOfIgnored() {
	for _, name := range c.Ignored {
		if lower := strings.ToLower(name); isConfigName(lower) {
			c.Warnings = append(c.Warnings, Problem{
				Position: Position{File: filepath.Join(c.File, name)},
				Message:  "is ignored because of the capitals in its suffix; name it " + strings.TrimSuffix(name, filepath.Ext(name)) + filepath.Ext(lower),
			})
		}
	}
	sorting.By(c.Warnings, Problem.compare)
}

// keyPath is the path to a value in the file: keys, and indexes of lists as decimal numbers.
type keyPath []string

// to returns the path of the value at a key or an index of p.
func (p keyPath) to(step string) keyPath { return append(slices.Clone(p), step) }

func (p keyPath) id() string { return strings.Join(p, "\x00") }

// String returns a path such as triggers[0].webhook.url.
func (p keyPath) String() string {
	var b strings.Builder
	for _, step := range p {
		switch {
		case isDigits(step):
			b.WriteString("[" + step + "]")
		case !isPlainKey(step):
			b.WriteString("[" + strconv.Quote(step) + "]")
		case b.Len() > 0:
			b.WriteString("." + step)
		default:
			b.WriteString(step)
		}
	}
	return b.String()
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func isPlainKey(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}
