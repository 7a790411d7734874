package sqlschema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhook/rowhook/internal/pg"
	"github.com/rowhook/rowhook/internal/queue"
	"github.com/rowhook/rowhook/trigger"
)

// keyPart is a column of the key of an ordered trigger.
type keyPart struct {
	Name   string
	Number int16
	Kind   string // how its value is written: one of the keys of canonical
	Base   string // its type without domains, for SQL
}

// ordered reports whether captures write a key.
func ordered(s *trigger.Spec) bool { return !s.Order.IsZero() && len(rowOperations(s)) > 0 }

// keyColumns returns the names of the columns of the key.
func (r *relation) keyColumns() []string {
	names := make([]string, len(r.key))
	for i := range r.key {
		names[i] = r.key[i].Name
	}
	return names
}

// canonical returns SQL for a JSON value that is the same for all equal values of a column, and no
// others. x is SQL for the value of the base type. Texts above longText bytes are hashed. A hash
// that two texts share would only make one wait for the other.
func canonical(kind, x string) string {
	const (
		longText = "200"
		encoded  = "pg_catalog.convert_to(%s, pg_catalog.getdatabaseencoding())"
	)
	text := func(x string) string {
		return "case when pg_catalog.octet_length(" + x + ") > " + longText + " then pg_catalog.concat(pg_catalog.left(" + x + ", 30), '... sha256 ', " +
			"pg_catalog.encode(pg_catalog.sha256(" + fmt.Sprintf(encoded, x) + "), 'hex')) else " + x + " end"
	}
	switch kind {
	case "numeric": // 1.10 = 1.1
		x = "pg_catalog.trim_scale(" + x + ")"
	case "float4", "float8": // -0 = 0
		x = "(" + x + " operator(pg_catalog.+) 0::pg_catalog." + kind + ")"
	case "text", "bpchar": // as text, bpchar has no blanks at its end
		x = text(x + "::pg_catalog.text")
	case "citext":
		x = text(`pg_catalog.lower(` + x + `::pg_catalog.text collate "default")`)
	case "bytea":
		x = "case when pg_catalog.octet_length(" + x + ") > " + longText + " then pg_catalog.concat('sha256 ', pg_catalog.encode(pg_catalog.sha256(" + x + "), 'hex')) else pg_catalog.encode(" + x + ", 'hex') end"
	case "enum": // not by a cast, since its owner can make one
		x = "pg_catalog.textin(pg_catalog.enum_out(" + x + "))"
	}
	return "pg_catalog.to_json(" + x + ")"
}

// keyKinds are the kinds of types in pg_catalog whose values canonical can write. Of other types it
// is not known that equal values have the same text.
func keyKinds() map[string]string {
	kinds := map[string]string{"varchar": "text", "name": "text"}
	for _, name := range []string{
		"int2", "int4", "int8", "oid", "bool", "uuid", "date", "time", "timestamp", "timestamptz", "inet", "cidr", "macaddr", "macaddr8",
		"numeric", "float4", "float8", "text", "bpchar", "bytea",
	} {
		kinds[name] = name
	}
	return kinds
}

// keyExpression returns SQL for the key of a row: the JSON array of the values of its columns. A
// null is a value like any other. mark is the first value; "": there is none.
func keyExpression(key []keyPart, mark string) string {
	parts := []string{"'['"}
	if mark != "" {
		parts = []string{pg.StringLiteral("[" + jsonString(mark) + ",")}
	}
	for i, k := range key {
		x := "($1)." + pg.QuoteName(k.Name)
		if k.Base != "" {
			x = "(" + x + ")::" + k.Base
		}
		if i > 0 {
			parts = append(parts, "','")
		}
		parts = append(parts, "coalesce("+canonical(k.Kind, x)+", 'null')")
	}
	return "pg_catalog.concat(" + strings.Join(append(parts, "']'"), ", ") + ")"
}

// key returns a call of the function that returns the key of a row. It is an overload of
// the payload function, so that programs of schema 4 find it, and drop it with the other one.
func (o own) key(row string) string { return o.payload() + "(" + row + ", 'key')" }

// mark returns what keeps the keys of the tables of one trigger apart, or "". Primary keys are of
// different rows in each table. Keys of named columns mean the same in all of them: the changes of a
// customer are in order whatever table they are of. But then of several changes the latest is not
// that of the same row.
func (o own) mark(spec *trigger.Spec) string {
	if o.relation == 0 || !spec.Order.ByRow() && !spec.Order.Latest {
		return ""
	}
	return fmt.Sprintf("#%d", o.relation)
}

// createKey returns the statement that makes the function from a row to its key. Postgres inlines
// it, follows renames, and refuses to drop or to retype a column that it reads. Its parameters have
// no names: if only one of them had, a dump would write the other one as "".
func createKey(spec *trigger.Spec, rel *relation, of own) string {
	return fmt.Sprintf("create or replace function %s(%s, text) returns text language sql stable return %s", of.payload(), rel.sql(), keyExpression(rel.key, of.mark(spec)))
}

// keyFound is a column of the primary key, or one that a Spec names as a part of the key.
type keyFound struct {
	Relation      uint32
	Primary       bool // it is of the primary key
	Name          string
	Number        int16
	Type          string // as Postgres prints it
	BaseSchema    string // of the type without domains
	BaseName      string // pg_type.typname of it
	BuiltIn       bool   // it is in pg_catalog
	Kind          string // pg_type.typtype of it
	Citext        bool   // it is that of the extension
	Deterministic bool   // its collation takes only equal bytes for equal
	Virtual       bool
}

// readKeys reads, for all of these tables at once, the columns of the primary key and those with
// these names.
func readKeys(ctx context.Context, conn *pgx.Conn, rels []*relation, names []string) error {
	byOID, oids := make(map[uint32]*relation, len(rels)), make([]uint32, len(rels))
	for i, rel := range rels {
		rel.mayKey = nil
		byOID[rel.OID], oids[i] = rel, rel.OID
	}
	found, err := pg.Collect[keyFound](ctx, conn, `
with recursive part as (
  select a.attrelid, coalesce(a.attnum = any (x.indkey), false) as is_primary, a.attname, a.attnum, a.attcollation, a.attgenerated,
         pg_catalog.format_type(a.atttypid, a.atttypmod) as declared, a.atttypid as oid
    from (select distinct w from pg_catalog.unnest($1::pg_catalog.oid[]) as w offset 0) as of (oid)
    join pg_catalog.pg_attribute a on a.attrelid = of.oid
    left join pg_catalog.pg_index x on x.indrelid = of.oid and x.indisprimary
   where a.attnum > 0 and not a.attisdropped and (a.attnum = any (x.indkey) or a.attname = any($2))
  union all
  select p.attrelid, p.is_primary, p.attname, p.attnum, p.attcollation, p.attgenerated, p.declared, t.typbasetype
    from part p join pg_catalog.pg_type t on t.oid = p.oid where t.typtype = 'd')
select p.attrelid as relation, p.is_primary as "primary", p.attname::text as name, p.attnum as number, p.declared as type, n.nspname::text as base_schema, t.typname::text as base_name,
       n.nspname = 'pg_catalog' as built_in, t.typtype::text as kind,
       t.typname = 'citext' and exists (select from pg_catalog.pg_depend d join pg_catalog.pg_extension e on e.oid = d.refobjid
         where d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid and d.deptype = 'e' and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and e.extname = 'citext') as citext,
       coalesce((select c.collisdeterministic from pg_catalog.pg_collation c where c.oid = p.attcollation), true) as deterministic, p.attgenerated = 'v' as virtual
  from part p
  join pg_catalog.pg_type t on t.oid = p.oid and t.typtype <> 'd'
  join pg_catalog.pg_namespace n on n.oid = t.typnamespace
 order by p.attrelid, p.attnum`, oids, names)
	if err != nil {
		return fmt.Errorf("read the keys of tables: %w", err)
	}
	for i := range found {
		if rel := byOID[found[i].Relation]; rel != nil {
			rel.mayKey = append(rel.mayKey, found[i])
		}
	}
	return nil
}

// primaryKey returns the columns of the primary key, once readKeys has read them.
func (r *relation) primaryKey() (names []string) {
	for i := range r.mayKey {
		if r.mayKey[i].Primary {
			names = append(names, r.mayKey[i].Name)
		}
	}
	return names
}

// keyOf returns the key of an ordered trigger. readKeys must have read its columns. problem is
// called with what is wrong with them, for people.
func keyOf(rel *relation, spec *trigger.Spec, problem func(column int, message string)) []keyPart {
	names, found := spec.Order.By, rel.mayKey
	if spec.Order.ByRow() {
		if names = rel.primaryKey(); len(names) == 0 {
			problem(-1, fmt.Sprintf("%s has no primary key, by which \"row\" orders the events of a row: add one, or name the columns of the key, such as order: {by: [%s]}", rel, rel.example()))
			return nil
		}
	}
	var key []keyPart
	for i, name := range names {
		at := slices.IndexFunc(found, func(f keyFound) bool { return f.Name == name })
		if at < 0 {
			continue // the caller reports it
		}
		k, message := found[at].part(rel)
		if message != "" {
			problem(i, message)
			continue
		}
		key = append(key, k)
	}
	return key
}

// part returns how the column is written, or why it can't be.
func (f *keyFound) part(rel *relation) (k keyPart, problem string) {
	// Not quoted by the server, where quote_all_identifiers would change the digest.
	k = keyPart{Name: f.Name, Number: f.Number, Base: pg.QuoteName(f.BaseSchema, f.BaseName)}
	what := fmt.Sprintf("the column %s of %s", pg.PlainName(f.Name), rel)
	const remedy = ": name another column, or add a generated column with the text that identifies the value, and name that"
	switch {
	case f.Virtual:
		return k, what + " is a virtual generated column, and the row that a trigger gets does not hold it: name a stored column"
	case !f.Deterministic:
		return k, what + " has a nondeterministic collation, under which different texts are equal, so they can't be a key" + remedy
	case f.Kind == "e":
		k.Kind, k.Base = "enum", ""
	case f.Citext:
		k.Kind = "citext"
	case f.BuiltIn:
		k.Kind = keyKinds()[f.BaseName]
	}
	if k.Kind == "" {
		return k, fmt.Sprintf("%s is of type %s, of which equal values can be written differently, so it can't be a key%s", what, f.Type, remedy)
	}
	return k, ""
}

// example returns the name of a column, for a message.
func (r *relation) example() string {
	if len(r.columns) == 0 {
		return "customer_id"
	}
	return pg.PlainName(r.columns[0].Name)
}

func createOrdered(of own) string {
	return fmt.Sprintf("create or replace view %s with (security_barrier) as select id, trigger_id, op, old, new, session, trace, relation_id, due_at, key, lane, seq "+
		"from rowhook.event_log where %s with check option", of.ordered(), of.condition())
}

func createMoves(of own) string {
	return fmt.Sprintf("create or replace view %s with (security_barrier) as select event_id, trigger_id, lane, seq, key "+
		"from rowhook.key_move where trigger_id = %d with check option", of.moves(), of.id)
}

// orderedVersion is a part of the digest of a function. It changes with the texts below.
const orderedVersion = "1"

// placed is SQL for due_at, key, lane and seq of an event with a key, %[1]s, and a number, %[2]s.
const placed = "clock_timestamp() + coalesce(rowhook.parked(), interval '0'), case when rowhook.parked() is not null then %[1]s end,\n" +
	"      case when rowhook.parked() is not null then rowhook.lane_of(%[1]s) end, case when rowhook.parked() is not null then %[2]s end"

// orderedCapture replaces the part of rowhook.capture that records events. While rowhook.parked()
// is null, events are recorded as those of any trigger: see the migration that made it.
//
// The key of a row in a transition table can only be computed from a record of the type of the
// table. The name of that type is that of the table, so a renamed table takes the statement that is
// put together. If a column of the key was dropped by "cascade", the function of the key is gone, and
// the events of inserts are recorded without order until the next apply.
func orderedCapture(definition string, rel *relation, of own) (string, error) {
	const begin, end, declared = "  if tg_level = 'STATEMENT' then\n", "  if coalesce(tg_argv[1], '') <> 'never'", "  trace   json;\n"
	before, rest, ok := strings.Cut(definition, begin)
	_, after, okToo := strings.Cut(rest, end)
	if !ok || !okToo || strings.Count(before, declared) != 1 {
		return "", fmt.Errorf("derive a capture function: the definition of rowhook.capture was changed by hand: restore it, or uninstall and apply again")
	}
	before = strings.Replace(before, declared, declared+"  event   uuid;\n  place   bigint;\n  key     text;\n  was     text;\n  many    bigint;\n", 1)
	const (
		columns = "insert into rowhook.event_log (id, trigger_id, relation_id, op, new, session, trace, due_at, key, lane, seq)\n"
		ours    = "rowhook.uuid7(), tg_argv[0]::integer, tg_argv[2]::integer, 'I', row_to_json(r.*), session, trace"
	)
	whole := func(values, table string) string {
		return columns + "      select " + values + ", " + fmt.Sprintf(placed, "x.k", "nextval('rowhook.event_seq'::regclass)") +
			"\n        from inserted as r cross join lateral (select " + of.key("row(r.*)::"+table) + " as k offset 0) as x"
	}
	renamed := whole(strings.NewReplacer("tg_argv[0]", "$1", "tg_argv[2]", "$2", "session", "$3", "trace", "$4").Replace(ours), "%s")
	body := begin +
		"    if to_regprocedure(concat('" + of.payload() + "(', tg_relid::regclass, ', text)')) is null then\n" +
		"      insert into rowhook.event_log (id, trigger_id, relation_id, op, new, session, trace)\n      select " + ours + " from inserted as r;\n" +
		"    elsif tg_table_schema = " + pg.StringLiteral(rel.Schema) + " and tg_table_name = " + pg.StringLiteral(rel.Name) + " then\n" +
		"      " + whole(ours, rel.sql()) + ";\n" +
		"    else\n" +
		"      execute format($rowhook$\n      " + renamed + "$rowhook$, tg_relid::regclass) using tg_argv[0], tg_argv[2], session, trace;\n" +
		"    end if;\n" +
		"    get diagnostics many = row_count;\n" +
		"    if many = 0 then\n      return null;\n    end if;\n" +
		"  else\n" +
		"    event := rowhook.uuid7();\n" +
		"    place := nextval('rowhook.event_seq'::regclass);\n" +
		"    if tg_op <> 'INSERT' then\n      was := " + of.key("old") + ";\n    end if;\n" +
		"    if tg_op = 'DELETE' then\n      key := was;\n    else\n      key := " + of.key("new") + ";\n    end if;\n" +
		"    insert into rowhook.event_log (id, trigger_id, relation_id, op, old, new, session, trace, due_at, key, lane, seq)\n" +
		"    values (event, tg_argv[0]::integer, tg_argv[2]::integer, tg_op::\"char\", row_to_json(old), row_to_json(new), session, trace,\n      " +
		fmt.Sprintf(placed, "key", "place") + ");\n" +
		"    if was <> key then\n" +
		"      insert into rowhook.key_move (event_id, trigger_id, lane, seq, key)\n" +
		"      select event, tg_argv[0]::integer, rowhook.lane_of(was), place, was where rowhook.parked() is not null;\n" +
		"    end if;\n" +
		"  end if;\n"
	return before + body + end + after, nil
}

// keyDigest is the part of a digest that describes the key. A rename changes nothing.
func keyDigest(key []keyPart) string {
	var b strings.Builder
	b.WriteString("order " + orderedVersion)
	for _, k := range key {
		fmt.Fprintf(&b, " %d:%s:%s", k.Number, k.Kind, k.Base)
	}
	return b.String()
}

// writeLanes makes the lanes of an ordered trigger, and removes those of another one.
func writeLanes(ctx context.Context, tx pgx.Tx, id int32, want bool) error {
	sql := "delete from rowhook.lane where trigger_id = $1 and lane >= $2"
	if want {
		sql = "insert into rowhook.lane (trigger_id, lane) select $1, n from pg_catalog.generate_series(0, $2::integer - 1) n on conflict do nothing"
	}
	most := 0
	if want {
		most = queue.Lanes
	}
	if _, err := tx.Exec(ctx, sql, id, most); err != nil {
		return fmt.Errorf("write the lanes of trigger %d: %w", id, err)
	}
	return nil
}
