package sqlschema

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/rule"
	"github.com/rowhook/rowhook/trigger"
)

// whole reports whether an operation is captured once for each statement, from its transition
// tables, instead of once for each row. A row of a bulk insert then costs a quarter. Single inserts
// cost the same either way. Updates of single rows cost more, since their old and new rows have to be
// paired, and nothing says how many rows a statement will change. So updates and deletes are captured
// by the statement only if the trigger says so.
//
// Such a trigger has no WHEN on rows, and the apply worker of a subscription does not run it. It
// would not see rows that an insert into a parent table routes to this one. So partitions and
// inheriting tables are captured row by row. Every other table gets a guard: a row trigger with a
// transition table and WHEN (false). Postgres refuses to attach a table with such a trigger as a
// partition or a child, so the table can't silently become one.
func whole(s *trigger.Spec, rel *relation, op operation) bool {
	switch {
	case op == truncateOp || op == guardOp || atCommit(s) || s.Capture == trigger.CaptureRows:
		return false
	case op != insertOp && s.Capture != trigger.CaptureStatement:
		return false
	}
	reason, _ := rule.ByRow(s, byte(op))
	return cmp.Or(reason, byRowOn(rel, op)) == ""
}

// guardEvent returns the operation on which the guard of a table is made, if it needs one. That is an
// operation which has a transition table in any case, so the guard adds none.
func guardEvent(s *trigger.Spec, rel *relation) (op operation, needed bool) {
	for _, op := range rowOperations(s) {
		if whole(s, rel, op) {
			return op, true
		}
	}
	return insertOp, false
}

// byRow returns why nothing of what the spec lets be captured by the statement can be on this table,
// or "".
func byRow(s *trigger.Spec, rel *relation) (reason string) {
	for _, op := range rowOperations(s) {
		if spec, _ := rule.ByRow(s, byte(op)); spec != "" {
			continue
		}
		if reason = byRowOn(rel, op); reason == "" {
			return ""
		}
	}
	return reason
}

// byRowOn returns why no trigger can capture an operation on this table by the statement, or "".
func byRowOn(rel *relation, op operation) string {
	switch {
	case rel.Hypertable:
		return fmt.Sprintf("%s is a hypertable, and TimescaleDB does not support triggers with transition tables", rel)
	case rel.Kind == "p":
		return fmt.Sprintf("%s is partitioned, and rows that are inserted directly into a partition would be missed", rel)
	case rel.Descends:
		return fmt.Sprintf("%s is a partition or inherits from another table, and rows that are inserted through that table would be missed", rel)
	case len(rel.virtualColumns()) > 0:
		return fmt.Sprintf("%s has virtual generated columns", rel)
	case op != insertOp && rel.Inherited:
		return fmt.Sprintf("tables inherit from %s, and their rows would be captured, too", rel)
	}
	return ""
}

// transitionTables names the transition tables of an operation as rowhook.capture does.
func transitionTables(op operation) string {
	return map[operation]string{
		insertOp: "referencing new table as inserted",
		updateOp: "referencing old table as was new table as became",
		deleteOp: "referencing old table as deleted",
	}[op]
}

// wholeSchema is the first version of the schema rowhook whose rowhook.capture captures updates and
// deletes by the statement.
const wholeSchema = 8

// refuseWhole returns an error if updates or deletes are captured by the statement, for a way down to a
// version whose rowhook.capture can't do that: every such write would fail.
func refuseWhole(ctx context.Context, conn *pgx.Conn, version int32) error {
	const update, remove, row = 1 << 4, 1 << 3, 1 // bits of pg_trigger.tgtype
	var names []string
	err := conn.QueryRow(ctx, `
select coalesce(array_agg(distinct t.name order by t.name), '{}')
  from (`+captureArguments+`) as x join rowhook.trigger t on t.id = x.id
 where exists (select from pg_catalog.pg_trigger g where g.tgrelid = x.relation and g.tgname = x.tgname and g.tgtype & $1 <> 0 and g.tgtype & $2 = 0)`, update|remove, row).Scan(&names)
	if err != nil {
		return fmt.Errorf("look for triggers that capture updates by the statement: %w", err)
	}
	if len(names) == 0 {
		return nil
	}
	verb := "capture"
	if len(names) == 1 {
		verb = "captures"
	}
	return fmt.Errorf("%s %s updates or deletes by the statement, which version %d can't do: apply with capture: auto first", strings.Join(names, ", "), verb, version)
}
