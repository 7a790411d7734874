// Package hasura reads event triggers of Hasura's metadata for an import: directories of the versions 2
// and 3, exported JSON and YAML, and calls of the metadata API. It follows includes only, reads nothing
// outside of the directory that it is given, and names each setting that it does not carry over.
package hasura

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/trigger"
)

// Options say what to import.
type Options struct {
	// Source is the name of the source (database) whose triggers are imported. "": the first one of
	// Postgres that has triggers. One rowhook.yaml is for one database.
	Source string
}

// IsFault reports whether an error is a mistake in what is imported, rather than a failure to read it.
func IsFault(err error) bool {
	_, ok := errors.AsType[*faultError](err)
	return ok
}

// Path imports a directory or a file.
func Path(at string, o Options) (*importer.Import, error) {
	info, err := os.Stat(at)
	if err != nil {
		return nil, cantRead(importer.Place{File: at}, err)
	}
	dir, file := at, ""
	if !info.IsDir() {
		dir, file = filepath.Split(at)
		dir = cmp.Or(dir, ".")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, cantRead(importer.Place{File: at}, err)
	}
	defer root.Close()
	l := newLoader(root, filepath.Clean(dir))
	if l.name == "." {
		l.name = ""
	}
	if file == "" {
		n, what, err := l.directory()
		if err != nil {
			return nil, err
		}
		return run(l, n, fmt.Sprintf("Hasura's metadata (%s, %s)", at, what), o)
	}
	f, err := os.Open(at) // the file that the user names; includes go through the root
	if err != nil {
		return nil, cantRead(importer.Place{File: at}, err)
	}
	defer f.Close()
	n, err := l.read(importer.Place{File: at}, ".", f)
	if err != nil {
		return nil, err
	}
	return run(l, n, fmt.Sprintf("Hasura's metadata (%s)", at), o)
}

// Read imports a file from r. name stands for its path in messages. It can't include others.
func Read(name string, r io.Reader, o Options) (*importer.Import, error) {
	l := newLoader(nil, "")
	n, err := l.read(importer.Place{File: name}, "", r)
	if err != nil {
		return nil, err
	}
	return run(l, n, fmt.Sprintf("Hasura's metadata (%s)", name), o)
}

func run(l *loader, n *node, from string, o Options) (*importer.Import, error) {
	r := &reader{loader: l, imp: importer.New(from), options: o}
	r.imp.Say("A failed event is tried num_retries times more, at a fixed interval, as Hasura does it. With breaker: off that is so while its endpoint fails, too. " +
		"Without that line, Rowhook holds the events of an endpoint that fails, instead of using up their attempts.")
	if err := r.document(n); err != nil {
		return nil, err
	}
	return r.imp, nil
}

// reader turns metadata into triggers.
type reader struct {
	*loader
	imp     *importer.Import
	options Options
}

// source is a database of the metadata.
type source struct {
	name, kind string
	place      importer.Place
	tables     []table
}

type table struct {
	schema, name string
	node         *node
	triggers     []*node
	inconsistent string // why the name can't be read; "": it can
}

// document finds the sources in what is imported, whatever it is.
func (r *reader) document(n *node) error {
	n, err := r.resolve(n)
	if err != nil {
		return err
	}
	switch {
	case !n.isSet():
		return fault(n.where(), "is empty; export the metadata again")
	case n.kind == list && n.firstHas("type"):
		return r.calls(n.items)
	case n.kind == list && n.firstHas("table"):
		return r.sources([]source{r.one(n)})
	case n.kind == list:
		return r.read3(n)
	case n.kind != group:
		return r.notMetadata(n)
	case n.get("metadata").isSet():
		r.unknown(n, "metadata", "resource_version", "is_consistent", "inconsistent_objects")
		return r.document(n.get("metadata"))
	case n.get("sources") != nil:
		r.others(n)
		return r.read3(n.get("sources"))
	case n.get("tables") != nil && n.get("kind") != nil:
		return r.read3(&node{kind: list, items: []*node{n}, place: n.place, dir: n.dir})
	case n.get("tables") != nil:
		r.others(n)
		return r.sources([]source{r.one(n.get("tables"))})
	case n.get("table") != nil:
		return r.sources([]source{r.one(&node{kind: list, items: []*node{n}, place: n.place, dir: n.dir})})
	case n.get("type") != nil && n.get("args") != nil:
		return r.calls([]*node{n})
	}
	return r.notMetadata(n)
}

func (n *node) where() importer.Place {
	if n == nil {
		return importer.Place{}
	}
	return n.place
}

func (r *reader) notMetadata(n *node) error {
	return fault(importer.Place{File: n.place.File}, "is not Hasura's metadata: it has no sources, tables or call of the metadata API; "+
		"give the directory that hasura metadata export writes, or exported JSON")
}

func (n *node) firstHas(key string) bool {
	return len(n.items) > 0 && n.items[0].get(key) != nil
}

// one is the only source of metadata of the versions 1 and 2. Its tables are read by sources.
func (r *reader) one(tables *node) source {
	return source{name: "default", kind: "postgres", place: tables.place, tables: []table{{node: tables}}}
}

// read3 reads the sources of metadata of version 3.
func (r *reader) read3(n *node) error {
	items, err := r.items(n, "sources")
	if err != nil {
		return err
	}
	var all []source
	for _, item := range items {
		if item.kind != group || item.get("tables") == nil && item.get("configuration") == nil && item.get("kind") == nil {
			return r.notMetadata(item)
		}
		s := source{name: cmp.Or(item.get("name").scalar(), "default"), kind: strings.ToLower(cmp.Or(item.get("kind").scalar(), "postgres")), place: item.place}
		if tables := item.get("tables"); tables.isSet() {
			s.tables = []table{{node: tables}}
		}
		r.unknown(item, "name", "kind", "tables", "configuration", "functions", "customization", "native_queries", "stored_procedures", "logical_models",
			"query_tags", "health_check", "event_trigger_cleanup")
		all = append(all, s)
	}
	return r.sources(all)
}

// postgres are the kinds of sources that are Postgres, or speak its protocol with its triggers.
var postgres = []string{"postgres", "pg", "citus", "alloydb", "cockroach"}

// sources reads the tables of all sources, and imports the triggers of one of them.
func (r *reader) sources(all []source) error {
	for i := range all {
		if len(all[i].tables) == 0 {
			continue
		}
		var err error
		if all[i].tables, err = r.tables(all[i].tables[0].node); err != nil {
			return err
		}
	}
	return r.importSources(all)
}

func (s *source) hasTriggers() bool {
	return slices.ContainsFunc(s.tables, func(t table) bool { return len(t.triggers) > 0 })
}

func (r *reader) importSources(all []source) error {
	chosen := slices.IndexFunc(all, func(s source) bool {
		if r.options.Source != "" {
			return s.name == r.options.Source
		}
		return slices.Contains(postgres, s.kind) && s.hasTriggers()
	})
	if chosen < 0 && r.options.Source != "" {
		names := make([]string, len(all))
		for i, s := range all {
			names[i] = s.name
		}
		return fault(importer.Place{File: cmp.Or(r.name, "the metadata")}, "has no source %q; it has %s", r.options.Source, strings.Join(names, ", "))
	}
	for i, s := range all {
		isPostgres := slices.Contains(postgres, s.kind)
		if i == chosen && isPostgres {
			r.importSource(s)
			continue
		}
		for _, t := range s.tables {
			for _, n := range t.triggers {
				f := importer.Finding{Kind: importer.Skipped, Trigger: n.get("name").scalar(), Place: n.place, Setting: "source " + s.name,
					Message: "is another database, and a rowhook.yaml is for one", Remedy: fmt.Sprintf("import it into a file of its own by --source %s", s.name)}
				if !isPostgres {
					f.Message, f.Remedy = fmt.Sprintf("is of the kind %s, and Rowhook works on Postgres", s.kind), "keep the trigger in Hasura"
				}
				r.imp.Find(f)
			}
		}
	}
	return nil
}

func (r *reader) importSource(s source) {
	if s.kind == "citus" || s.kind == "cockroach" || s.kind == "alloydb" {
		f := importer.Finding{Kind: importer.Note, Place: s.place, Setting: "source " + s.name, Message: "is of the kind " + s.kind + ", and Rowhook is tested on PostgreSQL"}
		switch s.kind {
		case "citus":
			f.Remedy = "distributed tables can't have its triggers: watch local and reference tables, and see what rowhook apply --dry-run says"
		case "cockroach":
			f.Kind, f.Remedy = importer.Differs, "CockroachDB has no LISTEN and NOTIFY, so Rowhook does not run on it: keep its triggers in Hasura"
		default:
			f.Remedy = "see what rowhook apply --dry-run says"
		}
		r.imp.Find(f)
	}
	for _, t := range s.tables {
		for _, n := range t.triggers {
			r.trigger(n, t)
		}
	}
}

// tables reads the tables of a source, and the triggers of each.
func (r *reader) tables(n *node) ([]table, error) {
	items, err := r.items(n, "tables")
	if err != nil {
		return nil, err
	}
	var all []table
	for _, item := range items {
		if item.kind != group {
			return nil, fault(item.place, "is no table of Hasura's metadata; is this the right file?")
		}
		t := table{node: item}
		name, err := r.deep(item.get("table"))
		if err != nil {
			return nil, err
		}
		t.schema, t.name, t.inconsistent = tableName(name)
		if t.triggers, err = r.items(item.get("event_triggers"), "event triggers"); err != nil {
			return nil, err
		}
		for i := range t.triggers {
			if t.triggers[i], err = r.deep(t.triggers[i]); err != nil {
				return nil, err
			}
		}
		if len(t.triggers) > 0 {
			r.unknown(item, "table", "event_triggers", "configuration", "is_enum", "object_relationships", "array_relationships", "computed_fields",
				"remote_relationships", "insert_permissions", "select_permissions", "update_permissions", "delete_permissions", "apollo_federation_config", "logical_model", "comment")
		}
		all = append(all, t)
	}
	return all, nil
}

// tableName reads the name of a table: a text in the schema public, {schema, name}, or [schema, name].
func tableName(n *node) (schema, name, wrong string) {
	schema = "public"
	switch {
	case n.isScalar():
		name = n.text
	case n == nil:
		return "", "", "has no table"
	case n.kind == group:
		name = n.get("name").scalar()
		schema = cmp.Or(n.get("schema").scalar(), schema)
		for _, e := range n.entries {
			if e.name != "schema" && e.name != "name" && e.value.isSet() {
				return "", "", fmt.Sprintf("has a table with %q, which Postgres does not have", e.name)
			}
		}
	case n.kind == list && len(n.items) == 1:
		name = n.items[0].scalar()
	case n.kind == list && len(n.items) == 2:
		schema, name = n.items[0].scalar(), n.items[1].scalar()
	}
	if name == "" || schema == "" {
		return "", "", "has a table whose name can't be read"
	}
	return schema, name, ""
}

// unknown notes the keys of a group that nothing is known of.
func (r *reader) unknown(n *node, known ...string) {
	for _, e := range n.entries {
		if !slices.Contains(known, e.name) {
			r.imp.Find(importer.Finding{Kind: importer.Note, Place: e.place, Setting: e.name,
				Message: "is a key that this import does not know, and it is not carried over", Remedy: "see whether it matters for event triggers"})
		}
	}
}

// others notes what metadata have besides tables that calls webhooks.
func (r *reader) others(n *node) {
	r.unknown(n, "version", "sources", "tables", "functions", "remote_schemas", "query_collections", "allowlist", "actions", "custom_types", "cron_triggers",
		"inherited_roles", "rest_endpoints", "api_limits", "graphql_schema_introspection", "network", "metrics_config", "opentelemetry", "backend_configs",
		"domain", "tls_allowlist", "schema_registry", "telemetry")
	r.schedules(n.get("cron_triggers"))
}

// schedules notes cron triggers, which Rowhook does not have.
func (r *reader) schedules(n *node) {
	crons, err := r.items(n, "cron triggers")
	if err != nil {
		return // it is no part of what is imported
	}
	for _, cron := range crons {
		r.imp.Find(importer.Finding{Kind: importer.Note, Place: cron.place, Setting: "cron trigger " + cron.get("name").scalar(),
			Message: "is a schedule and no change of a table, so it is not imported", Remedy: "keep it in Hasura, or use pg_cron or the cron of your platform"})
	}
}

// calls reads calls of the metadata API.
func (r *reader) calls(calls []*node) error {
	type entry struct {
		source, kind string
		table        table
	}
	var made []entry
	var walk func(calls []*node, depth int) error
	walk = func(calls []*node, depth int) error {
		for _, call := range calls {
			call, err := r.resolve(call)
			if err != nil {
				return err
			}
			args, err := r.deep(call.get("args"))
			if err != nil {
				return err
			}
			what := call.get("type").scalar()
			switch backend, action := cutBackend(what); {
			case depth > mostNested:
				return fault(call.place, "is nested too deep")
			case strings.HasSuffix(what, "bulk") || what == "bulk_keep_going" || what == "bulk_atomic" || what == "concurrent_bulk":
				if args != nil && args.kind == list {
					if err := walk(args.items, depth+1); err != nil {
						return err
					}
				}
			case what == "replace_metadata":
				metadata := args
				if args.get("metadata").isSet() {
					metadata = args.get("metadata")
				}
				if len(calls) > 1 {
					r.imp.Find(importer.Finding{Kind: importer.Note, Place: call.place, Setting: what, Message: "stands among other calls, which are not imported", Remedy: "import them by themselves"})
				}
				return r.document(metadata)
			case action == "create_event_trigger":
				t := table{node: call}
				t.schema, t.name, t.inconsistent = tableName(args.get("table"))
				t.triggers = []*node{flat(args, call.place)}
				made = append(made, entry{cmp.Or(args.get("source").scalar(), "default"), backend, t})
			case action == "delete_event_trigger":
				name := args.get("name").scalar()
				made = slices.DeleteFunc(made, func(e entry) bool { return e.table.triggers[0].get("name").scalar() == name })
			default:
				r.imp.Find(importer.Finding{Kind: importer.Note, Place: call.place, Setting: cmp.Or(what, "a call without a type"), Message: "is a call that makes no event trigger, so it is not imported"})
			}
		}
		return nil
	}
	if err := walk(calls, 0); err != nil || len(made) == 0 {
		return err
	}
	var all []source
	for _, e := range made {
		at := slices.IndexFunc(all, func(s source) bool { return s.name == e.source && s.kind == e.kind })
		if at < 0 {
			at = len(all)
			all = append(all, source{name: e.source, kind: e.kind, place: e.table.node.place})
		}
		name := e.table.triggers[0].get("name").scalar()
		replaces := e.table.triggers[0].get("replace").scalar() == "true"
		if replaces {
			all[at].tables = slices.DeleteFunc(all[at].tables, func(t table) bool { return t.triggers[0].get("name").scalar() == name })
		}
		all[at].tables = append(all[at].tables, e.table)
	}
	return r.importSources(all)
}

// cutBackend divides pg_create_event_trigger into the kind of the source and what it does.
func cutBackend(call string) (kind, action string) {
	for _, k := range []string{"pg", "postgres", "citus", "cockroach", "alloydb", "mssql", "bigquery"} {
		if rest, ok := strings.CutPrefix(call, k+"_"); ok {
			if k == "pg" {
				k = "postgres"
			}
			return k, rest
		}
	}
	return "postgres", call
}

// flat gives the arguments of a call the form of a trigger in metadata: operations stand in definition
// there.
func flat(args *node, place importer.Place) *node {
	out := &node{kind: group, place: place}
	if args == nil {
		return out
	}
	definition := &node{kind: group, place: args.place}
	for _, e := range args.entries {
		switch e.name {
		case "insert", "update", "delete", "enable_manual":
			definition.entries = append(definition.entries, e)
		default:
			out.entries = append(out.entries, e)
		}
	}
	out.entries = append(out.entries, entry{"definition", args.place, definition})
	return out
}

// fixedSpec is a trigger that is retried as Hasura retries.
func fixedSpec() trigger.Spec {
	s := trigger.DefaultSpec()
	s.Retry.Limit, s.Retry.Backoff, s.Breaker = 0, trigger.BackoffFixed, trigger.BreakerOff
	return s
}
