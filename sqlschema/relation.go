package sqlschema

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/trigger"
)

// relation is a table as the catalog has it now.
type relation struct {
	OID         uint32
	Schema      string
	Name        string
	Kind        string // pg_class.relkind
	Persistence string // pg_class.relpersistence
	Inherited   bool   // other tables inherit from it
	Hypertable  bool   // it is TimescaleDB's, which takes care of the tables that inherit from it
	Descends    bool   // it is a partition, or inherits from another table
	MayTrigger  bool   // this role has the TRIGGER privilege
	Owned       bool   // this role owns it, or may act as its owner
	Owner       string
	// Trusted says that the owner may act as the role that captures anyway, and MayRun that this role may have what captures a
	// trigger's rows run as the owner. See guarded.
	Trusted bool
	MayRun  bool
	Member  bool // this role is a member of the owner's, with or without what that is good for
	columns []column
}

func (r *relation) sql() string    { return pg.QuoteName(r.Schema, r.Name) }
func (r *relation) String() string { return pg.PlainName(r.Schema, r.Name) }

// column is one column of a relation.
type column struct {
	Name    string
	Number  int16
	BuiltIn bool // its type is Postgres's own or a superuser's, all the way down
	Virtual bool // a generated column that is computed when it is read, so that no row that a trigger gets holds it
	// Of a virtual column: its expression, a digest of it that renames don't change, and the columns that it reads.
	Expression string
	Digest     string
	Reads      []string
}

func (r *relation) column(name string) (column, bool) {
	for _, c := range r.columns {
		if c.Name == name {
			return c, true
		}
	}
	return column{}, false
}

func (r *relation) columnNames() []string {
	names := make([]string, len(r.columns))
	for i, c := range r.columns {
		names[i] = c.Name
	}
	return names
}

func (r *relation) virtualColumns() []column {
	var virtual []column
	for _, c := range r.columns {
		if c.Virtual {
			virtual = append(virtual, c)
		}
	}
	return virtual
}

// findRelation resolves a name as SQL would, through the search_path where it is not qualified. It returns nil where there is none.
func findRelation(ctx context.Context, conn *pgx.Conn, name string) (*relation, error) {
	var oid *uint32
	err := pg.WithUsersPath(ctx, conn, func() error {
		return conn.QueryRow(ctx, "select pg_catalog.to_regclass($1)::pg_catalog.oid", name).Scan(&oid)
	})
	if err != nil {
		return nil, err
	}
	if oid == nil {
		// Newer servers find no relation by what is no name either.
		_, err := conn.Exec(ctx, "select pg_catalog.parse_ident($1)", name)
		return nil, err
	}
	return readRelation(ctx, conn, *oid)
}

// readRelation returns nil where there is no relation with this oid.
func readRelation(ctx context.Context, conn *pgx.Conn, oid uint32) (*relation, error) {
	rows, err := conn.Query(ctx, `
select c.oid, n.nspname as schema, c.relname as name, c.relkind::text as kind, c.relpersistence::text as persistence,
       c.relkind = 'r' and exists (select from pg_catalog.pg_inherits where inhparent = c.oid) as inherited,
       exists (select from pg_catalog.pg_inherits where inhrelid = c.oid) as descends,
       pg_catalog.has_table_privilege(c.oid, 'TRIGGER') as may_trigger,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') as owned,
       pg_catalog.pg_get_userbyid(c.relowner) as owner,
       pg_catalog.pg_has_role(c.relowner, i.owner, 'USAGE') or pg_catalog.pg_has_role(c.relowner, i.owner, `+setRole+`) as trusted,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') and pg_catalog.pg_has_role(c.relowner, `+setRole+`) as may_run,
       pg_catalog.pg_has_role(c.relowner, 'MEMBER') as member
  from pg_catalog.pg_class c
  cross join (select coalesce((select nspowner from pg_catalog.pg_namespace where nspname = 'rowhook'), current_user::pg_catalog.regrole) as owner) as i
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.oid = $1`, oid)
	if err != nil {
		return nil, fmt.Errorf("read the table's description: %w", err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByNameLax[relation])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the table's description: %w", err)
	}
	if r.Hypertable, err = isHypertable(ctx, conn, r); err != nil {
		return nil, fmt.Errorf("ask whether %s is a hypertable: %w", r, err)
	}
	rows, err = conn.Query(ctx, `
select a.attname as name, a.attnum as number, a.attgenerated = 'v' as virtual,
       not exists (
         with recursive part as (
           select a.atttypid as oid
           union
           select x.oid
             from part
             join pg_catalog.pg_type y on y.oid = part.oid
             join lateral (
               select y.typbasetype as oid where y.typtype = 'd'
               union all select y.typelem where y.typelem <> 0
               union all select b.atttypid from pg_catalog.pg_attribute b where b.attrelid = y.typrelid and y.typrelid <> 0 and b.attnum > 0 and not b.attisdropped
             ) x on true)
         select from part
           join pg_catalog.pg_type z on z.oid = part.oid
           join pg_catalog.pg_roles o on o.oid = z.typowner
          where not o.rolsuper) as built_in,
       case when a.attgenerated = 'v' then pg_catalog.pg_get_expr(d.adbin, d.adrelid) else '' end as expression,
       case when a.attgenerated = 'v' then pg_catalog.md5(d.adbin::text) else '' end as digest,
       case when a.attgenerated = 'v' then array(
         select r.attname::text
           from pg_catalog.pg_depend p
           join pg_catalog.pg_attribute r on r.attrelid = p.refobjid and r.attnum = p.refobjsubid
          where p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and p.objid = d.oid
            and p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and p.refobjid = a.attrelid
            and p.refobjsubid > 0 and p.refobjsubid <> a.attnum
          order by r.attnum) else '{}' end as reads
  from pg_catalog.pg_attribute a
  left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
 where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
 order by a.attnum`, oid)
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", r, err)
	}
	r.columns, err = pgx.CollectRows(rows, pgx.RowToStructByName[column])
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", r, err)
	}
	return r, nil
}

// isHypertable goes by TimescaleDB's catalog, and by the trigger that its releases before 2.22 put on each hypertable.
func isHypertable(ctx context.Context, conn *pgx.Conn, r *relation) (is bool, err error) {
	var catalog bool
	err = conn.QueryRow(ctx, `
select exists (select from pg_catalog.pg_trigger where tgrelid = $1 and tgname = 'ts_insert_blocker'),
       exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where n.nspname = '_timescaledb_catalog' and c.relname = 'hypertable'
                  and pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_table_privilege(c.oid, 'SELECT'))`, r.OID).Scan(&is, &catalog)
	if err != nil || is || !catalog {
		return is, err
	}
	err = conn.QueryRow(ctx, "select exists (select from _timescaledb_catalog.hypertable where schema_name::text = $1 and table_name::text = $2)", r.Schema, r.Name).Scan(&is)
	return is, err
}

// refusal says why the relation can't be watched, or nothing.
func (r *relation) refusal(user string, spec trigger.Spec) string {
	switch {
	case r.Schema == "rowhook":
		return fmt.Sprintf("%s is Rowhook's own, and each event would cause another: name a table of your own", r)
	case r.Schema == "pg_catalog" || r.Schema == "information_schema" || r.Schema == "pg_toast":
		return fmt.Sprintf("%s belongs to Postgres itself, which runs no triggers on it: name a table of your own", r)
	case r.Kind == "v":
		return fmt.Sprintf("%s is a view, and rows change in the tables under it: name one of those", r)
	case r.Kind == "m":
		return fmt.Sprintf("%s is a materialized view, whose refresh runs no triggers: name one of the tables under it", r)
	case r.Kind == "f":
		return fmt.Sprintf("%s is a foreign table, whose rows also change without this server knowing: run Rowhook on the server that has them", r)
	case r.Kind != "r" && r.Kind != "p":
		return fmt.Sprintf("%s is not a table: name a table", r)
	case r.Persistence == "t":
		return fmt.Sprintf("%s is a temporary table, which ends with its session: name a permanent one", r)
	case !r.MayTrigger && !r.Owned:
		return fmt.Sprintf("the role %s may not create triggers on %s: grant trigger on %s to %s, or apply as its owner %s",
			pg.PlainName(user), r, r, pg.PlainName(user), pg.PlainName(r.Owner))
	case exposed(&spec, r):
		return fmt.Sprintf("%s belongs to %s, who could run code as the role that installed Rowhook, through a type of their own in a column: "+
			"apply as a superuser or as a member of %[2]s, or choose columns of built-in types by payload: {columns: [...]}%[3]s", r, pg.PlainName(r.Owner), r.membership(user))
	case spec.OnReplication && !r.Owned:
		return fmt.Sprintf("on_replication needs ALTER TABLE, which only the owner of %s may do: apply as %s, or leave on_replication out", r, pg.PlainName(r.Owner))
	}
	return ""
}

// membership says what a member lacks to act as the owner, or nothing.
func (r *relation) membership(user string) string {
	if !r.Member {
		return ""
	}
	return fmt.Sprintf("; the role %s is a member of %s, but may not act as it: %s", pg.PlainName(user), pg.PlainName(r.Owner), grantMembership(pg.PlainName(r.Owner), pg.PlainName(user)))
}

// grantMembership is what makes a role one that acts as another, as the capture functions of that one's tables take it. From PostgreSQL 16 on
// a membership may lack either half, and the one that a role with CREATEROLE has in those that it made lacks both.
func grantMembership(owner, user string) string {
	return fmt.Sprintf("grant %s to %s with set true, inherit true (before PostgreSQL 16: alter role %[2]s inherit)", owner, user)
}

// setRole is the right to SET ROLE, which giving something to a role takes, too. Before PostgreSQL 16 every member had it.
const setRole = "case when pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 160000 then 'SET' else 'MEMBER' end"

// missingTable says that there is no such table, and which there are.
func missingTable(ctx context.Context, conn *pgx.Conn, name string, was *relation) (string, error) {
	message := fmt.Sprintf("there is no table %s in this database", name)
	if was != nil {
		return fmt.Sprintf("%s; the one that this trigger watches is now called %s: write that", message, was), nil
	}
	rows, err := conn.Query(ctx, `
select n.nspname, c.relname
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema', 'rowhook') and n.nspname !~ '^pg_(toast|temp)'
 order by 1, 2`)
	if err != nil {
		return "", fmt.Errorf("list the tables: %w", err)
	}
	var schema, table string
	var qualified, bare []string
	_, err = pgx.ForEachRow(rows, []any{&schema, &table}, func() error {
		qualified = append(qualified, pg.PlainName(schema, table))
		bare = append(bare, table)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("list the tables: %w", err)
	}
	if hint := suggest.Hint(name, qualified); hint != "" {
		return message + hint, nil
	}
	// Right but for the schema.
	var near []string
	for _, b := range suggest.Near(pg.LastPart(name), bare, 3) {
		for i := range bare {
			if bare[i] == b {
				near = append(near, qualified[i])
			}
		}
	}
	if len(near) > 0 {
		return message + "; did you mean " + pg.JoinOr(near) + "?", nil
	}
	return message + ": create it first, or correct the name", nil
}

// invalidName tells a name that Postgres can't resolve from a failure to ask.
func invalidName(err error) (string, bool) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return "", false
	}
	switch pg.Code {
	case pgerrcode.InvalidName, pgerrcode.SyntaxError, pgerrcode.InvalidParameterValue, pgerrcode.FeatureNotSupported: // what parse_ident and a cast to regclass raise
		return fmt.Sprintf("%s: write it as in SQL: table, schema.table or \"Schema\".\"Table\"", pg.Message), true
	case pgerrcode.InsufficientPrivilege:
		return fmt.Sprintf("%s: grant usage on it to this role", pg.Message), true
	}
	return "", false
}

// stored returns those of the named columns that are not computed when they are read.
func (r *relation) stored(names []string) []string {
	var out []string
	for _, name := range names {
		if c, ok := r.column(name); ok && !c.Virtual {
			out = append(out, name)
		}
	}
	return out
}
