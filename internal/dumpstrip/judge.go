package dumpstrip

import (
	"regexp"
	"strings"
)

// schema is the schema of Rowhook's own objects.
const schema = "rowhook"

type verdict byte

const (
	undecided verdict = iota
	kept
	removed
)

// captureNames matches the names of capture triggers, see sqlschema.sqlTriggerName. It decides
// about statements that name a trigger before its CREATE, such as the DROPs at the beginning of a
// dump.
var (
	captureNames     = regexp.MustCompile(`^rowhook_.+_(insert|update|delete|truncate|guard)$`)
	captureFunctions = regexp.MustCompile(`^capture(_[0-9]+)?$`)
)

// judge decides by the tokens read so far. It returns undecided if it needs more.
func (s *stripper) judge(l *lexer) verdict {
	enough := l.ended || l.count >= mostTokens && !l.whole()
	p := &parser{tokens: l.tokens}
	// Rows come by the million, and their table is at the beginning of the statement.
	rows := (l.first("insert") || l.first("copy")) && l.count >= 6
	if !enough && !rows {
		return undecided
	}
	if s.isRowhooks(p) {
		return removed
	}
	return kept
}

func (s *stripper) isRowhooks(p *parser) bool {
	switch {
	case p.skip("create"):
		return s.creates(p)
	case p.skip("alter"):
		return s.alters(p)
	case p.skip("drop"):
		return s.names(p)
	case p.skip("comment", "on"):
		return s.names(p)
	case p.skip("security", "label"):
		p.seek("on")
		return s.names(p)
	case p.skip("grant"), p.skip("revoke"):
		return p.seek("on") && p.names()
	case p.skip("copy"), p.skip("insert", "into"), p.skip("refresh", "materialized", "view"), p.skip("truncate"), p.skip("analyze"), p.skip("delete", "from"):
		p.any("table", "only", "concurrently")
		return p.ours()
	case p.skip("select"):
		return p.calls()
	}
	return false
}

// kinds are the words that may come before the name of an object, such as TABLE IF NOT EXISTS.
var kinds = []string{
	"or", "replace", "global", "local", "temporary", "temp", "unlogged", "foreign", "recursive", "materialized", "trusted", "procedural",
	"table", "sequence", "view", "function", "procedure", "routine", "aggregate", "type", "domain", "collation", "conversion", "statistics", "text", "search",
	"configuration", "dictionary", "parser", "template", "operator", "class", "family", "index", "schema", "column", "tables", "sequences", "functions",
	"if", "not", "exists", "only", "all", "in", "concurrently", "unique",
}

// creates judges what follows CREATE.
func (s *stripper) creates(p *parser) bool {
	p.any("or", "replace", "constraint", "unique")
	switch {
	case p.skip("event", "trigger"), p.skip("publication"):
		return false
	case p.skip("trigger"):
		name, ok := p.name()
		if !ok || !p.seek("on") {
			return false
		}
		if p.ours() {
			return true
		}
		if !p.seek("execute") {
			return false
		}
		p.any("function", "procedure")
		function, ok := p.ownName()
		if ok && captureFunctions.MatchString(function) {
			s.captures[name] = true
			return true
		}
		return false
	case p.skip("index"):
		return p.seek("on") && p.names()
	case p.skip("policy"):
		return p.seek("on") && p.ours()
	case p.skip("rule"):
		return p.seek("to") && p.ours()
	case p.skip("statistics"):
		return p.names()
	}
	return p.names()
}

// alters judges what follows ALTER.
func (s *stripper) alters(p *parser) bool {
	switch {
	case p.skip("default", "privileges"):
		return p.seek("in") && p.skip("in", "schema") && p.tokens[0].is(schema)
	case p.skip("publication"):
		if _, ok := p.name(); !ok || !p.skip("add") && !p.skip("drop") {
			return false
		}
		if p.skip("tables", "in", "schema") {
			return len(p.tokens) > 0 && p.tokens[0].is(schema)
		}
		p.any("table", "only")
		return p.ours()
	case p.skip("trigger"), p.skip("policy"), p.skip("rule"):
		return s.onTable(p, false)
	case p.at("table"):
		p.any("table", "if", "exists", "only")
		if p.ours() {
			return true
		}
		p.qualified()
		if !p.skip("enable") && !p.skip("disable") {
			return false
		}
		p.any("always", "replica")
		if !p.skip("trigger") {
			return false
		}
		name, ok := p.name()
		return ok && s.isCapture(name)
	}
	return p.names()
}

// names judges what follows DROP, COMMENT ON and SECURITY LABEL ON.
func (s *stripper) names(p *parser) bool {
	switch {
	case p.skip("trigger"):
		return s.onTable(p, true)
	case p.skip("constraint"), p.skip("policy"), p.skip("rule"):
		return s.onTable(p, false)
	}
	return p.names()
}

// onTable judges NAME ON TABLE.
func (s *stripper) onTable(p *parser, trigger bool) bool {
	p.any("if", "exists")
	name, ok := p.name()
	if !ok || !p.skip("on") {
		return false
	}
	p.any("domain")
	return p.ours() || trigger && s.isCapture(name)
}

func (s *stripper) isCapture(name string) bool {
	return s.captures[name] || captureNames.MatchString(name)
}

// parser reads the tokens of a statement from the beginning. tokens are those not read yet.
type parser struct{ tokens []token }

func (p *parser) at(keyword string) bool {
	return len(p.tokens) > 0 && p.tokens[0] == token{word, keyword}
}

// skip skips these keywords if they are next, and reports whether they were.
func (p *parser) skip(keywords ...string) bool {
	if len(p.tokens) < len(keywords) {
		return false
	}
	for i, k := range keywords {
		if p.tokens[i] != (token{word, k}) {
			return false
		}
	}
	p.tokens = p.tokens[len(keywords):]
	return true
}

// any skips all of these keywords, in any order.
func (p *parser) any(keywords ...string) {
	for again := true; again; {
		again = false
		for _, k := range keywords {
			if p.isName() {
				return
			}
			again = p.skip(k) || again
		}
	}
}

// isName reports whether a qualified name is next: a dot follows the token, even if that looks like
// a keyword.
func (p *parser) isName() bool {
	return len(p.tokens) > 1 && p.tokens[1] == token{sign, "."}
}

// seek skips everything up to and including this keyword, outside of parentheses. It does not skip
// the keyword "in", because "in schema" follows. It reports whether it found the keyword.
func (p *parser) seek(keyword string) bool {
	depth := 0
	for i, t := range p.tokens {
		switch {
		case t == token{sign, "("}:
			depth++
		case t == token{sign, ")"}:
			depth--
		case depth == 0 && t == token{word, keyword}:
			p.tokens = p.tokens[i:]
			if keyword != "in" {
				p.tokens = p.tokens[1:]
			}
			return true
		}
	}
	return false
}

// name reads a name without a schema.
func (p *parser) name() (string, bool) {
	if len(p.tokens) == 0 || p.tokens[0].kind != word && p.tokens[0].kind != quoted {
		return "", false
	}
	name := p.tokens[0].text
	p.tokens = p.tokens[1:]
	return name, true
}

// qualified skips a name, with its schema if it has one.
func (p *parser) qualified() {
	_, ok := p.name()
	for ok && len(p.tokens) > 0 && p.tokens[0] == (token{sign, "."}) {
		p.tokens = p.tokens[1:]
		_, ok = p.name()
	}
}

// ours reports whether the next name is in the schema rowhook.
func (p *parser) ours() bool {
	return len(p.tokens) > 2 && p.tokens[0].is(schema) && p.tokens[1] == token{sign, "."}
}

// ownName returns the next name if it is in the schema rowhook.
func (p *parser) ownName() (string, bool) {
	if !p.ours() {
		return "", false
	}
	return p.tokens[2].text, true
}

// names skips kinds, and reports whether the object is in the schema rowhook or is that schema.
func (p *parser) names() bool {
	isSchema := false
	for len(p.tokens) > 0 && !p.isName() {
		k := p.tokens[0]
		if k.kind != word || !isKind(k.text) {
			break
		}
		isSchema = k.text == "schema" || isSchema && (k.text == "if" || k.text == "not" || k.text == "exists")
		p.tokens = p.tokens[1:]
	}
	return p.ours() || isSchema && len(p.tokens) > 0 && p.tokens[0].is(schema)
}

func isKind(name string) bool {
	for _, k := range kinds {
		if k == name {
			return true
		}
	}
	return false
}

// calls judges what follows SELECT: setval for a sequence, and the functions that restore
// statistics.
func (p *parser) calls() bool {
	if p.skip("pg_catalog") {
		p.tokens = p.tokens[min(1, len(p.tokens)):]
		if p.skip("setval") && len(p.tokens) > 1 && p.tokens[1].kind == text {
			return strings.HasPrefix(p.tokens[1].text, schema+".") || strings.HasPrefix(p.tokens[1].text, `"`+schema+`".`)
		}
		return false
	}
	if len(p.tokens) < 5 || p.tokens[0].text != "*" || !strings.HasPrefix(p.tokens[4].text, "pg_restore_") {
		return false
	}
	for i, t := range p.tokens {
		if t == (token{text, "schemaname"}) && i+2 < len(p.tokens) {
			return p.tokens[i+2].text == schema
		}
	}
	return false
}
