// Package config reads rowhook.yaml strictly. It reports every error of the file at once, each with
// its file, line, key and remedy. It also writes the JSON Schema, with which editors check and
// complete the file.
package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rowhook/rowhook/trigger"
)

// MaxSize is the greatest size of a configuration in bytes. No real file comes near it, and a wrong
// path (a dump, a log) is rejected at once.
const MaxSize = 10 << 20

// Config is a rowhook.yaml that is valid as far as the file alone shows. Only an apply can tell
// whether its tables and columns exist, and whether Postgres accepts each when. Problem turns what
// an apply finds into the same kind of message.
type Config struct {
	// File is the name of the file in messages.
	File string
	// Triggers are in the order of the file, with the defaults filled in and ${NAME} references
	// unexpanded.
	Triggers []trigger.Spec
	Settings trigger.Settings
	// Warnings are probable mistakes: a variable that is not set here, or a secret in plain text.
	Warnings []Problem

	source    source
	positions map[string]Position
}

// Load reads the configuration at path. With a lookup, such as os.LookupEnv, it also warns of
// variables that lookup does not know, and of URLs that are invalid once expanded; nil omits these
// warnings. The error is an *Error. If the file does not exist, errors.Is(err, fs.ErrNotExist) is
// true.
func Load(path string, lookup func(string) (string, bool)) (*Config, error) {
	files, _, err := readAll(path)
	if err != nil {
		return nil, err
	}
	if len(files) > 1 || files[0].name != path {
		return nil, unreadable(path, nil, "is a directory; give the path of the file in it, such as %s", files[0].name)
	}
	c, err := Parse(path, files[0].data)
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
	d := newDecoder(name)
	if root := d.parse(data); root != nil {
		d.file(root)
	}
	if len(d.problems) > 0 {
		sorted := slices.Clone(d.problems)
		slices.SortStableFunc(sorted, Problem.compare)
		return nil, &Error{Problems: sorted, sound: d.sound(name)}
	}
	for i := range d.out.Triggers {
		if s := &d.out.Triggers[i]; s.Capture == trigger.CaptureAuto {
			s.Capture = "" // the same as without the key
		}
	}
	c := &Config{
		File: name, Triggers: d.out.Triggers, Settings: d.out.Settings,
		source: d.source, positions: d.positions,
	}
	c.warnOfSecrets()
	return c, nil
}

// sound returns the part of an invalid file that can still be checked against a database: every
// trigger, without its invalid values.
func (d *decoder) sound(name string) *Config {
	c := &Config{File: name, Settings: trigger.DefaultSettings(), source: d.source, positions: d.positions}
	for i, spec := range d.out.Triggers {
		at := func(path ...string) keyPath { return fullPath(i, path) }
		if spec.Table == "" || !d.clean(at("table")) {
			spec.Table = ""
		}
		if spec.Name == "" || !d.clean(at("name")) {
			spec.Name = fmt.Sprintf("trigger_%d", i)
		}
		if !d.clean(at("on")) {
			spec.On = trigger.On{Manual: true}
		}
		if !d.clean(at("when")) {
			spec.When = ""
		}
		if !d.clean(at("payload")) {
			spec.Payload = trigger.Payload{}
		}
		c.Triggers = append(c.Triggers, spec)
	}
	return c
}

// Sound returns the part of an invalid file that can still be checked against a database. Triggers
// with an invalid table have Table "" and can't be checked. nil: the error has no such part.
func (e *Error) Sound() *Config { return e.sound }

// Position returns the place of a trigger's value in the file, as in Position(0, "webhook", "url")
// or Position(2, "on", "update", "columns", "1"). With trigger -1 the path begins at the top of the
// file: Position(-1, "retention"). For a value that the file does not contain it returns the place
// of the nearest parent.
func (c *Config) Position(trigger int, path ...string) Position {
	full := fullPath(trigger, path)
	for {
		if p, ok := c.positions[full.id()]; ok || len(full) == 0 {
			p.File = c.File
			return p
		}
		full = full[:len(full)-1]
	}
}

// Problem returns a problem with the value at path of a trigger, both as in Position. It lets
// errors of Postgres read like errors of this package. ErrorOf combines several.
func (c *Config) Problem(trigger int, message string, path ...string) Problem {
	p := Problem{Position: c.Position(trigger, path...), Key: fullPath(trigger, path).String(), Message: message}
	p.Excerpt = c.source.excerpt(p.Position)
	return p
}

// References returns the names of the environment variables that a trigger's webhook refers to,
// sorted.
func References(s trigger.Spec) []string {
	var names []string
	eachReferring(s, func(value string, _ ...string) {
		found, _ := trigger.References(value) // Parse has rejected malformed references
		names = append(names, found...)
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// eachReferring visits the values of a trigger that may contain references, in a fixed order.
func eachReferring(s trigger.Spec, visit func(value string, path ...string)) {
	visit(s.Webhook.URL, "webhook", "url")
	for _, name := range sortedKeys(s.Webhook.Headers) {
		visit(s.Webhook.Headers[name], "webhook", "headers", name)
	}
	visit(s.Webhook.Secret, "webhook", "secret")
	visit(s.Webhook.TLS.CAFile, "webhook", "tls", "ca_file")
	visit(s.Webhook.TLS.CertFile, "webhook", "tls", "cert_file")
	visit(s.Webhook.TLS.KeyFile, "webhook", "tls", "key_file")
}

func (c *Config) warnOfEnvironment(lookup func(string) (string, bool)) {
	for i, spec := range c.Triggers {
		eachReferring(spec, func(value string, path ...string) {
			names, _ := trigger.References(value)
			whole := true
			for _, name := range names {
				set, ok := lookup(name)
				switch {
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
			if err == nil && path[1] == "secret" {
				c.warnOfSecret(i, expanded, strings.Join(names, ", "), path...)
			}
			if err == nil && path[1] == "url" && checkExpandedURL(expanded) != nil {
				c.warn(i, fmt.Sprintf("with the value of %s here this is not an http:// or https:// URL; check the value where the dispatcher runs",
					strings.Join(names, ", ")), path...)
			}
		})
	}
	slices.SortStableFunc(c.Warnings, Problem.compare)
}

// warnOfSecrets warns of secrets in plain text: the database stores them, and they belong in the
// environment.
func (c *Config) warnOfSecrets() {
	const remedy = "; write ${NAME} instead, and set NAME where the dispatcher runs"
	for i, spec := range c.Triggers {
		eachReferring(spec, func(value string, path ...string) {
			plain := value != "" && !strings.Contains(value, "${")
			switch key := path[len(path)-1]; {
			case plain && (path[1] == "secret" || path[1] == "headers" && isSecretHeader(key)):
				message := "is plain text here, so the database stores it, too" + remedy
				if path[1] == "secret" && hasShortKey(value) {
					message += ". And it " + shortSecret
				}
				c.warn(i, message, path...)
			case path[1] == "url" && hasPassword(value):
				c.warn(i, "contains a password, so the database stores it, too"+remedy, path...)
			}
		})
	}
	slices.SortStableFunc(c.Warnings, Problem.compare)
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

func (c *Config) warn(trigger int, message string, path ...string) {
	c.Warnings = append(c.Warnings, c.Problem(trigger, message, path...))
}

// keyPath is the path to a value in the file: keys, and indexes of lists as decimal numbers.
type keyPath []string

func fullPath(trigger int, rest []string) keyPath {
	if trigger < 0 {
		return slices.Clone(rest)
	}
	return append(keyPath{"triggers", strconv.Itoa(trigger)}, rest...)
}

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
