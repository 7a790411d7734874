package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/suggest"
)

// right is a privilege on an object in the schema rowhook, or on the schema itself.
type right struct {
	kind      string // schema, table, sequence or function
	name      string
	privilege string
	columns   []string // of a table; nil: all of them
}

// dispatcherRights are the rights that a role needs to run a dispatcher, and no more. It may claim
// events, settle them and read the triggers. It can't make events, change their content, or change
// a trigger or a setting.
func dispatcherRights() []right {
	return []right{
		{kind: "schema", name: "rowhook", privilege: "USAGE"},
		{kind: "table", name: "schema_version", privilege: "SELECT"},
		{kind: "table", name: "setting", privilege: "SELECT"},
		{kind: "table", name: "trigger", privilege: "SELECT"},
		{kind: "table", name: "event_log", privilege: "SELECT"},
		{kind: "table", name: "event_log", privilege: "UPDATE", columns: []string{"due_at", "claimed_by", "tries"}},
		{kind: "table", name: "event_log", privilege: "DELETE"},
		{kind: "table", name: "event_archive", privilege: "INSERT"},
		{kind: "table", name: "dead_letter", privilege: "INSERT"},
		// An event that was redriven may die again. Metrics count the dead letters.
		{kind: "table", name: "dead_letter", privilege: "SELECT", columns: []string{"id", "trigger_id", "died_at", "tries", "reason"}},
		{kind: "table", name: "dead_letter", privilege: "UPDATE", columns: []string{"died_at", "tries", "reason"}},
		{kind: "table", name: "invocation_log", privilege: "INSERT"},
		{kind: "table", name: "instance", privilege: "SELECT"},
		{kind: "table", name: "instance", privilege: "INSERT"},
		{kind: "table", name: "instance", privilege: "UPDATE", columns: []string{"name", "listens"}},
		{kind: "table", name: "instance", privilege: "DELETE"},
		{kind: "sequence", name: "instance_id", privilege: "USAGE"},
		{kind: "sequence", name: "departures", privilege: "USAGE"},
		{kind: "sequence", name: "doorbell", privilege: "SELECT"},
		{kind: "sequence", name: "doorbell", privilege: "UPDATE"},
		{kind: "function", name: "ensure_partitions", privilege: "EXECUTE"},
		{kind: "function", name: "drop_partitions", privilege: "EXECUTE"},
		// From version 2 of the schema on.
		{kind: "function", name: "remove_partition", privilege: "EXECUTE"},
		{kind: "table", name: "activity", privilege: "SELECT"},
		{kind: "table", name: "activity", privilege: "INSERT"},
		{kind: "table", name: "activity", privilege: "UPDATE", columns: []string{"delivered", "failed", "died", "latency", "error_at", "error"}},
		{kind: "table", name: "activity", privilege: "DELETE"},
		{kind: "table", name: "backfill", privilege: "SELECT"},
		// From version 3 of the schema on.
		{kind: "table", name: "instance", privilege: "UPDATE", columns: []string{"seen_at", "trouble"}},
		{kind: "table", name: "event_log", privilege: "UPDATE", columns: []string{"claim"}},
		{kind: "table", name: "relation", privilege: "SELECT"},
		// From version 5 of the schema on.
		{kind: "table", name: "event_log", privilege: "UPDATE", columns: []string{"key", "lane"}},
		{kind: "table", name: "dead_letter", privilege: "SELECT", columns: []string{"key", "lane", "seq", "blocks"}},
		{kind: "table", name: "dead_letter", privilege: "UPDATE", columns: []string{"key", "lane", "seq", "blocks"}},
		{kind: "table", name: "lane", privilege: "SELECT"},
		{kind: "table", name: "lane", privilege: "UPDATE", columns: []string{"owner", "epoch", "deaths", "died_at"}},
		{kind: "table", name: "key_move", privilege: "SELECT"},
		{kind: "table", name: "key_move", privilege: "UPDATE", columns: []string{"ready"}},
		{kind: "table", name: "key_move", privilege: "DELETE"},
		{kind: "sequence", name: "event_seq", privilege: "SELECT"},
		{kind: "table", name: "instance", privilege: "UPDATE", columns: []string{"serves"}},
		{kind: "table", name: "health", privilege: "SELECT"},
		{kind: "table", name: "health", privilege: "INSERT"},
		{kind: "table", name: "health", privilege: "UPDATE"},
		{kind: "table", name: "health", privilege: "DELETE"},
		{kind: "table", name: "rate", privilege: "SELECT"},
		{kind: "table", name: "rate", privilege: "INSERT"},
		{kind: "table", name: "rate", privilege: "UPDATE", columns: []string{"next_at"}},
		{kind: "table", name: "share", privilege: "SELECT"},
		{kind: "table", name: "share", privilege: "INSERT"},
		{kind: "table", name: "share", privilege: "UPDATE", columns: []string{"registered", "n", "busy"}},
		{kind: "table", name: "share", privilege: "DELETE"},
		{kind: "table", name: "alert", privilege: "SELECT"},
		{kind: "table", name: "alert", privilege: "INSERT"},
		{kind: "table", name: "alert", privilege: "UPDATE"},
		{kind: "table", name: "alert", privilege: "DELETE"},
		{kind: "table", name: "alerter", privilege: "SELECT"},
		{kind: "table", name: "alerter", privilege: "INSERT"},
		{kind: "table", name: "alerter", privilege: "UPDATE"},
		// From version 6 of the schema on.
		{kind: "table", name: "activity", privilege: "UPDATE", columns: []string{"outcomes"}},
		// From version 7 of the schema on.
		{kind: "table", name: "replay", privilege: "SELECT"},
		{kind: "table", name: "trigger_table", privilege: "SELECT"},
		{kind: "table", name: "commit_row", privilege: "SELECT"},
		{kind: "table", name: "commit_row", privilege: "DELETE"},
		{kind: "function", name: "pause_by_answer", privilege: "EXECUTE"},
		{kind: "function", name: "trim_history", privilege: "EXECUTE"},
		// From version 8 of the schema on.
		{kind: "sequence", name: "handover", privilege: "SELECT"},
		{kind: "sequence", name: "handover", privilege: "UPDATE"},
	}
}

// signature returns the signature of a function in the form of GRANT.
func (r right) signature() string {
	switch r.name {
	case "ensure_partitions":
		return "ensure_partitions(timestamptz, timestamptz)"
	case "drop_partitions":
		return "drop_partitions(text, interval)"
	case "remove_partition":
		return "remove_partition(text)"
	case "pause_by_answer":
		return "pause_by_answer(integer, text, integer, text)"
	case "trim_history":
		return "trim_history(text, bigint, bigint, interval, integer[], interval[])"
	}
	return r.name
}

// String returns the right in the form of GRANT, in lower case: update (due_at) on
// rowhook.event_log.
func (r right) String() string {
	what := strings.ToLower(r.privilege)
	if r.columns != nil {
		what += " (" + strings.Join(r.columns, ", ") + ")"
	}
	switch r.kind {
	case "schema":
		return what + " on schema " + r.name
	case "table":
		return what + " on rowhook." + r.name
	}
	return what + " on " + r.kind + " rowhook." + r.signature()
}

// MissingRightsError says that a role lacks rights that a dispatcher needs.
type MissingRightsError struct {
	Role    string   // name of the role
	Missing []string // in the form of GRANT: select on rowhook.trigger
}

// Error names up to three of the rights, and the command that grants them.
func (e *MissingRightsError) Error() string {
	const shown = 3
	missing := strings.Join(e.Missing[:min(shown, len(e.Missing))], "; ")
	if more := len(e.Missing) - shown; more > 0 {
		missing += fmt.Sprintf("; and %d more", more)
	}
	return fmt.Sprintf("the role %s lacks rights that a dispatcher needs (%s): run \"rowhook apply --grant-to %s\" as the role that installed Rowhook",
		pg.PlainName(e.Role), missing, pg.PlainName(e.Role))
}

// CheckRights returns a *MissingRightsError if the role of the session lacks rights that a
// dispatcher needs. It returns nil if the schema rowhook is missing or older than this program.
func CheckRights(ctx context.Context, db pg.Queryer) error {
	var role string
	if err := db.QueryRow(ctx, "select current_user").Scan(&role); err != nil {
		return fmt.Errorf("ask for the role: %w", err)
	}
	lacking, err := lackingRights(ctx, db, role, false)
	if err != nil || len(lacking) == 0 {
		return err
	}
	e := &MissingRightsError{Role: role}
	for _, r := range lacking {
		e.Missing = append(e.Missing, r.String())
	}
	return e
}

// lackingRights returns the rights of a dispatcher that the role does not have: granted, inherited
// or as an owner. absent says whether rights on objects that do not exist count as lacking.
func lackingRights(ctx context.Context, db pg.Queryer, role string, absent bool) ([]right, error) {
	rights := dispatcherRights()
	n := len(rights)
	numbers, kinds, names, privileges, columns := make([]int32, 0, n), make([]string, 0, n), make([]string, 0, n), make([]string, 0, n), make([]string, 0, n)
	for i, r := range rights {
		each := r.columns
		if each == nil {
			each = []string{""}
		}
		for _, column := range each {
			numbers, kinds, names = append(numbers, int32(i)), append(kinds, r.kind), append(names, r.name)
			privileges, columns = append(privileges, r.privilege), append(columns, column)
		}
	}
	// By oid: looking up a name needs the right to use the schema, which may be lacking.
	rows, err := db.Query(ctx, `
select distinct r.number
  from unnest($1::pg_catalog.int4[], $2::pg_catalog.text[], $3::pg_catalog.text[], $4::pg_catalog.text[], $5::pg_catalog.text[])
         as r(number, kind, name, privilege, col)
 cross join (select oid from pg_catalog.pg_roles where rolname = $6::pg_catalog.text::pg_catalog.name) as role
  left join pg_catalog.pg_namespace n on n.nspname = 'rowhook'
  left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = r.name::pg_catalog.name and r.kind in ('table', 'sequence')
  left join pg_catalog.pg_proc p on p.pronamespace = n.oid and p.proname = r.name::pg_catalog.name and r.kind = 'function'
 where not coalesce(case
         when r.kind = 'schema' then pg_catalog.has_schema_privilege(role.oid, n.oid, r.privilege)
         when r.kind = 'function' then pg_catalog.has_function_privilege(role.oid, p.oid, r.privilege)
         when r.kind = 'sequence' then pg_catalog.has_sequence_privilege(role.oid, c.oid, r.privilege)
         when r.col = '' then pg_catalog.has_table_privilege(role.oid, c.oid, r.privilege)
         -- By number: for a column that does not exist, such as one of a later version, the result is null.
         else pg_catalog.has_column_privilege(role.oid, c.oid, (
           select a.attnum from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname = r.col::pg_catalog.name and not a.attisdropped), r.privilege)
       end, not $7)
 order by r.number`, numbers, kinds, names, privileges, columns, role, absent)
	if err != nil {
		return nil, fmt.Errorf("read the rights of %s: %w", pg.PlainName(role), err)
	}
	lacking, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (right, error) {
		var i int32
		err := row.Scan(&i)
		return rights[i], err
	})
	if err != nil {
		return nil, fmt.Errorf("read the rights of %s: %w", pg.PlainName(role), err)
	}
	return lacking, nil
}

// grants plans to grant the rights of a dispatcher that roles lack. It also works before the first
// migration. A role that does not exist is an error.
func (p *planner) grants(ctx context.Context, roles []string) error {
	return eachGrant(ctx, p.conn, roles, func(role string, lacking []right) error {
		names := make([]string, len(lacking))
		for i, r := range lacking {
			names[i] = r.String()
		}
		p.do(step{
			Change: Change{
				Action: Create, Object: "rights of a dispatcher", Name: "for " + pg.PlainName(role), Detail: strings.Join(names, "; "),
				Role: role, Rights: names,
			},
			unit: unitKey{stage: granting},
			run:  func(ctx context.Context, tx *pipeline) error { return grantRights(ctx, tx, role, lacking) },
		})
		return nil
	})
}

// grantRights grants rights to a role, and checks that it then has all rights of a dispatcher.
func grantRights(ctx context.Context, tx pgx.Tx, role string, lacking []right) error {
	for _, r := range lacking {
		if _, err := tx.Exec(ctx, "grant "+r.String()+" to "+pg.QuoteName(role)); err != nil {
			return fmt.Errorf("grant %s to %s: %w", r, pg.PlainName(role), err)
		}
	}
	// If this role may not grant a right, the server only warns.
	left, err := lackingRights(ctx, tx, role, true)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("grant %s to %s: this role may not grant it: apply as the role that installed Rowhook", left[0], pg.PlainName(role))
	}
	return err
}

// PlanGrants returns what Grant would do. It also works before the first migration.
func PlanGrants(ctx context.Context, conn *pgx.Conn, roles []string) ([]Change, error) {
	p := &planner{conn: conn, plan: &Plan{}}
	if err := p.grants(ctx, roles); err != nil {
		return nil, err
	}
	return p.plan.Changes(), nil
}

// Grant grants to roles the rights of a dispatcher that they lack, in one transaction. It returns
// one Change for each role that lacked some. The schema must be migrated. A role that does not
// exist is an error, as is a right that the session's role may not grant.
func Grant(ctx context.Context, conn *pgx.Conn, roles []string) ([]Change, error) {
	p := &planner{conn: conn, plan: &Plan{}}
	if err := p.grants(ctx, roles); err != nil {
		return nil, err
	}
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		all := &pipeline{Tx: tx}
		for _, s := range p.plan.steps {
			if err := s.run(ctx, all); err != nil {
				return err
			}
		}
		return all.send(ctx)
	})
	if err != nil {
		return nil, err
	}
	return p.plan.Changes(), nil
}

// eachGrant calls f for each role that lacks rights.
func eachGrant(ctx context.Context, db pg.Queryer, roles []string, f func(role string, lacking []right) error) error {
	existing, err := pg.Collect[struct{ Name string }](ctx, db, `select rolname::pg_catalog.text as name from pg_catalog.pg_roles order by 1`)
	if err != nil {
		return fmt.Errorf("list the roles: %w", err)
	}
	known, names := map[string]bool{}, make([]string, len(existing))
	for i, r := range existing {
		known[r.Name], names[i] = true, r.Name
	}
	var unknown []error
	for _, role := range roles {
		if !known[role] {
			unknown = append(unknown, fmt.Errorf("there is no role %s on this server%s: create it first, or correct --grant-to", pg.QuoteName(role), suggest.Hint(role, names)))
		}
	}
	if len(unknown) > 0 {
		return errors.Join(unknown...)
	}
	for _, role := range roles {
		lacking, err := lackingRights(ctx, db, role, true)
		if err != nil {
			return err
		}
		if len(lacking) == 0 {
			continue
		}
		if err := f(role, lacking); err != nil {
			return err
		}
	}
	return nil
}
