// Package sequin imports the webhook sinks of a configuration of Sequin (sequin.yaml).
package sequin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// FaultError is a mistake in what is imported.
type FaultError struct{ message string }

func (e *FaultError) Error() string { return e.message }

// mostBytes is the most that is read.
const mostBytes = 16 << 20

// Options say what to import.
type Options struct {
	// Database is the name of the database whose sinks are imported. "": those of all.
	Database string
}

// Read imports a configuration. name is what it is called, for people.
func Read(name string, r io.Reader, o Options) (*importer.Import, error) {
	data, err := io.ReadAll(io.LimitReader(r, mostBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > mostBytes {
		return nil, &FaultError{name + " is larger than 16 MiB: is it a configuration of Sequin?"}
	}
	root, err := parse(name, data)
	if err != nil {
		return nil, err
	}
	known := []string{"account", "users", "api_tokens", "databases", "http_endpoints", "sinks", "functions", "transforms", "change_retentions"}
	if !root.isMap || !slices.ContainsFunc(root.entries, func(e entry) bool { return slices.Contains(known, e.name) }) {
		return nil, &FaultError{name + " has none of databases, http_endpoints and sinks: give the YAML that sequin config export writes, or that sequin config apply reads"}
	}
	f := &file{name: name, root: root, imp: importer.New("Sequin's configuration (" + name + ")"), used: map[string]bool{}}
	return f.imp, f.take(o)
}

// file is the configuration that is imported.
type file struct {
	name string
	root *node
	imp  *importer.Import
	used map[string]bool // functions that a sink has
}

func (f *file) at(n *node) importer.Place {
	if n == nil {
		return importer.Place{File: f.name}
	}
	return importer.Place{File: f.name, Line: n.line}
}

func (f *file) find(kind importer.Kind, trigger string, at *node, setting, key, remedy, message string, args ...any) {
	f.imp.Find(importer.Finding{Kind: kind, Trigger: trigger, Place: f.at(at), Setting: setting, Key: key, Message: fmt.Sprintf(message, args...), Remedy: remedy})
}

// named returns the entry of a list with this name, or nil.
func (f *file) named(list, name string) *node {
	for _, n := range f.root.get(list).list() {
		if n.get("name").str() == name {
			return n
		}
	}
	return nil
}

func (f *file) take(o Options) error {
	f.imp.Say("Sequin sends a message until it is accepted, at intervals of up to some three minutes. That is kept: limit: 1000000, max_interval: 3m. " +
		"With a smaller limit an event that keeps failing becomes a dead letter instead.")
	f.imp.Say("Disable each sink there when its triggers are applied here. Until then receivers get each change twice.")
	sinks := f.root.get("sinks").list()
	if len(sinks) == 0 {
		f.find(importer.Note, "", f.root, "sinks", "", "", "are none, so there is nothing to import")
	}
	var databases []string
	for _, n := range sinks {
		if name := n.get("database").str(); !slices.Contains(databases, name) {
			databases = append(databases, name)
		}
	}
	if o.Database != "" && !slices.Contains(databases, o.Database) {
		return &FaultError{fmt.Sprintf("%s has no sinks of a database %q; it has those of %s", f.name, o.Database, cmp.Or(strings.Join(databases, ", "), "none"))}
	}
	for _, n := range sinks {
		if of := n.get("database").str(); o.Database != "" && of != o.Database {
			f.find(importer.Skipped, n.get("name").str(), n, "database", "", "import it into a file of its own by --source "+of, "is %s, and this import is for %s", of, o.Database)
			continue
		}
		f.sink(n)
	}
	if len(databases) > 1 && o.Database == "" {
		f.find(importer.Differs, "", f.root.get("sinks"), "database", "", "import the sinks of each into a file of its own, by --source NAME", "is not the same for all sinks (%s), and a rowhook.yaml is for one database", strings.Join(databases, ", "))
	}
	for _, e := range f.root.entries {
		f.other(e)
	}
	return nil
}

// other names what beside sinks and endpoints stands in a configuration.
func (f *file) other(e entry) {
	switch e.name {
	case "sinks", "http_endpoints":
	case "functions", "transforms":
		for _, n := range e.value.list() {
			if name := n.get("name").str(); !f.used[name] {
				f.find(importer.Note, "", n, e.name, "", "", "has the function %s, which no imported sink uses", name)
			}
		}
	case "databases":
		for _, n := range e.value.list() {
			slot := cmp.Or(n.get("slot_name").str(), n.get("slot").get("name").str(), n.get("slot").str())
			publication := cmp.Or(n.get("publication_name").str(), n.get("publication").get("name").str(), n.get("publication").str())
			what := "the slot nor the publication"
			if slot != "" && publication != "" {
				what = fmt.Sprintf("the slot %s nor the publication %s", slot, publication)
			}
			f.find(importer.Note, "", n, "databases", "", "drop them when nothing of Sequin is left, so that the slot keeps no WAL", "has a database %s: DATABASE_URL leads to it here. Rowhook needs neither %s", n.get("name").str(), what)
		}
	case "account", "users", "api_tokens":
		f.find(importer.Note, "", e.value, e.name, "", "", "is of Sequin's own console and API, and has no counterpart")
	case "change_retentions":
		for _, n := range e.value.list() {
			f.find(importer.Skipped, n.get("name").str(), n, "change_retentions", "", "keep it in Sequin, or write changes to a table by a trigger of your own", "is not imported: it writes changes into a table, and Rowhook sends webhooks")
		}
	default:
		f.find(importer.NotCarried, "", e.value, e.name, "", lookItUp, "is not known to this import")
	}
}

// sink is a sink that is taken over.
type sink struct {
	*file
	n      *node
	name   string
	base   trigger.Spec     // what all its triggers share
	wraps  bool             // messages stand in {"data": [...]}
	path   string           // of a path transform: what of a message is sent; "": all of it
	groups []string         // columns of the key
	code   map[string]value // what the functions filter, transform and routing return

	address     []importer.Piece // the URL of the endpoint, without the path of the sink
	endpointURL func([]importer.Piece) string

	sendsMetadata bool // the body has metadata
}

// sinkFind adds a finding about a sink, which is a comment of each of its triggers.
func (s *sink) sinkFind(kind importer.Kind, at *node, setting, key, remedy, message string, args ...any) {
	s.imp.Find(importer.Finding{Kind: kind, Trigger: s.name, Of: s.name, Place: s.at(at), Setting: setting, Key: key, Message: fmt.Sprintf(message, args...), Remedy: remedy})
}

// handled are the keys of a sink that are looked at one by one.
var handled = []string{
	"name", "database", "table", "tables", "source", "actions", "filters", "filter", "transform", "destination", "status", "batch_size", "group_column_names", "message_grouping",
	"max_retry_count", "initial_backfill", "active_backfill", "annotations", "enrichment", "routing", "timestamp_format", "load_shedding_policy", "schema",
}

func (f *file) sink(n *node) {
	s := &sink{file: f, n: n, name: n.get("name").str(), base: trigger.DefaultSpec(), wraps: true, code: map[string]value{}}
	if s.name == "" {
		s.name = "sink"
	}
	to := n.get("destination")
	if kind := to.get("type").str(); kind != "webhook" {
		f.find(importer.Skipped, s.name, n, "destination.type", "", "keep it in Sequin, or write a receiver that hands on what a webhook brings", "is not imported: it goes to %s, and Rowhook sends webhooks", cmp.Or(kind, "nothing that is named"))
		return
	}
	if !s.endpoint(to) {
		return
	}
	s.source()
	if to.get("batch").str() == "false" {
		s.wraps = false
	}
	s.base.Retry = trigger.Retry{Limit: 1_000_000, Interval: trigger.Duration(time.Second), Backoff: trigger.BackoffExponential, MaxInterval: trigger.Duration(3 * time.Minute)}
	if limit := n.get("max_retry_count"); limit.isSet() {
		if most, err := strconv.Atoi(limit.str()); err == nil && most >= 0 {
			s.base.Retry.Limit = most
		} else {
			s.sinkFind(importer.NotCarried, limit, "max_retry_count", "", "", "is no number")
		}
	}
	s.functions()
	s.rest(to)
	s.add()
}

// endpoint sets URL and headers. It returns false if there is no endpoint.
func (s *sink) endpoint(to *node) bool {
	name := to.get("http_endpoint").str()
	e := s.named("http_endpoints", name)
	if e == nil {
		s.find(importer.Skipped, s.name, to, "destination.http_endpoint", "", "name one of http_endpoints, and import again", "is not imported: there is no endpoint %q in this file", name)
		return false
	}
	var pieces []importer.Piece
	use := func(setting string, n *node) importer.Use {
		return importer.Use{Trigger: s.name, Place: s.at(n), Setting: setting}
	}
	path := s.references("destination.http_endpoint_path", to.get("http_endpoint_path"))
	if url := e.get("url"); url.isSet() {
		var fragment bool
		if pieces, fragment = importer.Cut(s.references("http_endpoints.url", url), "#"); fragment {
			s.sinkFind(importer.Note, url, "http_endpoints.url", "webhook.url", "", "has a part behind a #, which nobody sends; it is left out")
		}
	} else if e.get("host").isSet() {
		pieces = s.fromParts(e)
	} else {
		variable := strings.ToUpper(strings.ReplaceAll(importer.TriggerName(name), "-", "_")) + "_URL"
		pieces = append([]importer.Piece{importer.Ref(s.imp.Refer(variable, use("http_endpoints", e)))}, s.references("http_endpoints.path", e.get("path"))...)
		s.sinkFind(importer.Differs, e, "http_endpoints", "webhook.url", "set "+variable+" to the URL of the receiver, without the path", "has no URL (%s), but Sequin's tunnel or webhook.site", name)
	}
	s.endpointURL = func(pieces []importer.Piece) string {
		return importer.Join(importer.Mixed, s.imp.URLPieces(pieces, use("http_endpoints.url", cmp.Or(e.get("url"), e)))...)
	}
	s.address = pieces
	if len(path) > 0 {
		pieces = joined(slices.Clone(pieces), path)
	}
	s.base.Webhook.URL = s.endpointURL(pieces)
	for _, list := range []string{"headers", "encrypted_headers"} {
		s.headers(list, e.get(list), use)
	}
	for _, other := range e.entries {
		if !slices.Contains([]string{"name", "url", "headers", "encrypted_headers", "local", "path", "webhook.site", "use_local_tunnel", "scheme", "host", "port"}, other.name) {
			s.sinkFind(importer.NotCarried, other.value, "http_endpoints."+other.name, "", lookItUp, "is not known to this import")
		}
	}
	return true
}

// lookItUp is the remedy of what no version that was looked at has.
const lookItUp = "look it up in Sequin's documentation; if the receiver depends on it, say it in the trigger"

// fromParts is the URL of an endpoint that is written as scheme, host, port and path.
func (s *sink) fromParts(e *node) []importer.Piece {
	pieces := []importer.Piece{importer.Text("https://")}
	if scheme := e.get("scheme"); scheme.isSet() {
		pieces = append(s.references("http_endpoints.scheme", scheme), importer.Text("://"))
	}
	pieces = append(pieces, s.references("http_endpoints.host", e.get("host"))...)
	if port := e.get("port"); port.isSet() {
		pieces = append(append(pieces, importer.Text(":")), s.references("http_endpoints.port", port)...)
	}
	if path := e.get("path"); path.isSet() {
		pieces = joined(pieces, s.references("http_endpoints.path", path))
	}
	return pieces
}

// joined puts a path behind that of a URL, with one slash between them. The query of the URL stays
// behind both.
func joined(url, path []importer.Piece) []importer.Piece {
	if before, found := importer.Cut(url, "?"); found {
		_, query, _ := strings.Cut(importer.Plain(url[len(before)-1:len(before)]), "?")
		rest := append([]importer.Piece{importer.Text("?" + query)}, url[len(before):]...)
		if _, has := importer.Cut(path, "?"); has { // that of the path is behind it
			rest[0] = importer.Text("&" + query)
		}
		return append(joined(before, path), rest...)
	}
	last, first := importer.Plain(url[len(url)-1:]), importer.Plain(path[:1])
	if importer.IsText(url[len(url)-1:]) && strings.HasSuffix(last, "/") {
		url[len(url)-1] = importer.Text(strings.TrimRight(last, "/"))
	}
	if importer.IsText(path[:1]) {
		path[0] = importer.Text("/" + strings.TrimLeft(first, "/"))
	} else {
		url = append(url, importer.Text("/"))
	}
	return append(url, path...)
}

// headers takes headers, which are a map, or a list of key and value.
func (s *sink) headers(list string, n *node, use func(string, *node) importer.Use) {
	if !n.isSet() {
		return
	}
	entries := n.entries
	for _, item := range n.items {
		entries = append(entries, entry{item.get("key").str(), item.get("value")})
	}
	for _, e := range entries {
		setting := list + "." + e.name
		if e.name == "" || strings.EqualFold(e.name, "content-type") && strings.EqualFold(e.value.str(), "application/json") {
			continue // as here
		}
		pieces := s.references(setting, e.value)
		switch {
		case !importer.IsText(pieces):
		case list == "encrypted_headers" && !regexp.MustCompile(`(?i)^(bearer|basic|token) `).MatchString(e.value.str()):
			pieces = []importer.Piece{importer.Ref(s.imp.Variable(e.name, e.value.str(), use(setting, e.value)))}
		default:
			pieces = s.imp.HeaderPieces(e.name, e.value.str(), use(setting, e.value))
		}
		s.setHeader(&s.base, e.value, setting, e.name, pieces)
	}
}

// setHeader adds a header to a trigger, unless rowhook.yaml can't have it.
func (s *sink) setHeader(t *trigger.Spec, at *node, setting, name string, pieces []importer.Piece) {
	text := importer.Join(importer.Mixed, pieces...)
	if wrong := importer.InvalidHeader(name, text); wrong != "" {
		s.sinkFind(importer.NotCarried, at, setting, "webhook", "correct it, and import again", "is a header that rowhook.yaml can't have: %s", wrong)
		return
	}
	headers := map[string]string{name: text}
	for other, value := range t.Webhook.Headers {
		if !strings.EqualFold(other, name) {
			headers[other] = value
		}
	}
	t.Webhook.Headers = headers
}

// substitution is a variable as Sequin writes it, which may have a default.
var substitution = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(?::?-([^}]*))?\}`)

// references divides a text at variables.
func (s *sink) references(setting string, n *node) (out []importer.Piece) {
	text := n.str()
	if text == "" {
		return nil
	}
	from := 0
	for _, m := range substitution.FindAllStringSubmatchIndex(text, -1) {
		name := text[m[2]:m[3]]
		if m[4] >= 0 {
			s.sinkFind(importer.Differs, n, setting, "", "set it where the dispatcher runs", "has a default for %s, and a variable has none here", name)
		}
		if m[0] > from {
			out = append(out, importer.Text(text[from:m[0]]))
		}
		out = append(out, importer.Ref(s.imp.Refer(name, importer.Use{Trigger: s.name, Place: s.at(n), Setting: setting})))
		from = m[1]
	}
	if from < len(text) {
		out = append(out, importer.Text(text[from:]))
	}
	return out
}

// tableName writes a name of Sequin, whose parts are as Postgres has them, for rowhook.yaml.
func tableName(name string) string {
	schema, table, found := strings.Cut(name, ".")
	if !found {
		schema, table = "public", name
	}
	return pg.PlainName(schema, table)
}

func inSchema(name string) string { return pg.PlainName(name) + ".*" }

// source sets the tables.
func (s *sink) source() {
	var tables, except []string
	if one := s.n.get("table").str(); one != "" {
		tables = append(tables, tableName(one))
	}
	for _, t := range s.n.get("tables").list() {
		tables = append(tables, tableName(cmp.Or(t.get("name").str(), t.str())))
		if columns := textsOf(t.get("group_column_names")); len(columns) > 0 {
			if len(s.groups) > 0 && !slices.Equal(s.groups, columns) {
				s.sinkFind(importer.Differs, t, "tables.group_column_names", "order", "make triggers of their own for these tables", "is not the same for all tables, and one trigger has one key")
			}
			s.groups = columns
		}
	}
	from := s.n.get("source")
	for _, e := range from.list() {
		for _, part := range e.entries {
			for _, name := range textsOf(part.value) {
				switch part.name {
				case "include_tables", "include_table_names":
					tables = append(tables, tableName(name))
				case "include_schemas":
					tables = append(tables, inSchema(name))
				case "exclude_tables", "exclude_table_names":
					except = append(except, tableName(name))
				case "exclude_schemas":
					except = append(except, inSchema(name))
				default:
					s.sinkFind(importer.NotCarried, part.value, "source."+part.name, "", lookItUp, "is not known to this import")
				}
			}
		}
	}
	if slices.ContainsFunc(from.get("include_tables").list(), (*node).isSet) && len(from.get("include_schemas").list()) > 0 {
		// Both bound what is watched there.
		tables = slices.DeleteFunc(tables, func(t string) bool { return strings.HasSuffix(t, ".*") })
	}
	if one := s.n.get("schema").str(); one != "" {
		tables = append(tables, inSchema(one))
	}
	if len(tables) == 0 {
		tables = []string{"*.*"}
		s.sinkFind(importer.Differs, s.n, "source", "tables", "name the tables that matter", "names no tables, which are all of the publication there, and all of the database here")
	}
	slices.Sort(tables)
	tables = slices.Compact(tables)
	if len(tables) == 1 && !strings.Contains(tables[0], "*") && len(except) == 0 {
		s.base.Table = tables[0]
		return
	}
	s.base.Tables, s.base.Except = tables, except
	s.base.Follow = slices.ContainsFunc(tables, func(t string) bool { return strings.HasSuffix(t, ".*") })
}

func textsOf(n *node) (texts []string) {
	for _, item := range n.list() {
		if t := item.str(); t != "" {
			texts = append(texts, t)
		}
	}
	return texts
}

// functions takes a path transform and code that is one expression, and names other code.
func (s *sink) functions() {
	for _, key := range []string{"transform", "filter", "enrichment", "routing"} {
		n := s.n.get(key)
		name := n.str()
		if name == "" || name == "none" {
			continue
		}
		s.used[name] = true
		f := cmp.Or(s.named("functions", name), s.named("transforms", name))
		in := f
		for _, group := range []string{"function", "transform"} {
			if inner := f.get(group); inner.isSet() {
				in = inner
			}
		}
		if kind, path := in.get("type").str(), in.get("path").str(); key == "transform" && kind == "path" && pathPlaceholder(path) {
			s.path = path
			continue
		}
		what := "is the function " + name + ", which is code of Sequin"
		if f == nil {
			what = "is the function " + name + ", which is not in this file"
		} else if result, ok := parseFunction(in.get("code").str()); ok && key != "enrichment" {
			s.code[key] = result
			continue
		}
		s.lostCode(key, what)
	}
}

// lostCode names a function that is not carried over.
func (s *sink) lostCode(key, what string) {
	remedy := map[string]string{
		"transform": "write the body by hand: docs/requests.md", "filter": "write it as when, an SQL condition on new and old: until then every change is sent",
		"enrichment": "read what is missing in the receiver, or put it into a column", "routing": "write the method, path and headers by hand, with data of the row: docs/requests.md",
	}[key]
	s.sinkFind(importer.NotCarried, s.n.get(key), key, map[string]string{"filter": "when", "transform": "webhook.body"}[key], remedy, "%s", what)
}

// pathPlaceholder reports whether a path transform can be a body here.
func pathPlaceholder(path string) bool {
	head, _, _ := strings.Cut(path, ".")
	return slices.Contains([]string{"record", "changes", "action", "metadata"}, head) && (head != "metadata" || path == "metadata") && (head != "action" || path == "action")
}

// rest looks at the other keys of a sink and of its destination.
func (s *sink) rest(to *node) {
	n := s.n
	if status := n.get("status"); status.isSet() && status.str() != "active" {
		s.sinkFind(importer.NotCarried, status, "status", "", "take the trigger out, or let it record and pause it: rowhook pause --all before the first apply, and rowhook resume for those that are to deliver", "is %s there, and a trigger of rowhook.yaml is active", status.str())
	}
	if size := n.get("batch_size"); size.isSet() && size.str() != "1" {
		s.sinkFind(importer.Differs, size, "batch_size", "", "", "is %s there; each request has one message here, in the same array. batch: {max: %[1]s} would send an array without the member data", size.str())
	}
	for _, key := range []string{"initial_backfill", "active_backfill"} {
		if b := n.get(key); b.isSet() && len(b.list()) > 0 {
			s.sinkFind(importer.NotCarried, b, key, "", "send the rows that are there: rowhook backfill", "sends rows that are there already, which is a command here")
		}
	}
	if format := n.get("timestamp_format"); format.isSet() && format.str() != "iso8601" {
		s.sinkFind(importer.NotCarried, format, "timestamp_format", "", "have the receiver read ISO 8601", "is %s, and times are ISO 8601 here", format.str())
	}
	if policy := n.get("load_shedding_policy"); policy.isSet() {
		s.sinkFind(importer.Note, policy, "load_shedding_policy", "", "", "is about Sequin's memory; events wait in the database here")
	}
	for _, e := range n.entries {
		if !slices.Contains(handled, e.name) && e.value.isSet() {
			s.sinkFind(importer.NotCarried, e.value, e.name, "", lookItUp, "is not known to this import")
		}
	}
	for _, e := range to.entries {
		switch e.name {
		case "type", "http_endpoint", "http_endpoint_path", "batch":
		default:
			s.sinkFind(importer.NotCarried, e.value, "destination."+e.name, "", lookItUp, "is not known to this import")
		}
	}
}

// add adds the triggers of a sink: one for each action. The action stands in small letters in a
// message, and the row of a delete is its record, which one template can't say for all of them.
func (s *sink) add() {
	actions := textsOf(s.n.get("actions"))
	if len(actions) == 0 {
		actions = []string{"insert", "update", "delete"}
	}
	sinkName, group := s.name, s.n.get("message_grouping").str() != "false"
	if columns := textsOf(s.n.get("group_column_names")); len(columns) > 0 {
		s.groups = columns
	}
	var made []string
	for _, action := range actions {
		if !slices.Contains([]string{"insert", "update", "delete"}, action) {
			s.sinkFind(importer.NotCarried, s.n.get("actions"), "actions", "", "", "has %s, which is no change of a row", action)
			continue
		}
		t := s.base
		row := "new"
		switch action {
		case "insert":
			t.On.Insert = true
		case "update":
			t.On.Update = trigger.UpdateOn{Enabled: true}
		case "delete":
			t.On.Delete, row = true, "old"
		}
		m := s.message(action, row)
		if t.When = s.when(row); !s.filter(&t, m) {
			continue
		}
		name := sinkName
		if len(actions) > 1 {
			name = importer.TriggerName(sinkName)
			name = name[:min(len(name), 35)] + "_" + action
		}
		t.Name = s.imp.FreeName(name, "sink")
		t.Webhook.Body = s.body(m)
		if action == "update" && strings.Contains(string(t.Webhook.Body)+t.Webhook.URL, "old") {
			t.Payload.Old = trigger.OldChanged
		}
		s.route(&t, m)
		switch {
		case !group:
		case len(s.groups) > 0:
			t.Order = trigger.Order{By: s.groups}
		default:
			t.Order = trigger.Order{By: []string{trigger.OrderByRow}}
		}
		made = append(made, t.Name)
		s.imp.Add(importer.Trigger{Spec: t, Of: sinkName, Place: s.at(s.n), Comments: []string{fmt.Sprintf("Of the sink %s.", sinkName)}})
	}
	if len(made) == 0 {
		s.find(importer.Skipped, sinkName, s.n, "", "", "remove it there", "is not imported: no change passes")
	}
	s.differences(made)
}

// differences says what of a message is not rebuilt, and what several triggers mean.
func (s *sink) differences(made []string) {
	for i, name := range made {
		if i == 0 && len(made) > 1 {
			s.find(importer.Differs, name, s.n, "actions", "", "where that matters, have the receiver compare metadata.commit_timestamp, or write one trigger with an order and a body of your own",
				"are one sink there and %d triggers here (%s), as the action and the row stand elsewhere in each message: changes of one row arrive in order within a trigger, and not between them", len(made), strings.Join(made, ", "))
		}
		if i == 0 && s.sendsMetadata {
			s.find(importer.Differs, name, s.n, "metadata", "webhook.body", "", "has no commit_lsn, commit_idx, consumer.id, database.id, enrichment and transaction_annotations here; commit_timestamp is the time of the change, and idempotency_key the id of the event, the same at each attempt")
		}
	}
}

// message is what code of the sink is about, for one action.
func (s *sink) message(action, row string) *message {
	name, _ := jsonText(importer.Join(importer.Always, importer.Text(s.n.get("name").str())))
	database, _ := jsonText(importer.Join(importer.Always, importer.Text(s.n.get("database").str())))
	m := &message{action: action, row: row, constant: map[string]string{"database_name": s.n.get("database").str(), "database.name": s.n.get("database").str(), "consumer.name": s.n.get("name").str()}}
	m.metadata = `{"table_schema":"$table.schema","table_name":"$table.name","idempotency_key":"$id","commit_timestamp":"$created_at",` +
		`"consumer":{"name":` + name + `,"annotations":` + annotations(s.n.get("annotations")) + `},"database":{"name":` + database + `}}`
	if schema, table, err := pg.SplitName(s.base.Table); err == nil && s.base.Table != "" {
		m.constant["table_schema"], m.constant["table_name"] = schema, table
	}
	return m
}

// filter adds the condition of a filter function. It returns false if no change of the action passes.
func (s *sink) filter(t *trigger.Spec, m *message) bool {
	code, has := s.code["filter"]
	if !has {
		return true
	}
	sql, ok := m.condition(code, false)
	before := *t
	switch {
	case !ok:
	case sql == always:
		return true
	case sql == never:
		s.sinkFind(importer.Note, s.n.get("filter"), "filter", "", "", "lets no %s pass, so there is no trigger for them", m.action)
		return false
	case t.When != "":
		t.When = "(" + t.When + ") and (" + sql + ")"
	default:
		t.When = sql
	}
	if ok && s.isValid(t) {
		what, kind := "is written as SQL", importer.Note
		if inOrder.MatchString(sql) {
			what, kind = "is written as SQL; a column that is null makes <, >, <= and >= false here, and in Sequin it is greater than each number", importer.Differs
		}
		s.sinkFind(kind, s.n.get("filter"), "filter", "when", "compare it with the function "+s.n.get("filter").str(), "%s", what)
		return true
	}
	*t = before
	s.lostCode("filter", "is the function "+s.n.get("filter").str()+", of which only comparisons of columns with constants can be SQL")
	return true
}

// inOrder matches a comparison that a null does not pass.
var inOrder = regexp.MustCompile(` [<>]=? `)

// isValid reports whether rowhook.yaml can hold a trigger, which has no name yet.
func (s *sink) isValid(t *trigger.Spec) bool {
	probe := *t
	probe.Name = "probe"
	return importer.Invalid(probe) == ""
}

// route sets what a routing function says of the request.
func (s *sink) route(t *trigger.Spec, m *message) {
	code, has := s.code["routing"]
	if !has {
		return
	}
	ok, before := code.kind == mapValue, *t
	for i, v := range code.members {
		switch name := code.names[i]; {
		case name == "method" && v.kind == textValue:
			if t.Webhook.Method = strings.ToUpper(v.text); t.Webhook.Method == trigger.MethodPost {
				t.Webhook.Method = ""
			}
			if t.Webhook.Method == trigger.MethodGet {
				t.Webhook.Body = ""
			}
		case name == "endpoint_path":
			path, readable := m.pieces(v)
			if ok = ok && readable && len(path) > 0; ok {
				t.Webhook.URL = s.endpointURL(joined(slices.Clone(s.address), path))
			}
		case name == "headers" && v.kind == mapValue:
			for at, header := range v.members {
				pieces, readable := m.pieces(header)
				if ok = ok && readable; header.kind == textValue {
					pieces = s.imp.HeaderPieces(v.names[at], importer.Plain(pieces), importer.Use{Trigger: s.name, Place: s.at(s.n.get("routing")), Setting: "routing"})
				}
				s.setHeader(t, s.n.get("routing"), "routing", v.names[at], pieces)
			}
		default:
			ok = false
		}
	}
	if !ok || !s.isValid(t) {
		*t = before
		s.lostCode("routing", "is the function "+s.n.get("routing").str()+", of which only a method, a path and headers with data of the row can be in rowhook.yaml")
	}
}

// body writes the template of a message.
func (s *sink) body(m *message) trigger.Body {
	row, action := m.row, m.action
	changes := `null`
	if action == "update" {
		changes = `"$old"`
	}
	head, rest, _ := strings.Cut(s.path, ".")
	member := func(base string) string {
		raw, err := json.Marshal("${" + dotted(base, rest) + "}")
		if err != nil {
			return `null`
		}
		return string(raw)
	}
	message := `{"record":"$` + row + `","changes":` + changes + `,"action":"` + action + `","metadata":` + m.metadata + `}`
	if code, has := s.code["transform"]; has {
		if text, ok := m.template(code); ok {
			message = text
		} else {
			s.lostCode("transform", "is the function "+s.n.get("transform").str()+", of which only maps, lists and texts of data of the row can be a body")
		}
	}
	switch {
	case head == "record" && rest == "":
		message = `"$` + row + `"`
	case head == "record":
		message = member(row)
	case head == "changes" && (action != "update"):
		message = `null`
	case head == "changes" && rest == "":
		message = `"$old"`
	case head == "changes":
		message = member("old")
	case head == "action":
		message = `"` + action + `"`
	case head == "metadata":
		message = m.metadata
	}
	s.sendsMetadata = s.sendsMetadata || strings.Contains(message, m.metadata)
	if s.wraps {
		message = `{"data":[` + message + `]}`
	}
	return trigger.Body(message)
}

// dotted writes a path of names as a placeholder.
func dotted(base, path string) string {
	for name := range strings.SplitSeq(path, ".") {
		base = importer.Member(base, name)
	}
	return base
}

// annotations writes a map of texts as JSON.
func annotations(n *node) string {
	var parts []string
	if n != nil {
		for _, e := range n.entries {
			name, _ := jsonText(e.name)
			text, _ := jsonText(importer.Join(importer.Always, importer.Text(e.value.str())))
			parts = append(parts, name+":"+text)
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// when writes the filters on columns as a condition on a row.
func (s *sink) when(row string) string {
	var parts []string
	for _, f := range s.n.get("filters").list() {
		column := cmp.Or(f.get("column_name").str(), f.get("column").str())
		if column == "" {
			s.sinkFind(importer.NotCarried, f, "filters", "when", "write it as when", "names no column")
			continue
		}
		what := row + "." + pg.PlainName(column)
		kind := f.get("field_type").str()
		if path := f.get("field_path").str(); path != "" {
			what += " #>> " + literal(pathLiteral(strings.Split(path, ".")))
			part := "(" + row + "." + pg.PlainName(column) + " #> " + literal(pathLiteral(strings.Split(path, "."))) + ")::jsonb"
			switch kind { // a value of another type must not make the write fail
			case "number":
				what = "case when jsonb_typeof(" + part + ") = 'number' then (" + part + " #>> '{}')::numeric end"
			case "boolean":
				what = "case when jsonb_typeof(" + part + ") = 'boolean' then (" + part + " #>> '{}')::boolean end"
			}
			what = "(" + what + ")"
		}
		operator := strings.ToLower(f.get("operator").str())
		value := f.get("comparison_value")
		switch operator {
		case "=", "==", "!=", "<>", ">", ">=", "<", "<=":
			if value == nil || value.isNull {
				s.sinkFind(importer.NotCarried, f, "filters", "when", "write it as when", "compares %s with nothing", column)
				continue
			}
			sql := map[string]string{"==": "=", "!=": "<>"}[operator]
			parts = append(parts, what+" "+cmp.Or(sql, operator)+" "+literal(value.text))
		case "in", "not in":
			var values []string
			for _, v := range value.list() {
				values = append(values, literal(v.text))
			}
			if len(values) == 0 {
				s.sinkFind(importer.NotCarried, f, "filters", "when", "write it as when", "compares %s with no value", column)
				continue
			}
			parts = append(parts, what+" "+operator+" ("+strings.Join(values, ", ")+")")
		case "is null", "is not null":
			parts = append(parts, what+" "+operator)
		default:
			s.sinkFind(importer.NotCarried, f, "filters", "when", "write it as when", "has the operator %q, which is not known to this import", operator)
		}
	}
	return strings.Join(parts, " and ")
}

// literal writes a value for SQL; Postgres gives it the type of what it is compared with.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
