package sqlschema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/rowhook/rowhook/internal/pg"
)

// ForeignGrant is a set of rights of one role in the schema rowhook that no command of Rowhook
// granted. They were granted by hand, or by default privileges when an object was created.
type ForeignGrant struct {
	Role string // name of the role; "public": everybody
	// Rights are in the form of GRANT: select on rowhook.event_log.
	Rights []string

	revoke []string
}

// Problem says what is wrong, with at most three of the rights.
func (g *ForeignGrant) Problem() string {
	const shown = 3
	rights := strings.Join(g.Rights[:min(shown, len(g.Rights))], "; ")
	if more := len(g.Rights) - shown; more > 0 {
		rights += fmt.Sprintf("; and %d more", more)
	}
	who := "the role " + g.Role
	if g.Role == "public" {
		who = "everybody (public)"
	}
	return fmt.Sprintf("%s has rights in the schema rowhook that Rowhook did not grant: %s", who, rights)
}

// Remedy says what to do, with the statements to run.
func (g *ForeignGrant) Remedy() string {
	sql := strings.Join(g.revoke, "; ")
	if len(g.revoke) > 3 {
		all := "revoke all on "
		sql = strings.Join([]string{
			all + "schema rowhook from " + g.Role, all + "all tables in schema rowhook from " + g.Role,
			all + "all sequences in schema rowhook from " + g.Role, all + "all functions in schema rowhook from " + g.Role,
		}, "; ")
	}
	return "run \"" + sql + "\" unless the rights are intended, and then \"rowhook apply\" again; check \"alter default privileges\", too (\\ddp in psql)"
}

// grantedTo selects who has which rights on which object in the schema rowhook, except the owners.
// Rights on single columns are listed with their table. An oid is only unique within its catalog,
// so the catalog is selected, too.
const grantedTo = `
select g.kind, g.object, g.catalog, g.oid, case g.grantee when 0 then 'public' else g.grantee::pg_catalog.regrole::pg_catalog.text end as role,
       pg_catalog.lower(g.privilege_type) as privilege, g.col, g.name, g.runs, g.dispatches
  from (
    select o.*, coalesce(o.captured_by = o.grantee, false) as runs,
           exists (select from pg_catalog.pg_attribute d cross join pg_catalog.aclexplode(d.attacl) x
                    where d.attrelid = pg_catalog.to_regclass('rowhook.event_log') and d.attname = 'due_at' and x.privilege_type = 'UPDATE' and x.grantee = o.grantee) as dispatches
      from (
        select 'schema' as kind, 'rowhook' as object, 'pg_namespace' as catalog, n.oid, a.grantee, a.privilege_type, '' as col, 'rowhook' as name, n.nspowner as owner,
               (select p.proowner from pg_catalog.pg_proc p where p.pronamespace = n.oid and p.proname ~ '^capture_[0-9]+$' and p.proowner = a.grantee and a.privilege_type = 'USAGE' limit 1) as captured_by
          from pg_catalog.pg_namespace n cross join pg_catalog.aclexplode(n.nspacl) a where n.nspname = 'rowhook'
        union all
        select case c.relkind when 'S' then 'sequence' else 'table' end, pg_catalog.format('rowhook.%I', c.relname), 'pg_class', c.oid, a.grantee, a.privilege_type, '', c.relname::text, c.relowner,
               (select p.proowner from pg_catalog.pg_proc p where p.pronamespace = c.relnamespace and p.proowner = a.grantee
                   and (c.relname = 'doorbell' and a.privilege_type = 'SELECT' and p.proname ~ '^capture_[0-9]+$'
                     or c.relname = 'event_seq' and a.privilege_type = 'USAGE' and p.proname ~ '^capture_[0-9]+$'
                     or c.relname ~ '^(inbox|ordered|moves|delayed)_' and a.privilege_type = 'INSERT' and p.proname = pg_catalog.regexp_replace(c.relname, '^(inbox|ordered|moves|delayed)_', 'capture_')) limit 1)
          from pg_catalog.pg_class c cross join pg_catalog.aclexplode(c.relacl) a where c.relnamespace = pg_catalog.to_regnamespace('rowhook')
        union all
        select 'table', pg_catalog.format('rowhook.%I', c.relname), 'pg_class', c.oid, a.grantee, a.privilege_type, t.attname::text, c.relname::text, c.relowner, null
          from pg_catalog.pg_class c join pg_catalog.pg_attribute t on t.attrelid = c.oid cross join pg_catalog.aclexplode(t.attacl) a
         where c.relnamespace = pg_catalog.to_regnamespace('rowhook') and not t.attisdropped
        union all
        select 'function', p.oid::pg_catalog.regprocedure::text, 'pg_proc', p.oid, a.grantee, a.privilege_type, '', p.proname::text, p.proowner,
               (select q.proowner from pg_catalog.pg_proc q where q.pronamespace = p.pronamespace and q.proowner = a.grantee and q.proname ~ '^capture_[0-9]+$'
                   and (p.proname in ('context', 'with_values', 'uuid7', 'as_json', 'parked', 'lane_of', 'numbers_as_text') or p.proname = pg_catalog.replace(q.proname, 'capture_', 'payload_')) limit 1)
          from pg_catalog.pg_proc p cross join pg_catalog.aclexplode(p.proacl) a where p.pronamespace = pg_catalog.to_regnamespace('rowhook')) as o
     where o.grantee <> o.owner and o.grantee <> (select nspowner from pg_catalog.pg_namespace where nspname = 'rowhook')) as g
 order by 5, 1 desc, 2, 6, 7`

type grantFound struct {
	Kind, Object, Catalog string
	OID                   uint32
	Role, Privilege, Col  string
	Name                  string
	Runs                  bool // captures that run as the role need it
	Dispatches            bool // the role has the rights of a dispatcher
}

// meant reports whether Rowhook granted the right, or its documentation tells to grant it.
func (g *grantFound) meant() bool {
	if g.Runs || g.documented() {
		return true
	}
	if !g.Dispatches {
		return false
	}
	for _, r := range dispatcherRights() {
		if r.kind != g.Kind || r.name != g.Name || !strings.EqualFold(r.privilege, g.Privilege) {
			continue
		}
		if r.columns == nil && g.Col == "" {
			return true
		}
		for _, c := range r.columns {
			if c == g.Col {
				return true
			}
		}
	}
	return false
}

// documented reports whether the documentation tells to grant the right by hand: to record manual
// events, to see those of one's own transaction, and to see all events. If default privileges granted it, it is revoked all the same.
func (g *grantFound) documented() bool {
	return g.Role != "public" && (g.Kind == "function" && (g.Name == "emit" || g.Name == "recorded") || g.Kind == "table" && g.Name == "events" && g.Privilege == "select")
}

func (g *grantFound) String() string {
	what := g.Privilege
	if g.Col != "" {
		what += " (" + pg.PlainName(g.Col) + ")"
	}
	if g.Kind != "table" {
		what += " on " + g.Kind + " " + g.Object
	} else {
		what += " on " + g.Object
	}
	return what
}

// ForeignGrants returns, by role, the rights in the schema rowhook that neither "rowhook apply" nor
// its --grant-to granted. The right to use the schema is not among them if the role may call
// rowhook.emit or rowhook.recorded, or read rowhook.events.
func ForeignGrants(ctx context.Context, db pg.Queryer) ([]ForeignGrant, error) {
	all, err := pg.Collect[grantFound](ctx, db, grantedTo)
	if err != nil {
		return nil, fmt.Errorf("read the rights in the schema rowhook: %w", err)
	}
	uses := map[string]bool{}
	for i := range all {
		uses[all[i].Role] = uses[all[i].Role] || all[i].documented()
	}
	var out []ForeignGrant
	for i := range all {
		g := &all[i]
		if g.meant() || g.Kind == "schema" && g.Privilege == "usage" && uses[g.Role] {
			continue
		}
		if len(out) == 0 || out[len(out)-1].Role != g.Role {
			out = append(out, ForeignGrant{Role: g.Role})
		}
		last := &out[len(out)-1]
		last.Rights = append(last.Rights, g.String())
		last.revoke = append(last.revoke, "revoke "+g.String()+" from "+g.Role)
	}
	return out, nil
}

// objects returns the ids of the objects in the schema rowhook, as in grantFound.
func objects(ctx context.Context, db pg.Queryer) (map[string]bool, error) {
	found, err := pg.Collect[struct{ ID string }](ctx, db, `
select 'pg_class' || oid as id from pg_catalog.pg_class where relnamespace = pg_catalog.to_regnamespace('rowhook')
union all
select 'pg_proc' || oid from pg_catalog.pg_proc where pronamespace = pg_catalog.to_regnamespace('rowhook')`)
	if err != nil {
		return nil, fmt.Errorf("list the objects in the schema rowhook: %w", err)
	}
	ids := map[string]bool{}
	for _, f := range found {
		ids[f.ID] = true
	}
	return ids, nil
}

// revokeNew revokes what default privileges granted on new objects. It leaves older objects alone:
// a right on them may have been granted by hand.
func revokeNew(ctx context.Context, conn *pgx.Conn, before map[string]bool) error {
	all, err := pg.Collect[grantFound](ctx, conn, grantedTo)
	if err != nil {
		return fmt.Errorf("read the rights in the schema rowhook: %w", err)
	}
	for i := range all {
		g := &all[i]
		if g.meant() && !g.documented() || g.Catalog == "pg_namespace" || before[g.Catalog+fmt.Sprint(g.OID)] {
			continue
		}
		if _, err := conn.Exec(ctx, "revoke "+g.String()+" from "+g.Role+" cascade"); err != nil {
			return fmt.Errorf("revoke %s from %s: %w", g, g.Role, err)
		}
	}
	return nil
}

// captureRoles returns the owners of tables as which captures run.
func captureRoles(ctx context.Context, db pg.Queryer) (map[string]bool, error) {
	found, err := pg.Collect[struct{ Role string }](ctx, db, `
select distinct p.proowner::pg_catalog.regrole::pg_catalog.text as role from pg_catalog.pg_proc p
 where p.pronamespace = pg_catalog.to_regnamespace('rowhook') and p.proname ~ '^capture_[0-9]+$'
   and p.proowner <> (select nspowner from pg_catalog.pg_namespace where nspname = 'rowhook')`)
	if err != nil {
		return nil, fmt.Errorf("list the roles as which captures run: %w", err)
	}
	roles := map[string]bool{}
	for _, f := range found {
		roles[f.Role] = true
	}
	return roles, nil
}

// revokeFormer revokes the rights that captures needed from roles as which no capture runs any
// more. It leaves the rights of a dispatcher and rights that were granted by hand, with the right
// to use the schema that they need.
func revokeFormer(ctx context.Context, conn *pgx.Conn, before map[string]bool) error {
	now, err := captureRoles(ctx, conn)
	if err != nil {
		return err
	}
	all, err := pg.Collect[grantFound](ctx, conn, grantedTo)
	if err != nil {
		return fmt.Errorf("read the rights in the schema rowhook: %w", err)
	}
	var given, use []*grantFound
	keeps := map[string]bool{}
	for i := range all {
		g := &all[i]
		switch {
		case !before[g.Role] || now[g.Role]:
		case g.Kind == "schema" && g.Privilege == "usage":
			use = append(use, g)
		case !g.meant() && (g.Kind == "sequence" && (g.Name == "doorbell" && g.Privilege == "select" || g.Name == "event_seq" && g.Privilege == "usage") || g.Kind == "function" && slices.Contains(captureCalls(), g.Name)):
			given = append(given, g)
		default:
			keeps[g.Role] = true
		}
	}
	use = slices.DeleteFunc(use, func(g *grantFound) bool { return keeps[g.Role] })
	if len(given)+len(use) == 0 {
		return nil
	}
	back, err := actAsOwner(ctx, conn)
	if err != nil {
		return err
	}
	defer back()
	for _, g := range append(given, use...) {
		if _, err := conn.Exec(ctx, "revoke "+g.String()+" from "+g.Role); err != nil {
			return fmt.Errorf("revoke %s from %s, as which no capture runs any more: %w", g, g.Role, err)
		}
	}
	return nil
}

// captureCalls are the functions that a guarded capture calls, except its own payload function.
func captureCalls() []string {
	return []string{"context", "with_values", "uuid7", "as_json", "parked", "lane_of"}
}

// createSchema revokes what default privileges grant. Without the right to use the schema, nobody
// can reach the objects that are created in it next.
const createSchema = `create schema rowhook;
do $rowhook$
declare
  grantee pg_catalog.text;
begin
  for grantee in
    select distinct case a.grantee when 0 then 'public' else a.grantee::pg_catalog.regrole::pg_catalog.text end
      from pg_catalog.pg_namespace n cross join pg_catalog.aclexplode(n.nspacl) a where n.nspname = 'rowhook' and a.grantee <> n.nspowner
  loop
    execute pg_catalog.format('revoke all on schema rowhook from %s cascade', grantee);
  end loop;
end
$rowhook$`
