package sqlschema

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/suggest"
	"github.com/rowhook/rowhook/trigger"
)

// relation is a table as the catalog describes it now.
type relation struct {
	OID         uint32
	Schema      string
	Name        string
	Kind        string // pg_class.relkind
	Persistence string // pg_class.relpersistence
	Inherited   bool   // other tables inherit from it
	Hypertable  bool   // of TimescaleDB, which handles the inheriting tables
	Descends    bool   // it is a partition, or inherits from another table
	MayTrigger  bool   // this role has the TRIGGER privilege
	Owned       bool   // this role has the rights of its owner
	Owner       string
	// Trusted says that the owner may act as the role that captures in any case. See guarded.
	Trusted bool
	// MayRun says that this role may make a capture function run as the owner. See guarded.
	MayRun  bool
	Member  bool // this role is a member of the owner; the membership may be without any right
	columns []column
	key     []keyPart  // of an ordered trigger, once its Spec was checked
	mayKey  []keyFound // columns that may be a part of it, once readKeys has read them
	entry   int        // which of Spec.Tables names it
	// numbers are the columns whose numbers are written as texts, once the Spec was checked.
	numbers map[string]numberKind
}

func (r *relation) sql() string    { return pg.QuoteName(r.Schema, r.Name) }
func (r *relation) String() string { return pg.PlainName(r.Schema, r.Name) }

// column is one column of a relation.
type column struct {
	Name    string
	Number  int16
	BuiltIn bool // its type and all types within it are Postgres' own or a superuser's
	Type    uint32
	Made    bool // its type was made in this database, so it may have a cast to json
	Virtual bool // it is a virtual generated column; the row that a trigger gets does not hold it
	// The following are of a virtual column.
	Expression string
	Digest     string   // of the expression; a rename does not change it
	Reads      []string // names of the columns that the expression reads
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

// shape describes the columns, for what depends on nothing else of a table.
func (r *relation) shape() string {
	var b strings.Builder
	for _, c := range r.columns {
		fmt.Fprintf(&b, "%q %d %t ", c.Name, c.Type, c.Virtual)
	}
	return b.String()
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

// findRelation looks up a name like SQL: by the search_path if it has no schema. It returns nil if
// there is no such relation.
func findRelation(ctx context.Context, conn *pgx.Conn, name string) (*relation, error) {
	var oid *uint32
	err := pg.WithUsersPath(ctx, conn, func() error {
		return conn.QueryRow(ctx, "select pg_catalog.to_regclass($1)::pg_catalog.oid", name).Scan(&oid)
	})
	if err != nil {
		return nil, err
	}
	if oid == nil {
		// For a malformed name newer servers return null, too. parse_ident returns the error.
		_, err := conn.Exec(ctx, "select pg_catalog.parse_ident($1)", name)
		return nil, err
	}
	return readRelation(ctx, conn, *oid)
}

// readRelation returns the relation with this oid, or nil.
func readRelation(ctx context.Context, conn *pgx.Conn, oid uint32) (*relation, error) {
	found, err := readRelations(ctx, conn, []uint32{oid})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// readRelations returns the relations with these oids that exist, by name.
func readRelations(ctx context.Context, conn *pgx.Conn, oids []uint32) ([]*relation, error) {
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
 where c.oid = any($1)
 order by n.nspname, c.relname`, oids)
	if err != nil {
		return nil, fmt.Errorf("read the description of tables: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByNameLax[relation])
	if err != nil || len(found) == 0 {
		return nil, orNil(err, "read the description of tables")
	}
	if err := findHypertables(ctx, conn, found); err != nil {
		return nil, fmt.Errorf("look for hypertables: %w", err)
	}
	byOID := make(map[uint32]*relation, len(found))
	for _, r := range found {
		byOID[r.OID] = r
	}
	rows, err = conn.Query(ctx, `
select a.attrelid as relation, a.attname as name, a.attnum as number, a.attgenerated = 'v' as virtual,
       a.atttypid as type, a.atttypid >= 16384 as made, a.atttypid < 16384 as built_in,
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
  from (select distinct w from pg_catalog.unnest($1::pg_catalog.oid[]) as w offset 0) as of (oid)
  join pg_catalog.pg_attribute a on a.attrelid = of.oid
  left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum and a.atthasdef
 where a.attnum > 0 and not a.attisdropped
 order by a.attrelid, a.attnum`, oids)
	if err != nil {
		return nil, fmt.Errorf("read the columns of tables: %w", err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByName[columnOf])
	if err != nil {
		return nil, fmt.Errorf("read the columns of tables: %w", err)
	}
	for i := range columns {
		if r := byOID[columns[i].Relation]; r != nil {
			r.columns = append(r.columns, columns[i].column)
		}
	}
	return found, findBuiltIn(ctx, conn, found)
}

// findBuiltIn finds the columns whose type was made in this database, but by superusers alone. Types
// of Postgres' own, whose oids are below 16384, are a superuser's and made of such types.
func findBuiltIn(ctx context.Context, conn *pgx.Conn, relations []*relation) error {
	made := map[uint32]bool{}
	for _, r := range relations {
		for _, c := range r.columns {
			if c.Made {
				made[c.Type] = true
			}
		}
	}
	if len(made) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, `
select w.oid
  from pg_catalog.unnest($1::pg_catalog.oid[]) as w (oid)
 where not exists (
         with recursive part as (
           select w.oid as oid
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
          where not o.rolsuper)`, slices.Collect(maps.Keys(made)))
	if err != nil {
		return fmt.Errorf("read the owners of types: %w", err)
	}
	builtIn, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return fmt.Errorf("read the owners of types: %w", err)
	}
	for _, r := range relations {
		for i := range r.columns {
			if c := &r.columns[i]; c.Made {
				c.BuiltIn = slices.Contains(builtIn, c.Type)
			}
		}
	}
	return nil
}

// orNil returns nil for nil, and any other error with what failed.
func orNil(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// columnOf is a column with its relation.
type columnOf struct {
	Relation uint32
	column
}

// findHypertables looks in the catalog of TimescaleDB, and for the trigger that its versions before
// 2.22 put on each hypertable.
func findHypertables(ctx context.Context, conn *pgx.Conn, relations []*relation) error {
	oids := make([]uint32, len(relations))
	for i, r := range relations {
		oids[i] = r.OID
	}
	var found []uint32
	var catalog bool
	err := conn.QueryRow(ctx, `
select array(select tgrelid from pg_catalog.pg_trigger where tgrelid = any($1) and tgname = 'ts_insert_blocker'),
       exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where n.nspname = '_timescaledb_catalog' and c.relname = 'hypertable'
                  and pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_table_privilege(c.oid, 'SELECT'))`, oids).Scan(&found, &catalog)
	if err == nil && catalog {
		var more []uint32
		err = conn.QueryRow(ctx, `
select array(select c.oid from _timescaledb_catalog.hypertable h
               join pg_catalog.pg_namespace n on n.nspname = h.schema_name::pg_catalog.name
               join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = h.table_name::pg_catalog.name
              where c.oid = any($1))`, oids).Scan(&more)
		found = append(found, more...)
	}
	for _, r := range relations {
		r.Hypertable = slices.Contains(found, r.OID)
	}
	return err
}

// refusal returns why the relation can't be watched, or "".
func (r *relation) refusal(user string, spec trigger.Spec) string {
	switch {
	case r.Schema == "rowhook":
		return fmt.Sprintf("%s is Rowhook's own table, and each event would cause another one: name a table of your own", r)
	case r.Schema == "pg_catalog" || r.Schema == "information_schema" || r.Schema == "pg_toast":
		return fmt.Sprintf("%s belongs to Postgres itself, which runs no triggers on it: name a table of your own", r)
	case r.Kind == "v":
		return fmt.Sprintf("%s is a view, and rows change in the tables that it reads: name one of those", r)
	case r.Kind == "m":
		return fmt.Sprintf("%s is a materialized view, and its refresh runs no triggers: name one of the tables that it reads", r)
	case r.Kind == "f":
		return fmt.Sprintf("%s is a foreign table, and its rows can change without this server knowing: run Rowhook on the server that has the rows", r)
	case r.Kind != "r" && r.Kind != "p":
		return fmt.Sprintf("%s is not a table: name a table", r)
	case r.Persistence == "t":
		return fmt.Sprintf("%s is a temporary table, which ends with its session: name a permanent table", r)
	case !r.MayTrigger && !r.Owned:
		return fmt.Sprintf("the role %s may not create triggers on %s: grant trigger on %s to %s, or apply as its owner %s",
			pg.PlainName(user), r, r, pg.PlainName(user), pg.PlainName(r.Owner))
	case exposed(&spec, r):
		return fmt.Sprintf("%s belongs to %s, who could run code as the role that installed Rowhook by a column of a self-made type: "+
			"apply as a superuser or as a member of %[2]s, or choose columns of built-in types by payload: {columns: [...]}%[3]s", r, pg.PlainName(r.Owner), r.membership(user))
	case spec.OnReplication && !r.Owned:
		return fmt.Sprintf("on_replication needs ALTER TABLE, which only the owner of %s may do: apply as %s, or remove on_replication", r, pg.PlainName(r.Owner))
	}
	return ""
}

// membership returns what a member lacks to act as the owner, or "".
func (r *relation) membership(user string) string {
	if !r.Member {
		return ""
	}
	return fmt.Sprintf("; the role %s is a member of %s, but may not act as it: %s", pg.PlainName(user), pg.PlainName(r.Owner), grantMembership(pg.PlainName(r.Owner), pg.PlainName(user)))
}

// grantMembership returns the statement that lets a role act as another one, which capture
// functions of that role's tables need. From PostgreSQL 16 on a membership may lack either option.
// The membership that a role with CREATEROLE has in the roles that it created lacks both.
func grantMembership(owner, user string) string {
	return fmt.Sprintf("grant %s to %s with set true, inherit true (before PostgreSQL 16: alter role %[2]s inherit)", owner, user)
}

// setRole is the privilege to SET ROLE. Giving an object to a role needs it, too. Before PostgreSQL
// 16 every member had it.
const setRole = "case when pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 160000 then 'SET' else 'MEMBER' end"

// missingTable returns the message that a table does not exist, with similar names.
func missingTable(ctx context.Context, conn *pgx.Conn, name string, was *relation) (string, error) {
	message := fmt.Sprintf("there is no table %s in this database", name)
	if was != nil {
		return fmt.Sprintf("%s; the table that this trigger watches is now called %s: write that name", message, was), nil
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
	// The name may be right and the schema wrong.
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

// invalidName returns a message if Postgres can't resolve a name. ok is false for any other error.
func invalidName(err error) (message string, ok bool) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return "", false
	}
	switch pg.Code {
	// parse_ident and a cast to regclass raise these.
	case pgerrcode.InvalidName, pgerrcode.SyntaxError, pgerrcode.InvalidParameterValue, pgerrcode.FeatureNotSupported:
		return fmt.Sprintf("%s: write it as in SQL: table, schema.table or \"Schema\".\"Table\"", pg.Message), true
	case pgerrcode.InsufficientPrivilege:
		return fmt.Sprintf("%s: grant usage on it to this role", pg.Message), true
	}
	return "", false
}

// stored returns the named columns without the virtual ones.
func (r *relation) stored(names []string) []string {
	var out []string
	for _, name := range names {
		if c, ok := r.column(name); ok && !c.Virtual {
			out = append(out, name)
		}
	}
	return out
}
