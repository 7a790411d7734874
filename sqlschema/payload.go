package sqlschema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
)

// capturedColumns returns the columns that the captures of rows read for the payload, each once.
// whole says that the events of some operation hold the whole row.
func capturedColumns(s *trigger.Spec) (names []string, whole bool) {
	for _, op := range rowOperations(s) {
		columns := s.Payload.ColumnsOf(byte(op))
		whole = whole || len(columns) == 0
		for _, name := range columns {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, whole
}

// payloadList is a list of columns in the payload of a Spec.
type payloadList struct {
	columns []string
	key     string // insert, update or delete; "": of all
}

// path returns where the column is in the Spec.
func (l payloadList) path(column int) []string {
	if l.key == "" {
		return []string{"payload", "columns", fmt.Sprint(column)}
	}
	return []string{"payload", l.key, "columns", fmt.Sprint(column)}
}

func payloadLists(s *trigger.Spec) []payloadList {
	p := s.Payload
	return []payloadList{{p.Columns, ""}, {p.Insert.Columns, "insert"}, {p.Update.Columns, "update"}, {p.Delete.Columns, "delete"}}
}

// reshaped reports whether rowhook.capture can't make the payload: some columns were chosen, numbers
// are texts, or the old row of an update is not stored.
func reshaped(s *trigger.Spec) bool {
	chosen, _ := capturedColumns(s)
	return len(chosen) > 0 || s.Payload.Numbers == trigger.NumbersText || len(rowOperations(s)) > 0 && !storesOld(s)
}

// storesOld reports whether the old row of an update is recorded. The list of changed columns is
// made of it when the event is sent, and so is the old row of a delete into which order.latest
// merges an update.
func storesOld(s *trigger.Spec) bool {
	return !s.On.Update.Enabled || s.Payload.Old != trigger.OldNone || s.Payload.Changed || s.Order.Latest
}

// perOperation reports whether captured updates or deletes have other columns than inserts have, or
// would have.
func perOperation(s *trigger.Spec) bool {
	return slices.ContainsFunc(rowOperations(s), func(op operation) bool {
		return !slices.Equal(s.Payload.ColumnsOf(byte(op)), s.Payload.ColumnsOf('I'))
	})
}

// payloadFunction is a function from a row to its JSON.
type payloadFunction struct {
	Signature string // name and arguments
	Body      string
}

func (f payloadFunction) create() string {
	return "create or replace function " + f.Signature + " returns json language sql stable " + f.Body
}

// payloadFunctions returns the functions that make the payload of a trigger. The first one makes
// that of inserts, which backfills use, too. If the operations differ in their columns, the second
// one makes that of updates and deletes, whose letter is an argument. Postgres parses a body once,
// when the function is created. So it follows renames, and refuses to drop a column that the
// function reads.
func payloadFunctions(spec *trigger.Spec, rel *relation, of own) []payloadFunction {
	functions := []payloadFunction{{of.payload() + "(" + rel.sql() + ")", payloadOf(spec, rel, insertOp).body()}}
	if !perOperation(spec) {
		return functions
	}
	// It reads no other columns than the capture triggers depend on: see condition.
	body := "case $2"
	for _, op := range rowOperations(spec) {
		if op != insertOp {
			body += fmt.Sprintf(" when '%c' then %s", op, payloadOf(spec, rel, op).expression())
		}
	}
	return append(functions, payloadFunction{of.payload() + "(" + rel.sql() + `, "char")`, "return " + body + " end"})
}

// callPayload returns a call of the function that makes the payload of an operation.
func callPayload(spec *trigger.Spec, of own, op operation, row string) string {
	if op == insertOp || !perOperation(spec) {
		return of.payload() + "(" + row + ")"
	}
	return fmt.Sprintf(`%s(%s, '%c'::"char")`, of.payload(), row, op)
}

// payloadSelect is SQL for the JSON of a row: an expression over $1, or over a subquery v.
type payloadSelect struct{ value, from string }

func (p payloadSelect) body() string {
	if p.from == "" {
		return "return " + p.value
	}
	return "begin atomic select " + p.value + " from " + p.from + " as v; end"
}

func (p payloadSelect) expression() string {
	if p.from == "" {
		return p.value
	}
	return "(select " + p.value + " from " + p.from + " as v)"
}

// payloadOf returns SQL for the payload of an operation.
func payloadOf(spec *trigger.Spec, rel *relation, op operation) payloadSelect {
	names := spec.Payload.ColumnsOf(byte(op))
	chosen := make([]column, len(names))
	virtual := false
	for i, name := range names {
		chosen[i], _ = rel.column(name)
		virtual = virtual || chosen[i].Virtual
	}
	p := payloadSelect{value: "pg_catalog.row_to_json($1)"}
	switch {
	case len(names) > 0 && virtual:
		return payloadSelect{"pg_catalog.row_to_json(v.*)", computed(chosen, rel.numbers)}
	case len(names) > 0:
		return payloadSelect{value: objectOf(chosen, rel.numbers)}
	case len(rel.virtualColumns()) > 0:
		p = payloadSelect{"rowhook.with_values(pg_catalog.row_to_json($1), pg_catalog.row_to_json(v.*))", computed(rel.virtualColumns(), nil)}
	}
	if spec.Payload.Numbers == trigger.NumbersText {
		p.value = numbersAsText(p.value, "$1")
	}
	return p
}

// objectOf returns an expression for the text that row_to_json makes of a row of these columns.
// Postgres inlines a function that is a single expression into the plan of its caller, once. Before
// PostgreSQL 18 it plans a function with a FROM at every row. Measured for a bulk insert with five
// columns, for each row, on top of the cost of the whole row: about 8 us instead of 70 us.
func objectOf(columns []column, numbers map[string]numberKind) string {
	const most = 40 // a call takes at most 100 arguments
	var parts []string
	opening := "{"
	for chunk := range slices.Chunk(columns, most) {
		var arguments []string
		for _, c := range chunk {
			value := numbers[c.Name].as("($1)." + pg.QuoteName(c.Name))
			arguments = append(arguments, pg.StringLiteral(opening+jsonString(c.Name)+":"), "coalesce(pg_catalog.to_json("+value+"), 'null')")
			opening = ","
		}
		parts = append(parts, "pg_catalog.concat("+strings.Join(arguments, ", ")+")")
	}
	return "(" + strings.Join(parts, " operator(pg_catalog.||) ") + " operator(pg_catalog.||) '}')::pg_catalog.json"
}

// jsonString writes a string as Postgres does: it escapes only what JSON requires.
func jsonString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch i := strings.IndexRune("\"\\\b\f\n\r\t", r); {
		case i >= 0:
			b.WriteString(`\` + `"\bfnrt`[i:i+1])
		case r < ' ':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// computed returns a subquery with the wanted columns: stored ones unchanged, virtual ones by their
// expression over the stored ones.
func computed(wanted []column, numbers map[string]numberKind) string {
	var inner, outer []string
	seen := map[string]bool{}
	read := func(name string) {
		if !seen[name] {
			seen[name] = true
			inner = append(inner, "($1)."+pg.QuoteName(name)+" as "+pg.QuoteName(name))
		}
	}
	for _, c := range wanted {
		expression := "r." + pg.QuoteName(c.Name)
		if c.Virtual {
			expression = "(" + c.Expression + ")"
			for _, name := range c.Reads {
				read(name)
			}
		} else {
			read(c.Name)
		}
		outer = append(outer, numbers[c.Name].as(expression)+" as "+pg.QuoteName(c.Name))
	}
	if len(inner) == 0 {
		inner = []string{"null"}
	}
	return "(select " + strings.Join(outer, ", ") + " from (select " + strings.Join(inner, ", ") + ") as r)"
}

// capturedRows returns what takes the place of row_to_json(old) and row_to_json(new) in a trigger's
// own capture function.
func capturedRows(spec *trigger.Spec, of own) (old, fresh string) {
	old = "case when tg_op <> 'INSERT' then " + callPayload(spec, of, updateOp, "old") + " end"
	fresh = "case when tg_op <> 'DELETE' then " + callPayload(spec, of, insertOp, "new") + " end"
	if perOperation(spec) {
		// PL/pgSQL looks for each function that is named, and a column of an operation that is not
		// captured may have been dropped together with its function.
		old, fresh = "case tg_op when 'TRUNCATE' then null::json", "case tg_op when 'TRUNCATE' then null::json"
		for _, op := range rowOperations(spec) {
			when := " when '" + strings.ToUpper(op.word()) + "' then "
			if op != insertOp {
				old += when + callPayload(spec, of, op, "old")
			}
			if op != deleteOp {
				fresh += when + callPayload(spec, of, op, "new")
			}
		}
		old, fresh = old+" end", fresh+" end"
	}
	if !storesOld(spec) {
		old = "case when tg_op = 'DELETE' then " + callPayload(spec, of, deleteOp, "old") + " end"
	}
	return old, fresh
}

// truncateCapture adds to a capture function that a TRUNCATE is recorded, as an event without rows.
// In an ordered trigger it has a key of its own, which no row has: [], or that of its table.
func truncateCapture(definition string, spec *trigger.Spec, of own) (string, error) {
	const begin = "  if tg_level = 'STATEMENT' then\n"
	if strings.Count(definition, begin) != 1 {
		return "", errChangedByHand
	}
	columns, values := truncated(spec, of)
	return strings.Replace(definition, begin, "  if tg_op = 'TRUNCATE' then\n"+
		"    insert into rowhook.event_log ("+columns+")\n    values ("+values+");\n"+
		"  elsif tg_level = 'STATEMENT' then\n", 1), nil
}

// truncated returns what is written of a TRUNCATE.
func truncated(spec *trigger.Spec, of own) (columns, values string) {
	columns, values = "id, trigger_id, relation_id, op, session, trace", "rowhook.uuid7(), tg_argv[0]::integer, tg_argv[2]::integer, 'T', session, trace"
	if ordered(spec) {
		key := "[]"
		if mark := of.mark(spec); mark != "" {
			key = "[" + jsonString(mark) + "]"
		}
		columns += ", due_at, key, lane, seq"
		values += ",\n      " + fmt.Sprintf(placed, pg.StringLiteral(key), "nextval('rowhook.event_seq'::regclass)")
	}
	return columns, values
}
