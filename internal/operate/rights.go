package operate

import (
	"context"
	"fmt"

	"github.com/rowhook/rowhook/internal/pg"
)

// Rights says what a database role may do. The keys are the actions of Audited that operators take,
// and list: to read events; audit: to read the audit.
type Rights map[string]bool

// need is a privilege on an object of the schema rowhook, or on one of its columns.
type need struct{ kind, name, privilege, column string }

// table returns needs of privileges on a table, or on a column of it.
//
//go:noinline
func table(name, column string, privileges ...string) (out []need) {
	for _, p := range privileges {
		out = append(out, need{"table", name, p, column})
	}
	return out
}

// of joins needs. It and table are not inlined, which makes the program 20 kB smaller.
//
//go:noinline
func of(parts ...[]need) (out []need) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// needs returns the privileges that an action needs. Those on objects that the schema does not have
// yet count as given: the action then says itself what is missing.
func needs() map[string][]need {
	audited := of(table("audit", "id", "SELECT", "INSERT", "UPDATE"), table("audit", "", "DELETE"))
	bell := []need{{"sequence", "doorbell", "SELECT", ""}}
	generation := table("setting", "value", "SELECT", "UPDATE")
	events := of(table("event_log", "new", "SELECT"), table("event_archive", "new", "SELECT"), table("dead_letter", "new", "SELECT"), table("trigger", "spec", "SELECT"))
	put := table("event_log", "new", "INSERT")
	return map[string][]need{
		"list":      of(events, table("invocation_log", "error", "SELECT")),
		"audit":     table("audit", "detail", "SELECT"),
		"pause":     of(audited, generation, bell, table("setting", "value", "INSERT"), table("trigger", "paused", "UPDATE")),
		"resume":    of(audited, generation, bell, table("setting", "value", "INSERT"), table("trigger", "paused", "UPDATE")),
		"redeliver": of(audited, events, bell, put, table("event_log", "tries", "UPDATE"), table("dead_letter", "", "DELETE"), table("event_archive", "", "DELETE")),
		"discard":   of(audited, events, table("event_log", "", "DELETE"), table("dead_letter", "", "DELETE")),
		"retry":     of(audited, bell, table("event_log", "due_at", "SELECT", "UPDATE")),
		"cancel":    of(audited, generation, bell, table("trigger", "canceled_by", "UPDATE")),
		"invoke":    of(audited, []need{{"function", "emit", "EXECUTE", ""}}),
		"replay":    of(audited, events, bell, put, table("event_archive", "", "DELETE"), table("replay", "", "SELECT", "INSERT", "UPDATE")),
		"erase": of(audited, events, table("event_log", "", "DELETE"), table("dead_letter", "", "DELETE"), table("event_archive", "new", "UPDATE"),
			table("invocation_log", "response_body", "SELECT", "UPDATE"), table("key_move", "", "SELECT", "DELETE"), table("activity", "error", "SELECT", "UPDATE"),
			table("health", "reason", "SELECT", "UPDATE"), table("alert", "facts", "SELECT", "UPDATE")),
		"backfill": of(audited, bell, put, table("backfill", "", "SELECT", "INSERT", "UPDATE")),
	}
}

// ReadRights returns what the role of the session may do.
func ReadRights(ctx context.Context, db pg.Queryer) (Rights, error) {
	var actions, kinds, names, privileges, columns []string
	out := Rights{}
	for action, all := range needs() {
		out[action] = true
		for _, n := range all {
			actions, kinds, names = append(actions, action), append(kinds, n.kind), append(names, n.name)
			privileges, columns = append(privileges, n.privilege), append(columns, n.column)
		}
	}
	// By oid: looking up a name needs the right to use the schema, which may be lacking.
	rows, err := db.Query(ctx, `
select distinct r.action
  from unnest($1::pg_catalog.text[], $2::pg_catalog.text[], $3::pg_catalog.text[], $4::pg_catalog.text[], $5::pg_catalog.text[])
         as r(action, kind, name, privilege, col)
  left join pg_catalog.pg_namespace n on n.nspname = 'rowhook'
  left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = r.name::pg_catalog.name and r.kind in ('table', 'sequence')
  left join pg_catalog.pg_proc p on p.pronamespace = n.oid and p.proname = r.name::pg_catalog.name and r.kind = 'function'
 where n.oid is null or not pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    or not coalesce(case
         when r.kind = 'function' then pg_catalog.has_function_privilege(p.oid, r.privilege)
         when r.kind = 'sequence' then pg_catalog.has_sequence_privilege(c.oid, r.privilege)
         when r.col = '' then pg_catalog.has_table_privilege(c.oid, r.privilege)
         else pg_catalog.has_column_privilege(c.oid, (
           select a.attnum from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname = r.col::pg_catalog.name and not a.attisdropped), r.privilege)
       end, true)`, actions, kinds, names, privileges, columns)
	if err != nil {
		return nil, fmt.Errorf("read the rights of the role: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var action string
		if err := rows.Scan(&action); err != nil {
			return nil, fmt.Errorf("read the rights of the role: %w", err)
		}
		out[action] = false
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the rights of the role: %w", err)
	}
	return out, nil
}
