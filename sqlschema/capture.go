package sqlschema

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/trigger"
	"strconv"
	"strings"
	"unicode/utf8"
)

// operation is the event on which a capture trigger fires, as in rowhook.event_log.op.
type operation byte

const (
	insertOp   operation = 'I'
	updateOp   operation = 'U'
	deleteOp   operation = 'D'
	truncateOp operation = 'T'
	// guardOp captures nothing. Its trigger accompanies a trigger that captures whole statements:
	// see whole.
	guardOp operation = 'G'
)

func (o operation) word() string {
	return map[operation]string{insertOp: "insert", updateOp: "update", deleteOp: "delete", truncateOp: "truncate", guardOp: "guard"}[o]
}

// object returns what messages call the SQL trigger of an operation.
func (o operation) object() string {
	if o == guardOp {
		return "guard trigger"
	}
	return "capture trigger"
}

// operations returns the captured operations, in the order in which their triggers are made.
func operations(s *trigger.Spec) []operation {
	ops := rowOperations(s)
	if s.On.Truncate {
		ops = append(ops, truncateOp)
	}
	return ops
}

// rowOperations returns the captured operations whose events hold rows.
func rowOperations(s *trigger.Spec) []operation {
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

// sqlTriggers returns the SQL triggers that the spec needs on this table, by operation.
func sqlTriggers(s *trigger.Spec, rel *relation) []operation {
	if atCommit(s) {
		return commitTriggers(s)
	}
	ops := operations(s)
	if _, guarded := guardEvent(s, rel); guarded {
		ops = append(ops, guardOp)
	}
	return ops
}

// ownFunction reports whether a trigger needs functions of its own. It does if its payload is not the
// whole row as Postgres writes it, if it captures TRUNCATE, or if it is guarded, ordered or delayed. It also
// does if the table has virtual generated columns, since the row that a trigger gets does not hold
// them.
func ownFunction(s *trigger.Spec, rel *relation) bool {
	return s.On.Truncate || len(rowOperations(s)) > 0 && (reshaped(s) || len(rel.virtualColumns()) > 0 || guarded(s, rel) || keyed(s) || s.Delay > 0)
}

// guarded reports whether a function that runs as the table's owner captures the rows. To turn a
// value into JSON, Postgres runs a cast to json if the type has one. The owner of the table can add
// a column of a type with such a cast. If a function of the role that installed Rowhook ran the
// cast, the owner could act as that role, perhaps a superuser. The function of the table's owner
// writes through a view that accepts only events of this trigger.
func guarded(s *trigger.Spec, rel *relation) bool {
	return len(rowOperations(s)) > 0 && !rel.Trusted && rel.MayRun
}

// exposed reports whether a trigger would have to be guarded and this role can't do that. There is
// no danger if the chosen columns have types that are not the owner's: Postgres keeps the type of
// such a column from being changed.
func exposed(s *trigger.Spec, rel *relation) bool {
	if len(rowOperations(s)) == 0 || rel.Trusted || rel.MayRun {
		return false
	}
	chosen, whole := capturedColumns(s)
	for _, name := range chosen {
		if c, ok := rel.column(name); ok && !c.BuiltIn {
			return true
		}
	}
	return whole
}

// captureName returns the function that the triggers of a spec call.
func captureName(spec *trigger.Spec, rel *relation, of own) string {
	if ownFunction(spec, rel) {
		return of.capture()
	}
	return "rowhook.capture"
}

// own names the objects in the schema rowhook that belong to one trigger alone, or to one table of
// a trigger with several.
type own struct {
	id       int32 // rowhook.trigger.id
	relation int32 // rowhook.relation.id of the table; 0: the trigger has one table
}

// ownOf returns the names of the objects that a trigger has for a table.
func ownOf(spec *trigger.Spec, id, relationID int32) own {
	if spec.Many() {
		return own{id, relationID}
	}
	return own{id: id}
}

// suffix returns the id of the trigger, with ten digits for the table if it has several: 7, or
// 70000000012. So every program takes the functions for those of Rowhook, and those of version 6
// see no function of one trigger alone in one of a table.
func (o own) suffix() string {
	if o.relation == 0 {
		return strconv.Itoa(int(o.id))
	}
	return fmt.Sprintf("%d%010d", o.id, o.relation)
}

// condition returns SQL that is true for the events of the trigger, or of the table.
func (o own) condition() string {
	if o.relation == 0 {
		return fmt.Sprintf("trigger_id = %d", o.id)
	}
	return fmt.Sprintf("trigger_id = %d and relation_id = %d", o.id, o.relation)
}

// capture returns the capture function, without its parentheses.
func (o own) capture() string { return "rowhook.capture_" + o.suffix() }

// payload returns the function that makes the payload of a trigger with chosen columns.
func (o own) payload() string { return "rowhook.payload_" + o.suffix() }

// inbox returns the view through which the function of a guarded trigger writes. Where events have
// an order, ordered and moves return the views for the events and for the changes of their keys.
func (o own) inbox() string   { return "rowhook.inbox_" + o.suffix() }
func (o own) ordered() string { return "rowhook.ordered_" + o.suffix() }
func (o own) moves() string   { return "rowhook.moves_" + o.suffix() }
func (o own) delayed() string { return "rowhook.delayed_" + o.suffix() }

// intoView returns the view through which a guarded trigger writes its events.
func (o own) intoView(spec *trigger.Spec) string {
	switch {
	case ordered(spec):
		return o.ordered()
	case spec.Delay > 0:
		return o.delayed()
	}
	return o.inbox()
}

// views returns all of these views.
func (o own) views() []string { return []string{o.inbox(), o.ordered(), o.moves(), o.delayed()} }

// createTrigger returns the statements that create or replace the capture trigger of one operation.
// Only the last one has the when.
func createTrigger(spec *trigger.Spec, rel *relation, of own, relationID int32, op operation) []string {
	silent := ""
	if spec.Notify == trigger.NotifyNever {
		silent = trigger.NotifyNever
	}
	call := fmt.Sprintf("execute function %s('%d', '%s', '%d')", captureName(spec, rel, of), of.id, silent, relationID)
	if atCommit(spec) && op != truncateOp {
		return createCommitTrigger(spec, rel, of, op, call)
	}
	var b strings.Builder
	event, each := op.word(), "for each row"
	switch {
	case op == guardOp:
		on, _ := guardEvent(spec, rel)
		event, each = on.word(), transitionTables(on)+" for each row"
	case whole(spec, rel, op):
		each = transitionTables(op) + " for each statement"
	case op == truncateOp:
		each = "for each statement"
	}
	fmt.Fprintf(&b, "create or replace trigger %s after %s on %s %s", pg.QuoteName(sqlTriggerName(spec.Name, of.id, op)), event, rel.sql(), each)
	if condition := condition(spec, rel, op); condition != "" {
		fmt.Fprintf(&b, " when (%s)", condition)
	}
	return []string{b.String() + " " + call}
}

// condition returns the WHEN clause. Rows are compared by their stored image. Every type has one,
// json, xml and point included. If two values differ only in the image, such as 1.1 and 1.10, their
// texts differ, too. OLD.* stands for the row even if a column is called OLD. Postgres splits the
// operator for records into one for each column. It does not split the function, not even after a
// dump and restore.
func condition(spec *trigger.Spec, rel *relation, op operation) string {
	if op == truncateOp || whole(spec, rel, op) {
		return "" // of a statement it can't read columns
	}
	var parts []string
	on := op
	if op == guardOp {
		parts = append(parts, "false")
		on, _ = guardEvent(spec, rel)
	}
	// This part is always true, and is not evaluated for any row. It makes the trigger depend on
	// the chosen columns. So a DROP COLUMN ... CASCADE drops the trigger together with the payload
	// function, and no write fails for lack of the function.
	read, _ := capturedColumns(spec)
	if chosen := rel.stored(append(read, rel.keyColumns()...)); len(chosen) > 0 {
		row := "NEW"
		if on == deleteOp {
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
	if spec.When != "" && op != guardOp {
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

// enableTrigger returns the statement that enables a trigger. always says that it also fires in a
// session that applies replicated changes.
func enableTrigger(table, name string, always bool) string {
	mode := ""
	if always {
		mode = " always"
	}
	return fmt.Sprintf("alter table %s enable%s trigger %s", table, mode, pg.QuoteName(name))
}

var errChangedByHand = errors.New("derive a capture function: the definition of rowhook.capture was changed by hand: restore it, or uninstall and apply again")

// createCapture derives a trigger's own capture function from the definition of rowhook.capture, so
// that its text exists once. path is the search_path of the user, for a when at commit.
func createCapture(spec *trigger.Spec, rel *relation, of own, definition, path string) (string, error) {
	switch {
	case asksToHandOver(spec, rel, definition):
		var err error
		if definition, err = handingCapture(definition, of); err != nil {
			return "", err
		}
	case !handsOver(spec):
		definition = handover.ReplaceAllString(definition, "")
	}
	if atCommit(spec) {
		return createCommitCapture(spec, rel, of, definition, path)
	}
	if ordered(spec) {
		var err error
		if definition, err = orderedCapture(definition, rel, of); err != nil {
			return "", err
		}
	}
	if spec.On.Truncate {
		var err error
		if definition, err = truncateCapture(definition, spec, of); err != nil {
			return "", err
		}
	}
	if spec.Delay > 0 {
		var err error
		if definition, err = delayedCapture(definition, spec.Delay); err != nil {
			return "", err
		}
	}
	if guarded(spec, rel) {
		const into = "insert into rowhook.event_log "
		if !strings.Contains(definition, into) {
			return "", errChangedByHand
		}
		if ordered(spec) {
			definition = strings.ReplaceAll(definition, "insert into rowhook.key_move ", "insert into "+of.moves()+" ")
		}
		definition = strings.ReplaceAll(definition, into, "insert into "+of.intoView(spec)+" ")
	}
	if !storesOld(spec) {
		definition = strings.Replace(definition, "row_to_json(r.old)", "null::json", 1)
	}
	oldRow, newRow := capturedRows(spec, of)
	for old, new := range map[string]string{
		"FUNCTION rowhook.capture()": "FUNCTION " + of.capture() + "()",
		"row_to_json(old)":           oldRow,
		"row_to_json(new)":           newRow,
	} {
		if !strings.Contains(definition, old) {
			return "", fmt.Errorf("%w (%q is not in it)", errChangedByHand, old)
		}
		definition = strings.ReplaceAll(definition, old, new)
	}
	return definition, nil
}

// createInbox returns the statement that makes the view for the events of one trigger. The only
// right on the view that is ever granted is to insert, so it shows nothing. It writes as the role
// that owns the view.
func createInbox(of own) string {
	return fmt.Sprintf("create or replace view %s with (security_barrier) as select id, trigger_id, op, old, new, session, trace, relation_id "+
		"from rowhook.event_log where %s with check option", of.inbox(), of.condition())
}

// triggerDigest returns a digest of everything that a capture trigger was made from. Columns count
// by number, so that a rename changes nothing.
func triggerDigest(spec *trigger.Spec, rel *relation, of own, relationID int32, op operation) string {
	parts := []string{sqlTriggerName(spec.Name, of.id, op), captureName(spec, rel, of), strconv.Itoa(int(of.id)), strconv.Itoa(int(relationID)), spec.Notify, spec.When}
	on, _ := guardEvent(spec, rel)
	switch {
	case whole(spec, rel, op):
		parts = append(parts, "whole")
	case op == updateOp:
		parts = append(parts, columnNumbers(rel, spec.On.Update.Columns))
	case op == guardOp && on != insertOp:
		parts = append(parts, on.word())
	}
	if keyed(spec) {
		parts = append(parts, keyDigest(rel.key))
	}
	if atCommit(spec) {
		parts = append(parts, commitVersion)
	}
	return digest(parts...)
}

// functionDigest is triggerDigest for the functions of a trigger.
func functionDigest(spec *trigger.Spec, rel *relation, of own, relationID int32, definition string) string {
	runner := ""
	if guarded(spec, rel) {
		runner = rel.Owner
	}
	parts := []string{definition, runner, strings.Join(spec.Payload.Columns, "\x00"), columnNumbers(rel, spec.Payload.Columns)}
	if asksToHandOver(spec, rel, definition) {
		parts = append(append(parts, createHanding(of, relationID)), handingParts(of)...)
	}
	parts = append(parts, payloadDigest(spec, rel)...)
	for _, c := range rel.virtualColumns() {
		parts = append(parts, strconv.Itoa(int(c.Number)), c.Digest)
		if _, whole := capturedColumns(spec); whole {
			parts = append(parts, c.Name)
		}
	}
	if keyed(spec) {
		parts = append(parts, keyDigest(rel.key))
		if mark := of.mark(spec); mark != "" {
			parts = append(parts, mark)
		}
	}
	if atCommit(spec) {
		parts = append(parts, commitVersion, fmt.Sprint(ordered(spec)), spec.When, columnNumbers(rel, spec.On.Update.Columns))
		for _, op := range rowOperations(spec) {
			parts = append(parts, op.word())
		}
	}
	if spec.Delay > 0 {
		parts = append(parts, "delay "+delayOf(spec.Delay))
	}
	return digest(parts...)
}

// payloadDigest is the part of a digest that describes options of the payload. It is empty without
// any.
func payloadDigest(spec *trigger.Spec, rel *relation) (parts []string) {
	p := spec.Payload
	for _, own := range []trigger.PayloadOf{p.Insert, p.Update, p.Delete} {
		if perOperation(spec) || !own.IsZero() {
			parts = append(parts, "columns", strings.Join(own.Columns, "\x00"), columnNumbers(rel, own.Columns))
		}
	}
	if !storesOld(spec) {
		parts = append(parts, "without old")
	}
	if p.Numbers != "" {
		parts = append(parts, "numbers", p.Numbers)
		chosen, _ := capturedColumns(spec)
		for _, name := range chosen {
			parts = append(parts, string(rel.numbers[name]))
		}
	}
	if spec.On.Truncate {
		parts = append(parts, "truncate")
	}
	return parts
}

func columnNumbers(rel *relation, columns []string) string {
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

// sqlTriggerName returns rowhook_NAME_insert, or likewise for another operation. A name that is too
// long is cut and gets the id of the trigger behind ~. No configured name has a ~.
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
