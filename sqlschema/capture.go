package sqlschema

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// operation is what a capture trigger fires on, as rowhook.event_log.op has it.
type operation byte

const (
	insertOp operation = 'I'
	updateOp operation = 'U'
	deleteOp operation = 'D'
	// guardOp captures nothing. Its trigger goes with one that captures whole statements: see wholeInserts.
	guardOp operation = 'G'
)

func (o operation) word() string {
	return map[operation]string{insertOp: "insert", updateOp: "update", deleteOp: "delete", guardOp: "guard"}[o]
}

// object names the SQL trigger of an operation to people.
func (o operation) object() string {
	if o == guardOp {
		return "guard trigger"
	}
	return "capture trigger"
}

// operations lists what is captured, in the order in which the triggers are made.
func operations(s *trigger.Spec) []operation {
	var ops []operation
	if s.On.Insert {
		ops = append(ops, insertOp)
	}
	if s.On.Update.Enabled {
		ops = append(ops, updateOp)
	}
	if s.On.Delete {
		ops = append(ops, deleteOp)
	}
	return ops
}

// sqlTriggers lists the SQL triggers that the spec needs on this table, by operation.
func sqlTriggers(s *trigger.Spec, rel *relation) []operation {
	ops := operations(s)
	if wholeInserts(s, rel) {
		ops = append(ops, guardOp)
	}
	return ops
}

// wholeInserts reports that inserts are captured once for each statement, from its transition table, instead of once for each
// row. Measured, per row on top of a plain insert's 3 to 5 us: 10 us in bulk against 40; single rows cost the same either way.
//
// Such a trigger has no WHEN on rows, is not run by the apply worker of a subscription, and would not see rows that an
// insert into a parent routes to this table. So a table that is a partition or inherits is captured row by row, and one
// that is neither is kept from becoming it: Postgres refuses that of tables with a row trigger that has a transition table,
// and the guard is one that never runs.
func wholeInserts(s *trigger.Spec, rel *relation) bool {
	return s.Capture != trigger.CaptureRows && byRow(s, rel) == ""
}

// byRow says what keeps inserts from being captured by the statement, or nothing.
func byRow(s *trigger.Spec, rel *relation) string {
	switch {
	case !s.On.Insert:
		return "it captures no inserts, and updates and deletes are captured row by row"
	case s.When != "":
		return "its when has to be asked of each row"
	case s.OnReplication:
		return "it has on_replication, and the apply worker of a subscription runs no triggers for whole inserts"
	case !s.Payload.IsZero():
		return "its payload is a choice of columns"
	case rel.Hypertable:
		return fmt.Sprintf("%s is a hypertable, and TimescaleDB takes no triggers with transition tables", rel)
	case rel.Kind == "p":
		return fmt.Sprintf("%s is partitioned, and rows that are inserted into a partition would be missed", rel)
	case rel.Descends:
		return fmt.Sprintf("%s is a partition or inherits from another table, and rows that come by way of that one would be missed", rel)
	case len(rel.virtualColumns()) > 0:
		return fmt.Sprintf("%s has columns that are computed when they are read", rel)
	}
	return ""
}

// ownFunction reports that a trigger needs functions of its own: its payload is a choice of columns, or the table has
// columns that are computed when they are read, so that the row that a trigger gets does not hold them.
func ownFunction(s *trigger.Spec, rel *relation) bool {
	return len(operations(s)) > 0 && (!s.Payload.IsZero() || len(rel.virtualColumns()) > 0 || guarded(s, rel))
}

// guarded reports that a trigger's rows are captured by a function that runs as the table's owner. Turning a value into JSON runs
// a cast to json if its type has one, and whoever owns the table can add a column whose type has. By the function of the role that
// installed Rowhook, perhaps a superuser, that would be a way to act as it. The owner's own function writes through a view
// that takes events of this trigger alone.
func guarded(s *trigger.Spec, rel *relation) bool {
	return len(operations(s)) > 0 && !rel.Trusted && rel.MayRun
}

// exposed reports that a trigger would have to be guarded, and this role can't make it so. Where the columns are chosen and
// their types are not the owner's there is nothing to guard against, as Postgres keeps those types from being changed.
func exposed(s *trigger.Spec, rel *relation) bool {
	if len(operations(s)) == 0 || rel.Trusted || rel.MayRun {
		return false
	}
	for _, name := range s.Payload.Columns {
		if c, ok := rel.column(name); ok && !c.BuiltIn {
			return true
		}
	}
	return s.Payload.IsZero()
}

func captureName(spec *trigger.Spec, rel *relation, id int32) string {
	if ownFunction(spec, rel) {
		return fmt.Sprintf("rowhook.capture_%d", id)
	}
	return "rowhook.capture"
}

// inboxName is the view through which a guarded trigger's function writes.
func inboxName(id int32) string { return fmt.Sprintf("rowhook.inbox_%d", id) }

func payloadName(id int32) string { return fmt.Sprintf("rowhook.payload_%d", id) }

// createTrigger is the statement that makes, or replaces in place, the capture trigger of one operation.
func createTrigger(spec *trigger.Spec, rel *relation, id, relationID int32, op operation) string {
	var b strings.Builder
	event, each := op.word(), "for each row"
	switch {
	case op == guardOp:
		event, each = insertOp.word(), "referencing new table as inserted for each row"
	case op == insertOp && wholeInserts(spec, rel):
		each = "referencing new table as inserted for each statement"
	}
	fmt.Fprintf(&b, "create or replace trigger %s after %s on %s %s", pg.QuoteName(sqlTriggerName(spec.Name, id, op)), event, rel.sql(), each)
	if condition := condition(spec, rel, op); condition != "" {
		fmt.Fprintf(&b, " when (%s)", condition)
	}
	silent := ""
	if spec.Notify == trigger.NotifyNever {
		silent = trigger.NotifyNever
	}
	fmt.Fprintf(&b, " execute function %s('%d', '%s', '%d')", captureName(spec, rel, id), id, silent, relationID)
	return b.String()
}

// condition is the WHEN clause. Rows are compared by their stored image, which every type has, json, xml and point among
// them; what differs only in the image, such as 1.1 and 1.10, differs in its text, too. OLD.* stands for the row where a plain
// OLD would be a column of that name. The operator for records would be split into one per column; the function is not, also
// after a dump and restore.
func condition(spec *trigger.Spec, rel *relation, op operation) string {
	if op == guardOp {
		return "false"
	}
	var parts []string
	// Always true, and not evaluated for any row: it makes the trigger depend on the chosen columns, so that a DROP COLUMN ...
	// CASCADE takes the trigger along with the payload function and leaves no write that fails for want of it.
	if chosen := rel.stored(spec.Payload.Columns); len(chosen) > 0 {
		row := "NEW"
		if op == deleteOp {
			row = "OLD"
		}
		parts = append(parts, "("+rowOf(row, chosen)+" is null or true)")
	}
	if op == updateOp {
		old, new := "OLD.*", "NEW.*"
		if columns := spec.On.Update.Columns; columns != nil {
			old, new = rowOf("OLD", columns), rowOf("NEW", columns)
		}
		parts = append(parts, fmt.Sprintf("pg_catalog.record_image_ne(%s, %s)", old, new))
	}
	if spec.When != "" {
		parts = append(parts, "(\n"+spec.When+"\n)")
	}
	return strings.Join(parts, " and ")
}

func rowOf(row string, columns []string) string {
	fields := make([]string, len(columns))
	for i, c := range columns {
		fields[i] = row + "." + pg.QuoteName(c)
	}
	return "row(" + strings.Join(fields, ", ") + ")"
}

// enableTrigger says whether a trigger also fires in a session that applies replicated changes.
func enableTrigger(table, name string, always bool) string {
	mode := ""
	if always {
		mode = " always"
	}
	return fmt.Sprintf("alter table %s enable%s trigger %s", table, mode, pg.QuoteName(name))
}

// createPayload makes the function that turns a row into its JSON. Its body is parsed once, here: Postgres follows
// renames, and refuses to drop a column that it reads.
func createPayload(spec *trigger.Spec, rel *relation, id int32) string {
	chosen := make([]column, len(spec.Payload.Columns))
	virtual := false
	for i, name := range spec.Payload.Columns {
		chosen[i], _ = rel.column(name)
		virtual = virtual || chosen[i].Virtual
	}
	var body string
	switch {
	case spec.Payload.IsZero() && len(rel.virtualColumns()) == 0:
		body = "return pg_catalog.row_to_json($1)"
	case spec.Payload.IsZero():
		body = "begin atomic select rowhook.with_values(pg_catalog.row_to_json($1), pg_catalog.row_to_json(v.*)) from " + computed(rel.virtualColumns()) + " as v; end"
	case virtual:
		body = "begin atomic select pg_catalog.row_to_json(v.*) from " + computed(chosen) + " as v; end"
	default:
		body = "return " + objectOf(chosen)
	}
	return fmt.Sprintf("create or replace function %s(%s) returns json language sql stable %s", payloadName(id), rel.sql(), body)
}

// objectOf is an expression for the text that row_to_json gives a row of these columns. Postgres puts a function that is a
// mere expression into the plan of its caller, once; one with a FROM it would plan anew at every row before PostgreSQL 18.
// Measured, bulk insert, five columns, per row on top of the whole row's cost: about 8 us against 70 us.
func objectOf(columns []column) string {
	const most = 40 // a call takes 100 arguments at most
	var parts []string
	opening := "{"
	for chunk := range slices.Chunk(columns, most) {
		var arguments []string
		for _, c := range chunk {
			arguments = append(arguments, pg.StringLiteral(opening+jsonString(c.Name)+":"),
				"coalesce(pg_catalog.to_json(($1)."+pg.QuoteName(c.Name)+"), 'null')")
			opening = ","
		}
		parts = append(parts, "pg_catalog.concat("+strings.Join(arguments, ", ")+")")
	}
	return "(" + strings.Join(parts, " operator(pg_catalog.||) ") + " operator(pg_catalog.||) '}')::pg_catalog.json"
}

// jsonString writes a string as Postgres does: only what JSON demands is escaped.
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

// computed is a subquery with the wanted columns: stored ones as they are, virtual ones by their expression over the stored.
func computed(wanted []column) string {
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
		outer = append(outer, expression+" as "+pg.QuoteName(c.Name))
	}
	if len(inner) == 0 {
		inner = []string{"null"}
	}
	return "(select " + strings.Join(outer, ", ") + " from (select " + strings.Join(inner, ", ") + ") as r)"
}

// createCapture derives a trigger's own capture function from rowhook.capture, so that there is one text of it.
func createCapture(id int32, definition string, guarded bool) (string, error) {
	if guarded {
		const into = "insert into rowhook.event_log "
		if !strings.Contains(definition, into) {
			return "", fmt.Errorf("derive a capture function: the definition of rowhook.capture was changed by hand (%q is not there): "+
				"restore it, or uninstall and apply again", into)
		}
		definition = strings.ReplaceAll(definition, into, "insert into "+inboxName(id)+" ")
	}
	for old, new := range map[string]string{
		"FUNCTION rowhook.capture()": fmt.Sprintf("FUNCTION rowhook.capture_%d()", id),
		"row_to_json(old)":           fmt.Sprintf("case when tg_op <> 'INSERT' then %s(old) end", payloadName(id)),
		"row_to_json(new)":           fmt.Sprintf("case when tg_op <> 'DELETE' then %s(new) end", payloadName(id)),
	} {
		if strings.Count(definition, old) != 1 {
			return "", fmt.Errorf("derive a capture function: the definition of rowhook.capture was changed by hand (%q is not there once): "+
				"restore it, or uninstall and apply again", old)
		}
		definition = strings.Replace(definition, old, new, 1)
	}
	return definition, nil
}

// createInbox makes the view that takes events of one trigger and shows nothing of its own accord: the only right on it that is
// ever granted is to insert. It writes as the role that owns the view.
func createInbox(id int32) string {
	return fmt.Sprintf("create or replace view %s with (security_barrier) as select id, trigger_id, op, old, new, session, trace, relation_id "+
		"from rowhook.event_log where trigger_id = %d with check option", inboxName(id), id)
}

// triggerDigest stands for everything that a capture trigger was made from. Columns count by number, so that a rename changes
// nothing.
func triggerDigest(spec *trigger.Spec, rel *relation, id, relationID int32, op operation) string {
	parts := []string{sqlTriggerName(spec.Name, id, op), captureName(spec, rel, id), strconv.Itoa(int(id)), strconv.Itoa(int(relationID)), spec.Notify, spec.When}
	switch {
	case op == updateOp:
		parts = append(parts, numbers(rel, spec.On.Update.Columns))
	case op == insertOp && wholeInserts(spec, rel):
		parts = append(parts, "whole")
	}
	return digest(parts...)
}

// functionDigest is the same for a trigger's own functions.
func functionDigest(spec *trigger.Spec, rel *relation, definition string) string {
	runner := ""
	if guarded(spec, rel) {
		runner = rel.Owner
	}
	parts := []string{definition, runner, strings.Join(spec.Payload.Columns, "\x00"), numbers(rel, spec.Payload.Columns)}
	for _, c := range rel.virtualColumns() {
		parts = append(parts, strconv.Itoa(int(c.Number)), c.Digest)
		if spec.Payload.IsZero() {
			parts = append(parts, c.Name)
		}
	}
	return digest(parts...)
}

func numbers(rel *relation, columns []string) string {
	var b strings.Builder
	for _, name := range columns {
		c, _ := rel.column(name)
		fmt.Fprintf(&b, "%d ", c.Number)
	}
	return b.String()
}

func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// sqlTriggerName is rowhook_NAME_insert. A name too long for that is cut and told apart by the trigger's id; ~ occurs in no
// configured name.
func sqlTriggerName(name string, id int32, op operation) string {
	room := pg.MaxIdentifier - len("rowhook_") - len("_") - len(op.word())
	if len(name) > room {
		mark := fmt.Sprintf("~%d", id)
		cut := name[:room-len(mark)]
		for !utf8.ValidString(cut) {
			cut = cut[:len(cut)-1]
		}
		name = cut + mark
	}
	return "rowhook_" + name + "_" + op.word()
}
