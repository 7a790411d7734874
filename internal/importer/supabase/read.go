package supabase

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/pg"
)

// table is a table's name.
type table struct{ schema, name string }

func (t table) String() string { return pg.PlainName(t.schema, t.name) }

// hook is a trigger as SQL text makes it.
type hook struct {
	name      string
	table     table
	noSchema  bool // the text names the table alone
	timing    string
	events    []string // insert, update, delete, truncate
	columns   []string // of update of
	each      bool     // for each row
	deferred  bool     // a constraint trigger
	when      string
	function  table
	arguments []token
	place     importer.Place
	disabled  string // how it was disabled; "": it is enabled
	always    bool   // it fires for replicated changes, too
	within    bool   // it stands in a block of code, which may not run
}

// key is what makes a trigger the same as another one.
func (h *hook) key() string { return h.table.String() + " " + h.name }

// call is a function that sends requests by itself.
type call struct {
	place importer.Place
	how   string // the function that it calls, as in net.http_post
	used  bool   // a trigger runs it
}

// reader follows the statements of files in their order.
type reader struct {
	hooks  []*hook
	calls  map[string]*call // functions that send requests by themselves
	issues []importer.Finding

	definition bool // the text is of one object of a database
}

var (
	byHand = regexp.MustCompile(`(?i)\b((?:net|extensions)\s*\.\s*http_(?:post|get|delete|put|patch|request)|http_(?:post|get|put|delete|patch)|extensions\s*\.\s*http)\s*\(`)
	makes  = regexp.MustCompile(`(?i)\bcreate\s+(?:or\s+replace\s+)?(?:constraint\s+)?trigger\b`)
	sends  = regexp.MustCompile(`(?i)\bsupabase_functions\b`)
)

// text reads SQL.
func (r *reader) text(file, src string) {
	for _, tokens := range statements(src, 1) {
		r.statement(file, src, tokens, false)
	}
}

func (r *reader) find(f importer.Finding) { r.issues = append(r.issues, f) }

// statement takes up what a statement does to triggers, functions and tables.
func (r *reader) statement(file, src string, tokens []token, within bool) {
	p := &parser{src: src, all: tokens}
	at := importer.Place{File: file, Line: tokens[0].line}
	if r.definition {
		at.Line = 0
	}
	switch {
	case p.take("create"):
		r.create(p, at, within)
	case p.take("drop", "trigger"):
		p.take("if", "exists")
		name, _ := p.name()
		if p.take("on") {
			if of, _, ok := r.tableName(p); ok {
				r.hooks = slices.DeleteFunc(r.hooks, func(h *hook) bool { return h.name == name && h.table == of })
			}
		}
	case p.take("drop", "table"):
		p.take("if", "exists")
		for {
			of, _, ok := r.tableName(p)
			if !ok {
				break
			}
			r.hooks = slices.DeleteFunc(r.hooks, func(h *hook) bool { return h.table == of })
			if !p.take(",") {
				break
			}
		}
	case p.take("alter", "trigger"):
		r.renameTrigger(p)
	case p.take("alter", "table"):
		r.alterTable(p)
	case p.take("do"):
		r.block(file, tokens)
	case p.take("select"), p.take("perform"), p.take("call"):
		r.scheduled(at, src, tokens)
	}
}

// block reads the statements in a DO block. Whether they run can't be told.
func (r *reader) block(file string, tokens []token) {
	for _, t := range tokens {
		if t.kind != body {
			continue
		}
		for _, inner := range statements(t.text, t.line) {
			// In front of a statement there may be BEGIN, IF ... THEN or ELSE.
			if i := slices.IndexFunc(inner, func(t token) bool { return t.is("create") || t.is("drop") || t.is("alter") }); i >= 0 {
				r.statement(file, t.text, inner[i:], true)
			}
		}
		for _, inner := range statements(t.text, t.line) {
			for _, s := range inner {
				if (s.kind == text || s.kind == body) && makes.MatchString(s.text) && sends.MatchString(s.text) {
					r.find(importer.Finding{Kind: importer.Skipped, Place: importer.Place{File: file, Line: s.line}, Setting: "execute",
						Message: "makes a trigger on supabase_functions.http_request from a text, which is known when it runs alone", Remedy: "import from the database instead, where the trigger is"})
				}
			}
		}
	}
}

// scheduled names requests that no change of a row causes.
func (r *reader) scheduled(at importer.Place, src string, tokens []token) {
	source := sourceOf(src, tokens)
	m := byHand.FindStringSubmatch(source)
	if m == nil {
		return
	}
	what := "sends a request by " + compact(m[1])
	if strings.Contains(strings.ToLower(source), "cron.schedule") {
		what += ", on a schedule of pg_cron"
	}
	r.find(importer.Finding{Kind: importer.Note, Place: at, Message: what + ", which no change of a row causes, and stays as it is"})
}

func compact(s string) string { return strings.ToLower(strings.Join(strings.Fields(s), "")) }

func (r *reader) create(p *parser, at importer.Place, within bool) {
	p.take("or", "replace")
	constraint := p.take("constraint")
	switch {
	case p.take("trigger"):
		r.trigger(p, at, constraint, within)
	case p.take("function"):
		r.function(p, at)
	}
}

// function remembers a function that sends requests by itself.
func (r *reader) function(p *parser, at importer.Place) {
	schema, name, ok := p.qualified()
	if !ok || schema == "supabase_functions" || schema == "net" {
		return
	}
	for _, t := range p.all[p.at:] {
		if t.kind != body && t.kind != text {
			continue
		}
		if m := byHand.FindStringSubmatch(withoutComments(t.text)); m != nil {
			r.calls[functionKey(schema, name)] = &call{place: at, how: compact(m[1])}
			return
		}
	}
	delete(r.calls, functionKey(schema, name)) // replaced by one that sends nothing
}

// functionKey names a function. Without a schema it is taken to be in public.
func functionKey(schema, name string) string {
	if schema == "" {
		schema = "public"
	}
	return pg.PlainName(schema, name)
}

// withoutComments returns the tokens of code as one text.
func withoutComments(src string) string {
	var out []string
	for _, tokens := range statements(src, 1) {
		out = append(out, sourceOf(src, tokens))
	}
	return strings.Join(out, "; ")
}

// tableName reads the name of a table. Without a schema it is taken to be in public, as Supabase's
// editor and migrations do.
func (r *reader) tableName(p *parser) (t table, noSchema, ok bool) {
	p.take("if", "exists")
	p.take("only")
	schema, name, ok := p.qualified()
	if schema == "" {
		schema, noSchema = "public", true
	}
	return table{schema, name}, noSchema, ok
}

// trigger reads the rest of CREATE TRIGGER.
func (r *reader) trigger(p *parser, at importer.Place, constraint, within bool) {
	h := &hook{place: at, deferred: constraint, within: within}
	var ok bool
	if h.name, ok = p.name(); !ok {
		return
	}
	unread := func(what string) {
		if sends.MatchString(sourceOf(p.src, p.all)) {
			r.find(importer.Finding{Kind: importer.Skipped, Trigger: h.name, Place: at, Message: "is not imported, because its statement can't be read (" + what + ")", Remedy: "write the trigger by hand, or import from the database"})
		}
	}
	switch {
	case p.take("before"):
		h.timing = "before"
	case p.take("after"):
		h.timing = "after"
	case p.take("instead", "of"):
		h.timing = "instead of"
	default:
		unread("BEFORE or AFTER is missing")
		return
	}
	for {
		event, _ := p.name()
		h.events = append(h.events, event)
		if event == "update" && p.take("of") {
			for {
				column, _ := p.name()
				h.columns = append(h.columns, column)
				if !p.take(",") {
					break
				}
			}
		}
		if !p.take("or") {
			break
		}
	}
	if !p.take("on") {
		unread("ON is missing")
		return
	}
	if h.table, h.noSchema, ok = r.tableName(p); !ok {
		unread("the table is missing")
		return
	}
	for p.more() {
		switch {
		case p.take("for", "each", "row"), p.take("for", "row"):
			h.each = true
		case p.take("when"):
			inner, ok := p.parenthesized()
			if !ok {
				unread("WHEN has no end")
				return
			}
			h.when = sourceOf(p.src, inner)
		case p.take("execute", "function"), p.take("execute", "procedure"):
			schema, name, ok := p.qualified()
			h.function = table{schema, name}
			h.arguments, _ = p.parenthesized()
			if !ok {
				unread("the function is missing")
				return
			}
			r.put(h)
			return
		default:
			p.at++ // deferrable, referencing, for each statement
		}
	}
	unread("EXECUTE FUNCTION is missing")
}

// put adds a trigger, or replaces the one of the same name on the same table.
func (r *reader) put(h *hook) {
	i := slices.IndexFunc(r.hooks, func(o *hook) bool { return o.key() == h.key() })
	if i < 0 {
		r.hooks = append(r.hooks, h)
		return
	}
	before := r.hooks[i]
	r.hooks = append(slices.Delete(r.hooks, i, i+1), h)
	if before.isWebhook() {
		r.find(importer.Finding{Kind: importer.Note, Trigger: h.name, Place: before.place, Message: fmt.Sprintf("is made again at %s, and the last one counts: what the earlier one did (%s) is not done any more", h.place, before.operations())})
	}
}

// isWebhook reports whether a trigger is a database webhook of Supabase.
func (h *hook) isWebhook() bool {
	return h.function.name == "http_request" && (h.function.schema == "supabase_functions" || h.function.schema == "")
}

// operations names the operations for people.
func (h *hook) operations() string { return strings.Join(h.events, ", ") }

// renameTrigger reads the rest of ALTER TRIGGER ... RENAME TO.
func (r *reader) renameTrigger(p *parser) {
	name, _ := p.name()
	if !p.take("on") {
		return
	}
	of, _, _ := r.tableName(p)
	if !p.take("rename", "to") {
		return
	}
	to, ok := p.name()
	for _, h := range r.hooks {
		if ok && h.name == name && h.table == of {
			h.name = to
		}
	}
}

// alterTable follows what renames a table and what disables triggers.
func (r *reader) alterTable(p *parser) {
	of, _, ok := r.tableName(p)
	if !ok {
		return
	}
	for p.more() {
		switch {
		case p.take("rename", "to"):
			if to, ok := p.name(); ok {
				r.each(of, "", func(h *hook) { h.table.name = to })
			}
			return
		case p.take("set", "schema"):
			if to, ok := p.name(); ok {
				r.each(of, "", func(h *hook) { h.table.schema = to })
			}
			return
		case p.take("disable", "trigger"):
			name, _ := p.name()
			r.each(of, name, func(h *hook) { h.disabled, h.always = "is disabled", false })
		case p.take("enable", "replica", "trigger"):
			name, _ := p.name()
			r.each(of, name, func(h *hook) { h.disabled, h.always = "fires for replicated changes only (ENABLE REPLICA)", false })
		case p.take("enable", "always", "trigger"):
			name, _ := p.name()
			r.each(of, name, func(h *hook) { h.disabled, h.always = "", true })
		case p.take("enable", "trigger"):
			name, _ := p.name()
			r.each(of, name, func(h *hook) { h.disabled, h.always = "", false })
		default:
			p.at++
		}
	}
}

// each calls f for the triggers of a table with this name; "", all and user are all of them.
func (r *reader) each(of table, name string, f func(*hook)) {
	for _, h := range r.hooks {
		if h.table == of && (name == "" || name == "all" || name == "user" || h.name == name) {
			f(h)
		}
	}
}
