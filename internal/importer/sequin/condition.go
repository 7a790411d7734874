package sequin

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/importer"
	"github.com/rowhook/rowhook/internal/pg"
)

// message is what code of Sequin is about, for the trigger of one action.
type message struct {
	action   string // insert, update or delete
	row      string // new or old: the record
	constant map[string]string
	metadata string // a template of all metadata
}

// The conditions that are known.
const always, never = "true", "false"

func constant(yes bool) string {
	if yes {
		return always
	}
	return never
}

// condition returns an expression as a condition in SQL, always or never. It is neither true nor false
// for null only where that is as good as false: not behind a not.
func (m *message) condition(v value, negated bool) (string, bool) {
	switch {
	case v.kind == wordValue && (v.text == always || v.text == never):
		return v.text, true
	case v.kind == pathValue:
		return m.compare("=", v, value{kind: wordValue, text: "true"}, negated)
	case v.kind != appliedTerm:
		return "", false
	}
	switch v.text {
	case "not":
		inner, ok := m.condition(v.members[0], true)
		switch inner {
		case always, never:
			return constant(inner == never), ok
		}
		return "not (" + inner + ")", ok
	case "and", "or":
		return m.both(v, negated)
	case "is_nil":
		if len(v.members) == 1 {
			return m.compare("=", v.members[0], value{kind: wordValue, text: "nil"}, negated)
		}
	case "Map.has_key?":
		if len(v.members) == 2 && v.members[0].kind == pathValue && v.members[0].text == "changes" && len(v.members[0].names) == 0 && v.members[1].kind == textValue {
			if m.action != "update" {
				return never, true
			}
			return changed(pg.PlainName(v.members[1].text)), true
		}
	case "in":
		return m.among(v, negated)
	case "=", "<>", "<", ">", "<=", ">=":
		left, right, operator := v.members[0], v.members[1], v.text
		if left.kind != pathValue {
			left, right = right, left
			if turned := map[string]string{"<": ">", ">": "<", "<=": ">=", ">=": "<="}[operator]; turned != "" {
				operator = turned
			}
		}
		return m.compare(operator, left, right, negated)
	}
	return "", false
}

func (m *message) both(v value, negated bool) (string, bool) {
	left, ok := m.condition(v.members[0], negated)
	right, also := m.condition(v.members[1], negated)
	decides := never // of an and
	if v.text == "or" {
		decides = always
	}
	switch {
	case left == decides || right == decides:
		return decides, ok && also
	case left == always || left == never:
		return right, ok && also
	case right == always || right == never:
		return left, ok && also
	}
	return grouped(v.members[0], v.text, left) + " " + v.text + " " + grouped(v.members[1], v.text, right), ok && also
}

// grouped puts brackets around a condition that binds weaker than the operator.
func grouped(v value, operator, sql string) string {
	if operator == "and" && v.kind == appliedTerm && v.text == "or" {
		return "(" + sql + ")"
	}
	return sql
}

func changed(column string) string { return "new." + column + " is distinct from old." + column }

// compare compares a path with a constant.
func (m *message) compare(operator string, path, with value, negated bool) (string, bool) {
	if path.kind != pathValue || with.kind != wordValue && with.kind != textValue {
		return "", false
	}
	isNil, ordered := with.kind == wordValue && with.text == "nil", operator != "=" && operator != "<>"
	if ordered && (with.kind == textValue || isNil || with.text == always || with.text == never) {
		return "", false // Elixir compares texts by their bytes, and values of all types with each other
	}
	if known, ok := m.known(path); ok {
		switch {
		case ordered:
			return "", false
		case known == "": // nil
			return constant(isNil == (operator == "=")), true
		}
		return constant((with.kind == textValue && known == with.text) == (operator == "=")), true
	}
	if len(path.names) == 0 {
		return constant(operator == "<>"), isNil && path.text == "changes"
	}
	switch path.text {
	case "record":
		return compared(m.row, path.names, operator, with, negated), true
	case "changes":
		if ordered || len(path.names) > 1 {
			return "", false
		}
		// A column that did not change is not in changes, and so is nil there.
		is := changed(pg.PlainName(path.names[0])) + " and " + compared("old", path.names, "=", with, true)
		if isNil {
			is = changed(pg.PlainName(path.names[0])) + " and " + compared("old", path.names, "<>", with, true)
			operator = map[string]string{"=": "<>", "<>": "="}[operator]
		}
		if operator == "=" {
			return "(" + is + ")", true
		}
		return "not (" + is + ")", true
	}
	return "", false
}

// known returns the text of a path that is the same for all events of the trigger; "" is nil.
func (m *message) known(path value) (string, bool) {
	switch {
	case path.text == "action" && len(path.names) == 0:
		return m.action, true
	case path.text == "changes" && m.action != "update":
		return "", true
	case path.text == "metadata":
		text, ok := m.constant[strings.Join(path.names, ".")]
		return text, ok
	}
	return "", false
}

// compared writes a comparison of a column, or of a part of a JSON column.
func compared(row string, names []string, operator string, with value, negated bool) string {
	what, to := row+"."+pg.PlainName(names[0]), with.text
	if with.kind == textValue {
		to = literal(with.text)
	}
	if len(names) > 1 {
		// As jsonb, no value makes the write fail, whatever its type is.
		raw, err := json.Marshal(with.text)
		if with.kind == wordValue {
			raw, err = []byte(strings.Replace(with.text, "nil", "null", 1)), nil
		}
		if err != nil {
			raw = []byte("null")
		}
		what, to = "("+what+" #> "+literal(pathLiteral(names[1:]))+")::jsonb", literal(string(raw))
		if operator != "=" && operator != "<>" {
			return "(jsonb_typeof(" + what + ") = 'number' and " + what + " " + operator + " " + to + ")"
		}
		if with.text == "nil" && with.kind == wordValue {
			return "coalesce(" + what + ", " + to + ") " + operator + " " + to
		}
	}
	switch {
	case with.kind == wordValue && with.text == "nil" && len(names) == 1:
		return what + map[string]string{"=": " is null", "<>": " is not null"}[operator]
	case operator == "<>":
		return what + " is distinct from " + to
	case operator == "=" && negated:
		return what + " is not distinct from " + to
	case negated:
		return "coalesce(" + what + " " + operator + " " + to + ", false)"
	}
	return what + " " + operator + " " + to
}

var plainElement = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

// pathLiteral writes names as an array of text.
func pathLiteral(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		if quoted[i] = name; plainElement.MatchString(name) && !strings.EqualFold(name, "null") {
			continue
		}
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
	}
	return "{" + strings.Join(quoted, ",") + "}"
}

// among writes whether a path is one of several constants.
func (m *message) among(v value, negated bool) (string, bool) {
	path, list := v.members[0], v.members[1]
	if list.kind != listValue || path.kind != pathValue {
		return "", false
	}
	all := value{kind: wordValue, text: never}
	for _, item := range list.members {
		one := value{kind: appliedTerm, text: "=", members: []value{path, item}}
		all = value{kind: appliedTerm, text: "or", members: []value{all, one}}
	}
	column := path.text == "record" && len(path.names) == 1 && !negated
	if !column || slices.ContainsFunc(list.members, func(item value) bool {
		return item.kind != textValue && (item.kind != wordValue || item.text == "nil")
	}) {
		sql, ok := m.condition(all, negated)
		if strings.Contains(sql, " or ") {
			sql = "(" + sql + ")"
		}
		return sql, ok
	}
	items := make([]string, len(list.members))
	for i, item := range list.members {
		if items[i] = item.text; item.kind == textValue {
			items[i] = literal(item.text)
		}
	}
	if len(items) == 0 {
		return never, true
	}
	return m.row + "." + pg.PlainName(path.names[0]) + " in (" + strings.Join(items, ", ") + ")", true
}

// template writes an expression as JSON of a body.
func (m *message) template(v value) (string, bool) {
	var parts []string
	ok := true
	add := func(prefix string, member value) {
		part, readable := m.template(member)
		parts, ok = append(parts, prefix+part), ok && readable
	}
	switch v.kind {
	case wordValue:
		return strings.Replace(v.text, "nil", "null", 1), true
	case listValue:
		for _, member := range v.members {
			add("", member)
		}
		return "[" + strings.Join(parts, ",") + "]", ok
	case mapValue:
		for i, member := range v.members {
			name, _ := jsonText(v.names[i])
			add(name+":", member)
		}
		return "{" + strings.Join(parts, ",") + "}", ok
	case pathValue:
		if v.text == "metadata" && len(v.names) == 0 {
			return m.metadata, true
		}
		if known, isKnown := m.known(v); isKnown && known == "" {
			return "null", true
		}
	case appliedTerm:
		return "", false
	}
	pieces, ok := m.pieces(v)
	text, readable := jsonText(importer.Join(importer.Always, pieces...))
	return text, ok && readable
}

func jsonText(s string) (string, bool) {
	raw, err := json.Marshal(s)
	return string(raw), err == nil
}

// pieces writes a text, or a path, as pieces of a text. What is nil is nothing within a text, there and
// here.
func (m *message) pieces(v value) (pieces []importer.Piece, ok bool) {
	switch v.kind {
	case textValue:
		return []importer.Piece{importer.Text(v.text)}, true
	case textPieces:
		for _, member := range v.members {
			more, readable := m.pieces(member)
			if !readable {
				return nil, false
			}
			pieces = append(pieces, more...)
		}
		return pieces, true
	case pathValue:
	default:
		return nil, false
	}
	if known, ok := m.known(v); ok {
		return []importer.Piece{importer.Text(known)}, true
	}
	base, names := m.row, v.names
	switch v.text {
	case "action":
		return nil, false
	case "changes":
		base = "old"
	case "metadata":
		base, names = map[string]string{
			"table_schema": "table.schema", "table_name": "table.name", "idempotency_key": "id", "commit_timestamp": "created_at",
		}[strings.Join(names, ".")], nil
		if base == "" {
			return nil, false
		}
	}
	for _, name := range names {
		base = importer.Member(base, name)
	}
	return []importer.Piece{importer.Data(base)}, true
}
